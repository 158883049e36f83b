"""fp16 with a scaled loss, through the real trainer on a CPU: skipped steps, their log, and a resume among them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.recipe import validate
from pipelines.errors import RunError
from pipelines.reporting.report import write_report
from pipelines.training import checkpoint, loop, loss_scale
from pipelines.training.checkpoint import State
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import Killed, lines, one_thread, outcome, settings, without_pictures  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = 2.0**21  # too large for this model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp16")
    tiny.photos(folder / "data", ("cat", "dog"), n={"train": 8, "validation": 3, "test": 3}, size=32)
    tiny.vit(folder / "model")
    return folder


def run(place: Path, name: str, scale: float = FIRST, **changes: Any) -> Path:
    changes = {"precision": "fp16", "max_steps": 14, "save_every": 1, "keep": 20, "eval_every": 7, **changes}
    raw = settings(place / "model", place / "data", **{f"train__{key}": value for key, value in changes.items()})
    with pytest.MonkeyPatch.context() as patch, without_pictures():
        patch.setattr(loss_scale, "FIRST", scale)
        patch.setattr(loss_scale, "INTERVAL", 2)
        assert train(validate(raw), place / name, name="small")
    return place / name


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    return run(place, "finished")


def steps(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder) if "loss" in line]


def test_steps_that_overflow_are_skipped_and_the_scale_is_halved(finished: Path) -> None:
    found = steps(finished)
    skipped = found[0]
    assert skipped["grad_norm"] is None  # infinity
    assert (skipped["loss_scale"], skipped["skipped_steps"]) == (FIRST / 2, 1)
    count = sum(line["grad_norm"] is None for line in found)
    assert 1 <= count <= 9
    assert found[-1]["skipped_steps"] == count
    for line, before in zip(found[1:], found, strict=False):
        more = line["skipped_steps"] - before["skipped_steps"]
        assert more == (line["grad_norm"] is None)
        assert line["loss_scale"] / before["loss_scale"] in ([0.5] if more else [1.0, 2.0])
    taken = [line for line in found if line["grad_norm"] is not None]
    assert any(line["loss_scale"] > before["loss_scale"] for line, before in zip(found[1:], found, strict=False))
    assert taken[-1]["loss"] < taken[0]["loss"]
    results = json.loads((finished / "results.json").read_text())
    assert results["train"]["skipped_steps"] == count
    assert results["environment"]["precision"] == "fp16"
    write_report(finished)  # curves with gaps


def test_a_skipped_step_changes_no_weight_and_no_moment(finished: Path) -> None:
    first, second = (finished / "checkpoints" / f"step_00000{n}" for n in (1, 2))
    states = [checkpoint.read_state(folder) for folder in (first, second)]
    assert [(state.skipped_steps, state.skips_in_a_row) for state in states] == [(1, 1), (2, 2)]
    assert [state.loss_scale for state in states] == [FIRST / 2, FIRST / 4]
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert load_file(first / "optimizer_main.safetensors") == {}  # AdamW has not begun


def test_gradients_are_those_of_fp32(place: Path) -> None:
    """The first step has the same rows and weights in both precisions."""
    exact = steps(run(place, "exact", precision="fp32", max_steps=1))[0]
    found = steps(run(place, "small", 2.0**10, max_steps=1))[0]
    assert exact.keys() & {"loss_scale", "skipped_steps"} == set()
    assert (found["loss_scale"], found["skipped_steps"]) == (2.0**10, 0)
    assert found["loss"] == pytest.approx(exact["loss"], rel=1e-3)
    assert found["grad_norm"] == pytest.approx(exact["grad_norm"], rel=1e-2)
    assert found["grad_norm"] > 0.01


@pytest.mark.parametrize("at", [2, 9])
def test_a_run_that_is_killed_goes_on_exactly(
    place: Path, finished: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = loop.step, [0]

    def step(*args: Any) -> dict[str, Any]:
        seen[0] += 1
        if seen[0] > at:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", step)
        with pytest.raises(Killed):
            run(place, f"killed at {at}")
    assert outcome(run(place, f"killed at {at}")) == outcome(finished)


def test_many_overflows_in_a_row_end_the_run() -> None:
    state = State(step=7)
    assert loss_scale.fits(state, 1.0, 1.0)
    assert state == State(step=7)  # not in fp16
    loss_scale.begin(state, "bf16")
    assert state.loss_scale is None
    loss_scale.begin(state, "fp16")
    for _ in range(loss_scale.MOST_IN_A_ROW - 1):
        assert not loss_scale.fits(state, 1.0, float("inf"))
    assert loss_scale.fits(state, 1.0, 1.0)  # one step that fits begins the count again
    for _ in range(loss_scale.MOST_IN_A_ROW - 1):
        assert not loss_scale.fits(state, float("nan"), float("nan"))
    with pytest.raises(RunError, match=r"step 8: the loss was not finite in 50 steps in a row.*precision=fp32"):
        loss_scale.fits(state, float("nan"), float("nan"))


def test_the_scale_is_doubled_after_many_steps() -> None:
    state = State(loss_scale=8.0)
    for _ in range(loss_scale.INTERVAL - 1):
        assert loss_scale.fits(state, 1.0, 1.0)
    assert state.loss_scale == 8.0
    assert loss_scale.fits(state, 1.0, 1.0)
    assert (state.loss_scale, state.steps_since_skip) == (16.0, 0)
