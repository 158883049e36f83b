"""Metrics of videos with any number of labels out of thousands, as published for YouTube-8M.

    scores(records, labels)  ->  {"gap": 0.81, "hit_at_1": 0.87, "map": 0.42, "perr": 0.76}

A record holds the 20 best predictions of a video and its true labels: {"id", "true": ["a", "b"], "predicted": ["a"],
"scores": {label: probability of the 20 best, best first}, "first_right": true labels among the first k predictions,
where k is the number of true labels}.

The definitions are those of Abu-El-Haija et al. 2016 (arXiv:1609.08675) and of google/youtube-8m (eval_util.py,
average_precision_calculator.py, mean_average_precision_calculator.py):

  gap        global average precision: the 20 best predictions of all videos in one list, best first. The sum of the
             precision at every right one, divided by the number of all true labels (also of those beyond the 20)
  map        the same for each class alone, from the 20 best of each video; the mean over classes that occur in `true`
  hit_at_1   share of videos whose best prediction is true
  perr       precision at the rank that equals the number of the video's labels; the mean over videos with labels

Equal scores: the published code shuffles the list before it sorts. Here they count with the mean over all orders, which
is exact and does not depend on the order of the records. Among the predictions of one video, the first class wins.
"""

import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.errors import DataError
from pipelines.metrics.classification import check_finite
from pipelines.metrics.statistics import Proportion, Statistics, mean_of_known, plain, ratio, total
from pipelines.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]

METRICS = {"gap": "max", "hit_at_1": "max", "map": "max", "perr": "max"}
# A class with few true rows has a higher precision where these occur twice, and is left out where they do not occur.
LIFTED = ("map",)
BEST = 20  # predictions of a video that count


# ---- records ----


def records(batch: Batch, logits: "Tensor", classes: Sequence[str]) -> list[dict[str, Any]]:
    """Prediction records, one per row.

    `batch` has `id` and `true`; logits [batch, classes] float32 on the CPU. Raises RunError.
    """
    check_finite(batch, logits)
    found = []
    places = _best_first(logits, min(BEST, len(classes)))
    for row, (id_, true) in enumerate(zip(batch["id"], batch["true"], strict=True)):
        scores = dict(zip((classes[k] for k in places[row]), logits[row, places[row]].sigmoid().tolist(), strict=True))
        if len(true) > len(scores):
            (first,) = _best_first(logits[row : row + 1], min(len(true), len(classes)))
            right = len({classes[k] for k in first} & set(true))
        else:
            right = first_right(scores, true)
        found.append({"id": id_, **record(true, scores, right)})
    return found


def record(true: Sequence[str], scores: Mapping[str, float], right: int) -> dict[str, Any]:
    """A record without its id, of the best scores of a video (best first)."""
    predicted = [label for label, score in scores.items() if score > 0.5]
    return {"true": list(true), "predicted": predicted, "scores": dict(scores), "first_right": right}


def first_right(scores: Mapping[str, float], true: Sequence[str]) -> int:
    """How many of the first predictions are true; there are as many as true labels. A score of 0 is no prediction."""
    wanted = set(true)
    return sum(label in wanted and score > 0 for label, score in list(scores.items())[: len(wanted)])


def _best_first(logits: "Tensor", most: int) -> list[list[int]]:
    """The numbers of the best classes of each row; of equal ones, the first class comes first."""
    import torch

    values, places = logits.topk(min(most + 1, logits.shape[1]))
    if values.shape[1] > most:
        # topk takes any of equal values: where the last one that counts equals the next, all are sorted
        tied = (values[:, most - 1] == values[:, most]).nonzero()[:, 0]
        values, places = values[:, :most].clone(), places[:, :most].clone()
        if len(tied):
            ordered = torch.sort(logits[tied], dim=1, descending=True, stable=True)
            values[tied], places[tied] = ordered.values[:, :most], ordered.indices[:, :most]
    by_number = places.argsort(1)
    values, places = values.gather(1, by_number), places.gather(1, by_number)
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    return [list(map(int, row)) for row in places.gather(1, order).tolist()]


def prior(labels: Sequence[Sequence[str]]) -> dict[str, float]:
    """What a model without an input would answer: the 20 most frequent labels, each with its share of the rows."""
    counts: dict[str, int] = {}
    for row in labels:
        for label in row:
            counts[label] = counts.get(label, 0) + 1
    best = sorted(counts, key=lambda label: (-counts[label], label))[:BEST]
    return {label: counts[label] / len(labels) for label in best}


# ---- statistics ----


def statistics(records: Sequence[Record], labels: Sequence[str]) -> Statistics:
    """The columns that the scores are computed from.

    `scores`, `classes` (numbers, -1 for none) and `right` of the best predictions, each [rows, up to 20]; `true_class`
    [rows, most true labels], filled up with -1; `true_labels` (how many), `labelled`, `hit_at_1` and `perr`. Labels
    that the model does not know get numbers after its own. Raises DataError if there are no records.
    """
    if not records:
        raise DataError("there are no predictions to score")
    number = {label: place for place, label in enumerate(labels)}
    for label in sorted({label for record in records for label in record["true"]} - number.keys()):
        number[label] = len(number)
    n, most = len(records), max(1, max(len(record["scores"]) for record in records))
    many = max(1, max(len(record["true"]) for record in records))
    if most > BEST:
        raise DataError(f"a record holds {most} predictions, and {BEST} count")
    score, classes = np.zeros((n, most)), np.full((n, most), -1, np.int32)
    right, true_class = np.zeros((n, most), bool), np.full((n, many), -1, np.int32)
    columns: dict[str, np.ndarray] = {name: np.zeros(n) for name in ("true_labels", "labelled", "perr")}
    for row, record in enumerate(records):
        true, found = set(record["true"]), record["scores"]
        unknown = [label for label in found if label not in number]
        if unknown:
            raise DataError(f"predicted label {unknown[0]!r} is not one of the model's: these are another model's")
        score[row, : len(found)] = list(found.values())
        classes[row, : len(found)] = [number[label] for label in found]
        right[row, : len(found)] = [label in true for label in found]
        true_class[row, : len(true)] = sorted(number[label] for label in true)
        columns["true_labels"][row], columns["labelled"][row] = len(true), bool(true)
        columns["perr"][row] = record["first_right"] / max(1, len(true))
    columns["hit_at_1"] = right[:, 0]
    columns |= {"scores": score, "classes": classes, "right": right, "true_class": true_class}
    ids = [record["id"] for record in records]
    return Statistics(ids, columns, {"hit_at_1": Proportion("hit_at_1")}, LIFTED)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """All metrics, as fractions (see the module). A higher value is better. Without a true label they are 0.

    `weights` are whole numbers: [rows], or [draws, rows] for arrays [draws].
    """
    ranked = _ranked(statistics)
    gap, precision = [], []
    for draw in np.atleast_2d(weights).astype(np.int32):  # draw by draw: 100,000 rows have two million predictions
        every = ratio(_gain(ranked.pooled, draw), total(draw, statistics["true_labels"]))
        gap.append(float(np.nan_to_num(every)[0]))
        positives = np.bincount(ranked.true_class, draw[ranked.true_row], ranked.classes)
        precision.append(float(mean_of_known(ratio(_gain(ranked.by_class, draw), positives))))
    shape = weights.shape[:-1]
    return plain(
        {
            "gap": np.array(gap).reshape(shape),
            "hit_at_1": ratio(total(weights, statistics["hit_at_1"]), total(weights)),
            "map": np.array(precision).reshape(shape),
            "perr": np.nan_to_num(ratio(total(weights, statistics["perr"]), total(weights, statistics["labelled"]))),
        }
    )


def scores(records: Sequence[Record], labels: Sequence[str]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records, labels)
    return summarize(found, found.ones())


def per_class(records: Sequence[Record], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each label that occurs in `true` or is predicted, in the order of `labels`, then unknown ones.

    Columns: label, n (rows that have it), precision, recall, f1 (of scores above 0.5 among the 20 best), and
    average_precision. A value is None if it is undefined.
    """
    found = statistics(records, labels)
    names = [*labels, *sorted({label for record in records for label in record["true"]} - set(labels))]
    number = {label: place for place, label in enumerate(names)}
    counts = np.zeros((3, len(names)))  # true, predicted, both
    for record in records:
        true, predicted = set(record["true"]), set(record["predicted"])
        for line, group in enumerate((true, predicted, true & predicted)):
            counts[line, [number[label] for label in group]] += 1
    true_rows, guessed, both = counts
    ranked = _ranked(found)
    gain = np.zeros(len(names))
    gain[ranked.numbers] = _gain(ranked.by_class, found.ones().astype(np.int32))
    table = {
        "precision": ratio(both, guessed),
        "recall": ratio(both, true_rows),
        "f1": ratio(2 * both, true_rows + guessed),
        "average_precision": ratio(gain, true_rows),
    }
    return [
        {
            "label": names[k],
            "n": int(true_rows[k]),
            **{key: None if np.isnan(value[k]) else float(value[k]) for key, value in table.items()},
        }
        for k in np.flatnonzero(true_rows + guessed).tolist()
    ]


def curve(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after every prediction of the pooled list that is right; the area below it is the GAP."""
    order = np.argsort(-statistics["scores"][statistics["classes"] >= 0], kind="stable")
    right = statistics["right"][statistics["classes"] >= 0][order]
    places = np.flatnonzero(right)
    hits = np.arange(1, len(places) + 1)
    return hits / max(1.0, float(statistics["true_labels"].sum())), hits / (places + 1)


# ---- average precision ----


class _Runs(NamedTuple):
    """Lists of predictions, best first, one list after the other.

    A run is a number of equal scores of one list with a right one among them; the others add nothing but their weight
    to the runs after them. Predictions after the last run of a list are left out.
    """

    row: np.ndarray  # the row of each prediction
    begins: np.ndarray  # the first prediction of each run, or of those without a right one before it
    run_row: np.ndarray  # the rows of the predictions in runs
    run_right: np.ndarray
    run_begins: np.ndarray  # where each run begins in these
    lists: np.ndarray  # the number of each run's list
    first: np.ndarray  # the number of each list's first run
    many: int  # number of lists
    alone: bool  # whether each run is one prediction


class _Ranked(NamedTuple):
    pooled: _Runs
    by_class: _Runs
    classes: int  # number of classes that occur in `true`
    numbers: np.ndarray  # their numbers
    true_row: np.ndarray
    true_class: np.ndarray  # a place in `numbers`


_KEPT: dict[int, "tuple[weakref.ref[Statistics], _Ranked]"] = {}


def _ranked(statistics: Statistics) -> _Ranked:
    """The sorted lists of the statistics. They are kept while the statistics are, for resampling asks hundreds of
    times."""
    key = id(statistics)
    if key not in _KEPT or _KEPT[key][0]() is not statistics:
        _KEPT[key] = (weakref.ref(statistics, lambda _: _KEPT.pop(key, None)), _sorted_lists(statistics))
    return _KEPT[key][1]


def _sorted_lists(statistics: Statistics) -> _Ranked:
    row, column = np.nonzero(statistics["classes"] >= 0)
    score, right = statistics["scores"][row, column], statistics["right"][row, column].astype(bool)
    label = statistics["classes"][row, column]
    true_row, place = np.nonzero(statistics["true_class"] >= 0)
    numbers, true_class = np.unique(statistics["true_class"][true_row, place], return_inverse=True)
    within = np.searchsorted(numbers, label)
    known = np.append(numbers, -1)[within] == label  # a class that is never true has no average precision
    pooled = _runs(row, score, right, np.zeros(len(row), np.intp), 1)
    by_class = _runs(row[known], score[known], right[known], within[known], len(numbers))
    return _Ranked(pooled, by_class, len(numbers), numbers, true_row, true_class)


def _runs(row: np.ndarray, score: np.ndarray, right: np.ndarray, lists: np.ndarray, count: int) -> _Runs:
    order = np.lexsort((-score, lists))
    row, score, right, lists = row[order], score[order], right[order], lists[order]
    new = np.append(True, (np.diff(score) != 0) | (np.diff(lists) != 0))[: len(row)]
    tied = np.cumsum(new) - 1  # the number of each prediction's group of equal scores
    useful = np.bincount(tied, right) > 0
    in_run = useful[tied]
    ends = np.flatnonzero(useful)
    last = np.full(count, -1)
    last[lists[new][ends]] = ends  # ends ascend: the last group of each list stays
    keep = tied <= last[lists]
    before = np.cumsum(np.append(0, keep))  # place -> place among those that are kept
    starts, sizes = np.flatnonzero(new), np.diff(np.append(np.flatnonzero(new), len(row)))
    after = before[(starts + sizes)[ends]]  # the end of each run
    of_run = lists[new][ends]
    run_new = new[in_run]
    return _Runs(
        row[keep].astype(np.int32),
        np.append(0, after)[: len(after)],
        row[in_run].astype(np.int32),
        right[in_run].astype(np.int32),
        np.flatnonzero(run_new),
        of_run,
        np.flatnonzero(np.append(True, np.diff(of_run) != 0))[: len(of_run)],
        count,
        bool(run_new.all()),
    )


def _gain(runs: _Runs, draw: np.ndarray) -> np.ndarray:
    """The sum of the precision at each right prediction of every list, for whole weights of the rows: [lists].

    In a run of m equal scores with t right ones, after n predictions with p right ones, the j-th one is right with the
    probability t / m, and there are then p + 1 + (j - 1) b right ones on average, where b = (t - 1) / (m - 1).
    """
    result = np.zeros(runs.many)
    if not len(runs.begins):
        return result
    seen = np.add.reduceat(draw[runs.row], runs.begins).cumsum(dtype=np.int64)
    size = weight = draw[runs.run_row]
    if not runs.alone:
        size = np.add.reduceat(weight, runs.run_begins)
        weight = np.add.reduceat(weight * runs.run_right, runs.run_begins)
    hits = weight.cumsum(dtype=np.int64)
    if runs.many > 1:  # each list counts from 0
        lengths = np.diff(np.append(runs.first, len(seen)))
        seen = seen - np.repeat(np.append(0, seen)[runs.first], lengths)
        hits = hits - np.repeat(np.append(0, hits)[runs.first], lengths)
    harmonic = _harmonic(int(seen.max()).bit_length())
    n, p = seen - size, hits - weight
    steps = harmonic[seen] - harmonic[n]
    if runs.alone:  # all m of a run are right: the sum of (p + j) / (n + j)
        gain = weight + (p - n) * steps
    else:
        b = np.where(size > 1, (weight - 1) / np.maximum(size - 1, 1), 1.0)
        gain = weight / np.maximum(size, 1) * (b * size + (p + 1 - b * (n + 1)) * steps)
    result[runs.lists[runs.first]] = np.add.reduceat(gain, runs.first)
    return result


@lru_cache(maxsize=2)
def _harmonic(bits: int) -> np.ndarray:
    """The harmonic numbers 0 to 2 ** bits - 1."""
    return np.append(0.0, np.cumsum(1 / np.arange(1, 2**bits)))
