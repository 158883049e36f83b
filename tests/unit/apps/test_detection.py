"""What the page of boxes and masks knows: COCO's format, colours, small masks; and its words about a video."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.apps import detection, video, visitor
from pipelines.errors import DataError
from tests.support.shape_finder import LABELS, PHOTO, Finder, film, scene


def known(page: str) -> dict[str, Any]:
    """The data in an answer."""
    (text,) = re.findall('data-found="([^"]+)"', page)
    found: dict[str, Any] = json.loads(base64.b64decode(html.unescape(text)))
    return found


def test_a_photo_with_boxes(tmp_path: Path) -> None:
    photo = scene((2000, 1000), PHOTO)
    found = Finder(tmp_path, "object-detection").infer(photo, 0.05)
    page = detection.shown(photo, found, LABELS, 0.62, "../<i>photo.of me.jpg")
    about = known(page)
    assert about["name"] == "_i_photo_of_me"
    assert about["coco"]["images"] == [{"id": 1, "file_name": "../<i>photo.of me.jpg", "width": 2000, "height": 1000}]
    assert [(one["category_id"], one["score"], one["bbox"]) for one in about["coco"]["annotations"]] == [
        (1, 0.95, [80, 80, 241, 241]),
        (2, 0.85, [360, 360, 281, 281]),
        (1, 0.75, [640, 90, 121, 121]),
        (3, 0.75, [800, 350, 301, 301]),
    ]
    assert [one["name"] for one in about["coco"]["categories"]] == LABELS
    assert set(about["colours"]) == {"1", "2", "3"}
    assert about["masks"] == {}
    assert 'min="5"' in page
    assert 'value="62"' in page
    assert not any(text in page for text in ("<b>", "<i>", "{{", "${"))
    (shown,) = re.findall('base64,([^"]+)"><canvas', page)
    assert Image.open(io.BytesIO(base64.b64decode(shown))).size == (1600, 800)


def test_masks_are_small_transparent_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(detection.MASK_SIDE, "photo", 50)
    photo = scene((1200, 800), PHOTO)
    found = Finder(tmp_path, "instance-segmentation", masks=True).infer(photo, 0.05)
    about = known(detection.shown(photo, found, LABELS, 0.5, "a.jpg"))
    first = about["masks"]["1"]
    assert first["box"] == [80, 80, 241, 241]
    image = Image.open(io.BytesIO(base64.b64decode(first["source"].partition(",")[2]))).convert("RGBA")
    assert image.size == (50, 50)
    values = np.asarray(image)
    assert tuple(values[25, 25]) == (0x0F, 0x76, 0x6E, 115)
    assert values[0, 0, 3] == 0
    assert about["coco"]["annotations"][0]["area"] == pytest.approx(np.pi * 120.5**2, rel=0.01)


def test_an_empty_mask_has_no_picture() -> None:
    entry = {"category_id": 1, "segmentation": {"size": [3, 4], "counts": "<"}}
    assert detection.overlay(entry, 100) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{}", 0.5),
        ('{"detection_threshold": 0.3781}', 0.37),
        ('{"detection_threshold": 0.03}', 0.03),
        ('{"detection_threshold": 7}', 0.5),
        ('{"detection_threshold": "high"}', 0.5),
        ('{"detection_threshold": true}', 0.5),
    ],
)
def test_the_slider_begins_at_the_calibrated_threshold(config: str, expected: float, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    finder: Any = Finder(tmp_path, "object-detection")
    assert detection.threshold(finder) == expected


def test_a_video_with_boxes(tmp_path: Path) -> None:
    finder: Any = Finder(tmp_path, "object-detection")
    ticks: list[tuple[int, int]] = []
    page, note = detection.watched(finder, visitor.Upload("clip.mp4", film(30)), lambda *tick: ticks.append(tick))
    about = known(page)
    assert len(about["times"]) == len(about["coco"]["images"]) == len(ticks) == 30
    assert about["seconds"] == pytest.approx(29 / 15 + 0.04, abs=0.05)
    assert about["coco"]["images"][15]["file_name"] == "clip_001000.png"
    per_frame = np.bincount([one["image_id"] for one in about["coco"]["annotations"]], minlength=31)[1:]
    assert per_frame.tolist() == [1] * 15 + [2] * 15
    assert note == "The model looked at 30 of 30 frames; each count is the most in one frame."
    clean, boxed = (base64.b64decode(text) for text in re.findall('data:video/mp4;base64,([^"]+)', page))
    (first, *_) = video.frames("clean", clean, video.times("clean", clean).all)
    (drawn, *_) = video.frames("boxed", boxed, video.times("boxed", boxed).all)
    changed = np.abs(np.asarray(first.image).astype(int) - np.asarray(drawn.image)).sum(-1) > 120
    assert changed[30:90, 8:13].any(axis=1).mean() > 0.8, "the left side of the box of the circle"
    assert not changed[130:].any()


def test_a_slow_model_answers_fewer_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finder: Any = Finder(tmp_path, "object-detection")
    monkeypatch.setattr(detection, "WORK", 0.0)
    page, note = detection.watched(finder, visitor.Upload("clip.mp4", film(30)), lambda *tick: None)
    assert len(known(page)["times"]) == 1
    assert note.endswith("It was too slow for the rest.")
    with pytest.raises(DataError, match="not a video"):
        detection.watched(finder, visitor.Upload("a.mp4", b"words"), lambda *tick: None)


def test_a_drawing_has_boxes_names_and_masks(tmp_path: Path) -> None:
    photo = scene((1200, 800), PHOTO)
    found = Finder(tmp_path, "instance-segmentation", masks=True).infer(photo, 0.8)
    (image,) = detection.drawn([photo], [found], LABELS, 0.9)
    values = np.asarray(image)
    assert tuple(values[200, 80]) == (0x0F, 0x76, 0x6E), "the box of the circle"
    assert tuple(values[500, 500]) == (40, 170, 60), "a score of 0.85 is below the threshold"
    mixed = 0.55 * np.array([220, 40, 40]) + 0.45 * np.array([0x0F, 0x76, 0x6E])
    assert values[200, 200] == pytest.approx(mixed, abs=2)
    assert np.asarray(photo)[200, 200].tolist() == [220, 40, 40], "the photo itself is not changed"
