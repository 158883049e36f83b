"""Advice of an error is accepted by the verb that gives it."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines
from pipelines.cli import app
from pipelines.config.recipe import Recipe, task_class, task_names
from pipelines.config.validation_errors import keys
from tests.support import tiny_text
from tests.support.command import graft, refused

ROOT = Path(pipelines.__path__[0])


@pytest.fixture(scope="module", name="classifier")
def a_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of single texts that Graft did not train."""
    folder = tmp_path_factory.mktemp("advice") / "model"
    return tiny_text.bert(folder, "BertForSequenceClassification", reads_pairs=False, id2label={0: "good", 1: "bad"})


@pytest.fixture(name="table")
def a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a text {number},{'good' if number % 2 else 'bad'}\n" for number in range(8))
    Path("reviews.csv").write_text(f"body,stars\n{rows}")
    return "reviews.csv"


def test_predict_takes_the_columns_that_its_error_asks_for(classifier: Path, table: str) -> None:
    error = refused(graft("predict", classifier, table), 2, "(it has: body, stars)")
    assert error.endswith("name the right one with data.columns.text=NAME")
    for setting in ("data.columns.text=body", "columns.text=body"):
        done = graft("predict", classifier, table, setting, "--json")
        assert done.code == 0, done.err
        assert len(json.loads(done.out)) == 8
    refused(graft("predict", classifier, table, "data.columns.txt=body"), 2, "no input of that name", "mean 'text'?")
    refused(graft("predict", classifier, table, "data.columns.text=boddy"), 2, "no column 'boddy'")


def test_evaluate_takes_the_columns_that_its_error_asks_for(classifier: Path, table: str) -> None:
    refused(graft("evaluate", classifier, "--data", table), 2, "data.columns.text=NAME")
    names = ("data.columns.text=body", "columns.label=stars")
    done = graft("evaluate", classifier, "--data", table, *names, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["n"] == 8
    refused(graft("evaluate", classifier, "--data", table, "data.colums.text=body"), 2, "data.columns.text=body?")
    refused(graft("evaluate", classifier, "--data", table, "train.epochs=3"), 2, "it is a setting of the training")
    refused(graft("evaluate", classifier, "--data", table, "max_skipped=7"), 2, "data.max_skipped: must be at most 1")


def words_of_messages() -> Iterator[tuple[str, str]]:
    """Every text in the code that is no docstring, with its place."""
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def test_every_key_and_option_of_an_advice_exists() -> None:
    import typer

    known = {key for name in task_names() for key in keys(Recipe, task_class(name).Options)}
    verbs = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = {one for verb in verbs for param in verb.params for one in param.opts}
    options |= {"--help", "--version", "--debug"}
    others = {"--config_file", "--force-reinstall", "--multi_gpu", "--no-deps", "--out"}  # of other programs
    named, unknown = 0, []
    for place, text in words_of_messages():
        for key in re.findall(r"\b((?:data|train|model|hub|options)(?:\.[a-z_]+)+)=", text):
            named += 1
            if key not in known and not key.startswith(("data.columns.", "model.config.")):
                unknown.append(f"{place}: {key}")
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", text):
            named += 1
            if option not in options | others:
                unknown.append(f"{place}: {option}")
    assert named > 60
    assert unknown == []
