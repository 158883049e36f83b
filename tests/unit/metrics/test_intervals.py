"""95 % intervals: exact ones, blocks of bounded memory, and how often they hold the true value for grouped rows."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats

from pipelines.metrics import intervals
from pipelines.metrics.statistics import Proportion, Statistics, total

SPEAKERS, UTTERANCES = 100, 20
LOW, HIGH = 0.925, 0.97  # +0 allowed coverage of a 95 % interval over 2,000 repetitions
QUICK = 120  # repetitions in the quick version


def rows(correct: list[bool] | np.ndarray) -> Statistics:
    return Statistics(
        [f"{n:05}" for n in range(len(correct))], {"correct": correct}, {"accuracy": Proportion("correct")}
    )


def accuracy(found: Statistics, weights: np.ndarray) -> np.ndarray:
    return total(weights, found["correct"]) / total(weights)


# ---- exact intervals ----


def test_all_right_and_all_wrong_have_the_exact_interval() -> None:
    assert intervals.exact(rows([True] * 20), np.arange(20)) == {"accuracy": pytest.approx([0.832, 1], abs=5e-4)}
    assert intervals.exact(rows([False] * 20), np.arange(20)) == {"accuracy": pytest.approx([0, 0.168], abs=5e-4)}
    assert intervals.exact(rows([True] * 19 + [False]), np.arange(20)) == {}
    for count in (1, 7, 20, 400):
        for right in (0, count):
            expected = scipy.stats.binomtest(right, count).proportion_ci(method="exact")
            assert intervals.all_alike(count, right > 0) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_groups_are_the_trials_of_an_exact_interval() -> None:
    units = np.repeat(np.arange(5), 4)
    assert intervals.exact(rows([True] * 20), units)["accuracy"] == pytest.approx([0.025 ** (1 / 5), 1])
    tokens = {"hits": [3, 0, 2], "tokens": [3, 0, 2]}  # a row without trials does not count
    found = Statistics(["a", "b", "c"], tokens, {"accuracy": Proportion("hits", "tokens", 100.0)})
    assert intervals.exact(found, np.arange(3))["accuracy"] == pytest.approx([100 * 0.025 ** (1 / 2), 100])


def test_the_mean_of_values_and_shares() -> None:
    assert intervals.of_mean(np.ones(20, dtype=bool)) == pytest.approx([0.832, 1], abs=5e-4)
    assert intervals.of_mean(np.array([0.3])) is None
    assert intervals.of_mean(np.array([0.3, 0.3])) is None
    low, high = intervals.of_mean(np.arange(100.0)) or (0, 0)
    half = 1.984 * np.arange(100).std(ddof=1) / 10
    assert (low, high) == (pytest.approx(49.5 - half, abs=0.6), pytest.approx(49.5 + half, abs=0.6))


# ---- resamples ----


def test_whole_units_are_drawn_in_blocks_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    units = np.array([0, 0, 1, 2, 2, 2])
    monkeypatch.setattr(intervals, "BLOCK", 60)
    blocks = list(intervals.draws(units, 25))
    assert [len(block) for block in blocks] == [10, 10, 5]
    weights = np.concatenate(blocks)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()  # as many units as there are groups
    assert not np.array_equal(blocks[0], blocks[1])
    assert np.array_equal(np.concatenate(list(intervals.draws(units, 25))), weights)


def test_tails_are_expanded_for_few_units() -> None:
    assert intervals.tail(10_000) == pytest.approx(0.025, rel=2e-3)
    for count in (2, 5, 20, 100):
        edge = math.sqrt(count / (count - 1)) * scipy.stats.t.ppf(0.975, count - 1)
        assert intervals.tail(count) == pytest.approx(scipy.stats.norm.sf(edge), rel=1e-6)


def test_values_that_do_not_differ_or_are_undefined_have_no_interval() -> None:
    assert intervals.bounds(np.full(10, 0.5), 10) is None
    assert intervals.bounds(np.full(10, np.nan), 10) is None
    low, high = intervals.bounds(np.array([np.nan, np.inf, *np.linspace(0, 1, 1001)]), 10_000) or (0, 0)
    assert (low, high) == (pytest.approx(0.025, abs=1e-3), pytest.approx(0.975, abs=1e-3))


# ---- how often an interval holds the true value ----


class Coverage(NamedTuple):
    """The share of 95 % intervals that hold the true value."""

    single: float
    paired: float
    single_by_rows: float
    paired_by_rows: float


def simulated(repetitions: int) -> Iterator[tuple[Statistics, Statistics, float, float]]:
    """Two models on 100 speakers x 20 utterances, and the true accuracy of the first and difference of both.

    The first model understands a speaker with a probability from Beta(3, 1). The probability of the second is a
    mixture of that and of a probability of its own, from Beta(4, 1), with a uniform share. So it is better for most
    speakers and worse for some.
    """
    rng = np.random.default_rng(7)
    for _ in range(repetitions):
        first, own, share = rng.beta(3, 1, SPEAKERS), rng.beta(4, 1, SPEAKERS), rng.random(SPEAKERS)
        second = share * first + (1 - share) * own
        noise = rng.random((SPEAKERS, UTTERANCES))  # hard utterances are hard for both models
        right = [(noise < level[:, None]).ravel() for level in (first, second)]
        yield rows(right[0]), rows(right[1]), 3 / 4, (4 / 5 - 3 / 4) / 2


def coverage(repetitions: int) -> Coverage:
    speakers, alone = np.repeat(np.arange(SPEAKERS), UTTERANCES), np.arange(SPEAKERS * UTTERANCES)
    held = np.zeros((2, 2))
    for number, (one, two, mean, gain) in enumerate(simulated(repetitions)):
        for place, units in enumerate((speakers, alone)):

            def measured(weights: np.ndarray, one: Statistics = one, two: Statistics = two) -> dict[str, np.ndarray]:
                known = accuracy(one, weights)
                return {"single": known, "paired": accuracy(two, weights) - known}

            values = intervals.resampled(measured, units, seed=number)
            for line, (name, truth) in enumerate((("single", mean), ("paired", gain))):
                low, high = intervals.bounds(values[name], int(units.max()) + 1) or (truth, truth)
                held[place, line] += low <= truth <= high
    return Coverage(*(held / repetitions).ravel().tolist())


def test_intervals_by_speaker_hold_the_truth_quickly() -> None:
    """In 120 repetitions, a share of 95 % has a standard error of 2 points.

    The test allows three of those below 95 %.
    """
    found = coverage(QUICK)
    print(found)
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / QUICK)
    assert min(found.single, found.paired) > least
    assert max(found.single_by_rows, found.paired_by_rows) < 0.75


@pytest.mark.slow
def test_intervals_by_speaker_hold_the_truth() -> None:
    """2,000 repetitions have a standard error of half a point."""
    found = coverage(2000)
    print(found)
    assert LOW <= found.single <= HIGH
    assert LOW <= found.paired <= HIGH
    assert max(found.single_by_rows, found.paired_by_rows) < 0.75


def test_an_interval_of_a_lifted_score_is_moved_to_the_score() -> None:
    values = np.linspace(0.4, 0.6, 1001)
    low, high = intervals.bounds(values, 1000) or []
    moved = intervals.bounds(values, 1000, around=0.45) or []
    assert moved == pytest.approx([low - 0.05, high - 0.05])
    assert intervals.bounds(values, 1000, around=0.02) == pytest.approx([0, high - 0.48]), "a share is not below 0"
    assert intervals.bounds(values, 1000, around=math.nan) == [low, high]
