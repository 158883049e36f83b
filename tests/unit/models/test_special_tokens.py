"""Special tokens in texts: read as text, or kept; the same ids for every other text; with each kind of tokenizer."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipelines.config.recipe import DataSection, task_class
from pipelines.data.loading import load_splits
from pipelines.models import special_tokens
from pipelines.models.source import Weights
from tests.support import tiny_text

MARKED = "the song <s> was </s> made [SEP] by <|endoftext|> Ada <pad> in [MASK] Rome <mask> <sep><cls> <|0.00|>"
PLAIN = "The song was made by  Ada in Rome, naïve\ncafé."


def _bert(folder: Path) -> Any:
    return tiny_text.tokenizer(folder)


def _gpt2(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_text.gpt(folder))


def _unigram(kind: str, special: list[str]) -> Callable[[Path], Any]:
    """A tokenizer of sentencepiece's kind, whose vocabulary lists its special tokens as pieces."""

    def made(folder: Path) -> Any:
        import transformers
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        found = Tokenizer(models.Unigram())
        found.pre_tokenizer = pre_tokenizers.Metaspace()
        texts = [MARKED, *(tiny_text.passage(Random(n))[0] for n in range(30))]
        # without them, so that the characters of <s> are known
        trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", show_progress=False)
        found.train_from_iterator(texts, trainer)
        learned = json.loads(found.to_str())["model"]["vocab"]
        pieces = [(piece, score) for piece, score in learned if piece not in special]
        vocabulary = [*((token, 0.0) for token in special), *pieces]
        return getattr(transformers, kind)(vocab=vocabulary)

    return made


def _letters(kind: str, special: list[str]) -> Callable[[Path], Any]:
    """A byte-level tokenizer without merges."""

    def made(folder: Path) -> Any:
        import transformers
        from tokenizers import pre_tokenizers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
        return getattr(transformers, kind)(vocab=vocabulary, merges=[])

    return made


def _llama(folder: Path) -> Any:
    from transformers import LlamaTokenizer

    letters = sorted({*MARKED, *PLAIN, "▁"} - {" "})
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # its merges spell a special token
    vocabulary = {token: number for number, token in enumerate([*special, *letters, "<s"])}
    return LlamaTokenizer(vocab=vocabulary, merges=[("<", "s"), ("<s", ">")])


def _whisper(folder: Path) -> Any:
    from pipelines.models import whisper

    found = whisper.tokenizer(None, None)
    found.add_tokens(["<|0.00|>"])  # no special token, but no text either
    return found


IDS = [f"{name}_token_id" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
KINDS: dict[str, Callable[[Path], Any]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "bart": _letters("RobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    "t5": _unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"]),
    "xlnet": _unigram(
        "XLNetTokenizer", ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    ),
    "whisper": _whisper,
}


@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_text_for_every_kind_of_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = KINDS[kind](tmp_path)
    names = special_tokens.marks(tokenizer)
    ids = {tokenizer.convert_tokens_to_ids(name) for name in names} - {tokenizer.unk_token_id}
    before = tokenizer.backend_tokenizer.to_str()
    reader = special_tokens.reader(tokenizer, "text")

    def found(words: Any, text: str) -> int:
        return len(ids.intersection(words(text, add_special_tokens=False)["input_ids"]))

    assert found(tokenizer, MARKED) > 0
    assert found(reader, MARKED) == 0
    # all else is as it was: other texts, pairs, beginnings and ends, the tokenizer that is saved
    assert dict(reader([PLAIN], [PLAIN])) == dict(tokenizer([PLAIN], [PLAIN]))
    assert (
        reader(PLAIN, return_offsets_mapping=True)["offset_mapping"]
        == (tokenizer(PLAIN, return_offsets_mapping=True)["offset_mapping"])
    )
    assert tokenizer.backend_tokenizer.to_str() == before
    assert {key: getattr(reader, key) for key in IDS} == {key: getattr(tokenizer, key) for key in IDS}
    # what a prompt of the recipe names is read with its meaning
    asked = special_tokens.guarded(f"by {names[0]}", reader, names)
    assert reader(asked)["input_ids"] == tokenizer(f"by {names[0]}")["input_ids"]


def test_keep_changes_nothing(tmp_path: Path) -> None:
    tokenizer = _bert(tmp_path)
    assert special_tokens.reader(tokenizer, "keep") is tokenizer
    assert special_tokens.guarded("a [SEP] b", tokenizer, ["[SEP]"]) == "a [SEP] b"


def test_a_special_token_that_is_an_ordinary_character_stays(tmp_path: Path) -> None:
    tokenizer = _gpt2(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "!"})
    assert special_tokens.marks(tokenizer) == ["<|endoftext|>"]
    reader = special_tokens.reader(tokenizer, "text")
    assert reader("made! by")["input_ids"] == tokenizer("made! by")["input_ids"]


# ---- what is said ----


@pytest.fixture(name="logged")
def what_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("graft"), "propagate", True)
    return caplog


def test_special_tokens_in_texts_are_counted(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    words = tiny_text.tokenizer(tmp_path)
    special_tokens.warn(words, [["plain", "[SEP] x [SEP]", "a [CLS]", "<s>b</s>"], ["", "", "[SEP]", None]], "text")
    assert logged.messages == [
        "2 of 4 texts of train contain special tokens of this model ('[SEP]' in 2, '[CLS]' in 1): they are read as "
        "text, not as tokens; options.special_tokens=keep reads them as tokens"
    ]
    logged.clear()
    special_tokens.warn(words, [["a [SEP]"]], "keep")
    assert "options.special_tokens=keep reads them as tokens; those that every text gets are added" in logged.text
    logged.clear()
    special_tokens.warn(words, [["plain", "<s>b</s>"]], "text")
    assert not logged.text


@pytest.mark.parametrize(
    ("task", "make", "model", "mark"),
    [
        (
            "text-classification",
            tiny_text.labelled,
            lambda path: tiny_text.bert(path, "BertForSequenceClassification"),
            "[SEP]",
        ),
        ("question-answering", tiny_text.squad, tiny_text.bert, "[SEP]"),
        ("fill-mask", tiny_text.texts, lambda path: tiny_text.bert(path, "BertForMaskedLM"), "[SEP]"),
        ("text-generation", tiny_text.texts, tiny_text.gpt, "<|endoftext|>"),
    ],
)
def test_every_text_task_counts_and_reads_them_as_text(
    task: str, make: Any, model: Any, mark: str, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path / "data", n=6)
    for path in folder.iterdir():  # at the end of a text, so that the positions of answers stay the same
        path.write_text(re.sub(r'(in the year \d+\.)"', rf'\1 {mark}"', path.read_text(), count=1))
    counts = {}
    for how in ("text", "keep"):
        logged.clear()
        worker = task_class(task)(task_class(task).Options(special_tokens=how))
        splits = load_splits(DataSection(id=str(folder)), worker.data)
        worker.build(Weights(model(tmp_path / "m")), splits)
        assert re.search(
            rf"[19] of \d+ texts of train contain special tokens of this model \({re.escape(repr(mark))} in [19]\)",
            logged.text,
        )
        number = worker.tokenizer.convert_tokens_to_ids(mark)
        counts[how] = [list(example["input_ids"]).count(number) for example in worker.encode(splits.train)]
    assert sum(counts["text"]) < sum(counts["keep"]) or task == "text-generation"
    if task == "text-generation":  # a document has one beginning and one end, with either
        assert sum(counts["text"]) == sum(counts["keep"]) == 2 * len(splits.train)
