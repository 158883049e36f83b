"""A lock on a file: one process holds it, and it ends with the process, also after a kill."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_HELD: set[Path] = set()  # locks of this process. Closing any handle of such a file would release its lock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, and give whether this process has it: False if another process holds it.

    Some file systems have no locks. Then every process has the lock. Raises OSError, also if the file is a link: in a
    folder that others may write to, it could lead to a file of somebody else.
    """
    file = _locked(path)
    if file is None:
        yield False
        return
    key = path.resolve()
    _HELD.add(key)
    try:
        yield True
    finally:
        _HELD.discard(key)
        os.close(file)


def _locked(path: Path) -> int | None:
    for attempt in range(5):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            # not flock: loader processes would inherit that lock
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # held, or looked at by `in_use` for a moment
            os.close(file)
            time.sleep(0.02 * attempt)
            continue
        except OSError:
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # its holder removed the file meanwhile: lock the new one
    return None


def in_use(path: Path) -> bool | None:
    """Whether a process holds the lock of this file; None if the file cannot be read, or its file system has no locks.

    A file that may only be read is enough, such as one of a colleague.
    """
    if path.resolve() in _HELD:
        return True
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None
    finally:
        os.close(file)
    return False
