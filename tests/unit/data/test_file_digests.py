"""Digests of files: each is read once, kept between commands, and read again if it changed."""

import os
from pathlib import Path

import pytest

from pipelines.data import file_digests
from pipelines.data.file_digests import of_file, of_files
from pipelines.utils import cache


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kept digests, which are kept from three files on."""
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_digests, "KEPT_FROM", 3)
    monkeypatch.setattr(file_digests, "_known", {})
    return tmp_path / "cache" / "digests"


def written(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(bytes([number // 2]) * 10)
        os.utime(folder / f"{number}.jpg", ns=(10**18, 10**18))
    return [str(folder / f"{number}.jpg") for number in range(count)]


def test_equal_files_have_equal_digests(kept: Path, tmp_path: Path) -> None:
    files = written(tmp_path / "photos", 4)
    digests = of_files([*files, str(tmp_path / "none.jpg"), str(tmp_path)])
    assert digests[0] == digests[1] != digests[2] == digests[3]
    assert digests[4:] == [b"", b""]
    assert of_file(files[3]) == digests[3]


def test_digests_are_kept_and_a_changed_file_is_read_again(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path / "photos", 4)
    monkeypatch.setattr(cache, "SETTLED", -(10**12))  # the files were written just now
    first = of_files(files)
    assert [path.stat().st_size for path in kept.iterdir()] == [4 * 80]
    read: list[str] = []
    monkeypatch.setattr(file_digests, "_known", {})
    monkeypatch.setattr(file_digests, "_read", lambda path: read.append(path) or b"new")
    assert of_files(files) == first
    assert not read
    Path(files[1]).write_bytes(b"something else")
    monkeypatch.setattr(file_digests, "_known", {})
    assert of_files(files) == [first[0], b"new", *first[2:]]
    assert read == [files[1]]


def test_files_that_were_just_written_are_not_kept(kept: Path, tmp_path: Path) -> None:
    """They may change again without a new time."""
    of_files(written(tmp_path / "photos", 4))
    assert not kept.exists()
