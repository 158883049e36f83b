"""GAP, hit@1, mAP and PERR: equal to a plain implementation of the published code."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import DataError, RunError
from pipelines.metrics import tagging
from pipelines.metrics.statistics import Statistics

BEST = 20


# ---- an implementation of its own, as google/youtube-8m computes it: lists of numbers and loops ----


def ap(pairs: Sequence[tuple[float, int]], positives: int) -> float:
    """Non-interpolated average precision of (score, right), for a number of positives that may be larger."""
    if not positives:
        return 0.0
    found, hits = 0.0, 0.0
    for place, (_, right) in enumerate(sorted(pairs, key=lambda pair: -pair[0])):
        if right:
            hits += 1
            found += hits / (place + 1) / positives
    return found


def published(scores: list[list[float]], true: list[list[int]]) -> dict[str, float]:
    classes = range(len(scores[0]))
    pooled, of_class, hits, precisions = [], {k: [] for k in classes}, [], []
    for given, row in zip(scores, true, strict=True):
        ranked = sorted(classes, key=lambda k: -given[k])
        for k in ranked[:BEST]:
            pooled.append((given[k], row[k]))
            of_class[k].append((given[k], row[k]))
        hits.append(row[ranked[0]])
        if many := sum(row):
            precisions.append(sum(row[k] for k in ranked[:many] if given[k] > 0) / many)
    positives = [sum(row[k] for row in true) for k in classes]
    by_class = [ap(of_class[k], positives[k]) for k in classes if positives[k]]
    return {
        "gap": ap(pooled, sum(positives)),
        "hit_at_1": sum(hits) / len(hits),
        "map": sum(by_class) / max(1, len(by_class)),
        "perr": sum(precisions) / max(1, len(precisions)),
    }


# ---- made-up cases ----


def case(rng: random.Random, n: int, classes: int, most: int) -> tuple[list[list[float]], list[list[int]]]:
    """Scores that know something of the labels; no two are equal."""
    true = [[0] * classes for _ in range(n)]
    for row in true:
        for k in rng.sample(range(classes), rng.randint(0, min(most, classes))):
            row[k] = 1
    values = rng.sample(range(1, 10**9), n * classes)
    scores = [[values.pop() / 2e9 + 0.3 * row[k] * rng.random() for k in range(classes)] for row in true]
    return scores, true


def records(scores: Any, true: Any, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Records of given scores, through the logits."""
    classes = list(names or [f"label {k}" for k in range(len(scores[0]))])
    logits = torch.tensor(scores, dtype=torch.float64).logit()
    labels = [[label for label, one in zip(classes, row, strict=True) if one] for row in true]
    batch = {"id": [f"video {number:05}" for number in range(len(labels))], "true": labels}
    return tagging.records(batch, logits, classes)


def own(scores: Any, true: Any) -> dict[str, float]:
    return tagging.scores(records(scores, true), [f"label {k}" for k in range(len(scores[0]))])


def test_two_hundred_cases_equal_the_published_definition() -> None:
    rng = random.Random(8)
    for number in range(200):
        classes = rng.choice([1, 2, 5, 19, 20, 21, 30, 60])
        made = case(rng, rng.randint(1, 12), classes, rng.choice([0, 1, 3, 30]))
        assert own(*made) == pytest.approx(published(*made), abs=1e-9), number


def test_published_values_of_a_small_case() -> None:
    """By hand: pooled 0.9 right, 0.8 wrong, 0.7 right, 0.6 wrong, and one label that nobody predicted as first."""
    scores, true = [[0.9, 0.8, 0.1], [0.6, 0.7, 0.05]], [[1, 0, 0], [0, 1, 1]]
    assert own(scores, true) == pytest.approx(
        {"gap": (1 + 2 / 3 + 3 / 6) / 3, "hit_at_1": 1, "map": (1 + 0.5 + 0.5) / 3, "perr": 0.75}
    )


def test_labels_beyond_the_twenty_best_count_in_gap_and_map() -> None:
    scores = [[(k + 1) / 40 for k in range(30)]]
    true = [[int(k == 0 or k == 29) for k in range(30)]]
    assert own(scores, true) == pytest.approx({"gap": 0.5, "hit_at_1": 1, "map": 0.5, "perr": 0.5})
    everything = own(scores, [[1] * 30])
    assert everything == pytest.approx({"gap": 20 / 30, "hit_at_1": 1, "map": 20 / 30, "perr": 1})


def test_equal_scores_count_with_the_mean_over_all_orders() -> None:
    rng = random.Random(3)
    for _ in range(20):
        right = [rng.randint(0, 1) for _ in range(5)]
        scores = [rng.choice([0.25, 0.5]) for _ in right]
        pairs = list(zip(scores, right, strict=True))
        orders = [ap(order, sum(right)) for order in itertools.permutations(pairs)]
        given = [tagging.record(["a"] * one, {"a": score}, one) for score, one in pairs]
        given = [{"id": str(number), **one} for number, one in enumerate(given)]
        assert tagging.scores(given, ["a"])["gap"] == pytest.approx(sum(orders) / len(orders), abs=1e-12)
        assert tagging.scores(given, ["a"])["map"] == pytest.approx(sum(orders) / len(orders), abs=1e-12)


def test_of_equal_scores_of_a_video_the_first_class_wins() -> None:
    """In bf16 many scores are equal; the choice of the twenty best must not depend on the batch."""
    logits = torch.zeros(3, 50)
    logits[1, 40] = 1.0
    logits[2, 45:] = -1.0
    classes = [str(k) for k in range(50)]
    found = tagging.records({"id": list("abc"), "true": [[], [], ["24", *classes[:24]]]}, logits, classes)
    assert [list(one["scores"]) for one in found] == [
        classes[:20],
        ["40", *classes[:19]],
        classes[:20],
    ]
    assert found[2]["first_right"] == 25
    alone = tagging.records({"id": ["b"], "true": [[]]}, logits[1:2], classes)
    assert alone == found[1:2]


def test_the_order_of_the_records_does_not_matter() -> None:
    given = records(*case(random.Random(1), 9, 30, 4))
    labels = [f"label {k}" for k in range(30)]
    assert tagging.scores(given[::-1], labels) == tagging.scores(given, labels)
    # rows of equal scores, too
    equal = [{**one, "scores": dict.fromkeys(one["scores"], 0.5)} for one in given]
    assert tagging.scores(equal[::-1], labels) == tagging.scores(equal, labels)


@pytest.mark.parametrize("tied", [False, True])
def test_a_weight_of_two_is_the_row_twice(tied: bool) -> None:
    scores, true = case(random.Random(2), 12, 30, 5)
    if tied:
        scores = [[round(score, 1) or 0.05 for score in row] for row in scores]
    found = tagging.statistics(records(scores, true), [f"label {k}" for k in range(30)])
    weights = np.random.default_rng(0).integers(0, 4, (6, 12))
    together: Any = tagging.summarize(found, weights.astype(float))
    for number, line in enumerate(weights):
        twice = found.take(np.repeat(np.arange(12), line))
        again = tagging.summarize(twice, twice.ones())
        assert again == pytest.approx({name: value[number] for name, value in together.items()}, rel=1e-14, abs=0)


def test_many_predictions() -> None:
    rng = np.random.default_rng(0)
    n, score = 2000, -np.sort(-rng.random((2000, 20)), 1)
    classes = np.argsort(rng.random((n, 60)), 1)[:, :20].astype(np.int32)
    right = rng.random((n, 20)) < score / 3
    true = np.where(right, classes, -1)
    columns = {"scores": score, "classes": classes, "right": right, "true_class": true}
    counts = {"true_labels": right.sum(1) + 1.0, "labelled": np.ones(n), "hit_at_1": right[:, 0], "perr": right[:, 0]}
    found = Statistics([f"{k:05}" for k in range(n)], {**columns, **counts})
    values: Any = tagging.summarize(found, rng.integers(0, 3, (4, n)).astype(float))
    assert values["gap"].shape == (4,)
    flat = sorted(zip((-score).ravel().tolist(), right.ravel().tolist(), strict=True))
    hits = np.cumsum([one for _, one in flat])
    expected = sum(hits[k] / (k + 1) for k, (_, one) in enumerate(flat) if one) / counts["true_labels"].sum()
    assert tagging.summarize(found, found.ones())["gap"] == pytest.approx(float(expected), abs=1e-12)


def test_an_answer_that_is_not_a_number_is_named() -> None:
    with pytest.raises(RunError, match="video 7 is not a number"):
        tagging.records({"id": ["video 7"], "true": [["a"]]}, torch.tensor([[float("nan"), 0.0]]), ["a", "b"])


def test_records_of_another_model_are_refused() -> None:
    with pytest.raises(DataError, match="'x' is not one of the model's"):
        tagging.statistics([{"id": "1", **tagging.record(["a"], {"x": 0.5}, 0)}], ["a"])
    with pytest.raises(DataError, match="no predictions"):
        tagging.statistics([], ["a"])


def test_a_label_that_the_model_does_not_know_is_a_miss() -> None:
    given = [{"id": "1", **tagging.record(["a", "new"], {"a": 0.9, "b": 0.2}, 1)}]
    assert tagging.scores(given, ["a", "b"]) == pytest.approx({"gap": 0.5, "hit_at_1": 1, "map": 0.5, "perr": 0.5})


def test_videos_without_a_label() -> None:
    """They are no hit, and PERR leaves them out, as in the paper; without any label, all scores are 0."""
    given = [
        {"id": "1", **tagging.record(["a"], {"a": 0.9}, 1)},
        {"id": "2", **tagging.record([], {"a": 0.95}, 0)},
    ]
    assert tagging.scores(given, ["a"]) == pytest.approx({"gap": 0.5, "hit_at_1": 0.5, "map": 0.5, "perr": 1})
    assert tagging.scores(given[1:], ["a"]) == dict.fromkeys(tagging.METRICS, 0.0)


def test_the_table_lists_the_labels_that_occur() -> None:
    given = [
        {"id": "1", **tagging.record(["a", "z"], {"a": 0.9, "b": 0.8}, 1)},
        {"id": "2", **tagging.record(["a"], {"b": 0.4, "a": 0.3}, 0)},
    ]
    assert tagging.per_class(given, ["a", "b", "c"]) == [
        {"label": "a", "n": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "average_precision": 1.0},
        {"label": "b", "n": 0, "precision": 0.0, "recall": None, "f1": 0.0, "average_precision": None},
        {"label": "z", "n": 1, "precision": None, "recall": 0.0, "f1": 0.0, "average_precision": 0.0},
    ]


def test_the_prior_has_the_most_frequent_labels() -> None:
    rows = [["a", "b"], ["a"], ["c", "b"], ["a"]]
    assert tagging.prior(rows) == {"a": 0.75, "b": 0.5, "c": 0.25}
    assert len(tagging.prior([[str(k)] for k in range(50)])) == 20


def test_the_area_below_the_curve_is_the_gap() -> None:
    found = tagging.statistics(records(*case(random.Random(4), 9, 30, 4)), [f"label {k}" for k in range(30)])
    recall, precision = tagging.curve(found)
    assert (np.diff(np.append(0, recall)) * precision).sum() == pytest.approx(
        tagging.summarize(found, found.ones())["gap"]
    )
