"""Random changes of images with label maps."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from pipelines.data.image import map_augment
from pipelines.data.image.label_maps import IGNORE


def marked(width: int = 60, height: int = 40) -> dict:
    """An image whose red channel is its label map, times 50: squares of 20 pixels."""
    label_map = ((np.arange(height)[:, None] // 20 * 2 + np.arange(width)[None, :] // 20) % 5).astype(np.int16)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = label_map * 50
    return {"id": "a", "row": 0, "image": Image.fromarray(pixels), "map": label_map, "size": (height, width)}


def agreement(example: dict) -> float:
    """The share of pixels that are not padding whose image and map say the same."""
    red, label_map = np.asarray(example["image"])[..., 0].astype(float) / 50, example["map"]
    kept = label_map != IGNORE
    return float((np.abs(red - label_map)[kept] < 0.5).mean())


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turns_move_image_and_map_alike(quarters: int, mirrored: bool) -> None:
    found = map_augment.turned(marked(), quarters, mirrored)
    assert agreement(found) == 1
    assert found["map"].shape == ((40, 60) if quarters % 2 == 0 else (60, 40))


def test_a_part_at_scale_one_is_a_cut_of_the_image() -> None:
    example = marked()
    seen = set()
    for seed in range(20):
        found = map_augment.random_part(example, (60, 40), 32, (1.0, 1.0), Random(seed))
        assert found["image"].size == (32, 32)
        assert agreement(found) == 1
        seen.add(found["map"].tobytes())
    assert len(seen) > 10


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.7, 1.7), (0.6, 3.0)])
def test_parts_at_other_scales_keep_image_and_map_together(scale: tuple[float, float]) -> None:
    for seed in range(10):
        found = map_augment.random_part(marked(), (60, 40), 48, scale, Random(seed))
        assert found["image"].size == (48, 48)
        assert found["map"].shape == (48, 48)
        assert agreement(found) > 0.8  # the image is interpolated at edges, the map never


def test_a_small_image_is_padded_with_ignored_pixels() -> None:
    found = map_augment.random_part(marked(20, 10), (20, 10), 32, (1.0, 1.0), Random(0))
    assert (found["map"] != IGNORE).sum() == 200
    padding = np.asarray(found["image"])[found["map"] == IGNORE]
    assert (padding == map_augment.GREY).all()


def test_resized_maps_hold_only_classes_of_the_map() -> None:
    found = map_augment.resized(marked(), (97, 33))
    assert found["map"].shape == (33, 97)
    assert set(np.unique(found["map"])) == set(np.unique(marked()["map"]))
    same = map_augment.resized(marked(), (60, 40))
    assert np.array_equal(same["map"], marked()["map"])


def test_nearest_is_what_pillow_takes() -> None:
    label_map = np.random.default_rng(0).integers(0, 200, (37, 53)).astype(np.uint8)
    for size in ((20, 20), (53, 37), (106, 74), (11, 90)):
        expected = np.asarray(Image.fromarray(label_map).resize(size, Image.Resampling.NEAREST))
        assert np.array_equal(map_augment.nearest(label_map, (0, 0, 53, 37), size), expected)


def test_elastic_moves_image_and_map_alike() -> None:
    example = marked(128, 96)
    found = map_augment.elastic(example, Random(3))
    assert not np.array_equal(found["map"], example["map"])
    assert agreement(found) > 0.9
    again = map_augment.elastic(example, Random(3))
    assert np.array_equal(found["map"], again["map"])
    assert found["image"].tobytes() == again["image"].tobytes()


def test_light_leaves_the_map() -> None:
    example = marked()
    found = map_augment.light(example, Random(1))
    assert found["map"] is example["map"]
    assert found["image"].tobytes() != example["image"].tobytes()


def test_segments_follow_the_map() -> None:
    example = marked()
    example["segments"] = (example["map"] + 1).astype(np.int32)
    for change in (map_augment.random_turn, map_augment.random_mirror, map_augment.elastic):
        found = change(example, Random(5))
        assert np.array_equal(found["segments"], found["map"] + 1)
    found = map_augment.random_part(example, (60, 40), 64, (0.7, 1.4), Random(5))
    assert np.array_equal(found["segments"] == 0, found["map"] == IGNORE)
