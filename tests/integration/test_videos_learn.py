"""Models of videos learn from random weights what no single frame tells: in which direction a shape moves."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from pipelines.data.video.reading import header, read_frames
from tests.support import tiny_videos
from tests.support.command import graft

TRAIN = {"batch_size": 16, "learning_rate": 1e-3, "warmup": 0.1, "schedule": "cosine", "baseline": False}
VIDEOMAE = {
    "task": "video-classification",
    "model": {
        "config": {
            "model_type": "videomae",
            "image_size": 32,
            "patch_size": 8,
            "num_frames": 8,
            "tubelet_size": 2,
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 192,
        }
    },
    "data": {"id": "shapes"},
    "options": {"frame_rate": 8.0, "clips": 2},
    "train": {**TRAIN, "epochs": 8, "eval_every": 200},
}
R2PLUS1D = {
    **VIDEOMAE,
    "model": {
        "config": {
            "model_type": "torchvision",
            "architecture": "r2plus1d_18",
            "layers": [1, 1, 1, 1],
            "width": 16,
        }
    },
    "options": {"frames": 8, "frame_rate": 8.0, "clips": 2, "image_size": 32},
    "train": {**TRAIN, "epochs": 8, "eval_every": 200},
}
# the strongest small model that a user would try on single frames
RESNET = {
    "task": "image-classification",
    "model": {"config": {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [32, 64, 96, 128]}},
    "data": {"id": "frames"},
    "options": {"image_size": 32},
    "train": {**TRAIN, "epochs": 8},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,600 videos of four directions, of which 160 are cut off for validation and 160 for the test."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return tiny_videos.moving_shapes(folder, count=400, classes=4, frames=16, side=32)


def trained(recipe: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = graft("train", folder / "recipe.yaml", "--data", data, "--run", folder / "run")
    assert done.code == 0, done.err
    results: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return results


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", [VIDEOMAE, R2PLUS1D], ids=["videomae", "r2plus1d"])
def test_it_learns_the_direction_of_motion(recipe: dict[str, Any], shapes: Path, tmp_path: Path) -> None:
    results = trained(recipe, shapes, tmp_path)
    assert results["test"]["n"] == 160
    assert results["test"]["metrics"]["accuracy"] >= 0.95
    assert results["train"]["seconds"] < 600


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_single_frames_tell_nothing(shapes: Path, tmp_path: Path) -> None:
    """The interval of an image classifier holds the share of right answers by chance."""
    for video in sorted(shapes.rglob("*.mp4")):
        (frame,) = read_frames(str(video), [header(str(video)).seconds / 2])
        place = tmp_path / "frames" / video.parent.name / f"{video.stem}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(place)
    results = trained(RESNET, tmp_path / "frames", tmp_path)
    low, high = results["test"]["ci95"]["accuracy"]
    assert low <= 0.25 <= high
