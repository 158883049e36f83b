"""The demo of image segmentation as a visitor meets it: opacity, switches, the class under the pointer, saved files."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.browser.test_demo_looks import UNNAMED, everywhere
from tests.support.area_segmenter import LABELS, Segmenter
from tests.support.shape_finder import PHOTO, scene

pytestmark = [pytest.mark.browser, pytest.mark.quick]

SECONDS = 1000
COLOUR = """([x, y]) => {
  const canvas = document.querySelector('.graft-found canvas');
  const place = [Math.round(x * canvas.width), Math.round(y * canvas.height)];
  return [...canvas.getContext('2d').getImageData(...place, 1, 1).data].slice(0, 3);
}"""
# places in the photo, as parts of its sides
ROAD, TREE, CAR, SKY = (200 / 1200, 200 / 800), (500 / 1200, 500 / 800), (950 / 1200, 520 / 800), (0.02, 0.02)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A demo whose model knows the classes of colours; `model.calls` counts how often it was asked."""
    from pipelines.apps import launch

    folder = tmp_path_factory.mktemp("areas")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        (folder / "examples").mkdir()
        (folder / "README.md").write_text("# Areas\n")
        scene((640, 480), PHOTO[:1]).save(folder / "examples" / "0.jpg")
        (folder / "examples" / "examples.json").write_text('[{"image": "0.jpg"}]')
        model: Any = Segmenter(folder)
        blocks = launch.app(model)
        launch.serve(blocks, "127.0.0.1")
        yield SimpleNamespace(url=blocks.local_url, model=model)
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "areas <b>.png"
    scene((1200, 800), PHOTO).save(path)
    return path


def with_photo(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(".graft-found li").first.wait_for(timeout=20 * SECONDS)
    page.wait_for_function("document.querySelector('.graft-found canvas')?.width > 300")


def listed(page: Any) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(".graft-found li").all_inner_texts()]


def switch(page: Any, name: str) -> Any:
    return page.get_by_role("switch", name=name)


def slide(page: Any, value: int) -> None:
    page.get_by_label("Opacity of the colours").fill(str(value))


def near(colour: list[int], other: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(colour, other)).max() < 12)


def saved(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(".graft-saves").get_by_text(button).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_photo_gives_classes_with_their_share(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    hint = page.get_by_text("The classes of a photo appear here, as colours.")
    hint.wait_for(timeout=20 * SECONDS)
    with_photo(page, photo)
    assert not hint.is_visible()
    assert listed(page) == ["sky & clouds 81 %", "<b>tree 8.2 %", "road 5.9 %", "car 4.7 %"]
    canvas = page.locator(".graft-found canvas")
    words = "Photo with coloured classes: sky & clouds 81 %, <b>tree 8.2 %, road 5.9 %, car 4.7 %"
    assert canvas.get_attribute("aria-label") == words
    assert page.broken == []


def test_switches_and_slider_ask_neither_server_nor_model(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    page.wait_for_timeout(0.5 * SECONDS)
    calls, asked = demo.model.calls, len(page.asked)
    slide(page, 0)
    assert near(page.evaluate(COLOUR, ROAD), (220, 40, 40))
    slide(page, 100)
    colours = [page.evaluate(COLOUR, place) for place in (ROAD, TREE, CAR, SKY)]
    assert len({tuple(colour) for colour in colours}) == 4
    assert not near(colours[0], (220, 40, 40))
    switch(page, "road").uncheck()
    assert near(page.evaluate(COLOUR, ROAD), (220, 40, 40)), "the photo itself"
    assert page.evaluate(COLOUR, TREE) == colours[1]
    canvas = page.locator(".graft-found canvas")
    assert "road" not in canvas.get_attribute("aria-label")
    page.get_by_role("button", name="Hide all").click()
    assert canvas.get_attribute("aria-label") == "Photo with coloured classes: none is shown"
    assert near(page.evaluate(COLOUR, TREE), (40, 170, 60))
    page.get_by_role("button", name="Show all").click()
    assert [page.evaluate(COLOUR, place) for place in (ROAD, TREE, CAR, SKY)] == colours
    page.wait_for_timeout(0.3 * SECONDS)
    assert (demo.model.calls, len(page.asked)) == (calls, asked)


def test_the_keyboard_works_the_switches(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    slide(page, 100)
    before = page.evaluate(COLOUR, TREE)
    page.get_by_label("Opacity of the colours").focus()
    page.keyboard.press("Tab")  # Hide all
    page.keyboard.press("Tab")  # the first switch
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.parentElement.innerText")
    assert "<b>tree" in focused
    assert page.evaluate(COLOUR, TREE) == before
    assert page.evaluate(COLOUR, SKY) != page.evaluate(COLOUR, TREE), "the others are faint"
    page.keyboard.press("Space")
    assert not switch(page, "tree").is_checked()
    assert near(page.evaluate(COLOUR, TREE), (40, 170, 60))


def test_the_class_under_the_pointer(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    with_photo(page, photo)
    pointed, canvas = page.locator(".graft-pointed"), page.locator(".graft-found canvas")
    hint = pointed.inner_text()
    box = canvas.bounding_box()
    for place, words in (
        (TREE, "<b>tree 8.2 % of the pixels, mean score 0.80"),
        (ROAD, "road 5.9 % of the pixels, mean score 0.70"),
    ):
        canvas.hover(position={"x": place[0] * box["width"], "y": place[1] * box["height"]})
        assert " ".join(pointed.inner_text().split()) == words
    page.locator(".graft-header h1").hover()
    assert pointed.inner_text() == hint


def test_a_tap_on_a_phone_names_the_class(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url, width=375)
    with_photo(page, photo)
    canvas = page.locator(".graft-found canvas")
    box = canvas.bounding_box()
    canvas.tap(position={"x": CAR[0] * box["width"], "y": CAR[1] * box["height"]})
    assert page.locator(".graft-pointed").inner_text().startswith("car")
    switch(page, "car").tap()
    assert not switch(page, "car").is_checked()


def test_things_of_one_class_share_a_switch(
    demo: Any, visit: Any, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo.model, "things", True)
    cars = [("<b>triangle", 200, 200, 100), ("<b>triangle", 700, 200, 150)]
    scene((1200, 800), cars).save(tmp_path / "cars.png")
    page = visit(demo.url)
    with_photo(page, tmp_path / "cars.png")
    assert listed(page) == ["sky & clouds 93 %", "car (2) 6.8 %"]
    coco = json.loads(saved(page, "COCO JSON", tmp_path).read_text())
    assert [one["category_id"] for one in coco["annotations"]] == [4, 3, 3]


def test_saved_files_have_the_size_of_the_photo(demo: Any, visit: Any, tmp_path: Path) -> None:
    large = tmp_path / "large <i>.png"
    scene((2400, 1600), PHOTO).save(large)
    page = visit(demo.url)
    with_photo(page, large)
    path = saved(page, "Label map (PNG)", tmp_path)
    assert path.name == "large__i_.png"
    image = Image.open(path)
    assert (image.mode, image.size) == ("P", (2400, 1600))
    values = np.asarray(image)
    assert [values[10, 10], values[200, 200], values[500, 500], values[520, 950]] == [3, 0, 1, 2]
    coco = json.loads(saved(page, "COCO JSON", tmp_path).read_text())
    assert coco["images"][0]["file_name"] == "large <i>.png"
    assert [one["name"] for one in coco["categories"]] == LABELS
    covered = sum(coco_mask.decode(one["segmentation"]).astype(int) for one in coco["annotations"])
    assert covered.shape == (1600, 2400)
    assert (covered == 1).all()
    slide(page, 100)
    overlay = np.asarray(Image.open(saved(page, "Overlay (PNG)", tmp_path)).convert("RGB"))
    assert overlay.shape == (1067, 1600, 3), "as the page shows it"
    assert len(np.unique(overlay[::7, ::7].reshape(-1, 3), axis=0)) == 4
    assert page.broken == []


def test_a_tiff_asks_which_page(demo: Any, visit: Any, photo: Path, tmp_path: Path) -> None:
    pages = [scene((300, 200), [(kind, 150, 100, 60)]) for kind in ("circle", "square", "<b>triangle")]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    page = visit(demo.url)
    with_photo(page, tmp_path / "stack.tif")
    assert "road" in listed(page)[1]
    number = page.get_by_label("Page (1 to 3)")
    for place, name in (("3", "car"), ("2", "tree"), ("1", "road"), ("3", "car")):
        number.fill(place)
        page.locator(".graft-found li").filter(has_text=name).wait_for(timeout=20 * SECONDS)
        assert len(listed(page)) == 2
    number.fill("7")
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20 * SECONDS)
    assert "stack.tif: no page 7: the file has 3" in message.inner_text()
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.locator(".graft-found figure").wait_for(state="detached", timeout=20 * SECONDS)
    with_photo(page, photo)
    assert not number.is_visible()
    slide(page, 0)
    assert near(page.evaluate(COLOUR, CAR), (40, 80, 220))
    assert page.broken == []


def test_it_looks_well_everywhere(demo: Any, visit: Any, photo: Path) -> None:
    page = visit(demo.url)
    page.add_style_tag(content="* { transition: none !important; }")
    with_photo(page, photo)
    page.locator(".graft-found canvas").hover()
    switch(page, "road").uncheck()
    assert everywhere(page, "a photo") == []
    assert page.evaluate(UNNAMED) == []
