"""Small runs to interrupt and compare: their recipes, what must be equal afterwards, and processes that start fast.

start = Starter(); start(["train", ...]) -> a child to kill or wait for
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch

from pipelines.config.recipe import Recipe, validate

ROOT = Path(__file__).parents[2]
TRAIN = {
    "max_steps": 12,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "log_every": 1,
    "eval_every": 4,
    "save_every": 3,
}


def settings(model: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as a mapping; `changes` are its keys with dots written as two underscores (train__ema=0.9)."""
    raw: dict[str, Any] = {
        "task": "image-classification",
        "model": {"id": str(model)},
        "data": {"id": str(data), "workers": 0},
        "options": {"augment": "none"},
        "train": dict(TRAIN),
    }
    for key, value in changes.items():
        section, name = key.split("__")
        raw[section][name] = value
    return raw


def small(model: Path, data: Path, **changes: Any) -> Recipe:
    return validate(settings(model, data, **changes))


def logged(run: Path) -> int:
    """The number of lines in a run's log.jsonl, which need not be there yet."""
    log = run / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


# ---- equal or not ----


def lines(run: Path) -> list[dict[str, Any]]:
    """log.jsonl without times."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("seconds", "examples_per_second")} for entry in found]


def losses(run: Path) -> list[float]:
    return [entry["loss"] for entry in lines(run) if "loss" in entry]


def results(run: Path) -> dict[str, Any]:
    """results.json without times and memory, and without the machine and the name of the folder."""
    found = json.loads((run / "results.json").read_text())
    for key in ("seconds", "examples_per_second", "peak_memory_mb"):
        del found["train"][key]
    for key in ("environment", "name", "started", "finished", "wall_seconds"):
        del found[key]
    found.get("samples", {}).pop("real_time_factor", None)  # of a task that makes sound
    return found


def stored(path: Path) -> bytes:
    """A safetensors file with its header sorted: the library writes the metadata of shares in any order."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]


def outcome(run: Path) -> dict[str, Any]:
    """Everything that must be equal, bit for bit, after a run that was interrupted and resumed."""
    files = sorted((run / "model").rglob("*.safetensors"))  # a pipeline has its weights in one folder per part
    weights = {p.relative_to(run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    assert weights, f"{run} has no weights"
    kept = {p: stored(p) if p.suffix == ".safetensors" else b"" for p in (run / "checkpoints").rglob("*")}
    checkpoints = {p.relative_to(run).as_posix(): hashlib.sha256(content).hexdigest() for p, content in kept.items()}
    assert any("optimizer_main" in name and name.endswith(".safetensors") for name in checkpoints)
    marks = {name: (run / "checkpoints" / name).read_text() for name in ("last", "best")}
    predictions = {p.name: p.read_bytes() for p in (run / "predictions").iterdir()}
    files = {"weights": weights, "checkpoints": checkpoints, "predictions": predictions}
    return {**files, **marks, "log": lines(run), "results": results(run)}


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """Skip figures, mistakes, report and intervals, which take most of a small run's time and are not compared here."""
    with (
        mock.patch("pipelines.evaluation.scoring.intervals", return_value=({}, {"resamples": 0, "exact": []})),
        mock.patch("pipelines.reporting.report.save_figures"),
        mock.patch("pipelines.reporting.report.write_report"),
        mock.patch("pipelines.reporting.mistakes.choose", return_value=None),
        mock.patch("pipelines.tasks.image_classification.ImageClassification.figures", return_value={}),
    ):
        yield


# ---- failures inside this process ----


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread: with two, small runs wait longer than they compute. Another number of threads rounds differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Killed(BaseException):
    """It stands for a kill: nothing catches it."""


class Writes:
    """Counts operations that change the disk (open to write, create, rename, remove, sync); raises `error` at one.

    with Writes(at=7): the seventh raises Killed;  with Writes() as seen: seen.count is their number.
    """

    def __init__(self, at: int = 0, error: BaseException | None = None) -> None:
        self.at, self.error, self.count = at, error or Killed(), 0
        self.what = ""

    def __enter__(self) -> "Writes":
        self.stack = contextlib.ExitStack()
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            self.stack.enter_context(mock.patch.object(os, name, self._counted(getattr(os, name), name)))
        for owner, name in ((io, "open"), (safetensors.torch, "save_file")):
            self.stack.enter_context(mock.patch.object(owner, name, self._counted(getattr(owner, name), name)))
        self.stack.enter_context(
            mock.patch.object(os, "fsync", self._counted(lambda handle: None, "fsync"))
        )  # the slow part
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _counted(self, function: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            reads = name == "open" and not set(args[1] if len(args) > 1 else kwargs.get("mode", "r")) & set("wax+")
            if not reads:
                self.count += 1
                if self.count == self.at:
                    self.what = f"{name} {args[:2]}"
                    raise self.error
            return function(*args, **kwargs)

        return call


# ---- processes ----


class Starter:
    """Starts Graft's commands in processes of their own. Each is a fork of a process that has imported everything."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        assert self._answer() == "ready"

    def __call__(self, arguments: list[str], log: Path, **environment: str) -> "Child":
        self._ask(json.dumps({"arguments": arguments, "log": str(log), "environment": environment}))
        return Child(int(self._answer()), self, log)

    def _ask(self, text: str) -> None:
        assert self.process.stdin is not None
        print(text, file=self.process.stdin, flush=True)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Child:
    """One command. It leads a process group, so that its loader processes can get a signal too."""

    def __init__(self, pid: int, starter: Starter, log: Path) -> None:
        self.pid, self.starter, self.log, self.since = pid, starter, log, time.monotonic()
        self.code: int | None = None

    def wait(self) -> int:
        """The exit code, or minus the signal that ended the process."""
        if self.code is None:
            self.code = int(self.starter._answer())
        return self.code

    def signal(self, number: int, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def ended(self) -> bool:
        """Whether the process is no more (the server waits for every child, so none stays a zombie)."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def killed_at(self, run: Path, line: int, delay: float) -> bool:
        """Send SIGKILL `delay` seconds after the run's log has `line` lines; return False if the process ended before.

        A line of the log is a moment of the run. Seconds are not: a busy machine takes several times as many of them.
        """
        while logged(run) < line and not self.ended():
            time.sleep(0.002)
        time.sleep(delay)
        self.signal(signal.SIGKILL)
        code = self.wait()
        assert code in (0, -signal.SIGKILL), f"exit {code}: {self.log.read_text()[-3000:]}"
        return code != 0
