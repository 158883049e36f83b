"""Wav files that say what made them, and whose settings anybody may have written."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.data.audio.tags import MOST_NOTED, read_settings
from pipelines.errors import DataError
from pipelines.generation.audio import Sound, save_wav

SOUND = Sound(np.linspace(-1.5, 1.5, 800, dtype=np.float32), 8000)
ABOUT = {"model": "digits", "text": "Straße 世界", "speaker": "ann", "seed": 7, "speed": 1.25, "steps": 16}


def test_settings_come_back(tmp_path: Path) -> None:
    save_wav(SOUND, tmp_path / "x.wav", ABOUT)
    assert read_settings(tmp_path / "x.wav", "x.wav") == {**ABOUT, "synthetic": True}
    assert read_settings((tmp_path / "x.wav").read_bytes(), "x.wav") == {**ABOUT, "synthetic": True}
    samples, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert rate == 8000
    assert samples == pytest.approx(np.clip(SOUND.samples, -1, 1), abs=1e-4)
    out = io.BytesIO()
    save_wav(SOUND, out, ABOUT)
    assert out.getvalue() == (tmp_path / "x.wav").read_bytes()


def test_values_that_are_no_numbers_are_silent(tmp_path: Path) -> None:
    save_wav(Sound(np.array([np.nan, np.inf, -np.inf, 0.5], np.float32), 8000), tmp_path / "x.wav", {})
    assert soundfile.read(tmp_path / "x.wav")[0] == pytest.approx([0, 1, -1, 0.5], abs=1e-4)


def test_a_long_text_is_cut_and_all_others_stay(tmp_path: Path) -> None:
    fits = {**ABOUT, "text": "é" * 900}
    save_wav(SOUND, tmp_path / "x.wav", fits)
    assert read_settings(tmp_path / "x.wav", "x") == {**fits, "synthetic": True}
    save_wav(SOUND, tmp_path / "x.wav", {**ABOUT, "text": "x" * MOST_NOTED})
    found = read_settings(tmp_path / "x.wav", "x")
    assert found == {**ABOUT, "text": "x" * 1000 + "…", "synthetic": True}


def comment(text: bytes) -> bytes:
    """A wav file with this comment, written by hand."""
    entry = b"ICMT" + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    listed = b"INFO" + entry
    chunks = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    chunks += b"LIST" + struct.pack("<I", len(listed)) + listed
    chunks += b"data" + struct.pack("<I", 200) + b"\0" * 200
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": {"1": 2}}',
        "[" * 2000,
        '{"seed": 1e999}',
        '{"seed": 99999999999999999999}',
        '{"a": [1]}',
        "[1]",
        "Lavf",
    ],
)
def test_what_other_programs_say_is_shown_as_text(text: str) -> None:
    assert read_settings(comment(text.encode()), "it") == {"parameters": text}


def test_a_comment_of_another_program_that_is_like_ours() -> None:
    assert read_settings(comment(json.dumps(ABOUT).encode()), "it") == ABOUT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it: not a readable recording"),
        (b"RIFF\0\0", "it: not a readable recording"),
        (b"<html>", "it: not a readable recording"),
        (comment(b""), "it does not say what made it"),
        (comment(b"x" * 150_000), "it does not say what made it"),
    ],
)
def test_damaged_and_hostile_files(content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_settings(content, "it")


def test_bytes_that_are_no_text_are_shown_as_text() -> None:
    found = read_settings(comment(b"\xff\xfe\xfd" * 10), "it")
    assert set(found) == {"parameters"}
    json.dumps(found)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.wav: not a readable recording"):
        read_settings(tmp_path / "x.wav", "x.wav")


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    """A byte of a command line that is no UTF-8 arrives as a lone surrogate."""
    save_wav(SOUND, tmp_path / "a.wav", {"text": "hi \udce9 there"})
    assert read_settings(tmp_path / "a.wav", "a.wav")["text"] == "hi ? there"
