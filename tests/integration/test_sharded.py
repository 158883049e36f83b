"""Under FSDP2 every process keeps a share: checkpoints move between numbers of processes, and a kill breaks none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.integration.test_distributed import SHARDED, Place, check_equal, torchrun
from tests.support import tiny_text
from tests.support.runs import (
    ROOT,
    losses,
    one_thread,  # noqa: F401 (a fixture)
    outcome,
    results,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TWO, FOUR = (["--nproc_per_node", number, "--standalone"] for number in "24")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


def recipes(place: Place) -> dict[str, dict[str, Any]]:
    """Kinds of models that share their weights in different ways."""
    words = tiny_text.gpt(place.folder / "gpt")
    texts = tiny_text.texts(place.folder / "texts", n=8)
    train = {"max_steps": 6, "batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "log_every": 1}
    written = {"task": "text-generation", "data": {"id": str(texts), "workers": 0}, "options": {"max_length": 32}}
    adapter = {"kind": "lora", "rank": 2}
    return {
        "tied": {**written, "model": {"id": str(words)}, "train": train},
        "tied adapter": {**written, "model": {"id": str(words), "adapter": adapter}, "train": train},
        "random": place.recipe(model__weights="random", train__max_steps=6),
        "bf16": place.recipe(model__adapter=adapter, train__max_steps=6, train__precision="bf16"),
    }


@pytest.fixture(scope="module")
def begun(place: Place) -> list[list[dict[str, Any]]]:
    """Two processes: a run that stops after 9 of 20 steps, and runs of other models."""
    orders = [{"run": "begun", "recipe": place.recipe(**SHARDED), "fsdp": True, "stop": 9}]
    orders += [{"run": f"two {kind}", "recipe": recipe, "fsdp": True} for kind, recipe in recipes(place).items()]
    facts = torchrun(place, "begun by two", orders, TWO)
    for number in ("one", "four"):
        shutil.copytree(place.folder / "begun", place.folder / f"begun for {number}")
    return facts


@pytest.fixture(scope="module")
def whole(place: Place) -> Path:
    return place.alone("one process", place.recipe(**SHARDED))


def test_checkpoints_hold_shares(place: Place, begun: Any) -> None:
    """Each of two processes wrote half of every matrix."""
    assert [fact[0]["sharded"] for fact in begun] == [True, True]
    last = place.folder / "begun" / "checkpoints" / "step_000009"
    assert {path.name for path in last.iterdir()} == {"model", "optimizer_main", "ema", "state.json"}
    found = []
    for path in sorted((last / "model").iterdir()):
        with safe_open(path, "pt") as file:
            found.append({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
    assert len(found) == 2
    name = "vit.embeddings.patch_embeddings.projection.weight"
    assert found[0][name][0] == found[1][name][0] == 16


def test_two_go_on_as_four(place: Place, whole: Path, begun: Any) -> None:
    """Four processes share three classes: one of them has no row of the head."""
    order = {"run": "begun for four", "recipe": place.recipe(**SHARDED), "fsdp": True}
    facts = torchrun(place, "four", [order], FOUR)
    assert [(one[0]["ended"], one[0]["steps"], one[0]["processes"]) for one in facts] == [("finished", 11, 4)] * 4
    check_equal(whole, place.folder / "begun for four")


def test_two_go_on_as_one(place: Place, whole: Path, begun: Any) -> None:
    place.alone("begun for one", place.recipe(**SHARDED))
    check_equal(whole, place.folder / "begun for one")


@pytest.mark.parametrize("kind", ["tied", "tied adapter", "random"])
def test_other_models_learn_the_same(place: Place, begun: Any, kind: str) -> None:
    one, two = place.alone(f"one {kind}", recipes(place)[kind]), place.folder / f"two {kind}"
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    for split in ("baseline", "test"):
        assert results(two)[split]["metrics"] == pytest.approx(results(one)[split]["metrics"], abs=1e-4)
    names = []
    for run in (one, two):
        with safe_open(run / "model" / "model.safetensors", "pt") as file:
            names.append({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
        names.append(json.loads((run / "model" / "config.json").read_text()))  # type: ignore[arg-type]
    assert names[:2] == names[2:]


def test_frozen_weights_are_kept_in_bf16(place: Place, begun: Any) -> None:
    """They lie next to trained weights in float32, in one block. FSDP rounds more than autocast does."""
    assert [one[-1]["ended"] for one in begun] == ["finished"] * 2
    one = place.alone("one bf16", recipes(place)["bf16"])
    assert losses(place.folder / "two bf16") == pytest.approx(losses(one), abs=0.02)


def test_killed_while_it_writes(place: Place, whole: Path, begun: Any) -> None:
    """The second process dies in the middle of the second checkpoint: the run goes on from the first one."""
    recipe = place.recipe(**SHARDED)
    order = {"run": "killed", "recipe": recipe, "fsdp": True}
    parts = 3  # model, optimizer_main, ema
    worker = place.orders("kill", [{**order, "die": parts + 2}])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *TWO, *worker],
        cwd=ROOT,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode != 0
    checkpoints = place.folder / "killed" / "checkpoints"
    assert [path.name for path in checkpoints.glob("step_*")] == ["step_000003"]
    (half,) = checkpoints.glob(".writing_*")
    assert list(half.rglob("*.safetensors")), "nothing was written when it died"
    assert not (half / "state.json").exists()
    facts = torchrun(place, "kill again", [order], TWO)
    assert [one[0]["ended"] for one in facts] == ["finished"] * 2
    check_equal(whole, place.folder / "killed")
    assert not list(checkpoints.glob(".writing_*"))
    assert outcome(place.folder / "killed")["last"] == "step_000020\n"
