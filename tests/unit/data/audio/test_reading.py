"""Recordings of every common format become mono float32 at the requested rate.

An unreadable file is refused by name.
"""

import io
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.audio.clips import Clips
from pipelines.data.audio.reading import clip, header, read_audio, resampled
from pipelines.data.audio.recordings import Recordings
from pipelines.data.filtering import sorted_out
from pipelines.data.media import AUDIO
from pipelines.errors import DataError
from tests.support import tiny_containers
from tests.support.tiny_audio import write

RATE = 16000


def sine(seconds: float = 1.0, rate: int = RATE, pitch: float = 440.0, channels: int = 1) -> np.ndarray:
    """Each channel has half of full scale."""
    wave = (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
    return wave if channels == 1 else np.repeat(wave[:, None], channels, axis=1)


def pitch_of(samples: np.ndarray, rate: int) -> float:
    """The strongest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples))


def encoded(samples: np.ndarray, rate: int, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **settings)
    return buffer.getvalue()


FORMATS: dict[str, dict[str, Any]] = {
    "16-bit wav": {"format": "WAV", "subtype": "PCM_16"},
    "8-bit wav": {"format": "WAV", "subtype": "PCM_U8"},
    "24-bit wav": {"format": "WAV", "subtype": "PCM_24"},
    "32-bit wav": {"format": "WAV", "subtype": "PCM_32"},
    "float wav": {"format": "WAV", "subtype": "FLOAT"},
    "double wav": {"format": "WAV", "subtype": "DOUBLE"},
    "mu-law wav": {"format": "WAV", "subtype": "ULAW"},
    "wav of extensible form": {"format": "WAVEX", "subtype": "PCM_24"},
    "RF64 wav": {"format": "RF64", "subtype": "PCM_16"},
    "16-bit flac": {"format": "FLAC", "subtype": "PCM_16"},
    "24-bit flac": {"format": "FLAC", "subtype": "PCM_24"},
    "ogg vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "ogg opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
}
LOSSY = {"ogg vorbis", "ogg opus", "mp3", "8-bit wav", "mu-law wav"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_format_arrives_whole(name: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "sound"  # by its content, whatever its extension
    path.write_bytes(encoded(sine(channels=channels), RATE, **FORMATS[name]))
    found = header(path)
    assert (round(found.seconds, 2), found.rate, found.channels) == (1.0, RATE, channels)
    samples = read_audio(path, RATE)
    assert (samples.dtype, samples.ndim, samples.flags.c_contiguous) == (np.float32, 1, True)
    assert abs(len(samples) - RATE) <= 1
    assert pitch_of(samples, RATE) == pytest.approx(440, abs=2)
    middle = slice(RATE // 4, RATE // 2)
    assert np.abs(samples[middle] - sine()[middle]).max() < (0.05 if name in LOSSY else 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_arrives_at_the_models(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(0.5, rate, channels=2), rate)
    samples = read_audio(path, RATE)
    assert abs(len(samples) - RATE // 2) <= 1
    assert pitch_of(samples, RATE) == pytest.approx(440, abs=2)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_what_lies_above_the_models_rate_is_filtered_out_and_not_folded_down(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(1.0, 48000, pitch=440) + sine(1.0, 48000, pitch=11000), 48000)
    spectrum = np.abs(np.fft.rfft(read_audio(path, RATE)[1000:-1000]))
    assert spectrum[5000 * len(spectrum) // 8000 :].max() < spectrum.max() / 1000  # 11 kHz would be aliased to 5 kHz


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_long_recording_is_read_by_the_minute_with_no_seam(rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal((rate * 65, 2))).astype(np.float32)
    path = write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
    samples = read_audio(path, RATE)
    assert np.array_equal(samples, resampled(noise.mean(axis=1), rate, RATE))


def test_a_path_bytes_and_a_column_are_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", sine(), RATE)
    content = path.read_bytes()
    kinds = [
        path,
        str(path),
        content,
        {"path": str(path), "bytes": None},
        {"path": "x.flac", "bytes": content},
        {"path": None, "bytes": content},
    ]
    assert len({read_audio(kind, 8000).tobytes() for kind in kinds}) == 1
    assert len({header(kind) for kind in kinds}) == 1


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8])
def test_an_upload_is_the_same_samples_as_its_file(dtype: Any, tmp_path: Path) -> None:
    """Gradio gives (rate, integers); soundfile reads floats."""
    subtype = {np.int16: "PCM_16", np.int32: "PCM_32", np.uint8: "PCM_U8"}[dtype]
    path = write(tmp_path / "a.wav", sine(channels=2), 22050, subtype=subtype)
    integers, rate = soundfile.read(path, dtype="int16" if dtype is np.uint8 else np.dtype(dtype).name)
    if dtype is np.uint8:
        integers = (integers // 256 + 128).astype(np.uint8)
    assert np.array_equal(read_audio((rate, integers), RATE), read_audio(path, RATE))


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(400, 4000),
    rate=st.sampled_from((8000, 16000, 22050, 44100)),
    channels=st.integers(1, 3),
    loud=st.floats(0.01, 1.0),
)
def test_lengths_are_those_of_the_clock(frames: int, rate: int, channels: int, loud: float) -> None:
    wave = (loud * np.random.default_rng(frames).uniform(-1, 1, (frames, channels))).astype(np.float32)
    if frames / rate < 0.05:
        with pytest.raises(DataError, match="too short"):
            read_audio((rate, wave), RATE)
        return
    samples = read_audio((rate, wave), RATE)
    assert abs(len(samples) - frames * RATE / rate) <= 1
    assert np.array_equal(samples, resampled(wave.mean(axis=1) if channels > 1 else wave[:, 0], rate, RATE))


# ---- truncated files ----


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf"])
def test_half_a_file_is_never_taken_for_a_whole_one(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    complete = write(tmp_path / f"a.{suffix}", sine(20) + 0.02 * rng.standard_normal(20 * RATE), RATE)
    assert len(read_audio(complete, RATE)) == pytest.approx(20 * RATE, abs=1)
    half = tmp_path / f"half.{suffix}"
    half.write_bytes(complete.read_bytes()[: complete.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"half\.{suffix}: (ends (after|in)|not readable audio)"):
        read_audio(half, RATE)


def test_a_wav_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    """Its writer could not seek back to fill in the length."""
    content = bytearray(encoded(sine(), RATE, format="WAV"))
    at = content.find(b"data") + 4
    for claimed in (0xFFFFFFFF, 0x7FFFFFFF):
        content[at : at + 4] = struct.pack("<I", claimed)
        assert len(read_audio(bytes(content), RATE)) == RATE
    content[at : at + 4] = struct.pack("<I", 2 * RATE + 44)  # a header that is read as samples
    assert len(read_audio(bytes(content), RATE)) == RATE


# ---- a split of them ----


def rows(folder: Path, recordings: dict[str, tuple[np.ndarray, int]]) -> Dataset:
    paths = [write(folder / name, samples, rate) for name, (samples, rate) in recordings.items()]
    return Dataset.from_dict(
        {
            "id": list(recordings),
            "audio": [{"path": str(path), "bytes": None} for path in paths],
            "n": list(range(len(paths))),
        }
    )


def test_recordings_count_their_length_and_skip_what_cannot_be_used(tmp_path: Path) -> None:
    def extra(row: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert "audio" not in row
        if row["id"] == "wordless.wav":
            raise DataError("no words")
        return {"half": seconds / 2}

    data = rows(
        tmp_path,
        {
            name: (sine(seconds), RATE)
            for name, seconds in {"a.wav": 1.0, "long.wav": 3.0, "wordless.wav": 1.0, "b.wav": 0.505}.items()
        },
    )
    (tmp_path / "gone.wav").write_bytes(b"RIFF")
    data = Dataset.from_list(
        [*data, {"id": "gone", "audio": {"path": str(tmp_path / "gone.wav"), "bytes": None}, "n": 9}]
    )
    examples = Recordings(data, RATE, 2.0, extra)
    assert examples.lengths == [50, 150, 50, 26, 1]
    assert {key: value for key, value in examples[3].items() if key != "audio"} == {
        "id": "b.wav",
        "row": 3,
        "seconds": 0.505,
        "half": 0.2525,
    }
    assert len(examples[0]["audio"]) == RATE
    for index, words in {
        1: "long.wav: 3.0 seconds, at most 2 ",
        2: "wordless.wav: no words",
        4: "gone.wav: not readable audio",
    }.items():
        with pytest.raises(DataError, match=words):
            examples[index]
    assert len(examples) == 5


def test_silence_may_be_a_class(tmp_path: Path) -> None:
    """But not for speech. Channels that cancel each other out are a fault of the file, whatever the task."""
    silent = write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match="silent from beginning to end"):
        read_audio(silent, RATE)
    assert not read_audio(silent, RATE, silent_ok=True).any()
    left = sine()
    with pytest.raises(DataError, match="once its channels are mixed"):
        read_audio(write(tmp_path / "opposed.wav", np.stack([left, -left], 1), RATE), RATE, silent_ok=True)
    data = rows(tmp_path, {"hush.wav": (np.zeros(RATE), RATE), "loud.wav": (sine(), RATE)}).add_column(
        "label", ["silence", "tone"]
    )
    clips = Clips(data, ["silence", "tone"], False, RATE, RATE, None)
    assert [(clips[i]["true"], bool(clips[i]["audio"].any())) for i in range(2)] == [("silence", False), ("tone", True)]


def test_train_does_without_what_cannot_be_used(tmp_path: Path) -> None:
    """The options decide what is too long. An unreadable row is skipped before the first step.

    `row` remains the row's number in the data set.
    """
    data = rows(tmp_path, {f"{i}.wav": (sine(3.0 if i % 3 == 0 else 1.0), RATE) for i in range(6)})
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    recordings = Recordings(data, RATE, 2.0)
    taken, known, left_out = sorted_out(recordings, data["id"], "train")
    assert [(example["id"], example["row"]) for example in taken] == [("2.wav", 2), ("4.wav", 4), ("5.wav", 5)]
    assert list(taken.lengths) == [50] * 3  # type: ignore[arg-type]
    assert [id_ for id_, _ in known] == ["1.wav"]
    assert left_out == {"recordings of train longer than 2 seconds (options.max_seconds)": 2}
    whole, known, left_out = sorted_out(recordings, data["id"], "test")  # what is scored keeps every row
    assert (whole is recordings, [name for name, _ in known], left_out) == (True, ["0", "1", "3"], {})
    with pytest.raises(
        DataError, match=r"none of 6 rows of train can be used; the first: .*0\.wav: 3\.0 seconds, at most 0\.5"
    ):
        sorted_out(Recordings(data, RATE, 0.5), data["id"], "train")


def test_bytes_of_a_hub_data_set(tmp_path: Path) -> None:
    content = encoded(sine(), RATE, format="FLAC")
    data = Dataset.from_dict(
        {"id": [str(i) for i in range(600)], "audio": [{"path": f"{i}.flac", "bytes": content} for i in range(600)]}
    )
    examples = Recordings(data, RATE, 10)
    assert set(examples.lengths) == {50}
    assert np.array_equal(examples[599]["audio"], examples[0]["audio"])


def test_a_low_rate_and_clipping_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clipped = np.clip(4 * sine(), -1, 1)
    recordings = {f"{i}.wav": (sine(), 8000 if i < 3 else RATE) for i in range(6)} | {
        f"loud{i}.wav": (clipped, RATE) for i in range(4)
    }
    with caplog.at_level(logging.WARNING, "graft"):
        Recordings(rows(tmp_path, recordings), RATE, 10)
    low, loud = (record.getMessage() for record in caplog.records)
    assert low.startswith("3 of 10 recordings have fewer samples a second than the model's 16000 (8000)")
    assert loud.startswith("4 of 10 recordings looked at are clipped")
    assert loud.endswith("loud2.wav and 1 more")
    caplog.clear()
    Recordings(rows(tmp_path / "fine", {"a.wav": (sine(), RATE)}), RATE, 10)
    assert not caplog.records


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "ALAW"])
def test_codecs_of_telephones_in_wav(subtype: str) -> None:
    content = encoded(sine(), RATE, format="WAV", subtype=subtype)
    assert header(content).seconds == pytest.approx(1.0, abs=0.03)  # they end with a full block
    samples = read_audio(content, RATE)
    assert pitch_of(samples, RATE) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_suffixes_are_what_soundfile_and_pyav_read() -> None:
    majors = {name.lower() for name in soundfile.available_formats()} | {"aif", "aifc", "oga", "opus"}
    others = {suffix[1:] for suffix in AUDIO.suffixes} - majors
    assert others == {suffix[1:] for suffix in tiny_containers.CODECS} - {"mov"} | {"m4b"}


@pytest.mark.parametrize(("rate", "seconds", "kept"), [(48_000, 2, 2), (8000, 1, 1), (22_050, 25, 10)])
def test_a_clip_is_short_and_small(tmp_path: Path, rate: int, seconds: int, kept: int) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.sin(np.arange(rate * seconds) / 20).astype(np.float32) / 2, rate)
    found = clip({"path": str(path), "bytes": None}, middle=True)
    assert found is not None
    assert (found.rate, found.seconds) == (min(rate, 16_000), seconds)
    assert len(found.samples) == pytest.approx(kept * found.rate, abs=2)
    assert len(found.data) < 100_000
    again, own = soundfile.read(io.BytesIO(found.data))
    assert (own, len(again)) == (found.rate, pytest.approx(len(found.samples), abs=3000))
    part = clip({"path": str(path), "bytes": None, "start": 0.25, "end": 0.75})
    assert part is not None
    assert part.seconds == pytest.approx(0.5, abs=1e-3)
    path.write_bytes(b"no recording")
    assert clip(str(path)) is None
