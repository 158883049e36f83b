"""Label maps: from masks, shapes and segments, and in records."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.data.image.label_maps import IGNORE, LabelMaps, packed, read_map, read_segments, turned, unpacked
from pipelines.errors import DataError


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 33)])
def test_a_packed_map_comes_back(size: tuple[int, int]) -> None:
    made = np.random.default_rng(0).integers(IGNORE, 847, size).astype(np.int16)
    found = unpacked(packed(made))
    assert found.dtype == np.int16
    assert np.array_equal(found, made)
    found[0, 0] = 3  # it can be written


def test_a_map_of_few_regions_is_small() -> None:
    made = np.zeros((512, 512), np.int16)
    made[100:300, 50:400] = 7
    assert len(packed(made)) < 6000


def png(image: Image.Image, kind: str = "PNG", **how: Any) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return {"path": None, "bytes": file.getvalue()}


VALUES = np.arange(24).reshape(4, 6) % 3
LEGEND = '{"values": {"0": "sky", "1": null, "2": "road"}}'
COLOURS = '{"colors": {"0,0,0": "sky", "10,20,30": null, "#ff0000": "road"}}'
PALETTE = [0, 0, 0, 10, 20, 30, 255, 0, 0]


def palette_image() -> Image.Image:
    image = Image.fromarray(VALUES.astype(np.uint8), "L").convert("P")
    image.putdata(VALUES.ravel().tolist())
    image.putpalette(PALETTE)
    return image


FORMS: dict[str, tuple[Any, str]] = {
    "grey": (Image.fromarray(VALUES.astype(np.uint8)), LEGEND),
    "16 bits": (Image.fromarray(VALUES.astype(np.uint16)), LEGEND),
    "32 bits": (Image.fromarray(VALUES.astype(np.int32)), LEGEND),
    "grey as RGB": (Image.fromarray(VALUES.astype(np.uint8)).convert("RGB"), LEGEND),
    "grey with transparency": (Image.fromarray(VALUES.astype(np.uint8)).convert("LA"), LEGEND),
    "a palette by its indices": (palette_image(), LEGEND),
    "a palette by its colours": (palette_image(), COLOURS),
    "RGB": (palette_image().convert("RGB"), COLOURS),
    "RGBA": (palette_image().convert("RGBA"), COLOURS),
}


@pytest.mark.parametrize("name", FORMS)
def test_classes_are_those_of_the_legend_by_name(name: str) -> None:
    mask, legend = FORMS[name]
    row = {"id": "1", "image": png(Image.new("RGB", (6, 4))), "mask": png(mask, "TIFF"), "legend": legend}
    assert read_map(row, ["road", "sky"]).tolist() == np.array([1, IGNORE, 0])[VALUES].tolist()
    assert read_map(row, ["sky"]).tolist() == np.array([0, IGNORE, IGNORE])[VALUES].tolist()
    assert read_map(row, ["sky"]).dtype == np.int16


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_map_is_turned_as_pillow_turns_the_image(turn: int) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[274] = turn
    with Image.open(io.BytesIO(png(Image.fromarray(values), exif=exif)["bytes"])) as image:
        assert np.array_equal(turned(values, turn), np.asarray(ImageOps.exif_transpose(image)))


def test_a_drawn_map_is_that_of_pycocotools() -> None:
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    shapes, expected = [], np.zeros((50, 70), dtype=int)
    for number in range(40):
        kind = "ab"[number % 2]
        polygons = [rng.uniform(-10, 80, 2 * int(rng.integers(3, 9))).round(2).tolist() for _ in range(1 + number % 3)]
        expected[coco.decode(coco.merge(coco.frPyObjects(polygons, 50, 70))) > 0] = "ab".index(kind) + 1
        shapes.append({"label": kind, "segmentation": polygons})
    ring = np.zeros((50, 70), dtype=np.uint8)
    ring[10:40, 10:40] = 1
    ring[20:30, 20:30] = 0  # a hole
    expected[ring > 0] = IGNORE
    packed_ring = coco.encode(np.asfortranarray(ring))
    runs = {"size": [50, 70], "counts": packed_ring["counts"].decode("ascii")}
    shapes.append({"label": None, "segmentation": runs})
    row = {"id": "1", "image": png(Image.new("RGB", (70, 50))), "mask": None, "shapes": json.dumps(shapes)}
    assert read_map(row, ["background", "a", "b"]).tolist() == expected.tolist()
    row["legend"] = '{"background": null}'
    assert (read_map(row, ["a", "b"])[expected == 0] == IGNORE).all()


def test_segments_and_their_kinds() -> None:
    ids = np.array([0, 5, 257, 70000])[np.arange(24).reshape(4, 6) % 4]
    pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    legend = json.dumps({"segments": {"257": "cat", "5": "sky", "70000": "cat"}, "things": ["cat"], "crowds": [70000]})
    row = {"id": "1", "image": png(Image.new("RGB", (6, 4))), "mask": png(Image.fromarray(pixels)), "legend": legend}
    segments, kinds = read_segments(row, ["cat", "sky"])
    assert segments.tolist() == (np.arange(24).reshape(4, 6) % 4).tolist()
    assert kinds == [
        {"label": 1, "thing": False, "crowd": False},
        {"label": 0, "thing": True, "crowd": False},
        {"label": 0, "thing": True, "crowd": True},
    ]
    example = LabelMaps([row], ["cat", "sky"])[0]
    assert example["kinds"].tolist() == [1, 0, IGNORE]
    assert example["map"].tolist() == np.array([IGNORE, 1, 0, 0])[segments].tolist()
    assert example["size"] == (4, 6)
    row["legend"] = json.dumps({"segments": {"257": "cat"}})
    with pytest.raises(DataError, match="2 segments that its list does not name \\(5, 70000\\)"):
        read_segments(row, ["cat"])
