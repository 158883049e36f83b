"""Wrong questions and passages: named and counted, or refused in a line or two."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_text
from tests.support.command import graft, refused

RECIPE = """task: question-answering
model: {id: nowhere}
data: {id: nowhere, workers: 0}
options: {max_length: 48, stride: 8, max_question_length: 12}
train: {max_steps: 1, batch_size: 8, learning_rate: 1.0e-3, warmup: 0, precision: fp32}
"""


def train_file(folder: Path) -> Path:
    return folder / "train-v1.1.json"


def question(folder: Path, number: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The complete file, and one question in it."""
    squad_file = json.loads(train_file(folder).read_text())
    return squad_file, squad_file["data"][number // 9]["paragraphs"][0]["qas"][number % 9]


def changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        squad_file, one = question(folder)
        one.update(values)
        train_file(folder).write_text(json.dumps(squad_file))

    return change


def text(content: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        train_file(folder).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def cut(folder: Path) -> None:
    train_file(folder).write_text(train_file(folder).read_text()[:900])


def table(header: str, *lines: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for file in folder.glob("*.json"):
            file.unlink()
        (folder / "train.csv").write_text("\n".join([header, *lines]) + "\n")

    return write


def without_context(folder: Path) -> None:
    squad_file, _ = question(folder)
    for article in squad_file["data"]:
        article["paragraphs"][0]["context"] = " "
    train_file(folder).write_text(json.dumps(squad_file))


REFUSED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "cut off": (cut, ["train-v1.1.json: not valid JSON"]),
    "broken": (text('{"data": [}'), ["train-v1.1.json: not valid JSON", "line 1"]),
    "another form": (text('{"data": [{"titles": 1}]}'), ["train-v1.1.json: not in SQuAD's form", "paragraphs"]),
    "a list": (text('[{"data": 1}]'), ["not in SQuAD's form"]),
    "no questions": (text('{"data": []}'), ["train-v1.1.json: no questions"]),
    "another encoding": (text('{"data": "é"}'.encode("latin-1")), ["train-v1.1.json: not UTF-8 text (byte 10)"]),
    "every passage empty": (without_context, ["none of", "context is empty"]),
    "a table without contexts": (table("question,answer", "Who?,Ada"), ["no column 'context'", "data.columns.context"]),
    "a table of wrong answers": (
        table("question,context,answer", "Who?,It was Ada.,Boris"),
        ["none of 1 rows", "'Boris' does not stand"],
    ),
    "a place that is no number": (
        table("question,context,answer,answer_start", "Who?,It was Ada.,Ada,seven"),
        ["answer_start is no number"],
    ),
}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.bert(tmp_path_factory.mktemp("bert"))


def trained(folder: Path, model: Path, *arguments: str) -> Any:
    (folder / "recipe.yaml").write_text(RECIPE)
    where = ["--data", folder / "squad", "--model", model, "--run", folder / "run"]
    return graft("train", folder / "recipe.yaml", *where, *arguments)


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_files_are_refused(case: str, right: Path, tmp_path: Path) -> None:
    spoil, words = REFUSED[case]
    spoil(tiny_text.squad(tmp_path / "squad", n=4))
    refused(trained(tmp_path, right), 2, *words)


SKIPPED: dict[str, tuple[Callable[[Path], None], str]] = {
    "at the wrong place": (
        changed(answers=[{"text": "Ada", "answer_start": 1}]),
        "does not stand at 1 of its context (there: ",
    ),
    "beyond the end": (changed(answers=[{"text": "Ada", "answer_start": 99999}]), "does not stand at 99999"),
    "no answer in 1.1": (changed(answers=[]), "the question has no answer (options.version: '2.0' allows that)"),
    "an empty question": (changed(question="  "), "question is empty"),
    "an empty answer": (
        changed(answers=[{"text": "", "answer_start": 0}]),
        "answer is empty, or holds what is no text",
    ),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_a_wrong_row_is_skipped_and_named(case: str, right: Path, tmp_path: Path) -> None:
    spoil, why = SKIPPED[case]
    spoil(tiny_text.squad(tmp_path / "squad", n=4))
    done = trained(tmp_path, right)
    assert done.code == 0, done.err
    assert "skipped, cannot be read: train-0-0: " in done.err
    assert why in done.err
    found = json.loads((tmp_path / "run" / "results.json").read_text())["data"]
    assert [found[split]["skipped"] for split in ("train", "validation", "test")] == [1, 0, 0]


def test_windows_that_cannot_be(right: Path, tmp_path: Path) -> None:
    tiny_text.squad(tmp_path / "squad", n=4)
    refused(trained(tmp_path, right, "options.stride=40"), 2, "options.stride", "windows of 48 tokens")
    refused(
        trained(tmp_path, right, "options.max_length=4000"), 2, "options.max_length: got 4000", "at most 128 tokens"
    )


def test_models_that_answer_no_questions(right: Path, tmp_path: Path) -> None:
    tiny_text.squad(tmp_path / "squad", n=4)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((right / name).read_bytes())
    refused(trained(tmp_path, bare), 2, "bare: no tokenizer here")
    (bare / "tokenizer.json").write_text("{")
    refused(trained(tmp_path, bare), 2, "its tokenizer cannot be read")
