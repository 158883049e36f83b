"""COCO's metrics of boxes and masks, from prediction records.

    scores(records, ["cat", "dog"])  ->  {"ap": 0.41, "ap50": 0.62, ...}

A record holds the detections of one image, and its objects: {"id", "size": [height, width], "boxes": [[x1, y1, x2,
y2]], "scores", "classes": numbers of labels, "masks": run lengths (only with masks), "true": {"boxes", "classes",
"crowd", "area", "masks"}}. All values equal those of pycocotools' COCOeval on the same records: the 100 best detections
of each class in an image count, a crowd is a region in which detections count neither as right nor as wrong, and equal
scores keep the order of the rows.

Each row keeps which of its detections are right at each overlap. The scores are sums with a weight per row, so
no overlap is computed twice. A row of weight 2 counts like two equal rows that stand next to each other.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.errors import DataError, ModelError
from pipelines.metrics.statistics import Statistics, mean_of_known, plain, ratio, total

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Record = Mapping[str, Any]

METRICS = {
    "ap": "max",
    "ap50": "max",
    "ap75": "max",
    "ap_small": "max",
    "ap_medium": "max",
    "ap_large": "max",
    "ar1": "max",
    "ar10": "max",
    "ar100": "max",
    "ar_small": "max",
    "ar_medium": "max",
    "ar_large": "max",
    "f1": "max",
    "count_error": "min",
}
# precision at a recall is the highest one from there on, and the highest of noisier values is higher
LIFTED = tuple(name for name in METRICS if name.startswith("ap"))
OVERLAPS = np.linspace(0.5, 0.95, 10)  # intersection over union
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of one class in one image
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LOWS, HIGHS = (np.array(edge)[:, None] for edge in zip(*SIZES.values(), strict=True))
THRESHOLD = 0.5  # of the score, where the validation split has chosen none
BITS = 1 << np.arange(len(OVERLAPS))
EVERY = (1 << len(OVERLAPS)) - 1  # all bits


# ---- overlaps of boxes and masks ----


def box_overlaps(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4] and [m, 4] (x1, y1, x2, y2): [n, m].

    With a crowd it is the share of the found box that lies in the crowd. The steps are those of pycocotools, so that
    the results are equal to the last bit.
    """
    found_size, true_size = found[:, 2:] - found[:, :2], true[:, 2:] - true[:, :2]
    ends = np.minimum((found_size + found[:, :2])[:, None], (true_size + true[:, :2])[None])
    sides = ends - np.maximum(found[:, None, :2], true[None, :, :2])
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)
    own = found_size.prod(-1)[:, None]
    union = np.where(crowd[None], own, own + true_size.prod(-1)[None] - shared)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


def mask_tool() -> Any:
    """pycocotools.mask. Raises ModelError without the extra."""
    try:
        from pycocotools import mask
    except ImportError:
        raise ModelError("scores of masks need pycocotools: run pip install '.[detection]'") from None
    return mask


class _Image(NamedTuple):
    """Detections of an image, the best first, with at most MOST of each class; and its objects."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    places: np.ndarray
    """Where each detection is in the record."""
    true_boxes: np.ndarray
    true_classes: np.ndarray
    true_areas: np.ndarray
    crowd: np.ndarray
    overlaps: np.ndarray
    """[detections, objects]; 0 where the classes differ, unless asked otherwise."""


def _image(record: Record, masks: bool, across: bool = False, threshold: float | None = None) -> _Image:
    """Read a record. `across`: with the overlaps of different classes, too."""
    scores = np.array(record["scores"], dtype=float).reshape(-1)
    classes = np.array(record["classes"], dtype=np.int64).reshape(-1)
    boxes = np.array(record["boxes"], dtype=float).reshape(-1, 4)
    true = record["true"]
    true_boxes = np.array(true["boxes"], dtype=float).reshape(-1, 4)
    true_classes = np.array(true["classes"], dtype=np.int64).reshape(-1)
    crowd = np.array(true["crowd"], dtype=bool).reshape(-1)
    true_areas = np.array(true["area"], dtype=float).reshape(-1)
    sizes = {len(boxes), len(scores), len(classes)}, {len(true_boxes), len(true_classes), len(crowd), len(true_areas)}
    if max(map(len, sizes)) > 1:
        raise DataError(f"{record['id']}: its lists of boxes, scores and classes have different lengths")
    order = np.argsort(-scores, kind="stable")
    if len(order) > MOST:
        order = order[_ranks(classes[order]) < MOST]
    if threshold is not None:
        order = order[scores[order] >= threshold]
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    same = classes[:, None] == true_classes[None]
    if masks:
        tool = mask_tool()
        found, objects = [record["masks"][place] for place in order], true["masks"]
        areas = np.array(tool.area(found), dtype=float) if found else np.zeros(0)
        overlaps = np.zeros(same.shape)
        for label in [None] if across else np.unique(true_classes):
            mine = np.flatnonzero(classes == label) if label is not None else np.arange(len(classes))
            theirs = np.flatnonzero(true_classes == label) if label is not None else np.arange(len(true_classes))
            if len(mine) and len(theirs):
                part = tool.iou([found[i] for i in mine], [objects[i] for i in theirs], crowd[theirs].tolist())
                overlaps[np.ix_(mine, theirs)] = part
    else:
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        overlaps = box_overlaps(boxes, true_boxes, crowd)
        overlaps = overlaps if across else np.where(same, overlaps, 0.0)
    return _Image(boxes, scores, classes, areas, order, true_boxes, true_classes, true_areas, crowd, overlaps)


def _ranks(keys: np.ndarray) -> np.ndarray:
    """How many earlier entries are equal to each entry."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    first = np.searchsorted(sorted_keys, sorted_keys)
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.arange(len(keys)) - first
    return ranks


# ---- which detections are right ----


class _Match(NamedTuple):
    """Per detection and range of sizes, a bit for each overlap: [detections, sizes]."""

    right: np.ndarray
    left_out: np.ndarray
    """It counts neither as right nor as wrong: it lies in a crowd, or is of another size."""
    object: np.ndarray
    """[detections]: the object that it finds at an overlap of 0.5, of any size; -1 for none."""


def _match(image: _Image) -> _Match:
    """COCO's rule: the best detection chooses first, and takes the free object of its class that overlaps most.

    Objects that count come before those that do not. A crowd is never taken. Of equal overlaps the last one wins.
    """
    n = len(image.scores)
    right = np.zeros((n, len(SIZES)), dtype=np.int64)
    left_out = np.zeros((n, len(SIZES)), dtype=np.int64)
    chosen = np.full(n, -1)
    counts = _in_range(image.true_areas) & ~image.crowd  # [sizes, objects]
    found = np.flatnonzero((image.overlaps >= OVERLAPS[0]).any(1))
    free = np.ones((len(SIZES), len(OVERLAPS), len(image.true_classes)), dtype=bool)
    sizes, steps = np.arange(len(SIZES))[:, None], np.arange(len(OVERLAPS))[None]
    matched = np.zeros((n, len(SIZES)), dtype=np.int64)
    bonus = np.where(counts, len(image.true_classes) + 1, 1)[:, None]  # [sizes, 1, objects]
    for place in found:
        overlaps = image.overlaps[place]
        near = np.flatnonzero(overlaps >= OVERLAPS[0])
        order = np.argsort(overlaps[near], kind="stable")
        rank = np.empty(len(near), dtype=np.int64)
        rank[order] = np.arange(len(near))
        enough = overlaps[near] >= OVERLAPS[:, None]
        value = (rank + bonus[..., near]) * (free[..., near] & enough)  # 0: out of the question
        best = value.argmax(-1)
        some = np.take_along_axis(value, best[..., None], -1)[..., 0] > 0
        target = near[best]
        count = counts[sizes, target]
        free[sizes, steps, target] &= image.crowd[target] | ~some
        right[place] = ((some & count) * BITS).sum(-1)
        left_out[place] = ((some & ~count) * BITS).sum(-1)
        matched[place] = (some * BITS).sum(-1)
        if some[0, 0]:
            chosen[place] = target[0, 0]
    other_size = ~_in_range(image.areas).T  # [detections, sizes]
    left_out |= np.where(other_size, EVERY & ~matched, 0)
    return _Match(right, left_out, chosen)


def _in_range(areas: np.ndarray) -> np.ndarray:
    """[sizes, n]. The edges belong to both sides."""
    return (areas >= LOWS) & (areas <= HIGHS)


# ---- statistics ----


def statistics(
    records: Sequence[Record], labels: Sequence[str], masks: bool = False, threshold: float = THRESHOLD
) -> Statistics:
    """The columns that the scores are computed from. `threshold` of the score is that of `f1` and `count_error`.

    Per detection, padded with class -1: class, score, and for each range of sizes `right` and `left_out`, with a bit
    for each overlap. Per object, padded likewise: true_class, true_sizes (a bit for each range in which it counts).
    Per row: hits, guesses and objects at the threshold. Raises DataError, or ModelError if `masks` need an extra.
    """
    if not records:
        raise DataError("there are no predictions to score")
    if masks:
        mask_tool()
    parts = []
    for record in records:
        image = _image(record, masks)
        _check_classes(record, image, labels)
        parts.append((image, _match(image)))
    images = [image for image, _ in parts]
    columns: dict[str, np.ndarray] = {
        "class": _padded([image.classes for image in images], -1, np.int32),
        "score": _padded([image.scores for image in images], 0, np.float64),
        "true_class": _padded([image.true_classes for image in images], -1, np.int32),
        "true_sizes": _padded([_sizes_of(image) for image in images], 0, np.uint8),
    }
    for number, size in enumerate(SIZES):
        columns[f"right_{size}"] = _padded([match.right[:, number] for _, match in parts], 0, np.uint16)
        columns[f"left_out_{size}"] = _padded([match.left_out[:, number] for _, match in parts], 0, np.uint16)
    sure = (columns["score"] >= threshold) & (columns["class"] >= 0)
    columns["hits"] = (sure & (columns["right_all"] & 1 > 0)).sum(1)
    columns["guesses"] = (sure & (columns["left_out_all"] & 1 == 0)).sum(1)
    columns["objects"] = np.array([int((~image.crowd).sum()) for image in images])
    columns["classes"] = np.full(len(records), len(labels))
    return Statistics([record["id"] for record in records], columns, lifted=LIFTED)


def _check_classes(record: Record, image: _Image, labels: Sequence[str]) -> None:
    """Raise DataError for a class that is not a number of a label, or for a score that is not a number."""
    for classes in (image.classes, image.true_classes):
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(labels):
            wrong = classes.max() if classes.max() >= len(labels) else classes.min()
            raise DataError(
                f"{record['id']}: class {wrong} is not one of the model's {len(labels)}: "
                "these predictions are another model's"
            )
    if not np.isfinite(image.scores).all():
        raise DataError(f"{record['id']}: a score is not a number: bad weights, or the training diverged")


def _sizes_of(image: _Image) -> np.ndarray:
    counts = _in_range(image.true_areas) & ~image.crowd
    return np.asarray((counts * (1 << np.arange(len(SIZES)))[:, None]).sum(0))


def _padded(parts: Sequence[np.ndarray], filler: float, kind: Any) -> np.ndarray:
    lengths = np.array([len(part) for part in parts])
    table = np.full((len(parts), max(1, int(lengths.max()))), filler, dtype=kind)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate(parts)
    return table


# ---- scores ----


class _Flat(NamedTuple):
    """All detections of all rows in COCO's order: by class, the best first, equal scores in the order of the rows."""

    row: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    """The number of better detections of its class in its image."""
    right: dict[str, np.ndarray]
    left_out: dict[str, np.ndarray]
    tied: np.ndarray
    """The number of its run: neighbours of equal row, class and score."""
    classes: int
    rows: int


def _flat(statistics: Statistics) -> _Flat:
    row, column = np.nonzero(statistics["class"] >= 0)
    label, score = statistics["class"][row, column].astype(np.int64), statistics["score"][row, column]
    classes = int(statistics["classes"].max())
    rank = _ranks(row * classes + label)  # the columns of a row are sorted by score
    order = np.lexsort((row, -score, label))
    row, column, label, score = (part[order] for part in (row, column, label, score))
    new = np.append(True, (np.diff(row) != 0) | (np.diff(label) != 0) | (np.diff(score) != 0))[: len(row)]
    right, left_out = (
        {size: statistics[f"{name}_{size}"][row, column] for size in SIZES} for name in ("right", "left_out")
    )
    return _Flat(row, label, rank[order], right, left_out, np.cumsum(new), classes, len(statistics.ids))


def _sum_table(line: np.ndarray, row: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> "csr_array":
    """A sparse table [lines, rows]: its product with weights [rows, draws] sums the values of each line."""
    from scipy.sparse import coo_array

    return coo_array((values.astype(float), (line, row)), shape=shape).tocsr()


def _repeated(flat: _Flat, useful: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the detections in their order with rows that count several times: (places, number of the copy).

    Two equal rows next to each other have their detections one row after the other. This matters only for a run of
    equal scores in one row that holds right and wrong ones, for there the order right, wrong, right, wrong is not that
    of right, right, wrong, wrong. So these runs are written out, a copy for each time that the row may count.
    A number of -1 stands for all copies at once.
    """
    n = len(flat.row)
    length = np.bincount(flat.tied, minlength=n + 1)
    helpful = np.bincount(flat.tied, useful, minlength=n + 1) > 0
    runs = (length > 1) & helpful
    runs[0] = False
    split = runs[flat.tied]
    if most < 2 or not split.any():
        return np.arange(n), np.full(n, -1)
    again = np.flatnonzero(split)
    places = np.concatenate([np.flatnonzero(~split), np.tile(again, most)])
    copies = np.concatenate([np.full(n - len(again), -1), np.repeat(np.arange(most), len(again))])
    order = np.lexsort((places, copies, flat.tied[places]))
    return places[order], copies[order]


def _precision(flat: _Flat, weights: np.ndarray, size: str, steps: Sequence[int], objects: np.ndarray) -> np.ndarray:
    """Average precision of each class: [steps, classes, draws], with weights [rows, draws].

    `objects` is the number of objects [classes, draws]; without any, the precision is NaN.

    The highest precision at a recall or above lies at a right detection, so only these are looked at. Each is one line
    of a sparse table, which holds the detections that count since the right one before it.
    """
    right, left_out = flat.right[size], flat.left_out[size]
    most = int(np.ceil(weights.max(initial=1)))
    places, copies = _repeated(flat, right > 0, most)
    row, label, right, left_out = flat.row[places], flat.label[places], right[places], left_out[places]
    if (copies >= 0).any():
        weights = np.concatenate([weights, *(np.clip(weights - copy, 0, 1) for copy in range(most))])
        row = row + flat.rows * (copies + 1)
    found = np.zeros((len(steps), flat.classes, weights.shape[1]))
    for number, step in enumerate(steps):
        keep = (left_out >> step) & 1 == 0
        hit, where, of = ((right[keep] >> step) & 1).astype(bool), row[keep], label[keep]
        ends = np.flatnonzero(hit)
        if not len(ends):
            continue
        line = np.searchsorted(ends, np.arange(len(hit)))
        line[line == len(ends)] = 0  # after the last one
        used = (np.arange(len(hit)) <= ends[-1]) & (of == of[ends[line]])  # what follows the last of a class is no use
        table = _sum_table(line[used], where[used], np.ones(int(used.sum())), (len(ends), len(weights)))
        seen, hits = table @ weights, weights[where[ends]]
        starts = np.searchsorted(of[ends], np.arange(flat.classes + 1))
        for label_, (start, end) in enumerate(itertools.pairwise(starts)):
            if start < end:
                found[number, label_] = _area(hits[start:end], seen[start:end], objects[label_])
    return np.where(objects > 0, found, np.nan)


def _area(hits: np.ndarray, seen: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """COCO's average precision over 101 recalls from the weights at the right detections: [right, draws] -> [draws]."""
    right = hits.cumsum(0)
    precision = right / np.maximum(seen.cumsum(0), np.finfo(float).tiny)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = np.minimum(right / np.maximum(objects, np.finfo(float).tiny), 1)
    near = np.rint(recall * 100).astype(np.int64)
    reached = near + (RECALLS[near] <= recall)  # the number of recalls that are reached
    new = np.diff(reached, axis=0, prepend=0)
    return np.asarray((best * new).sum(0) / len(RECALLS))


def _objects(statistics: Statistics, classes: int, size: str) -> "csr_array":
    """The number of objects that count: [classes, rows]."""
    row, column = np.nonzero(statistics["true_class"] >= 0)
    counts = (statistics["true_sizes"][row, column] >> list(SIZES).index(size)) & 1
    label = statistics["true_class"][row, column].astype(np.int64)
    return _sum_table(label, row, counts, (classes, len(statistics.ids)))


def _recall(flat: _Flat, weights: np.ndarray, size: str, most: int, objects: np.ndarray) -> np.ndarray:
    """The mean recall of each class over all overlaps, with `most` detections of a class in an image."""
    keep = flat.rank < most
    right = np.bitwise_count(flat.right[size][keep])
    table = _sum_table(flat.label[keep], flat.row[keep], right, (flat.classes, flat.rows))
    return ratio(table @ weights, len(OVERLAPS) * objects)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """All metrics, as fractions. A higher value is better, except for `count_error`.

      ap, ap50, ap75                    average precision, mean over classes: over ten overlaps, at 0.5, at 0.75
      ap_small, ap_medium, ap_large     of objects below 32, from 32 to 96, and above 96 pixels a side (by area)
      ar1, ar10, ar100                  recall with so many detections of a class in an image, mean over ten overlaps
      ar_small, ar_medium, ar_large     recall by size
      f1                                of all detections at the threshold, at an overlap of 0.5
      count_error                       mean difference of the number of detections at the threshold and of objects

    A metric is NaN if there is no object of its kind (COCOeval has -1). `weights` [rows], or [draws, rows] for arrays
    [draws].
    """
    flat, lines = _flat(statistics), np.ascontiguousarray(np.atleast_2d(weights).T.astype(float))
    found: dict[str, np.ndarray] = {}
    counted = {size: _objects(statistics, flat.classes, size) @ lines for size in SIZES}
    for size in SIZES:
        area = _precision(flat, lines, size, range(len(OVERLAPS)), counted[size])
        found["ap" if size == "all" else f"ap_{size}"] = _mean(area.reshape(-1, area.shape[-1]))
        if size == "all":
            found |= {"ap50": _mean(area[0]), "ap75": _mean(area[5])}
    for most in (1, 10, MOST):
        found[f"ar{most}"] = _mean(_recall(flat, lines, "all", most, counted["all"]))
    for size in list(SIZES)[1:]:
        found[f"ar_{size}"] = _mean(_recall(flat, lines, size, MOST, counted[size]))
    hits, guesses, objects = (total(weights, statistics[name]) for name in ("hits", "guesses", "objects"))
    error = total(weights, np.abs(statistics["guesses"] - statistics["objects"]))
    shaped = {name: value if np.ndim(weights) == 2 else value[0] for name, value in found.items()}
    shaped |= {"f1": ratio(2 * hits, guesses + objects), "count_error": ratio(error, total(weights))}
    return plain({name: shaped[name] for name in METRICS})


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over classes [classes, draws]; NaN without a class that has objects."""
    return np.where((~np.isnan(values)).any(0), mean_of_known(values.T), np.nan)


def scores(
    records: Sequence[Record], labels: Sequence[str], masks: bool = False, threshold: float = THRESHOLD
) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records, labels, masks, threshold)
    return summarize(found, found.ones())


def per_class(
    records: Sequence[Record], labels: Sequence[str], masks: bool = False, threshold: float = THRESHOLD
) -> list[dict[str, Any]]:
    """One row per label: label, n (objects), ap, ap50, ar100, precision, recall, f1 (these at the threshold).

    A value is None if it is undefined.
    """
    found = statistics(records, labels, masks, threshold)
    flat, lines = _flat(found), np.ones((len(found.ids), 1))
    n = _objects(found, flat.classes, "all") @ lines
    area = _precision(flat, lines, "all", range(len(OVERLAPS)), n)[..., 0]
    row, column = np.nonzero((found["class"] >= 0) & (found["score"] >= threshold))
    label = found["class"][row, column]
    hits = np.bincount(label, found["right_all"][row, column] & 1, len(labels))
    guesses = np.bincount(label, found["left_out_all"][row, column] & 1 == 0, len(labels))
    table = {
        "ap": area.mean(0),
        "ap50": area[0],
        "ar100": _recall(flat, lines, "all", MOST, n)[:, 0],
        "precision": ratio(hits, guesses),
        "recall": ratio(hits, n[:, 0]),
        "f1": ratio(2 * hits, guesses + n[:, 0]),
    }
    return [
        {
            "label": name,
            "n": int(n[i, 0]),
            **{key: None if np.isnan(value[i]) else float(value[i]) for key, value in table.items()},
        }
        for i, name in enumerate(labels)
    ]


def curves(records: Sequence[Record], labels: Sequence[str], masks: bool = False) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of all classes together at each distinct score, the highest first; overlap 0.5.

    Keys: score, precision, recall, f1.
    """
    found = statistics(records, labels, masks)
    keep = (found["class"] >= 0) & (found["left_out_all"] & 1 == 0)
    score, hit = found["score"][keep], found["right_all"][keep] & 1
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], hit[order].cumsum(dtype=np.int64)
    ends = np.flatnonzero(np.append(np.diff(score) != 0, True)[: len(score)])
    seen, right, objects = ends + 1, hits[ends], int(found["objects"].sum())
    return {
        "score": score[ends],
        "precision": right / seen,
        "recall": right / max(objects, 1),
        "f1": 2 * right / (seen + objects),
    }


def best_threshold(records: Sequence[Record], labels: Sequence[str], masks: bool = False) -> float:
    """The threshold of the score with the highest F1 of all classes together; 0.5 if no detection is right.

    It lies in the middle between two scores, so that rounding does not matter.
    """
    found = curves(records, labels, masks)
    if not found["f1"].any():
        return THRESHOLD
    best = int(found["f1"].argmax())
    lower = found["score"][best + 1] if best + 1 < len(found["score"]) else 0.0
    return float((found["score"][best] + lower) / 2)


def confusion(
    records: Sequence[Record], labels: Sequence[str], masks: bool = False, threshold: float = THRESHOLD
) -> np.ndarray:
    """Counts [true, predicted], both in the order of `labels`, with the background last.

    Pairs of any classes are formed by their overlap, from 0.5, the highest first. Objects without a detection are taken
    for background, detections without an object are background taken for objects. Those in a crowd do not count.
    """
    matrix = np.zeros((len(labels) + 1, len(labels) + 1), dtype=np.int64)
    for record in records:
        image = _image(record, masks, across=True, threshold=threshold)
        _check_classes(record, image, labels)
        free, unfound = np.ones(len(image.classes), dtype=bool), ~image.crowd
        pairs = np.argwhere((image.overlaps >= OVERLAPS[0]) & ~image.crowd)
        for found, true in pairs[np.argsort(-image.overlaps[tuple(pairs.T)], kind="stable")]:
            if free[found] and unfound[true]:
                matrix[image.true_classes[true], image.classes[found]] += 1
                free[found] = unfound[true] = False
        in_crowd = (image.overlaps[:, image.crowd] >= OVERLAPS[0]).any(1)
        np.add.at(matrix, (image.true_classes[unfound], len(labels)), 1)
        np.add.at(matrix, (len(labels), image.classes[free & ~in_crowd]), 1)
    return matrix


class Judged(NamedTuple):
    """The detections of a record from a threshold on: places in its lists."""

    right: list[int]
    wrong: list[int]
    missed: list[int]
    """Places in the lists of `true`."""


def judge(record: Record, masks: bool = False, threshold: float = THRESHOLD) -> Judged:
    """Which detections are right at an overlap of 0.5, which are wrong, and which objects are missed."""
    image = _image(record, masks, threshold=threshold)
    match = _match(image)
    right, out = match.right[:, 0] & 1 > 0, match.left_out[:, 0] & 1 > 0
    found = set(match.object[right].tolist())
    missed = [place for place in np.flatnonzero(~image.crowd).tolist() if place not in found]
    return Judged(image.places[right].tolist(), image.places[~right & ~out].tolist(), missed)
