"""Read compressed files (.gz, .bz2, .xz, .zst) as if they were not compressed, up to a limit of size."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import DataError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_STARTS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}  # first bytes
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
