"""Columns and batches of a data set, read and added without a copy of its texts."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

AT_ONCE = 1000  # rows of a batch
_BYTES = 8 << 20  # bytes of a batch, about
_ENCODED = 256 << 20  # bytes of a column that is read at once


def values(rows: "Dataset", name: str) -> list[Any]:
    """A column as a list. A slice is read, because reading the cells one by one takes a hundred times as long."""
    import pyarrow

    if len(rows) < AT_ONCE or not pyarrow.types.is_string(rows.data.schema.field(name).type):
        found: list[Any] = rows[name][:]
        return found
    if rows.data.column(name).nbytes >= _ENCODED:
        return [cell for batch in batches(rows.select_columns(name)) for cell in batch[name]]
    column = _column(rows, name)
    coded = column.dictionary_encode()
    words: list[Any] = coded.dictionary.to_pylist()
    if len(words) * 4 < len(rows):  # equal cells share one string
        words.append(None)
        return [words[place] for place in coded.indices.fill_null(-1).to_pylist()]
    cells: list[Any] = column.to_pylist()
    return cells


def distinct(rows: "Dataset", name: str) -> "tuple[list[Any], np.ndarray]":
    """The different cells of a column in the order of first appearance, and for each row its place among them.

    An empty cell is None, which counts as one of the different cells. Lists and dictionaries count as their text.
    """
    import numpy as np
    import pyarrow

    stored = rows.data.column(name)
    if pyarrow.types.is_string(stored.type) and stored.nbytes < _ENCODED:
        coded = _column(rows, name).dictionary_encode("encode")
        return coded.dictionary.to_pylist(), coded.indices.to_numpy()
    cells = values(rows, name)
    if {list, dict} & set(map(type, cells)):
        cells = [None if cell is None else str(cell) for cell in cells]
    numbers: dict[Any, int] = {}
    places = np.array([numbers.setdefault(cell, len(numbers)) for cell in cells], dtype=np.int64)
    return list(numbers), places


def _column(rows: "Dataset", name: str) -> Any:
    """A column as one piece in memory."""
    column = rows.data.column(name).combine_chunks()
    if rows._indices is not None:  # the library would cut the column into one piece for each row
        column = column.take(rows._indices.column(0).combine_chunks())
    return column


def batches(rows: "Dataset", most: int = AT_ONCE) -> Iterator[dict[str, list[Any]]]:
    """The rows in batches of columns: at most `most` rows, and fewer where rows are large."""
    if not len(rows):
        return
    size, file = at_once(rows, most), _file(rows)
    if file is None:
        yield from rows.iter(size)
        return
    import pyarrow

    # read, not mapped: the system would count every page of the file as memory of this process
    with pyarrow.OSFile(file) as opened, pyarrow.ipc.open_stream(opened) as reader:
        for batch in reader:
            part = batch.select(rows.column_names)
            for start in range(0, len(part), size):
                yield part.slice(start, size).to_pydict()


def _file(rows: "Dataset") -> str | None:
    """The file that holds exactly these rows, if Graft wrote it (see pipelines.data.stored)."""
    from datasets.table import MemoryMappedTable

    table = rows.data
    if rows._indices is not None or not isinstance(table, MemoryMappedTable) or not table.path.endswith("/rows.arrow"):
        return None
    return str(table.path) if all(name in ("drop", "select") for name, *_ in table.replays or ()) else None


def at_once(rows: "Dataset", most: int = AT_ONCE) -> int:
    """The rows of a batch of about 8 MB."""
    stored = rows.data
    size = stored.nbytes / max(1, stored.num_rows)
    return int(max(1, min(most, _BYTES // max(size, 1))))


def select(rows: "Dataset", indexes: "Sequence[int] | np.ndarray") -> "Dataset":
    """Rows by their indexes. The library would take seconds to compute a fingerprint of a million indexes."""
    import numpy as np

    chosen = np.asarray(indexes, dtype=np.int64)
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and (np.diff(chosen) == 1).all():
        return rows.select(range(int(chosen[0]), int(chosen[-1]) + 1))
    return rows.select(chosen, new_fingerprint=_derived(rows, "select", chosen.tobytes()))


def with_column(rows: "Dataset", name: str, cells: Sequence[Any], feature: Any = None) -> "Dataset":
    """The rows with one more column, or with another column in place of the one that has this name.

    The library would copy the texts of rows that were selected from a larger table.
    """
    import numpy as np
    import pyarrow
    from datasets import Dataset, Features

    rows = rows.remove_columns(name) if name in rows.column_names else rows
    kind = None if feature is None else Features({name: feature}).arrow_schema.field(name).type
    column = pyarrow.array(cells, type=kind)
    mark = b"".join(bytes(part) for part in column.buffers() if part is not None)
    derived = _derived(rows, f"column {name} {column.type}", mark)
    if rows._indices is None:
        return rows.add_column(name, column, feature=feature, new_fingerprint=derived)
    indexes = rows._indices.column(0).to_numpy()
    places = np.full(rows.data.num_rows, -1)
    places[indexes] = np.arange(len(indexes))
    spread = column.take(pyarrow.array(places, mask=places < 0))
    table = Dataset(rows.data, info=rows.info.copy(), fingerprint=rows._fingerprint)
    table = table.add_column(name, spread, feature=feature, new_fingerprint=derived)
    return table.select(indexes, new_fingerprint=derived)


def _derived(rows: "Dataset", what: str, content: bytes) -> str:
    """The fingerprint of rows that were derived from others, by the library's rule: equal if all steps are equal."""
    digest = hashlib.blake2b(f"{rows._fingerprint} {what} ".encode(), digest_size=8)
    digest.update(content)
    return digest.hexdigest()
