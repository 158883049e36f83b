"""Names that a file can have, and files that are written completely or not at all."""

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from pipelines.errors import RunError


def problem(place: str) -> str:
    """Why no file, folder or hub id can have this name; empty if one can.

    The systems themselves raise many kinds of errors.
    """
    if not place.strip():
        return "it is empty"
    if "\0" in place:
        return "it holds a NUL character"
    try:
        parts = os.fsencode(place).split(b"/")
    except UnicodeEncodeError:
        return "it is no Unicode text"
    if any(len(part) > 255 for part in parts) or sum(map(len, parts)) + len(parts) > 4000:
        return "it is longer than a file's name can be"
    if place.startswith("~") and os.path.expanduser(place).startswith("~"):
        return f"there is no user {place[1:].split('/')[0]!r} here"
    return ""


def locked_by_another(path: Path) -> bool | None:
    """Whether another process holds `fcntl.lockf` on a file. None if that cannot be found out here.

    It asks and takes no lock: a process that starts at this moment must not find the file locked.
    """
    import fcntl
    import struct

    if sys.platform != "linux" or struct.calcsize("P") != 8:  # other systems order these fields otherwise
        return None
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with path.open("r+b") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, request)
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks, or a folder of another user
        return None
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def sync(path: Path) -> None:
    """Wait until a file or folder is written to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON. NaN and infinity become null, because JSON has neither."""
    return json.dumps(_without_nan(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON, complete or not at all. Raises RunError if the disk refuses."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; None if there is no file. Raises RunError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # older versions wrote NaN
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(to_json(record) + "\n" for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read what `write_records` wrote. Raises RunError for a file that is missing or damaged."""
    try:
        # not splitlines: a text may hold other line separators of Unicode, which JSON leaves as they are
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the predictions of the run cannot be read ({error}): restore the file") from None
