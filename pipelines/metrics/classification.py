"""Metrics of classification, from prediction records.

    scores(records, ["cat", "dog"])  ->  {"accuracy": 0.97, ...}

A record names labels: {"id", "true": "cat", "predicted": "dog", "confidence": 0.93, "rank": 1, ...}; with several
labels per row, {"id", "true": ["a", "b"], "predicted": ["a"], "scores": {label: probability of every label}}. The order
of the records does not change a score, not even in the last bit.
"""

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import DataError, RunError
from pipelines.metrics.statistics import Proportion, Statistics, binned, mean_of_known, plain, ratio, total
from pipelines.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]

# The scores with their directions: of one label per row, and of several.
ONE_LABEL = {
    "accuracy": "max",
    "balanced_accuracy": "max",
    "f1_macro": "max",
    "top_5_accuracy": "max",
    "ece": "min",
}
SEVERAL_LABELS = {"map": "max", "f1_macro": "max", "f1_micro": "max", "subset_accuracy": "max"}


class Scores(Mapping[str, float]):
    """The probability of every label, for one row. The numbers are an array, which is a tenth of a dict's size.

    AudioSet has 20,000 rows of 527 labels. The rows share `places`: label -> place in the array, in this order.
    """

    __slots__ = ("places", "values_of_row")

    def __init__(self, places: dict[str, int], values: np.ndarray) -> None:
        self.places, self.values_of_row = places, values

    def __getitem__(self, label: str) -> float:
        return float(self.values_of_row[self.places[label]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def items(self) -> ItemsView[str, float]:
        return dict(zip(self.places, self.values_of_row.tolist(), strict=True)).items()


@lru_cache(maxsize=8)
def _places(labels: tuple[str, ...]) -> dict[str, int]:
    return {label: place for place, label in enumerate(labels)}


def statistics(records: Sequence[Record], labels: Sequence[str], multi_label: bool = False) -> Statistics:
    """The columns that the scores are computed from.

    One label per row: true and predicted (indices of classes), correct, confidence; and top_5 with more than 5 labels.
    Several labels per row: true, predicted and scores, each [rows, classes], and all_right.
    A true label that is not in `labels` (the model does not know it) is a class of its own that is never predicted.
    Raises DataError if there are no records, or if a predicted label is not in `labels`.
    """
    ids = [record["id"] for record in records]
    if multi_label:
        _, true, predicted, score = _matrices(records, labels)
        right = (true == predicted).all(1)
        columns = {"true": true, "predicted": predicted, "scores": score, "all_right": right}
        return Statistics(ids, columns, {"subset_accuracy": Proportion("all_right")})
    _, truth, guess, confidence, rank = _columns(records, labels)
    columns = {"true": truth, "predicted": guess, "correct": truth == guess, "confidence": confidence}
    proportions = {"accuracy": Proportion("correct")}
    if len(labels) > 5:
        columns["top_5"] = rank < 5
        proportions["top_5_accuracy"] = Proportion("top_5")
    return Statistics(ids, columns, proportions)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """All metrics, as fractions. A higher value is better, except for `ece`.

    One label per row:
      accuracy            share of rows whose predicted label is the true one
      balanced_accuracy   mean recall over the labels that occur in `true`
      f1_macro            mean F1 over the labels that occur in `true` or were predicted; a label that was predicted but
                          never true counts as 0, a label in neither does not count (scikit-learn's default)
      top_5_accuracy      share of rows whose true label is among the five best; only with more than 5 labels
      ece                 expected calibration error over 15 equal bins of confidence (Guo et al. 2017,
      arXiv:1706.04599)
    Several labels per row:
      f1_macro            as above, over labels that occur or were predicted
      f1_micro            F1 of all decisions, rows times labels, taken together
      map                 mean average precision over the labels that occur in `true`
      subset_accuracy     share of rows whose labels are all right
    A mean over nothing is 0, as in scikit-learn. `weights` [rows], or [draws, rows] for arrays [draws].
    """
    n = total(weights)
    found, guessed, right = _counts(statistics, weights)
    f1_macro = mean_of_known(ratio(2 * right, found + guessed))
    if "scores" in statistics:
        decisions = np.maximum(found.sum(-1) + guessed.sum(-1), np.finfo(float).tiny)
        precision = average_precision(statistics["true"], statistics["scores"], weights)
        return plain(
            {
                "f1_macro": f1_macro,
                "f1_micro": 2 * right.sum(-1) / decisions,
                "map": mean_of_known(precision),
                "subset_accuracy": ratio(total(weights, statistics["all_right"]), n),
            }
        )
    result = {
        "accuracy": ratio(total(weights, statistics["correct"]), n),
        "balanced_accuracy": mean_of_known(ratio(right, found)),
        "f1_macro": f1_macro,
    }
    if "top_5" in statistics:
        result["top_5_accuracy"] = ratio(total(weights, statistics["top_5"]), n)
    confidence = statistics["confidence"]
    gaps = binned(weights * (statistics["correct"] - confidence), _bin_of(confidence, 15), 15)
    return plain({**result, "ece": ratio(np.abs(gaps).sum(-1), n)})


def scores(records: Sequence[Record], labels: Sequence[str], multi_label: bool = False) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records, labels, multi_label)
    return summarize(found, found.ones())


def matthews(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """`mcc`, the correlation of true and predicted labels, -1 to 1; CoLA's metric.

    Matthews 1975; for more than two classes Gorodkin 2004. It is 0 if only one label is true or only one was predicted,
    as in scikit-learn.
    """
    n, right = total(weights), total(weights, statistics["correct"])
    found, guessed, _ = _counts(statistics, weights)
    spread = (n**2 - (guessed**2).sum(-1)) * (n**2 - (found**2).sum(-1))
    shared = right * n - (found * guessed).sum(-1)
    return plain({"mcc": np.divide(shared, np.sqrt(spread), out=np.zeros(np.shape(spread)), where=spread > 0)})


def per_class(records: Sequence[Record], labels: Sequence[str], multi_label: bool = False) -> list[dict[str, Any]]:
    """One row per label, in the order of `labels`, then the labels that occur in `true` only.

    Columns: label, n (rows that have it), precision, recall, f1; with several labels per row also average_precision. A
    value is None if it is undefined: the precision of a label that was never predicted, the recall of one that never
    occurs.
    """
    rows = statistics(records, labels, multi_label)
    weights = rows.ones()
    classes = _classes(records, labels, multi_label)
    found, guessed, right = (_padded(count, len(classes)) for count in _counts(rows, weights, by_position=True))
    table = {
        "precision": ratio(right, guessed),
        "recall": ratio(right, found),
        "f1": ratio(2 * right, found + guessed),
    }
    if multi_label:
        table["average_precision"] = average_precision(rows["true"], rows["scores"], weights)
    return [
        {
            "label": label,
            "n": int(found[i]),
            **{key: None if np.isnan(value[i]) else float(value[i]) for key, value in table.items()},
        }
        for i, label in enumerate(classes)
    ]


def confusion(records: Sequence[Record], labels: Sequence[str]) -> np.ndarray:
    """Counts of rows, [true, predicted], both in the order of `labels`.

    Rows with a true label not in `labels` are left out.
    """
    _, truth, guess, _, _ = _columns(records, labels)
    size = len(labels)
    truth, guess = truth[truth < size], guess[truth < size]
    return np.bincount(truth * size + guess, minlength=size * size).reshape(size, size)


def calibration(records: Sequence[Record], bins: int = 15) -> list[dict[str, Any]]:
    """Confidence against accuracy in bins of equal width, (low, high]; the first bin also holds 0.

    One dict per bin: low, high, n, confidence (mean), accuracy; the last two are None in an empty bin.
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


# ---- records to arrays ----


def _columns(
    records: Sequence[Record], labels: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All classes; and arrays [rows].

    The arrays are: index of the true class, index of the predicted class, confidence, rank of the true label.
    """
    if not records:
        raise DataError("there are no predictions to score")
    true, predicted, confidence, rank = zip(
        *map(itemgetter("true", "predicted", "confidence", "rank"), records), strict=True
    )
    index = _index(set(true), set(predicted), labels)
    truth = np.array([index[label] for label in true])
    guess = np.array([index[label] for label in predicted])
    return list(index), truth, guess, np.array(confidence, dtype=float), np.array(rank)


def _matrices(records: Sequence[Record], labels: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """All classes; and arrays [rows, classes].

    The arrays are: true (bool), predicted (bool), score (0 for a class that the model does not know).
    """
    if not records:
        raise DataError("there are no predictions to score")
    present = {key: {label for r in records for label in r[key]} for key in ("true", "predicted")}
    index, sets = _index(present["true"], present["predicted"], labels), []
    for key in ("true", "predicted"):
        matrix = np.zeros((len(records), len(index)), dtype=bool)
        pairs = [(row, index[label]) for row, record in enumerate(records) for label in record[key]]
        if pairs:
            matrix[tuple(np.array(pairs).T)] = True
        sets.append(matrix)
    arrays = [r["scores"] for r in records if isinstance(r["scores"], Scores) and list(r["scores"]) == list(labels)]
    all_arrays = len(arrays) == len(records)
    score = np.zeros((len(records), len(index)), dtype=np.float32 if all_arrays else np.float64)
    if all_arrays:
        np.stack([one.values_of_row for one in arrays], out=score[:, : len(labels)])
    else:
        for row, record in enumerate(records):
            score[row, : len(labels)] = [record["scores"][label] for label in labels]
    return list(index), sets[0], sets[1], score


def _index(true: set[str], predicted: set[str], labels: Sequence[str]) -> dict[str, int]:
    """Class -> index: `labels` first, then the labels that only `true` has.

    Raises DataError for any other in `predicted`.
    """
    unknown = sorted(predicted - set(labels))
    if unknown:
        some = ", ".join(map(repr, labels[:10])) + (f", ... {len(labels)} in all" if len(labels) > 10 else "")
        raise DataError(
            f"predicted label {unknown[0]!r} is not one of the model's ({some}): these predictions are another model's"
        )
    return {label: i for i, label in enumerate([*labels, *sorted(true - set(labels))])}


# ---- sums and counts ----


def _classes(records: Sequence[Record], labels: Sequence[str], multi_label: bool) -> list[str]:
    """`labels`, then the labels that only `true` has; class indices in the statistics refer to this order."""
    true = {label for record in records for label in (record["true"] if multi_label else [record["true"]])}
    return [*labels, *sorted(true - set(labels))]


def _padded(counts: np.ndarray, size: int) -> np.ndarray:
    return np.pad(counts, (0, size - len(counts)))


def _counts(
    statistics: Statistics, weights: np.ndarray, by_position: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weight per class of rows that have it, of rows predicted as it, and of both: each [..., classes].

    With `by_position` class number k stands at k. Otherwise classes without a row may be missing.
    """
    true, predicted = statistics["true"], statistics["predicted"]
    if true.ndim == 2:
        return total(weights, true), total(weights, predicted), total(weights, true & predicted)
    size = int(max(true.max(), predicted.max())) + 1
    if not by_position and size > 4 * len(true) + 1000:  # a damaged file, or very many classes: count those that occur
        known, places = np.unique(np.concatenate([true, predicted]), return_inverse=True)
        true, predicted, size = places[: len(true)], places[len(true) :], len(known)
    right = binned(weights, np.where(statistics["correct"], true, size), size + 1)[..., :size]
    return binned(weights, true, size), binned(weights, predicted, size), right


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence: equal bins (low, high] from 0 to 1; the first also holds 0."""
    return np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1, 0, bins - 1)


def _bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of rows, the sum of confidences and the number of hits in each bin."""
    order = np.argsort(confidence)  # a fixed order of summation makes results equal to the last bit
    confidence, correct = confidence[order], correct[order]
    place = _bin_of(confidence, bins)
    return (
        np.bincount(place, minlength=bins),
        np.bincount(place, weights=confidence, minlength=bins),
        np.bincount(place, weights=correct, minlength=bins),
    )


def average_precision(true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve of each label, as a sum of steps. NaN for a label that is never true.

    Rows with equal scores form one step. `true` and `score` are [rows, labels]; `weights` [..., rows] -> [..., labels].
    """
    result = np.full((*weights.shape[:-1], true.shape[1]), np.nan)
    for label in np.flatnonzero(true.any(0)):
        order = np.argsort(-score[:, label], kind="stable")
        value, hit = score[order, label], true[order, label]
        starts = np.append(0, np.flatnonzero(np.diff(value)) + 1)  # where each run of equal scores begins
        runs = np.flatnonzero(np.logical_or.reduceat(hit, starts))  # runs with a hit; the others add no step
        ends = np.append(starts[1:], len(value))[runs]  # each step covers the rows since the one before
        begins = np.append(0, ends[:-1])
        sorted_weights = weights[..., order[: ends[-1]]]
        gain = np.add.reduceat(sorted_weights * hit[: ends[-1]], begins, axis=-1)
        seen = np.add.reduceat(sorted_weights, begins, axis=-1).cumsum(-1)
        hits = gain.cumsum(-1)
        steps = np.divide(gain * hits, seen, out=np.zeros_like(gain), where=seen > 0)
        result[..., label] = ratio(steps.sum(-1), hits[..., -1])
    return result


def check_finite(batch: Batch, logits: "Tensor") -> None:
    """Raise RunError, naming a row, if a logit is not finite.

    A diverged model would otherwise seem to predict the first class.
    """
    if not logits.isfinite().all():
        row = batch["id"][int((~logits.isfinite()).any(-1).nonzero()[0])]
        raise RunError(
            f"the model's answer to {row} is not a number: bad weights, "
            "or its training diverged: train again with a lower train.learning_rate"
        )


def records(batch: Batch, logits: "Tensor", classes: Sequence[str], multi_label: bool) -> list[dict[str, Any]]:
    """Prediction records, one per row.

    `batch` has `id` and `true`; logits [batch, classes] on the CPU. Raises RunError.
    """
    check_finite(batch, logits)
    if multi_label:
        places = _places(tuple(classes))
        return [
            {
                "id": id_,
                "true": true,
                "predicted": [classes[place] for place in np.flatnonzero(values > 0.5).tolist()],
                "scores": Scores(places, values),
            }
            for id_, true, values in zip(batch["id"], batch["true"], logits.sigmoid().numpy(), strict=True)
        ]
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


def ranked(
    logits: "Tensor", classes: Sequence[str], multi_label: bool, top_k: Sequence[int]
) -> list[list[dict[str, Any]]]:
    """For each row of logits [rows, classes], its `top_k` best classes, best first: [{"label", "score"}]."""
    scores = logits.sigmoid() if multi_label else logits.softmax(-1)
    best = scores.topk(min(max(top_k), len(classes)))
    return [
        [{"label": classes[i], "score": p} for p, i in zip(values[:most], places[:most], strict=True)]
        for values, places, most in zip(best.values.tolist(), best.indices.tolist(), top_k, strict=True)
    ]
