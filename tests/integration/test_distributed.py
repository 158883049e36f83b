"""Several processes learn what one process learns: plain (DDP), sharded (FSDP2), and on two nodes. All run on the CPU.

One torchrun does many runs, because its start takes most of the time (tests/support/distributed_worker.py).
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import (
    ROOT,
    lines,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    results,
    settings,
    without_pictures,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# 33 rows in steps of 16, 16 and 1: in the last step, one of two processes has no row. There are 9 rows to score, and no
# number of processes divides 9.
ROWS = {"train": 11, "validation": 3, "test": 3}
BASE: dict[str, Any] = {
    "train__batch_size": 16,
    "train__micro_batch": 8,
    "train__max_steps": 7,
    "train__eval_every": "epoch",
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"train__ema": 0.8, "train__layer_decay": 0.7},
    "adapter": {"model__adapter": {"kind": "lora", "rank": 2}, "options__augment": "crop-flip", "options__mixup": 0.3},
    "frozen": {"model__freeze": "backbone", "train__learning_rate": 1e-2},
    "head first": {"train__head_epochs": 1, "train__max_steps": 4},
    "part": {"model__freeze": 1, "train__optimizer": "sgd", "options__class_weights": "balanced"},
}
SHARDED = {"train__max_steps": 20, "train__ema": 0.8, "train__save_every": 7}


class Place:
    """The folder of this file's runs, with tiny data and a model without BatchNorm and dropout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = tiny.photos(folder / "data", ("cat", "dog", "eel"), n=ROWS, size=32)
        self.damaged = shutil.copytree(self.data, folder / "damaged")
        bad = self.damaged / "train" / "dog" / "002.jpg"
        bad.write_bytes(bad.read_bytes()[:-200])
        self.broken = shutil.copytree(self.damaged, folder / "broken")
        for number in range(3, 7):
            (self.broken / "train" / "dog" / f"00{number}.jpg").write_bytes(b"no image")
        self.model = tiny.vit(folder / "model")
        self.unused = tiny.dinov2(folder / "unused")  # one parameter takes no part in classification
        self.norms = tiny.resnet(folder / "norms")
        # its last feature maps have one pixel: BatchNorm cannot train on one row
        self.pixels = tiny.mobilenet(folder / "pixels")

    def recipe(self, data: Path | None = None, model: Path | None = None, **changes: Any) -> dict[str, Any]:
        return settings(model or self.model, data or self.data, **{**BASE, **changes})

    def alone(self, name: str, recipe: Mapping[str, Any]) -> Path:
        """The same run in this process."""
        with without_pictures(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRAFT_CACHE", str(self.folder / "cache of one"))
            train(validate(dict(recipe)), self.folder / name, name="small")
        return self.folder / name

    def orders(self, name: str, orders: list[dict[str, Any]]) -> list[str]:
        folder = self.folder / name
        folder.mkdir()
        full = [{"stop": None, "fsdp": False, **order, "run": str(self.folder / order["run"])} for order in orders]
        (folder / "orders.json").write_text(json.dumps(full))
        return ["-m", "tests.support.distributed_worker", str(folder / "orders.json")]

    def facts(self, name: str) -> list[list[dict[str, Any]]]:
        """For each process, the facts that it recorded of each order."""
        return json.loads((self.folder / name / "facts.json").read_text())

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "GRAFT_CACHE": str(self.folder / "cache of two"),
        }


def torchrun(place: Place, name: str, orders: list[dict[str, Any]], *agents: list[str]) -> list[list[dict[str, Any]]]:
    """Start one agent per list of arguments, wait for all, return the facts.

    On a busy machine, a thread of gloo sometimes aborts its process (SIGABRT, without a Python error). Such a start is
    repeated once, from the beginning. An error of our own code ends in a traceback and is not repeated.
    """
    worker = place.orders(name, orders)
    command = [sys.executable, "-m", "torch.distributed.run"]
    path = place.folder / name / "log"
    fresh = not any((place.folder / order["run"]).exists() for order in orders)
    for again in (False, True):
        with path.open("w") as log:
            start = {"cwd": ROOT, "env": place.environment(), "stdout": log, "stderr": log}
            codes = [
                process.wait(600)
                for process in [subprocess.Popen([*command, *agent, *worker], **start) for agent in agents]
            ]
        text = path.read_text()
        if codes == [0] * len(agents) or again or not fresh or "(SIGABRT)" not in text:
            break
        print("\n".join(line for line in text.splitlines() if re.search(r"terminate|what\(\)|gloo|SIGABRT", line)))
        for order in orders:
            shutil.rmtree(place.folder / order["run"], ignore_errors=True)
    assert codes == [0] * len(agents), f"{text[:3000]}\n[...]\n{text[-6000:]}"
    return place.facts(name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def alone(place: Place) -> dict[str, Path]:
    """Each kind of run in one process, and two runs that are only begun."""
    found = {kind: place.alone(f"one {kind}", place.recipe(**changes)) for kind, changes in KINDS.items()}
    found["unused"] = place.alone("one unused", place.recipe(model=place.unused))
    found["damaged"] = place.alone("one damaged", place.recipe(place.damaged))
    found["sharded"] = place.alone("one sharded", place.recipe(**SHARDED))
    return found


@pytest.fixture(scope="module")
def begun_alone(place: Place, alone: dict[str, Path]) -> Path:
    """A run that one process stopped after 4 steps."""
    recipe = place.recipe(**KINDS["averaged"])
    place.alone("begun by one", {**recipe, "train": {**recipe["train"], "max_steps": 7, "save_every": 4, "keep": 9}})
    undisturbed, cut = place.folder / "begun by one", place.folder / "cut"
    shutil.copytree(undisturbed, cut)
    shutil.rmtree(cut / "model")
    (cut / "results.json").unlink()
    (cut / "checkpoints" / "last").write_text("step_000004\n")
    return cut


@pytest.fixture(scope="module")
def together(place: Place, begun_alone: Path) -> list[list[dict[str, Any]]]:
    """Two processes on one node: every kind of run, some stopped and continued, and FSDP2."""
    orders = [{"run": f"two {kind}", "recipe": place.recipe(**changes)} for kind, changes in KINDS.items()]
    orders += [
        {"run": "two damaged", "recipe": place.recipe(place.damaged)},
        {"run": "two broken", "recipe": place.recipe(place.broken)},
    ]
    stopped = {"run": "two stopped", "recipe": place.recipe(**KINDS["averaged"])}
    orders += [{**stopped, "stop": 5}, stopped]
    norms = {"recipe": place.recipe(model=place.norms)}
    orders += [{"run": "two lone", "recipe": place.recipe(model=place.pixels, train__batch_size=2)}]
    orders += [
        {**norms, "run": "two norms"},
        {**norms, "run": "norms stopped", "stop": 4},
        {**norms, "run": "norms stopped"},
    ]
    orders += [{"run": "given to one", "recipe": place.recipe(**KINDS["averaged"]), "stop": 3}]
    orders += [{"run": begun_alone.name, "recipe": place.recipe(**KINDS["averaged"])}]
    sharded = {"recipe": place.recipe(**SHARDED), "fsdp": True}
    orders += [
        {**sharded, "run": "two sharded"},
        {**sharded, "run": "sharded stopped", "stop": 9},
        {**sharded, "run": "sharded stopped"},
    ]
    orders += [{**sharded, "run": "sharded given to one", "stop": 9}]
    orders += [{"run": "two with little", "recipe": place.recipe(train__eval_batch_size=6), "most": 2}]
    orders += [{"run": "scored", "evaluate": str(place.folder / "two plain")}]
    facts = torchrun(place, "together", orders, ["--nproc_per_node", "2", "--standalone"])
    return [[{**fact, "run": order["run"]} for fact, order in zip(one, orders, strict=True)] for one in facts]


def check_equal(one: Path, several: Path) -> None:
    """Losses agree within 1e-5. Metrics of counts are equal; metrics of confidences agree within 1e-5."""
    assert len(losses(one)) == len(losses(several)) > 5
    assert losses(several) == pytest.approx(losses(one), abs=1e-5)
    mine, theirs = results(one), results(several)
    for split in ("validation", "test", "baseline"):
        a, b = mine[split]["metrics"], theirs[split]["metrics"]
        assert a.pop("ece") == pytest.approx(b.pop("ece"), abs=1e-5)
        assert a == b
        assert mine[split]["n"] == theirs[split]["n"]
    assert mine["data"] == theirs["data"]
    assert mine["train"] == theirs["train"]
    for split in ("validation", "test"):
        records = [
            [json.loads(line) for line in (run / "predictions" / f"{split}.jsonl").read_text().splitlines()]
            for run in (one, several)
        ]
        assert [r["id"] for r in records[0]] == [r["id"] for r in records[1]]
        assert len({r["id"] for r in records[1]}) == len(records[1]) == 9


@pytest.mark.quick
def test_two_processes_train_as_one(place: Place) -> None:
    """This test compares the plainest run. The tests below allow what may differ with two processes."""
    recipe = place.recipe()
    facts = torchrun(place, "plainest", [{"run": "pair", "recipe": recipe}], ["--nproc_per_node", "2", "--standalone"])
    assert [[(fact["ended"], fact["processes"]) for fact in one] for one in facts] == [[("finished", 2)]] * 2
    check_equal(place.alone("single", recipe), place.folder / "pair")


# Frozen weights are stored in half precision. 2**21 is too large for the gradients of this model in fp16.
HALF: dict[str, dict[str, Any]] = {
    "bf16 adapter": {"train__precision": "bf16", "model__adapter": {"kind": "lora", "rank": 2}},
    "bf16 frozen": {"train__precision": "bf16", "model__freeze": "backbone", "train__learning_rate": 1e-2},
    "fp16 adapter": {"train__precision": "fp16", "model__adapter": {"kind": "lora", "rank": 2}},
    "fp16": {"train__precision": "fp16", "train__max_steps": 14, "train__log_every": 1},
}
SCALE = 2.0**21


def test_two_processes_train_as_one_in_half_precision(place: Place) -> None:
    orders = [{"run": f"two {kind}", "recipe": place.recipe(**changes)} for kind, changes in HALF.items()]
    orders[-1] |= {"scale": SCALE}
    facts = torchrun(place, "half", orders, ["--nproc_per_node", "2", "--standalone"])
    assert [[(fact["ended"], fact["processes"]) for fact in one] for one in facts] == [[("finished", 2)] * 4] * 2
    for kind in list(HALF)[:-1]:
        one, two = place.alone(f"one {kind}", place.recipe(**HALF[kind])), place.folder / f"two {kind}"
        assert len(losses(two)) == 7
        assert losses(two) == pytest.approx(losses(one), rel=1e-2), kind
        ended = json.loads((two / "results.json").read_text())
        assert ended["environment"]["precision"] == HALF[kind]["train__precision"]
    check_skips(place.folder / "two fp16", [one[-1]["weights"] for one in facts])


def check_skips(run: Path, weights: list[float]) -> None:
    """Steps whose gradients overflow in fp16 are skipped by both processes, so that their weights stay equal."""
    steps = [line for line in lines(run) if "loss" in line]
    assert len(steps) == 14
    assert weights[0] == weights[1]
    assert (steps[0]["loss_scale"], steps[0]["skipped_steps"], steps[0]["grad_norm"]) == (SCALE / 2, 1, None)
    taken = [line for line in steps if line["grad_norm"] is not None]
    assert len(steps) - len(taken) == steps[-1]["skipped_steps"] < 10
    assert steps[-1]["loss_scale"] == SCALE / 2 ** steps[-1]["skipped_steps"]
    assert taken[-1]["loss"] < taken[0]["loss"]


@pytest.mark.parametrize("micro", [1, 4, 16])
def test_one_process_however_the_step_is_cut(place: Place, alone: dict[str, Path], micro: int) -> None:
    found = place.alone(f"micro {micro}", place.recipe(train__micro_batch=micro))
    check_equal(alone["plain"], found)


def test_there_are_two(together: list[list[dict[str, Any]]]) -> None:
    assert len(together) == 2
    assert all(fact["processes"] == 2 for one in together for fact in one if fact["steps"])
    plain = [fact for one in together for fact in one if "sharded" not in fact["run"] and fact["steps"]]
    assert {fact["kind"] for fact in plain} == {"DistributedType.MULTI_CPU"}
    assert {fact["wrapper"] for fact in plain} == {"DistributedDataParallel"}


@pytest.mark.parametrize("kind", [*KINDS, "damaged"])
def test_two_processes_learn_the_same(
    place: Place, alone: dict[str, Path], together: list[list[dict[str, Any]]], kind: str
) -> None:
    assert {fact["ended"] for one in together for fact in one if fact["run"] == f"two {kind}"} == {"finished"}
    check_equal(alone[kind], place.folder / f"two {kind}")


def test_one_of_two_processes_prints_the_scores(place: Place, together: list[list[dict[str, Any]]]) -> None:
    """With --json, stdout holds exactly one document."""
    first, second = (fact for one in together for fact in one if fact["run"] == "scored")
    assert (first["ended"], second["ended"]) == (0, 0), first["told"] + second["told"]
    assert json.loads(first["printed"])["metrics"] == results(place.folder / "two plain")["test"]["metrics"]
    assert second["printed"] == ""


def test_little_memory_of_one_process_changes_no_partition(place: Place, alone: dict[str, Path], together: Any) -> None:
    """The first process halves its batches in the first evaluation, in which no process waits for another one.

    In later evaluations, the other process must use the same batches.
    """
    first, second = (fact for one in together for fact in one if fact["run"] == "two with little")
    assert (first["ended"], second["ended"], first["refused"]) == ("finished", "finished", 5)
    assert len(first["evaluations"]) == 6
    assert second["evaluations"] == [[]] * 6  # the main process alone gets the records
    assert all(len(set(ids)) == len(ids) == 9 for ids in first["evaluations"])
    check_equal(alone["plain"], place.folder / "two with little")


def test_no_process_trains_batch_norm_on_one_row(together: list[list[dict[str, Any]]]) -> None:
    """Steps of 2 rows and, at the end of an epoch, of 3.

    One of the two processes has all of these rows; the other takes part without rows.
    """
    assert [(fact["ended"], fact["steps"]) for one in together for fact in one if fact["run"] == "two lone"] == [
        ("finished", 7)
    ] * 2


def test_both_hear_of_too_many_bad_rows(together: list[list[dict[str, Any]]]) -> None:
    ended = [fact["ended"] for one in together for fact in one if fact["run"] == "two broken"]
    assert len(ended) == 2
    assert all(
        text.startswith("DataError: ") and "rows of train cannot be read, 3 of 33 may be" in text for text in ended
    )


def test_a_stop_told_to_one_stops_both(place: Place, together: list[list[dict[str, Any]]]) -> None:
    for one in together:
        first, second = (fact for fact in one if fact["run"] == "two stopped")
        assert (first["ended"], first["steps"]) == ("stopped", 5)
        assert (second["ended"], second["steps"]) == ("finished", 2)
    assert outcome(place.folder / "two stopped") == outcome(place.folder / "two averaged")
    assert outcome(place.folder / "norms stopped") == outcome(
        place.folder / "two norms"
    )  # BatchNorm: the result differs from one process, but it is exactly repeatable


def test_another_number_of_processes_goes_on(
    place: Place, alone: dict[str, Path], together: list[list[dict[str, Any]]]
) -> None:
    given = place.folder / "given to one"
    assert not (given / "results.json").exists()
    place.alone("given to one", place.recipe(**KINDS["averaged"]))
    check_equal(alone["averaged"], given)
    cut = [fact for one in together for fact in one if fact["run"] == "cut"]
    assert [(fact["ended"], fact["steps"]) for fact in cut] == [("finished", 3)] * 2
    check_equal(alone["averaged"], place.folder / "cut")


def test_sharded_learns_the_same(place: Place, alone: dict[str, Path], together: list[list[dict[str, Any]]]) -> None:
    sharded = [fact for one in together for fact in one if "sharded" in fact["run"]]
    assert len(sharded) == 8
    assert all(fact["sharded"] and fact["kind"] == "DistributedType.FSDP" for fact in sharded)
    check_equal(alone["sharded"], place.folder / "two sharded")
    assert len(losses(place.folder / "two sharded")) == 20


def test_sharded_stops_and_goes_on(place: Place, alone: dict[str, Path], together: list[list[dict[str, Any]]]) -> None:
    for one in together:
        first, second = (fact for fact in one if fact["run"] == "sharded stopped")
        assert (first["ended"], first["steps"], second["ended"], second["steps"]) == ("stopped", 9, "finished", 11)
    assert outcome(place.folder / "sharded stopped") == outcome(place.folder / "two sharded")
    place.alone("sharded given to one", place.recipe(**SHARDED))
    check_equal(alone["sharded"], place.folder / "sharded given to one")


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def test_two_nodes(place: Place, alone: dict[str, Path]) -> None:
    """Each node has a first process, and both write the feature cache."""
    port = free_port()
    agents = [
        [
            "--nnodes",
            "2",
            "--node_rank",
            rank,
            "--nproc_per_node",
            "1",
            "--master_addr",
            "127.0.0.1",
            "--master_port",
            port,
        ]
        for rank in "01"
    ]
    sharded = {"recipe": place.recipe(**SHARDED), "fsdp": True, "run": "nodes sharded"}
    orders = [{"run": f"nodes {kind}", "recipe": place.recipe(**KINDS[kind])} for kind in ("plain", "frozen")]
    facts = torchrun(place, "nodes", [*orders, {**sharded, "stop": 9}, sharded], *agents)
    assert [[fact["ended"] for fact in one] for one in facts] == [["finished", "finished", "stopped", "finished"]] * 2
    assert all(fact["processes"] == 2 for one in facts for fact in one)
    assert [[fact["sharded"] for fact in one] for one in facts] == [[False, False, True, True]] * 2
    for kind in ("plain", "frozen", "sharded"):
        check_equal(alone[kind], place.folder / f"nodes {kind}")
