"""Parquet files with images or recordings in their rows: the bytes stay in an Arrow file, which is mapped into memory.

A row in Python would hold copies of them. `light_rows` gives rows without the bytes, which are joined to the rows that
can be used by `with_bytes`. The Arrow file is written once, to $GRAFT_CACHE/tables.
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.stored import UNREADABLE, code, files_key
from pipelines.errors import DataError, RunError
from pipelines.utils.cache import begin, cache_root, discard, finish, hold, until_exit
from pipelines.utils.progress import preparing

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

LARGE = 64 << 20  # bytes; smaller files are read into memory
ROOM = 100e9  # bytes of all Arrow files; those that were unused for longest are deleted
_BATCH = 16 << 20  # bytes that are read at a time, about

Rows = list[tuple[str, dict[Any, Any]]]  # (id, cells by column)


def column_names(path: Path) -> list[str]:
    """The names of the columns. Raises DataError."""
    return list(_schema(path).names)


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows as (id, cells), read in batches. Raises DataError."""
    number = 0
    for batch in _batches(path, columns):
        for row in batch.to_pylist():
            yield f"{path.name}:{number}", row
            number += 1


# ---- bytes that stay in a file ----


def held(path: Path, columns: Sequence[str], media: Sequence[str]) -> "pyarrow.Table | None":
    """The table, mapped into memory, if it is large and one of the columns `media` holds bytes; else None.

    Its columns of media have the type {"bytes": binary, "path": string}. Raises DataError or RunError.
    """
    import pyarrow
    import pyarrow.parquet

    schema = _schema(path)
    if not is_large(path):
        return None
    full = [name for name in media if name in columns and _holds_bytes(schema.field(name).type)]
    if not full:
        return None

    def with_files(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
        for place, name in enumerate(batch.schema.names):
            if name in full:
                batch = batch.set_column(place, name, _as_files(batch.column(place)))
        return batch

    stored = arrow_file(path, columns, with_files, full)
    with pyarrow.memory_map(str(stored)) as file:
        return pyarrow.ipc.open_stream(file).read_all()


def is_large(path: Path) -> bool:
    """Whether the file is better mapped than read. Raises DataError."""
    return _size(_metadata(path)) >= LARGE


def arrow_file(path: Path, columns: Sequence[str], convert: Callable[[Any], Any], key: Any) -> Path:
    """The batches of the file as `convert` gives them, in an Arrow file that is kept. Raises DataError or RunError.

    `key` (JSON) holds what the result of `convert` depends on.
    """
    known = files_key([path])
    about = [known or uuid.uuid4().hex, list(columns), key, code()]
    folder = cache_root() / "tables" / hashlib.blake2b(json.dumps(about).encode(), digest_size=12).hexdigest()
    hold(folder)  # before it is looked at, so that no other process deletes it
    if folder.exists() and not _is_good(folder):
        discard(folder)
    if not folder.exists():
        _write(path, columns, convert, folder)
        hold(folder)
    if known is None:  # the file changed just now, and may change again: no later run can know this table
        until_exit(folder)
    return folder / "rows.arrow"


def _is_good(folder: Path) -> bool:
    import pyarrow

    try:
        size = int((folder / "complete").read_text())
        with pyarrow.memory_map(str(folder / "rows.arrow")) as file:
            pyarrow.ipc.open_stream(file).read_all()
            return bool(file.size() == size)
    except UNREADABLE:
        return False


def light_rows(path: Path, table: "pyarrow.Table") -> Rows:
    """The rows of `held`, each with no bytes in place of those that it has."""
    import pyarrow
    import pyarrow.compute

    light = table
    for place, field in enumerate(table.schema):
        if field.type == _file_type():
            cells = table.column(place)
            inside = pyarrow.compute.is_valid(pyarrow.compute.struct_field(cells, "bytes"))
            empty = pyarrow.compute.if_else(inside, b"", pyarrow.scalar(None, pyarrow.binary()))
            names = pyarrow.compute.struct_field(cells, "path")
            parts = [empty.combine_chunks(), names.combine_chunks()]
            none = pyarrow.compute.is_null(cells).combine_chunks()
            light = light.set_column(
                place, field.name, pyarrow.StructArray.from_arrays(parts, ["bytes", "path"], mask=none)
            )
    return [(f"{path.name}:{number}", row) for number, row in enumerate(light.to_pylist())]


def with_bytes(rows: "Dataset", table: "pyarrow.Table", columns: dict[str, str]) -> "Dataset":
    """The usable ones of `light_rows` with their bytes, which are not copied, and with the right `size`.

    `columns` are the columns of media in `rows`, each with its name in `table`. The ids give the places of rows.
    """
    import numpy as np
    import pyarrow
    import pyarrow.compute
    from datasets import Dataset, DatasetInfo
    from datasets.table import InMemoryTable

    places = np.array([int(id_.rpartition(":")[2]) for id_ in rows["id"][:]])
    every = len(places) == table.num_rows
    if not every:  # rows that cannot be used get cells of another row, and are not selected below
        inverse = np.zeros(table.num_rows, dtype=np.int64)
        inverse[places] = np.arange(len(places))
    whole = rows.data.table if every else rows.data.table.take(pyarrow.array(inverse))
    sizes = pyarrow.compute.cast(whole.column("size"), pyarrow.int64())
    for column, name in columns.items():
        if table.schema.field(name).type != _file_type():
            continue
        at, chunks, lengths = 0, [], []
        light = whole.column(column).combine_chunks()
        for chunk in table.column(name).chunks:
            inner = pyarrow.compute.struct_field(chunk, "bytes")
            part = light.slice(at, len(chunk))
            cells = {
                field.name: inner if field.name == "bytes" else pyarrow.compute.struct_field(part, field.name)
                for field in light.type
            }
            chunks.append(pyarrow.StructArray.from_arrays(list(cells.values()), fields=list(light.type)))
            lengths.append(pyarrow.compute.fill_null(pyarrow.compute.binary_length(inner), 0))
            at += len(chunk)
        whole = whole.set_column(whole.column_names.index(column), column, pyarrow.chunked_array(chunks, light.type))
        sizes = pyarrow.compute.add(sizes, pyarrow.compute.cast(pyarrow.chunked_array(lengths), pyarrow.int64()))
    whole = whole.set_column(whole.column_names.index("size"), "size", sizes)
    # a given fingerprint: the library would copy all bytes to compute one
    mark = hashlib.blake2b(f"{rows._fingerprint} {table.num_rows} {sizes.to_pylist()}".encode(), digest_size=8)
    found = Dataset(InMemoryTable(whole), info=DatasetInfo(features=rows.features), fingerprint=mark.hexdigest())
    return found if every else found.select(places)


def _write(path: Path, columns: Sequence[str], convert: Callable[[Any], Any], folder: Path) -> None:
    import pyarrow

    with contextlib.ExitStack() as stack:
        try:
            temporary = begin(folder, ROOM)
            stack.callback(discard, temporary)
            report = stack.enter_context(preparing(f"reading the rows of {path.name}", _metadata(path).num_rows))
            with pyarrow.OSFile(str(temporary / "rows.arrow"), "wb") as file, contextlib.ExitStack() as written:
                writer = None
                for batch in map(convert, _batches(path, columns)):
                    if writer is None:
                        writer = written.enter_context(pyarrow.ipc.new_stream(file, batch.schema))
                    writer.write(batch)
                    report(batch.num_rows)
            (temporary / "complete").write_text(f"{(temporary / 'rows.arrow').stat().st_size}")
            finish(temporary, folder, ROOM)
        except OSError as error:  # an error of the cache: those of the table are DataErrors already
            raise RunError(
                f"{folder.parent}: the rows of {path.name} cannot be written ({error}); free some room, or set "
                "GRAFT_CACHE"
            ) from None


def _as_files(cells: Any) -> Any:
    """A column of bytes, or of structs with bytes and perhaps a path, as {"bytes", "path"}."""
    import pyarrow
    import pyarrow.compute

    names = pyarrow.nulls(len(cells), pyarrow.string())
    contents = cells
    if pyarrow.types.is_struct(cells.type):
        contents = pyarrow.compute.struct_field(cells, "bytes")
        if cells.type.get_field_index("path") >= 0:
            names = pyarrow.compute.struct_field(cells, "path").cast(pyarrow.string())
    parts = [contents.cast(pyarrow.binary()), names]
    return pyarrow.StructArray.from_arrays(parts, fields=list(_file_type()), mask=cells.is_null())


def _file_type() -> Any:
    import pyarrow

    return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def _holds_bytes(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


# ---- the file ----


def _schema(path: Path) -> "pyarrow.Schema":
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, error) from None


def _metadata(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, error) from None


def _size(about: Any) -> int:
    """The bytes of the uncompressed columns."""
    return sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))


def _batches(path: Path, columns: Sequence[str]) -> "Iterator[pyarrow.RecordBatch]":
    """The table in batches of about 16 MB, whatever its row groups are. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        about = _metadata(path)
        rows = int(max(1, min(1000, _BATCH * about.num_rows // max(_size(about), 1))))
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is no parquet."""
    return DataError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}")
