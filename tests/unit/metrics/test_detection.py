"""COCO's metrics against pycocotools on random detections with crowds, ties, empty images and absent classes."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.metrics import detection

LABELS = ["cat", "dog", "bird", "never"]
TWELVE = list(detection.METRICS)[:12]


def mask_of(box: list[float]) -> dict[str, Any]:
    from pycocotools import mask

    canvas = np.zeros((400, 400), dtype=np.uint8, order="F")
    x1, y1, x2, y2 = (int(value) for value in box)
    canvas[y1:y2, x1:x2] = 1
    canvas[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 3] = 0
    found = mask.encode(canvas)
    return {"size": [400, 400], "counts": found["counts"].decode()}


def made_up(seed: int, images: int = 14, masks: bool = False, many: int = 12, distinct: bool = False) -> list[Any]:
    rng = np.random.default_rng(seed)
    records = []
    for number in range(images):
        objects = int(rng.integers(0, 9))
        sides = rng.choice([12, 32, 60, 96, 180], (objects, 2)) + rng.integers(-3, 4, (objects, 2))
        corners = rng.integers(0, 200, (objects, 2))
        boxes = np.concatenate([corners, corners + sides], 1).astype(float)
        guesses = int(rng.integers(0, many))
        if objects and guesses:
            found = boxes[rng.integers(0, objects, guesses)] + rng.integers(-6, 7, (guesses, 4))
            found[:, :2] = np.maximum(found[:, :2], 0)
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 3)
        else:
            found = np.tile([5.0, 5, 40, 50], (guesses, 1))
        scores = rng.random(guesses) if distinct else rng.integers(1, 8, guesses) / 8
        crowd = rng.random(objects) < 0.2
        record: dict[str, Any] = {
            "id": f"{number:04}",
            "size": [400, 400],
            "boxes": found.tolist(),
            "scores": scores.tolist(),
            "classes": rng.integers(0, 3 if number % 2 else 4, guesses).tolist(),
            "true": {
                "boxes": boxes.tolist(),
                "classes": rng.integers(0, 3, objects).tolist(),
                "crowd": crowd.tolist(),
                "area": (sides.prod(1) * rng.choice([1, 0.7], objects)).astype(float).tolist(),
            },
        }
        if masks:
            record["masks"] = [mask_of(box) for box in record["boxes"]]
            record["true"]["masks"] = [mask_of(box) for box in record["true"]["boxes"]]
        records.append(record)
    return records


def reference(records: list[Any], masks: bool = False, classes: int = 4) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        for place, (x1, y1, x2, y2) in enumerate(record["true"]["boxes"]):
            one = {key: record["true"][key][place] for key in ("area",)}
            one |= {"id": len(truth) + 1, "image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            one |= {"category_id": record["true"]["classes"][place], "iscrowd": int(record["true"]["crowd"][place])}
            truth.append({**one, **({"segmentation": record["true"]["masks"][place]} if masks else {})})
        for place, (x1, y1, x2, y2) in enumerate(record["boxes"]):
            one = {"image_id": number, "category_id": record["classes"][place], "score": record["scores"][place]}
            shape = {"segmentation": dict(record["masks"][place])} if masks else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            found.append(one | shape)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": number, "height": 400, "width": 400} for number in range(len(records))]
        categories = [{"id": number, "name": str(number)} for number in range(classes)]
        coco.dataset = {"images": images, "annotations": truth, "categories": categories}
        coco.createIndex()
        if found:
            results = coco.loadRes(found)
        else:
            results = COCO()
            results.dataset = {"images": images, "annotations": [], "categories": categories}
            results.createIndex()
        scored = COCOeval(coco, results, "segm" if masks else "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored


def assert_equal(ours: dict[str, float], theirs: np.ndarray) -> None:
    mine = np.nan_to_num([ours[name] for name in TWELVE], nan=-1)
    np.testing.assert_allclose(mine, theirs, atol=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_boxes_score_as_in_pycocotools(seed: int) -> None:
    records = made_up(seed, many=[3, 12, 60, 350][seed % 4])
    scored = reference(records)
    assert_equal(detection.scores(records, LABELS), scored.stats)
    precision = scored.eval["precision"][..., 0, 2]
    for place, row in enumerate(detection.per_class(records, LABELS)):
        theirs = precision[:, :, place]
        assert (row["ap"] is None) == (theirs.max() < 0)
        assert row["ap"] is None or row["ap"] == pytest.approx(theirs.mean(), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_masks_score_as_in_pycocotools(seed: int) -> None:
    records = made_up(100 + seed, masks=True, many=[3, 12, 40, 150][seed % 4])
    assert_equal(detection.scores(records, LABELS, masks=True), reference(records, masks=True).stats)


@pytest.mark.parametrize("seed", range(12))
def test_a_weight_counts_a_row_so_many_times(seed: int) -> None:
    records = made_up(200 + seed, many=30, distinct=seed % 2 == 0)
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(records))).astype(float)
    found = detection.statistics(records, LABELS)
    several = detection.summarize(found, weights)
    for draw, line in enumerate(weights):
        repeated = [record for record, times in zip(records, line, strict=True) for _ in range(int(times))]
        assert_equal({name: several[name][draw] for name in several}, reference(repeated).stats)  # type: ignore[index]
        one = detection.summarize(found, line)
        assert one == pytest.approx({name: several[name][draw] for name in several}, nan_ok=True)  # type: ignore[index]


def test_the_order_of_records_and_images_without_anything() -> None:
    records = made_up(3)
    assert detection.scores(records[::-1], LABELS) == detection.scores(records, LABELS)
    empty = [{**record, "boxes": [], "scores": [], "classes": []} for record in records]
    assert detection.scores(empty, LABELS)["ap"] == 0
    bare: dict[str, Any] = {"boxes": [], "classes": [], "crowd": [], "area": []}
    assert np.isnan(detection.scores([{**records[0], "true": bare}], LABELS)["ap"])
    with pytest.raises(DataError, match="no predictions"):
        detection.statistics([], LABELS)
    with pytest.raises(DataError, match="another model"):
        detection.statistics(records, LABELS[:1])


def hand_made() -> list[Any]:
    """A cat found, a dog taken for a cat, a bird missed, and a cat where nothing is."""
    true = {"boxes": [[0, 0, 10, 10], [50, 50, 60, 60], [100, 0, 120, 20]], "classes": [0, 1, 2]}
    true |= {"crowd": [False] * 3, "area": [100.0, 100.0, 400.0]}
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [200, 0, 220, 20]]
    return [
        {"id": "a", "size": [400, 400], "boxes": boxes, "scores": [0.9, 0.6, 0.2], "classes": [0] * 3, "true": true}
    ]


def test_confusion_threshold_counts_and_judgement() -> None:
    records = hand_made()
    matrix = detection.confusion(records, LABELS, threshold=0.1)
    assert matrix[0, 0] == 1
    assert matrix[1, 0] == 1
    assert matrix[2, 4] == 1
    assert matrix[4, 0] == 1
    assert matrix.sum() == 4
    assert detection.best_threshold(records, LABELS) == pytest.approx(0.75)
    scored = detection.scores(records, LABELS, threshold=0.75)
    assert scored["f1"] == pytest.approx(0.5)
    assert scored["count_error"] == 2
    assert detection.judge(records[0], threshold=0.1) == ([0], [1, 2], [1, 2])
    assert detection.curves(records, LABELS)["precision"].tolist() == [1, 1 / 2, 1 / 3]
