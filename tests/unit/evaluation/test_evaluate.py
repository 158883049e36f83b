"""`graft evaluate` takes the settings that its own messages recommend, and no others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines
from pipelines.config.recipe import DataSection, Scoring, TrainSection, for_scoring, task_class, task_names
from pipelines.errors import RecipeError

ROOT = Path(pipelines.__file__).parent
# what an evaluation runs; `models` and `build` of tasks also check recipes of a training
RUN = ("data", "evaluation", "metrics", "inference", "utils")
KEY = re.compile(r"\b((?:data|options|train)\.[a-z_]+(?:\.[a-z_]+)?)(=\w+)?")


def messages() -> Iterator[tuple[Path, str]]:
    """The texts of errors and warnings. What is computed becomes a question mark."""
    for folder in RUN:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "?" for part in node.values]
                    yield path, "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                    yield path, node.value


def refusal(scoring: Scoring, override: str) -> str:
    try:
        for_scoring(scoring, [override])
    except RecipeError as error:
        return str(error)
    return ""


def test_its_own_advice_is_accepted() -> None:
    options = {task: task_class(task)().options for task in task_names()}
    known = {f"options.{name}" for one in options.values() for name in type(one).model_fields}
    # what a finished model has settled is advised for a training: `data` reads the rows of both
    settled = {name for one in options.values() for name in (*one.of_the_model, *one.learned)}
    found = set()
    for path, text in messages():
        for key, value in KEY.findall(text):
            section, _, name = key.partition(".")
            if section == "train" and (name not in TrainSection.model_fields or "train again" in text):
                continue  # train.csv; advice for another training
            if section == "options" and (key not in known or name in settled):
                continue
            if section == "data" and name.partition(".")[0] not in DataSection.model_fields:
                continue  # not a setting: `rows.data.x` and the like
            own = [one for one in options.values() if section != "options" or name in type(one).model_fields]
            assert own, (path, text)
            scoring = Scoring(DataSection(id="x"), own[0], TrainSection(max_steps=1))
            if value:
                for_scoring(scoring, [f"{key}{value}"])
            else:  # which values are right is not known, but the key is
                assert "unknown" not in refusal(scoring, f"{key}={{}}"), (path, text)
                assert "training, which is over" not in refusal(scoring, f"{key}={{}}"), (path, text)
            found.add(key)
    assert {"train.eval_batch_size", "options.max_seconds", "data.columns"} <= found, sorted(found)


def test_settings_of_the_training_are_refused() -> None:
    task = task_class("text-classification")()
    scoring = Scoring(DataSection(id="x"), task.options, TrainSection(max_steps=1))
    made = for_scoring(scoring, ["eval_batch_size=4", "columns.text=body", "options.max_length=64", "precision=fp32"])
    assert (made.train.eval_batch_size, made.data.columns, made.options.max_length) == (4, {"text": "body"}, 64)
    assert made.train.precision == "fp32"
    for wrong, why in (
        ("train.epochs=3", "it is a setting of the training, which is over"),
        ("epochs=3", "it is a setting of the training, which is over"),
        ("eval_batch_size=0", "eval_batch_size"),
        ("max_lenth=3", "did you mean"),
    ):
        with pytest.raises(RecipeError, match=why):
            for_scoring(scoring, [wrong])
