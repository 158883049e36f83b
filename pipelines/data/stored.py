"""Rows on disk: small tables stay in memory, large ones become Arrow files in $GRAFT_CACHE/rows, mapped into memory.

Such files are kept, so a later run and the other processes of a run do not read the data again. Their key is what the
rows depend on: the files with their sizes, times and inodes, how they are read, and Graft's own code that does it.
The entries that were unused for longest are deleted when all of them take more than about 60 GB.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import socket
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.data.columns import AT_ONCE
from pipelines.errors import RunError
from pipelines.utils.cache import begin, cache_root, discard, finish, hold, identity, until_exit
from pipelines.utils.progress import waiting

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

ROOM = 60e9  # bytes of all entries
SMALL_ROWS, SMALL_BYTES = 50_000, 32 << 20  # a smaller table stays in memory and is read again
_BATCH = 8 << 20  # bytes of a batch, about

# what pyarrow raises for cells that it cannot store in one column; ArrowInvalid is a ValueError
CANNOT_STORE = (ValueError, TypeError, OverflowError, RuntimeError)


log = logging.getLogger("graft")


def large(rows: "Dataset") -> bool:
    """Whether results about these rows are worth an entry of the cache."""
    return len(rows) >= SMALL_ROWS or rows.data.nbytes >= SMALL_BYTES


# what a missing or damaged file of rows raises; ArrowInvalid is a ValueError
UNREADABLE = (OSError, ValueError, RuntimeError)


class Clash(Exception):
    """Cells of one column have types that do not fit one another, or cannot be stored."""


def table(key: Any, doing: str, fill: "Callable[[Rows], Any]") -> "tuple[Dataset, Any]":
    """The rows that `fill` adds, and the JSON value that it returns. With a `key`, large tables are read once only.

    `doing` says what takes so long ("reading a.csv"). Raises RunError if the rows cannot be written, and Clash.
    """
    folder = None if key is None else _folder(key)
    if folder is not None and (about := _about(folder)) is not None:
        try:
            found = _mapped(folder, about["size"])
        except UNREADABLE:
            discard(folder)
        else:
            return found, _repeated(about)
    with Rows(folder) as rows, waiting(lambda: f"{doing}{f': {rows.count:,} rows' if rows.count else ''}"):
        with _warnings() as warned:
            found = fill(rows)
        return rows.done({"value": found, "warnings": warned}), found


def value(key: Any, doing: str, compute: Callable[[], Any]) -> Any:
    """A JSON value that is computed once for this key, if there is one. Raises RunError if it cannot be written."""
    if key is None:
        with waiting(lambda: doing):
            return compute()
    folder = _folder(key)
    if (about := _about(folder)) is not None:
        return _repeated(about)
    with waiting(lambda: doing), _warnings() as warned:
        found = compute()
    temporary = _begun(folder)
    try:
        _finish(temporary, folder, {"value": found, "warnings": warned})
    finally:
        discard(temporary)
    return found


def lasting(rows: "Dataset") -> bool:
    """Whether a later run can find these rows again by their fingerprint: not those of a table without a key."""
    return not any(Path(file["filename"]).parent.name.startswith(".") for file in rows.cache_files)


class Rows:
    """A table that grows row by row, and moves from memory to disk when it becomes large."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.count = 0
        # whether a missing cell of a column is an empty text, if all its other cells are texts
        self.is_text: Callable[[str], bool] = _never
        self.types: Mapping[str, pyarrow.DataType] = {}  # of columns whose types the cells of a batch may not tell
        self._names: list[str] = []
        self._cells: list[list[Any]] = []
        self._first = self._size = self._stored = 0  # empty rows before the first; bytes of the batch, of all batches
        self._batches: list[pyarrow.RecordBatch] = []
        self._schemas: list[pyarrow.Schema] = []  # of the batches, or of the files that hold them
        self._writer: Any = None
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_file()
        if self._temporary is not None:
            discard(self._temporary)

    def add(self, row: Mapping[str, Any] | None) -> None:
        """Add a row. The first row decides on the columns. None is a row of empty cells. Raises Clash and RunError."""
        self.count += 1
        if not self._names:
            if row is None:
                self._first += 1
                return
            self._names = list(row)
            self._cells = [[None] * self._first for _ in self._names]
        for name, cells in zip(self._names, self._cells, strict=True):
            cell = None if row is None else row.get(name)
            cells.append(cell)
            if isinstance(cell, (str, bytes)):
                self._size += len(cell)
            else:
                self._size += 400 * len(cell) if isinstance(cell, list) else 8
        if len(self._cells[0]) >= AT_ONCE or self._size >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        try:
            columns = [
                pyarrow.array(cells, self.types.get(name)) for name, cells in zip(self._names, self._cells, strict=True)
            ]
        except CANNOT_STORE as error:
            raise Clash(str(error).partition("\n")[0]) from None
        self._cells, self._size = [[] for _ in self._names], 0
        batch = pyarrow.RecordBatch.from_arrays(columns, names=self._names)
        self._stored += batch.nbytes
        if self._temporary is not None:
            self._write(batch)
            return
        self._batches.append(batch)
        if self._stored >= SMALL_BYTES or self.count >= SMALL_ROWS:
            self._temporary = _begun(self.folder)
            for batch in self._batches:
                self._write(batch)
            self._batches = []

    def _write(self, batch: "pyarrow.RecordBatch") -> None:
        """Write a batch into the last file, or into a new one if its columns have other types."""
        import pyarrow

        assert self._temporary is not None
        with _disk_errors(self._temporary):
            if self._writer is None or batch.schema != self._schemas[-1]:
                self._end_file()
                self._schemas.append(batch.schema)
                file = str(self._temporary / f"part{len(self._schemas) - 1}.arrow")
                self._writer = pyarrow.ipc.new_stream(file, batch.schema)
            self._writer.write_batch(batch)

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def done(self, about: dict[str, Any]) -> "Dataset":
        """The rows as a data set. Raises Clash and RunError."""
        import pyarrow
        from datasets import Dataset
        from datasets.table import InMemoryTable

        if any(self._cells):
            self._flush()
        if self._temporary is None:
            schema = self._schema([batch.schema for batch in self._batches])
            table = pyarrow.Table.from_batches([self._fitted(batch, schema) for batch in self._batches], schema)
            return Dataset(InMemoryTable(table.combine_chunks()))
        schema, temporary = self._schema(self._schemas), self._temporary
        with _disk_errors(temporary):
            self._end_file()
            files = [temporary / f"part{number}.arrow" for number in range(len(self._schemas))]
            if schema == self._schemas[0] and len(files) == 1 and not self._lacks_text(files[0], schema):
                files[0].rename(temporary / "rows.arrow")
            else:
                with pyarrow.ipc.new_stream(str(temporary / "rows.arrow"), schema) as writer:
                    for file in files:
                        for batch in _read(file):
                            writer.write_batch(self._fitted(batch, schema))
                        file.unlink()
        own = _finish(temporary, self.folder, about)
        with _disk_errors(own):
            return _mapped(own)

    def _schema(self, schemas: "list[pyarrow.Schema]") -> "pyarrow.Schema":
        import pyarrow

        if not schemas:
            return pyarrow.schema([])
        try:
            merged = pyarrow.unify_schemas(schemas, promote_options="permissive")
        except pyarrow.ArrowException as error:
            raise Clash(str(error).partition("\n")[0]) from None
        for place, field in enumerate(merged):
            if pyarrow.types.is_null(field.type) and self.is_text(field.name):
                merged = merged.set(place, pyarrow.field(field.name, pyarrow.string()))
        return merged

    def _is_filled(self, field: "pyarrow.Field") -> bool:
        import pyarrow

        return pyarrow.types.is_string(field.type) and self.is_text(field.name)

    def _lacks_text(self, file: Path, schema: "pyarrow.Schema") -> bool:
        filled = [field.name for field in schema if self._is_filled(field)]
        return any(batch.column(name).null_count for batch in _read(file) for name in filled)

    def _fitted(self, batch: "pyarrow.RecordBatch", schema: "pyarrow.Schema") -> "pyarrow.RecordBatch":
        """The batch with the types of all batches, and "" for an empty cell in a column of texts."""
        import pyarrow
        import pyarrow.compute

        columns = []
        for field in schema:
            column = batch.column(field.name)
            if column.type != field.type:
                try:
                    column = pyarrow.array(column.to_pylist(), type=field.type)
                except CANNOT_STORE as error:
                    raise Clash(str(error).partition("\n")[0]) from None
            columns.append(pyarrow.compute.fill_null(column, "") if self._is_filled(field) else column)
        return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def _never(name: str) -> bool:
    return False


# ---- entries of the cache ----


def _folder(key: Any) -> Path:
    text = json.dumps([key, code()], sort_keys=True, default=str)
    return cache_root() / "rows" / hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _about(folder: Path) -> Any:
    """What an entry says about its rows; None if there is no such entry. A damaged entry is deleted."""
    if not folder.exists():
        return None
    try:
        found = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.keys() >= {"value", "warnings", "size"}:
            hold(folder)
            return found
    except (OSError, ValueError):
        pass  # it is damaged
    discard(folder)
    return None


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings that are given in this block, which are given again when its result is read from the cache."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    listener = Listener(logging.WARNING)
    log.addHandler(listener)
    try:
        yield found
    finally:
        log.removeHandler(listener)


def _repeated(about: dict[str, Any]) -> Any:
    for warning in about["warnings"]:
        log.warning("%s", warning)
    return about["value"]


def _mapped(folder: Path, size: int | None = None) -> "Dataset":
    """The rows of an entry, whose file has this size. Raises one of UNREADABLE."""
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    if size not in (None, (folder / "rows.arrow").stat().st_size):
        raise ValueError("the file is not complete")
    return Dataset(MemoryMappedTable.from_file(str(folder / "rows.arrow")), fingerprint=folder.name.strip("."))


def _read(file: Path) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    with pyarrow.OSFile(str(file)) as opened, pyarrow.ipc.open_stream(opened) as reader:
        yield from reader


def _begun(folder: Path | None) -> Path:
    """A new folder for an entry that is not complete, or that only this process uses."""
    folder = cache_root() / "rows" / uuid.uuid4().hex if folder is None else folder
    with _disk_errors(folder):
        return begin(folder, ROOM)


def _finish(temporary: Path, folder: Path | None, about: dict[str, Any]) -> Path:
    """Complete an entry; without a `folder`, it is deleted at the end of this process."""
    if folder is None:
        own = temporary.with_name(f".{uuid.uuid4().hex}.{socket.gethostname()}.{os.getpid()}")
        temporary.rename(own)
        until_exit(own)
        return own
    with _disk_errors(temporary):
        rows = temporary / "rows.arrow"
        about = {**about, "size": rows.stat().st_size if rows.exists() else 0}
        (temporary / "about.json").write_text(json.dumps(about), encoding="utf-8")
        finish(temporary, folder, ROOM)
    hold(folder)
    return folder


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder.parent}: the rows cannot be written ({error}); free some room, or set GRAFT_CACHE"
        ) from None


# ---- keys ----


def files_key(files: Iterable[Path]) -> list[Any] | None:
    """The files and what they are known by, for a key; None if one changed just now, and may change again."""
    known = [(file.resolve(), identity(file)) for file in files]
    return [[str(path), *one] for path, one in known] if all(one.settled for _, one in known) else None


def function_key(function: Any) -> Any:
    """What a function of a task depends on, for a key: its code and the options of its task. None if it is not known.

    A task with a model or a tokenizer is not known, because it may depend on them.
    """
    try:
        return _state(function)
    except (_Unknown, RecursionError):
        return None


class _Unknown(Exception):
    pass


def _state(found: Any) -> Any:
    if found is None or isinstance(found, (str, int, float, Path)):
        return str(found) if isinstance(found, Path) else found
    if isinstance(found, Mapping):
        return ["mapping", [[str(key), _state(part)] for key, part in found.items()]]
    if isinstance(found, Sequence):
        return [_state(part) for part in found]
    if isinstance(found, types.MethodType):
        return [found.__func__.__qualname__, _source(found.__module__), _state(found.__self__)]
    if isinstance(found, types.FunctionType):
        held = [_state(cell.cell_contents) for cell in found.__closure__ or ()]
        defaults = _state([found.__defaults__, found.__kwdefaults__])
        return [found.__qualname__, found.__code__.co_firstlineno, _source(found.__module__), held, defaults]
    if isinstance(found, functools.partial):
        return ["partial", _state(found.func), _state(found.args), _state(found.keywords)]
    if isinstance(found, type):
        return [found.__qualname__, _source(found.__module__)]
    if not hasattr(found, "__dict__"):
        raise _Unknown
    return [_state(type(found)), _state(vars(found))]


@functools.lru_cache
def _source(module: str) -> Any:
    """The file that a module comes from, as a key."""
    if module in sys.builtin_module_names:
        return module
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise _Unknown
    return [module, _digest(Path(file))]


@functools.lru_cache
def code() -> str:
    """A digest of Graft's own files that read and clean rows."""
    here = Path(__file__).parent
    parts = [here, *(here.with_name(name) for name in ("tasks", "metrics", "models"))]
    files = sorted(file for part in parts for file in part.rglob("*.py"))
    return hashlib.blake2b("".join(map(_digest, files)).encode(), digest_size=8).hexdigest()


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=12).hexdigest()
