"""COCO's format: run lengths equal to pycocotools, files that pycocotools reads, nothing that a text can break."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.inference import coco
from tests.support.shape_finder import run_lengths

BOX = {"xmin": 10.0, "ymin": 20.0, "xmax": 40.256, "ymax": 30.0}


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_masks_equal_those_of_pycocotools(density: float) -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 300), (480, 640)):
        mask = rng.random(size) < density
        written = run_lengths(mask)
        assert np.array_equal(coco.pixels(written), mask)
        assert sum(coco.runs(written["counts"])[1::2]) == mask.sum()


def test_boxes_around_masks_equal_those_of_pycocotools() -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(1)
    for number in range(200):
        mask = np.zeros((rng.integers(1, 30), rng.integers(1, 30)), bool)
        top, left = rng.integers(mask.shape[0]), rng.integers(mask.shape[1])
        if number:
            mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = True
        if number % 3 == 0:
            mask &= rng.random(mask.shape) < 0.3
        written = run_lengths(mask)
        assert list(coco.around(written)) == coco_mask.toBbox(written).tolist()


def test_a_segment_without_a_box_gets_that_of_its_mask() -> None:
    mask = np.zeros((50, 60), bool)
    mask[20:30, 10:25] = True
    entry = coco.annotation(4, 2, 1, {"label": "sky", "score": 0.5, "share": 0.05, "mask": run_lengths(mask)})
    assert (entry["bbox"], entry["area"]) == ([10, 20, 15, 10], 150)


@pytest.mark.parametrize("counts", ["é", " ", "0oooooooooooooo", "o", "0@"])
def test_run_lengths_that_are_none(counts: str) -> None:
    with pytest.raises(DataError, match="run lengths cannot be read"):
        coco.runs(counts)
    with pytest.raises(DataError, match="a mask of 5 pixels in an image of 3 x 2"):
        coco.pixels({"size": [2, 3], "counts": "5"})


def test_an_annotation_has_the_area_of_its_mask() -> None:
    found: dict[str, Any] = {"label": "cat", "score": 0.75, "box": BOX}
    entry = coco.annotation(4, 2, 1, found)
    assert entry == {
        "id": 4,
        "image_id": 2,
        "category_id": 1,
        "bbox": [10.0, 20.0, 30.26, 10.0],
        "area": 302.56,
        "iscrowd": 0,
        "score": 0.75,
    }
    mask = np.zeros((50, 60), bool)
    mask[20:30, 10:20] = True
    entry = coco.annotation(4, 2, 1, {**found, "mask": run_lengths(mask)})
    assert entry["area"] == 100
    assert entry["segmentation"] == run_lengths(mask)


def test_a_file_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    names = ["a.jpg", 'b "quoted" <i>.png', "empty.png"]
    objects = [[{"label": "dog", "score": 0.9, "box": BOX}, {"label": "cat", "score": 0.5, "box": BOX}]] * 2 + [[]]
    with (tmp_path / "lines").open("w") as file:
        for name, found in zip(names, objects, strict=True):
            file.write(json.dumps({"input": name, "width": 64, "height": 48, "objects": found}) + "\n")
    coco.write(tmp_path / "lines", tmp_path / "found.json", ["cat", "dog"])
    read = COCO(tmp_path / "found.json")
    assert [read.imgs[number]["file_name"] for number in (1, 2, 3)] == names
    assert [one["name"] for one in read.loadCats([1, 2])] == ["cat", "dog"]
    assert [one["category_id"] for one in read.loadAnns(read.getAnnIds(imgIds=[2]))] == [2, 1]
    assert sorted(read.anns) == [1, 2, 3, 4]
    assert read.getAnnIds(imgIds=[3]) == []
    assert not list(tmp_path.glob(".*"))
