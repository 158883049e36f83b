"""List folders in the same way for every format: sorted, without hidden files and files of the operating system."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.data.splitting import USUAL
from pipelines.errors import DataError

SPLIT_NAMES = frozenset(name for names in USUAL.values() for name in names)
_LITTER = frozenset(("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"))


def all_files(path: Path, above: tuple[tuple[int, int], ...] = (), *, deep: bool = True) -> Iterator[Path]:
    """All files below a folder (without `deep`, only those in it), sorted.

    Links are followed unless they lead back to a folder above. Raises DataError for a folder that cannot be listed.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be listed: {error.strerror}") from None
    mark = (status.st_dev, status.st_ino)
    if mark in above:
        return
    for entry in _entries(path):
        if _is_folder(entry):
            if deep:
                yield from all_files(Path(entry.path), (*above, mark))
        else:
            yield Path(entry.path)


def folders(path: Path) -> list[Path]:
    """The folders in a folder, without links to a folder above. Raises DataError."""
    here = path.resolve()
    found = [Path(entry.path) for entry in _entries(path) if _is_folder(entry)]
    return [child for child in found if not here.is_relative_to(child.resolve())]


def kind_of(path: Path) -> str:
    """The kind of a file for messages, by its suffix: ".txt files"."""
    return f"{path.suffix.lower()} files" if path.suffix else "files without a suffix"


def printable(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 are replaced by U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def problem(path: Path) -> tuple[str, int]:
    """Why a file cannot be a row ("" if it can), and its size in bytes."""
    if printable(str(path)) != str(path):
        return "its name is not UTF-8", 0
    try:
        size = path.stat().st_size
    except OSError as error:
        return error.strerror or "cannot be read", 0
    return ("" if size else "empty file"), size


def begins(value: Any) -> tuple[bytes, str]:
    """The first 12 bytes of an image or a recording, and the suffix of its name.

    Both are empty if there is no file to read. `value` is a path, bytes, or datasets' {"path", "bytes"}.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:12]), ""
    if not isinstance(value, (str, Path)):
        return b"", ""
    try:
        with open(value, "rb") as file:
            return file.read(12), Path(value).suffix.lower()
    except (OSError, ValueError):
        return b"", ""


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as listed:
            return sorted(
                (e for e in listed if not e.name.startswith(".") and e.name not in _LITTER), key=lambda e: e.name
            )
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be listed: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: not a folder, and reading it as a file reports the reason
        return False
