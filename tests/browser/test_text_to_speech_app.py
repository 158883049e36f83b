"""The demo of text-to-speech as a visitor meets it: a text becomes a recording that plays, and says what made it."""

import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.data.audio.tags import read_settings
from pipelines.training.run import train
from tests.browser.conftest import serving
from tests.support.tiny_speech import speech

pytestmark = pytest.mark.browser

SECONDS = 1000
FLOW = {"model_type": "flow_speech", "hidden_size": 16, "encoder_layers": 1, "decoder_size": 16, "decoder_layers": 2}
SAYS = "The saved file says so, and what made it."
# The player draws and plays by itself; this plays the file that it offers for download, and waits until it has begun.
PLAY = """async () => {
  const link = document.querySelector('.graft-made-sound a[download]');
  const sound = new Audio(link.href);
  await sound.play();
  await new Promise(done => { sound.ontimeupdate = () => sound.currentTime > 0 && done(); });
  sound.pause();
  return [sound.duration, sound.currentTime];
}"""


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny model of two voices after a few steps, served."""
    folder = tmp_path_factory.mktemp("speaking")
    raw = {
        "task": "text-to-speech",
        "model": {"config": FLOW},
        "data": {"id": str(speech(folder / "speech")), "workers": 0, "group": "none"},
        "options": {"samples": 0, "grid": 0},
        "train": {"max_steps": 4, "eval_every": 4, "batch_size": 8, "learning_rate": 1e-3},
        "hub": {"examples": 3},
    }
    assert train(validate(raw), folder / "two_voices")
    (folder / "demo").mkdir()
    with serving(folder / "two_voices", folder / "demo") as found:
        yield found


def spoken(page: Any) -> None:
    page.get_by_role("button", name="Speak").click()
    page.get_by_text(SAYS).wait_for(timeout=60 * SECONDS)


def test_a_text_becomes_a_recording_that_plays(speaking: Any, visit: Any, tmp_path: Path) -> None:
    for width in (390, 1280):
        page = visit(speaking.url, width)
        page.get_by_text("The recording appears here as it is spoken").wait_for()
        page.get_by_label("Text").fill("low mid high")
        page.get_by_label("number input for Speed").fill("0.5")
        page.get_by_label("Seed").fill("7")
        spoken(page)
        length, reached = page.evaluate(PLAY)
        assert length > 0
        assert 0 < reached <= length
        page.get_by_role("button", name="Play", exact=True).click()
        assert "Waveform" in (page.locator(".graft-above figure").get_attribute("aria-label") or "")
        assert "Spectrogram" in (page.locator(".graft-sound figure").get_attribute("aria-label") or "")
        assert not page.get_by_text("The recording appears here as it is spoken").is_visible()
        assert page.get_by_text("This sound is synthetic: a model made it.").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.broken == []
        assert {url for url in page.asked if not url.startswith((speaking.url, "data:", "blob:", "ws:"))} == set()
    with page.expect_download() as waiting:
        page.locator(".graft-made-sound a[download]").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert file.name == "low-mid-high-seed-7.wav"
    with wave.open(str(file)) as one:
        assert one.getnframes() / one.getframerate() == pytest.approx(length, abs=0.01)
    made = read_settings(file, file.name)
    assert {key: made[key] for key in ("model", "text", "speaker", "seed", "speed", "synthetic")} == {
        "model": "two_voices",
        "text": "low mid high",
        "speaker": "ada",
        "seed": 7,
        "speed": 0.5,
        "synthetic": True,
    }
    page.get_by_role("tab", name="Recording settings").click()
    page.locator("input[type=file]").last.set_input_files(str(file))
    shown = page.locator(".graft-settings")
    shown.get_by_text("two_voices").wait_for(timeout=20 * SECONDS)
    assert all(words in shown.inner_text() for words in ("low mid high", "ada", "synthetic"))


def test_a_voice_an_example_and_the_same_seed(speaking: Any, visit: Any) -> None:
    page = visit(speaking.url)
    row = json.loads((speaking.run / "examples" / "examples.json").read_text())[0]
    page.get_by_role("gridcell", name=row["text"]).or_(page.get_by_text(row["text"], exact=True)).first.click()
    page.wait_for_function("text => document.querySelector('textarea').value == text", arg=row["text"])
    links = []
    for voice in ("ada", "bob", "ada"):
        page.get_by_label("Voice").click()
        page.get_by_role("option", name=voice).click()
        page.get_by_role("button", name="Speak").click()
        page.wait_for_function(
            "old => (document.querySelector('.graft-made-sound a[download]')?.href ?? old) != old",
            arg=links[-1] if links else "",
            timeout=60 * SECONDS,
        )
        page.get_by_text(SAYS).wait_for(timeout=60 * SECONDS)
        links.append(page.locator(".graft-made-sound a[download]").get_attribute("href"))
    assert links[0] == links[2] != links[1]  # a file is kept under the digest of its bytes


def test_what_cannot_be_said_is_told(speaking: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(speaking.url, 390)
    for text, seed, words in (
        ("", "0", "a text is needed: write what is to be said"),
        ("?!", "0", "no text that can be spoken"),
        ("low", "x", "is no seed"),
        ("low quiz", "0", "has not learned to speak"),
    ):
        page.get_by_label("Text").fill(text)
        page.get_by_label("Seed").fill(seed)
        page.get_by_role("button", name="Speak").click()
        page.get_by_test_id("toast-body").filter(has_text=words).first.wait_for(timeout=20 * SECONDS)
    page.get_by_role("tab", name="Recording settings").click()
    (tmp_path / "no <b>.wav").write_bytes(b"RIFF" + b"x" * 100)
    page.locator("input[type=file]").last.set_input_files(str(tmp_path / "no <b>.wav"))
    page.get_by_test_id("toast-body").filter(has_text="not a readable recording").first.wait_for(timeout=20 * SECONDS)
    assert "Traceback" not in page.content() + speaking.log.read_text()
