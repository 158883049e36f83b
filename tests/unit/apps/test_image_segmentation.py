"""What the page of image segmentation knows: segments, a small map, files in full size; and its bounds."""

import base64
import html
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.apps import image_segmentation, visitor
from pipelines.errors import DataError
from tests.support.area_segmenter import LABELS, Segmenter, segments
from tests.support.shape_finder import PHOTO, scene


def known(page: str) -> dict[str, Any]:
    """The data in an answer."""
    (text,) = re.findall('data-found="([^"]+)"', page)
    found: dict[str, Any] = json.loads(base64.b64decode(html.unescape(text)))
    return found


def small_map(about: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(base64.b64decode(about["map"])), "<u2" if about["wide"] else "u1")
    width, height = about["size"]
    return values.reshape(height, width)


def test_a_photo_with_classes(tmp_path: Path) -> None:
    photo = scene((2400, 1200), PHOTO)
    found = Segmenter(tmp_path).infer(photo)
    page = image_segmentation.shown(photo, found, LABELS, "../<i>photo.of me.jpg")
    about = known(page)
    assert about["name"] == "_i_photo_of_me"
    assert [one["label"] for one in about["segments"]] == ["sky & clouds", "<b>tree", "road", "car"]
    assert sum(one["share"] for one in about["segments"]) == pytest.approx(1)
    assert len({one["colour"] for one in about["segments"]}) == 4
    assert about["size"] == [1200, 600]
    values = small_map(about)
    assert [values[0, 0], values[250, 250], values[100, 100], values[260, 475]] == [0, 1, 2, 3]
    image = Image.open(io.BytesIO(base64.b64decode(about["png"])))
    assert (image.mode, image.size) == ("P", (2400, 1200)), "the file to save has the size of the photo"
    numbers = np.asarray(image)
    assert [numbers[0, 0], numbers[500, 500], numbers[200, 200], numbers[520, 950]] == [3, 1, 0, 2]
    assert about["coco"]["images"] == [{"id": 1, "file_name": "../<i>photo.of me.jpg", "width": 2400, "height": 1200}]
    assert [one["name"] for one in about["coco"]["categories"]] == LABELS
    for one, segment in zip(about["coco"]["annotations"], found, strict=True):
        assert LABELS[one["category_id"] - 1] == segment["label"]
        assert one["segmentation"] == segment["mask"]
        assert one["bbox"] == coco_mask.toBbox(segment["mask"]).tolist()
        assert one["area"] == coco_mask.area(segment["mask"])
    assert not any(text in page for text in ("<b>", "<i>", "{{", "${", "clouds"))
    (drawn,) = re.findall('base64,([^"]+)"><canvas', page)
    assert Image.open(io.BytesIO(base64.b64decode(drawn))).size == (1600, 800)


def test_pixels_without_a_class(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), bool)
    mask[:10] = True
    found = segments([("car", mask)])
    about = known(image_segmentation.shown(Image.new("RGB", (40, 30)), found, LABELS, "a.png"))
    assert small_map(about)[20, 5] == 1, "no segment has this number"
    numbers = np.asarray(Image.open(io.BytesIO(base64.b64decode(about["png"]))))
    assert np.unique(numbers).tolist() == [2, 255]
    with pytest.raises(DataError, match="no class in this photo"):
        image_segmentation.shown(Image.new("RGB", (40, 30)), [], LABELS, "a.png")


def test_more_segments_than_a_byte_holds() -> None:
    rows = np.arange(300)[:, None] == np.arange(300).repeat(2)[None, :]
    found = segments([("car", np.repeat(rows[place][:, None], 4, axis=1)) for place in range(300)])
    about = known(image_segmentation.shown(Image.new("RGB", (4, 600)), found, LABELS, "a.png"))
    assert about["wide"]
    assert small_map(about)[:, 0].max() == 299


def test_a_noisy_answer_travels_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (900, 1700))
    found = segments([(LABELS[number], classes == number) for number in range(4)])
    assert image_segmentation.fitting(found) is found
    monkeypatch.setattr(image_segmentation, "MOST", 600_000)
    smaller = image_segmentation.fitting(found)
    assert [one["label"] for one in smaller] == [one["label"] for one in found]
    assert sum(len(one["mask"]["counts"]) for one in smaller) <= 600_000
    assert smaller[0]["mask"]["size"] == [424, 800]
    assert sum(coco_mask.area(one["mask"]) for one in smaller) == 424 * 800, "no pixel is lost or counted twice"
    page = image_segmentation.shown(Image.new("RGB", (1700, 900)), smaller, LABELS, "a.png")
    assert "Label map (PNG) (800 x 424)" in page
    assert "COCO JSON (800 x 424)" in page


def test_the_nearest_pixel_is_taken() -> None:
    values = np.arange(12).reshape(3, 4)
    assert image_segmentation.sampled(values, 4) is not values
    assert image_segmentation.sampled(values, 4).tolist() == values.tolist()
    assert image_segmentation.sampled(values, 2).tolist() == [[1, 3], [9, 11]]
    assert image_segmentation.sampled(values[:1].repeat(1, 0), 1).tolist() == [[2]]


def test_so_many_pages_are_counted_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    pages = [Image.new("L", (4, 4), place) for place in range(12)]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    assert image_segmentation.page_count(visitor.Upload("a.tif", out.getvalue())) == 12
    monkeypatch.setattr(image_segmentation, "MOST_PAGES", 5)
    assert image_segmentation.page_count(visitor.Upload("a.tif", out.getvalue())) == 5
    assert image_segmentation.page_count(None) == 1
    assert image_segmentation.page_count(visitor.Upload("a.png", b"words")) == 1
