"""Batches of the tasks that find objects."""

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.detection import examples
from pipelines.detection.options import Finding


class Family:
    def example(self, example: dict[str, Any]) -> dict[str, Any]:
        return {"side": example["image"].width}

    def collate(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        return {"sides": [one["side"] for one in found]}


def example() -> dict[str, Any]:
    numbers = {"boxes": np.array([[2, 3, 10.12345, 12]], np.float32), "classes": np.array([1]), "area": np.ones(1)}
    more = {"crowd": np.zeros(1, bool), "masks": None, "size": (16, 20)}
    return {"id": "a", "row": 0, "image": Image.new("RGB", (20, 16)), **numbers, **more}


def test_a_batch_holds_the_truth_of_examples_that_are_scored() -> None:
    family: Any = Family()
    plain = examples.batch([example()], family)
    assert plain["true"] == [
        {"size": [16, 20], "boxes": [[2.0, 3.0, 10.123, 12.0]], "classes": [1], "crowd": [False], "area": [1.0]}
    ]
    changed = examples.augmented(example(), Finding(augment="flip"), Random(0), 0.5)
    batch = examples.batch([changed], family)
    assert batch == {"id": ["a"], "row": [0], "sides": [20]}, "encoding the masks of every training step takes time"


def test_the_last_part_of_a_training_has_no_mosaics() -> None:
    options = Finding(augment="mosaic", mosaic_until=0.9)
    four = [{**example(), "progress": 0.89} for _ in range(4)]
    assert (
        examples.mixed(four, options, Random(0))["image"].size != four[0]["image"].size
        or len(examples.mixed(four, options, Random(0))["boxes"]) != 1
    )
    last = [{**example(), "progress": 0.9} for _ in range(4)]
    assert examples.mixed(last, options, Random(0)) is last[0]


def test_classes_are_those_of_the_data_set_in_its_order() -> None:
    train = {"objects": [[{"label": "b"}, {"label": "a"}], None]}
    assert examples.classes(SimpleNamespace(labels=["z", "a"], train=train, name="x")) == ["z", "a"]
    assert examples.classes(SimpleNamespace(labels=None, train=train, name="x")) == ["a", "b"]
    with pytest.raises(examples.DataError, match="no object of any class in train"):
        examples.classes(SimpleNamespace(labels=None, train={"objects": [[]]}, name="x"))
