"""Drawings of recordings in the page: their size, their axes and their words."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from gradio.utils import get_upload_folder

from pipelines.apps import sound
from pipelines.apps.sound import Recording
from tests.support import tiny_containers


@pytest.mark.parametrize("suffix", [".webm", ".m4a"])
def test_an_upload_of_a_telephone_or_a_browser_is_read(suffix: str) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=get_upload_folder()) as folder:
        path = tiny_containers.write(Path(folder) / f"a{suffix}", noise, 48_000)
        found = sound.uploaded_audio({"path": str(path), "orig_name": path.name}, 16_000)
    assert found is not None
    assert (found.own_rate, len(found.samples)) == (48_000, pytest.approx(16_000, abs=20))


def test_drawings_of_an_hour_are_no_larger() -> None:
    """A drawing has a fixed number of columns, whatever the length of the recording."""
    samples = np.sin(np.arange(3600 * 8000) / 5).astype(np.float32)
    low, high = sound.envelope(samples)
    assert len(low) == len(high) == sound.COLUMNS
    drawn = [sound.spectrogram(Recording(samples, 8000), 8000, (10.0, 20.0)), sound.waveform(samples, 8000)]
    labels = [re.findall('aria-label="([^"]+)"', page) for page in drawn]
    assert labels == [["Spectrogram of 3600.0 seconds, up to 4 kHz"], ["Waveform of 3600.0 seconds"]]
    assert drawn[0].count("graft-pale") == 2
    assert max(map(len, drawn)) < 500_000


@pytest.mark.parametrize(
    ("own", "rate", "top"),
    [(8000, 16000, "4 kHz"), (16000, 16000, "8 kHz"), (44100, 16000, "8 kHz"), (48000, 48000, "16 kHz")],
)
def test_the_axis_ends_at_the_highest_pitch_of_file_and_model(own: int, rate: int, top: str) -> None:
    page = sound.spectrogram(Recording(np.random.default_rng(0).normal(size=rate).astype(np.float32), own), rate)
    ticks = re.findall(r"bottom: ([0-9.]+)%\">([^<]+)<", page)
    assert ticks[-1][1] == top
    assert all(0 < float(place) <= 100 for place, _ in ticks)


def test_words_stand_below_their_bands_and_are_escaped() -> None:
    samples = np.sin(np.arange(8000) / 5).astype(np.float32)
    page = sound.waveform(samples, 8000, [(0.0, 0.5, "<b>"), (0.5, 1.0, "next"), (0.5, 0.51, "too long for its band")])
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert ">next</span>" in page
    assert "too long" not in page
    assert page.count("graft-band") == 2


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [(0.2, [0, 0.05, 0.1, 0.15]), (2.6, [0, 1, 2]), (60.0, [0, 15, 30, 45]), (600.0, [0, 120, 240, 360, 480])],
)
def test_times_are_round_and_none_is_cut(seconds: float, ticks: list[float]) -> None:
    assert sound.time_ticks(seconds) == ticks
