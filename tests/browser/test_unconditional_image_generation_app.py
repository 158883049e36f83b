"""The demo of unconditional image generation as a visitor meets it: noise becomes images.

They are saved with their settings.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import serving
from tests.browser.making import Watch, finished, pictures, steps, wait_for_images
from tests.support import tiny_pictures
from tests.support.runs import without_pictures
from tests.unit.apps.test_gallery import unconditional

pytestmark = pytest.mark.browser

STRIDE = 4  # steps from one preview to the next, of 40


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The demo of a run that started from another model."""
    folder = tmp_path_factory.mktemp("shapes")
    raw = {
        "task": "unconditional-image-generation",
        "model": {"id": str(unconditional(folder / "first_shapes"))},
        "data": {"id": str(tiny_pictures.shapes(folder / "photos", n=24, size=8)), "workers": 0},
        "options": {"steps": 4, "samples": 4, "grid": 4},
        "train": {"max_steps": 4, "eval_every": 2, "batch_size": 8, "learning_rate": 2e-3},
    }
    with without_pictures():
        assert train(validate(raw), folder / "more_shapes")
    (folder / "demo").mkdir()
    with serving(folder / "more_shapes", folder / "demo") as found:
        yield found


def test_images_come_out_of_the_noise_and_seeds_repeat(shapes: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(shapes.url)
    watch = Watch(page)
    page.get_by_label("number input for Denoising steps").fill("40")
    page.get_by_label("First seed").fill("3")
    page.get_by_role("button", name="Make images").click()
    finished(page, "4 images")
    notes = [note for note in watch.said() if note.startswith("Image ")]
    assert notes == [note for note in steps(4, 40, STRIDE) if note in notes]  # in order; a busy browser may skip some
    assert len(notes) > 4
    seen = watch.seen()
    assert "image.png" in seen, "no image was seen in the making"  # a busy browser may miss some
    assert "more_shapes-seed-3.png" in seen
    images = pictures(page, "graft-after")
    assert [caption for caption, _ in images] == ["seed 3", "seed 4", "seed 5", "seed 6"]
    assert len({data for _, data in images}) == 4
    page.get_by_label("First seed").fill("0")
    page.get_by_role("button", name="Make images").click()
    wait_for_images(page, "graft-after", "seed 0")
    page.get_by_label("First seed").fill("3")
    page.get_by_role("button", name="Make images").click()
    wait_for_images(page, "graft-after", "seed 3")
    assert pictures(page, "graft-after") == images
    page.get_by_role("button", name="Next seeds").click()
    wait_for_images(page, "graft-after", "seed 7")
    assert page.get_by_label("First seed").input_value() == "7"

    page.locator(".graft-after .thumbnail-lg").first.click()
    with page.expect_download() as waiting:
        page.locator(".graft-after").get_by_role("button", name="Download", exact=True).click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert file.name == "more_shapes-seed-7.png"
    with Image.open(file) as image:
        assert json.loads(image.info["parameters"]) == {"model": "more_shapes", "seed": 7, "steps": 40}
        assert image.tobytes() == load(shapes.run, device="cpu").infer(7, steps=40).tobytes()
    page.get_by_role("tab", name="Image settings").click()
    page.locator("input[type=file]").first.set_input_files(str(file))
    page.locator(".graft-settings").get_by_text('"more_shapes"').wait_for(timeout=20_000)
    page.locator(".graft-settings").get_by_text("7").first.wait_for()
    assert page.broken == []
    assert {url for url in page.asked if not url.startswith((shapes.url, "data:", "blob:", "ws:"))} == set()


def test_before_and_after_stand_side_by_side(shapes: Any, visit: Any) -> None:
    page = visit(shapes.url)
    watch = Watch(page)
    page.get_by_label("Before and after").check()
    page.get_by_role("button", name="Make images").click()
    finished(page, "4 images")
    assert "Loading first_shapes, the model before fine-tuning …" in watch.said()
    before, after = pictures(page, "graft-before"), pictures(page, "graft-after")
    assert (
        [caption for caption, _ in before]
        == [caption for caption, _ in after]
        == ["seed 0", "seed 1", "seed 2", "seed 3"]
    )
    assert len({data for _, data in [*before, *after]}) == 8
    left, right = (page.locator(f".{name}").bounding_box() for name in ("graft-before", "graft-after"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    page.get_by_role("button", name="Over training").click()
    page.get_by_text("step 4", exact=True).wait_for(timeout=20_000)
    assert page.locator(".graft-grids .thumbnail-lg").count() == 3


def test_a_bad_seed_is_a_message(shapes: Any, visit: Any) -> None:
    page = visit(shapes.url, 390)
    page.get_by_label("First seed").fill("seven")
    page.get_by_role("button", name="Make images").click()
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20_000)
    assert "'seven' is no seed: give a whole number, such as 0" in message.inner_text()
    assert "Traceback" not in page.content() + shapes.log.read_text()
    page.get_by_label("First seed").fill("7")
    page.get_by_role("button", name="Make images").click()
    finished(page, "4 images")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
