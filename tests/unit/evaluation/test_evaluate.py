"""`graft evaluate` takes the settings that its own messages recommend, and no others."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pipelines
from pipelines.config.recipe import DataSection, Scoring, TrainSection, for_scoring, task_class, task_names, validate
from pipelines.errors import RecipeError
from pipelines.evaluation.evaluate import data_section, evaluate, precision_of
from pipelines.inference.loading import Located
from pipelines.utils import hardware
from tests.support import tiny_text
from tests.support.command import graft, refused

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
    assert made.asked == {"train.eval_batch_size", "data.columns.text", "options.max_length", "train.precision"}
    assert for_scoring(scoring, ["train.tf32=false"]).train.tf32 is False
    for wrong, why in (
        ("train.epochs=3", "it is a setting of the training, which is over"),
        ("epochs=3", "it is a setting of the training, which is over"),
        ("eval_batch_size=0", "eval_batch_size"),
        ("max_lenth=3", "did you mean"),
    ):
        with pytest.raises(RecipeError, match=why):
            for_scoring(scoring, [wrong])


def test_a_model_reads_labels_as_its_own_data_write_them(tmp_path: Path) -> None:
    task = task_class("text-classification")()
    raw = {"task": "text-classification", "model": {"id": "m"}, "train": {"max_steps": 1}}

    def model(**data: Any) -> Located:
        recipe = validate({**raw, "data": {"id": "a.csv", **data}}, exists=True)
        return Located(task, tmp_path, None, recipe, None, "m")

    flags = ["rude", "spam"]
    found = data_section(model(label_columns=flags, columns={"text": "body"}), "b.csv")
    assert found.model_dump(exclude_defaults=True) == {
        "id": "b.csv",
        "columns": {"text": "body"},
        "label_columns": flags,
    }
    assert data_section(model(label_separator=","), "b.csv").label_separator == ","
    scoring = Scoring(found, task.options, TrainSection(max_steps=1))
    assert for_scoring(scoring, ["data.columns.label=kind"]).data.label_columns is None
    one = DataSection(id="b.csv", columns={"text": "body", "label": "kind"})
    asked = for_scoring(scoring._replace(data=one), ["data.label_columns=[rude,spam]"]).data
    assert (asked.label_columns, asked.columns) == (flags, {"text": "body"})


@pytest.mark.parametrize(
    ("task", "key", "lifted"),
    [
        ("text-classification", "multi_label=true", False),
        ("text-classification", "regression=true", False),
        ("image-classification", "multi_label=true", False),
        ("audio-classification", "multi_label=true", False),
        ("unconditional-image-generation", "class_conditional=true", False),
        ("speech-recognition-ctc", "vocabulary=data", False),
        ("text-generation", "prompt=Read {text}", True),
        ("text-generation", "chat=true", True),
    ],
)
def test_options_of_the_model_are_refused(task: str, key: str, lifted: bool) -> None:
    """A prompt may be tried with a language model that Graft did not train."""
    scoring = Scoring(DataSection(id="x"), task_class(task)().options, TrainSection(max_steps=1))
    for name in (key, f"options.{key}"):
        assert "the model has its own value of it" in refusal(scoring, name)
    if lifted:
        for_scoring(scoring, [key], trained=False)
    else:
        with pytest.raises(RecipeError, match="the model has its own value of it"):
            for_scoring(scoring, [key], trained=False)


@pytest.fixture(scope="module", name="scored")
def a_model_and_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("scored")
    model = tiny_text.bert(
        root / "model",
        "BertForSequenceClassification",
        reads_pairs=False,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    rows = root / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"the song {n},{'yes' if n % 3 else 'no'}\n" for n in range(9)))
    return model, rows


def test_the_metric_that_is_asked_for(scored: tuple[Path, Path]) -> None:
    model, rows = scored
    command = ("evaluate", model, "--data", rows, "--device", "cpu", "--json")
    done = graft(*command, "train.metric=f1_macro")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metric"] == "f1_macro"
    assert json.loads(graft(*command).out)["metric"] == "accuracy"
    refused(graft(*command, "train.metric=f1macro"), 2, "gives no score 'f1macro'", "did you mean 'f1_macro'")
    refused(graft(*command, "multi_label=true"), 2, "the model has its own value of it")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_precision_that_is_asked_for(
    precision: str, scored: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    tf32: list[tuple[bool, str]] = []
    real = hardware.accelerator

    def accelerator(kind: str) -> Any:
        used.append(kind)
        return real(kind)

    monkeypatch.setattr(hardware, "accelerator", accelerator)
    monkeypatch.setattr(hardware, "set_tf32", lambda *asked: tf32.append(asked))
    settings = [f"train.precision={precision}", "train.tf32=false"]
    evaluate(scored[0], data=str(scored[1]), device="cpu", overrides=settings)
    assert (used, tf32) == ([precision], [(False, precision)])


@pytest.mark.parametrize(
    ("device", "best", "trained", "used"),
    [
        ("cpu", "fp32", "fp16", "fp32"),
        ("cpu", "bf16", "bf16", "bf16"),
        ("cpu", "bf16", "fp16", "fp32"),
        ("cuda", "bf16", "fp16", "fp16"),
        ("cuda", "fp16", "fp16", "fp16"),
        ("cuda", "fp16", "bf16", "fp32"),
        ("cuda", "fp32", "fp16", "fp32"),
        ("cuda", "bf16", "fp32", "fp32"),
        ("cuda", "fp16", "auto", "fp16"),
    ],
)
def test_the_precision_of_the_training(
    device: str, best: str, trained: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this device gains nothing by it, scores are computed in fp32. Another GPU does not count on a CPU."""
    monkeypatch.setattr(hardware, "best_precision", lambda model, kind: best if kind == device else "other")
    weight = SimpleNamespace(device=torch.device(device))
    loaded: Any = SimpleNamespace(model=SimpleNamespace(parameters=lambda: iter([weight])))
    train = TrainSection.model_validate({"max_steps": 1, "precision": trained})
    assert precision_of(loaded, train) == used
    if trained != "auto":
        assert precision_of(loaded, train, exact=True) == trained
