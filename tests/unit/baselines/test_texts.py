"""TF-IDF of words and characters: what counts as a term, pairs, and texts without any term."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.baselines import learners, texts
from pipelines.tasks.text_classification import TextClassification


def sets(pair: bool = False) -> dict[str, Any]:
    task = TextClassification()
    task.pair = pair
    return {one.name: one for one in texts.feature_sets(task)}


def learned(name: str, rows: list[tuple[str, ...]], pair: bool = False) -> Any:
    one = sets(pair)[name]
    columns = {column: list(values) for column, values in zip(texts.TEXTS, zip(*rows, strict=True), strict=False)}
    entries = one.read(Dataset.from_dict(columns))
    assert entries == rows
    return learners.learn_steps(one, entries, [str(number) for number in range(len(rows))], 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am 5, I don't", ["i", "am", "5", "i", "don", "t"]),
        ("我爱你", ["我", "爱", "你"]),
        ("GPU版は速い", ["gpu", "版", "は", "速", "い"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),  # with its vowel signs, and without the full stop
        ("cafe\u0301 été", ["cafe\u0301", "été"]),
        ("?! ...", []),
    ],
)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    pairs = [f"{one} {two}" for one, two in pairwise(expected)]
    assert texts.words()(text) == expected + pairs


def test_characters_stay_within_a_word() -> None:
    found = texts.characters()("Ab c")
    assert sorted(found) == sorted([" a", "ab", "b ", " ab", "ab ", " ab ", " c", "c ", " c "])


@pytest.mark.parametrize("name", ["TF-IDF of words", "TF-IDF of characters"])
def test_rows_are_sparse_have_length_one_and_do_not_depend_on_their_order(name: str) -> None:
    rows = [("the cat sat",), ("the dog sat",), ("a cat and a dog",)]
    found, other = learned(name, rows), learned(name, rows[::-1])
    assert found.numbers.format == "csr"
    assert found.numbers.dtype == np.float32
    np.testing.assert_allclose(found.numbers.multiply(found.numbers).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.numbers.toarray(), other.numbers.toarray()[::-1], rtol=1e-5)
    names = found.pipeline.get_feature_names_out()
    assert "cat" in names
    assert len(names) == found.numbers.shape[1]


def test_the_texts_of_a_pair_are_two_blocks() -> None:
    found = learned("TF-IDF of words", [("cat", "dog"), ("dog", "cat")], pair=True)
    names = list(found.pipeline.get_feature_names_out())
    assert names == ["text__cat", "text__dog", "text_pair__cat", "text_pair__dog"]
    np.testing.assert_allclose(found.numbers.toarray(), [[1, 0, 0, 1], [0, 1, 1, 0]])


@pytest.mark.parametrize("name", ["TF-IDF of words", "TF-IDF of characters"])
def test_texts_without_any_word_have_a_term_of_their_own(name: str) -> None:
    rows = [("?!", ""), ("...", ""), ("?!", "")]
    found = learned(name, rows, pair=True)
    assert found.numbers.shape[0] == 3
    assert np.isfinite(found.numbers.toarray()).all()
    unseen = found.of([("never seen", "nor this")], ["new"])
    assert unseen.shape == (1, found.numbers.shape[1])


def test_long_texts_and_many_terms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "READ", 9)
    monkeypatch.setattr(texts, "MOST", 3)
    found = learned("TF-IDF of words", [("common a common b c d e",), ("common z",)])
    assert found.numbers.shape == (2, 3)
    assert "common" in found.pipeline.get_feature_names_out()
    assert texts.terms(texts.words(), 0, ("common a common",)) == ["common", "a", "common a"]


def test_a_sentence_of_three_classes_is_learned_and_a_number_by_ridge() -> None:
    rows = [(f"the {thing} number {number}",) for number in range(8) for thing in ("cat", "dog", "bird")]
    found = learned("TF-IDF of words", rows)
    for key, kind in (("logistic", "class"), ("linear_svm", "class"), ("ridge", "number")):
        assert key in learners.keys_for(sets()["TF-IDF of words"].learners, kind)  # type: ignore[arg-type]
        target = np.tile([0, 1, 2], 8)
        learner = learners.LEARNERS[key]
        one = learners.fit(learner, learner.grid[-1], kind, 0, found.numbers, target, 3)  # type: ignore[arg-type]
        scores = learners.logits(one, found.of([("a bird",), ("a cat",)], ["1", "2"]))
        answers = scores.argmax(1) if kind == "class" else scores[:, 0].round()
        assert answers.tolist() == [2, 0]


def test_a_model_that_reads_both_is_given_what_it_was_trained_on() -> None:
    assert sets()["TF-IDF of words"].read(Dataset.from_dict({"text": ["a"], "text_pair": ["b"]})) == [("a",)]
    assert sets(pair=True)["TF-IDF of words"].about.endswith("has its own.")


def test_many_classes_have_fewer_terms() -> None:
    assert texts.most_terms(1, 2) == texts.MOST
    assert texts.most_terms(1, 1000) == 4000
    assert texts.most_terms(2, 1000) == 2000
    task: Any = SimpleNamespace(data=SimpleNamespace(input_columns=("text",), labels=range(1_000_000)))
    one = texts.feature_sets(task)[0]
    assert "Only the 4 most frequent terms are kept" in one.about
    assert learners.learn_steps(one, [("a b c d e f",)], ["row"], 0).numbers.shape == (1, 4)
