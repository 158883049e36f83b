"""Classification metrics against scikit-learn, torchmetrics and the definitions."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipelines.errors import DataError
from pipelines.metrics.classification import calibration, confusion, per_class, scores
from pipelines.plots.classification import figures
from tests.support.fake_run import many_labels, predictions

LABELS = tuple("abcdefgh")


@st.composite
def single(draw: Any) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Labels, some of which may never occur, and records of one label per row."""
    labels = LABELS[: draw(st.integers(2, 8))]
    confidence = st.one_of(st.floats(0, 1), st.sampled_from([i / 15 for i in range(16)]))
    records = []
    for i in range(draw(st.integers(1, 30))):
        true, guess = draw(st.sampled_from(labels)), draw(st.sampled_from(labels))
        rank = 0 if true == guess else draw(st.integers(1, len(labels) - 1))
        records.append({"id": str(i), "true": true, "predicted": guess, "confidence": draw(confidence), "rank": rank})
    return labels, records


@st.composite
def several(draw: Any) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Labels and records of several labels per row. Scores come from a coarse grid, so that ties happen."""
    labels = LABELS[: draw(st.integers(1, 5))]
    some, score = st.lists(st.sampled_from(labels), unique=True), st.integers(0, 8).map(lambda v: v / 8)
    return labels, [
        {"id": str(i), "true": draw(some), "predicted": draw(some), "scores": {label: draw(score) for label in labels}}
        for i in range(draw(st.integers(1, 20)))
    ]


def flags(records: list[dict[str, Any]], key: str, labels: tuple[str, ...]) -> np.ndarray:
    return np.array([[label in r[key] for label in labels] for r in records])


@given(single())
@settings(max_examples=60, deadline=None)
def test_one_label_agrees_with_scikit_learn(case: Any) -> None:
    labels, records = case
    true, guess = [r["true"] for r in records], [r["predicted"] for r in records]
    found = scores(records, labels)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, guess), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(sk.f1_score(true, guess, average="macro", zero_division=0), abs=1e-12)
    recall = sk.recall_score(
        true, guess, labels=sorted(set(true)), average="macro", zero_division=0
    )  # the definition of balanced_accuracy_score
    assert found["balanced_accuracy"] == pytest.approx(recall, abs=1e-12)
    assert (confusion(records, labels) == sk.confusion_matrix(true, guess, labels=labels)).all()
    reference = sk.precision_recall_fscore_support(true, guess, labels=labels, zero_division=np.nan)
    for row, *expected in zip(per_class(records, labels), *reference, strict=True):
        measured = [np.nan if row[key] is None else row[key] for key in ("precision", "recall", "f1", "n")]
        assert measured == pytest.approx(expected, nan_ok=True, abs=1e-12)


@given(several())
@settings(max_examples=60, deadline=None)
def test_several_labels_agree_with_scikit_learn(case: Any) -> None:
    labels, records = case
    true, guess = flags(records, "true", labels), flags(records, "predicted", labels)
    score = np.array([[r["scores"][label] for label in labels] for r in records])
    found = scores(records, labels, multi_label=True)
    occurs, used = true.any(0), true.any(0) | guess.any(0)
    each = [sk.f1_score(true[:, i], guess[:, i], zero_division=0) for i in np.flatnonzero(used)]
    precisions = [sk.average_precision_score(true[:, i], score[:, i]) for i in np.flatnonzero(occurs)]
    assert found["f1_macro"] == pytest.approx(np.mean(each) if each else 0, abs=1e-12)
    assert found["f1_micro"] == pytest.approx(sk.f1_score(true.ravel(), guess.ravel(), zero_division=0), abs=1e-12)
    assert found["map"] == pytest.approx(np.mean(precisions) if precisions else 0, abs=1e-12)
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(true, guess), abs=1e-12)
    table = per_class(records, labels, multi_label=True)
    assert [row["average_precision"] is None for row in table] == [not o for o in occurs]


def test_torchmetrics_agrees() -> None:
    import torch
    from torchmetrics.functional import classification as tm

    labels, rng = tuple(f"c{i}" for i in range(10)), random.Random(0)
    logits = torch.tensor([[rng.gauss(0, 2) for _ in labels] for _ in range(300)], dtype=torch.float64)
    truth = torch.tensor([rng.randrange(10) for _ in range(300)])
    p = logits.softmax(-1)
    records = [
        {
            "id": str(i),
            "true": labels[t],
            "predicted": labels[int(q.argmax())],
            "confidence": float(q.max()),
            "rank": int((q > q[t]).sum()),
        }
        for i, (t, q) in enumerate(zip(truth.tolist(), p, strict=True))
    ]
    found = scores(records, labels)
    expected = {
        "accuracy": tm.multiclass_accuracy(p, truth, 10, average="micro"),
        "balanced_accuracy": tm.multiclass_recall(p, truth, 10, average="macro"),
        "f1_macro": tm.multiclass_f1_score(p, truth, 10, average="macro"),
        "top_5_accuracy": tm.multiclass_accuracy(p, truth, 10, top_k=5, average="micro"),
        "ece": tm.multiclass_calibration_error(p, truth, 10, n_bins=15, norm="l1"),
    }
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)
    many = torch.tensor([[int(rng.random() < 0.3) for _ in labels] for _ in range(300)])
    names = [[label for label, on in zip(labels, row, strict=True) if on] for row in many.tolist()]
    guesses = [[label for label, q in zip(labels, row, strict=True) if q > 0.5] for row in logits.sigmoid().tolist()]
    rows = [
        {"id": str(i), "true": true, "predicted": guess, "scores": dict(zip(labels, q, strict=True))}
        for i, (true, guess, q) in enumerate(zip(names, guesses, logits.sigmoid().tolist(), strict=True))
    ]
    found = scores(rows, labels, multi_label=True)
    expected = {
        "f1_macro": tm.multilabel_f1_score(logits, many, 10, average="macro"),
        "f1_micro": tm.multilabel_f1_score(logits, many, 10, average="micro"),
        "map": tm.multilabel_average_precision(logits, many, 10),
        "subset_accuracy": tm.multilabel_exact_match(logits, many, 10),
    }
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


@given(single())
@settings(max_examples=60, deadline=None)
def test_calibration_error_is_guos(case: Any) -> None:
    """The definition, literally: rows whose confidence is in (low, high], and 0 in the first bin."""
    labels, records = case
    edges, error = np.linspace(0, 1, 16), 0.0
    for m in range(15):
        inside = [r for r in records if edges[m] < r["confidence"] <= edges[m + 1] or (m == 0 and r["confidence"] == 0)]
        if inside:
            accuracy = np.mean([r["true"] == r["predicted"] for r in inside])
            error += len(inside) / len(records) * abs(accuracy - np.mean([r["confidence"] for r in inside]))
    assert scores(records, labels)["ece"] == pytest.approx(error, abs=1e-12)
    bins = calibration(records)
    assert len(bins) == 15
    assert sum(b["n"] for b in bins) == len(records)
    assert all((b["confidence"] is None) == (b["n"] == 0) for b in bins)


@given(single(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_does_not_matter_to_the_last_bit(case: Any, rng: random.Random) -> None:
    labels, records = case
    turned = rng.sample(records, len(records))
    assert scores(turned, labels) == scores(records, labels)
    assert per_class(turned, labels) == per_class(records, labels)


@given(several(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_does_not_matter_with_several_labels(case: Any, rng: random.Random) -> None:
    labels, records = case
    turned = rng.sample(records, len(records))
    assert scores(turned, labels, True) == scores(records, labels, True)
    assert per_class(turned, labels, True) == per_class(records, labels, True)


@given(single())
@settings(max_examples=60, deadline=None)
def test_perfect_records_are_perfect(case: Any) -> None:
    labels, records = case
    perfect = [{**r, "predicted": r["true"], "rank": 0, "confidence": 1.0} for r in records]
    found = scores(perfect, labels)
    assert found.pop("ece") == 0.0
    assert set(found.values()) == {1.0}
    assert ("top_5_accuracy" in found) is (len(labels) > 5)


@given(several())
@settings(max_examples=60, deadline=None)
def test_perfect_records_of_several_labels(case: Any) -> None:
    labels, records = case
    perfect = [
        {**r, "predicted": r["true"], "scores": {label: float(label in r["true"]) for label in labels}} for r in records
    ]
    found = scores(perfect, labels, multi_label=True)
    occurs = any(r["true"] for r in records)
    assert found == {"f1_macro": float(occurs), "f1_micro": float(occurs), "map": float(occurs), "subset_accuracy": 1.0}


@given(single())
@settings(max_examples=60, deadline=None)
def test_labels_that_never_occur_change_nothing(case: Any) -> None:
    labels, records = case
    wide = (*labels, *(f"unused {i}" for i in range(10)))
    found, wider = scores(records, labels), scores(records, wide)
    wider.pop("top_5_accuracy"), found.pop("top_5_accuracy", None)
    assert wider == found
    unused = per_class(records, wide)[len(labels) :]
    assert [row["n"] for row in unused] == [0] * 10
    assert all(row["precision"] is row["recall"] is row["f1"] is None for row in unused)


def test_top_five_is_by_rank() -> None:
    records = [
        {"id": str(i), "true": "a", "predicted": "b", "confidence": 0.5, "rank": rank}
        for i, rank in enumerate((1, 4, 5, 7))
    ]
    assert scores(records, LABELS)["top_5_accuracy"] == 0.5


def test_a_true_label_that_the_model_does_not_know_is_an_error_made() -> None:
    records = predictions(("cat", "dog"), 20, skill=1.0)
    unknown = {**records[0], "id": "x", "true": "yak", "rank": 2}
    found = scores([*records, unknown], ("cat", "dog"))
    assert found["accuracy"] == pytest.approx(20 / 21)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert per_class([*records, unknown], ("cat", "dog"))[-1] == {
        "label": "yak",
        "n": 1,
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
    }
    assert confusion([*records, unknown], ("cat", "dog")).sum() == 20
    rows = many_labels(("cat", "dog"), 10)
    rows[0]["true"] = ["yak"]
    assert per_class(rows, ("cat", "dog"), True)[-1]["recall"] == 0.0


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_cannot_be_scored_is_a_data_error(multi_label: bool) -> None:
    with pytest.raises(DataError, match="no predictions"):
        scores([], LABELS, multi_label)
    records = many_labels(("a", "yak"), 30) if multi_label else predictions(("a", "yak"), 30)
    for record in records if multi_label else ():
        record["scores"] |= dict.fromkeys(LABELS, 0.0)
    with pytest.raises(DataError, match="'yak' is not one of the model's"):
        scores(records, LABELS, multi_label)


def test_figures_of_both_kinds() -> None:
    records = predictions(LABELS, 60, skill=0.8)
    assert list(figures(records, LABELS)) == ["confusion_matrix", "calibration", "class_balance"]
    assert list(figures(many_labels(LABELS, 60), LABELS, multi_label=True)) == ["average_precision", "class_balance"]
