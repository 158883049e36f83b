"""A run that was stopped or killed, then started again with the same command, ends as an undisturbed run, bit for bit.

These tests run inside one process; tests/integration/test_kills.py kills real processes.
"""

import contextlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.config.recipe import validate
from pipelines.data.batching import Plan
from pipelines.errors import DataError, RunError
from pipelines.tasks.image_classification import ImageClassification
from pipelines.training import loop
from pipelines.training.checkpoint import State
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import (
    Killed,
    Writes,
    lines,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    settings,
    without_pictures,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# All state of a run that must survive. Each run ends after 12 steps of 8 examples; 5 steps are an epoch.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {
        "options__augment": "randaugment",
        "options__mixup": 0.4,
        "options__cutmix": 1.0,
        "train__layer_decay": 0.7,
    },
    "averaged": {
        "options__augment": "crop-flip",
        "train__ema": 0.9,
        "train__eval_every": "epoch",
        "train__save_every": "epoch",
    },
    "adapter": {"model__adapter": {"kind": "lora", "rank": 2, "dropout": 0.1}, "train__early_stopping": 2},
    "frozen": {"model__freeze": "backbone", "train__learning_rate": 1e-2},
    "head first": {"train__head_epochs": 1, "train__ema": 0.9, "train__max_steps": 6},
    "batch norm": {"model__freeze": 1, "train__optimizer": "sgd", "options__label_smoothing": 0.1},
    "bf16": {"train__precision": "bf16", "train__head_epochs": 1, "train__max_steps": 6, "options__mixup": 0.4},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(
        tmp_path_factory.mktemp("data"),
        ("cat", "dog", "eel", "fox"),
        n={"train": 10, "validation": 3, "test": 3},
        size=32,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A ViT with dropout (the only randomness in its forward pass), and a model with BatchNorm."""
    root = tmp_path_factory.mktemp("models")
    vit = tiny.vit(root / "vit", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    return {"vit": vit, "resnet": tiny.resnet(root / "resnet")}


class Runs:
    """Starts runs of one variant and compares them with `wanted`, an undisturbed run."""

    def __init__(
        self, folder: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch, known: dict[str, Any]
    ) -> None:
        self.folder, self.raw, self.monkeypatch = folder, raw, monkeypatch
        key = json.dumps(raw)
        if key not in known:
            self.start("whole")
            known[key] = outcome(folder / "whole")
        self.wanted = known[key]

    def start(self, name: str, **train_changes: Any) -> dict[str, Any] | None:
        """The results that `train` returns.

        Each run has its own feature cache, so that no other run's features help it.
        """
        self.monkeypatch.setenv("GRAFT_CACHE", str(self.folder / f"cache of {name}"))
        raw = {**self.raw, "train": {**self.raw["train"], **train_changes}}
        with without_pictures():
            return train(validate(raw), self.folder / name, name="small")

    def check(self, name: str) -> None:
        found = outcome(self.folder / name)
        assert {key for key in found if found[key] != self.wanted[key]} == set()


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Outcomes by recipe, computed when they are first needed."""
    return {}


@pytest.fixture
def variant(
    data: Path, models: dict[str, Path], undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Runs]:
    def made(name: str) -> Runs:
        model = models["resnet" if name == "batch norm" else "vit"]
        return Runs(tmp_path, settings(model, data, **VARIANTS[name]), monkeypatch, undisturbed)

    return made


@contextlib.contextmanager
def at_step(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` after that many steps of this process."""
    real, seen = loop.step, 0

    def step(*args: Any) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        report = real(*args)
        if seen == number:
            action()
        return report

    with mock.patch.object(loop, "step", step):
        yield


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def die() -> None:
    raise Killed


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_in_the_middle_and_at_the_end(variant: Callable[[str], Runs], name: str) -> None:
    runs = variant(name)
    with at_step(10, die), pytest.raises(Killed):
        runs.start("cut")
    assert not (runs.folder / "cut" / "model").exists()
    with mock.patch("pipelines.publishing.card.write_card", side_effect=Killed), pytest.raises(Killed):
        runs.start("cut")
    assert (runs.folder / "cut" / "results.json").exists()
    assert runs.start("cut") is not None
    assert (runs.folder / "cut" / "model" / "README.md").exists()
    runs.check("cut")


def test_killed_at_one_write_after_another(variant: Callable[[str], Runs]) -> None:
    """Every start gets a little further: nothing that a kill leaves in the folder blocks the next start."""
    runs = variant("averaged")
    with Writes() as seen:
        runs.start("counted")
    rng, starts, at = random.Random(0), 0, 0
    while not (runs.folder / "cut" / "model" / "results.json").exists():
        starts += 1
        assert starts < 60
        with contextlib.suppress(Killed), Writes(at=at % seen.count + 1):
            runs.start("cut")
        at += rng.randint(2, 16)
    assert starts > 5
    runs.check("cut")


@pytest.mark.parametrize("name", ["augmented", "head first"])
def test_stopped_at_chosen_steps(variant: Callable[[str], Runs], name: str) -> None:
    """Stop in the middle, where an evaluation or a checkpoint is due, at the end of a stage, after the last step."""
    runs = variant(name)
    total = {"augmented": 12, "head first": 11}[name]
    done, stops = 0, (2, 4, 5, 8, 9, total)
    for step in stops:
        with at_step(step - 1 - done, stop) if step - 1 > done else contextlib.nullcontext():
            if step - 1 == done:
                stop_before_the_first_step(runs)
            else:
                assert runs.start("cut") is None  # the exit code 130 of the command line
        done = step
        last = (runs.folder / "cut" / "checkpoints" / "last").read_text()
        assert last == f"step_{step:06d}\n"
    assert runs.start("cut") is not None
    runs.check("cut")
    assert runs.start("cut")["train"]["steps"] == total  # the run is finished: the command says so and changes nothing
    runs.check("cut")


def stop_before_the_first_step(runs: Runs) -> None:
    real = loop.fit

    def fit(*args: Any) -> None:
        stop()
        real(*args)

    with mock.patch.object(loop, "fit", fit):
        assert runs.start("cut") is None


RUINED: dict[str, Any] = {
    "train__head_epochs": 4,
    "train__head_learning_rate": 3e-2,
    "train__learning_rate": 0.5,
    "train__warmup": 0,
    "train__max_steps": 4,
    "train__eval_every": 2,
    "train__save_every": 2,
}


def test_the_best_of_the_head_s_stage_is_what_is_exported(
    data: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second stage makes the model worse.

    What a stage found out is known to the next stage, and to a run that was killed in between.
    """
    runs = Runs(tmp_path, settings(models["vit"], data, **RUINED), monkeypatch, {})
    scored = {
        line["step"]: (line["stage"], line["validation"]["accuracy"])
        for line in runs.wanted["log"]
        if "validation" in line
    }
    head = max(score for stage, score in scored.values() if stage == "head")
    assert max(score for stage, score in scored.values() if stage == "train") < head
    found = runs.wanted["results"]
    assert found["validation"]["metrics"]["accuracy"] == head
    assert scored[found["train"]["best_step"]] == ("head", head)
    assert runs.wanted["best"] == f"step_{found['train']['best_step']:06d}\n"
    steps = {name.split("/")[1] for name in runs.wanted["checkpoints"] if "step_" in name}
    assert steps == {runs.wanted["best"].strip(), "step_000024"}
    with at_step(21, die), pytest.raises(Killed):  # before the second stage's first checkpoint
        runs.start("cut")
    runs.start("cut")
    runs.check("cut")


def test_what_a_stage_knows_survives_the_next() -> None:
    state = State(
        stage="head",
        step=5,
        previous_steps=2,
        seconds=1.5,
        best=0.9,
        best_step=4,
        stage_best=0.8,
        evals_since_best=3,
        stopped="early",
        baseline_scores={"n": 1},
        peak_memory_mb=7.0,
        micro_batch=4,
        eval_batch=2,
        eval_budget=9,
        skipped={"train": {"1": "why"}},
        data={"train": "ab"},
    )
    fresh = {
        "stage": "train",
        "step": 0,
        "previous_steps": 7,
        "stage_best": None,
        "evals_since_best": 0,
        "stopped": None,
    }
    assert vars(state.next_stage()) == vars(state) | fresh


def test_patience_is_of_one_stage(
    data: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage is measured by its own best score: it may improve for a while before it passes the head's best.

    Here the head's best stays the best.
    """
    scores = iter([0.1, 0.9, 0.2, *(0.3, 0.4, 0.5, 0.5, 0.1), *[0.5] * 9])
    real = ImageClassification.summarize

    def summarize(task: Any, statistics: Any, weights: Any) -> dict[str, float]:
        return real(task, statistics, weights) | {"accuracy": next(scores)}

    changes = {"train__head_epochs": 1, "train__max_steps": 40, "train__early_stopping": 2, "train__save_every": 50}
    raw = settings(models["vit"], data, **changes)
    runs = Runs(tmp_path, raw, monkeypatch, {json.dumps(raw): {}})
    with mock.patch.object(ImageClassification, "summarize", summarize):
        found = runs.start("run")
    assert found is not None
    scored = [line["validation"]["accuracy"] for line in lines(tmp_path / "run") if "validation" in line]
    assert scored == [0.9, 0.2, 0.3, 0.4, 0.5, 0.5, 0.1]
    assert (found["train"]["best_step"], found["train"]["stopped"], found["train"]["steps"]) == (4, "early", 25)


def test_a_second_signal_does_not_wait(variant: Callable[[str], Runs]) -> None:
    runs = variant("plain")

    def twice() -> None:
        stop()
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with at_step(7, twice), pytest.raises(KeyboardInterrupt):
        runs.start("cut")
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert runs.start("cut") is not None
    runs.check("cut")


def test_a_longer_run_goes_on_and_may_be_killed(variant: Callable[[str], Runs]) -> None:
    runs = variant("plain")
    for name in ("a", "b"):
        runs.start(name)
        runs.check(name)
    runs.start("a", max_steps=15)
    with at_step(2, die), pytest.raises(Killed):
        runs.start("b", max_steps=15)
    result = runs.start("b", max_steps=15)
    assert result is not None
    assert result["train"]["steps"] == 15
    assert outcome(runs.folder / "a") == outcome(runs.folder / "b")
    assert outcome(runs.folder / "b")["log"][: len(runs.wanted["log"])] == runs.wanted["log"]
    assert len(losses(runs.folder / "b")) == 15


def test_another_number_of_workers(variant: Callable[[str], Runs]) -> None:
    runs = variant("augmented")
    runs.raw["data"] = {**runs.raw["data"], "workers": 2}
    with at_step(5, die), pytest.raises(Killed):
        runs.start("cut")
    runs.raw["data"] = {**runs.raw["data"], "workers": 1}
    runs.start("cut")
    runs.check("cut")


def test_changed_data_is_refused(variant: Callable[[str], Runs], data: Path, tmp_path: Path) -> None:
    runs = variant("plain")
    copy = shutil.copytree(data, tmp_path / "copy")
    runs.raw["data"] = {**runs.raw["data"], "id": str(copy)}
    with at_step(5, die), pytest.raises(Killed):
        runs.start("cut")
    (copy / "train" / "cat" / "000.jpg").unlink()
    with pytest.raises(
        RunError, match=r"cut: the data changed since the run began \(train\); choose another folder with --run"
    ):
        runs.start("cut")


def test_rows_that_cannot_be_read_stay_counted(variant: Callable[[str], Runs], data: Path, tmp_path: Path) -> None:
    runs = variant("plain")
    copy = shutil.copytree(data, tmp_path / "copy")
    plan = Plan(40, 8, 8, seed=0, first_step=0, total_steps=12)
    late = {row for step in (9, 10, 11) for row in plan.rows(step)}  # the files that are read again after the kill
    bad = copy / "train" / "cat" / f"{min(set(range(10)) - late):03d}.jpg"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    runs.raw["data"] = {**runs.raw["data"], "id": str(copy)}
    runs.start("whole with a bad row")
    wanted = outcome(runs.folder / "whole with a bad row")
    assert wanted["results"]["data"]["train"]["skipped"] == 1
    assert wanted["log"] != runs.wanted["log"]
    with at_step(12, die), pytest.raises(Killed):
        runs.start("cut")
    runs.start("cut")
    assert outcome(runs.folder / "cut") == wanted
    for i in range(4, 9):
        (copy / "train" / "dog" / f"00{i}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="rows of train cannot be read"):
        runs.start("too many")


def test_a_second_log_line_never_comes(variant: Callable[[str], Runs]) -> None:
    """The same holds for a kill before the first checkpoint: the log begins again."""
    runs = variant("plain")
    for _ in range(2):
        with at_step(3, die), pytest.raises(Killed):
            runs.start("cut")
    log = runs.folder / "cut" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 3, "epo')  # a line that a kill cut off
    runs.start("cut")
    runs.check("cut")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line]
    assert steps == list(range(1, 13))
