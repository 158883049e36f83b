"""Headers of recordings, read once and kept in Graft's cache; a later run, and every other process, finds them there.

A file is known by its path, size, times of change and inode. Bytes of a table are known by its rows and by their
lengths. The processes of a run read their headers one after the other (the main process first), so only the first one
reads files.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.data import containers
from pipelines.data.audio.reading import Sound, file_header, log, name_of, part_of, sample_blocks
from pipelines.data.media import paths
from pipelines.data.schema import fingerprint
from pipelines.errors import DataError
from pipelines.utils.cache import Identity, cache_root, identity, make_room
from pipelines.utils.progress import preparing

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 2  # of what is kept; another number forgets the older ones
ROOM = 256 << 20  # bytes of the cache
MOST = 2_000_000  # headers that are kept of one folder
CLIPPED = 0.01  # share of samples at full scale from which a recording counts as clipped
CHUNK = 16  # values that a thread takes at a time
BATCH = 256  # rows at a time: a data set of the hub holds the files' bytes, which must not be in memory all at once


class Looked(NamedTuple):
    """What is known of a row's recording."""

    sound: Sound
    name: str
    why: str  # why it cannot be read; "" if it can


class _Known(NamedTuple):
    file: Identity  # of bytes, the size only
    sound: Sound
    clipped: bool | None  # of its first minute; None if nobody looked


class Headers:
    """The headers of all recordings of `rows`; `looked` has one for each row. New ones are kept when they are read."""

    def __init__(self, rows: "Dataset") -> None:
        self.audio = rows.select_columns("audio")
        self.keys, sizes, self.root = _keys(rows)
        self.store = _store(self.root)
        self.known = _kept(self.store)
        self.new = False
        self.unsure: set[str] = set()  # files that may have changed while they were read, or after it
        wrong = self._read(sizes)
        self.looked = [self._looked(number, value, wrong) for number, value in enumerate(_without_bytes(self.audio))]
        self._keep()

    def clipped(self, numbers: Iterable[int]) -> list[str]:
        """The names of the recordings among these rows whose first minute is clipped; unreadable ones are left out."""

        def look(number: int) -> bool:
            known = self.known.get(self.keys[number])
            value = self.audio[number]["audio"]
            complete = value.get("start") is None and value.get("end") is None
            if complete and known is not None and known.clipped is not None:
                return known.clipped
            answer = _clipped(value)
            if complete and known is not None:
                self.known[self.keys[number]] = known._replace(clipped=answer)
                self.new = self.new or self.keys[number] not in self.unsure
            return answer

        asked = list(numbers)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(look, asked))
        self._keep()
        return [self.looked[number].name for number, answer in zip(asked, answers, strict=True) if answer]

    def _read(self, sizes: list[Identity | None]) -> dict[str, str]:
        """Read the headers that are not known. Returns why some cannot be read."""
        first: dict[str, int] = {}  # a file is read once, however many of its parts are rows
        for number, (key, size) in enumerate(zip(self.keys, sizes, strict=True)):
            known = self.known.get(key)
            if known is None or size is None or known.file != size:
                first.setdefault(key, number)
        wrong: dict[str, str] = {}
        numbers = list(first.values())
        # reading headers waits for the disk
        with ThreadPoolExecutor(8) as pool, preparing("headers of recordings", len(numbers)) as report:
            for number, (sound, why) in _map(pool, _header, self.audio, numbers):
                report(1)
                key, size = self.keys[number], sizes[number]
                self.known.pop(key, None)
                if why:
                    wrong[key] = why
                    continue
                self.known[key] = _Known(size or Identity(0, 0, 0, 0), sound, None)
                if size is None or not size.settled:
                    self.unsure.add(key)
                else:
                    self.new = True
        return wrong

    def _looked(self, number: int, value: dict[str, Any], wrong: dict[str, str]) -> Looked:
        key, name = self.keys[number], name_of(value)
        if key in wrong:
            return Looked(Sound(0.0, 0, 0), name, wrong[key])
        try:  # also a complete file: it may be too short
            return Looked(part_of(name, value, self.known[key].sound), name, "")
        except DataError as error:
            return Looked(Sound(0.0, 0, 0), name, str(error))

    def _keep(self) -> None:
        if self.new:
            _keep(self.store, {key: known for key, known in self.known.items() if key not in self.unsure})
            self.new = False


# ---- rows ----


def _keys(rows: "Dataset") -> tuple[list[str], list[Identity | None], str]:
    """For every row its key, and what its file is known by (None if unknown); and what all keys belong to.

    The key is the path of the file, or the row's id if the row holds bytes.
    """
    import pyarrow
    import pyarrow.compute

    files = paths(rows.select_columns("audio"))
    if all(file is None for file in files):
        stored = rows.data.column("audio")
        if not pyarrow.types.is_struct(stored.type):
            raise DataError("the column audio holds no recordings")
        lengths = pyarrow.compute.binary_length(pyarrow.compute.struct_field(stored, "bytes"))
        if rows._indices is not None:
            lengths = lengths.take(rows._indices.column(0))
        sizes = [length or 0 for length in lengths.to_pylist()]
        digest = hashlib.blake2b(f"{fingerprint(rows)} {sizes}".encode(), digest_size=12).hexdigest()
        return (
            [f"{number}" for number in range(len(sizes))],
            [Identity(size, 0, 0, 0) for size in sizes],
            f"rows {digest}",
        )
    keys = [os.path.abspath(file) if file else f"\0{number}" for number, file in enumerate(files)]
    with ThreadPoolExecutor(8) as pool:
        unique = list(dict.fromkeys(keys))
        found = dict(zip(unique, _in_chunks(pool, _stat, unique), strict=True))
    real = [os.path.dirname(key) for key in unique if not key.startswith("\0")]
    return keys, [found[key] for key in keys], f"files {os.path.commonpath(real) if real else ''}"


def _stat(path: str) -> Identity | None:
    try:
        return identity(path)
    except (OSError, ValueError):  # the file's header says why
        return None


def _without_bytes(audio: "Dataset") -> "Iterator[dict[str, Any]]":
    """The column's values without the bytes of files."""
    import pyarrow.compute

    stored = audio.data.column("audio")
    fields = [name for name in ("path", "start", "end") if stored.type.get_field_index(name) >= 0]
    columns = {name: pyarrow.compute.struct_field(stored, name) for name in fields}
    if audio._indices is not None:
        columns = {name: column.take(audio._indices.column(0)) for name, column in columns.items()}
    values = {name: column.to_pylist() for name, column in columns.items()}
    return ({name: values[name][number] for name in fields} for number in range(len(audio)))


def _map(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], audio: "Dataset", numbers: list[int]
) -> "Iterator[tuple[int, Any]]":
    for start in range(0, len(numbers), BATCH):
        some = numbers[start : start + BATCH]
        yield from zip(some, _in_chunks(pool, function, audio[some]["audio"]), strict=True)


def _in_chunks(pool: ThreadPoolExecutor, function: Callable[[Any], Any], values: list[Any]) -> Iterator[Any]:
    """`pool.map`, with several values in a call, because a call costs as much as a header."""
    chunks = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    for answers in pool.map(lambda chunk: [function(value) for value in chunk], chunks):
        yield from answers


def _header(value: Any) -> tuple[Sound, str]:
    source = {key: value[key] for key in ("path", "bytes") if key in value} if isinstance(value, dict) else value
    try:
        return file_header(source), ""
    except DataError as error:
        return Sound(0.0, 0, 0), str(error)


def _clipped(value: Any) -> bool:
    import numpy as np

    try:
        block, _ = next(sample_blocks(name_of(value), value))
    except DataError:  # reported when the recording is indexed
        return False
    return bool((np.abs(block) >= 0.999).mean() > CLIPPED)


# ---- what is kept ----


def _store(root: str) -> Path:
    """The folder of the cache for what belongs together; another one for every version of the libraries that read."""
    import soundfile

    reader = f"{VERSION} {soundfile.__libsndfile_version__} {containers.version()}"
    digest = hashlib.blake2b(os.fsencode(f"{reader} {root}"), digest_size=12).hexdigest()
    return cache_root() / "headers" / digest


_COLUMNS = ("key", "size", "changed", "status_changed", "inode", "seconds", "rate", "channels", "video", "clipped")


def _kept(folder: Path) -> dict[str, _Known]:
    import pyarrow
    import pyarrow.feather

    try:
        table = pyarrow.feather.read_table(folder / "headers.arrow", memory_map=False)
        columns = [table.column(name).to_pylist() for name in _COLUMNS]
        os.utime(folder)  # those that were unused for longest are deleted first
    except (OSError, KeyError, pyarrow.ArrowException):  # nothing is kept, or it is damaged: the files are read
        return {}
    return {
        key: _Known(Identity(*file), Sound(seconds, rate, channels, video), clipped)
        for key, *file, seconds, rate, channels, video, clipped in zip(*columns, strict=True)
    }


def _keep(folder: Path, known: dict[str, _Known]) -> None:
    """Write what is known, complete or not at all. If it cannot be written, a line says so, and nothing is kept."""
    import pyarrow
    import pyarrow.feather

    rows = [(key, *one.file, *one.sound, one.clipped) for key, one in list(known.items())[-MOST:]]
    kinds = ("string", "int64", "int64", "int64", "uint64", "float64", "int64", "int64", "bool", "bool")
    columns = zip(*rows, strict=True) if rows else ([] for _ in _COLUMNS)
    table = pyarrow.table(
        {
            name: pyarrow.array(list(column), pyarrow.type_for_alias(kind))
            for name, kind, column in zip(_COLUMNS, kinds, columns, strict=True)
        }
    )
    temporary = folder / f".{socket.gethostname()}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder.parent, ROOM)
        folder.mkdir(parents=True, exist_ok=True)  # it may have been removed
        pyarrow.feather.write_feather(table, temporary, compression="zstd")
        temporary.replace(folder / "headers.arrow")
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        log.warning(
            "%s: the headers of recordings cannot be kept (%s), so the next run reads them again: "
            "free some room, or set GRAFT_CACHE",
            folder.parent,
            error.strerror or error,
            extra={"once": True},
        )
