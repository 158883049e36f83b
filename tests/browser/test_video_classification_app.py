"""The demo of video classification as a visitor meets it: an mp4 and a webm, the chart, what decides, other files."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import FLAGS, serving
from tests.support import tiny_tfrecords, tiny_video_models, tiny_videos
from tests.support.runs import without_pictures

pytestmark = pytest.mark.browser

SECONDS = 1000
TIME = "document.querySelector('.graft-over-time video').currentTime"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A small R(2+1)D that has learned in which of two directions a disc moves."""
    folder = tmp_path_factory.mktemp("shapes")
    data = tiny_videos.moving_shapes(folder / "videos", 40, classes=2, frames=10, side=32)
    raw = {
        "task": "video-classification",
        "model": {"config": tiny_video_models.R2PLUS1D},
        "data": {"id": str(data), "workers": 0},
        "train": {"epochs": 8, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
        "hub": {"examples": 2},
    }
    with without_pictures():
        results = train(validate(raw), folder / "shapes_tiny")
    assert results
    assert results["test"]["metrics"]["accuracy"] > 0.8
    (folder / "demo").mkdir()
    with serving(folder / "shapes_tiny", folder / "demo") as found:
        yield found


def turning(path: Path, form: str = "mp4", side: int = 96) -> Path:
    """Six seconds: a disc moves to the right, and then back to the left."""
    y, x = np.mgrid[:side, :side]
    ground, colour = np.array([40, 30, 70]), np.array([240, 200, 90])
    at, shown = 0.0, []
    for number in range(48):
        at += side * (0.08 if number < 24 else -0.08)
        far = np.hypot((x - at + side / 2) % side - side / 2, y - side / 2)
        inside = np.clip(side * 0.17 + 0.5 - far, 0, 1)[..., None]
        shown.append((ground + inside * (colour - ground)).astype(np.uint8))
    tiny_videos.write(path, shown, form, rate=8)
    return path


def give(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(".graft-over-time video").wait_for(timeout=60 * SECONDS)
    page.locator(".graft-bars dt").first.wait_for(timeout=20 * SECONDS)


def chart(page: Any) -> dict[str, Any]:
    """The data of the chart."""
    found: dict[str, Any] = page.evaluate(
        "JSON.parse(atob(document.querySelector('.graft-over-time figure').dataset.found))"
    )
    return found


@pytest.mark.parametrize("form", ["mp4", "webm", "avi"])
def test_a_video_gives_bars_and_a_chart(shapes: Any, visit: Any, tmp_path: Path, form: str) -> None:
    page = visit(shapes.url)
    page.get_by_text("The likeliest classes of a video appear here").wait_for(timeout=20 * SECONDS)
    path = turning(tmp_path / f"turn.{form}", form)
    give(page, path)
    loaded = load(shapes.run, device="cpu")
    expected = loaded.infer(str(path))
    assert page.locator(".graft-bars dt").all_inner_texts() == [answer["label"] for answer in expected]
    assert page.locator(".graft-bars h2").inner_text() == expected[0]["label"]
    about = chart(page)
    assert about["seconds"] == pytest.approx(6, abs=0.15)
    assert about["lines"][0]["label"] == expected[0]["label"]
    task: Any = loaded.task
    scores = task.over_time(loaded.model, str(path))["scores"][:, task.labels.index(expected[0]["label"])]
    assert about["lines"][0]["scores"] == pytest.approx(scores.tolist(), abs=1e-4)
    assert page.locator(".graft-over-time polyline").count() == len(about["lines"]) == 2
    words = page.locator(".graft-over-time [role=slider]").get_attribute("aria-label")
    assert words.startswith("The likeliest class over time: direction_0 from 0.0 to ")
    assert ", direction_1 from " in words
    page.wait_for_function("document.querySelector('.graft-over-time video').readyState >= 2", timeout=20 * SECONDS)
    assert page.locator(".graft-film .graft-unplayable").count() == (form == "avi")
    assert page.get_by_test_id("toast-body").count() == 0
    page.screenshot(path=str(shapes.log.parent / f"{form}.png"), full_page=True)
    assert page.broken == []
    assert {url for url in page.asked if not url.startswith((shapes.url, "data:", "blob:", "ws:"))} == set()


def test_a_click_on_the_chart_and_keys_seek_the_player(shapes: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(shapes.url)
    give(page, turning(tmp_path / "turn.mp4"))
    page.wait_for_function("document.querySelector('.graft-over-time video').readyState >= 1", timeout=20 * SECONDS)
    area = page.locator(".graft-over-time [role=slider]")
    box = area.bounding_box()
    shown = page.locator(".graft-over-time li b")
    for share, best in ((0.2, "direction_0"), (0.8, "direction_1")):
        area.click(position={"x": share * box["width"], "y": 20})
        assert page.evaluate(TIME) == pytest.approx(share * chart(page)["seconds"], abs=0.1)
        page.wait_for_timeout(0.2 * SECONDS)
        cursor = page.locator(".graft-over-time line.cursor")
        assert float(cursor.get_attribute("x1")) == pytest.approx(page.evaluate(TIME), abs=0.01)
        assert f" seconds: {best} " in area.get_attribute("aria-valuetext")
        scores = [float(text.removesuffix(" %")) for text in shown.all_inner_texts()]
        names = page.locator(".graft-over-time li span").all_inner_texts()
        assert names[int(np.argmax(scores))] == best
    area.press("Home")
    assert page.evaluate(TIME) == 0
    area.press("ArrowRight")
    assert page.evaluate(TIME) == pytest.approx(chart(page)["seconds"] / 50, abs=0.01)
    asked = len(page.asked)
    area.press("End")
    assert len(page.asked) == asked, "the server is not needed"
    assert page.broken == []


def test_the_frames_that_decide_are_marked(shapes: Any, visit: Any) -> None:
    page = visit(shapes.url)
    row = json.loads((shapes.run / "model" / "examples" / "examples.json").read_text())[0]
    page.locator(".gallery-item, .table-wrap tr").filter(has_text=row["label"]).first.click()
    page.locator(".graft-ask").click(timeout=60 * SECONDS)
    note = page.locator(".graft-ask ~ .graft-note p")
    note.wait_for(timeout=60 * SECONDS)
    assert note.inner_text().startswith("Hiding the warmest frames (")
    frames = page.locator(".graft-strip button")
    assert frames.nth(1).locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    frames.nth(1).click()
    assert page.evaluate(TIME) == pytest.approx(float(frames.nth(1).get_attribute("data-time")), abs=0.01)
    assert "100 % of the largest change" in " ".join(frames.evaluate_all("all => all.map(one => one.ariaLabel)"))
    page.screenshot(path=str(shapes.log.parent / "decides.png"), full_page=True)
    page.get_by_label("By gradients").check()
    page.locator(".graft-ask").click()
    page.get_by_text("Orange parts speak for the answer").wait_for(timeout=60 * SECONDS)
    assert page.locator(".graft-strip img").count() == 1
    assert page.broken == []


def test_another_video_in_the_place_of_the_first(shapes: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(shapes.url)
    give(page, turning(tmp_path / "turn.mp4"))
    page.locator(".graft-ask").click()
    page.locator(".graft-ask ~ .graft-note p").wait_for(timeout=60 * SECONDS)
    page.locator(".gallery-item, .table-wrap tr").first.click()
    page.wait_for_function(
        "JSON.parse(atob(document.querySelector('.graft-over-time figure').dataset.found)).seconds < 2",
        timeout=60 * SECONDS,
    )
    page.locator(".graft-ask ~ .graft-note p").wait_for(state="detached", timeout=20 * SECONDS)
    assert page.locator(".graft-strip img").count() == 0
    page.get_by_label("Clear").first.click()
    page.get_by_text("The likeliest classes of a video appear here").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-over-time figure").count() == 0
    assert not page.locator(".graft-ask").is_visible()
    assert page.broken == []


def test_a_webcam_is_seen(shapes: Any, chromium: Any) -> None:
    """Chromium's fake camera shows a moving circle."""
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    browser = chromium.browser_type.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, *fake])
    page = browser.new_page(permissions=["camera"])
    page.goto(shapes.url)
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_label("start recording").click()
    page.wait_for_timeout(3 * SECONDS)
    page.locator(".graft-film .button-wrap button").first.click()
    page.locator(".graft-over-time video").wait_for(timeout=30 * SECONDS)
    assert chart(page)["seconds"] > 0.5
    assert sorted(page.locator(".graft-bars dt").all_inner_texts()) == ["direction_0", "direction_1"]
    browser.close()


def test_on_a_phone_nothing_is_wider_than_the_page(shapes: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(shapes.url, 390)
    give(page, turning(tmp_path / ("a long name of a video " * 5 + ".mp4")))
    page.locator(".graft-ask").click()
    page.locator(".graft-ask ~ .graft-note p").wait_for(timeout=60 * SECONDS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=str(shapes.log.parent / "phone.png"), full_page=True)


def test_a_broken_file_gives_a_message(shapes: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(shapes.url)
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(200))
    page.locator("input[type=file]").first.set_input_files(str(path))
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20 * SECONDS)
    assert "broken.mp4: not a readable video" in message.inner_text()
    assert "Traceback" not in shapes.log.read_text()


# ---- features ----


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A mixture of experts with random weights that reads features of videos."""
    from pipelines.models import video_features
    from pipelines.models.source import Weights

    folder = tmp_path_factory.mktemp("features")
    labels = ["<i>cat</i>", *(f"class {number}" for number in range(1, tiny_tfrecords.CLASSES))]
    config = {"model_type": "video_features", "architecture": "moe", "mixtures": 2}
    model, family = video_features.build(Weights(None, config, True), labels, True, {"rgb": 1024, "audio": 128})
    (folder / "model").mkdir()
    family.save(model, folder / "model")
    (folder / "demo").mkdir()
    with serving(folder / "model", folder / "demo") as found:
        yield found


def test_each_record_of_a_shard_is_answered(features: Any, visit: Any, tmp_path: Path) -> None:
    from pipelines.data.video import tfrecord

    records = [tiny_tfrecords.record(number) for number in range(4)]
    path = tiny_tfrecords.shard(tmp_path / "train0000.tfrecord", records)
    loaded, page = load(features.run, device="cpu"), visit(features.url, 390)
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.get_by_text("Record (1 to 4)").wait_for(timeout=30 * SECONDS)
    for number in (1, 3):
        if number > 1:
            page.get_by_role("spinbutton").fill(str(number))
        own = tiny_tfrecords.labels_of(number - 1)
        names = ", ".join(loaded.task.labels[one] for one in own)  # type: ignore[attr-defined]
        page.get_by_text(f"Its own labels: {names}.").wait_for(timeout=30 * SECONDS)
        read = tfrecord.joined(tfrecord.read_example(records[number - 1]).features)
        expected = [answer["label"] for answer in loaded.infer(read, top_k=10)]
        assert page.locator(".graft-bars dt").all_inner_texts() == expected
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("spinbutton").fill("9")
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20 * SECONDS)
    assert "train0000.tfrecord: no record 9: it has 4" in message.inner_text()
    assert page.broken == []
    assert {url for url in page.asked if not url.startswith((features.url, "data:", "blob:", "ws:"))} == set()
