"""Detectors learn from random weights: 1,000 images with shapes that overlap, some minutes each."""

import json

import pytest
import yaml

from tests.support import tiny_boxes, tiny_queries
from tests.support.command import graft

SSDLITE = """task: object-detection
model: {config: {model_type: torchvision, architecture: ssdlite320_mobilenet_v3_large, image_size: 160}}
data: {id: shapes}
options: {augment: flip}
train: {epochs: 12, batch_size: 16, learning_rate: 2.0e-3, warmup: 0.1, eval_every: 186, baseline: false}
"""
MASK2FORMER = {
    "task": "instance-segmentation",
    "model": {"config": tiny_queries.LEARNS},
    "data": {"id": "shapes"},
    "options": {"augment": "flip", "image_size": 128},
    "train": {
        "epochs": 20,
        "batch_size": 8,
        "learning_rate": 5e-4,
        "warmup": 0.05,
        "schedule": "cosine",
        "eval_every": 625,
        "baseline": False,
    },
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """1,250 images, of which 125 are cut off for validation and 125 for the test."""
    return tiny_boxes.shapes(tmp_path_factory.mktemp("data") / "shapes", n=1250, size=128, largest=160)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("recipe", "least"),
    [
        ("my_boxes_fasterrcnn", 0.8),
        ("my_masks_maskrcnn", 0.75),
        ("ssdlite.yaml", 0.5),
        ("mask2former.yaml", 0.75),
    ],
)
def test_it_finds_shapes(recipe, least, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ssdlite.yaml").write_text(SSDLITE)
    (tmp_path / "mask2former.yaml").write_text(yaml.safe_dump(MASK2FORMER))
    done = graft("train", recipe, "--data", shapes, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["n"] == 125
    assert results["test"]["metrics"]["ap50"] >= least
