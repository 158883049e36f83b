"""List folders in the same way for every format: sorted, without hidden files and files of the operating system."""

import io
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from pipelines.data.splitting import USUAL
from pipelines.errors import DataError

SPLIT_NAMES = frozenset(name for names in USUAL.values() for name in names)
_LITTER = frozenset(("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"))


def all_files(path: Path, *, deep: bool = True) -> Iterator[Path]:
    """All files below a folder (without `deep`, only those in it), sorted.

    Links are followed unless they lead back to a folder above. Raises DataError for a folder that cannot be listed.
    """
    for folder, entries in runs(path, deep=deep):
        for entry in entries:
            yield Path(folder, entry.name)


def runs(
    path: Path | str, above: tuple[tuple[int, int], ...] = (), *, deep: bool = True
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """The files of `all_files` in its order, as runs of entries of one folder, without a Path for each.

    A Path takes ten times as long as its entry, which counts in folders of a hundred thousand files.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unlisted(path, error) from None
    mark = (status.st_dev, status.st_ino)
    if mark in above:
        return
    run: list[os.DirEntry[str]] = []
    for entry in _entries(path):
        if not _is_folder(entry):
            run.append(entry)
        elif deep:
            if run:
                yield os.fspath(path), run
                run = []
            yield from runs(entry.path, (*above, mark))
    if run:
        yield os.fspath(path), run


def any_file(path: Path | str, *, deep: bool = True) -> bool:
    """Whether there is a file below a folder; without `deep`, in it."""
    try:
        with os.scandir(path) as listed:  # most folders begin with a file, so they need not be listed and sorted
            if any(_counts(entry.name) and not _is_folder(entry) for entry in listed):
                return True
    except OSError as error:
        raise _unlisted(path, error) from None
    return deep and next(runs(path), None) is not None


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, as Path(name).suffix gives it."""
    at = name.rfind(".")
    return name[at:].lower() if 0 < at < len(name) - 1 else ""


def suffixes(path: Path, most: int) -> Counter[str]:
    """How many of the first `most` files below a folder have each suffix, in lower case."""
    names = (entry.name for _, entries in runs(path) for entry in entries)
    return Counter(suffix_of(name) for name in islice(names, most))


def folders(path: Path) -> list[Path]:
    """The folders in a folder, without links to a folder above. Raises DataError."""
    here = path.resolve()
    found = [Path(entry.path) for entry in _entries(path, only_folders=True)]
    return [child for child in found if not here.is_relative_to(child.resolve())]


def kind_of(path: Path) -> str:
    """The kind of a file for messages, by its suffix: ".txt files"."""
    return f"{path.suffix.lower()} files" if path.suffix else "files without a suffix"


def printable(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 are replaced by U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


NOT_UTF8 = "its name is not UTF-8"


def problem(path: Path) -> tuple[str, int]:
    """Why a file cannot be a row ("" if it can), and its size in bytes."""
    return (NOT_UTF8, 0) if printable(str(path)) != str(path) else file_size(path)


def file_size(file: "Path | os.DirEntry[str]") -> tuple[str, int]:
    """Why a file cannot be read, or that it is empty ("" if neither), and its size in bytes."""
    try:
        size = file.stat().st_size
    except OSError as error:
        return error.strerror or "cannot be read", 0
    return ("" if size else "empty file"), size


def composed(name: str) -> str:
    """A name in Unicode's composed form: a Mac writes the same accents in another form, which looks equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def not_among(root: Path, endings: Collection[str], files: Collection[str]) -> int:
    """How many files below a folder have one of these suffixes and are none of `files`, also by a link."""
    plain = set(map(os.path.abspath, files))
    others, met = [], 0
    for folder, entries in runs(root):
        here = os.path.abspath(folder)
        found = [os.path.join(here, entry.name) for entry in entries if suffix_of(entry.name) in endings]
        left = [file for file in found if file not in plain]
        met += len(found) - len(left)
        others += left
    if met < len(plain):  # some files have other names here, or are elsewhere: links are followed only then
        real = set(map(os.path.realpath, plain))
        others = [file for file in others if os.path.realpath(file) not in real]
    return len(others)


def ends(file: Path, size: int = 1 << 16) -> bytes:
    """The first and the last bytes of a file: all of it if it is small. Empty if it cannot be read."""
    try:
        with file.open("rb") as opened:
            both = opened.read(size)
            rest = opened.seek(0, os.SEEK_END) - size
            if rest > 0:
                opened.seek(max(size, rest))
                both += opened.read(size)
            return both
    except OSError:
        return b""


def begins(value: Any, size: int = 12) -> tuple[bytes, str]:
    """The first bytes of an image, a recording or a video, and the suffix of its name.

    Both are empty if there is no file to read. `value` is a path, bytes, or datasets' {"path", "bytes"}.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:size]), ""
    if not isinstance(value, (str, Path)):
        return b"", ""
    try:
        with open(value, "rb") as file:
            return file.read(size), Path(value).suffix.lower()
    except (OSError, ValueError):
        return b"", ""


def source_of(name: str, value: Any, medium: str) -> str | io.BytesIO:
    """The path of a readable file, or its bytes. `value` is a path, bytes, or datasets' {"path", "bytes"}.

    `medium` is the word for it in messages. Raises DataError, which begins with `name`, if there is no such file.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise DataError(f"{name}: no {medium} here")
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise DataError(f"{name}: no bytes")
        return io.BytesIO(value)
    try:
        status = Path(value).stat()
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    if not S_ISREG(status.st_mode):
        raise DataError(f"{name}: {'a folder' if S_ISDIR(status.st_mode) else 'a device'}, not a file")
    if not status.st_size:
        raise DataError(f"{name}: empty file")
    if not os.access(value, os.R_OK):
        raise DataError(f"{name}: may not be read (permission denied)")
    return str(value)


def _entries(path: Path | str, *, only_folders: bool = False) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as listed:
            # _counts is written out here, because a call for each file would take half of the time
            found = [e for e in listed if e.name[0] != "." and e.name not in _LITTER]
    except OSError as error:
        raise _unlisted(path, error) from None
    if only_folders:
        found = [entry for entry in found if _is_folder(entry)]
    return sorted(found, key=attrgetter("name"))


def _unlisted(path: Path | str, error: OSError) -> DataError:
    return DataError(f"{printable(str(path))}: cannot be listed: {error.strerror}")


def _counts(name: str) -> bool:
    """Whether a name is not hidden, and no file that an operating system writes."""
    return not name.startswith(".") and name not in _LITTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: not a folder, and reading it as a file reports the reason
        return False
