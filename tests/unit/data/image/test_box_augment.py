"""Augmentation of images with boxes: whatever happens to the pixels of a thing happens to its box and its mask.

Things are rectangles of a colour of their own on a black image, so the pixels tell where each one is.
"""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection, task_class
from pipelines.data.batching import Examples
from pipelines.data.image import box_augment
from pipelines.data.loading import load_splits
from tests.support import tiny_boxes

Example = dict[str, Any]
COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250))
SEEDS = range(40)


def example(seed: int = 0, size: tuple[int, int] = (90, 60), count: int = 3, masks: bool = False) -> Example:
    """An image with `count` rectangles that do not overlap: one in each third, of the colour of its class."""
    rng = np.random.default_rng(seed)
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes, classes = [], rng.permutation(len(COLOURS))[:count]
    for place, number in enumerate(classes):
        x1, y1 = place * width // 3 + int(rng.integers(1, 5)), int(rng.integers(1, height // 2))
        x2, y2 = x1 + int(rng.integers(8, width // 3 - 5)), y1 + int(rng.integers(8, height // 2))
        pixels[y1:y2, x1:x2] = COLOURS[number]
        boxes.append([x1, y1, x2, y2])
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "id": str(seed),
        "row": seed,
        "image": Image.fromarray(pixels),
        "boxes": found,
        "classes": np.array(classes, np.int64),
        "crowd": np.array(classes) == 1,
        "area": (found[:, 2:] - found[:, :2]).prod(1),
        "masks": [(pixels == COLOURS[number]).all(2).astype(np.uint8) for number in classes] if masks else None,
        "size": (height, width),
    }


def of_colour(image: Image.Image, number: int, far: int = 90) -> np.ndarray:
    """The pixels that have the colour of a class, or nearly."""
    distance = np.abs(np.asarray(image.convert("RGB"), np.int16) - np.array(COLOURS[number])).max(2)
    return distance < far


def check(found: Example, slack: float = 1.5) -> None:
    """Every box lies inside of the image and around the pixels of its colour; all parts have the same length."""
    width, height = found["image"].size
    count = len(found["boxes"])
    assert found["size"] == (height, width)
    assert {len(found[name]) for name in ("boxes", "classes", "crowd", "area")} == {count}
    assert found["boxes"].shape == (count, 4)
    assert (found["boxes"][:, :2] >= 0).all()
    assert (found["boxes"][:, 2:] <= (width, height)).all()
    assert (found["boxes"][:, 2:] - found["boxes"][:, :2] >= 1).all()
    assert (found["area"] > 0).all()
    assert found["crowd"].tolist() == (found["classes"] == 1).tolist()
    for place, (number, box) in enumerate(zip(found["classes"], found["boxes"], strict=True)):
        x1, y1, x2, y2 = (round(float(side)) for side in box)
        shown = of_colour(found["image"], number)
        here = shown[y1:y2, x1:x2]
        inner = shown[y1 + 2 : max(0, y2 - 2), x1 + 2 : max(0, x2 - 2)]
        assert not here.size or here.mean() > 0.4
        assert not inner.size or inner.all()
        if found["masks"] is not None:
            mask = found["masks"][place]
            assert mask.shape == (height, width)
            assert np.abs(np.array(box_augment.around(mask)) - box).max() <= slack
            assert of_colour(found["image"], number)[mask > 0].mean() > 0.4


@pytest.mark.parametrize("masks", [False, True])
def test_flipped_twice_is_the_same(masks: bool) -> None:
    before = example(masks=masks)
    once = box_augment.flip(before)
    check(once)
    assert once["boxes"][0, 0] == 90 - before["boxes"][0, 2]
    twice = box_augment.flip(once)
    assert twice["image"].tobytes() == before["image"].tobytes()
    assert twice["boxes"].tolist() == before["boxes"].tolist()
    if masks:
        assert all((a == b).all() for a, b in zip(twice["masks"], before["masks"], strict=True))


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_and_masks_stay_around_their_pixels_in_crops(masks: bool) -> None:
    sizes, left = set(), 0
    for seed in SEEDS:
        before = example(seed, masks=masks)
        found = box_augment.random_crop(before, Random(seed))
        check(found)
        sizes.add(found["image"].size)
        left += len(before["boxes"]) - len(found["boxes"])
        assert found["image"].width >= 45
        assert found["image"].height >= 30
        assert (~found["crowd"]).any()
    assert len(sizes) > 30
    assert left > 0


def test_a_thing_that_is_mostly_cut_off_is_left_out_and_a_crowd_stays() -> None:
    before = example(count=2)
    before["classes"] = np.array([0, 1])
    before["crowd"] = np.array([False, True])
    (x1, y1, x2, y2), second = before["boxes"].tolist()
    just_enough = int(x2 - box_augment.VISIBLE * (x2 - x1))
    found = box_augment.window(before, just_enough, 0, 90 - just_enough, 60)
    assert found["boxes"][0].tolist() == [0, y1, x2 - just_enough, y2]
    assert found["area"][0] == pytest.approx((x2 - just_enough) * (y2 - y1))
    found = box_augment.window(before, just_enough + 1, 0, 89 - just_enough, 60)
    assert found["classes"].tolist() == [1]
    found = box_augment.window(before, int(second[2]) - 1, 0, 10, 60)
    assert found["classes"].tolist() == [1]
    assert len(box_augment.window(before, int(second[2]), 0, 10, 60)["boxes"]) == 0


def test_a_crop_keeps_a_thing_where_it_can() -> None:
    before = example(count=1)
    for seed in SEEDS:
        assert len(box_augment.random_crop(before, Random(seed))["boxes"]) == 1


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_and_masks_stay_around_their_pixels_in_mosaics(masks: bool) -> None:
    wholes = set()
    for seed in SEEDS:
        sizes = ((90, 60), (120, 120), (64, 200), (90, 60))
        parts = [example(4 * seed + place, size, masks=masks) for place, size in enumerate(sizes)]
        parts[0]["progress"] = 0.5
        found = box_augment.mosaic(parts, Random(seed))
        check(found, slack=3)
        assert (found["id"], found["progress"], found["image"].size) == (parts[0]["id"], 0.5, (90, 60))
        assert not (np.asarray(found["image"]) == box_augment.GREY).all(2).any()
        wholes.add(len(found["boxes"]))
    assert max(wholes) >= 6


def test_things_in_mosaics_have_many_sizes() -> None:
    shares = []
    for seed in range(100):
        parts = [example(seed, (90, 90), count=1) for _ in range(4)]
        x1, _, x2, _ = parts[0]["boxes"][0]
        found = box_augment.mosaic(parts, Random(seed))
        shares += [(b - a) / (x2 - x1) for a, b in found["boxes"][:, [0, 2]]]
    assert min(shares) < 0.4
    assert max(shares) > 1.1


def test_photometric_changes_pixels_only() -> None:
    before = example(masks=True)
    pictures = set()
    for seed in SEEDS:
        found = box_augment.photometric(before, Random(seed))
        assert {**found, "image": None} == {**before, "image": None}
        pictures.add(found["image"].tobytes())
        assert found["image"].size == before["image"].size
        for number in before["classes"]:
            assert of_colour(found["image"], number, far=160)[of_colour(before["image"], number)].all()
    assert len(pictures) > 20
    assert before["image"].tobytes() not in pictures


def test_photometric_changes_what_it_says() -> None:
    class Fixed(Random):
        def __init__(self, *numbers: float) -> None:
            super().__init__()
            self.numbers = list(numbers)

        def uniform(self, a: float, b: float) -> float:
            return self.numbers.pop(0)

    image = Image.fromarray(np.array([[[100, 50, 200], [10, 20, 30]]], np.uint8))

    def changed(*numbers: float) -> Any:
        return np.asarray(box_augment.photometric({"image": image}, Fixed(*numbers))["image"]).tolist()

    assert changed(1, 1, 1) == [[[100, 50, 200], [10, 20, 30]]]
    assert changed(0.5, 1, 1) == [[[50, 25, 100], [5, 10, 15]]]
    assert changed(1, 0, 1) == [[[50, 50, 50], [50, 50, 50]]]  # the mean of the grey values 82 and 18
    assert changed(1, 1, 0) == [[[82, 82, 82], [18, 18, 18]]]


CHANGES = {
    "flip": lambda one, rng: box_augment.random_flip(one, rng),
    "crop": lambda one, rng: box_augment.random_crop(one, rng),
    "photometric": lambda one, rng: box_augment.photometric(one, rng),
    "mosaic": lambda one, rng: box_augment.mosaic([one] * 4, rng),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects_stay_without(name: str, masks: bool) -> None:
    found = CHANGES[name](example(count=0, masks=masks), Random(1))
    check(found)
    assert len(found["boxes"]) == 0
    assert found["masks"] == ([] if masks else None)


@pytest.mark.parametrize("name", CHANGES)
def test_grey_images_stay_grey(name: str) -> None:
    grey = {**example(), "image": Image.new("RGB", (90, 60), (70, 70, 70))}
    found = CHANGES[name](grey, Random(1))["image"]
    channels = np.asarray(found).reshape(-1, 3)
    assert (channels == channels[:, :1]).all()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_images_of_few_pixels(name: str, size: tuple[int, int]) -> None:
    boxes = np.array([[0, 0, *size]], np.float32)
    one = {**example(count=1), "image": Image.new("RGB", size), "boxes": boxes, "size": size[::-1]}
    for seed in range(10):
        found = CHANGES[name](one, Random(seed))
        assert found["image"].size[0] >= 1
        assert (found["boxes"][:, 2:] <= found["image"].size).all()
        assert (found["boxes"][:, 2:] - found["boxes"][:, :2] >= 1).all()


@pytest.mark.parametrize("name", CHANGES)
def test_the_example_that_is_given_is_not_changed(name: str) -> None:
    given, same = example(masks=True), example(masks=True)
    for seed in range(5):
        CHANGES[name](given, Random(seed))
    assert given["image"].tobytes() == same["image"].tobytes()
    assert given["boxes"].tolist() == same["boxes"].tolist()
    assert given["area"].tolist() == same["area"].tolist()
    assert all((a == b).all() for a, b in zip(given["masks"], same["masks"], strict=True))


@pytest.mark.parametrize("task", ["object-detection", "instance-segmentation"])
def test_seed_epoch_and_row_decide_and_mosaics_end_early(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = task_class(task)
    own = kind(kind.Options(augment="mosaic", mosaic_until=0.5))
    splits = load_splits(DataSection(id=str(tiny_boxes.shapes(tmp_path / "shapes", n=16))), own.data)
    own.labels = list(splits.labels or [])
    encoded = own.encode(splits.train)
    monkeypatch.setattr(own, "collate", lambda examples: {"first": examples[0]})

    def one(seed: int, epoch: int, row: int, progress: float = 0.0) -> Any:
        examples = Examples(own, encoded, seed, own.augmentation.enabled, 1)
        return examples[[(epoch, row, progress)]].batch["first"]

    first, again = one(0, 0, 3), one(0, 0, 3)
    assert first["image"].tobytes() == again["image"].tobytes()
    assert first["boxes"].tolist() == again["boxes"].tolist()
    others = [one(1, 0, 3), one(0, 1, 3), one(0, 0, 4)]
    assert all(other["image"].tobytes() != first["image"].tobytes() for other in others)
    most = len(encoded[3]["boxes"])
    assert any(len(one(0, epoch, 3)["boxes"]) > most for epoch in range(8))
    assert all(len(one(0, epoch, 3, progress=0.6)["boxes"]) <= most for epoch in range(8))
    alone = own.augment(encoded[3], Random(0), 0.6)
    assert own.mix([alone, alone, alone, alone], Random(0)) is alone
    early = own.augment(encoded[3], Random(0), 0.4)
    assert own.mix([early, early, early, early], Random(0)) is not early
