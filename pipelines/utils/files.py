"""Names that a file can have, and files that are written completely or not at all."""

import contextlib
import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
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


def near(place: str) -> str | None:
    """What exists and has nearly this name: `photos` for `photo`, `data/photos` for `dta/photos`. None if nothing has.

    `place` does not exist. Its last part is also looked for in the current folder. Other folders are not searched.
    """
    if problem(place):
        return None
    path = Path(os.path.expanduser(place))
    gone = path
    while not gone.parent.is_dir():  # the first part that does not exist
        gone = gone.parent
    try:
        names = sorted(entry.name for entry in os.scandir(gone.parent) if not entry.name.startswith("."))
    except OSError:
        return None
    lower = {name.lower(): name for name in reversed(names)}
    alike = difflib.get_close_matches(gone.name.lower(), lower, n=1, cutoff=0.7)
    if not alike:  # photo.jpeg for photo.jpg, and a suffix that was left out
        alike = [name for name in lower if Path(name).stem == Path(gone.name.lower()).stem][:1]
    found = gone.parent / lower[alike[0]] / path.relative_to(gone) if alike else Path(path.name)
    return str(found) if found.name and found.exists() else None


def did_you_mean(place: str) -> str:
    """` (did you mean photos?)` if something that exists has nearly this name; else empty."""
    found = near(place)
    return f" (did you mean {found}?)" if found else ""


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
    if isinstance(value, Mapping):
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
    """Write a text, complete or not at all. Raises RunError if the disk refuses."""
    _write(path, [text])


def _write(path: Path, parts: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    _write(path, (to_json(record) + "\n" for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read what `write_records` wrote. Raises RunError for a file that is missing or damaged."""
    try:
        # newline: a text may hold other line separators of Unicode, which JSON leaves as they are
        with path.open(encoding="utf-8", newline="\n") as file:
            return [json.loads(line) for line in file if line != "\n"]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the predictions of the run cannot be read ({error}): restore the file") from None
