"""Entries of the cache: complete or not there, and kept while a process uses them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.utils import cache


@pytest.fixture
def other() -> Iterator[int]:
    """The number of another process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def entry(folder: Path, name: str, age: int) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "rows.arrow").write_bytes(b"0" * 100)
    os.utime(folder / name, (1e9 - age, 1e9 - age))
    return folder / name


def test_what_live_processes_use_or_write_stays(tmp_path: Path, other: int) -> None:
    host = socket.gethostname()
    entry(tmp_path, f".writing.{host}.{other}", 9)
    used = entry(tmp_path, "used", 8)
    cache.hold(used)
    of_other = entry(tmp_path, "used by another", 7)
    (of_other / f".in-use.{host}.{other}").touch()
    dead = entry(tmp_path, "used by a dead one", 6)
    (dead / f".in-use.{host}.999999999").touch()
    entry(tmp_path, "unused", 5)
    cache.make_room(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {f".writing.{host}.{other}", "used", "used by another"}


def test_room_counts_the_new_entry(tmp_path: Path) -> None:
    for age in (1, 2, 3):
        entry(tmp_path, f"{age}", age)
    new = tmp_path / "new"
    temporary = cache.begin(new, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3", temporary.name}
    (temporary / "rows.arrow").write_bytes(b"0" * 150)
    cache.finish(temporary, new, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "new"}


def test_an_entry_that_is_gone_is_not_held(tmp_path: Path) -> None:
    cache.hold(tmp_path / "gone")
    cache.discard(tmp_path / "gone")
    assert not list(tmp_path.iterdir())


def test_a_faster_run_wins(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    temporary = cache.begin(folder, 1e9)
    (temporary / "rows.arrow").write_text("second")
    folder.mkdir()
    (folder / "rows.arrow").write_text("first")
    cache.finish(temporary, folder, 1e9)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (folder / "rows.arrow").read_text() == "first"
