"""The demo of audio classification as a visitor meets it: a file, a microphone, a long recording and a broken one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import validate
from pipelines.inference.loading import load
from pipelines.training.run import train
from tests.browser.conftest import serving, speaking
from tests.support import tiny_audio
from tests.support.runs import without_pictures
from tests.tasks.test_audio_classification import TestContract as Contract

pytestmark = pytest.mark.browser

SECONDS = 1000


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The contract's tiny model, which distinguishes three tones and reads one second."""
    folder = tmp_path_factory.mktemp("tones")
    raw = Contract().recipe(folder)
    raw["options"] = {"max_seconds": 1.0}
    raw["train"] = {**raw["train"], "epochs": 8}
    with without_pictures():
        assert train(validate(raw), folder / "tones_tiny")
    (folder / "demo").mkdir()
    with serving(folder / "tones_tiny", folder / "demo") as found:
        yield found


def bars(page: Any) -> list[str]:
    page.locator(".graft-bars h2").wait_for(timeout=30 * SECONDS)
    return page.locator(".graft-bars dt").all_inner_texts()


def test_a_file_gives_bars_and_its_spectrogram(tones: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(tones.url)
    path = tiny_audio.write(tmp_path / "new.wav", tiny_audio.spoken("high", 99))
    page.locator("input[type=file]").first.set_input_files(str(path))
    expected = load(tones.run, device="cpu").infer(str(path))
    assert bars(page) == [answer["label"] for answer in expected]
    assert page.locator(".graft-bars h2").inner_text() == expected[0]["label"] == "high"
    picture = page.locator(".graft-sound img")
    picture.wait_for(timeout=20 * SECONDS)
    assert picture.get_attribute("src").startswith("data:image/png;base64,")
    assert picture.get_attribute("alt") == "Spectrogram of 0.2 seconds, up to 8 kHz"
    assert page.locator(".graft-plot .graft-y span").all_inner_texts()[-1] == "8 kHz"
    assert page.get_by_text("at a time").count() == 0
    for method in ("By hiding parts", "By gradients"):
        page.get_by_label(method).check()
        page.get_by_role("button", name="What did it listen to?").click()
        page.locator(".graft-map img").wait_for(timeout=60 * SECONDS)
        assert page.get_by_text("Orange parts speak for the answer").count() == 1
    page.screenshot(path=str(tones.log.parent / "page.png"), full_page=True)
    assert not page.broken
    assert {url for url in page.asked if not url.startswith((tones.url, "data:", "blob:", "ws:"))} == set()


def test_the_spectrogram_ends_where_the_file_does(tones: Any, visit: Any, tmp_path: Path) -> None:
    """The model reads 16,000 samples per second, the file has 8,000."""
    page = visit(tones.url)
    path = tiny_audio.write(tmp_path / "low.wav", tiny_audio.spoken("high", 99, 8000), 8000)
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.locator(".graft-sound img").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-sound img").get_attribute("alt") == "Spectrogram of 0.2 seconds, up to 4 kHz"
    assert page.locator(".graft-plot .graft-y span").all_inner_texts()[-1] == "4 kHz"


def test_of_a_long_recording_the_middle_is_read(tones: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(tones.url, 390)
    path = tiny_audio.write(tmp_path / "long.flac", tiny_audio.spoken(" ".join(["mid"] * 14), 1, 44100), 44100)
    page.locator("input[type=file]").first.set_input_files(str(path))
    notice = page.get_by_text("The model reads 1.0 seconds at a time: the middle of these 2.6.")
    notice.wait_for(timeout=30 * SECONDS)
    assert page.locator(".graft-bars h2").inner_text() == load(tones.run, device="cpu").infer(str(path))[0]["label"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=str(tones.log.parent / "phone.png"), full_page=True)


def test_a_microphone_is_heard(tones: Any, chromium: Any, tmp_path: Path) -> None:
    """Chromium's fake microphone plays a file again and again."""
    spoken = tiny_audio.write(tmp_path / "voice.wav", tiny_audio.spoken(" ".join(["low"] * 6), 3, 48000), 48000)
    with speaking(chromium, tones.url, spoken) as page:
        assert sorted(bars(page)) == ["high", "low", "mid"]
        page.locator(".graft-sound img").wait_for(timeout=20 * SECONDS)
        page.screenshot(path=str(tones.log.parent / "microphone.png"), full_page=True)


def test_an_example_is_one_click(tones: Any, visit: Any) -> None:
    page = visit(tones.url)
    row = json.loads((tones.run / "examples" / "examples.json").read_text())[0]
    page.locator(".gallery-item, .table-wrap tr").filter(has_text=row["label"]).first.click()
    bars(page)
    expected = load(tones.run, device="cpu").infer(str(tones.run / "model" / "examples" / row["audio"]))
    assert page.locator(".graft-bars h2").inner_text() == expected[0]["label"]


def test_silence_has_a_class(tones: Any, visit: Any, tmp_path: Path) -> None:
    page = visit(tones.url)
    page.locator("input[type=file]").first.set_input_files(
        str(tiny_audio.write(tmp_path / "silent.wav", 0 * tiny_audio.spoken("low")))
    )
    page.locator(".graft-bars h2").wait_for(timeout=20 * SECONDS)
    assert page.locator(".graft-bars h2").inner_text() in tiny_audio.WORDS


def test_a_bad_file_gives_a_message(tones: Any, visit: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF, but nothing else")
    page = visit(tones.url)
    page.locator("input[type=file]").first.set_input_files(str(path))
    message = page.get_by_test_id("toast-body").first
    message.wait_for(timeout=20 * SECONDS)
    assert "broken.wav" in message.inner_text()
    assert "not readable audio" in message.inner_text()
    assert "Traceback" not in tones.log.read_text()
