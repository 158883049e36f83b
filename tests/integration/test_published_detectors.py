"""Detectors of transformers that were trained and published: the card's own code finds what Graft finds.

tests/tasks/ has the same for torchvision's.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.publishing.publish import publish
from pipelines.training.run import train
from tests.support import tiny_boxes
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.support.runs import without_pictures
from tests.support.tiny_detectors import CONFIGS


def published(task: str, kind: str, hub: HubServer, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """What the card's snippet prints for the first example, and Graft's own answer."""
    raw = {
        "task": task,
        "model": {"config": CONFIGS[kind]},
        "data": {"id": str(tiny_boxes.shapes(folder / "shapes")), "workers": 0},
        "options": {"image_size": 128},
        "train": {"max_steps": 3, "batch_size": 8, "precision": "fp32"},
        "hub": {"examples": 1},
    }
    with without_pictures():
        assert train(validate(raw), folder / "run")
    model = folder / "run" / "model"
    (photo,) = (model / "examples").glob("0.*")
    # so short a training reaches no high score: half of the objects count
    found = load(folder / "run", device="cpu").infer(photo, threshold=0.0)
    config = json.loads((model / "config.json").read_text())
    config["detection_threshold"] = (found[len(found) // 2 - 1]["score"] + found[len(found) // 2]["score"]) / 2
    (model / "config.json").write_text(json.dumps(config))
    publish(folder / "run", f"{USER}/detector", say=lambda _: None)
    snippet = re.search(r"```python\n(.*?)```", (model / "README.md").read_text(), re.S)
    assert snippet
    command = [sys.executable, "-c", "import sys; sys.modules['pipelines'] = None\n" + snippet[1]]
    done = subprocess.run(command, env=hub.env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, load(f"{USER}/detector", device="cpu").infer(photo)


@pytest.mark.parametrize("kind", ["d_fine", "deformable_detr"])
def test_the_card_of_a_detector_finds_the_same_boxes(kind: str, hub: HubServer, tmp_path: Path) -> None:
    printed, answer = published("object-detection", kind, hub, tmp_path)
    assert len(answer) >= 3
    assert tiny_boxes.as_printed(printed, answer), printed


def test_the_card_of_a_segmenter_finds_the_same_masks(hub: HubServer, tmp_path: Path) -> None:
    printed, answer = published("instance-segmentation", "rf_detr", hub, tmp_path)
    around = []
    for one in answer:
        if (mask := coco_mask.decode(one["mask"])).any():
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            corners = (columns[0], rows[0], columns[-1], rows[-1])
            around.append({**one, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))})
    assert around
    assert tiny_boxes.as_printed(printed, around), printed
