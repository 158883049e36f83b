"""The sentence on whether the network is worth it: its rule, and how it reads for each metric and each case."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.baselines.verdict import OPENING, verdict
from tests.support.fake_baselines import learner, section

BEST = "HOG + linear SVM"


def said(
    value: float | None,
    ci95: list[float] | None,
    *,
    majority: tuple[float | None, list[float] | None] = (0.4, [0.31, 0.49]),
    metric: str = "accuracy",
    direction: str = "max",
    resamples: int = 1000,
    units: int = 120,
    score: float | None = 0.78,
) -> tuple[str, str]:
    learners = [
        learner("majority class", "majority", 0.5, *majority, metric=metric),
        learner(BEST, "hand-made", score, value, ci95, metric=metric),
    ]
    found = section(learners, metric=metric, direction=direction, resamples=resamples, units=units)
    return verdict(found)


def test_worth_it() -> None:
    assert said(0.17, [0.10, 0.24]) == (
        "worth it",
        "The network is worth it here: accuracy is 0.17 higher (95 % interval 0.10 to 0.24) than with the best "
        "hand-made features (HOG + linear SVM, 0.78) on the same 120 test rows.",
    )


def test_not_shown() -> None:
    assert said(0.03, [-0.02, 0.08]) == (
        "not shown",
        "It is not shown that the network is worth it here: accuracy is 0.03 higher than with the best hand-made "
        "features (HOG + linear SVM, 0.78) on the same 120 test rows, and the 95 % interval of the difference, -0.02 "
        "to +0.08, holds 0.",
    )


def test_not_worth_it() -> None:
    assert said(-0.05, [-0.08, -0.02]) == (
        "not worth it",
        "The network is not worth it here: accuracy is 0.05 lower (95 % interval 0.02 to 0.08) than with the best "
        "hand-made features (HOG + linear SVM, 0.78) on the same 120 test rows.",
    )


def test_a_lower_error_is_better() -> None:
    worse = (-2.0, [-3.0, -1.0])  # the network's error is lower than that of the mean
    kind, sentence = said(-0.17, [-0.24, -0.10], majority=worse, metric="mse", direction="min")
    assert kind == "worth it"
    assert "mean squared error is 0.17 lower (95 % interval 0.10 to 0.24) than with" in sentence
    kind, sentence = said(0.17, [0.10, 0.24], majority=worse, metric="mse", direction="min")
    assert kind == "not worth it"
    assert "mean squared error is 0.17 higher" in sentence
    assert said(0.1, [-0.1, 0.3], majority=worse, metric="mse", direction="min")[0] == "not shown"
    assert said(-9, [-10, -8], majority=(0.2, [0.1, 0.3]), metric="mse", direction="min")[0] == "not worth it"


def test_a_name_with_a_comma_reads_as_a_sentence() -> None:
    assert "here: F1, mean over classes, is 0.17 higher" in said(0.17, [0.1, 0.24], metric="f1_macro")[1]
    assert "here: mean average precision is 0.17 higher" in said(0.17, [0.1, 0.24], metric="map")[1]


def test_a_network_that_is_worse_than_the_majority_class_is_not_worth_it() -> None:
    kind, sentence = said(0.17, [0.10, 0.24], majority=(-0.05, [-0.08, -0.02]))
    assert kind == "not worth it"
    assert "accuracy is 0.05 lower (95 % interval 0.02 to 0.08) than with the simplest answer" in sentence


def test_an_interval_that_holds_0_decides_nothing() -> None:
    for value, bounds in ((-0.02, [-0.06, 0.02]), (0.0, [-0.06, 0.06])):
        for best in ((0.17, [0.10, 0.24]), (0.03, [-0.02, 0.08])):
            kind, sentence = said(*best, majority=(value, bounds))
            assert kind == "not shown"
            assert "with the simplest answer (majority class, 0.50)" in sentence
            assert sentence.endswith("holds 0.")
    assert said(-0.05, [-0.08, -0.02], majority=(-0.02, [-0.06, 0.02]))[0] == "not worth it"


def test_what_is_worse_than_the_majority_class_proves_nothing() -> None:
    kind, sentence = said(0.17, [0.10, 0.24], majority=(0.01, [-0.02, 0.04]))
    assert kind == "not shown"
    assert "0.01 higher than with the simplest answer (majority class, 0.50)" in sentence


def test_without_an_interval() -> None:
    kind, sentence = said(0.17, None, resamples=0)
    assert kind == "not shown"
    assert sentence.endswith("on the same 120 test rows; they are too few for an interval.")
    kind, sentence = said(1.0, None)
    assert kind == "worth it"
    assert "accuracy is 1.000 higher (in every resample) than with" in sentence
    assert said(-1.0, None)[0] == "not worth it"
    for units, known in ((2, "not shown"), (5, "not shown"), (6, "worth it")):
        kind, sentence = said(1.0, None, units=units)
        assert kind == known
        assert sentence.endswith(f"; their {units} groups are too few to tell.") == (units < 6)
        assert said(-1.0, None, units=units)[0] == ("not shown" if units < 6 else "not worth it")
    kind, sentence = said(0.0, None)
    assert kind == "not shown"
    assert "accuracy is the same as with the best hand-made features (HOG + linear SVM, 0.78)" in sentence


def test_an_end_near_0_is_not_rounded_to_0() -> None:
    assert "(95 % interval 0.002 to 0.200)" in said(0.1, [0.002, 0.2])[1]


def test_an_undefined_metric() -> None:
    kind, sentence = said(None, None, score=None)
    assert kind == "not shown"
    assert "accuracy cannot be compared with the best hand-made features (HOG + linear SVM, –)" in sentence
    assert said(0.17, [0.1, 0.24], majority=(None, None))[0] == "worth it"


def test_without_hand_made_features() -> None:
    simplest = learner("majority class", "majority", 0.5, 0.4, [0.31, 0.49])
    learned = learner("features + k nearest neighbours", "learned", 0.6, 0.3, [0.2, 0.4])
    kind, sentence = verdict(section([simplest, learned]))
    assert kind == "not shown"
    assert "0.40 higher (95 % interval 0.31 to 0.49) than with the simplest answer (majority class, 0.50)" in sentence
    assert sentence.endswith("and there is no hand-made feature to compare it with.")
    assert verdict(section([])).kind == "not shown"


numbers = st.floats(-2, 2, allow_nan=False).map(lambda value: round(value, 4))


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, numbers, numbers, numbers, st.booleans())
def test_the_sentence_agrees_with_the_intervals(
    value: float, below: float, above: float, simplest: float, spread: float, lower_is_better: bool
) -> None:
    bounds = [value - abs(below), value + abs(above)]
    others = [simplest - abs(spread), simplest + abs(spread)]
    direction = "min" if lower_is_better else "max"
    kind, sentence = said(value, bounds, majority=(simplest, others), metric="mse", direction=direction)
    sign = -1 if lower_is_better else 1
    better, worse = min(sign * end for end in bounds) > 0, max(sign * end for end in bounds) < 0
    beaten, lost = min(sign * end for end in others) > 0, max(sign * end for end in others) < 0
    assert sentence.startswith(OPENING[kind])  # type: ignore[index]
    assert (kind == "worth it") == (better and beaten)
    assert (kind == "not worth it") == (worse or lost)
    if kind == "worth it":
        assert ("lower" if lower_is_better else "higher") in sentence
        assert "holds 0" not in sentence
    if kind == "not shown":
        assert "holds 0" in sentence
