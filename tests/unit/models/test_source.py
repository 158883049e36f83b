"""What a model is called: a hub id, a run, or what the configuration of a local folder says."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import ModelSection
from pipelines.models.source import resolve


@pytest.mark.parametrize(
    ("name", "file", "config", "title"),
    [
        ("hf", "config.json", {"architectures": ["MobileNetV2ForImageClassification"]}, "MobileNetV2 (local folder)"),
        ("model", "config.json", {"architectures": ["ViTModel"], "_name_or_path": "/home/me/x"}, "ViT (local folder)"),
        ("model", "config.json", {"_name_or_path": "clients/acme"}, "a model (local folder)"),
        ("model", "config.json", {"_name_or_path": "clients/acme", "model_type": "vit"}, "vit (local folder)"),
        ("hf", "config.json", {"model_type": "mobilenet_v2"}, "mobilenet_v2 (local folder)"),
        ("weights", "config.json", {"architecture": "resnet18"}, "resnet18 (local folder)"),
        ("hf", "model_index.json", {"_class_name": "DDPMPipeline"}, "DDPMPipeline (local folder)"),
        ("hf", "config.json", {"architectures": [], "model_type": 7}, "a model (local folder)"),
        ("hf", "config.json", {"architectures": ["x" * 99]}, "x" * 59 + "… (local folder)"),
        ("hf", "config.json", {"architectures": ["\x1b[31mred", "/home/me"]}, "a model (local folder)"),
        ("hf", "pytorch_lora_weights.safetensors", {}, "a model (local folder)"),
    ],
)
def test_a_local_folder_is_called_what_it_holds(
    name: str, file: str, config: dict[str, Any], title: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text(json.dumps(config))
    found = resolve(ModelSection(id=str(tmp_path / name)))
    assert (found.title, found.name) == (title, name)


def test_a_run_keeps_its_name(tmp_path: Path) -> None:
    model = tmp_path / "photos-lr3e-3" / "model"
    model.mkdir(parents=True)
    for path in (model / "config.json", model / "results.json", model.parent / "results.json"):
        path.write_text("{}")
    assert resolve(ModelSection(id=str(model.parent))).title == "photos-lr3e-3"
