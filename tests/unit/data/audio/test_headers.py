"""Headers of recordings are read once, and found in Graft's cache after that."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.data.audio import headers
from pipelines.data.audio.headers import Headers
from pipelines.data.audio.recordings import Recordings
from pipelines.utils import cache as cache_folders
from pipelines.utils import progress
from tests.support.tiny_audio import write

RATE = 16_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_folders, "SETTLED", -(10**12))  # the files of a test were written just now
    return tmp_path / "cache" / "headers"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened for their header or their first minute, in order."""
    opened: list[str] = []
    real, real_blocks = headers.file_header, headers.sample_blocks

    def file_header(value: Any) -> Any:
        opened.append(Path(value["path"] or "bytes").name)
        return real(value)

    def sample_blocks(name: str, value: Any) -> Any:
        opened.append(f"samples of {Path(value['path'] or 'bytes').name}")
        return real_blocks(name, value)

    monkeypatch.setattr(headers, "file_header", file_header)
    monkeypatch.setattr(headers, "sample_blocks", sample_blocks)
    return opened


def recording(path: Path, seconds: float = 0.1, *, loud: bool = False) -> str:
    wave = np.sin(np.arange(round(seconds * RATE)) / 20).astype(np.float32)
    write(path, np.clip(4 * wave, -1, 1) if loud else 0.5 * wave, RATE)
    os.utime(path, (1e9, 1e9))
    return str(path)


def rows(paths: list[str], **more: list[Any]) -> Dataset:
    audio = [
        {"path": path, "bytes": None, **{name: values[n] for name, values in more.items()}}
        for n, path in enumerate(paths)
    ]
    return Dataset.from_dict({"id": [f"{number}" for number in range(len(paths))], "audio": audio})


def test_a_header_is_read_once(tmp_path: Path, read: list[str]) -> None:
    data = rows([recording(tmp_path / f"{number}.wav", 0.1 * (1 + number)) for number in range(4)])
    first = Headers(data)
    assert read == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert [found.sound.seconds for found in first.looked] == [0.1, 0.2, 0.3, 0.4]
    read.clear()
    assert Headers(data.select([3, 0])).looked == [first.looked[3], first.looked[0]]
    assert read == []
    recording(tmp_path / "1.wav", 0.7)  # another size
    os.utime(tmp_path / "2.wav", (2e9 - 1e9 + 5, 1e9 + 5))  # another time
    os.remove(tmp_path / "3.wav")
    again = Headers(data)
    assert read == ["1.wav", "2.wav", "3.wav"]
    assert [found.sound.seconds for found in again.looked] == [0.1, 0.7, 0.3, 0.0]
    assert again.looked[3].why == f"{tmp_path / '3.wav'}: no such file"
    read.clear()
    Headers(data)
    assert read == ["3.wav"]  # what cannot be read is tried again


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, read: list[str]) -> None:
    data = rows([recording(tmp_path / "a.wav"), recording(tmp_path / "b.wav")])
    os.utime(tmp_path / "a.wav", (9e9, 9e9))  # later than what counts as settled here
    Headers(data)
    Headers(data)
    assert read == ["a.wav", "b.wav", "a.wav"]


def test_parts_of_a_recording_share_its_header(tmp_path: Path, read: list[str]) -> None:
    path = recording(tmp_path / "long.wav", 3.0)
    data = rows([path] * 3, start=[0.0, 1.0, 2.0], end=[0.5, 1.75, 9.0])
    looked = Headers(data).looked
    assert read == ["long.wav"]
    assert [found.sound.seconds for found in looked] == [0.5, 0.75, 0.0]
    assert looked[1].name == f"{path} from 1 s to 1.75 s"
    assert "the recording is 3.00 seconds long, so this part is not in it" in looked[2].why


def test_clipping_is_looked_for_once(tmp_path: Path, read: list[str], caplog: pytest.LogCaptureFixture) -> None:
    data = rows([recording(tmp_path / f"{name}.wav", loud=name == "loud") for name in ("fine", "loud")])
    lines = []
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "graft"):
            Recordings(data, RATE, 10)
        lines.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    # two threads read them, in any order
    assert sorted(read) == ["fine.wav", "loud.wav", "samples of fine.wav", "samples of loud.wav"]
    assert (
        lines[0]
        == lines[1]
        == [f"1 of 2 recordings looked at are clipped, 1 in 100 samples at full scale: {tmp_path / 'loud.wav'}"]
    )


def test_bytes_are_known_by_their_rows(tmp_path: Path, read: list[str]) -> None:
    contents = [Path(recording(tmp_path / f"{n}.wav", 0.1 * (1 + n))).read_bytes() for n in range(3)]

    def stored(order: list[int], text: str = "a") -> Dataset:
        audio = [{"path": "same.wav", "bytes": contents[number]} for number in order]
        return Dataset.from_dict(
            {"id": [str(n) for n in range(len(order))], "audio": audio, "text": [text] * len(order)}
        )

    assert [found.sound.seconds for found in Headers(stored([0, 1, 2])).looked] == [0.1, 0.2, 0.3]
    assert len(read) == 3
    Headers(stored([0, 1, 2]))
    assert len(read) == 3
    assert [found.sound.seconds for found in Headers(stored([2, 1, 0])).looked] == [0.3, 0.2, 0.1]
    Headers(stored([0, 1, 2], "b"))
    assert len(read) == 9


def test_a_damaged_cache_is_read_again_and_a_full_disk_is_said(
    tmp_path: Path, cache: Path, read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = rows([recording(tmp_path / "a.wav")])
    Headers(data)
    (kept,) = cache.glob("*/headers.arrow")
    kept.write_bytes(kept.read_bytes()[:50])
    assert Headers(data).looked[0].sound.seconds == 0.1
    assert read == ["a.wav", "a.wav"]
    Headers(data)
    assert len(read) == 2
    kept.unlink()
    kept.parent.rmdir()
    cache.rmdir()
    cache.write_text("no folder")
    with caplog.at_level(logging.WARNING, "graft"):
        assert Headers(data).looked[0].sound.seconds == 0.1
    (record,) = caplog.records
    assert "the headers of recordings cannot be kept" in record.getMessage()


def test_the_cache_is_bounded(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Headers(rows([recording(tmp_path / name / "x.wav")]))
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(headers, "ROOM", 1)
    (tmp_path / "d").mkdir()
    Headers(rows([recording(tmp_path / "d" / "x.wav")]))
    assert len(list(cache.iterdir())) == 1


def test_a_change_with_the_same_size_and_time(tmp_path: Path, read: list[str]) -> None:
    """As `cp -p` and rsync leave a file."""
    path = tmp_path / "a.wav"
    for rate in (RATE, 8000):
        write(path, np.zeros(800, np.float32), rate)
        os.utime(path, (1e9, 1e9))
        assert Headers(rows([str(path)])).looked[0].sound.rate == rate
    assert read == ["a.wav", "a.wav"]


def test_a_long_reading_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows([recording(tmp_path / f"{number}.wav") for number in range(40)])
    monkeypatch.setattr(progress, "SOON", 0.0)
    for quiet in (True, False):
        monkeypatch.setattr(progress, "_shown", progress.Progress(True, quiet))
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        Headers(data)
        shown = capsys.readouterr().err
        assert shown.startswith("" if quiet else "headers of recordings: 1/40\n")
        assert bool(shown) != quiet
