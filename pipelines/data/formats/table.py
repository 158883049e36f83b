"""csv, tsv, jsonl and parquet: one file, or a folder with one file per split (train.csv, test.csv).

A column that holds paths is read relative to the table's folder. All cells of a csv are text. A row's id is file:line.
"""

import csv
import json
import math
from pathlib import Path
from typing import Any, TextIO

from pipelines.data.splits import MEDIA
from pipelines.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Rows = list[tuple[str, dict]]  # (id, cells by column; all under None where they do not fit the header)


def detect(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES if path.is_file() else any(_tables(path))


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    from pipelines.data import Source

    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    tables = [path] if path.is_file() else _tables(path)
    if not tables:
        raise DataError(f"data.id: {section.id} holds no table ({', '.join(SUFFIXES)})")
    names = ["train" if path.is_file() else table.stem for table in tables]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two tables are called {twice[0]!r}, which is to be the split's name: take one out")
    source = Source(splits={})
    for name, table in zip(names, tables, strict=True):
        rows, have = _parquet(table) if table.suffix.lower() == ".parquet" else _text(table)
        if not rows:
            raise DataError(f"{table}: no rows")
        source.splits[name], source.skipped[name] = _take(table, rows, have, section, columns, optional)
    return source


def column_names(path: Path) -> list[str]:
    return (_parquet(path) if path.suffix.lower() == ".parquet" else _text(path))[1]


def _tables(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith("."))


# ---- files to rows ----


def _text(path: Path) -> tuple[Rows, list[str]]:
    """Rows, and the names of the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() != ".jsonl":
                return _csv(path, file)
            rows = [_json_row(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return rows, list(dict.fromkeys(key for _, row in rows for key in row))


def _csv(path: Path, file: TextIO) -> tuple[Rows, list[str]]:
    start = file.readline()
    file.seek(0)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in start and "," not in start else ","
    reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: Rows = []
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = [name for name in header if name and header.count(name) > 1]
        if twice:
            raise DataError(f"{path}:1: two columns are called {twice[0]!r}: rename one")
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                # a cell too many or too few is a comma too many or too few: which cell is which cannot be told
                rows.append((f"{path.name}:{line}", dict(zip(header, cells, strict=True)) if len(cells) == len(header) else {None: cells}))
            line = reader.line_num + 1
    except csv.Error as error:
        hint = ": a quote opens here and is not closed" if "end of data" in str(error) else ""
        raise DataError(f"{path}:{line}: not valid csv: {error}{hint}") from None
    return rows, header


def _json_row(path: Path, number: int, line: str) -> tuple[str, dict]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: not valid JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: a row is an object with the columns as keys, got {type(row).__name__}")
    return f"{path.name}:{number}", row


def _parquet(path: Path) -> tuple[Rows, list[str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None
    return [(f"{path.name}:{number}", row) for number, row in enumerate(table.to_pylist())], table.column_names


# ---- rows to the task's columns ----


def _take(path: Path, rows: Rows, have: list[str], section: Any, columns: tuple[str, ...], optional: tuple[str, ...]) -> Any:
    """Rename to the task's columns, turn path cells into files, skip rows whose cells are empty or point nowhere."""
    import pyarrow
    from datasets import Dataset

    names = {column: section.columns.get(column, column) for column in columns}
    for column, name in names.items():
        if name not in have:
            raise DataError(
                f"{path}: no column {name!r} (it has: {', '.join(have)}); rename it, or name the right one with data.columns.{column}=NAME"
            )
    also = {column: section.columns.get(column, column) for column in optional}
    unknown = next((c for c in section.columns if c in also and also[c] not in have), None)
    if unknown:
        raise DataError(f"data.columns.{unknown}: {path} has no column {also[unknown]!r} (it has: {', '.join(have)})")
    also = {column: name for column, name in also.items() if name in have}
    extra = [] if section.group in (None, "none", *also) else [section.group]
    if extra and extra[0] not in have:
        raise DataError(f"data.group: {path} has no column {extra[0]!r} (it has: {', '.join(have)})")
    good: list[dict] = []
    skipped: list[tuple[str, str]] = []
    for id_, row in rows:
        try:
            if None in row:
                raise DataError(f"{len(row[None])} cells for {len(have)} columns: put quotes around a cell that holds a comma")
            cells = {c: _cell(path, row.get(n), c, n) for c, n in names.items()}
            files = [cells[column] for column in MEDIA if column in cells]
            size = {"size": sum(map(_size, files))} if files else {}  # so that the fingerprint covers the files
            good.append({"id": id_, **cells, **{c: row.get(n) for c, n in also.items()}, **size, **{g: str(row.get(g)) for g in extra}})
        except DataError as error:
            skipped.append((id_, f"{id_}: {error}"))
    if not good:
        raise DataError(f"{path}: none of {len(rows)} rows can be used; the first: {skipped[0][1]}")
    if any(isinstance(row.get("label"), list) for row in good):
        good = [{**row, "label": row["label"] if isinstance(row["label"], list) else [row["label"]]} for row in good]
    try:
        return Dataset.from_list(good), skipped
    except UnicodeError as error:  # half of a surrogate pair, which JSON can write
        raise DataError(f"{path}: text that is no Unicode: {error}") from None
    except (pyarrow.ArrowException, OverflowError) as error:  # the latter for whole numbers of more than 64 bits
        raise DataError(f"{path}: a column holds values of different kinds: {str(error).splitlines()[0]}") from None


def _cell(path: Path, value: Any, column: str, name: str) -> Any:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{name} is empty")
    if column in MEDIA:
        return _file(path, value, name, column)
    if column == "label":
        parts = value if isinstance(value, list) else [value]
        odd = next((part for part in parts if part is None or isinstance(part, (dict, list, bytes))), parts)
        if odd is not parts:
            raise DataError(f"{name} holds {type(odd).__name__ if odd is not None else 'an empty value'}: a label is text or a number")
        return [str(part) for part in value] if isinstance(value, list) else str(value)
    return value


def _size(file: dict[str, Any]) -> int:
    """In bytes."""
    return Path(file["path"]).stat().st_size if file["bytes"] is None else len(file["bytes"])


def _file(path: Path, value: Any, name: str, column: str) -> dict[str, Any]:
    """A path, bytes, or datasets' {"path", "bytes"}."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return {"path": None, "bytes": content}
    where = value.get("path") if isinstance(value, dict) else value
    if not isinstance(where, str):
        raise DataError(f"{name} holds {type(where).__name__}: {column} is a path, or bytes in a parquet file")
    file = path.parent / where
    if "\0" in where or not file.is_file():
        raise DataError(f"no such file: {where}")
    return {"path": str(file), "bytes": None}
