"""csv, tsv, jsonl and parquet: one file, or a folder with one file per split (train.csv, test.csv).

A column that holds paths is read relative to the table's folder. All cells of a csv are text.
"""

import csv
import json
from pathlib import Path
from typing import Any

from pipelines.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def detect(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES if path.is_file() else any(_tables(path))


def read(section: Any, columns: tuple[str, ...]) -> Any:
    from pipelines.data import Source

    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    tables = {"train": path} if path.is_file() else {p.stem: p for p in _tables(path)}
    source = Source(splits={})
    for name, table in tables.items():
        rows = _parquet(table) if table.suffix.lower() == ".parquet" else _text(table)
        source.splits[name], source.skipped[name] = _take(table, rows, section.columns, columns, section.group)
    return source


def _tables(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith("."))


def _text(path: Path) -> list[dict]:
    """Rows as dicts, each with `id` = file:line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                rows = [_json_row(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
            else:
                reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
                rows = [{**row, "id": f"{path.name}:{reader.line_num}"} for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid csv: {error}") from None
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def _json_row(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: not valid JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: a row is an object with the columns as keys, got {type(row).__name__}")
    return {**row, "id": f"{path.name}:{number}"}


def _parquet(path: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from None
    return [{**row, "id": f"{path.name}:{number}"} for number, row in enumerate(rows)]


def _take(path: Path, rows: list[dict], renamed: dict[str, str], columns: tuple[str, ...], group: str | None) -> Any:
    """Rename to the task's columns, turn path cells into files, skip rows whose cells are empty or point nowhere."""
    from datasets import Dataset

    names = {column: renamed.get(column, column) for column in columns}
    for column, name in names.items():
        if name not in rows[0]:
            have = ", ".join(k for k in rows[0] if k != "id")
            raise DataError(f"{path}: no column {name!r} (it has: {have}); name the right one with data.columns.{column}=NAME")
    extra = [group] if group not in (None, "none") and group in rows[0] else []
    good: list[dict] = []
    skipped: list[tuple[str, str]] = []
    for row in rows:
        try:
            good.append({"id": row["id"], **{c: _cell(path, row, c, n) for c, n in names.items()}, **{g: str(row[g]) for g in extra}})
        except DataError as error:
            skipped.append((row["id"], str(error)))
    if not good:
        raise DataError(f"{path}: none of {len(rows)} rows can be used; the first: {skipped[0][1]}")
    return Dataset.from_list(good), skipped


def _cell(path: Path, row: dict, column: str, name: str) -> Any:
    value = row.get(name)
    if value is None or value == "":
        raise DataError(f"{row['id']}: {name} is empty")
    if column == "image":
        if isinstance(value, dict):
            return {"path": value.get("path"), "bytes": value.get("bytes")}
        if isinstance(value, bytes):
            return {"path": None, "bytes": value}
        file = path.parent / str(value)
        if not file.is_file():
            raise DataError(f"{row['id']}: no such file: {value}")
        return {"path": str(file), "bytes": None}
    if column == "label":
        return [str(v) for v in value] if isinstance(value, list) else str(value)
    return value
