"""Wrong `metrics` in a recipe: each is refused before training, in a line or two that explain what to write."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config.recipe import recipe_schema
from tests.support import tiny_text
from tests.support.command import graft, refused

RIGHT = "def compute(predictions, references):\n    return {'n': len(predictions)}\n"
HEAD = "import datasets\nimport evaluate\n\n"
INFO = """
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("%s"), "references": datasets.Value("%s")%s})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)
"""
TEXTS = INFO % ("string", "string", "")
ONE = "\n    def _compute(self, **k):\n        return {'x': 1}\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# what is wrong -> (entries of `metrics`, words that the error must contain); none of these needs the data
ENTRIES: dict[str, tuple[Any, list[str]]] = {
    "not a list": ("a.py", ["metrics", "must be a list", "'a.py'"]),
    "a number": ([3], ["metrics.0", "must be text", "3"]),
    "nothing": ([""], ["metrics.0", "it is empty"]),
    "a name alone": (["rouge"], ["'rouge' is no metric", "./my_metric.py", "owner/name@<full commit>"]),
    "no commit": (
        ["evaluate-metric/rouge"],
        ["only with its full commit", "evaluate-metric/rouge@<40 hexadecimal digits>"],
    ),
    "a branch": (["evaluate-metric/rouge@main"], ["only with its full commit", "evaluate-metric/rouge@<40"]),
    "a short commit": (["evaluate-metric/rouge@0123456"], ["only with its full commit"]),
    "a commit in capitals": ([f"evaluate-metric/rouge@{COMMIT.upper()}"], ["only with its full commit"]),
    "an address": ([f"https://example.org/rouge@{COMMIT}"], ["is no metric"]),
    "the same twice": (["a.py", "a.py"], ["would both be called a", "rename"]),
    "two of one name": (["x/my-metric.py", "y/my_metric.py"], ["my_metric", "rename one of the files"]),
    "a NUL": (["a\0.py"], ["NUL"]),
    "no such file": (["absent.py"], ["absent.py: no such file"]),
    "a folder": (["folder.py"], ["folder.py: a folder, and not a file"]),
}

# what is wrong -> (the module's code, words that the error must contain)
MODULES: dict[str, tuple[str, list[str]]] = {
    "no Python": ("def compute(:\n", ["m.py: no valid Python", "line 1"]),
    "not text": ("\0", ["m.py"]),
    "empty": (
        "",
        ["neither a class that derives from evaluate.Metric nor a function compute(predictions, references)"],
    ),
    "another name": ("def score(predictions, references):\n    return {}\n", ["neither a class"]),
    "compute is a value": ("compute = 3\n", ["neither a class"]),
    "a missing package": (
        "import no_such_package.part\n",
        ["needs the package no_such_package", "pip install no_such_package"],
    ),
    "a missing neighbour": ("from .helper import x\n" + RIGHT, ["imports helper.py, which does not lie beside it"]),
    "an error on import": ("x = 1\n1 / x.y\n" + RIGHT, ["cannot be imported", "AttributeError", "line 2 of m.py"]),
    "an exit": ("raise SystemExit('bye')\n", ["cannot be imported", "SystemExit: bye"]),
    "other parameters": (
        "def compute(a, b):\n    return {}\n",
        ["must take predictions and references by these names"],
    ),
    "a parameter too many": (
        RIGHT.replace("references)", "references, prompts)"),
        ["compute asks for prompts", "predictions, references, confidence, id"],
    ),
    "an error": (
        "def compute(predictions, references):\n    return {'x': 1 / 0}\n",
        ["m.py fails", "ZeroDivisionError", "line 2 of m.py"],
    ),
    "no dictionary": (
        "def compute(predictions, references):\n    return 0.5\n",
        ["must give a dictionary of numbers, got 0.5"],
    ),
    "nothing given": (
        "def compute(predictions, references):\n    pass\n",
        ["must give a dictionary of numbers, got None"],
    ),
    "an empty one": ("def compute(predictions, references):\n    return {}\n", ["gives no number"]),
    "text for a number": (
        "def compute(predictions, references):\n    return {'x': 'high'}\n",
        ["'x' must be a number, got 'high'"],
    ),
    "true for a number": (
        "def compute(predictions, references):\n    return {'x': True}\n",
        ["'x' must be a number, got True"],
    ),
    "a list for a number": (
        "def compute(predictions, references):\n    return {'x': [1.0]}\n",
        ["'x' must be a number"],
    ),
    "a name with a path": (
        "def compute(predictions, references):\n    return {'../x': 1.0}\n",
        ["'../x' cannot be the name of a score"],
    ),
    "two classes": (
        HEAD + f"class A(evaluate.Metric):{TEXTS}\n\nclass B(evaluate.Metric):{TEXTS}",
        ["several metrics (A, B)", "one in each file"],
    ),
    "a class without _info": (HEAD + "class A(evaluate.Metric):\n    pass\n", ["cannot be made", "NotImplemented"]),
    "a class without _compute": (HEAD + f"class A(evaluate.Metric):{TEXTS}", ["m.py fails", "NotImplemented"]),
    "other columns": (
        HEAD + "class A(evaluate.Metric):" + INFO % ("string", "string", ', "weights": datasets.Value("float32")'),
        ["asks for weights", "predictions, references"],
    ),
    "numbers for texts": (
        HEAD
        + "class A(evaluate.Metric):"
        + INFO % ("float32", "float32", "")
        + "\n    def _compute(self, **k):\n        return {'x': 1}\n",
        ["m.py fails", "ValueError"],
    ),
    "no number of a class": (
        HEAD + f"class A(evaluate.Metric):{TEXTS}\n    def _compute(self, **k):\n        return {{'x': 'text'}}\n",
        ["gives no number"],
    ),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("right")
    return {
        "task": "text-classification",
        "model": {"id": str(tiny_text.distilbert(folder / "model"))},
        "data": {"id": str(tiny_text.labelled(folder / "data", "class", n=9)), "workers": 0},
        "train": {"max_steps": 1, "batch_size": 4, "precision": "fp32"},
    }


def written(folder: Path, recipe: dict[str, Any], metrics: Any, text: str | None = None) -> Path:
    if text is not None:
        (folder / "m.py").write_text(text)
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe | {"metrics": metrics}))
    return folder / "r.yaml"


@pytest.mark.parametrize("case", ENTRIES)
def test_entries_are_refused_before_anything_is_read(case: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    entries, words = ENTRIES[case]
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "nowhere").mkdir()  # neither data nor a model, and it is not read
    nowhere = recipe | {"data": {"id": str(tmp_path / "nowhere")}, "model": {"id": str(tmp_path / "nowhere")}}
    refused(graft("train", written(tmp_path, nowhere, entries), "--run", tmp_path / "run"), 2, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", MODULES)
def test_modules_are_refused_before_training(case: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    text, words = MODULES[case]
    refused(graft("check", written(tmp_path, recipe, ["m.py"], text)), 2, "metrics", *words)
    assert not list(tmp_path.rglob("__pycache__"))


def test_train_refuses_as_check_does(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, recipe, ["m.py"], MODULES["an error"][0])
    refused(graft("train", path, "--run", tmp_path / "run"), 2, "ZeroDivisionError")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not list((tmp_path / "run").rglob("log.jsonl"))
    (tmp_path / "m.py").write_text(RIGHT)
    done = graft("train", path, "--run", tmp_path / "run")
    assert done.code == 0, done.err


def test_a_name_that_graft_has_already(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "f1.py").write_text("def compute(predictions, references):\n    return {'macro': 1.0}\n")
    refused(
        graft("check", written(tmp_path, recipe, ["f1.py"])), 2, "there is a score f1_macro already", "rename the file"
    )


def test_a_file_that_cannot_be_read(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, recipe, ["m.py"], RIGHT)
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    (tmp_path / "m.py").chmod(stat.S_IWUSR)
    refused(graft("check", path), 2, "m.py", "cannot be imported", "PermissionError")


@pytest.mark.parametrize(
    ("task", "model", "options"),
    [
        ("fill-mask", lambda folder: tiny_text.bert(folder, "BertForMaskedLM"), {}),
        ("text-generation", tiny_text.gpt, {}),
    ],
)
def test_tasks_whose_rows_have_no_prediction(task: str, model: Any, options: dict[str, Any], tmp_path: Path) -> None:
    raw = {
        "task": task,
        "model": {"id": str(model(tmp_path / "model"))},
        "data": {"id": str(tiny_text.texts(tmp_path / "data", n=9)), "workers": 0},
        "options": options,
        "train": {"max_steps": 1, "batch_size": 4, "precision": "fp32"},
    }
    refused(
        graft("check", written(tmp_path, raw, ["m.py"], RIGHT)), 2, f"{task} gives no prediction", "take `metrics` out"
    )


def test_a_task_that_makes_images(tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    raw = {
        "task": "unconditional-image-generation",
        "model": {"id": str(tmp_path / "nowhere")},
        "data": {"id": str(tmp_path / "nowhere")},
        "train": {"max_steps": 1, "batch_size": 4},
    }
    path = written(tmp_path, raw, ["m.py"], RIGHT)
    for command in (("check", path), ("train", path, "--run", tmp_path / "run")):
        refused(graft(*command), 2, "unconditional-image-generation gives no prediction")


def test_the_schema_describes_them() -> None:
    field = recipe_schema()["properties"]["metrics"]
    assert (field["type"], field["items"], field["default"]) == ("array", {"type": "string"}, [])
    assert "evaluate-metric/rouge@<commit>" in field["description"]
    assert "only if you name the recipe" in field["description"]
