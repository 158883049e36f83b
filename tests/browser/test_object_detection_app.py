"""The demos of boxes and masks as a visitor meets them: a photo, a video, the slider, and what is saved."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.apps import video
from tests.browser.test_demo_looks import everywhere
from tests.support.shape_finder import PHOTO, Finder, film, scene

pytestmark = [pytest.mark.browser, pytest.mark.quick]

SECONDS = 1000
PAINTED = """canvas => {
  const values = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let painted = 0;
  for (let place = 3; place < values.length; place += 4) painted += values[place] > 0;
  return painted / (values.length / 4);
}"""


@pytest.fixture(scope="module", params=["object-detection", "instance-segmentation"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A demo whose model finds coloured shapes; `finder.calls` counts how often the model was asked."""
    from pipelines.apps import launch

    folder = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        (folder / "examples").mkdir()
        (folder / "README.md").write_text("# Shapes\n")
        (folder / "config.json").write_text('{"detection_threshold": 0.8}')
        scene((640, 480), PHOTO[:1]).save(folder / "examples" / "0.jpg")
        (folder / "examples" / "examples.json").write_text('[{"image": "0.jpg"}]')
        finder: Any = Finder(folder, request.param, masks=request.param == "instance-segmentation")
        blocks = launch.app(finder)
        launch.serve(blocks, "127.0.0.1")
        yield SimpleNamespace(url=blocks.local_url, finder=finder)
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "shapes <b>.png"
    scene((1200, 800), PHOTO).save(path)
    return path


def with_photo(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(".graft-found canvas:visible").wait_for(timeout=20 * SECONDS)


def give_video(page: Any, path: Path) -> None:
    page.get_by_role("tab", name="Video").click()
    page.locator("input[type=file][accept*=video]").set_input_files(str(path))


def counted(page: Any) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(".graft-found:visible li").all_inner_texts()]


def slide(page: Any, value: int) -> None:
    page.get_by_label("Threshold").locator("visible=true").fill(str(value))


def saved(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(".graft-saves:visible").get_by_text(button).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_photo_gives_boxes_and_counts(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    hint = page.get_by_text("The objects in a photo appear here.")
    hint.wait_for(timeout=20 * SECONDS)
    with_photo(page, photo)
    assert not hint.is_visible()
    assert counted(page) == ["circle 1", "square 1"]
    canvas = page.locator(".graft-found canvas").first
    assert canvas.get_attribute("aria-label") == "Photo with boxes: circle 1, square 1"
    assert page.broken == []


def test_the_slider_asks_neither_server_nor_model(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    page.wait_for_timeout(0.5 * SECONDS)
    calls, asked = demo.finder.calls, len(page.asked)
    slide(page, 60)
    assert counted(page) == ["circle 2", "square 1", "<b>triangle 1"]
    slide(page, 90)
    assert counted(page) == ["circle 1"]
    slide(page, 97)
    assert counted(page) == ["nothing above 0.97; the best score is 0.95"]
    page.wait_for_timeout(0.3 * SECONDS)
    assert (demo.finder.calls, len(page.asked)) == (calls, asked)


def test_what_is_saved_is_what_is_seen(demo: Any, visit: Any, photo: Path, tmp_path: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    slide(page, 80)
    coco = json.loads(saved(page, "COCO JSON", tmp_path).read_text())
    assert [(one["category_id"], one["bbox"]) for one in coco["annotations"]] == [
        (1, [80, 80, 241, 241]),
        (2, [360, 360, 281, 281]),
    ]
    assert [one["name"] for one in coco["categories"]][:3] == ["circle", "square", "<b>triangle"]
    assert coco["images"][0]["width"] == 1200
    assert [one.get("segmentation", {}).get("size") for one in coco["annotations"]] == (
        [[800, 1200]] * 2 if demo.finder.masks else [None] * 2
    )
    lines = saved(page, "YOLO txt", tmp_path).read_text().splitlines()
    assert sorted(lines) == ["0 0.167083 0.250625 0.200833 0.301250", "1 0.417083 0.625625 0.234167 0.351250"]
    path = saved(page, "PNG", tmp_path)
    assert path.name == "shapes__b_.png"
    values = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert values.shape == (800, 1200, 3)
    assert np.abs(values[200, 80] - (0x0F, 0x76, 0x6E)).max() < 30, "the left side of the first box"
    assert bool(np.abs(values[200, 200] - (220, 40, 40)).max() > 50) == demo.finder.masks
    assert np.abs(values[500, 950] - (40, 80, 220)).max() < 10, "the triangle is below the threshold"


def test_another_photo_in_the_place_of_the_first(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    page.locator(".gallery-item, .table-wrap tbody tr").first.click()
    page.wait_for_function("document.querySelectorAll('.graft-found li').length == 1", timeout=20 * SECONDS)
    assert counted(page) == ["circle 1"]
    slide(page, 50)
    assert counted(page) == ["circle 1"]
    assert page.broken == []


def test_a_video_gives_boxes_over_time(demo: Any, visit: Any, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(film(30))
    page = visit(demo.url)
    give_video(page, path)
    player = page.locator(".graft-found video")
    player.wait_for(timeout=60 * SECONDS)
    page.wait_for_function("document.querySelector('.graft-found video').readyState >= 2", timeout=20 * SECONDS)
    assert counted(page) == ["circle 1", "square 1"]
    assert page.get_by_text("The model looked at 30 of 30 frames").count() == 1
    assert page.locator(".graft-times polyline").count() == 2
    canvas = page.locator(".graft-found video + canvas")
    film_box, canvas_box = player.bounding_box(), canvas.bounding_box()
    assert canvas_box["height"] == pytest.approx(film_box["height"], abs=1), "a small video is enlarged, with its boxes"
    assert canvas_box["width"] == pytest.approx(film_box["height"] * 320 / 240, abs=2)
    assert canvas_box["x"] * 2 + canvas_box["width"] == pytest.approx(film_box["x"] * 2 + film_box["width"], abs=2)
    painted = []
    for time in (0.2, 1.8):
        player.evaluate("(film, time) => { film.currentTime = time; }", time)
        page.wait_for_function("!document.querySelector('.graft-found video').seeking")
        page.wait_for_timeout(0.3 * SECONDS)
        painted.append(canvas.evaluate(PAINTED))
    assert 0 < painted[0] < painted[1] < 0.7, "boxes lie on the video, one and then two"
    calls = demo.finder.calls
    slide(page, 90)
    assert counted(page) == ["circle 1"]
    assert demo.finder.calls == calls
    coco = json.loads(saved(page, "COCO JSON", tmp_path).read_text())
    assert (len(coco["images"]), len(coco["annotations"])) == (30, 30)
    boxed = saved(page, "Video, threshold 0.80", tmp_path)
    assert boxed.name == "clip_boxes.mp4"
    assert len(video.times("boxed", boxed.read_bytes()).all) == 31
    frame = np.asarray(Image.open(saved(page, "PNG of this frame", tmp_path)).convert("RGB"))
    assert frame.shape == (240, 320, 3)
    assert page.broken == []


def test_a_bad_video_gives_a_message(demo: Any, visit: Any, tmp_path: Path) -> None:
    path = tmp_path / "words.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(300))
    page = visit(demo.url)
    give_video(page, path)
    # the browser may say first that it cannot play the video
    message = page.get_by_test_id("toast-body").filter(has_text="not a readable video").first
    message.wait_for(timeout=20 * SECONDS)
    assert "words.mp4: not a readable video" in message.inner_text()


def test_it_looks_well_everywhere(demo: Any, visit: Any, photo: Path, tmp_path: Path) -> None:
    page = visit(demo.url)
    page.add_style_tag(content="* { transition: none !important; }")
    with_photo(page, photo)
    found = everywhere(page, "a photo")
    (tmp_path / "clip.mp4").write_bytes(film(12))
    give_video(page, tmp_path / "clip.mp4")
    page.locator(".graft-found video").wait_for(timeout=60 * SECONDS)
    page.wait_for_function("[...document.querySelectorAll('video')].every(film => film.readyState >= 2)")
    page.wait_for_timeout(0.3 * SECONDS)
    found += everywhere(page, "a video")
    assert found == []
