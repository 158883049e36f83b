"""What training guarantees for every task: micro-batches, two processes, FSDP2, SIGKILL.

The recipes are the tiny ones of tests/tasks, so a new task is tested without a change here.
"""

import importlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import task_names, validate
from pipelines.config.yaml_io import dump
from pipelines.training.run import train
from tests.integration.test_distributed import torchrun
from tests.support.runs import (
    Starter,
    logged,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    results,
    without_pictures,
)
from tests.tasks.contract import TaskContract, close

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
KILLS = 5  # micro-batches of each recipe


def contracts() -> dict[str, type[TaskContract]]:
    """Every contract of tests/tasks, by task and class."""
    found = {}
    for task in task_names():
        module = importlib.import_module(f"tests.tasks.test_{task.replace('-', '_')}")
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, TaskContract)]
        found |= {f"{task} {kind.__name__}": kind for kind in kinds if kind is not TaskContract and kind.spine}
    return found


CONTRACTS = contracts()


def test_every_task_has_a_contract() -> None:
    assert {name.split()[0] for name in CONTRACTS} == set(task_names())
    assert len(CONTRACTS) >= 2


class Place:
    """One folder of runs, with what tests/integration/test_distributed.py expects of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipes = {name: self._recipe(kind, folder / name.replace(" ", "_")) for name, kind in CONTRACTS.items()}

    def _recipe(self, kind: type[TaskContract], folder: Path) -> dict[str, Any]:
        raw = kind().recipe(folder)
        settings = {k: v for k, v in raw["train"].items() if k != "epochs"}
        return {
            **raw,
            "train": {**settings, "max_steps": STEPS, "log_every": 1},
            "data": {**raw["data"], "max_eval_rows": 9},
        }

    def orders(self, name: str, orders: list[dict[str, Any]]) -> list[str]:
        (self.folder / name).mkdir()
        full = [{"stop": None, "fsdp": False, **order, "run": str(self.folder / order["run"])} for order in orders]
        (self.folder / name / "orders.json").write_text(json.dumps(full))
        return ["-m", "tests.support.distributed_worker", str(self.folder / name / "orders.json")]

    def facts(self, name: str) -> list[list[dict[str, Any]]]:
        return json.loads((self.folder / name / "facts.json").read_text())

    def environment(self) -> dict[str, str]:
        own = {
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "GRAFT_CACHE": str(self.folder / "cache"),
        }
        return {**os.environ, **own}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def alone(place: Place) -> dict[str, Path]:
    """The run of one process, as its recipe says."""
    for name, raw in place.recipes.items():
        with without_pictures():
            train(validate(raw), place.folder / f"one {name}", name="small")
    return {name: place.folder / f"one {name}" for name in place.recipes}


@pytest.fixture(scope="module")
def together(place: Place, alone: dict[str, Path]) -> list[list[dict[str, Any]]]:
    """Two processes: every recipe plain (DDP) and sharded (FSDP2), in one start."""
    orders = [{"run": f"two {name}", "recipe": raw} for name, raw in place.recipes.items()]
    orders += [{"run": f"sharded {name}", "recipe": raw, "fsdp": True} for name, raw in place.recipes.items()]
    facts = torchrun(place, "together", orders, ["--nproc_per_node", "2", "--standalone"])  # type: ignore[arg-type]
    return [[{**fact, "run": order["run"]} for fact, order in zip(one, orders, strict=True)] for one in facts]


def check_equal(one: Path, other: Path, name: str) -> None:
    """Losses agree within 1e-5, scores agree almost exactly, every row counts once.

    A task whose loss depends on how batches are cut says how far losses may be from each other.
    """
    near = CONTRACTS[name].inexact
    assert len(losses(one)) == STEPS
    assert losses(other) == pytest.approx(losses(one), rel=near, abs=near)
    mine, theirs = results(one), results(other)
    assert mine["data"] == theirs["data"]
    for split in ("validation", "test", "baseline"):
        assert theirs[split]["n"] == mine[split]["n"]
        assert theirs[split]["metrics"].keys() == mine[split]["metrics"].keys()
        assert near > 1e-5 or close(theirs[split]["metrics"], mine[split]["metrics"], 1e-4)


@pytest.mark.parametrize("micro", [3])
@pytest.mark.parametrize("name", CONTRACTS)
def test_micro_batches_change_nothing(place: Place, alone: dict[str, Path], name: str, micro: int) -> None:
    raw = place.recipes[name]
    with without_pictures():
        train(
            validate({**raw, "train": {**raw["train"], "micro_batch": micro}}),
            place.folder / f"{micro} {name}",
            name="small",
        )
    check_equal(alone[name], place.folder / f"{micro} {name}", name)


@pytest.mark.parametrize("how", ["two", "sharded"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_two_processes_learn_the_same(
    place: Place, alone: dict[str, Path], together: list[list[dict[str, Any]]], name: str, how: str
) -> None:
    (fact,) = (fact for fact in together[1] if fact["run"] == f"{how} {name}")
    if how == "sharded" and CONTRACTS[name].unshardable:
        assert fact["ended"].startswith(f"ModelError: {CONTRACTS[name].unshardable}")
        return
    assert (fact["ended"], fact["processes"], fact["sharded"]) == ("finished", 2, how == "sharded")
    check_equal(alone[name], place.folder / f"{how} {name}", name)


# ---- SIGKILL ----


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    starter = Starter({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    yield starter
    starter.close()


@pytest.mark.parametrize("name", CONTRACTS)
def test_killed_at_random_moments(start: Starter, place: Place, tmp_path: Path, name: str) -> None:
    """After SIGKILL and the same command again, the result equals that of an undisturbed run, bit for bit."""
    raw = place.recipes[name]
    (tmp_path / "small.yaml").write_text(
        dump({**raw, "train": {**raw["train"], "max_steps": 40, "log_every": 1, "save_every": 3, "eval_every": 10}})
    )

    def command(run: str) -> Any:
        arguments = ["train", str(tmp_path / "small.yaml"), "--run", str(tmp_path / run)]
        return start(arguments, tmp_path / f"{run}.log", GRAFT_CACHE=str(tmp_path / f"cache of {run}"))

    undisturbed = command("whole")
    assert undisturbed.wait() == 0, undisturbed.log.read_text()[-3000:]
    rng, kills, total = random.Random(name), 0, logged(tmp_path / "whole")
    assert total >= 40
    while kills < KILLS:
        last = total // 2 if kills == 0 else total - 1  # half a run is left after the first, so it cannot come too late
        line = rng.randint(min(logged(tmp_path / "cut"), last), last)
        kills += command("cut").killed_at(tmp_path / "cut", line, rng.uniform(0, 0.1))
        if (tmp_path / "cut" / "model" / "results.json").exists():
            break
    finished = command("cut")
    assert finished.wait() == 0, finished.log.read_text()[-3000:]
    assert kills > 0
    wanted, found = outcome(tmp_path / "whole"), outcome(tmp_path / "cut")
    assert {key for key in found if found[key] != wanted[key]} == set()
