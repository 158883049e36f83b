"""Segmentation of real images: a U-Net against a random forest, and pretrained weights against random ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.evaluation.compare import compare
from tests.benchmarks import membranes
from tests.support import lite0
from tests.support.command import graft

SHARED = Path(__file__).parents[3] / "shared"
MEMBRANES, CAMVID = SHARED / "data/isbi2012-membrane", SHARED / "data/camvid"
DEEPLAB = SHARED / "weights/deeplabv3_mobilenet_v2_pascal/hf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MEMBRANES.is_dir(), reason="no real data here"),
    pytest.mark.skipif(lite0.weights_file() is None, reason="the package with the encoder is not installed"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = lite0.weights_file()
    assert weights is not None
    return lite0.convert(weights, tmp_path_factory.mktemp("encoder") / "lite0")


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_membranes_are_found_better_than_by_a_forest(encoder: Path, tmp_path: Path) -> None:
    data = membranes.as_splits(MEMBRANES, tmp_path / "slices")
    run = tmp_path / "run"
    done = graft("train", "isbi2012_unet", "--data", data, "--run", run, f"model.config.encoder_weights={encoder}")
    assert done.code == 0, done.err
    assert results(run)["test"]["metrics"]["foreground_dice"] >= 0.75
    forest, _ = membranes.forest(MEMBRANES)
    more, interval = membranes.gain(membranes.of_run(run, MEMBRANES), forest)
    assert more > 0
    assert interval is not None
    assert interval[0] > 0


@pytest.mark.parametrize("kind", ["deeplab", "unet"])
def test_pretrained_weights_help_on_streets(kind: str, encoder: Path, tmp_path: Path) -> None:
    """The same settings, but for the weights: of the complete model, or of a U-Net's encoder."""
    unet = {"model_type": "smp", "architecture": "unet", "encoder": lite0.NAME}
    models = {
        "deeplab": ({"id": str(DEEPLAB)}, {"id": str(DEEPLAB), "weights": "random"}),
        "unet": ({"config": {**unet, "encoder_weights": str(encoder)}}, {"config": unet}),
    }
    runs = []
    for name, model in zip(("pretrained", "random"), models[kind], strict=True):
        recipe = {
            "task": "image-segmentation",
            "model": model,
            "data": {"id": str(CAMVID)},
            "options": {"resize": "none", "crop": 352, "augment": "photo", "scale": [0.7, 1.4]},
            "train": {
                "max_steps": 200,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "warmup": 0.1,
                "schedule": "cosine",
                "eval_every": 50,
                "baseline": False,
                "precision": "fp32",
            },
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        done = graft("train", tmp_path / f"{name}.yaml", "--run", tmp_path / name)
        assert done.code == 0, done.err
        runs.append(tmp_path / name)
    pretrained, random = (results(run)["test"]["metrics"]["mean_iou"] for run in runs)
    assert pretrained > random
    of = compare([runs[1], runs[0]])["comparisons"][0]["metrics"]["mean_iou"]
    assert of["ci95"][0] > 0
