"""The demo of speech recognition as a visitor meets it: a wav file, the microphone, and a file that cannot be read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import serving, speaking
from tests.support import tiny_audio
from tests.support.runs import without_pictures
from tests.tasks.test_speech_recognition_ctc import tuned_model

pytestmark = pytest.mark.browser

SECONDS = 1000


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("listening")
    model = tuned_model(folder / "model", "LOWMIDHIGH")
    # the model predicts letters instead of blanks, so that there is a transcript to show
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] *= 30
    weights["lm_head.bias"] -= torch.tensor([3.0] + [0.0] * (len(weights["lm_head.bias"]) - 1))
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    raw = {
        "task": "speech-recognition-ctc",
        "model": {"id": str(model)},
        "data": {"id": str(tiny_audio.transcribed(folder / "speech", 8)), "workers": 0},
        "options": {"mask_time_prob": 0.0},
        "train": {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-6, "precision": "fp32"},
    }
    with without_pictures():
        assert train(validate(raw), folder / "tiny_speech")
    (folder / "demo").mkdir()
    with serving(folder / "tiny_speech", folder / "demo") as served:
        yield served


def test_a_file_is_written_down_with_its_times(listening: Any, visit: Any, tmp_path: Path) -> None:
    file = tiny_audio.write(
        tmp_path / "said <b>.wav", tiny_audio.spoken("low mid high low", 3, 44100), 44100, subtype="PCM_24"
    )
    expected = load(listening.run, device="cpu").infer(str(file))
    assert len(expected["words"]) > 1
    for width in (1280, 390):
        page = visit(listening.url, width)
        page.locator("input[type=file]").first.set_input_files(str(file))
        page.locator(".graft-wave figure").wait_for(timeout=20 * SECONDS)
        spans = page.locator(".graft-output span[title]")
        assert spans.all_inner_texts() == [word["word"] for word in expected["words"]]
        title = spans.first.get_attribute("title")
        assert title is not None
        assert title.startswith(f"{expected['words'][0]['start']:.2f} to {expected['words'][0]['end']:.2f} s")
        notes = page.locator(".graft-note").all_inner_texts()  # below the recorder and below the transcript
        assert any(
            note.startswith(f"{len(expected['words'])} words in {expected['seconds']:.1f} seconds") for note in notes
        )
        assert "Waveform" in (page.locator(".graft-wave figure").get_attribute("aria-label") or "")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not page.broken
        assert {url for url in page.asked if not url.startswith((listening.url, "data:", "blob:", "ws:"))} == set()


def test_what_is_no_recording_is_told(listening: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(listening.url)
    silence = tiny_audio.write(tmp_path / "nothing.wav", np.zeros(16000, np.float32))
    page.locator("input[type=file]").first.set_input_files(str(silence))
    page.get_by_text("nothing.wav: silent from beginning to end").wait_for(timeout=20 * SECONDS)
    assert not page.locator(".graft-output span[title]").count()


def test_the_microphone_is_heard(listening: Any, chromium: Any, tmp_path: Path) -> None:
    """Chromium's microphone plays a file."""
    voice = tiny_audio.write(tmp_path / "voice.wav", tiny_audio.spoken("low mid high " * 4, 0, 48000), 48000)
    with speaking(chromium, listening.url, voice) as page:
        page.locator(".graft-wave figure").wait_for(timeout=30 * SECONDS)
        assert page.locator(".graft-output span[title]").count() > 0
