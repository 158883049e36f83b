"""Layers that are pretrained one after the other: a run that SIGKILL ends goes on exactly, and others start from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.config.yaml_io import dump
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import (
    Starter,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    without_pictures,
)

pytestmark = pytest.mark.usefixtures("one_thread")

STACK = {"model_type": "autoencoder", "image_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "corruption": 0.3}


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    starter = Starter({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    yield starter
    starter.close()


def recipe(folder: Path, pretrain: float, **model: Any) -> dict[str, Any]:
    data = folder / "photos"
    return {
        "task": "image-classification",
        "model": model or {"config": STACK},
        "data": {"id": str(data if data.exists() else tiny.photos(data, n=12)), "workers": 0},
        "options": {"image_size": 8, "pretrain": pretrain},
        "train": {
            "max_steps": 30,
            "batch_size": 6,
            "learning_rate": 1e-2,
            "log_every": 1,
            "save_every": 2,
            "eval_every": 10,
        },
    }


@pytest.mark.parametrize("line", [5, 12, 18])
def test_killed_while_layers_are_pretrained(start: Starter, tmp_path: Path, line: int) -> None:
    """Killed in the turn of the first layer, of the second one, and after both: the end is the same, bit for bit."""
    (tmp_path / "small.yaml").write_text(dump(recipe(tmp_path, 0.5)))

    def command(run: str) -> Any:
        return start(["train", str(tmp_path / "small.yaml"), "--run", str(tmp_path / run)], tmp_path / f"{run}.log")

    whole = command("whole")
    assert whole.wait() == 0, whole.log.read_text()[-3000:]
    assert command("cut").killed_at(tmp_path / "cut", line, 0.0)
    finished = command("cut")
    assert finished.wait() == 0, finished.log.read_text()[-3000:]
    wanted, found = outcome(tmp_path / "whole"), outcome(tmp_path / "cut")
    assert {key for key in found if found[key] != wanted[key]} == set()


def test_a_run_starts_from_a_pretrained_one(tmp_path: Path) -> None:
    """With pretrain=1 the last checkpoint is kept, whatever its accuracy; a run of its own then learns the labels."""
    with without_pictures():
        first = train(validate(recipe(tmp_path, 1.0)), tmp_path / "first")
        second = train(validate(recipe(tmp_path, 0.0, id=str(tmp_path / "first"))), tmp_path / "second")
    assert first is not None
    assert second is not None
    assert first["train"]["best_step"] == first["train"]["steps"] == 30
    found = losses(tmp_path / "second")
    assert found[-1] < 0.9 * found[0]
    saved = json.loads((tmp_path / "second" / "model" / "config.json").read_text())
    assert "pretrain" not in saved
    assert {key: saved[key] for key in STACK} == STACK
