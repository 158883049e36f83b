"""An adapter that is published alone: trained, loaded on its base model from the hub, published, used without Graft."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.config.recipe import validate
from pipelines.errors import ModelError
from pipelines.inference.loading import load
from pipelines.models import layers
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.publishing.publish import publish
from pipelines.tasks.image_classification import ImageClassification
from pipelines.training.run import train
from tests.integration.test_every_task import CONTRACTS
from tests.support import tiny
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.publishing import check_all_is_own
from tests.support.runs import losses, without_pictures

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


def test_an_adapter_alone_goes_all_the_way(hub: HubServer, photos: Path, tmp_path: Path) -> None:
    hub.add_model(BASE, tiny.vit(tmp_path / "base"))
    run, merged_folder = tmp_path / "run", tmp_path / "whole"
    results = train(validate(recipe(photos, BASE)), run)
    merged = train(validate(recipe(photos, BASE, adapter=False)), merged_folder)
    assert results
    assert merged
    assert results["test"]["metrics"] == pytest.approx(merged["test"]["metrics"], abs=1e-6), (
        "the adapter on its base is the merged model"
    )
    names = {path.name for path in (run / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= names
    assert "model.safetensors" not in names
    assert json.loads((run / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == BASE
    check_all_is_own(run)
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
    with pytest.raises(
        ModelError, match=r"hub.adapter: an adapter alone is of use with a base model of the hub, base is none"
    ):
        train(validate(recipe(photos, str(local))), tmp_path / "run")


def test_a_head_of_several_parts_trains_whole(photos: Path, tmp_path: Path) -> None:
    """PoolFormer's head is a norm and a classifier.

    Both train with LoRA; otherwise the new classifier would stay random.
    """
    from pipelines.data.loading import load_splits

    raw = {**recipe(photos, str(tiny.poolformer(tmp_path / "m"))), "hub": {}}
    wanted = validate(raw)
    task = ImageClassification()
    model = build(wanted, task, resolve(wanted.model), load_splits(wanted.data, task.data))
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum("classifier" in name for name in trains) == 2
    assert any(".norm" in name for name in trains)
    assert any("lora_A" in name for name in trains)
    head = [p for n, p in model.named_parameters() if n in trains and "classifier" in n]
    assert all(isinstance(p, torch.nn.Parameter) for p in head)


LORA = {"adapter": {"kind": "lora", "rank": 2}}
FROZEN = {  # Linear and its cached features, Conv1D, two kinds of convolution, and samples during training
    "image-classification TestContract": LORA,
    "question-answering TestContract": {"freeze": "backbone"},
    "text-generation TestContract": LORA,
    "speech-recognition-ctc TestContract": {"freeze": "backbone"},
    "text-to-image TestContract": LORA,
}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_weights_in_bf16_change_no_number(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses and scores equal those with float32 weights to the bit. The exported files hold float32 weights."""
    own, seen, found, files = layers.keep_in_half, [], [], []
    for quick in (False, True):

        def keep(model: Any, trains: Any, precision: str, quick: bool = quick) -> None:
            if quick:
                own(model, trains, precision)
                seen.append({parameter.dtype for name, parameter in model.named_parameters() if name in trains})
                seen.append({parameter.dtype for name, parameter in model.named_parameters() if name not in trains})

        monkeypatch.setattr(layers, "keep_in_half", keep)
        raw, run = CONTRACTS[name]().recipe(tmp_path / "made"), tmp_path / str(quick)
        raw["model"] = {**raw["model"], "adapter": None, **FROZEN[name]}
        raw["train"] = {**raw["train"], "epochs": None, "max_steps": 4, "precision": "bf16", "log_every": 1}
        raw["data"]["max_eval_rows"] = 9
        with without_pictures():
            results = train(validate(raw), run, name="x")
        assert results
        found.append((losses(run), results["test"]["metrics"], results["validation"]["metrics"]))
        files.append(
            {path.relative_to(run): load_file(path) for path in sorted((run / "model").rglob("*.safetensors"))}
        )
    assert found[0] == found[1]
    assert seen[:2] == [{torch.float32}, {torch.float32, torch.bfloat16}]
    assert seen[2:] == [set(), {torch.float32, torch.bfloat16}]  # the exported model, to be scored
    assert files[0].keys() == files[1].keys() != set()
    assert all(
        torch.equal(value, files[1][path][key]) for path, values in files[0].items() for key, value in values.items()
    )


@pytest.mark.parametrize(
    ("precision", "lower"), [("bf16", {"middle.weight"}), ("fp16", {"middle.weight"}), ("no", set())]
)
def test_a_weight_that_is_looked_up_too_stays_float32(precision: str, lower: set[str]) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.middle, self.out, self.norm = (
                nn.Embedding(9, 4),
                nn.Linear(4, 4),
                nn.Linear(4, 9, bias=False),
                nn.LayerNorm(4),
            )
            self.head = nn.Linear(9, 2)
            self.out.weight = self.words.weight

    model = Tied()
    layers.keep_in_half(model, {"head.weight", "head.bias"}, precision)
    assert {name for name, value in model.state_dict().items() if value.dtype != torch.float32} == lower
