"""The cache for what can be computed again: $GRAFT_CACHE, by default ~/.cache/graft.

An entry is a folder. It is written under another name and renamed when it is complete. What a process reads from an
entry stays there while the process lives: a file in the entry, `.in-use.HOST.PID`, names the process.
"""

import atexit
import contextlib
import os
import shutil
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import psutil

from pipelines.utils.files import sync

SETTLED = 2_000_000_000  # nanoseconds; a file that changed later may change again without a new time
_LEFT = 86_400  # seconds after which what a process of another machine wrote counts as left


class Identity(NamedTuple):
    """What a file is known by besides its path. Tools can set its time back; they cannot set back `status_changed`."""

    size: int
    changed: int  # nanoseconds
    status_changed: int  # nanoseconds
    inode: int

    @property
    def settled(self) -> bool:
        """Whether another change of the file would give it another identity."""
        return time.time_ns() - max(self.changed, self.status_changed) > SETTLED


def identity(path: str | Path) -> Identity:
    """Raises OSError, and ValueError for a path that no file can have."""
    return identity_of(os.stat(path))


def identity_of(status: os.stat_result) -> Identity:
    return Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def cache_root() -> Path:
    return Path(os.environ.get("GRAFT_CACHE") or Path.home() / ".cache" / "graft")


def begin(folder: Path, limit: float) -> Path:
    """A new folder to write the entry `folder` in; `finish` completes it. Raises OSError."""
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_room(folder.parent, limit)
    discard(temporary)  # of a killed run: a container may give the same number to its processes
    temporary.mkdir()
    return temporary


def finish(temporary: Path, folder: Path, limit: float) -> None:
    """Complete the entry `folder`: it is on disk before it has its name. Raises OSError."""
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    make_room(folder.parent, limit)  # the new entry counts, because it is in the same folder
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        discard(temporary)  # another run was faster; its result is the same


def hold(folder: Path) -> None:
    """Keep an entry while this process lives: `make_room` deletes the entries that were unused for longest."""
    with contextlib.suppress(OSError):  # the folder was deleted, or cannot be written; then its reader says so
        (folder / f".in-use.{socket.gethostname()}.{os.getpid()}").touch()
        os.utime(folder)


def until_exit(entry: Path) -> None:
    """Delete an entry at the end of this process: no later run can know it."""
    atexit.register(_discard_of, entry, os.getpid())


def _discard_of(entry: Path, process: int) -> None:
    if os.getpid() == process:  # not a fork of it
        discard(entry)


def discard(entry: Path) -> None:
    """Delete an entry, also a damaged one. A folder that cannot be deleted at once loses its name."""
    gone = entry.with_name(f".{uuid.uuid4().hex}.{socket.gethostname()}.{os.getpid()}")
    try:
        entry.rename(gone)
    except FileNotFoundError:
        return
    except OSError:
        gone = entry
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # whoever writes the entry says why it cannot be written
            gone.unlink()


def make_room(folder: Path, limit: float) -> None:
    """Shrink the cache to at most `limit` bytes: remove leftovers of killed runs, then the entries that were unused for
    longest. What a process uses or writes stays, so the cache may be larger for some time.
    """
    total, entries = 0, []
    for entry in folder.glob("*"):
        writing = entry.name.startswith(".")
        if writing and _of_this_host(entry.name) and not _lives(entry):
            shutil.rmtree(entry, ignore_errors=True)
            continue
        size, used = _size(entry), _time(entry)
        total += size
        if used is not None and entry.is_dir() and not (_lives(entry) if writing else _in_use(entry)):
            entries.append((used, entry, size))
    for _, entry, size in sorted(entries):
        if total <= limit:
            return
        discard(entry)
        total -= size


def _in_use(entry: Path) -> bool:
    used = False
    for mark in entry.glob(".in-use.*"):
        if _lives(mark):
            used = True
        else:
            with contextlib.suppress(OSError):
                mark.unlink()
    return used


def _of_this_host(name: str) -> bool:
    return f".{socket.gethostname()}." in name


def _lives(named: Path) -> bool:
    """Whether the process lives that a name ends with; on another machine, whether it may."""
    number = named.name.rpartition(".")[2]
    if _of_this_host(named.name) and number.isdecimal():
        return bool(psutil.pid_exists(int(number)))
    changed = _time(named)
    return changed is not None and time.time() - changed < _LEFT


def _time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deleted it
        return None


def _size(entry: Path) -> int:
    try:
        with os.scandir(entry) as files:
            return sum(file.stat(follow_symlinks=False).st_size for file in files)
    except OSError:
        return 0
