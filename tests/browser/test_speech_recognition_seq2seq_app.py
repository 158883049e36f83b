"""The demo of Whisper as a visitor meets it: the visitor uploads a recording and gets the text that `infer` gives.

The page shows the waveform below the text.
"""

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
from tests.tasks.test_speech_recognition_seq2seq import TestContract as Contract

pytestmark = pytest.mark.browser

SECONDS = 1000


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("listening")
    with without_pictures():
        assert train(validate(Contract().recipe(folder)), folder / "tiny_whisper")
    (folder / "demo").mkdir()
    with serving(folder / "tiny_whisper", folder / "demo") as found:
        yield found


def transcript(page: Any) -> str:
    return " ".join(page.locator(".graft-output span[title]").all_inner_texts())


def test_a_recording_is_written_down(listening: Any, visit: Any, tmp_path: Path) -> None:
    """A stereo recording with another sampling rate than the model's, as real recordings often have."""
    samples = tiny_audio.spoken("low mid high", rate=44100)
    wave = tiny_audio.write(tmp_path / "speech.wav", np.stack([samples, samples], 1), 44100)
    page = visit(listening.url)
    page.locator("input[type=file]").first.set_input_files(wave)
    page.locator(".graft-wave figure").wait_for(timeout=60 * SECONDS)
    expected = load(listening.run, device="cpu").infer(str(wave))
    assert transcript(page) == " ".join(word["word"] for part in expected["parts"] for word in part["words"])
    note = page.locator(".prose.graft-note").last.inner_text()
    assert f"in {expected['seconds']:.1f} seconds." in note
    assert "Language: en." in note
    page.screenshot(path=str(listening.log.parent / "page.png"), full_page=True)
    assert not page.broken
    assert {url for url in page.asked if not url.startswith((listening.url, "data:", "blob:", "ws:"))} == set()


def test_what_is_no_recording_is_told(listening: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(listening.url)
    wave = tiny_audio.write(tmp_path / "silence.wav", np.zeros(16000, np.float32))
    page.locator("input[type=file]").first.set_input_files(wave)
    shown = page.get_by_text("silence.wav: silent from beginning to end")
    shown.wait_for(timeout=20 * SECONDS)
    assert shown.count() >= 1


def test_the_language_can_be_chosen(listening: Any, visit: Any) -> None:
    page = visit(listening.url)
    page.locator("button.gallery-item, .gallery-item, table tr").first.wait_for(timeout=20 * SECONDS)
    page.get_by_label("Spoken language").fill("de")
    page.get_by_label("Spoken language").press("Enter")
    page.locator("input[type=file]").first.set_input_files(listening.run / "examples" / "0.flac")
    page.get_by_text("Language: de.").wait_for(timeout=60 * SECONDS)
    expected = load(listening.run, device="cpu").infer(str(listening.run / "examples" / "0.flac"), language="de")
    assert transcript(page) == " ".join(word["word"] for part in expected["parts"] for word in part["words"])


def test_the_microphone_is_heard(listening: Any, chromium: Any, tmp_path: Path) -> None:
    voice = tiny_audio.write(tmp_path / "voice.wav", tiny_audio.spoken("low mid high " * 4, 0, 48000), 48000)
    with speaking(chromium, listening.url, voice) as page:
        page.locator(".graft-wave figure").wait_for(timeout=60 * SECONDS)
        assert transcript(page)
