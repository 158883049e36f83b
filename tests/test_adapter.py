"""An adapter that is published alone: trained, loaded on its base model from the hub, published, used without Graft."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.errors import ModelError
from pipelines.hub import publish
from pipelines.recipe import validate
from pipelines.run import train
from pipelines.stages import build
from pipelines.tasks.image_classification import ImageClassification
from pipelines.weights import load, resolve
from tests import tiny
from tests.hub import USER, HubServer, hub  # noqa: F401 (a fixture)

BASE = "google/vit-base-patch16-224-in21k"


def recipe(data: Path, model: str, **hub_section: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": {"id": model, "adapter": {"kind": "lora", "rank": 2}},
        "data": {"id": str(data), "workers": 0},
        "train": {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
        "hub": {"adapter": True, "examples": 1, **hub_section},
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.photos(tmp_path / "photos", n=6)


def test_an_adapter_alone_goes_all_the_way(hub: HubServer, photos: Path, tmp_path: Path) -> None:  # noqa: F811
    hub.add_model(BASE, tiny.vit(tmp_path / "base"))
    run, whole = tmp_path / "run", tmp_path / "whole"
    results = train(validate(recipe(photos, BASE)), run)
    merged = train(validate(recipe(photos, BASE, adapter=False)), whole)
    assert results
    assert merged
    assert results["test"]["metrics"] == pytest.approx(merged["test"]["metrics"], abs=1e-6), "the adapter on its base is the merged model"
    names = {path.name for path in (run / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= names
    assert "model.safetensors" not in names
    assert json.loads((run / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == BASE
    publish(run, f"{USER}/adapter", say=str)
    photo = run / "model" / "examples" / "0.jpg"
    here, there = load(run, device="cpu").infer(photo), load(f"{USER}/adapter", device="cpu").infer(photo)
    assert here == there
    code = re.search(r"```python\n(.*?)```", (run / "model" / "README.md").read_text(), re.S)
    assert code
    command = [sys.executable, "-c", "import sys; sys.modules['pipelines'] = None\n" + code[1]]
    done = subprocess.run(command, env=hub.env, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S+)$", done.stdout, re.M)}
    assert found == pytest.approx({a["label"]: a["score"] for a in here}, abs=6e-4)


def test_an_adapter_alone_needs_a_base_on_the_hub(photos: Path, tmp_path: Path) -> None:
    local = tiny.vit(tmp_path / "base")
    with pytest.raises(ModelError, match=r"hub.adapter: an adapter alone is of use with a base model of the hub, base is none"):
        train(validate(recipe(photos, str(local))), tmp_path / "run")


def test_a_head_of_several_parts_trains_whole(photos: Path, tmp_path: Path) -> None:
    """PoolFormer's head is a norm and a classifier: both train beside LoRA, or the new classifier would stay as it was drawn."""
    from pipelines.data import load_splits, needs_of

    raw = {**recipe(photos, str(tiny.poolformer(tmp_path / "m"))), "hub": {}}
    wanted = validate(raw)
    task = ImageClassification()
    model = build(wanted, task, resolve(wanted.model), load_splits(wanted.data, needs_of(task)))
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum("classifier" in name for name in trains) == 2
    assert any(".norm" in name for name in trains)
    assert any("lora_A" in name for name in trains)
    head = [p for n, p in model.named_parameters() if n in trains and "classifier" in n]
    assert all(isinstance(p, torch.nn.Parameter) for p in head)
