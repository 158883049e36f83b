"""The demo of WaveNet as a visitor meets it: sound of a class, and a recording made again from its spectrogram."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.data.audio.tags import read_settings
from pipelines.training.run import train
from tests.browser.conftest import serving
from tests.browser.test_text_to_speech_app import PLAY, SAYS, SECONDS
from tests.support import tiny_audio

pytestmark = pytest.mark.browser

CONFIG = {
    "model_type": "wavenet",
    "hidden_size": 8,
    "skip_size": 8,
    "num_layers": 3,
    "stacks": 2,
    "condition_size": 4,
    "sampling_rate": 4000,
}
MEL = {"n_fft": 64, "win_length": 32, "hop_length": 16, "num_mel_bins": 8}


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SimpleNamespace]]:
    """A tiny WaveNet of classes and a tiny vocoder after a few steps, served."""
    folder = tmp_path_factory.mktemp("wavenets")
    clips = tiny_audio.labelled(folder / "clips", 12)
    for name, options in {"label": {"seconds": 0.5}, "mel": {"mel": MEL}}.items():
        raw = {
            "task": "audio-generation-wavenet",
            "model": {"config": CONFIG},
            "data": {"id": str(clips), "workers": 0},
            "options": {"condition": name, **options, "crop_seconds": 0.05, "samples": 0, "grid": 0},
            "train": {"max_steps": 2, "eval_every": 2, "batch_size": 4, "learning_rate": 1e-3},
            "hub": {"examples": 2},
        }
        assert train(validate(raw), folder / f"of_{name}")
        (folder / f"demo {name}").mkdir()
    with (
        serving(folder / "of_label", folder / "demo label") as label,
        serving(folder / "of_mel", folder / "demo mel") as mel,
    ):
        yield {"label": label, "mel": mel}


def saved(page: Any, tmp_path: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(".graft-made-sound a[download]").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def test_sound_of_a_class_plays(demos: dict[str, Any], visit: Any, tmp_path: Path) -> None:
    page = visit(demos["label"].url, 390)
    page.get_by_label("Class").click()
    page.get_by_role("option", name="mid").click()
    page.get_by_label("number input for Seconds").fill("0.25")
    page.get_by_label("Seed").fill("5")
    page.get_by_role("button", name="Make sound").click()
    page.get_by_text(SAYS).wait_for(timeout=60 * SECONDS)
    length, reached = page.evaluate(PLAY)
    assert length == pytest.approx(0.25, abs=0.01)
    assert reached > 0
    file = saved(page, tmp_path)
    made = read_settings(file, file.name)
    assert {key: made[key] for key in ("model", "label", "seed", "seconds", "synthetic")} == {
        "model": "of_label",
        "label": "mid",
        "seed": 5,
        "seconds": 0.25,
        "synthetic": True,
    }
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.broken == []


def test_a_recording_is_made_again(demos: dict[str, Any], visit: Any, tmp_path: Path) -> None:
    page = visit(demos["mel"].url)
    page.get_by_role("button", name="Make it again").click()
    message = page.get_by_test_id("toast-body")
    message.filter(has_text="a recording is needed: upload one, or speak").first.wait_for(timeout=20 * SECONDS)
    own = tiny_audio.write(tmp_path / "my <b>.wav", tiny_audio.spoken("low mid"))
    field = page.locator("input[type=file]").first
    field.set_input_files(str(own))
    page.get_by_role("button", name="Make it again").click()
    page.get_by_text(SAYS).wait_for(timeout=60 * SECONDS)
    length, reached = page.evaluate(PLAY)
    assert length == pytest.approx(len(tiny_audio.spoken("low mid")) / tiny_audio.RATE, abs=0.02)
    assert reached > 0
    file = saved(page, tmp_path)
    assert file.name == "my-b-again-seed-0.wav"
    page.get_by_role("tab", name="Recording settings").click()
    page.locator("input[type=file]").last.set_input_files(str(file))
    page.locator(".graft-settings").get_by_text("of_mel").wait_for(timeout=20 * SECONDS)
    assert page.broken == []
    assert "Traceback" not in page.content() + demos["mel"].log.read_text()
    assert json.loads((demos["mel"].run / "results.json").read_text())["task"] == "audio-generation-wavenet"
