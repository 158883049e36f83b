"""Metrics of segmentation: mean IoU, Dice, boundaries, objects, panoptic quality; from prediction records.

    one = {"id": "a", **record(predicted, true, classes=3)}   two label maps -> plain counts
    scores([one, ...], ["sky", "road", "car"])                ->  {"mean_iou": 0.61, ...}

`record` reads the maps of one image and keeps only counts. Every score is a ratio of sums of these counts, or a mean of
such ratios, with a weight for each row. So 1,000 resamples are a few products of matrices, and the maps are read once.

Where the truth is IGNORE, no pixel counts, whatever is predicted there. IGNORE in a prediction means no class: the
pixel is wrong, but no class has predicted it.

Boundary F1 is that of Csurka, Larlus and Perronnin 2013, "What is a good evaluation measure for semantic segmentation?"
A boundary pixel of a class has a neighbour of another class (left, right, above or below). The edge of the image and
ignored pixels form no boundary. Precision is the share of predicted boundary pixels with a true one of the same class
within 0.75 % of the image's diagonal; recall the share of the true ones with a predicted one. F1 is averaged over the
classes that have a boundary in truth or prediction of an image, then over images.

Panoptic quality is that of Kirillov et al. 2019, "Panoptic Segmentation", with the rules of panopticapi for unlabelled
pixels and crowds.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import DataError
from pipelines.metrics.statistics import Proportion, Statistics, mean_of_known, plain, ratio, total

Record = Mapping[str, Any]

ANY_CLASSES = {
    "mean_iou": "max",
    "pixel_accuracy": "max",
    "mean_accuracy": "max",
    "frequency_weighted_iou": "max",
    "dice": "max",
    "dice_per_image": "max",
    "boundary_f1": "max",
}
TWO_CLASSES = {
    "foreground_iou": "max",
    "foreground_dice": "max",
    "foreground_precision": "max",
    "foreground_recall": "max",
    "object_precision": "max",
    "object_recall": "max",
    "object_f1": "max",
    "count_error": "min",
}
PANOPTIC = {"panoptic_quality": "max", "segmentation_quality": "max", "recognition_quality": "max"}
KINDS = {"panoptic_quality_things": "max", "panoptic_quality_stuff": "max"}
METRICS = {**ANY_CLASSES, **TWO_CLASSES, **PANOPTIC, **KINDS}

IGNORE = -1  # in a label map, as in pipelines.data.image.label_maps
TOLERANCE = 0.0075  # of the image's diagonal
STRIP = 1 << 20  # pixels that are counted at a time
MATCHED = 0.5  # objects and segments match above this overlap, so that each one has at most one partner
BACKGROUNDS = {"background", "bg", "other", "others", "none", "nothing", "rest", "unlabeled", "unlabelled", "void"}


def metrics_of(classes: int, panoptic: bool = False, kinds: bool = False) -> dict[str, str]:
    """The metrics that `summarize` gives, with their directions.

    `kinds`: whether things and stuff are known.
    """
    found = dict(ANY_CLASSES)
    if classes == 2:
        found |= TWO_CLASSES
    if panoptic:
        found |= PANOPTIC | (KINDS if kinds else {})
    return found


# ---- one image ----


def record(predicted: np.ndarray, true: np.ndarray, classes: int) -> dict[str, Any]:
    """The counts of one image from label maps [height, width]: plain lists for a record. Raises DataError.

    confusion    [[true, predicted, pixels]]: the pairs that occur
    boundaries   [[class, predicted, right, true, found]]: boundary pixels of each class that has some
    objects      [[class, predicted, true, matched]]: connected regions; only for two classes
    """
    if predicted.shape != true.shape or true.ndim != 2:
        raise DataError(f"a prediction of {_size(predicted)} pixels does not fit a label map of {_size(true)}")
    for name, label_map in (("the prediction", predicted), ("the truth", true)):
        if label_map.size and not IGNORE <= int(label_map.min()) <= int(label_map.max()) < classes:
            wrong = label_map.max() if label_map.max() >= classes else label_map.min()
            raise DataError(f"{name} has class {wrong}: the classes are 0 to {classes - 1}, and {IGNORE} is ignored")
    ignored = true == IGNORE
    if ignored.any():
        predicted = np.where(ignored, np.int16(IGNORE), predicted)
    found: dict[str, Any] = {
        "confusion": confusion_of(predicted, true, classes),
        "boundaries": _boundaries(predicted, true, classes),
    }
    if classes == 2:
        found["objects"] = [[label, *_objects(predicted == label, true == label)] for label in range(2)]
    return found


def _size(label_map: np.ndarray) -> str:
    return "x".join(map(str, label_map.shape))


def _strips(*maps: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The same lines of all maps, with at most STRIP pixels at a time: wider numbers of all pixels need much memory."""
    height, width = maps[0].shape
    lines = max(1, STRIP // max(1, width))
    for start in range(0, height, lines):
        yield tuple(one[start : start + lines] for one in maps)


def confusion_of(predicted: np.ndarray, true: np.ndarray, classes: int) -> list[list[int]]:
    side = classes + 1  # class -1 is the first
    pixels = np.zeros(side * side, dtype=np.int64)
    for guesses, labels in _strips(predicted, true):
        pairs = (labels.astype(np.int64) - IGNORE) * side + (guesses - IGNORE)
        pixels += np.bincount(pairs.ravel(), minlength=side * side)
    places = np.flatnonzero(pixels)
    places = places[places >= side]  # not where the truth is ignored
    table = np.stack([places // side + IGNORE, places % side + IGNORE, pixels[places]], 1)
    return [[int(value) for value in line] for line in table]


def _boundaries(predicted: np.ndarray, true: np.ndarray, classes: int) -> list[list[int]]:
    """One search for the nearest point serves all classes: the class is a third coordinate, far from the others.

    A distance transform of each class takes several times as long. Lines are read in strips, which bounds the memory.
    """
    height, width = true.shape
    reach = TOLERANCE * float(np.hypot(height, width))
    around = math.ceil(reach) + 1  # lines in which a partner can be; the outermost line lacks its neighbours
    lines = max(4 * around, STRIP // max(1, width))
    table = np.zeros((classes, 4), dtype=np.int64)
    for start in range(0, height, lines):
        first = max(0, start - around)
        guesses, points = (_edge_points(one[first : start + lines + around]) for one in (predicted, true))
        for place, (some, others) in ((0, (guesses, points)), (2, (points, guesses))):
            row = some[:, 0] + first
            own = some[(row >= start) & (row < start + lines)]
            table[:, place] += np.bincount(own[:, 2], minlength=classes)
            table[:, place + 1] += np.bincount(own[_near(own, others, reach), 2], minlength=classes)
    return [[int(label), *map(int, table[label])] for label in np.flatnonzero(table.any(1))]


def _edge_points(label_map: np.ndarray) -> np.ndarray:
    """The boundary pixels of all classes: [n, (row, column, class)]."""
    edge, counts = np.zeros(label_map.shape, dtype=bool), label_map != IGNORE
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = (label_map[before] != label_map[after]) & counts[before] & counts[after]
        edge[before] |= differs
        edge[after] |= differs
    return np.stack([*np.nonzero(edge), label_map[edge].astype(np.int64)], 1)


def _near(points: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """Whether each point has one of the others of its class within reach: [n] of bool."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return np.zeros(len(points), dtype=bool)
    span = np.array([1, 1, 2 * reach + 2])
    tree = cKDTree(others * span, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(points * span, distance_upper_bound=reach + 1e-9)  # the bound itself is excluded
    return np.asarray(np.isfinite(distances))


def _objects(predicted: np.ndarray, true: np.ndarray) -> tuple[int, int, int]:
    """Connected regions (also across corners): how many are predicted, how many are true, how many pairs match."""
    from scipy import ndimage

    corners = np.ones((3, 3), dtype=bool)
    guesses, guessed = ndimage.label(predicted, corners)
    regions, count = ndimage.label(true, corners)
    pairs, shared = _shared(guesses, regions)
    both = (pairs > 0).all(1)
    areas = [np.bincount(of, shared) for of in pairs.T]
    union = areas[0][pairs[both, 0]] + areas[1][pairs[both, 1]] - shared[both]
    return int(guessed), int(count), int((shared[both] > MATCHED * union).sum())


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of numbers at the same pixels [n, 2], and the pixels of each pair [n]."""
    sides = int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1
    parts, counts = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for one, other in _strips(first, second):
        pairs = one.astype(np.int64).ravel() * sides[1] + other.ravel()
        if sides[0] * sides[1] <= STRIP:  # counting is faster than sorting
            pixels = np.bincount(pairs)
            parts.append(np.flatnonzero(pixels))
            counts.append(pixels[parts[-1]])
        else:
            found, pixels = np.unique(pairs, return_counts=True)
            parts.append(found)
            counts.append(pixels)
    keys, places = np.unique(np.concatenate(parts), return_inverse=True)
    pixels = np.bincount(places, np.concatenate(counts), len(keys)).astype(np.int64)
    return np.stack([keys // sides[1], keys % sides[1]], 1), pixels


def panoptic_record(
    predicted: np.ndarray,
    predicted_kinds: Sequence[int] | np.ndarray,
    true: np.ndarray,
    true_kinds: Sequence[int] | np.ndarray,
    crowds: Collection[int] = (),
) -> dict[str, Any]:
    """The counts of one image from maps of segment numbers [height, width], in which 0 is no segment.

    `kinds` hold the class of segment 1, 2, ...; a segment of the class IGNORE is no segment. `crowds` are the numbers
    of true segments that show several objects: they are never missed, and a prediction of their class that lies mostly
    in them is not wrong. The same is true of a prediction that lies mostly where the truth has no segment.

    segments   [[class, sum of the overlaps, matched, wrong, missed]]: of each class that has some
    """
    if predicted.shape != true.shape:
        raise DataError(f"a prediction of {_size(predicted)} pixels does not fit a map of {_size(true)}")
    guessed, kinds = (np.array([IGNORE, *of], dtype=np.int64) for of in (predicted_kinds, true_kinds))
    for name, segments, of in (("the prediction", predicted, guessed), ("the truth", true, kinds)):
        if segments.size and not 0 <= int(segments.min()) <= int(segments.max()) < len(of):
            raise DataError(f"{name} has segment {segments.max()}, but only {len(of) - 1} segments have a class")
    pairs, pixels = _shared(true, predicted)
    area, guess_area = (
        np.bincount(of.ravel(), minlength=len(kind)) for of, kind in ((true, kinds), (predicted, guessed))
    )
    crowd = np.isin(np.arange(len(kinds)), list(crowds)) & (kinds != IGNORE)
    void = kinds == IGNORE
    excused = np.zeros(len(guessed), dtype=np.int64)  # pixels of each prediction that lie where there is no segment
    in_crowd = np.zeros(len(guessed), dtype=np.int64)
    for (segment, guess), shared in zip(pairs, pixels, strict=True):
        excused[guess] += shared * int(void[segment])
        in_crowd[guess] += shared * int(crowd[segment] and kinds[segment] == guessed[guess])
    counts: dict[int, list[float]] = {}
    matched, found = np.zeros(len(kinds), dtype=bool), np.zeros(len(guessed), dtype=bool)
    for (segment, guess), shared in zip(pairs.tolist(), pixels.tolist(), strict=True):
        if void[segment] or crowd[segment] or kinds[segment] != guessed[guess]:
            continue
        union = int(area[segment] + guess_area[guess] - shared - excused[guess])
        if shared > MATCHED * union:
            matched[segment] = found[guess] = True
            _add(counts, kinds[segment], shared / union, 1, 0, 0)
    for segment in np.flatnonzero((area > 0) & ~void & ~crowd & ~matched):
        _add(counts, kinds[segment], 0, 0, 0, 1)
    for guess in np.flatnonzero((guess_area > 0) & (guessed != IGNORE) & ~found):
        if excused[guess] + in_crowd[guess] <= 0.5 * guess_area[guess]:
            _add(counts, guessed[guess], 0, 0, 1, 0)
    return {"segments": [[label, *counts[label]] for label in sorted(counts)]}


def _add(counts: dict[int, list[float]], label: np.integer[Any], *more: float) -> None:
    before = counts.get(int(label), [0.0, 0, 0, 0])
    counts[int(label)] = [one + other for one, other in zip(before, more, strict=True)]


# ---- statistics ----


def is_background(label: str) -> bool:
    """Whether a label is a name for what is no object: background, other, none, ..."""
    return label.strip().casefold() in BACKGROUNDS


def foreground(labels: Sequence[str], pixels: Sequence[float] | np.ndarray) -> int:
    """Which of two classes is the foreground: the number of its label.

    If one of the two is named background (or other, none, ...), it is the other one. Otherwise it is the class with
    fewer true `pixels`; with equally many it is the second.
    """
    named = [is_background(label) for label in labels]
    if named[0] != named[1]:
        return int(named[0])
    return int(pixels[1] <= pixels[0])


def statistics(records: Sequence[Record], labels: Sequence[str], things: Collection[str] | None = None) -> Statistics:
    """The columns that the scores are computed from. Raises DataError.

    Per row and class: shared, predicted and true pixels. Per row: the mean of Dice and of boundary F1 over the classes
    of the image, and whether there is one. For two classes also the objects of the foreground; for panoptic records
    the sums of their segments by class. `things` are the labels of countable objects, if they are known.
    """
    if not records:
        raise DataError("there are no predictions to score")
    shared, predicted, true = _pixels(records, len(labels))
    columns: dict[str, np.ndarray] = {"shared": shared, "predicted": predicted, "true": true}
    columns |= _means("dice", ratio(2 * shared, predicted + true))
    columns |= _means("boundary", _boundary_f1(_boundary_counts(records, len(labels))))
    proportions = {}
    if len(labels) == 2:
        label = foreground(labels, true.sum(0))
        of = np.array([record["objects"][label] for record in records])
        columns["foreground"] = np.full(len(records), label)
        columns |= {f"objects_{name}": of[:, place] for place, name in enumerate(("predicted", "true", "matched"), 1)}
        proportions = {
            "object_precision": Proportion("objects_matched", "objects_predicted"),
            "object_recall": Proportion("objects_matched", "objects_true"),
        }
    if all("segments" in record for record in records):
        table = _table(records, "segments", len(labels), 4)
        names = ("overlap", "matched", "wrong", "missed")
        columns |= {f"segments_{name}": table[:, :, place] for place, name in enumerate(names)}
        if things is not None:
            columns["thing"] = np.tile([label in things for label in labels], (len(records), 1))
    return Statistics([record["id"] for record in records], columns, proportions)


def _columns(record: Record, name: str, width: int) -> np.ndarray:
    """The lists of a field as columns: [width, n]."""
    return np.fromiter(itertools.chain.from_iterable(record[name]), dtype=float).reshape(-1, width).T


def _labels(record: Record, labels: np.ndarray, classes: int, lowest: int = 0) -> np.ndarray:
    """The class numbers as whole numbers. Raises DataError for one that is not a number of a label."""
    found = labels.astype(np.int64)
    if len(found) and not lowest <= found.min() <= found.max() < classes:
        wrong = found.max() if found.max() >= classes else found.min()
        raise DataError(
            f"{record['id']}: class {wrong} is not one of the model's {classes}: these predictions are another model's"
        )
    return found


def _table(records: Sequence[Record], name: str, classes: int, width: int) -> np.ndarray:
    """The counts of a field whose lists begin with a class: [rows, classes, width]."""
    table = np.zeros((len(records), classes, width))
    for row, record in enumerate(records):
        columns = _columns(record, name, width + 1)
        table[row, _labels(record, columns[0], classes)] = columns[1:].T
    return table


def _pairs(record: Record, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a record: true class, predicted class (or IGNORE), pixels."""
    true, predicted, pixels = _columns(record, "confusion", 3)
    return _labels(record, true, classes), _labels(record, predicted, classes, IGNORE), pixels


def _pixels(records: Sequence[Record], classes: int) -> np.ndarray:
    """Shared, predicted and true pixels of each row and class: [3, rows, classes]."""
    table = np.zeros((3, len(records), classes))
    for row, record in enumerate(records):
        true, predicted, pixels = _pairs(record, classes)
        table[0, row] = np.bincount(true, pixels * (true == predicted), classes)
        table[1, row] = np.bincount(predicted - IGNORE, pixels, classes + 1)[1:]
        table[2, row] = np.bincount(true, pixels, classes)
    return table


def _boundary_counts(records: Sequence[Record], classes: int) -> np.ndarray:
    return _table(records, "boundaries", classes, 4)


def _boundary_f1(counts: np.ndarray) -> np.ndarray:
    """F1 [rows, classes] from counts [rows, classes, 4]; NaN without a boundary in truth and prediction."""
    predicted, right, true, found = np.moveaxis(counts, -1, 0)
    precision, recall = right / np.maximum(predicted, 1), found / np.maximum(true, 1)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where(predicted + true > 0, f1, np.nan)


def _means(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The mean over the known classes of each row, and whether there is one, as columns."""
    return {name: mean_of_known(values), f"{name}_known": (~np.isnan(values)).any(1)}


# ---- scores ----


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """The metrics (`metrics_of`), as fractions. A higher value is better, except for `count_error`.

      mean_iou                 intersection over union, mean over classes, from the pixels of all images together;
                               a class that is neither in the truth nor in the prediction does not count
      pixel_accuracy           the share of right pixels
      mean_accuracy            the share of right pixels of each class, mean over classes
      frequency_weighted_iou   IoU, mean over classes weighted by their true pixels
      dice                     Dice (F1 of pixels) of all images together, mean over classes
      dice_per_image           Dice of each image, mean over its classes, then over images
      boundary_f1              F1 of boundary pixels of each image, mean over its classes, then over images

    For two classes, of the foreground (`foreground`), from the pixels of all images together:

      foreground_iou, foreground_dice, foreground_precision, foreground_recall
      object_precision, object_recall, object_f1   of connected regions, which match above an overlap of 0.5
      count_error                                  mean difference of the numbers of predicted and true regions

    For panoptic records, mean over classes; the last two over things and over stuff:

      panoptic_quality = sum of overlaps / (matched + wrong / 2 + missed / 2), segmentation_quality = the overlap of
      matched segments, recognition_quality = their F1; panoptic_quality_things, panoptic_quality_stuff

    A metric is NaN if nothing counts for it. `weights` [rows], or [draws, rows] for arrays [draws].
    """
    shared, predicted, true = (total(weights, statistics[name]) for name in ("shared", "predicted", "true"))
    iou, dice = ratio(shared, predicted + true - shared), ratio(2 * shared, predicted + true)
    found = {
        "mean_iou": _mean(iou),
        "pixel_accuracy": ratio(shared.sum(-1), true.sum(-1)),
        "mean_accuracy": _mean(ratio(shared, true)),
        "frequency_weighted_iou": ratio((true * np.nan_to_num(iou)).sum(-1), true.sum(-1)),
        "dice": _mean(dice),
        "dice_per_image": _mean_of_rows(statistics, weights, "dice"),
        "boundary_f1": _mean_of_rows(statistics, weights, "boundary"),
    }
    if "foreground" in statistics:
        label = int(statistics["foreground"][0])
        guesses, objects, matched = (
            total(weights, statistics[f"objects_{name}"]) for name in ("predicted", "true", "matched")
        )
        error = np.abs(statistics["objects_predicted"] - statistics["objects_true"])
        found |= {
            "foreground_iou": iou[..., label],
            "foreground_dice": dice[..., label],
            "foreground_precision": ratio(shared, predicted)[..., label],
            "foreground_recall": ratio(shared, true)[..., label],
            "object_precision": ratio(matched, guesses),
            "object_recall": ratio(matched, objects),
            "object_f1": ratio(2 * matched, guesses + objects),
            "count_error": ratio(total(weights, error), total(weights)),
        }
    if "segments_matched" in statistics:
        quality, overlap, recognition = _qualities(statistics, weights)
        found |= {
            "panoptic_quality": _mean(quality),
            "segmentation_quality": _mean(overlap),
            "recognition_quality": _mean(recognition),
        }
        if "thing" in statistics:
            thing = statistics["thing"][0]
            found["panoptic_quality_things"] = _mean(quality[..., thing])
            found["panoptic_quality_stuff"] = _mean(quality[..., ~thing])
    return plain(found)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of the values that are not NaN; NaN if all are."""
    return np.where((~np.isnan(values)).any(-1), mean_of_known(values), np.nan)


def _mean_of_rows(statistics: Statistics, weights: np.ndarray, name: str) -> np.ndarray:
    return ratio(total(weights, statistics[name]), total(weights, statistics[f"{name}_known"]))


def _qualities(statistics: Statistics, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Panoptic, segmentation and recognition quality of each class [..., classes]; NaN for a class without segments.

    As in panopticapi, the segmentation quality of a class without a match is 0.
    """
    names = ("overlap", "matched", "wrong", "missed")
    overlap, matched, wrong, missed = (total(weights, statistics[f"segments_{name}"]) for name in names)
    all_of = matched + wrong / 2 + missed / 2
    mean_overlap = np.where(all_of > 0, np.nan_to_num(ratio(overlap, matched)), np.nan)
    return ratio(overlap, all_of), mean_overlap, ratio(matched, all_of)


def scores(records: Sequence[Record], labels: Sequence[str], things: Collection[str] | None = None) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records, labels, things)
    return summarize(found, found.ones())


# ---- tables ----


def per_class(records: Sequence[Record], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row per label: label, iou, dice, precision, recall, boundary_f1, pixels, images; panoptic_quality.

    `pixels` and `images` are those of the truth. Boundary F1 is a mean over images, the rest is of all images together.
    The last value is only there for panoptic records. A value is None if it is undefined.
    """
    found = statistics(records, labels)
    shared, predicted, true = (found[name].sum(0) for name in ("shared", "predicted", "true"))
    boundary = _boundary_f1(_boundary_counts(records, len(labels)))
    table = {
        "iou": ratio(shared, predicted + true - shared),
        "dice": ratio(2 * shared, predicted + true),
        "precision": ratio(shared, predicted),
        "recall": ratio(shared, true),
        "boundary_f1": _mean(boundary.T),
    }
    if "segments_matched" in found:
        table["panoptic_quality"] = _qualities(found, found.ones())[0]
    return [
        {
            "label": label,
            **{key: None if np.isnan(value[place]) else float(value[place]) for key, value in table.items()},
            "pixels": int(true[place]),
            "images": int((found["true"][:, place] > 0).sum()),
        }
        for place, label in enumerate(labels)
    ]


def confusion(records: Sequence[Record], labels: Sequence[str]) -> np.ndarray:
    """Pixels [true, predicted] of all images together, both in the order of `labels`."""
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for record in records:
        true, predicted, pixels = _pairs(record, len(labels))
        keep = predicted != IGNORE
        np.add.at(matrix, (true[keep], predicted[keep]), pixels[keep].astype(np.int64))
    return matrix


def image_scores(record: Record) -> tuple[float, float]:
    """The mean IoU of one image over its classes, and the share of wrong pixels. NaN if no pixel counts."""
    classes = 1 + max((max(line[:2]) for line in record["confusion"]), default=0)
    shared, predicted, true = (of[0] for of in _pixels([record], classes))
    return float(_mean(ratio(shared, predicted + true - shared))), float(1 - ratio(shared.sum(), true.sum()))
