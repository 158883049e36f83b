"""LSTM, GRU and Transformer for texts: padding, packed documents, states, learned tokenizers, word vectors."""

import gzip
import json
import logging
import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from pipelines.config.recipe import DataSection, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, ModelError
from pipelines.models import audio, classics, learned_tokenizer, pretrained, word_vectors
from pipelines.models import text as language
from pipelines.models.classic_kinds import code
from pipelines.models.decoding import continuations
from pipelines.models.source import Weights
from pipelines.publishing.privacy import public_recipe
from pipelines.tasks.text_classification import TextClassification
from pipelines.tasks.text_generation import Options, TextGeneration
from tests.support import tiny_text

KINDS = ("lstm", "gru", "transformer")
CLASSIFY, GO_ON = "ForSequenceClassification", "ForCausalLM"
TEXTS = ["The letter was made by Ada.", "the bridge, in Oslo: 1905!", "Käse \U0001f9c0\n\tand  tea"]


def network(kind: str, suffix: str, **config: Any) -> Any:
    torch.manual_seed(1)
    small = {"num_hidden_layers": 2, "hidden_size": 12, "vocab_size": 30}
    return classics.create(pretrained.read_config(None, {"model_type": kind, **small, **config}), suffix).eval()


def tokenizer(**config: Any) -> Any:
    made = pretrained.read_config(None, {"model_type": "lstm", **config})
    return learned_tokenizer.learn(made, TEXTS, begins=True)


# ---- networks ----


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        *[(kind, {"pooling": how, "bidirectional": both}) for kind, how, both in (
            ("lstm", "last", True), ("gru", "last", True), ("lstm", "last", False), ("gru", "max", True),
            ("lstm", "mean", True),
        )],
        ("transformer", {"norm_first": True}),
        ("transformer", {"norm_first": False}),
    ],
)  # fmt: skip
def test_padding_does_not_change_an_answer(kind: str, config: dict[str, Any]) -> None:
    net = network(kind, CLASSIFY, **config)
    ids, mask = torch.randint(1, 30, (3, 7)), torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 3, 1)])
    with torch.no_grad():
        together = net(ids, mask)
        alone = [net(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate((7, 3, 1))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_last_state_is_that_of_the_library() -> None:
    net = network("lstm", CLASSIFY, pooling="last", bidirectional=True, num_hidden_layers=1)
    plain = torch.nn.LSTM(128, 12, batch_first=True, bidirectional=True)
    layer = net.trunk["layers"][0]
    own = {**layer.cells.state_dict(), **{f"{k}_reverse": v for k, v in layer.backwards.state_dict().items()}}
    plain.load_state_dict(own)
    ids = torch.randint(1, 30, (2, 5))
    with torch.no_grad():
        _, (last, _) = plain(net.trunk["embedding"](ids))
        assert torch.allclose(net(ids, torch.ones_like(ids)), net.head(torch.cat([last[0], last[1]], 1)), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_documents_of_a_block_are_apart_and_a_state_goes_on(kind: str) -> None:
    net = network(kind, GO_ON)
    assert language.keeps_apart(net)
    head = language.scores_of(net)
    assert head is not None
    assert head.name == "head"
    ids = torch.randint(0, 30, (2, 9))
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3, 4, 5, 6]])
    with torch.no_grad():
        packed = net(ids, position_ids=places).logits
        for row, begin, end in ((0, 0, 4), (0, 4, 9), (1, 0, 2), (1, 2, 9)):
            assert torch.allclose(packed[row, begin:end], net(ids[row : row + 1, begin:end]).logits[0], atol=1e-5)
        state, steps = None, []
        for begin, end in pairwise((0, 3, 4, 9)):
            found = net(ids[:, begin:end], position_ids=places[:, begin:end], past_key_values=state)
            state = found.past_key_values
            steps.append(found.logits)
        assert torch.allclose(torch.cat(steps, 1), packed, atol=1e-5)
        assert torch.equal(net(ids, logits_to_keep=1).logits[:, 0], net(ids).logits[:, -1])
    prompts = [[5, 6, 7, 8], [9], [3, 4]]
    both = continuations(net, prompts, set(), 5, limit=100)
    assert both == [continuations(net, [one], set(), 5, limit=100)[0] for one in prompts]


def test_a_transformer_knows_the_order_of_words() -> None:
    net = network("transformer", CLASSIFY)
    ids, mask = torch.tensor([[3, 4, 5], [5, 4, 3]]), torch.ones(2, 3)
    with torch.no_grad():
        assert not torch.allclose(*net(ids, mask), atol=1e-4)


@pytest.mark.parametrize("suffix", [CLASSIFY, GO_ON])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_and_read_by_the_code_of_the_card(kind: str, suffix: str, tmp_path: Path) -> None:
    from huggingface_hub import PyTorchModelHubMixin
    from torch.nn import functional as f

    tied = {"tie_word_embeddings": True, **({} if kind == "transformer" else {"embedding_size": 12})}
    net = network(kind, suffix, **(tied if suffix == GO_ON else {}))
    net.save_pretrained(tmp_path)
    again: Any = classics.load(tmp_path, pretrained.read_config(tmp_path, None), suffix).eval()
    text = code({"model_type": kind, "architectures": [type(net).__name__]})
    assert text is not None
    assert "pipelines" not in text
    names = {"math": math, "pairwise": pairwise, "Any": Any, "NamedTuple": NamedTuple, "torch": torch, "f": f}
    names |= {"Tensor": torch.Tensor, "nn": torch.nn}
    names["Classic"] = type("Classic", (torch.nn.Module, PyTorchModelHubMixin), {})
    exec(text, names)
    alone: Any = names[type(net).__name__].from_pretrained(tmp_path).eval()  # type: ignore[attr-defined]
    ids = torch.randint(0, 30, (2, 5))
    given = {"attention_mask": torch.ones_like(ids)} if suffix == CLASSIFY else {}
    with torch.no_grad():
        one, two, three = (pretrained.logits(each(ids, **given)) for each in (net, again, alone))
    assert torch.equal(one, two)
    assert torch.equal(one, three)
    assert suffix == CLASSIFY or again.head.weight is again.trunk["embedding"].weight


def test_a_key_has_one_default_in_all_tasks() -> None:
    for kind in classics.KINDS:
        known: dict[str, Any] = {}
        for net in classics.networks(kind):
            for name, one in classics.arguments(net).items():
                assert known.setdefault(name, one.default) == one.default, f"{kind}: {name}"


# ---- tokenizers ----


def test_bytes_and_pairs_of_bytes_keep_every_text() -> None:
    for kind, size in (("bytes", {}), ("bpe", {"vocab_size": 270})):
        words = tokenizer(tokenizer=kind, **size)
        for text in [*TEXTS, "\r\n a \x7f ", "日本", "<pad>", "x" * 300]:
            ids = words(text, add_special_tokens=False)["input_ids"]
            assert words.decode(ids) == text
            assert kind == "bpe" or text == "<pad>" or len(ids) == len(text.encode())
    assert len(words) == 270


def test_the_same_texts_give_the_same_tokenizer() -> None:
    for config in ({"tokenizer": "words", "vocab_size": 9}, {"vocab_size": 280}):
        one, two = (language.tokenizer_fingerprint(tokenizer(**config)) for _ in range(2))
        assert one == two


def test_words_are_the_most_frequent_of_train() -> None:
    made = pretrained.read_config(None, {"model_type": "gru", "tokenizer": "words", "lowercase": True, "vocab_size": 6})
    words = learned_tokenizer.learn(made, ["The tea, the", "THE tea"], begins=False)
    assert made.vocab_size == len(words) == 6
    read = words.convert_ids_to_tokens(words("The tea, THE")["input_ids"])
    assert read == ["the", "tea", "<unk>", "the", "<eos>"]
    assert words.convert_ids_to_tokens(words("the", "the")["input_ids"]) == ["the", "<sep>", "the", "<eos>"]
    assert learned_tokenizer.loses_text(words)


def test_unknown_words_hide_bytes_so_there_are_no_bits_per_byte(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny_text.texts(tmp_path / "texts")
    found = {}
    for kind in ("words", "bytes"):
        task = TextGeneration(Options(max_length=32))
        splits = load_splits(DataSection(id=str(data)), task.data)
        config = {"model_type": "lstm", "tokenizer": kind, "hidden_size": 8}
        with caplog.at_level(logging.WARNING):
            task.build(Weights(None, config, True), splits)
        row = {"id": "a", "row": 0, "parts": [[0, 3.0, 2]], "surest": None}
        statistics = task.statistics(task.merge([row], splits.test), splits.test)
        found[kind] = (list(task.summarize(statistics, statistics.ones())), list(task.metrics))
    both = ["perplexity", "bits_per_byte"]
    assert found == {"words": (both[:1], both[:1]), "bytes": (both, both)}
    assert caplog.text.count("there are no bits per byte") == 1


@pytest.mark.parametrize(
    ("suffix", "config", "words"),
    [
        (CLASSIFY, {"hidden_size": 0}, "hidden_size is 0"),
        (CLASSIFY, {"hiden_size": 4}, "did you mean 'hidden_size'"),
        (CLASSIFY, {"num_hidden_layers": 0}, "num_hidden_layers: got 0"),
        (CLASSIFY, {"pooling": "first"}, "must be mean, max or last"),
        (CLASSIFY, {"tie_word_embeddings": True}, "has no tie_word_embeddings"),
        (GO_ON, {"bidirectional": True}, "has no bidirectional"),
        (GO_ON, {"tie_word_embeddings": True}, "must be hidden_size to be tied"),
        (GO_ON, {"model_type": "transformer", "num_attention_heads": 3}, "multiple of 3 heads"),
        (GO_ON, {"dropout": 2.0}, "dropout"),
        (GO_ON, {"hidden_size": 10**6}, "weights, and"),
        (GO_ON, {"tokenizer": "chars"}, "must be one of bpe, bytes, words"),
        (GO_ON, {"tokenizer": "bytes", "vocab_size": 300}, "leave it out"),
        (GO_ON, {"vocab_size": 200}, "must be 260 or more"),
        (GO_ON, {"tokenizer": "words", "vocab_size": 4}, "no place for words"),
        (GO_ON, {"lowercase": True}, "is for tokenizer=words"),
        (GO_ON, {"freeze_word_vectors": True}, "no word_vectors to freeze"),
        (GO_ON, {"word_vectors": "glove.txt"}, "need model.config.tokenizer=words"),
        (GO_ON, {"word_vectors": "glove.txt", "tokenizer": "words"}, "glove.txt is no file"),
        ("ForImageClassification", {}, "is not for this task"),
    ],
)
def test_a_wrong_configuration_is_named(suffix: str, config: dict[str, Any], words: str) -> None:
    def build() -> None:
        made = pretrained.read_config(None, {"model_type": "lstm", **config})
        word_vectors.of(made, learned_tokenizer.learn(made, TEXTS, begins=True), None)
        classics.create(made, suffix)

    with pytest.raises(ModelError, match=words):
        build()


def test_a_folder_names_no_files(tmp_path: Path) -> None:
    """Its configuration may come from anybody, and the error of a file that is no table would quote its text."""
    language_model(tmp_path)
    path = tmp_path / "config.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "word_vectors": __file__, "tokenizer": "words", "lowercase": []}))
    made = pretrained.read_config(tmp_path, None)
    assert (made.word_vectors, made.tokenizer, made.lowercase) == (None, "bpe", False)
    for config in (made, BertConfig(word_vectors=__file__), BertConfig(word_vectors=__file__, tokenizer="words")):
        assert word_vectors.of(config, None, tmp_path) == {}


def test_a_tied_language_model_starts_a_classifier(tmp_path: Path) -> None:
    """The file holds its shared weights under one name; a classifier is no start for a language model."""
    model = language_model(tmp_path)
    config = pretrained.read_config(tmp_path, None)
    found: Any = language.text_model(AutoModelForSequenceClassification, tmp_path, config)
    assert torch.equal(found.trunk["embedding"].weight, model.trunk["embedding"].weight)
    found.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is missing for a LSTMForCausalLM.* says that it is a LSTMForSequenceClass"):
        language.language_model(AutoModelForCausalLM, tmp_path, pretrained.read_config(tmp_path, None))


def language_model(folder: Path) -> Any:
    config = {"model_type": "lstm", "vocab_size": 9, "embedding_size": 4, "hidden_size": 4, "tie_word_embeddings": True}
    model = classics.create(pretrained.read_config(None, config), GO_ON)
    model.save_pretrained(folder)
    return model


def test_a_recording_is_read_at_the_rate_of_the_network(tmp_path: Path) -> None:
    config = pretrained.read_config(None, {"model_type": "gru"})
    audio.extractor(None, config).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sampling_rate": 8000}))
    with pytest.raises(ModelError, match="sampling_rate is 8000, and its network reads 16000"):
        audio.extractor(tmp_path, config)


@pytest.mark.parametrize("rate", [True, 10**8, "x", 0])
def test_other_extractors_have_bounds_of_their_rate(rate: Any, tmp_path: Path) -> None:
    Wav2Vec2FeatureExtractor(sampling_rate=rate).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"sampling_rate is .*must be a whole number from 1,000 to 192,000"):
        audio.extractor(tmp_path, Wav2Vec2Config())


def test_a_prompt_is_learned_and_a_chat_refused(tmp_path: Path) -> None:
    lines = [f'{{"order": "Say {word}", "answer": "{word}"}}' for word in ("Rome", "Oslo", "Lima") * 6]
    (tmp_path / "orders.jsonl").write_text("\n".join(lines))
    task = TextGeneration(Options(prompt="Order {order}:", max_new_tokens=3))
    splits = load_splits(DataSection(id=str(tmp_path / "orders.jsonl")), task.data)
    config = {"model_type": "gru", "tokenizer": "words", "hidden_size": 8}
    net = task.build(Weights(None, config, True), splits)
    assert {"Order", ":", "Say", "Rome"} <= set(task.tokenizer.get_vocab())
    batch = Examples(task, task.encode(splits.train))[[(None, 0), (None, 1)]].batch
    with torch.no_grad():
        assert [set(record) >= {"nll", "predicted"} for record in task.predict(net, batch)] == [True, True]
    data = tiny_text.chats(tmp_path / "chats", 20)
    talk = TextGeneration(Options(chat=True))
    with pytest.raises(ModelError, match="has no chat template"):
        talk.build(Weights(None, {"model_type": "gru"}, True), load_splits(DataSection(id=str(data)), talk.data))


def test_texts_without_a_word_give_no_vocabulary() -> None:
    made = pretrained.read_config(None, {"model_type": "lstm", "tokenizer": "words"})
    with pytest.raises(DataError, match="hold no word"):
        learned_tokenizer.learn(made, ["  ", "\n"], begins=True)


# ---- word vectors ----

VECTORS = {"the": [0.5, -1.0, 2.0], "Ada": [1.0, 1.5, -0.25], "zebra": [9.0, 9.0, 9.0]}


def written(folder: Path, form: str) -> Path:
    sign = "\t" if form == "tabs" else " "
    lines = "".join(f"{sign.join([word, *map(str, row)])}\n" for word, row in VECTORS.items())
    path = folder / {"glove": "a.txt", "tabs": "a.txt", "gz": "a.txt.gz", "word2vec": "a.vec", "bin": "a.bin"}[form]
    if form == "bin":
        rows = [word.encode() + b" " + struct.pack("<3f", *row) + b"\n" for word, row in VECTORS.items()]
        path.write_bytes(b"3 3\n" + b"".join(rows))
    elif form == "gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(("3 3\n" if form == "word2vec" else "") + lines)
    return path


@pytest.mark.parametrize("form", ["glove", "tabs", "gz", "word2vec", "bin"])
def test_vectors_of_the_vocabulary_alone_are_kept(form: str, tmp_path: Path) -> None:
    size, found = word_vectors.read(written(tmp_path, form), {"the": 0, "Ada": 1, "tea": 2})
    assert size == 3
    assert {word: row.tolist() for word, row in found.items()} == {w: VECTORS[w] for w in ("the", "Ada")}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "no vectors here"),
        ("a.txt", b"the 1 2 3\ntea 1 2\n", r"a\.txt:2: a word and 3 numbers"),
        ("a.txt", b"tea 1 2 3\nthe 1 x 3\n", r"a\.txt:2: the vector of 'the': could not convert"),
        ("a.txt", b"the 1 nan 3\n", "not finite"),
        ("a.txt", b"the 1 1e300 3\n", "not finite"),
        ("a.txt", b"tea 1 2\n\xff\xfe 1 2\n", r"a\.txt:2: the word is not UTF-8"),
        ("a.txt", b"the\n", "vectors of 0 numbers"),
        ("a.txt", b"3 2\nthe 1 2\ntea 1 2\n", "promises 3 vectors, and 2 are here"),
        ("a.txt", b"the 1 2\n" + b"x" * 20_000, r"a\.txt:2: a line of more than"),
        ("a.txt", b"5 99999999\nthe 1\n", "vectors of 99,999,999 numbers"),
        ("a.txt.gz", b"the 1 2 3\n", "cannot be read"),
        ("a.bin", b"the 1 2 3\n", "begins with two numbers"),
        ("a.bin", b"2 3\nthe " + struct.pack("<3f", 1, 2, 3) + b"tea " + b"\0\0", "vector 2 of 2: the file ends"),
        ("a.bin", b"1 3\n" + b"x" * 20_000, "a word of more than"),
        ("a.bin", b"1 1\nthe " + struct.pack("<f", 1) + b"\nmore here", "more follows"),
        ("a.bin", b"999999999 3\nthe ", "the file ends here"),
    ],
)
def test_damaged_vectors_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        word_vectors.read(tmp_path / name, {"the": 0})


def test_vectors_become_the_embedding(tmp_path: Path) -> None:
    path = written(tmp_path, "glove")
    data = tiny_text.labelled(tmp_path / "data")
    task = TextClassification()
    splits = load_splits(DataSection(id=str(data)), task.data)
    config = {"model_type": "gru", "tokenizer": "words", "word_vectors": str(path), "freeze_word_vectors": True}
    net: Any = task.build(Weights(None, config, True), splits)
    table, number = net.trunk["embedding"].weight, task.tokenizer.get_vocab()
    assert table.shape[1] == 3
    assert not table.requires_grad
    assert table[number["The"]].tolist() == table[number["the"]].tolist() == VECTORS["the"]
    assert table[number["Ada"]].tolist() == VECTORS["Ada"]
    task.save(net, tmp_path / "saved")
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "saved").glob("*.json"))
    again = TextClassification()
    loaded = again.load(tmp_path / "saved")
    assert torch.equal(loaded.trunk["embedding"].weight, table)  # type: ignore[index, union-attr]
    for changes, words in (
        ({"embedding_size": 50}, "set it to 3"),
        ({"model_type": "transformer"}, "hidden_size is 256: set it to 3"),
    ):
        with pytest.raises(ModelError, match=words):
            TextClassification().build(Weights(None, {**config, **changes}, True), splits)
    path.write_text("Haus 1 2 3\n")
    with pytest.raises(ModelError, match=r"none of the .* words of the vocabulary"):
        TextClassification().build(Weights(None, config, True), splits)


def test_a_published_recipe_names_the_file_of_the_vectors_alone() -> None:
    raw = {"model_type": "lstm", "tokenizer": "words", "word_vectors": "clients/acme/glove.txt"}
    recipe = {
        "task": "text-classification",
        "model": {"config": raw},
        "data": {"id": "a/b"},
        "train": {"epochs": 1},
    }
    kept = validate(recipe).model_dump(mode="json")
    found = public_recipe(kept, {"data": {"name": "a/b"}, "model": {"id": "lstm"}})
    assert found["model"]["config"]["word_vectors"] == "glove.txt"
    assert kept["model"]["config"] == raw


def test_a_word_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the 1 2\n. . . 3 4\n")
    _, found = word_vectors.read(tmp_path / "a.txt", {". . .": 0})
    assert np.array_equal(found[". . ."], [3, 4])
