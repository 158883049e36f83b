"""The size of the contract: how many names a task has, and that no name serves only one task."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import task_class, task_names
from pipelines.task import Task
from tests.support.toy_gan import ToyGan, installed, toy_recipe
from tests.tasks.contract import TaskContract

ROOT = Path(__file__).parents[2]
MOST = 33  # `prepare` and `answer` made it 33: `infer` alone cannot answer several inputs at once
DECLARED = {
    "name",
    "hub",
    "metrics",
    "data",
    "Options",
    "options",
    "phases",
    "generation",
    "augmentation",
    "mistakes",
    "state",
    "frozen",
}
# what a task does; `score` becomes `statistics` and `summarize`
DONE = {
    "prepare",
    "answer",
    "build",
    "layers",
    "encode",
    "augment",
    "mix",
    "random_inputs",
    "collate",
    "counts",
    "loss",
    "predict",
    "merge",
    "score",
    "statistics",
    "summarize",
    "tables",
    "figures",
    "calibrate",
    "save",
    "load",
    "infer",
}


def public_names(kind: type) -> set[str]:
    """Names of a class and of its instances, including attributes that `__init__` sets."""
    tree = ast.parse((ROOT / "pipelines" / "task.py").read_text())
    (of,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    own = {
        node.attr
        for node in ast.walk(of)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return {name for name in {*dir(kind), *kind.__annotations__, *own} if not name.startswith("_")}


def tasks() -> list[type[Task]]:
    return [*(task_class(name) for name in task_names()), ToyGan]


def test_a_task_has_at_most_thirty_three_names() -> None:
    names = public_names(Task)
    assert names <= DECLARED | DONE
    assert len(names) <= MOST, sorted(names)


def test_no_name_is_there_for_one_task_alone() -> None:
    """At least two tasks use each optional name (of the tasks and the contract's toy)."""
    optional = {
        name
        for name in public_names(Task)
        if name in vars(Task) and name not in getattr(Task, "__abstractmethods__", ())
    }
    own = {name: [kind.__name__ for kind in tasks() if name in vars(kind)] for name in optional}
    assert {"phases", "generation", "augmentation", "augment", "mix", "random_inputs", "calibrate", "merge"} <= optional
    assert not {name: who for name, who in own.items() if len(who) < 2}


def test_nobody_asks_which_class_a_method_is_of() -> None:
    """A task declares its capabilities: no `type(task).method is Task.method`, and no `hasattr(task, ...)`."""
    found = []
    for path in [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "apps").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, (ast.Compare, ast.Call)) else ""
            compares = isinstance(node, ast.Compare) and any(f"Task.{name}" in text for name in DONE)
            asks = (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("hasattr", "getattr")
                and ast.unparse(node.args[0]).endswith("task")
            )
            if compares or asks:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text}")
    assert not found


def test_every_shipped_task_shows_its_mistakes() -> None:
    specs = [task_class(name)().mistakes for name in task_names()]
    assert len(specs) == 16
    assert all(spec is not None and spec.order.endswith(".") and spec.most <= 24 for spec in specs)


def test_no_task_inherits_from_another() -> None:
    assert [kind.__mro__[1] for kind in tasks()] == [Task] * len(tasks())


def test_every_task_declares_what_its_class_is_asked_for() -> None:
    for kind in tasks():
        declared: Any = kind()
        assert set(declared.data.kinds.values()) <= {
            "image",
            "audio",
            "video",
            "mask",
            "text",
            "label",
            "number",
            "boxes",
        }
        assert declared.data.input_columns
        assert all((kind.hub.pipeline_tag, kind.hub.library_name, kind.hub.architectures, declared.phases))


# ---- the contract for a task of two phases, which is in no package: training and scores ----


@pytest.fixture(scope="class")
def found() -> Iterator[None]:
    with installed():
        yield


@pytest.mark.usefixtures("found")
class TestToyGan(TaskContract):
    spine = False
    improves = "distance"
    steps, rate = 40, 2e-2
    # it has no card, no app and no recipes
    test_published_and_loaded_is_the_same = test_the_snippet_runs_without_graft = test_the_app_builds = None  # type: ignore[assignment]
    test_the_run_folder_is_whole = test_every_recipe_of_the_task_is_valid = None  # type: ignore[assignment]
    test_training_rows_stay_training_rows = test_saved_and_loaded_is_the_same = None  # type: ignore[assignment]
    test_interrupted_and_resumed_is_uninterrupted = None  # type: ignore[assignment]  # see tests/unit/training/test_phases.py

    def recipe(self, folder: Path) -> dict[str, Any]:
        return toy_recipe(folder)

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": row["id"], "true": row["value"], "made": row["value"]} for row in rows]
