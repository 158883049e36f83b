"""Read compressed files (.gz, .bz2, .xz, .zst) as if they were not compressed, up to a limit of size."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import DataError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_STARTS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}  # first bytes
_SMALL = 16 << 20  # bytes of a text that is kept in memory
_FREE, _RATIO = 256 << 20, 200  # bytes that any file may hold; above, a multiple of the compressed size


def inner(path: Path) -> Path:
    """The path without the suffix of the compression: train.csv for train.csv.gz."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed if it is compressed. Raises DataError, also while it is read."""
    import pyarrow

    own = path.suffix.lower()
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            kind = next((suffix for begin, suffix in _STARTS.items() if start.startswith(begin)), None)
            if kind is None and own in SUFFIXES:
                raise DataError(f"{path}: no {own} file, whatever its name says: compress it again, or rename it")
            unpacked: Any = file if kind is None else io.BufferedReader(_Decompressed(path, file, kind), 1 << 16)
            yield unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: a damaged {own} file: {str(error).splitlines()[0]}") from None
    except OSError as error:
        if error.strerror is None:  # an error of a decompressor
            raise DataError(f"{path}: a damaged {own} file: {str(error).splitlines()[0]}") from None
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def text(path: Path) -> str:
    """The complete file as text. Raises DataError naming the file."""
    with opened(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None


class Lines:
    """A text that is read line by line, as often as needed. A small file is kept in memory, a large one is not."""

    def __init__(self, source: Path | str, start: int = 0, change: Callable[[str], str] | None = None) -> None:
        self.source, self.start, self.change = source, start, change

    def read(self, end: str = "") -> Iterator[str]:
        """The lines with their ends: `end` alone ends a line, or \\n, \\r and \\r\\n all do if it is empty."""
        with self._opened(end) as file:
            file.read(self.start)
            yield from file if self.change is None else map(self.change, file)

    def beginning(self, most: int) -> str:
        """The first `most` characters, or fewer if the text ends before."""
        with self._opened("") as file:
            file.read(self.start)
            return file.read(most)

    def after(self, start: int) -> "Lines":
        """The text without its first characters."""
        return Lines(self.source, self.start + start, self.change)

    def changed(self, change: Callable[[str], str]) -> "Lines":
        """The text with every line changed."""
        return Lines(self.source, self.start, change)

    def holds(self, part: str) -> bool:
        """Whether a line holds `part`."""
        return any(part in line for line in self.read("\n"))

    @contextmanager
    def _opened(self, end: str) -> Iterator[io.TextIOBase]:
        if isinstance(self.source, str):
            yield io.StringIO(self.source, newline=end)
            return
        with opened(self.source) as file:
            yield io.TextIOWrapper(file, encoding="utf-8-sig", newline=end)


def lines(path: Path) -> Lines:
    """A file as lines of text. Raises DataError naming the file, also for bytes anywhere that are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = shift = 0
    with opened(path) as file:
        content = file.read(_SMALL)
        start = content
        while True:
            shift = 3 if not read and start.startswith(codecs.BOM_UTF8) else shift
            read += len(start)
            try:
                decoder.decode(start, final=not start)
            except UnicodeDecodeError as error:
                place = read - len(error.object) + error.start - shift
                raise DataError(f"{path}: not UTF-8 text (byte {place}): save the file as UTF-8") from None
            if not start:
                break
            start = file.read(1 << 20)
    return Lines(content.decode("utf-8-sig")) if read <= len(content) else Lines(path)


class _Decompressed(io.RawIOBase):
    """A decompressed stream with a limit of size: a small file may hold more than fits memory."""

    def __init__(self, path: Path, file: BinaryIO, kind: str) -> None:
        import pyarrow

        readers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        # the standard library has no zstd
        self.source: Any = readers[kind](file) if kind in readers else pyarrow.CompressedInputStream(file, "zstd")
        self.path, self.count, self.most = path, 0, max(_FREE, _RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self.source.read(len(buffer))
        self.count += len(found)
        if self.count > self.most:
            times = f"more than {_RATIO} times its size"
            raise DataError(f"{self.path}: holds {times}, which no table or text does: unpack it yourself")
        buffer[: len(found)] = found
        return len(found)
