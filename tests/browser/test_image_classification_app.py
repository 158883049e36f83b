"""The demo of image classification as a visitor meets it."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pipelines.apps import parts
from tests.support import tiny

pytestmark = [pytest.mark.browser, pytest.mark.quick]

SECONDS = 1000


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of a dog that the model has not seen, as large as a photo."""
    folder = tiny.photos(tmp_path_factory.mktemp("new"), n=1, splits=("test",), seed=7)
    path = folder / "photo.jpg"
    Image.open(folder / "test" / "dog" / "000.jpg").resize((640, 480), Image.Resampling.BICUBIC).save(path)
    return path


def upload(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))


def first_class(page: Any) -> str:
    return page.get_by_test_id("label-output-value").inner_text(timeout=20 * SECONDS)


def test_a_photo_gives_bars_with_the_right_class_first(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    upload(page, photo)
    assert first_class(page) == "dog"
    meters = page.locator("meter")
    assert meters.count() == 2
    values = [float(meters.nth(i).get_attribute("value")) for i in range(2)]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    widths = [meters.nth(i).bounding_box()["width"] for i in range(2)]
    assert widths[1] / widths[0] == pytest.approx(values[1] / values[0], rel=0.05)


def test_title_line_and_score_are_seen_at_once(demo: Any, visit: Any) -> None:
    results = json.loads((demo.run / "results.json").read_text())
    numbers = [re.sub("<[^>]+>", "", item) for item in parts.numbers_shown(results)]
    assert numbers[0].startswith("Accuracy ")
    page = visit(demo.url)
    header = page.locator(".graft-header").first.inner_text()
    for words in ("cats_dogs_tiny", "cat, dog", *numbers, f"n = {results['test']['n']}, test split"):
        assert words in header
    assert str(demo.run.parent) not in page.content()


def test_an_example_is_one_click(demo: Any, visit: Any) -> None:
    page = visit(demo.url)
    rows = json.loads((demo.run / "examples" / "examples.json").read_text())
    page.locator(".gallery-item").first.wait_for(timeout=20 * SECONDS)
    assert page.locator(".gallery-item").count() == len(rows) > 1
    # Gradio ignores a click while it loads an example, so each answer must differ from the one before it
    cats, dogs = ([index for index, row in enumerate(rows) if row["label"] == label] for label in ("cat", "dog"))
    assert len(cats) == len(dogs) == 3
    for index in (index for pair in zip(cats, dogs, strict=True) for index in pair):
        page.locator(".gallery-item").nth(index).click()
        label = rows[index]["label"]
        page.locator(f"[data-testid=label-output-value]:text-is('{label}')").wait_for(timeout=20 * SECONDS)


def test_the_map_appears_on_demand_and_goes_with_its_photo(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    button = page.get_by_role("button", name="What did it look at?")
    assert button.count() == 0
    upload(page, photo)
    first_class(page)
    button.click()
    caption = page.locator(".graft-note p")
    caption.wait_for(timeout=60 * SECONDS)
    assert "region" in caption.inner_text()
    page.get_by_label("By gradients").check()
    button.click()
    page.get_by_text("Orange parts speak for the answer").wait_for(timeout=60 * SECONDS)
    assert page.locator(".graft-stack img").count() == 2
    page.locator(".gallery-item").first.click()
    caption.wait_for(state="detached", timeout=20 * SECONDS)
    assert page.locator(".graft-stack").count() == 0


def test_the_card_is_in_a_tab_and_asks_nothing_of_other_hosts(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    upload(page, photo)
    first_class(page)
    page.get_by_role("tab", name="Model card").click()
    card = page.locator(".graft-card").first
    card.locator("table").first.wait_for()
    assert "license:" not in card.inner_text()
    assert card.locator("img").count() == len(list((demo.run / "model" / "figures").glob("*.png"))) > 0
    assert all(card.locator("img").evaluate_all("images => images.map(image => image.naturalWidth > 0)"))
    assert card.get_by_role("link", name="badge").get_attribute("href") == "https://img.example.org/badge.svg"
    page.wait_for_timeout(0.5 * SECONDS)
    assert len(page.asked) > 10
    assert {urlsplit(url).hostname for url in page.asked if url.startswith("http")} == {"127.0.0.1"}
    assert page.broken == []


@pytest.mark.parametrize("kind", ["broken", "empty", "words", "bomb"])
def test_a_bad_file_gives_a_message(demo: Any, visit: Any, photo: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.png"
    if kind == "broken":
        screenshot = tmp_path / "whole.png"
        Image.open(photo).save(screenshot)
        path.write_bytes(screenshot.read_bytes()[:5000])
    elif kind == "bomb":
        Image.new("1", (16_000, 16_000)).save(path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"not an image")
    page = visit(demo.url)
    upload(page, path)
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20 * SECONDS)
    words = message.inner_text()
    assert path.name in words
    assert ("pixels" if kind == "bomb" else "not a readable image") in words
    assert "Traceback" not in page.content()
    assert "Traceback" not in demo.log.read_text()
    upload(page, photo)  # the page still works
    assert first_class(page) == "dog"


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_sticks_out_on_a_small_screen(demo: Any, visit: Any, photo: Path, width: int) -> None:
    page = visit(demo.url, width)
    upload(page, photo)
    assert first_class(page) == "dog"
    for tab in ("Model card", "Try it"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(0.3 * SECONDS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
