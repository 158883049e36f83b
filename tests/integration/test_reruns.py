"""`graft train` typed again: equal settings resume, other settings make a run of their own, and a command that fails
before its first step leaves nothing behind.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.errors import RunError
from pipelines.reporting.runs import runs
from tests.support import tiny
from tests.support.command import RECIPE, Done, graft, refused
from tests.support.runs import Writes, without_pictures

HOME = Path("runs/image-classification")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    tiny.photos(folder / "photos", n=4)
    tiny.photos(folder / "plants", n=4, seed=3)
    tiny.vit(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def _desk(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[None]:
    """A folder with a recipe, and with links to data and model."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "plants", "model"):
        Path(name).symlink_to(things / name)
    Path("pets.yaml").write_text(RECIPE.replace("max_steps: 2", "epochs: 2"))
    with without_pictures():
        yield


@pytest.fixture(scope="module", name="one_thread")
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(*words: str, data: str = "photos") -> Done:
    return graft("train", "pets.yaml", "--data", data, "--model", "model", *words)


def names() -> list[str]:
    return sorted(row["name"] for row in runs())


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HOME / name / "results.json").read_text())
    return found


def test_what_a_second_command_does() -> None:
    """A short trial; the same again; the full length; another rate; fewer epochs; other data; all found again."""
    assert train("train.max_steps=1").code == 0  # a short trial
    trial = results("pets")
    done = train()  # the full length
    assert done.code == 0, done.err
    assert (
        "runs/image-classification/pets has train.max_steps=1; this run is a new one: "
        "runs/image-classification/pets-epochs2"
    ) in done.err.replace("train.epochs=None, ", "")
    assert names() == ["pets", "pets-epochs2"]
    assert results("pets") == trial
    again = train("train.max_steps=1")
    assert "runs/image-classification/pets is finished" in again.err
    assert "is finished" in train().err

    done = train("train.learning_rate=0.003")
    assert done.code == 0, done.err
    assert "next:   graft demo pets-lr3e-3-epochs2" in done.out
    assert train("train.epochs=1").code == 0  # fewer than pets-epochs2 has
    assert train(data="plants").code == 0
    assert names() == ["pets", "pets-epochs1", "pets-epochs2", "pets-lr3e-3-epochs2", "pets-plants-epochs2"]
    assert {row["state"] for row in runs()} == {"finished"}

    found = results("pets-lr3e-3-epochs2")
    assert (found["name"], found["recipe"]) == ("pets-lr3e-3-epochs2", "pets")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["started"])
    assert found["started"] <= found["finished"]
    assert 0 < found["train"]["seconds"] < found["wall_seconds"] < 600
    assert found["model"]["name"] == "ViT (local folder)"
    card = (HOME / "pets-lr3e-3-epochs2" / "model" / "README.md").read_text()
    assert "# pets-lr3e-3-epochs2\n" in card
    assert "It is ViT (local folder), fine-tuned on photos (not on the hub) with Graft (recipe pets)." in card
    assert f"It finished on {found['finished'][:10]}." in card
    assert graft("card", "pets-plants-epochs2").out == f"{HOME / 'pets-plants-epochs2' / 'model' / 'README.md'}\n"
    assert "lr 3e-3" in graft("runs", "lr 3e-3").out
    refused(train("train.learning_rate=0.5", "--run", str(HOME / "pets")), 1, "belongs to another recipe", "--run")
    done = graft("train", str(HOME / "pets" / "recipe.yaml"))
    assert f"{HOME / 'pets'} is finished" in done.err
    done = graft("train", str(HOME / "pets-epochs2" / "recipe.yaml"), "train.seed=7")
    assert done.code == 0, done.err
    assert (results("pets-epochs2-seed7")["name"], results("pets-epochs2-seed7")["recipe"]) == (
        "pets-epochs2-seed7",
        "pets",
    )
    assert train("--model", "pets-epochs1").code == 0  # a run as the model to start from
    assert "pets-pets-epochs1-epochs2" in names()


def test_a_stopped_run_adds_up_its_time() -> None:
    """The clock of the second command starts where the last checkpoint of the first one stopped."""
    with mock.patch("pipelines.training.finalize.finish", side_effect=RunError("no room")):
        refused(train(), 1, "no room")
    (row,) = runs()
    assert (row["state"], row["step"]) == ("stopped", 2)
    state = HOME / "pets" / "checkpoints" / "step_000002" / "state.json"
    saved = json.loads(state.read_text())
    assert saved["wall_seconds"] > 0
    state.write_text(json.dumps(saved | {"wall_seconds": 1000.0, "started": "2026-01-01T00:00:00Z"}))
    assert train().code == 0
    found = results("pets")
    assert found["started"] == "2026-01-01T00:00:00Z"
    assert 1000 < found["wall_seconds"] < 1300
    assert train("train.epochs=3").code == 0  # it goes on for longer, and keeps what the finished run took
    assert names() == ["pets"]
    assert results("pets")["wall_seconds"] > found["wall_seconds"]


# ---- nothing is left behind ----

FAULTS: dict[str, tuple[str, BaseException]] = {
    "bad weights": ("pipelines.training.run.resolve", RunError("no such model")),
    "offline": ("pipelines.training.run.load_splits", RunError("the hub cannot be reached")),
    "no memory": ("pipelines.training.run.build", MemoryError()),
    "Ctrl-C while the model loads": ("pipelines.training.run.build", KeyboardInterrupt()),
    "Ctrl-C in the first scores": ("pipelines.training.trainer.Trainer.score_baseline", KeyboardInterrupt()),
    "out of memory in the first step": ("pipelines.training.loop.step", RunError("out of memory")),
    "a full disk": ("pipelines.training.run_folder.resolve", OSError(28, "No space left on device")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_command_that_fails_early_leaves_nothing(name: str, tmp_path: Path) -> None:
    at, error = FAULTS[name]
    before = sorted(path.name for path in tmp_path.iterdir())
    with mock.patch(at, side_effect=error):
        assert train().code in (1, 130)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_wrong_data_leave_nothing(tmp_path: Path) -> None:
    Path("empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    refused(train(data="empty"), 2, "empty")
    refused(train("--run", "deep/below/run", data="empty"), 2, "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_was_there_before_stays() -> None:
    """Folders, a killed run's files and other runs are as they were; only what the command added is gone."""
    (HOME / "other").mkdir(parents=True)
    (HOME / "pets").mkdir()
    (HOME / "pets" / "recipe.yaml").write_text(RECIPE)
    (HOME / "pets" / "log.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 1.0}\n')
    with mock.patch("pipelines.training.loop.step", side_effect=RunError("out of memory")):
        refused(train(), 1, "out of memory")
    assert sorted(path.name for path in HOME.iterdir()) == ["other", "pets"]
    assert sorted(path.name for path in (HOME / "pets").iterdir()) == ["log.jsonl", "recipe.yaml"]
    assert (HOME / "pets" / "recipe.yaml").read_text() == RECIPE
    assert (HOME / "pets" / "log.jsonl").read_text().startswith('{"step": 1')
    assert train().code == 0  # the folder is free
    assert names() == ["pets"]
    kept = results("pets")
    with mock.patch("pipelines.training.run.resolve", side_effect=RunError("no such model")):
        refused(train("train.epochs=3"), 1, "no such model")
    assert json.loads((HOME / "pets" / "model" / "results.json").read_text()) == kept
    with mock.patch("pipelines.training.run.Trainer", side_effect=RunError("out of memory")):
        refused(train("train.epochs=3"), 1, "out of memory")
    assert results("pets") == kept, "a run that was to go on for longer is finished as before"
    assert "is finished" in train().err


def test_a_run_with_a_checkpoint_or_logged_steps_is_kept() -> None:
    with mock.patch("pipelines.training.trainer.Trainer._evaluator", side_effect=RunError("no")):
        refused(train(), 1, "no")
    assert not HOME.exists()
    with mock.patch("pipelines.evaluation.scoring.scores", side_effect=RunError("no scores")):
        refused(train(), 1, "no scores")
    assert names() == ["pets"]  # the step was saved before its evaluation


def test_the_disk_ends_at_any_write() -> None:
    """An error at each of the first writes: either nothing is left, or the run goes on from what is."""
    with Writes() as seen, mock.patch("pipelines.training.loop.fit", side_effect=RunError("the first step")):
        train()
    assert seen.count > 3
    for at in range(1, seen.count + 1, max(1, seen.count // 8)):
        error = OSError(28, "No space left on device")
        with (
            Writes(at, error) as disk,
            mock.patch("pipelines.training.loop.fit", side_effect=RunError("the first step")),
        ):
            done = train()
        assert done.code == 1, done.err
        assert "No space left" in done.err or "the first step" in done.err, done.err
        assert disk.what.startswith(("unlink", "rmdir")) or not HOME.exists(), disk.what  # else the removal failed
        shutil.rmtree("runs", ignore_errors=True)


# ---- processes ----


def begin(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pipelines", "train", "pets.yaml", "--data", "photos", "--model", "model", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_killed_command_leaves_a_folder_that_the_next_one_takes() -> None:
    child = begin("train.seed=9")
    until = time.monotonic() + 120
    while not (HOME / "pets" / "recipe.yaml").exists():
        assert time.monotonic() < until
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert train().code == 0
    assert names() == ["pets"]


def test_two_commands_at_one_moment_have_two_folders() -> None:
    """The same recipe with two rates: one has the usual name, the other says what differs, whoever is first."""
    children = [begin("train.epochs=1", f"train.learning_rate={rate}") for rate in ("0.001", "0.003")]
    for child in children:
        _, err = child.communicate(timeout=300)
        assert child.returncode == 0, err
    assert names()[0] == "pets"
    assert names()[1] in ("pets-lr1e-3", "pets-lr3e-3")
    assert len(names()) == 2


def test_two_processes_agree_on_the_folder() -> None:
    """The main process chooses; the second one follows, into the usual folder, a new one, and an error."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--module"]
    command = [*launch, "pipelines", "train", "pets.yaml", "--data", "photos", "--model", "model", "train.epochs=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for rate in ("0.001", "0.003"):
        words = [*command, f"train.learning_rate={rate}"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("this run is a new one: runs/image-classification/pets-lr3e-3") == 1
    assert names() == ["pets", "pets-lr3e-3"]
    Path("empty").mkdir()
    done = subprocess.run([*command, "--data", "empty"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode != 0
    assert names() == ["pets", "pets-lr3e-3"]
    assert len(list(HOME.iterdir())) == 2
