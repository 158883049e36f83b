"""Metrics of segmentation against implementations that share no code: loops, scikit-learn, scikit-image, torchmetrics.

The made-up cases hold absent classes, ignored pixels, ignored and empty images, and a single class.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from pipelines.data.image import label_maps
from pipelines.errors import DataError
from pipelines.metrics import segmentation
from pipelines.metrics.intervals import resampled
from pipelines.metrics.segmentation import panoptic_record, record, statistics, summarize

IGNORE = -1
Pair = tuple[np.ndarray, np.ndarray]


def names(classes: int) -> list[str]:
    return ["background", *(f"class {number}" for number in range(1, classes))]


def made_up(seed: int) -> tuple[list[Pair], int]:
    """Label maps (predicted, true) of a few images, and the number of classes."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([1, 2, 2, 3, 6]))
    used = classes if rng.random() < 0.6 else max(1, classes - 1)  # the last class may occur nowhere
    pairs = []
    for _ in range(int(rng.integers(1, 5))):
        height, width = (int(side) for side in rng.integers(5, 24, 2))
        if rng.random() < 0.06:
            height = 0
        # blocks, so that there are regions and straight boundaries
        blocks = rng.integers(0, used, (height // 4 + 1, width // 4 + 1))
        true = np.kron(blocks, np.ones((4, 4), dtype=int))[:height, :width]
        predicted = np.roll(true, tuple(rng.integers(-1, 2, 2)), (0, 1))
        noise = rng.random(true.shape) < rng.choice([0, 0.1, 0.9])
        predicted = np.where(noise, rng.integers(0, used, true.shape), predicted)
        true = np.where(rng.random(true.shape) < rng.choice([0, 0.15]), IGNORE, true)
        if rng.random() < 0.1:
            true[:] = IGNORE
        pairs.append((predicted.astype(np.int16), true.astype(np.int16)))
    return pairs, classes


def recorded(pairs: list[Pair], classes: int) -> list[dict[str, Any]]:
    return [{"id": f"{n:04}", **record(*pair, classes)} for n, pair in enumerate(pairs)]


def same(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_ignored_is_the_same_number_as_in_label_maps() -> None:
    assert segmentation.IGNORE == label_maps.IGNORE == IGNORE


# ---- the same scores by plain loops ----


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def counted(pair: Pair) -> list[tuple[int, int]]:
    """(true, predicted) of the pixels that count."""
    return [(int(t), int(p)) for p, t in zip(pair[0].flat, pair[1].flat, strict=True) if t != IGNORE]


def by_loops(pairs: list[Pair], classes: int) -> dict[str, float]:
    pixels = [counted(pair) for pair in pairs]
    every = [pixel for image in pixels for pixel in image]

    def dices(of: list[tuple[int, int]]) -> list[float]:
        found = []
        for label in range(classes):
            both = sum(t == label and p == label for t, p in of)
            sizes = sum(t == label for t, _ in of) + sum(p == label for _, p in of)
            if sizes:
                found.append(2 * both / sizes)
        return found

    recalls, weighted = [], 0.0
    for label in range(classes):
        guesses = [p for t, p in every if t == label]
        either = sum(t == label or p == label for t, p in every)
        if guesses:
            right = sum(p == label for p in guesses)
            recalls.append(right / len(guesses))
            weighted += len(guesses) / len(every) * right / either
    return {
        "pixel_accuracy": mean([float(t == p) for t, p in every]),
        "mean_accuracy": mean(recalls),
        "frequency_weighted_iou": weighted if every else math.nan,
        "dice": mean(dices(every)),
        "dice_per_image": mean([mean(found) for image in pixels if (found := dices(image))]),
        "boundary_f1": mean([f1 for pair in pairs if not math.isnan(f1 := boundary_by_distances(*pair, classes))]),
    }


def boundary_by_distances(predicted: np.ndarray, true: np.ndarray, classes: int) -> float:
    """Boundary F1 of an image, from the distances of all pairs of boundary pixels."""
    height, width = true.shape
    limit = 0.0075 * math.sqrt(height**2 + width**2)

    def edge(of: np.ndarray, label: int) -> list[tuple[int, int]]:
        found = []
        for y, x in itertools.product(range(height), range(width)):
            if true[y, x] == IGNORE or of[y, x] != label:
                continue
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(v, u) for v, u in near if 0 <= v < height and 0 <= u < width and true[v, u] != IGNORE]
            if any(of[v, u] != label for v, u in inside):
                found.append((y, x))
        return found

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        hits = [any(math.dist(point, other) <= limit for other in others) for point in points]
        return sum(hits) / len(hits) if hits else 0.0

    values = []
    for label in range(classes):
        guesses, points = edge(predicted, label), edge(true, label)
        if guesses or points:
            precision, recall = share(guesses, points), share(points, guesses)
            values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return mean(values)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_scores_equal_those_of_plain_loops(start: int) -> None:
    for seed in range(start, start + 50):
        pairs, classes = made_up(seed)
        found = segmentation.scores(recorded(pairs, classes), names(classes))
        for name, expected in by_loops(pairs, classes).items():
            same(found[name], expected)


def test_the_made_up_cases_hold_what_they_should() -> None:
    cases = [made_up(seed) for seed in range(200)]
    pairs = [pair for case, _ in cases for pair in case]
    assert sum(classes == 1 for _, classes in cases) > 10
    assert sum(not true.size for _, true in pairs) > 10
    assert sum(bool(true.size) and (true == IGNORE).all() for _, true in pairs) > 10
    assert (
        sum(classes - 1 not in np.concatenate([p.ravel() for pair in case for p in pair]) for case, classes in cases)
        > 30
    )


def test_intersection_over_union_and_dice_equal_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score, jaccard_score

    for seed in range(200):
        pairs, classes = made_up(seed)
        found = segmentation.scores(recorded(pairs, classes), names(classes))
        every = [pixel for pair in pairs for pixel in counted(pair)]
        if not every:
            assert math.isnan(found["mean_iou"])
            continue
        true, predicted = zip(*every, strict=True)
        present = sorted({*true, *predicted})
        same(found["mean_iou"], jaccard_score(true, predicted, labels=present, average="macro"))
        same(found["dice"], f1_score(true, predicted, labels=present, average="macro"))


def test_boundaries_of_large_regions_equal_those_by_scikit_image_and_distance_transforms() -> None:
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    rng = np.random.default_rng(0)
    for height, width in ((240, 320), (90, 400), (300, 300)):  # the first has a tolerance of exactly 3 pixels
        true = np.kron(rng.integers(0, 3, (10, 10)), np.ones((40, 40), dtype=int))[:height, :width]
        predicted = np.roll(true, (3, 2), (0, 1))
        predicted[rng.random(true.shape) < 0.002] = 1
        limit, values = 0.0075 * math.hypot(height, width), []
        for label in range(3):
            edges = [
                find_boundaries(of, connectivity=1, mode="inner", background=9) & (of == label)
                for of in (predicted, true)
            ]
            far = [distance_transform_edt(~edge) for edge in edges]
            precision, recall = (far[1][edges[0]] <= limit).mean(), (far[0][edges[1]] <= limit).mean()
            values.append(2 * precision * recall / (precision + recall))
        pair = (predicted.astype(np.int16), true.astype(np.int16))
        found = segmentation.scores(recorded([pair], 3), names(3))
        same(found["boundary_f1"], mean(values))
        assert 0.3 < found["boundary_f1"] < 1


# ---- two classes ----


def regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Connected regions, also across corners, by walking from pixel to pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        region, open_ends = set(), [left.pop()]
        while open_ends:
            y, x = open_ends.pop()
            region.add((y, x))
            near = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} & left
            left -= near
            open_ends += near
        found.append(region)
    return found


def test_the_foreground_and_its_objects_equal_those_of_plain_loops() -> None:
    cases = 0
    for seed in itertools.count():
        pairs, classes = made_up(seed)
        if classes != 2:
            continue
        found = segmentation.scores(recorded(pairs, 2), ["background", "cell"])
        every = [pixel for pair in pairs for pixel in counted(pair)]
        hits, guesses, objects = (sum(f(t, p) for t, p in every) for f in (min, lambda t, p: p, lambda t, p: t))
        same(found["foreground_iou"], hits / (guesses + objects - hits) if guesses + objects else math.nan)
        same(found["foreground_dice"], 2 * hits / (guesses + objects) if guesses + objects else math.nan)
        same(found["foreground_precision"], hits / guesses if guesses else math.nan)
        same(found["foreground_recall"], hits / objects if objects else math.nan)
        matched, counts, wanted, errors = 0, 0, 0, 0
        for predicted, true in pairs:
            cells, cores = regions((predicted == 1) & (true != IGNORE)), regions(true == 1)
            matched += sum(len(a & b) / len(a | b) > 0.5 for a in cells for b in cores)
            counts, wanted = counts + len(cells), wanted + len(cores)
            errors += abs(len(cells) - len(cores))
        same(found["object_precision"], matched / counts if counts else math.nan)
        same(found["object_recall"], matched / wanted if wanted else math.nan)
        same(found["object_f1"], 2 * matched / (counts + wanted) if counts + wanted else math.nan)
        same(found["count_error"], errors / len(pairs))
        cases += 1
        if cases == 200:
            return


def test_the_foreground_is_the_class_that_is_not_called_background_or_else_the_rarer_one() -> None:
    assert segmentation.foreground(["background", "cell"], [1, 5]) == 1
    assert segmentation.foreground(["cell", "Background "], [5, 1]) == 0
    assert segmentation.foreground(["membrane", "cell"], [2, 7]) == 0
    assert segmentation.foreground(["cell", "membrane"], [7, 2]) == 1
    assert segmentation.foreground(["background", "other"], [3, 3]) == 1
    true = np.zeros((6, 6), dtype=np.int16)
    true[:2] = 1
    (row,) = recorded([(np.zeros_like(true), true)], 2)
    found = segmentation.scores([row], ["cell", "membrane"])
    assert (found["foreground_iou"], found["object_recall"], found["count_error"]) == (0, 0, 1)
    assert list(found) == list(segmentation.metrics_of(2))
    three = segmentation.scores(recorded([(true, true)], 3), names(3))
    assert list(three) == list(segmentation.metrics_of(3)) == list(segmentation.ANY_CLASSES)


# ---- panoptic ----


def panoptic(seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[int], list[int], list[Any]]:
    """Maps of (class, segment) [H, W, 2], predicted and true; things; stuff; and the records.

    Class 9 is none, and only in the truth: torchmetrics also excuses a missed segment where nothing is predicted, which
    panopticapi does not do.
    """
    rng = np.random.default_rng(seed)
    things, stuff = [0, 1], [2, 3]
    pairs, records = [], []
    height, width = (int(side) for side in rng.integers(6, 20, 2))
    for number in range(int(rng.integers(1, 4))):
        maps = []
        blocks = rng.integers(0, 7, (height // 3 + 1, width // 3 + 1))
        for is_guess, shift in enumerate((0, int(rng.integers(0, 2)))):
            kinds = rng.permutation([0, 0, 1, 1, 2, 3, 9]) if rng.random() < 0.2 else np.array([0, 0, 1, 1, 2, 3, 9])
            segments = np.roll(np.kron(blocks, np.ones((3, 3), dtype=int))[:height, :width], shift, 1)
            if is_guess:
                segments = np.where(rng.random(segments.shape) < 0.1, rng.integers(0, 7, segments.shape), segments)
            label = kinds[segments]
            if is_guess:
                label = np.where(label == 9, 3, label)
            maps.append(np.stack([label, np.where(np.isin(label, things), segments + 1, 0)], -1))
        true, predicted = maps
        pairs.append((predicted, true))
        numbered = []
        for one in (predicted, true):
            found = sorted({tuple(value) for value in one.reshape(-1, 2).tolist() if value[0] != 9})
            places = {value: place for place, value in enumerate(found, 1)}
            plain = np.array([places.get(tuple(value), 0) for value in one.reshape(-1, 2).tolist()])
            numbered += [plain.reshape(height, width).astype(np.int32), [label for label, _ in found]]
        semantic = [np.where(of[..., 0] == 9, IGNORE, of[..., 0]).astype(np.int16) for of in (predicted, true)]
        records.append({"id": f"{number:03}", **record(*semantic, 4), **panoptic_record(*numbered)})
    return pairs, things, stuff, records


def test_panoptic_quality_equals_that_of_torchmetrics() -> None:
    import torch
    from torchmetrics.detection import PanopticQuality

    for seed in range(200):
        pairs, things, stuff, records = panoptic(seed)
        found = segmentation.scores(records, names(4), [names(4)[number] for number in things])
        their = PanopticQuality(things, stuff, True, return_sq_and_rq=True, return_per_class=True).double()
        their.update(*(torch.from_numpy(np.stack(maps)) for maps in zip(*pairs, strict=True)))
        iou, tp, fp, fn = their.iou_sum, their.true_positives, their.false_positives, their.false_negatives
        known = (tp + fp + fn > 0).numpy()
        quality, overlap, recognition = their.compute().numpy().T
        assert len(iou) == 4
        same(found["panoptic_quality"], mean(quality[known].tolist()))
        same(found["segmentation_quality"], mean(overlap[known].tolist()))
        same(found["recognition_quality"], mean(recognition[known].tolist()))
        same(found["panoptic_quality_things"], mean(quality[:2][known[:2]].tolist()))
        same(found["panoptic_quality_stuff"], mean(quality[2:][known[2:]].tolist()))
        assert list(found) == list(segmentation.metrics_of(4, panoptic=True, kinds=True))


def by_panopticapi(
    predicted: np.ndarray, guessed: list[int], true: np.ndarray, kinds: list[int], crowds: list[int]
) -> dict[int, list[float]]:
    """The rules of panopticapi's evaluation, segment by segment."""
    counts: dict[int, list[float]] = {}

    def count(label: int, place: int, value: float = 1) -> None:
        counts.setdefault(label, [0, 0, 0, 0])[place] += value

    found, taken = set(), set()
    for g, s in itertools.product(range(1, len(guessed) + 1), range(1, len(kinds) + 1)):
        if s in crowds or guessed[g - 1] != kinds[s - 1]:
            continue
        shared = int(((predicted == g) & (true == s)).sum())
        union = int((predicted == g).sum() + (true == s).sum()) - shared - int(((predicted == g) & (true == 0)).sum())
        if union and shared / union > 0.5:
            found.add(g)
            taken.add(s)
            count(kinds[s - 1], 0, shared / union)
            count(kinds[s - 1], 1)
    for g, label in enumerate(guessed, 1):
        size = int((predicted == g).sum())
        outside = sum(int(((predicted == g) & (true == s)).sum()) for s in crowds if kinds[s - 1] == label)
        outside += int(((predicted == g) & (true == 0)).sum())
        if size and g not in found and outside / size <= 0.5:
            count(label, 2)
    for s, label in enumerate(kinds, 1):
        if (true == s).any() and s not in crowds and s not in taken:
            count(label, 3)
    return counts


def test_crowds_and_unlabelled_pixels_follow_the_rules_of_panopticapi() -> None:
    excused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 7, (5, 5))
        true = np.kron(blocks, np.ones((3, 3), dtype=int))
        predicted = np.where(rng.random(true.shape) < 0.15, rng.integers(0, 7, true.shape), true)
        kinds, guessed = rng.integers(0, 3, 6).tolist(), rng.integers(0, 3, 6).tolist()
        if rng.random() < 0.7:
            guessed = list(kinds)
        crowds = [1, 2] if rng.random() < 0.5 else []
        found = panoptic_record(predicted, guessed, true, kinds, crowds)["segments"]
        expected = by_panopticapi(predicted, guessed, true, kinds, crowds)
        assert {label: pytest.approx(counts, abs=1e-9) for label, *counts in found} == expected
        excused += found != panoptic_record(predicted, guessed, true, kinds)["segments"]
    assert excused > 50


def test_a_segment_of_an_ignored_class_is_no_segment() -> None:
    true, predicted = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]])
    assert panoptic_record(predicted, [0], true, [0, IGNORE])["segments"] == [[0, 1.0, 1, 0, 0]]
    assert panoptic_record(predicted, [IGNORE], true, [0, 1])["segments"] == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1]]
    assert panoptic_record(predicted * 0, [], true * 0, [])["segments"] == []


# ---- weights ----


def test_a_weight_of_2_counts_a_row_twice_and_the_order_of_rows_does_not_matter() -> None:
    for seed in range(0, 200, 5):
        pairs, classes = made_up(seed)
        records = recorded(pairs, classes)
        found = statistics(records, names(classes))
        twice = [*records, {**records[0], "id": "more"}]
        weights = found.ones()
        weights[0] = 2
        assert summarize(found, weights) == pytest.approx(segmentation.scores(twice, names(classes)), nan_ok=True)
        assert segmentation.scores(records[::-1], names(classes)) == pytest.approx(
            segmentation.scores(records, names(classes)), nan_ok=True
        )
        table = summarize(found, np.stack([found.ones(), weights]))
        assert {key: value[1] for key, value in table.items()} == pytest.approx(  # type: ignore[index]
            summarize(found, weights), nan_ok=True
        )


def test_counts_of_parts_add_up() -> None:
    pairs, classes = made_up(6)
    records = recorded(pairs, classes)
    assert len(records) > 1
    parts = [segmentation.confusion([one], names(classes)) for one in records]
    assert (sum(parts) == segmentation.confusion(records, names(classes))).all()
    assert sum(parts).sum() == sum(int((true != IGNORE).sum()) for _, true in pairs)


def test_large_maps_are_counted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [made_up(seed) for seed in range(20)]
    expected = [recorded(*case) for case in cases] + [panoptic(seed)[3] for seed in range(20)]
    monkeypatch.setattr(segmentation, "STRIP", 30)
    assert [recorded(*case) for case in cases] + [panoptic(seed)[3] for seed in range(20)] == expected


def test_panoptic_weights_and_resamples() -> None:
    _, _, _, records = panoptic(3)
    found = statistics(records, names(4), names(4)[:2])
    values = resampled(lambda weights: summarize(found, weights), np.arange(len(records)), resamples=50)
    assert list(values) == list(segmentation.metrics_of(4, panoptic=True, kinds=True))
    assert all(part.shape == (50,) for part in values.values())
    assert np.nanstd(values["panoptic_quality"]) > 0


# ---- tables and errors ----


def test_the_table_of_classes_and_the_scores_of_an_image() -> None:
    true = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, IGNORE, IGNORE]], dtype=np.int16)
    predicted = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 2, 2]], dtype=np.int16)
    records = recorded([(predicted, true), (true * 0, np.full_like(true, IGNORE))], 3)
    sky, road, car = segmentation.per_class(records, ["sky", "road", "car"])
    assert sky == {
        "label": "sky",
        "iou": 6 / 8,
        "dice": 12 / 14,
        "precision": 6 / 8,
        "recall": 1.0,
        "boundary_f1": 0.0,
        "pixels": 6,
        "images": 1,
    }
    assert (road["iou"], road["recall"], road["precision"]) == (0.5, 0.5, 1.0)
    assert (car["iou"], car["boundary_f1"], car["pixels"], car["images"]) == (None, None, 0, 0)
    assert segmentation.confusion(records, ["sky", "road", "car"]).tolist() == [[6, 0, 0], [2, 2, 0], [0, 0, 0]]
    assert segmentation.image_scores(records[0]) == pytest.approx(((0.75 + 0.5) / 2, 0.2))
    assert all(map(math.isnan, segmentation.image_scores(records[1])))


def test_a_pixel_without_a_predicted_class_is_wrong() -> None:
    true = np.zeros((4, 4), dtype=np.int16)
    predicted = true.copy()
    predicted[0] = IGNORE
    found = segmentation.scores(recorded([(predicted, true)], 2), ["a", "b"])
    assert (found["mean_iou"], found["pixel_accuracy"], found["dice"]) == (0.75, 0.75, 24 / 28)


def test_maps_and_records_that_do_not_fit_are_refused() -> None:
    small, large = np.zeros((3, 4), dtype=np.int16), np.zeros((4, 4), dtype=np.int16)
    with pytest.raises(DataError, match=r"a prediction of 3x4 pixels does not fit a label map of 4x4"):
        record(small, large, 2)
    with pytest.raises(DataError, match=r"the prediction has class 2: the classes are 0 to 1, and -1 is ignored"):
        record(small + np.int16(2), small, 2)
    with pytest.raises(DataError, match="the truth has class -2"):
        record(small, small - np.int16(2), 2)
    with pytest.raises(DataError, match="the prediction has segment 2, but only 1 segments have a class"):
        panoptic_record(small + 2, [0], small, [])
    with pytest.raises(DataError, match="0000: class 2 is not one of the model's 2"):
        segmentation.scores(recorded([(small + np.int16(2), small)], 3), ["a", "b"])
    with pytest.raises(DataError, match="no predictions"):
        segmentation.scores([], ["a", "b"])
