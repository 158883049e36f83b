"""The demo of text-to-image as a visitor meets it.

A prompt becomes images step by step; the page also shows the images of the model before fine-tuning.
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
from tests.support import tiny_diffusion, tiny_pictures
from tests.support.runs import without_pictures

pytestmark = pytest.mark.browser

STRIDE = 4  # steps from one preview to the next, of 40


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny Stable Diffusion after a few steps, served."""
    folder = tmp_path_factory.mktemp("painter")
    raw = {
        "task": "text-to-image",
        "model": {"id": str(tiny_diffusion.stable(folder / "first_painter"))},
        "data": {"id": str(tiny_pictures.shapes(folder / "photos", n=24, captions="metadata")), "workers": 0},
        "options": {"steps": 4, "samples": 2, "grid": 2},
        "train": {"max_steps": 4, "eval_every": 2, "batch_size": 8, "learning_rate": 1e-3},
        "hub": {"examples": 3},
    }
    with without_pictures():
        assert train(validate(raw), folder / "shape_painter")
    (folder / "demo").mkdir()
    with serving(folder / "shape_painter", folder / "demo") as found:
        yield found


def test_a_prompt_becomes_images_with_their_settings(painter: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(painter.url)
    watch = Watch(page)
    page.get_by_label("number input for Denoising steps").fill("40")
    page.get_by_label("Prompt").fill("a red disc")
    page.get_by_role("button", name="Make images").click()
    finished(page, "4 images")
    notes = [note for note in watch.said() if note.startswith("Image ")]
    assert notes == [note for note in steps(4, 40, STRIDE) if note in notes]  # in order; a busy browser may skip some
    assert len(notes) > 4
    seen = watch.seen()
    assert "image.png" in seen, "no image was seen in the making"  # a busy browser may miss some, not those of all four
    assert "a-red-disc-seed-0.png" in seen
    images = pictures(page, "graft-after")
    assert len({data for _, data in images}) == 4
    page.get_by_label("First seed").fill("1")
    page.get_by_role("button", name="Make images").click()
    wait_for_images(page, "graft-after", "seed 1")
    assert pictures(page, "graft-after")[:3] == images[1:]  # the same seeds as before

    page.locator(".graft-after .thumbnail-lg").first.click()
    with page.expect_download() as waiting:
        page.locator(".graft-after").get_by_role("button", name="Download", exact=True).click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert file.name == "a-red-disc-seed-1.png"
    parameters = {"model": "shape_painter", "prompt": "a red disc", "seed": 1, "steps": 40, "guidance": 7.5}
    with Image.open(file) as image:
        assert json.loads(image.info["parameters"]) == parameters
        assert image.tobytes() == load(painter.run, device="cpu").infer("a red disc", seed=1, steps=40).tobytes()
    assert page.broken == []
    assert {url for url in page.asked if not url.startswith((painter.url, "data:", "blob:", "ws:"))} == set()


def test_the_same_before_fine_tuning(painter: Any, visit: Any) -> None:
    page = visit(painter.url)
    watch = Watch(page)
    prompt = json.loads((painter.run / "examples" / "examples.json").read_text())[0]["text"]
    page.get_by_text(prompt, exact=True).first.click()  # an example
    page.wait_for_function("text => document.querySelector('textarea').value == text", arg=prompt)
    page.get_by_label("Before and after").check()
    page.get_by_role("button", name="Make images").click()
    finished(page, "4 images")
    assert "Loading first_painter, the model before fine-tuning …" in watch.said()
    before, after = pictures(page, "graft-before"), pictures(page, "graft-after")
    assert (
        [caption for caption, _ in before]
        == [caption for caption, _ in after]
        == ["seed 0", "seed 1", "seed 2", "seed 3"]
    )
    assert len({data for _, data in [*before, *after]}) == 8


def test_an_empty_prompt_is_a_message(painter: Any, visit: Any) -> None:
    page = visit(painter.url, 390)
    page.get_by_role("button", name="Make images").click()
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20_000)
    assert "a prompt is needed" in message.inner_text()
    assert "Traceback" not in page.content() + painter.log.read_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
