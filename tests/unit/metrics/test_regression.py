"""Metrics of numbers, and of text lengths: equal to scipy's and scikit-learn's in any order of the records."""

import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.metrics import by_length, regression
from pipelines.metrics.classification import matthews, scores, statistics
from pipelines.plots import by_length as by_length_plots
from pipelines.plots import regression as regression_plots
from pipelines.plots.style import ROWS

NUMBERS = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e3, 1e3))


@st.composite
def numbers(draw: Any) -> list[dict[str, Any]]:
    pairs = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=40))
    return [
        {"id": str(i), "true": t, "predicted": p, "tokens": draw(st.integers(1, 100))} for i, (t, p) in enumerate(pairs)
    ]


@given(numbers())
@settings(max_examples=200, deadline=None)
def test_scipy_and_scikit_learn_agree(records: list[dict[str, Any]]) -> None:
    found = regression.scores(records)
    true, predicted = ([r[key] for r in records] for key in ("true", "predicted"))
    assert found["mse"] == pytest.approx(sklearn.metrics.mean_squared_error(true, predicted), rel=1e-9)
    # if values are nearly constant, rounding decides in both libraries
    if np.std(true) > 1e-6 and np.std(predicted) > 1e-6:
        assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(true, predicted).statistic, abs=1e-6)
        assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(true, predicted).statistic, abs=1e-9)


@given(numbers(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_records_does_not_matter(records: list[dict[str, Any]], rng: random.Random) -> None:
    turned = rng.sample(records, len(records))
    assert regression.scores(turned) == regression.scores(records)

    def error(record: Any) -> float:
        return abs(record["true"] - record["predicted"])

    assert by_length.table(turned, error, "error", 32) == by_length.table(records, error, "error", 32)


def test_what_tells_nothing_apart_correlates_with_nothing() -> None:
    records = [{"id": str(i), "true": float(i), "predicted": 0.1} for i in range(7)]
    assert regression.scores(records)["pearson"] == regression.scores(records)["spearman"] == 0.0
    perfect = [{**r, "predicted": r["true"]} for r in records]
    assert regression.scores(perfect) == pytest.approx({"pearson": 1.0, "spearman": 1.0, "mse": 0.0}, abs=1e-12)
    with pytest.raises(DataError, match="no predictions"):
        regression.scores([])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_matthews_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    records = [
        {"id": str(i), "true": t, "predicted": p, "confidence": 1.0, "rank": 0} for i, (t, p) in enumerate(pairs)
    ]
    true, predicted = zip(*pairs, strict=True)
    rows = statistics(records, list("abc"))
    assert matthews(rows, rows.ones())["mcc"] == pytest.approx(
        sklearn.metrics.matthews_corrcoef(true, predicted), abs=1e-9
    )


def test_lengths_hold_every_record_once() -> None:
    records = [
        {"id": str(n), "true": "a", "predicted": "a" if n % 2 else "b", "confidence": 1.0, "rank": 0, "tokens": n}
        for n in range(1, 101)
    ]

    def right(record: Any) -> float:
        return float(record["true"] == record["predicted"])

    table = by_length.table(records, right, "accuracy", 48)
    assert [(row["tokens"], row["n"]) for row in table] == [
        ("up to 16", 16),
        ("17 to 32", 16),
        ("33 to 48", 16),
        ("more than 48", 52),
    ]
    assert sum(row["n"] * row["accuracy"] for row in table) / 100 == pytest.approx(
        scores(records, ["a", "b"])["accuracy"]
    )


def test_figures_tell_what_they_show() -> None:
    records = [{"id": str(n), "true": n / 10, "predicted": n / 11, "tokens": 3 * n} for n in range(1, 30)]
    drawn = regression_plots.figures(records) | by_length_plots.figures(
        records, lambda r: abs(r["true"] - r["predicted"]), "mean_absolute_error", 64
    )
    assert list(drawn) == ["predicted_against_true", "mean_absolute_error_by_text_length", "text_lengths"]
    # each point is a row's label, so the figure is not for the card
    assert drawn["predicted_against_true"].get_gid() == ROWS
    assert (
        drawn["text_lengths"].get_label()
        == "Histogram of the length of 29 texts: 3 to 87 tokens, median 45; 8 are longer than 64 tokens and were cut."
    )
