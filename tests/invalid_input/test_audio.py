"""Damaged recordings and wrong lists of them: an error names the file, or the row is skipped and counted.

No such row is trained on.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipelines.config.recipe import DataSection, validate
from pipelines.data.audio.reading import header, read_audio
from pipelines.data.audio.recordings import Recordings
from pipelines.data.filtering import Skips
from pipelines.data.loading import load_splits
from pipelines.errors import DataError
from pipelines.training.run import train
from tests.support import tiny_audio
from tests.support.runs import without_pictures
from tests.support.tiny_audio import spoken, write
from tests.support.tiny_audio_sets import LABEL, TEXT, common_voice, files, librispeech, text

RATE = 16000
Make = Callable[[Path], Any]


def speech(path: Path, **settings: Any) -> Path:
    """Half a second of speech: words are tones."""
    return write(path, spoken("low mid high"), **settings)


def cut(path: Path, keep: float, **settings: Any) -> Path:
    rng = np.random.default_rng(0)
    write(path, 0.1 * rng.standard_normal(5 * RATE), **settings)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def content(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def samples(path: Path, values: Any, rate: int = RATE) -> Path:
    """The samples as floats, which a wav file can hold unchanged."""
    return write(path, np.asarray(values, np.float32), rate, subtype="FLOAT")


def with_nan(path: Path) -> Path:
    wave = spoken("low mid")
    wave[100] = np.nan
    return samples(path, wave)


def flipped(path: Path) -> Path:
    """One damaged byte in the middle: flac detects it by a checksum."""
    data = bytearray(write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE)).read_bytes())
    data[len(data) // 2] ^= 0xFF
    return content(path, bytes(data))


def streamed_flac(path: Path) -> Path:
    """A file that was written to a pipe: its header holds no number of samples."""
    data = bytearray(speech(path).read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return content(path, bytes(data))


def claiming(path: Path, seconds: float, rate: int = 8000) -> Path:
    """A recording of so many seconds, which takes only a few bytes on disk: a sparse file holds the silence."""
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_U8") as file:
        file.write(np.zeros(1))
    data = bytearray(path.read_bytes())
    size = round(seconds * rate)
    at = data.find(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    content(path, bytes(data[: at + 4]))
    with path.open("r+b") as file:
        file.truncate(at + 4 + size)
    return path


def with_rate(path: Path, rate: int) -> Path:
    data = bytearray(speech(path).read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    return content(path, bytes(data))


def opposed(path: Path) -> Path:
    wave = spoken("low")
    return samples(path, np.stack([wave, -wave], axis=1))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


# what is wrong -> (the recording, words that the error must contain in addition to its name)
FILES: dict[str, tuple[Make, str]] = {
    "no such file": (lambda t: t / "a.wav", "no such file"),
    "a folder": (lambda t: folder(t / "a.wav"), "a folder, not a file"),
    "an empty file": (lambda t: content(t / "a.wav", b""), "empty file"),
    "text called .wav": (lambda t: content(t / "a.wav", b"hello " * 99), "not readable audio .*Format not recognised"),
    "samples without a header": (lambda t: content(t / "a.wav", spoken("low").tobytes()), "not readable audio"),
    "a header alone": (
        lambda t: content(t / "a.wav", speech(t / "b.wav").read_bytes()[:44]),
        "holds no samples|cut off",
    ),
    "no samples": (lambda t: samples(t / "a.wav", []), "holds no samples"),
    "30 milliseconds": (
        lambda t: samples(t / "a.wav", spoken("low")[:480]),
        "30 milliseconds are too short: at least 50",
    ),
    "silence": (lambda t: samples(t / "a.wav", np.zeros(RATE)), "silent from beginning to end$"),
    "nothing but an offset": (lambda t: samples(t / "a.wav", np.full(RATE, 0.3)), "silent from beginning to end$"),
    "channels that cancel out": (lambda t: opposed(t / "a.wav"), "silent .* once its channels are mixed"),
    "NaN": (lambda t: with_nan(t / "a.wav"), "samples that are no numbers"),
    "an infinite sample": (lambda t: samples(t / "a.wav", [*spoken("low"), np.inf]), "samples that are no numbers"),
    "integers as floats": (
        lambda t: samples(t / "a.wav", 32767 * spoken("low")),
        "samples up to [0-9,]+, full scale is 1",
    ),
    "half a wav": (lambda t: cut(t / "a.wav", 0.5), "ends after [0-9,]+ of 80,000 samples: it was cut off"),
    "half a flac": (lambda t: cut(t / "a.flac", 0.5), "not readable audio .*lost sync"),
    "a flac with a flipped byte": (lambda t: flipped(t / "a.flac"), "not readable audio .*flac decoder"),
    "a flac from a pipe": (lambda t: streamed_flac(t / "a.flac"), "does not say how long it is"),
    "half an mp3": (lambda t: cut(t / "a.mp3", 0.5), "ends after [0-9,]+ of 80,000 samples: it was cut off"),
    "half an ogg": (lambda t: cut(t / "a.ogg", 0.7), "cut off|holds no samples|in the middle of a page"),
    "a hundredth of an ogg": (lambda t: cut(t / "a.ogg", 0.01), "not readable audio"),
    "five hours": (lambda t: claiming(t / "a.wav", 5 * 3600), "5.0 hours, at most 4 are read at once"),
    "1 sample a second": (lambda t: with_rate(t / "a.wav", 1), "1 samples a second, at least 1,000"),
    "2 million samples a second": (
        lambda t: with_rate(t / "a.wav", 2_000_000),
        "2,000,000 samples a second, at most 768,000",
    ),
    "0 samples a second": (lambda t: with_rate(t / "a.wav", 0), "not readable audio|0 samples a second"),
    "no path and no bytes": (lambda t: {"path": None, "bytes": None}, "no audio here"),
    "no bytes": (lambda t: {"path": "a.wav", "bytes": b""}, "no bytes"),
    "bytes of something else": (lambda t: {"path": "a.wav", "bytes": b"hello " * 99}, "not readable audio"),
    "a path that is none": (lambda t: f"{t}/a.wav\0", "not readable audio .*null"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_spoiled_recording_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = FILES[name]
    value = make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        read_audio(value, RATE)
    path = value.get("path") or "audio bytes" if isinstance(value, dict) else str(value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_there_are_many_cases() -> None:
    assert len(FILES) + len(LISTS) >= 35


def test_a_spoiled_recording_is_a_skip_that_stops_a_run_where_there_are_many(tmp_path: Path) -> None:
    """The damaged recording is among good ones. If its header does not show the damage, reading the recording does."""
    from datasets import Dataset

    cases = []
    for number, (make, _) in enumerate(FILES.values()):
        (tmp_path / str(number)).mkdir()
        cases.append(make(tmp_path / str(number)))
    good = {"path": str(speech(tmp_path / "good.wav")), "bytes": None}
    values = [
        good,
        *(value if isinstance(value, dict) else {"path": str(value), "bytes": None} for value in cases),
        good,
    ]
    rows = Dataset.from_dict({"id": [str(i) for i in range(len(values))], "audio": values})
    recordings = Recordings(rows, RATE, 4 * 3600)
    assert 15 < len(recordings.wrong) < len(FILES)  # a header does not show NaN, silence or a flipped bit
    skips, read = [], []
    for number in range(len(rows)):
        try:
            read.append(recordings[number]["row"])
        except DataError as error:
            skips.append((rows[number]["id"], str(error)))
    assert read == [0, len(values) - 1]
    with pytest.raises(
        DataError, match=rf"{len(FILES)} rows of train cannot be read, 3 of {len(values)} may be \(data\.max_skipped"
    ):
        Skips(0.01, {"train": skips}, {"train": len(values)})


def test_three_hours_are_a_skip_in_training_and_read_for_an_answer(tmp_path: Path) -> None:
    from datasets import Dataset

    path = claiming(tmp_path / "long.wav", 3 * 3600, 1000)
    with path.open("r+b") as file:
        file.seek(2_000_000)
        file.write(bytes(range(256)) * 8)
    assert header(path).seconds == 3 * 3600
    rows = Dataset.from_dict({"id": ["long"], "audio": [{"path": str(path), "bytes": None}]})
    with pytest.raises(DataError, match=r"long\.wav: 10800\.0 seconds, at most 30 are read \(options\.max_seconds\)"):
        Recordings(rows, RATE, 30)[0]
    assert len(read_audio(path, 1000)) == 3 * 3600 * 1000


def test_what_headers_tell_is_settled_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings of train that are too long are left out and counted.

    Too many of them in a scored split end the run before training.
    """
    data, model = (
        tiny_audio.transcribed(tmp_path / "data", 16),
        tiny_audio.wav2vec2(tmp_path / "model", conv_stride=(10, 8, 2)),
    )
    for number in range(6):
        write(data / "clips" / f"train_{number}.wav", spoken("low mid high " * 5))
    raw = {
        "task": "speech-recognition-ctc",
        "model": {"id": str(model)},
        "data": {"id": str(data), "workers": 0, "group": "none"},
        "options": {"max_seconds": 1.5},
        "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
    }
    with without_pictures():
        train(validate(raw), tmp_path / "run", name="small")
        assert "left out: recordings of train longer than 1.5 seconds (options.max_seconds) (6)" in "".join(
            capsys.readouterr()
        )
        for number in range(4):
            write(data / "clips" / f"validation_{number}.wav", spoken("low mid high " * 5))
        with pytest.raises(
            DataError, match=r"4 rows of validation cannot be read, 3 of 8 may be.*options\.max_seconds"
        ):
            train(validate(raw), tmp_path / "again", name="small")
    assert not list((tmp_path / "again").rglob("*.safetensors"))


# ---- lists ----


def table(path: Path, lines: list[str]) -> Path:
    files(path, [f"clips/{i}.wav" for i in range(8)])
    return text(path / "train.csv", "\n".join(["audio,text", *lines]) + "\n").parent


def metadata(path: Path, lines: str) -> Path:
    return text(files(path, ["1.wav"]) / "metadata.csv", lines).parent


def in_latin(path: Path) -> Path:
    return content(common_voice(path, {"train": 2}) / "train.tsv", b"client_id\tpath\tsentence\n\xe9").parent


def emptied(path: Path, pattern: str) -> Path:
    for file in path.rglob(pattern):
        file.write_bytes(b"")
    return path


def without(path: Path, pattern: str) -> Path:
    for file in sorted(path.rglob(pattern)):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return path


# what is wrong -> (the data, settings, words that the error must contain)
LISTS: dict[str, tuple[Make, dict[str, Any], str]] = {
    "a loose folder of recordings": (
        lambda t: files(t, ["1.wav", "2.wav"]),
        {},
        r"found: 1\.wav, 2\.wav.*metadata\.csv",
    ),
    "a recording": (lambda t: speech(t / "1.wav"), {}, r"1\.wav\).*metadata\.csv"),
    "classes and no text": (lambda t: files(t, ["cat/1.wav", "dog/1.wav"]), {}, "labels and no text"),
    "no column of text": (lambda t: metadata(t, "file_name,label\n1.wav,a\n"), {}, r"data\.columns\.text"),
    "a list of what is not there": (lambda t: metadata(t, "file_name,text\n2.wav,a\n"), {}, r"no such file: 2\.wav"),
    "a table of folders": (lambda t: table(t, ["clips,a"] * 4), {}, "none of 4 rows.*no such file: clips"),
    "no parts": (
        lambda t: files(t, ["1/2/1-2-0000.flac"]),
        {"format": "librispeech"},
        "holds no part such as train-clean-100",
    ),
    "no recordings": (
        lambda t: without(librispeech(t, {"dev-clean": 1}), "*.flac"),
        {},
        r"8 skipped; the first: .*00\.flac: no such",
    ),
    "empty recordings": (
        lambda t: emptied(librispeech(t, {"dev-clean": 1}), "*.flac"),
        {},
        r"8 skipped; .*00\.flac: empty file",
    ),
    "one speaker": (lambda t: librispeech(t, {"test-clean": 1}), {}, r"whole groups of 'speaker'.*data\.group=none"),
    "no clips": (
        lambda t: without(common_voice(t, {"train": 2}), "clips"),
        {"format": "common_voice"},
        r"no clips/ with train\.tsv",
    ),
    "a list in Latin-1": (in_latin, {}, r"train\.tsv: not UTF-8"),
    "a file for a folder": (lambda t: speech(t / "1.wav"), {"format": "audiofolder"}, "no such folder"),
}


@pytest.mark.parametrize("name", LISTS)
def test_wrong_lists(name: str, tmp_path: Path) -> None:
    make, section, words = LISTS[name]
    with pytest.raises(DataError, match=words):
        load_splits(DataSection(id=str(make(tmp_path)), **section), TEXT)


def test_absolute_and_relative_paths_mixed(tmp_path: Path) -> None:
    right = {"absolute": f"{tmp_path}/clips/0.wav", "relative": "clips/1.wav", "dotted": "./clips/../clips/2.wav"}
    wrong = ["clips/9.wav", r"clips\9.wav", "/nowhere/4.wav"]
    lines = [*(f"{path},{name}" for name, path in right.items()), *(f"{path},wrong" for path in wrong), ",empty"]
    splits = load_splits(
        DataSection(id=str(table(tmp_path, [*lines, *(f"clips/{i}.wav,more" for i in range(3, 8))]))), TEXT
    )
    whys = [*(f"no such file: {path} ({tmp_path / path})" for path in wrong), "audio is empty"]
    assert [why for _, why in splits.skipped["train"]] == [
        f"train.csv:{line}: {why}" for line, why in enumerate(whys, 5)
    ]
    rows = [row for name in ("train", "validation", "test") for row in splits[name]]
    assert {row["text"] for row in rows} == {"absolute", "relative", "dotted", "more"}
    assert all(header(row["audio"]).rate == 8000 for row in rows)


def test_labels_and_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    files(tmp_path, [f"{label}/{i}.wav" for label in ("cat", "dog") for i in range(4)])
    for name in ("cat/a.ape", "cat/b.txt", "dog/cover.jpg"):
        text(tmp_path / name, json.dumps(name))
    splits = load_splits(DataSection(id=str(tmp_path)), LABEL)
    assert splits.ignored == {".txt files": 1}
    assert [id_ for id_, _ in splits.skipped["train"]] == ["cat/a.ape", "dog/cover.jpg"]
    without(tmp_path, "*.wav")
    with pytest.raises(
        DataError, match=r"cat: no recording of this class can be read \(a\.ape\): ape recordings cannot be read"
    ):
        load_splits(DataSection(id=str(tmp_path), format="audiofolder"), LABEL)


def test_a_table_of_recordings_that_no_library_here_reads(tmp_path: Path) -> None:
    """Graft recognises them by their names, before it compares contents: the error explains how to convert them."""
    for number in range(12):
        (tmp_path / f"{number}.ape").write_bytes(b"MAC " + bytes(40))
    lines = "".join(f"{number}.ape,yes\n" for number in range(12))
    (tmp_path / "a.csv").write_text("audio,text\n" + lines)
    words = r"a\.csv: none of 12 rows can be used.*0\.ape: ape recordings cannot be read: convert them.*ffmpeg"
    with pytest.raises(DataError, match=words):
        load_splits(DataSection(id=str(tmp_path / "a.csv")), TEXT)
