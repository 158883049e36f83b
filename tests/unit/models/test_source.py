"""What a model is called: a hub id, a run, or what the configuration of a local folder says."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import ModelSection
from pipelines.models.source import resolve
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)


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


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "smp", "architecture": "unet", "encoder": "resnet18", "encoder_weights": "PLACE"},
        {"model_type": "torchvision", "architecture": "fasterrcnn", "backbone_weights": "PLACE"},
    ],
)
def test_a_new_model_on_a_pretrained_encoder_is_not_from_scratch(
    config: dict[str, Any], tmp_path: Path, hub: HubServer
) -> None:
    """It names the hub id of the encoder's weights, or what a folder holds, but no path."""
    made = tmp_path / "clients" / "acme"
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    (made / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    hub.add_model("timm/resnet18.a1_in1k", made)
    kind = config["architecture"]
    for place, name, base in (
        (str(made), f"new {kind} on resnet18 (local folder)", None),
        ("timm/resnet18.a1_in1k", f"new {kind} on timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
    ):
        of = {key: place if value == "PLACE" else value for key, value in config.items()}
        found = resolve(ModelSection(config=of))
        assert (found.name, found.title, found.base_model, found.license) == (name, name, base, "apache-2.0")
        assert (found.random, found.scratch) == (True, False)
    plain = resolve(ModelSection(config={key: value for key, value in config.items() if value != "PLACE"}))
    assert (plain.name, plain.scratch, plain.base_model) == (f"{kind} from scratch", True, None)
