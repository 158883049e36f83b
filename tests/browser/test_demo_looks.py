"""How the demos of all tasks look: on a phone, a tablet and a desktop, in light and dark mode, at every moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import tiny
from tests.support.demo_tour import answered, darken, served
from tests.support.page_checks import problems
from tests.support.ten_demos import models

pytestmark = pytest.mark.browser

SECONDS = 1000
WIDTHS = (1280, 768, 375)
SHOWN = """image => {
  const box = image.getBoundingClientRect(), [width, height] = [image.naturalWidth, image.naturalHeight];
  const scale = Math.min(box.width / width, box.height / height);
  return [width * scale, height * scale];
}"""
UNNAMED = """() => [...document.querySelectorAll('button, input, select, textarea, img, [role=tab]')].filter(one => {
  if (!one.checkVisibility() || one.type == 'file') return false;
  if (one.tagName == 'IMG') return !one.alt && !one.closest('[aria-label], [aria-hidden=true]');
  const label = one.labels?.length ? one.labels[0].innerText : '';
  return !(one.innerText || label || one.ariaLabel || one.title || one.placeholder || '').trim();
}).map(one => one.outerHTML.slice(0, 160))"""


@pytest.fixture(scope="module")
def demos(ten_runs: Path) -> Iterator[dict[str, str]]:
    """Task -> the address of its demo, which shows a finished run."""
    with served(ten_runs) as found:
        yield found


def everywhere(page: Any, moment: str) -> list[str]:
    """The problems of the page as it is now, at every width, in light and dark mode."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for dark in (False, True):
            darken(page, dark)
            page.wait_for_timeout(50)
            found += [f"{moment}, {width}, {'dark' if dark else 'light'}: {one}" for one in problems(page)]
    darken(page, False)
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    return found


@pytest.mark.parametrize("task", sorted(models()))
def test_nothing_overlaps_or_sticks_out_and_all_is_readable(demos: dict[str, str], visit: Any, task: str) -> None:
    page = visit(demos[task])
    page.add_style_tag(content="* { transition: none !important; }")  # colours fade over
    page.wait_for_timeout(300)
    found = everywhere(page, "at first")
    answered(page)
    found += everywhere(page, "with an answer")
    unnamed = page.evaluate(UNNAMED)
    for name in page.get_by_role("tab").all_inner_texts()[1:]:
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(300)
        found += everywhere(page, name)
    assert found == []
    assert unnamed == []
    assert page.broken == []


def test_a_message_is_readable(demos: dict[str, str], visit: Any, tmp_path: Path) -> None:
    page = visit(demos["image-classification"])
    file = tmp_path / ("a long name of a file " * 4 + ".png")
    file.write_text("not an image")
    page.locator("input[type=file]").first.set_input_files(str(file))
    page.get_by_test_id("toast-body").first.wait_for(timeout=20 * SECONDS)
    page.add_style_tag(content="* { transition: none !important; }")
    page.wait_for_timeout(500)
    assert everywhere(page, "with a message") == []


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a demo that draws a map even where no region decides."""
    from pipelines.apps import image_classification, launch
    from pipelines.inference.loading import load

    monkeypatch.setattr(image_classification, "FLAT", -1.0)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks = launch.app(load(tiny.vit(tmp_path / "vit"), task="image-classification", device="cpu"))
    launch.serve(blocks, "127.0.0.1")
    yield blocks.local_url
    blocks.close(verbose=False)


def test_the_map_has_the_place_and_size_of_the_photo(mapped: str, visit: Any, tmp_path: Path) -> None:
    for place, size in enumerate([(1600, 200), (200, 1600), (24, 24)]):
        page = visit(mapped)
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"photo{place}.png")
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / f"photo{place}.png"))
        page.locator(".graft-ask").click(timeout=20 * SECONDS)
        page.locator(".graft-note p").first.wait_for(timeout=60 * SECONDS)
        images = page.locator(".graft-stack img")
        upload = page.locator(".graft-photo .image-frame img")
        photo, heat = (images.nth(number).bounding_box() for number in (0, 1))
        assert photo == heat
        assert images.nth(0).evaluate(SHOWN) == pytest.approx(upload.evaluate(SHOWN), rel=0.02, abs=1)
        widths, heights = (
            images.evaluate_all(f"all => all.map(one => one.natural{side})") for side in ("Width", "Height")
        )
        assert widths[0] == widths[1]
        assert heights[0] == heights[1]
        slider = page.get_by_label("Strength of the heat map")
        for key, opacity in (("Home", "0"), ("End", "1")):
            slider.press(key)
            assert images.nth(1).evaluate("image => getComputedStyle(image).opacity") == opacity
