"""A detector with a frozen backbone trains its head, and its frozen weights stay as they are."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines.config.recipe import validate
from pipelines.training.run import train
from tests.support import tiny_boxes, tiny_detectors
from tests.support.runs import without_pictures


@pytest.mark.parametrize(("kind", "task"), [("detr", "object-detection"), ("rf_detr", "instance-segmentation")])
def test_only_the_head_of_a_frozen_detector_trains(kind: str, task: str, tmp_path: Path) -> None:
    model = tiny_detectors.detector(tmp_path / "model", kind, sorted(tiny_boxes.KINDS), task == "instance-segmentation")
    raw = {
        "task": task,
        "model": {"id": str(model), "freeze": "backbone"},
        "data": {"id": str(tiny_boxes.shapes(tmp_path / "shapes")), "workers": 0},
        "options": {"augment": "none"},
        "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "baseline": False},
    }
    with without_pictures():
        assert train(validate(raw), tmp_path / "run", quiet=True)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "run" / "model"))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(after[name].isfinite().all() for name in changed)
    assert not any("backbone" in name for name in changed)
