"""Whether a run is settled: losses with the shapes that runs have, and the doubt of a classifier."""

import pytest

from pipelines.metrics.statistics import Statistics
from pipelines.reporting.settling import still_doubts, still_falls, unsettled

LOSSES = {  # drawn after the curves of runs: (losses, whether such a run is far from settled)
    "spoken digits, 290 steps of 870": ((2.31, 2.25, 2.1, 1.9, 1.5, 1.18, 0.95, 0.8, 0.7, 0.62, 0.6, 0.58), True),
    "cats and dogs, frozen trunk, 300 steps": ((0.37, 0.3, 0.2, 0.09, 0.02, 0.012, 0.01, 0.012, 0.01, 0.009), False),
    "texts, 600 steps": ((2.32, 1.13, 0.45, 0.33, 0.25, 0.25, 0.3, 0.21, 0.11, 0.1, 0.12, 0.13), False),
    "cats and dogs, all weights": ((0.21, 0.2, 0.09, 0.02, 0.1, 0.72, 0.05, 0.01, 1.01, 0.24, 0.07), False),
    "a model that learned nothing": ((1.09, 1.1, 1.08, 1.09, 1.1, 1.09, 1.08), False),
    "too few entries": ((2.0, 1.5, 1.0, 0.5), False),
}


def log(losses: tuple[float, ...]) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = [{"step": 1, "stage": "head", "loss": 9.0}, {"step": 2, "validation": {}}]
    return [*entries, *({"step": n, "stage": "train", "loss": loss} for n, loss in enumerate(losses, 3))]


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_tells(name: str) -> None:
    losses, falls = LOSSES[name]
    found = still_falls(log(losses))
    assert (found is not None) == falls, found
    if found:
        assert found == "the training loss still fell by 44% in the last third of the steps"


def judged(right: float, sure: float, n: int = 24) -> Statistics:
    ids = [f"{i:03d}" for i in range(n)]
    return Statistics(ids, {"correct": [i < right * n for i in range(n)], "confidence": [sure] * n})


def test_a_classifier_that_is_right_and_unsure_is_not_settled() -> None:
    assert still_doubts(judged(0.79, 0.53)) == (
        "it is right on 79% of the validation rows, with a mean confidence of only 53%"
    )
    assert still_doubts(judged(0.92, 0.82)) is None
    assert still_doubts(judged(0.6, 0.95)) is None, "too sure is not unsettled"
    assert still_doubts(judged(0.8, 0.3, n=8)) is None, "a smoke run has eight rows"
    assert still_doubts(Statistics(["a"] * 30, {"errors": [1.0] * 30})) is None
    assert still_doubts(None) is None


def test_the_loss_comes_first() -> None:
    falls = log(LOSSES["spoken digits, 290 steps of 870"][0])
    assert "loss" in str(unsettled(falls, judged(0.8, 0.3), 1.0))
    assert "confidence" in str(unsettled([], judged(0.8, 0.3), 1.0))
    assert "confidence" in str(unsettled(falls, judged(0.8, 0.3), 0.5)), "it overfits"
    assert unsettled(log((float("nan"),) * 9), None, 1.0) is None
