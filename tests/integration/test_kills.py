"""Runs that SIGKILL ends, at random moments and at every write, and that the same command starts again."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.yaml_io import dump
from tests.integration.test_resume import VARIANTS
from tests.support import tiny, tiny_audio
from tests.support.runs import TRAIN, Child, Starter, logged, outcome, settings

LONG = {"train__max_steps": 80, "train__save_every": 5, "train__eval_every": 20}
KILLS = 24  # in total, over all variants
NEXT = 4  # number of writes from one kill to the next; each variant begins at another write


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    yield starter
    starter.close()


class Command:
    """`graft train` of one variant in one run folder, with a feature cache of its own."""

    def __init__(self, start: Starter, folder: Path, data: Path, name: str, **changes: Any) -> None:
        self.start, self.folder = start, folder
        folder.mkdir()
        model = (tiny.resnet if name == "batch norm" else tiny.vit)(
            folder / "model", **({} if name == "batch norm" else DROPOUT)
        )
        (folder / "small.yaml").write_text(dump(settings(model, data, **{**VARIANTS[name], **changes})))

    def __call__(self, run: str, workers: int = 0, **environment: str) -> Child:
        arguments = [
            "train",
            str(self.folder / "small.yaml"),
            f"data.workers={workers}",
            "--run",
            str(self.folder / run),
        ]
        return self.start(
            arguments, self.folder / f"{run}.log", GRAFT_CACHE=str(self.folder / f"cache of {run}"), **environment
        )

    def finish(self, run: str, workers: int = 0) -> tuple[dict[str, Any], float]:
        """Outcome and seconds of an undisturbed run."""
        child = self(run, workers)
        assert child.wait() == 0, child.log.read_text()[-3000:]
        return outcome(self.folder / run), time.monotonic() - child.since


DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(
        tmp_path_factory.mktemp("data"),
        ("cat", "dog", "eel", "fox"),
        n={"train": 10, "validation": 3, "test": 3},
        size=32,
    )


@pytest.mark.quick
def test_killed_once(start: Starter, data: Path, tmp_path: Path) -> None:
    """Return as soon as there is a checkpoint."""
    command = Command(
        start, tmp_path / "runs", data, "plain", train__max_steps=30, train__save_every=5, train__eval_every=30
    )
    wanted, seconds = command.finish("whole")
    child = command("cut")
    while not (tmp_path / "runs" / "cut" / "checkpoints" / "last").exists():
        assert time.monotonic() - child.since < 60 + 10 * seconds
        time.sleep(0.01)
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "runs" / "cut" / "model").exists()
    found, _ = command.finish("cut")
    assert {key for key in found if found[key] != wanted[key]} == set()


def test_a_classic_killed_once(start: Starter, tmp_path: Path) -> None:
    """A GRU that classifies recordings, with dropout, changed samples and masks."""
    clips = tiny_audio.labelled(tmp_path / "clips")
    network = {"model_type": "gru", "num_mel_bins": 16, "hidden_size": 16, "num_hidden_layers": 2, "dropout": 0.2}
    raw = {
        "task": "audio-classification",
        "model": {"config": {**network, "bidirectional": True}},
        "data": {"id": str(clips), "workers": 0},
        "options": {"augment": "wave", "time_mask": 0.2, "frequency_mask": 0.2},
        "train": {**TRAIN, "max_steps": 40},
    }
    (tmp_path / "gru.yaml").write_text(dump(raw))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["train", str(tmp_path / "gru.yaml"), "--run"]
    child = start([*arguments, str(whole)], tmp_path / "whole.log")
    assert child.wait() == 0, child.log.read_text()[-3000:]
    child = start([*arguments, str(cut)], tmp_path / "cut.log")
    while not (cut / "checkpoints" / "last").exists():
        assert time.monotonic() - child.since < 600
        time.sleep(0.01)
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (cut / "model").exists()
    assert start([*arguments, str(cut)], tmp_path / "again.log").wait() == 0
    found, wanted = outcome(cut), outcome(whole)
    assert {key for key in found if found[key] != wanted[key]} == set()


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_at_random_moments(start: Starter, data: Path, tmp_path: Path, name: str) -> None:
    """Three kills per variant. After each, the loader has another number of processes."""
    rng = random.Random(name)
    command = Command(start, tmp_path / "runs", data, name, **LONG)
    wanted, _ = command.finish("whole", workers=2)
    kills, runs, moments, total = 0, [], [], logged(tmp_path / "runs" / "whole")
    while kills < KILLS / len(VARIANTS):
        runs.append(f"cut {len(runs)}")
        cut = tmp_path / "runs" / runs[-1]
        while not (cut / "model" / "results.json").exists() and kills < KILLS / len(VARIANTS):
            line = rng.randint(min(logged(cut), total - 1), total - 1)
            killed = command(runs[-1], workers=rng.randrange(3)).killed_at(cut, line, rng.uniform(0, 0.1))
            kills += killed
            moments += [line] * killed
    for run in runs:
        found, _ = command.finish(run, workers=rng.randrange(3))
        assert {key for key in found if found[key] != wanted[key]} == set(), f"killed at the lines {moments} of {total}"
    print(f"\n{name}: {kills} kills at the lines {moments} of {total}, {len(runs)} runs, all equal")


@pytest.mark.parametrize(("first", "name"), [(1, "head first"), (2, "adapter"), (3, "frozen"), (4, "averaged")])
def test_killed_at_writes(start: Starter, data: Path, tmp_path: Path, first: int, name: str) -> None:
    """Kill just before file operations in the run folder and in the cache, from the first operation to the last."""
    command = Command(
        start, tmp_path / "runs", data, name, train__max_steps=3, train__save_every=2, train__eval_every=3
    )
    wanted, _ = command.finish("whole")
    kills = 0
    for at in range(first, 1000, NEXT):
        child = command("cut", DIE_AT_WRITE=str(at), DIE_IN=str(tmp_path / "runs"))
        if child.wait() == 0:
            break
        assert child.code == -signal.SIGKILL, child.log.read_text()[-3000:]
        kills += 1
        found, _ = command.finish("cut")
        assert {key for key in found if found[key] != wanted[key]} == set(), f"killed at write {at}"
        for folder in ("cut", "cache of cut"):
            shutil.rmtree(tmp_path / "runs" / folder, ignore_errors=True)
    assert kills > 20
    print(f"\n{name}: killed at {kills} writes, all equal")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_whole_group(start: Starter, data: Path, tmp_path: Path, number: int) -> None:
    """torchrun and Slurm signal every process of a trainer, loader processes too, and so does Ctrl-C.

    The exit code is 130 at any time.
    """
    rng = random.Random(number)
    command = Command(start, tmp_path / "runs", data, "augmented", **LONG)
    wanted, seconds = command.finish("whole", workers=2)
    codes: list[int] = []
    while codes.count(130) < 5:
        assert len(codes) < 50
        run = f"cut {codes.count(0)}"  # a run that the signal reached too late is finished
        child = command(run, workers=2)
        time.sleep(rng.uniform(0.1, 0.9) * seconds)
        child.signal(number, group=True)
        codes.append(child.wait())
        assert codes[-1] in (0, 130), (codes, (tmp_path / "runs" / f"{run}.log").read_text()[-3000:])
    for number_of_run in range(codes.count(0) + 1):
        found, _ = command.finish(f"cut {number_of_run}")
        assert {key for key in found if found[key] != wanted[key]} == set(), codes
