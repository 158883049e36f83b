"""Encoded tokens on disk belong to one way of reading: a model that reads texts in another way gets its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection, task_class
from pipelines.data import encoding
from pipelines.data.loading import load_splits
from pipelines.models.source import Weights
from tests.support import tiny_text


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every encoding is kept on disk, as that of a large data set."""
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "SMALL", 0)
    return tmp_path / "cache" / "encoded"


def configured(folder: Path, **changes: Any) -> Path:
    """The model with other values in tokenizer_config.json; its tokenizer.json stays."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def encoded(model: Path, data: Path, task: str = "text-generation", **options: Any) -> list[list[int]]:
    worker = task_class(task)(task_class(task).Options(**options))
    splits = load_splits(DataSection(id=str(data), workers=0), worker.data)
    worker.build(Weights(model), splits)
    return [list(example["input_ids"]) for example in worker.encode(splits.train)]


def test_tokens_of_a_model_that_ends_texts_otherwise_are_not_taken(tmp_path: Path, stored: Path) -> None:
    data = tiny_text.texts(tmp_path / "data", n=6)
    one = tiny_text.llama(tmp_path / "one")
    other = configured(tiny_text.llama(tmp_path / "other"), eos_token="<|im_end|>")
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    found = [{token for line in encoded(model, data, max_length=64) for token in line} for model in (one, other)]
    assert found[1] - found[0] == {401}  # <|im_end|>
    assert len(list(stored.iterdir())) == 2
    assert encoded(one, data, max_length=64) == encoded(one, data, max_length=64)
    assert len(list(stored.iterdir())) == 2


def test_chats_end_by_the_token_of_their_own_model(tmp_path: Path, stored: Path) -> None:
    """The template names the end token only by `eos_token`."""
    data = tiny_text.chats(tmp_path / "data", 12)
    template = tiny_text.CHATML.replace("<|im_end|>", "' + eos_token + '")
    one = tiny_text.llama(tmp_path / "one", template)
    other = configured(tiny_text.llama(tmp_path / "other", template), eos_token="<|im_end|>")
    for model, end in ((one, 0), (other, 401)):
        for line in encoded(model, data, chat=True, max_length=100):
            assert end in line
            assert {0: 401, 401: 0}[end] not in line
    assert len(list(stored.iterdir())) == 2


@pytest.mark.parametrize("task", ["fill-mask", "text-classification"])
def test_special_tokens_as_text_and_as_tokens_are_two_encodings(task: str, tmp_path: Path, stored: Path) -> None:
    kind = {"fill-mask": "BertForMaskedLM", "text-classification": "BertForSequenceClassification"}[task]
    rows = [{"text": f"A [SEP] {n} b", "label": "xy"[n % 2]} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny_text.bert(tmp_path / "model", kind)
    found = [encoded(model, tmp_path / "rows.jsonl", task, special_tokens=how) for how in ("text", "keep")]
    assert [{line.count(line[-1]) for line in lines} for lines in found] == [{1}, {2}]  # [SEP] ends every text
    assert len(list(stored.iterdir())) == 2
