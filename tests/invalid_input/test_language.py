"""Wrong texts, prompts and language models: refused in a line or two, or skipped, counted and named."""

import bz2
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.yaml_io import dump
from pipelines.errors import DataError
from tests.support import tiny_text
from tests.support.command import graft, refused

PROMPT = "{context} {question}"


class Case:
    """A folder with texts, questions and two models, and the command to damage."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task
        self.texts = tiny_text.texts(folder / "texts", n=6)
        self.model = (tiny_text.gpt if task == "text-generation" else _masked)(folder / "model")
        self.data = self.texts
        self.changes: list[str] = []

    def __call__(self, *words: str) -> Any:
        options = {"max_length": 64}
        train = {"max_steps": 1, "batch_size": 4, "warmup": 0, "precision": "fp32"}
        raw = {
            "task": self.task,
            "model": {"id": "nowhere"},
            "data": {"id": "nowhere", "workers": 0},
            "options": options,
            "train": train,
        }
        (self.folder / "recipe.yaml").write_text(dump(raw))
        where = ["--data", self.data, "--model", self.model, "--run", self.folder / "run"]
        return graft("train", self.folder / "recipe.yaml", *where, *self.changes, *words)

    def write(self, *texts: Any) -> None:
        """The training rows."""
        (self.texts / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def _masked(folder: Path) -> Path:
    return tiny_text.bert(folder, "BertForMaskedLM")


def settings(*changes: str) -> Callable[[Case], None]:
    return lambda case: case.changes.extend(changes)


def file(name: str, content: bytes) -> Callable[[Case], None]:
    def write(case: Case) -> None:
        case.data = case.folder / name
        case.data.write_bytes(content)

    return write


def configured(**values: Any) -> Callable[[Case], None]:
    """Change the tokenizer's configuration."""

    def change(case: Case) -> None:
        path = case.model / "tokenizer_config.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in {**found, **values}.items() if v is not None}))

    return change


def another(make: Callable[[Path], Path]) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.model = make(case.folder / "another")

    return change


def without(name: str) -> Callable[[Case], None]:
    return lambda case: (case.model / name).unlink()


def damaged(case: Case) -> None:
    weights = case.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])


def questions(case: Case) -> None:
    case.data = tiny_text.squad(case.folder / "squad")
    case.changes.append(f'options.prompt="{PROMPT}"')


def long_questions(case: Case) -> None:
    questions(case)
    case.changes.append("options.max_length=16")


def surrogate(case: Case) -> None:
    (case.texts / "train.jsonl").write_text('{"text": "half \\ud800"}\n' * 6)


DUMP = (
    b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">'
    b"<page><title>A</title><ns>0</ns><id>1</id><revision><text>A b.</text>"
)

G, M = "text-generation", "fill-mask"
REFUSED: dict[str, tuple[str, Callable[[Case], None], list[str]]] = {
    "every text empty": (G, lambda case: case.write("", " "), ["texts: none of 2 rows can be used", "text is empty"]),
    "numbers for texts": (M, lambda case: case.write(1, 2), ["none of 2 rows", "text is no text but int"]),
    "NUL bytes": (G, lambda case: case.write("a\0b"), ["none of 1 rows", "text holds NUL bytes"]),
    "half a surrogate pair": (G, surrogate, ["none of 6 rows", "train.jsonl:1: text holds half of a surrogate pair"]),
    "another column": (G, settings("data.columns.text=body"), ["no column 'body'", "it has: text"]),
    "a prompt without columns": (
        G,
        settings('options.prompt="Answer:"'),
        ["options.prompt", "name the columns in braces"],
    ),
    "an open brace": (
        G,
        settings('options.prompt="{question"'),
        ["options.prompt", "a brace that is part of the text is written twice"],
    ),
    "a prompt of other columns": (G, settings('options.prompt="{story}"'), ["no column 'story'", "data.columns.story"]),
    "no answers": (G, settings('options.prompt="{text}"'), ["no column 'answer'", "data.columns.answer"]),
    "prompts longer than a window": (
        G,
        long_questions,
        ["none of 45 rows of train can be used", "16 are read (options.max_length)"],
    ),
    "longer than the model": (
        G,
        settings("options.max_length=4000"),
        ["options.max_length: got 4000", "at most 128 tokens"],
    ),
    "braces without quotes": (G, settings("options.prompt={context} {question}"), ["options.prompt", "quotes around"]),
    "masks for nothing": (M, settings("options.mask_probability=0"), ["options.mask_probability", "must be above 0"]),
    "an encoder that is to write": (
        G,
        another(_masked),
        ["a bert model sees the words to come: task fill-mask fits it"],
    ),
    "a writer that is to fill": (M, another(tiny_text.gpt), ["a gpt2 model does not fill masks"]),
    "an encoder without its blocks": (M, damaged, ["model: the model cannot be loaded"]),
    "no tokenizer": (G, without("tokenizer.json"), ["model: "]),
    "no mask": (M, configured(mask_token=None), ["its tokenizer has no mask"]),
    "no end": (G, configured(eos_token=None, bos_token=None), ["its tokenizer has no end-of-text token"]),
    "no weights": (G, without("model.safetensors"), ["model: no weights here"]),
    "mixed encodings": (G, file("a.txt", b"caf\xc3\xa9\n\ncaf\xe9\n\nx\n\ny"), ["a.txt: not UTF-8"]),
    "a text file that is binary": (M, file("a.txt", b"a\n\n\0\n\nb\n\nc"), ["a.txt", "holds zero bytes"]),
    "an empty text file": (M, file("a.txt", b""), ["a.txt"]),
    "a dump cut off in the middle": (
        G,
        file("d.xml.bz2", bz2.compress(DUMP * 1000)[:-40]),
        ["d.xml.bz2", "ends in the middle"],
    ),
    "a dump that is none": (G, file("d.xml.bz2", bz2.compress(b"<html></html>")), ["d.xml.bz2"]),
    "a dump that is no bz2": (G, file("d.xml.bz2", b"BZh9 no more"), ["d.xml.bz2"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    task, spoil, words = REFUSED[name]
    case = Case(tmp_path, task)
    spoil(case)
    refused(case(), 2, *words)


def test_all_of_them() -> None:
    assert len(REFUSED) >= 20


@pytest.mark.parametrize("task", [G, M])
def test_a_wrong_row_is_skipped_and_named(task: str, tmp_path: Path) -> None:
    case = Case(tmp_path, task)
    texts = [tiny_text.passage(tiny_text.Random(n))[0] for n in range(5)]
    case.write(texts[0], "", texts[1], "a\0b", *texts[2:])
    done = case()
    assert done.code == 0, done.err
    assert "train.jsonl:2: text is empty" in done.err
    assert "train.jsonl:4: text holds NUL bytes" in done.err
    found = json.loads((tmp_path / "run" / "results.json").read_text())["data"]["train"]
    assert (found["rows"], found["skipped"]) == (5, 2)


def test_a_prompt_that_is_too_long_is_skipped_and_named(tmp_path: Path) -> None:
    case = Case(tmp_path, G)
    questions(case)
    file_ = next((case.folder / "squad").glob("train-*.json"))
    contents = json.loads(file_.read_text())
    contents["data"][0]["paragraphs"][0]["qas"][0]["question"] = "Who made the song? " * 40
    file_.write_text(json.dumps(contents))
    case.changes.append("options.max_length=128")
    done = case("train.max_steps=7")
    assert done.code == 0, done.err
    assert "train-0-0: prompt and answer have " in done.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["data"]["train"]["skipped"] == 1


def test_predictions_that_cannot_be_made(tmp_path: Path) -> None:
    texts, masks = Case(tmp_path / "a", G), Case(tmp_path / "b", M)
    for case in (texts, masks):
        assert case().code == 0
    refused(graft("predict", texts.folder / "run", "The song was made. " * 99), 2, "reads at most 128: shorten it")
    refused(graft("predict", masks.folder / "run", "The song was made."), 2, "no [MASK]")
    refused(graft("predict", masks.folder / "run", "[MASK] " * 200), 2, "reads at most 128: shorten it")


@pytest.mark.parametrize(
    "name", ["text-classification", "fill-mask", "text-generation", "image-classification", "audio-classification"]
)
def test_questions_in_squads_form_are_for_their_task(name: str, tmp_path: Path) -> None:
    from pipelines.config.recipe import DataSection, task_class
    from pipelines.data.loading import load_splits

    answers = [{"text": "Mara", "answer_start": 7}]
    asked = [{"id": str(number), "question": f"Who, {number}?", "answers": answers} for number in range(30)]
    content = {"data": [{"title": "mill", "paragraphs": [{"context": "It was Mara.", "qas": asked}]}]}
    (tmp_path / "sq.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"sq\.json is in SQuAD's form, with questions, contexts and answers; this task needs"
    ):
        load_splits(DataSection(id=str(tmp_path / "sq.json")), task_class(name)().data)
