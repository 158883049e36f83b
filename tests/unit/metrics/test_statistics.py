"""Scores from per-row statistics: a weight is the number of times that a row counts, for every metric."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.metrics import (
    classification,
    denoising,
    language_modelling,
    question_answering,
    regression,
    speech_recognition,
)
from pipelines.metrics.statistics import Statistics, binned, mean_of_known, ratio, total
from tests.tasks.contract import check_weights

LABELS = ["a", "b", "c", "d", "e", "f", "g"]


def classes(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    truth, guess = rng.integers(0, 8, n), rng.integers(0, 7, n)  # the model does not know the eighth class
    sure = rng.integers(0, 31, n) / 30  # many values are on the edge of a bin
    names = [*LABELS, "unknown"]
    return [
        {"id": str(i), "true": names[t], "predicted": names[g], "confidence": float(c), "rank": int(abs(t - g))}
        for i, (t, g, c) in enumerate(zip(truth, guess, sure, strict=True))
    ]


def sets(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    some = [[label for label in "abc" if rng.random() < 0.4] for _ in range(n)]
    coarse = rng.integers(0, 5, (n, 3)) / 4  # ties
    return [
        {
            "id": str(i),
            "true": true,
            "predicted": [x for x, s in zip("abc", line, strict=True) if s > 0.5],
            "scores": dict(zip("abc", map(float, line), strict=True)),
        }
        for i, (true, line) in enumerate(zip(some, coarse, strict=True))
    ]


def answers(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    texts = ["", "the river", "a king", "river"]
    pairs = rng.integers(0, 4, (n, 2))
    return [{"id": str(i), "true": [texts[t]] if t else [], "predicted": texts[p]} for i, (t, p) in enumerate(pairs)]


def utterances(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    texts = ["", "The cat, sat", "a cat", "no"]
    return [
        {"id": str(i), "true": texts[t], "predicted": texts[p]} for i, (t, p) in enumerate(rng.integers(0, 4, (n, 2)))
    ]


def numbers(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "true": float(t), "predicted": float(p)} for i, (t, p) in enumerate(rng.integers(0, 4, (n, 2)))
    ]


def tokens(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "id": str(i),
            "nll": float(rng.random() * 9),
            "tokens": int(k),
            "bytes": int(4 * k),
            "top_1": int(k // 2),
            "top_5": int(k),
        }
        for i, k in enumerate(rng.integers(0, 6, n))
    ]


def images(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{"id": str(i), "loss": float(rng.random()), "levels": [0.1, 0.2]} for i in range(n)]


class Noun:
    """A task that has the metrics of one file only."""

    def __init__(self, records: Any, statistics: Any, summarize: Any) -> None:
        self.records, self.statistics, self.summarize = records, statistics, summarize


NOUNS = {
    "classes": Noun(classes, lambda r: classification.statistics(r, LABELS), classification.summarize),
    "matthews": Noun(classes, lambda r: classification.statistics(r, LABELS), classification.matthews),
    "sets": Noun(sets, lambda r: classification.statistics(r, list("abc"), True), classification.summarize),
    "answers": Noun(answers, question_answering.statistics, question_answering.summarize),
    "utterances": Noun(utterances, lambda r: speech_recognition.statistics(r, "basic"), speech_recognition.summarize),
    "numbers": Noun(numbers, regression.statistics, regression.summarize),
    "tokens": Noun(tokens, language_modelling.statistics, language_modelling.summarize),
    "images": Noun(images, denoising.statistics, denoising.summarize),
}


@pytest.mark.parametrize("name", list(NOUNS))
@given(st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_weight_says_how_often_a_row_counts(name: str, n: int, seed: int) -> None:
    noun = NOUNS[name]
    records = noun.records(n, np.random.default_rng(seed))
    found = noun.statistics(records)
    check_weights(noun, found)
    turned = noun.statistics(records[::-1])
    assert noun.summarize(turned, turned.ones()) == pytest.approx(
        noun.summarize(found, found.ones()), rel=0, abs=0, nan_ok=True
    )


def test_rows_stand_in_the_order_of_their_ids() -> None:
    found = Statistics(["b", "a", "c"], {"x": [2, 1, 3], "pairs": [[2, 2], [1, 1], [3, 3]]})
    assert (found.ids, found["x"].tolist(), found["pairs"][0].tolist()) == (("a", "b", "c"), [1, 2, 3], [1, 1])
    assert (list(found), len(found)) == (["x", "pairs"], 2)
    other = Statistics(["c", "a", "b"], {"y": [3, 1, 2]})
    assert (found | other)["y"].tolist() == [1, 2, 3]
    assert found.take([2, 2]).ids == ("c", "c")
    with pytest.raises(ValueError, match="different rows"):
        found | Statistics(["a"], {"y": [1]})
    with pytest.raises(DataError, match="there are no predictions to score"):
        Statistics([], {})


def test_weighted_sums() -> None:
    weights = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    assert total(weights).tolist() == [3, 2]
    assert total(weights, np.array([True, True, False])).tolist() == [3, 1]
    assert total(weights[0], np.array([[1, 0], [0, 1], [5, 5]])).tolist() == [1, 2]
    assert binned(weights, np.array([1, 1, 0]), 2).tolist() == [[0, 3], [1, 1]]
    assert ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert mean_of_known(np.array([[1, np.nan, 3], [np.nan] * 3])).tolist() == [2, 0]
