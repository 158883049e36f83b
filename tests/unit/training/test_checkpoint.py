"""A checkpoint is complete or absent, whatever interrupts the write, and a resumed run equals an undisturbed one."""

import contextlib
import errno
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from pipelines.errors import RunError
from pipelines.training import checkpoint
from pipelines.training.checkpoint import State
from pipelines.training.optim import Average, make_optimizer
from tests.support.runs import Killed, Writes, one_thread  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, EVERY, BEST = 6, 2, 2


class Toy:
    """A small run: the weights after a step are a pure function of the step, and the score is best at step 2."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 2)
        )
        self.optimizer = make_optimizer("adamw", [{"params": list(self.model.parameters()), "lr": 1e-2}])
        self.average = Average(self.model, 0.9)

    def run(self, root: Path, total: int = STEPS) -> dict[str, torch.Tensor]:
        checkpoint.tidy(root, keep=1)
        last = checkpoint.latest(root)
        state = checkpoint.read_state(last) if last else State()
        if last:
            checkpoint.restore(last, self.model, {"main": self.optimizer}, self.average)
        while state.step < total:
            self.step(state.step)
            state.step += 1
            if state.step % EVERY == 0:
                if state.step <= BEST:
                    state.best, state.best_step = float(state.step), state.step
                files = checkpoint.collect(self.model, {"main": self.optimizer}, self.average)
                checkpoint.write(root, state.step, files, state, best=state.best_step == state.step)
                checkpoint.prune(root, keep=1)
        files = checkpoint.collect(self.model, {"main": self.optimizer}, self.average)
        return {f"{file}/{name}": value for file, part in files.items() for name, value in part.items()}

    def step(self, number: int) -> None:
        torch.manual_seed(number)
        self.model(torch.randn(4, 3, 6, 6)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(number)


def whole(root: Path) -> None:
    """Everything that has the name of a checkpoint can be restored, and the marks name such checkpoints."""
    for folder in root.glob("step_*"):
        toy = Toy()
        checkpoint.restore(folder, toy.model, {"main": toy.optimizer}, toy.average)
    if (root / "last").exists():
        assert checkpoint.marked(root, "last") is not None
        assert checkpoint.read_state(checkpoint.latest(root)).step % EVERY == 0


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    root = tmp_path_factory.mktemp("undisturbed")
    found = Toy().run(root)
    assert sorted(p.name for p in root.glob("step_*")) == ["step_000002", "step_000006"]
    return found


def writes_of_a_run(root: Path) -> int:
    with Writes() as seen:
        Toy().run(root)
    assert seen.count > 30
    return seen.count


def test_killed_at_every_write(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    count = writes_of_a_run(tmp_path / "counted")
    for at in range(1, count + 1):
        root = tmp_path / str(at)
        with Writes(at=at) as seen, pytest.raises(Killed):
            Toy().run(root)
        whole(root)
        assert equal(Toy().run(root), undisturbed), seen.what
        assert (root / "best").read_text() == "step_000002\n", seen.what
        assert sorted(p.name for p in root.iterdir() if not p.is_file()) == ["step_000002", "step_000006"], seen.what


def test_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    """This holds also for a kill while it tidies up after the last kill."""
    starts, found = 0, None
    while found is None:
        starts += 1
        assert starts < 100
        with contextlib.suppress(Killed), Writes(at=3 + 2 * starts):
            found = Toy().run(tmp_path)
    assert starts > 5
    assert equal(found, undisturbed)


def test_a_disk_that_refuses(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    count = writes_of_a_run(tmp_path / "counted")
    complaints = []
    for at in range(1, count + 1):
        root = tmp_path / str(at)
        with Writes(at=at, error=OSError(errno.ENOSPC, "no luck")):
            try:
                Toy().run(root)  # a file that could not be removed blocks nothing
            except RunError as error:
                complaints.append(str(error))
        whole(root)
        assert equal(Toy().run(root), undisturbed)
    assert len(complaints) > count / 2
    assert all("no luck; earlier checkpoints are whole" in text for text in complaints)


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to write a file larger than this, like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_tensor_library_says_of_a_full_disk(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, {"model": {"w": torch.ones(10)}}, State(step=1))
    with (
        files_up_to(100_000),
        pytest.raises(RunError, match=r"step_000002: cannot be written: .*earlier checkpoints are whole. Free"),
    ):
        checkpoint.write(tmp_path, 2, {"model": {"w": torch.ones(100_000)}}, State(step=2))
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000001"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_000001"]


def test_a_removed_checkpoint_leaves_an_earlier_one(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    Toy().run(tmp_path)
    (tmp_path / "step_000006" / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(
        RunError,
        match=r"step_000006: the checkpoint cannot be read .*; remove it, and the run goes on from an earlier one",
    ):
        Toy().run(tmp_path, STEPS + 1)
    for file in (tmp_path / "step_000006").iterdir():
        file.unlink()
    (tmp_path / "step_000006").rmdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000002"
    assert equal(Toy().run(tmp_path), undisturbed)


def test_what_is_newer_than_the_last_is_made_again(tmp_path: Path) -> None:
    """A kill between a checkpoint and its mark. The resumed run may be longer, with another schedule."""
    Toy().run(tmp_path, 4)
    state = State(step=6, best=9.0, best_step=6)
    with mock.patch("pipelines.training.checkpoint._replace", side_effect=Killed), pytest.raises(Killed):
        checkpoint.write(tmp_path, 6, {"model": {"w": torch.ones(1)}}, state, best=True)
    (tmp_path / "best").write_text("step_000006\n")  # as if the kill came between the two marks
    (tmp_path / ".last").write_text("step_0000")  # and one while a mark was written
    checkpoint.tidy(tmp_path, keep=1)
    assert not (tmp_path / ".last").exists()
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000002", "step_000004"]
    assert checkpoint.marked(tmp_path, "best") == tmp_path / "step_000002"


def test_pruning_keeps_last_and_best_and_counts_numbers(tmp_path: Path) -> None:
    for step in (5, 999_999, 1_000_000, 1_000_001):
        checkpoint.write(tmp_path, step, {"model": {"w": torch.ones(1)}}, State(step=step), best=step == 5)
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000005", "step_1000000", "step_1000001"]
    (tmp_path / "last").write_text("step_1000000\n")
    checkpoint.prune(tmp_path, keep=1)
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000005", "step_1000000", "step_1000001"]


def test_the_same_step_again_takes_the_new_state(tmp_path: Path) -> None:
    """A stop had postponed an evaluation: the weights are there, the score is new."""
    files = {"model": {"w": torch.ones(3)}}
    folder = checkpoint.write(tmp_path, 3, files, State(step=3, evaluation_due=True))
    checkpoint.write(tmp_path, 3, files, State(step=3, best=0.5, best_step=3), best=True)
    assert json.loads((folder / "state.json").read_text())["best"] == 0.5
    assert checkpoint.marked(tmp_path, "best") == folder


def test_restored_moments_lie_like_their_parameters(tmp_path: Path) -> None:
    """Fused kernels walk through memory in order: a channels-last parameter needs channels-last moments."""

    def toy() -> Toy:
        small_run = Toy()
        small_run.model.to(memory_format=torch.channels_last)
        return small_run

    whole_run, first = toy(), toy()
    for number in range(4):
        whole_run.step(number)
    for number in range(2):
        first.step(number)
    folder = checkpoint.write(
        tmp_path, 2, checkpoint.collect(first.model, {"main": first.optimizer}, first.average), State(step=2)
    )
    second = toy()
    checkpoint.restore(folder, second.model, {"main": second.optimizer}, second.average)
    for number in (2, 3):
        second.step(number)
    mine, wanted = second.model.state_dict(), whole_run.model.state_dict()
    assert equal(mine, wanted)
    weight = second.model[0].weight
    assert second.optimizer.state[weight]["exp_avg"].stride() == weight.stride() != torch.empty(4, 3, 3, 3).stride()


# ---- shares, as several processes write them; here by one ----


def shares(root: Path, toy: Toy, state: State) -> Path:
    parts = checkpoint.collect(toy.model, {"main": toy.optimizer}, toy.average)
    checkpoint.write_shares(root, state.step, parts)
    return checkpoint.write(root, state.step, checkpoint.SHARES, state)


def test_shares_are_read_as_files_are(tmp_path: Path) -> None:
    first = Toy()
    first.step(0)
    folder = shares(tmp_path, first, State(step=1))
    assert {path.name for path in folder.iterdir()} == {"model", "optimizer_main", "ema", "state.json"}
    second = Toy()
    second.step(5)
    checkpoint.restore(folder, second.model, {"main": second.optimizer}, second.average)
    for toy in (first, second):
        toy.step(1)
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert equal(first.average.values, second.average.values)
    averaged = Toy()
    checkpoint.load_weights(averaged.model, folder, average=True)
    assert not torch.equal(averaged.model[0].weight, first.average.values["0.weight"])
    checkpoint.restore(folder, second.model, {"main": second.optimizer}, second.average)
    assert torch.equal(averaged.model[0].weight, second.average.values["0.weight"])


def test_shares_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FILE_SIZE", 100)
    first, second = Toy(), Toy()
    first.step(0)
    folder = shares(tmp_path, first, State(step=1))
    assert len(list((folder / "model").iterdir())) > 2
    checkpoint.restore(folder, second.model, {"main": second.optimizer}, second.average)
    assert equal(first.model.state_dict(), second.model.state_dict())


def test_killed_at_every_write_of_shares(tmp_path: Path) -> None:
    first, second = Toy(), Toy()
    first.step(0)
    second.step(0)
    second.step(1)
    at = 0
    while True:
        at += 1
        root = tmp_path / str(at)
        shares(root, first, State(step=1))
        try:
            with Writes(at):
                shares(root, second, State(step=2))
        except Killed:
            found = Toy()
            checkpoint.tidy(root, keep=3)
            assert not list(root.glob(".writing_*"))
            last = checkpoint.latest(root)
            assert last is not None
            checkpoint.restore(last, found.model, {"main": found.optimizer}, found.average)
            wanted = first if checkpoint.read_state(last).step == 1 else second
            assert equal(found.model.state_dict(), wanted.model.state_dict())
            continue
        break
    assert at > 12


def test_a_disk_that_refuses_shares(tmp_path: Path) -> None:
    toy = Toy()
    toy.step(0)
    shares(tmp_path, toy, State(step=1))
    full = OSError(errno.ENOSPC, "No space left on device")
    for at in (1, 4, 7):
        with pytest.raises(RunError, match="step_000002: cannot be written: No space left"), Writes(at, full):
            shares(tmp_path, toy, State(step=2))
        assert [path.name for path in tmp_path.glob("*step_*")] == ["step_000001"]


def test_damaged_shares(tmp_path: Path) -> None:
    toy = Toy()
    toy.step(0)
    folder = shares(tmp_path, toy, State(step=1))
    (file,) = (folder / "model").iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunError, match="step_000001: the checkpoint cannot be read"):
        checkpoint.restore(folder, toy.model, {"main": toy.optimizer}, toy.average)
