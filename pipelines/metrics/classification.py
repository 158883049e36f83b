"""Metrics of image and other classification, from prediction records alone.

    scores(records, ["cat", "dog"])  ->  {"accuracy": 0.97, ...}

A record names labels: {"id", "true": "cat", "predicted": "dog", "confidence": 0.93, "rank": 1, ...}; with several labels
per row, {"id", "true": ["a", "b"], "predicted": ["a"], "scores": {label: probability of every label}}. The order of the
records never matters, not even in the last bit.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import DataError, RunError
from pipelines.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]


def scores(records: Sequence[Record], labels: Sequence[str], multi_label: bool = False) -> dict[str, float]:
    """All metrics of one split, as fractions; every one of them is better when higher, except `ece`.

    One label per row:
      accuracy            share of rows whose predicted label is the true one
      balanced_accuracy   mean recall over the labels that occur in `true`
      f1_macro            mean F1 over the labels that occur in `true` or were predicted: a label that was predicted but
                          never true counts as 0, one that is in neither does not count (scikit-learn's default)
      top_5_accuracy      share of rows whose true label is among the five best; only where there are more than 5 labels
      ece                 expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv:1706.04599)
    Several labels per row:
      f1_macro            as above, over labels that occur or were predicted
      f1_micro            F1 of all decisions, rows times labels, taken together
      map                 mean average precision over the labels that occur in `true`
      subset_accuracy     share of rows whose whole set of labels is right
    A true label that is not in `labels` (the model does not know it) is a class of its own that is never predicted.
    A mean over nothing is 0, as in scikit-learn. Raises DataError for no records and for predicted labels not in `labels`.
    """
    if multi_label:
        _, true, predicted, score = _matrices(records, labels)
        found, guessed, right = true.sum(0), predicted.sum(0), (true & predicted).sum(0)
        every = 2 * right.sum() / max(int(found.sum() + guessed.sum()), 1)
        return {
            "f1_macro": _mean(_ratio(2 * right, found + guessed)),
            "f1_micro": float(every),
            "map": _mean(_average_precision(true, score)),
            "subset_accuracy": float((true == predicted).all(1).mean()),
        }
    classes, truth, guess, confidence, rank = _columns(records, labels)
    correct = truth == guess
    found, guessed, right = (np.bincount(part, minlength=len(classes)) for part in (truth, guess, truth[correct]))
    result = {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": _mean(_ratio(right, found)),
        "f1_macro": _mean(_ratio(2 * right, found + guessed)),
    }
    if len(labels) > 5:
        result["top_5_accuracy"] = float((rank < 5).mean())
    count, confident, hits = _bins(confidence, correct, 15)
    return {**result, "ece": float(np.abs(hits - confident).sum() / count.sum())}


def matthews(records: Sequence[Record], labels: Sequence[str]) -> float:
    """Correlation of true and predicted labels, -1 to 1 (Matthews 1975; for more than two classes Gorodkin 2004); CoLA's metric.

    0 where only one label is true, or only one was ever predicted, as in scikit-learn.
    """
    classes, truth, guess, _, _ = _columns(records, labels)
    found, guessed = (np.bincount(part, minlength=len(classes)).astype(float) for part in (truth, guess))
    n, right = float(len(truth)), float((truth == guess).sum())
    spread = (n**2 - (guessed**2).sum()) * (n**2 - (found**2).sum())
    return float((right * n - (found * guessed).sum()) / np.sqrt(spread)) if spread > 0 else 0.0


def per_class(records: Sequence[Record], labels: Sequence[str], multi_label: bool = False) -> list[dict[str, Any]]:
    """One row per label, in the order of `labels`, then those that only `true` holds: label, n (rows that have it), precision, recall, f1.

    With several labels per row also average_precision. None where a figure has nothing to be measured on: the precision
    of a label that was never predicted, the recall of one that never occurs.
    """
    extra = {}
    if multi_label:
        classes, true, predicted, score = _matrices(records, labels)
        found, guessed, right = true.sum(0), predicted.sum(0), (true & predicted).sum(0)
        extra["average_precision"] = _average_precision(true, score)
    else:
        classes, truth, guess, _, _ = _columns(records, labels)
        found, guessed, right = (np.bincount(part, minlength=len(classes)) for part in (truth, guess, truth[truth == guess]))
    table = {
        "precision": _ratio(right, guessed),
        "recall": _ratio(right, found),
        "f1": _ratio(2 * right, found + guessed),
        **extra,
    }
    return [
        {"label": label, "n": int(found[i]), **{key: None if np.isnan(value[i]) else float(value[i]) for key, value in table.items()}}
        for i, label in enumerate(classes)
    ]


def confusion(records: Sequence[Record], labels: Sequence[str]) -> np.ndarray:
    """Counts of rows, [true, predicted], both in the order of `labels`; rows whose true label is not among them are left out."""
    _, truth, guess, _, _ = _columns(records, labels)
    size = len(labels)
    truth, guess = truth[truth < size], guess[truth < size]
    return np.bincount(truth * size + guess, minlength=size * size).reshape(size, size)


def calibration(records: Sequence[Record], bins: int = 15) -> list[dict[str, Any]]:
    """Confidence against accuracy in bins of equal width, (low, high], the first also holding 0.

    One dict per bin: low, high, n, confidence (mean), accuracy; the last two None in an empty bin.
    """
    confidence = np.array([r["confidence"] for r in records], dtype=float)
    correct = np.array([r["true"] == r["predicted"] for r in records], dtype=bool)
    count, confident, hits = _bins(confidence, correct, bins)
    edges = np.linspace(0, 1, bins + 1)
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "n": int(count[i]),
            "confidence": float(confident[i] / count[i]) if count[i] else None,
            "accuracy": float(hits[i] / count[i]) if count[i] else None,
        }
        for i in range(bins)
    ]


def mistakes(records: Sequence[Record], limit: int = 24) -> list[Record]:
    """The wrong predictions that the model was surest of, surest first; ties by id."""
    wrong = [r for r in records if r["true"] != r["predicted"]]
    return sorted(wrong, key=lambda r: (-r["confidence"], r["id"]))[:limit]


# ---- records to arrays ----


def _columns(records: Sequence[Record], labels: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All classes; then, each of length rows: index of the true and of the predicted class, confidence, rank of the true label."""
    if not records:
        raise DataError("there are no predictions to score")
    true, predicted, confidence, rank = zip(*map(itemgetter("true", "predicted", "confidence", "rank"), records), strict=True)
    index = _index(set(true), set(predicted), labels)
    truth = np.array([index[label] for label in true])
    guess = np.array([index[label] for label in predicted])
    return list(index), truth, guess, np.array(confidence, dtype=float), np.array(rank)


def _matrices(records: Sequence[Record], labels: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """All classes; then, rows x classes: true (bool), predicted (bool), score (0 for a class that the model does not know)."""
    if not records:
        raise DataError("there are no predictions to score")
    held = {key: {label for r in records for label in r[key]} for key in ("true", "predicted")}
    index, sets = _index(held["true"], held["predicted"], labels), []
    for key in ("true", "predicted"):
        matrix = np.zeros((len(records), len(index)), dtype=bool)
        pairs = [(row, index[label]) for row, record in enumerate(records) for label in record[key]]
        if pairs:
            matrix[tuple(np.array(pairs).T)] = True
        sets.append(matrix)
    score = np.zeros((len(records), len(index)))
    known = np.fromiter((r["scores"][label] for r in records for label in labels), dtype=float, count=len(records) * len(labels))
    score[:, : len(labels)] = known.reshape(len(records), len(labels))
    return list(index), sets[0], sets[1], score


def _index(true: set[str], predicted: set[str], labels: Sequence[str]) -> dict[str, int]:
    """Class -> its place: `labels`, then what only `true` holds. Raises DataError where `predicted` holds anything else."""
    strange = sorted(predicted - set(labels))
    if strange:
        some = ", ".join(map(repr, labels[:10])) + (f", ... {len(labels)} in all" if len(labels) > 10 else "")
        raise DataError(f"predicted label {strange[0]!r} is not one of the model's ({some}): these predictions are another model's")
    return {label: i for i, label in enumerate([*labels, *sorted(true - set(labels))])}


# ---- sums and counts ----


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, sum of confidence and number of hits in each bin."""
    order = np.argsort(confidence)  # sums in one order whatever the records' order: equal to the last bit
    confidence, correct = confidence[order], correct[order]
    place = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1, 0, bins - 1)
    return (
        np.bincount(place, minlength=bins),
        np.bincount(place, weights=confidence, minlength=bins),
        np.bincount(place, weights=correct, minlength=bins),
    )


def _average_precision(true: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Area under precision over recall of each label, as a sum of steps; rows of equal score are one step. NaN: never true."""
    result = np.full(true.shape[1], np.nan)
    for i in np.flatnonzero(true.any(0)):
        order = np.argsort(-score[:, i], kind="stable")
        value, hit = score[order, i], true[order, i]
        last = np.append(np.flatnonzero(np.diff(value)), len(value) - 1)  # where a run of equal scores ends
        found = np.cumsum(hit)[last]
        gain = np.diff(found, prepend=0)
        result[i] = float((gain * found / (last + 1)).sum() / found[-1])
    return result


def check_finite(batch: Batch, logits: "Tensor") -> None:
    """Raises RunError naming a row, or a diverged model would pass for one that always says the first class."""
    if not logits.isfinite().all():
        row = batch["id"][int((~logits.isfinite()).any(-1).nonzero()[0])]
        raise RunError(f"the model's answer to {row} is not a number: bad weights, or training diverged (lower train.learning_rate)")


def records(batch: Batch, logits: "Tensor", classes: Sequence[str], multi_label: bool) -> list[dict[str, Any]]:
    """One per row, as metrics.classification wants them. `batch` has `id` and `true`; logits [batch, classes], on the CPU."""
    check_finite(batch, logits)
    if multi_label:
        return [_several(*one, classes) for one in zip(batch["id"], batch["true"], logits.sigmoid().tolist(), strict=True)]
    probabilities = logits.softmax(-1)
    top = probabilities.topk(min(5, len(classes))).indices.tolist()
    truth = [classes.index(true) if true in classes else -1 for true in batch["true"]]
    ranks = [int((row > row[t]).sum()) if t >= 0 else len(classes) for row, t in zip(probabilities, truth, strict=True)]
    found = []
    for i, best in enumerate(top):
        scores = {classes[k]: float(probabilities[i, k]) for k in best}
        record = {"id": batch["id"][i], "true": batch["true"][i], "predicted": classes[best[0]]}
        found.append({**record, "confidence": float(probabilities[i, best[0]]), "rank": ranks[i], "scores": scores})
    return found


def _several(id_: str, true: list[str], scores: list[float], classes: Sequence[str]) -> dict[str, Any]:
    found = dict(zip(classes, scores, strict=True))
    return {"id": id_, "true": true, "predicted": [label for label, p in found.items() if p > 0.5], "scores": found}


def ranked(logits: "Tensor", classes: Sequence[str], multi_label: bool, top_k: int) -> list[dict[str, Any]]:
    """The `top_k` classes of one row of logits, best first: [{"label", "score"}]."""
    scores = logits.sigmoid() if multi_label else logits.softmax(-1)
    best = scores.topk(min(top_k, len(classes)))
    return [{"label": classes[i], "score": p} for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
