"""Helpers for published sets of recordings and videos: read lists, check files, build rows with the task's columns."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import printable, problem
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.errors import DataError, MissingColumn
from pipelines.utils.formatting import short

Row = dict[str, Any]
SkippedRows = list[tuple[str, str]]  # (id, why)


def folder(section: DataSection) -> Path:
    """The folder that `data.id` names. Raises DataError if there is none."""
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    return root


def split_in(name: str) -> str | None:
    """The split that a name contains (train_manifest -> train); None if there is none, or more than one."""
    words = re.findall(r"[a-z]+", name.lower())
    found = {split for split, usual in USUAL.items() if any(word in usual for word in words)}
    return found.pop() if len(found) == 1 else None


def lines(path: Path) -> list[str]:
    """A text file's lines without line ends. Raises DataError naming the file."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def cells(path: Path, text: Sequence[str], **dialect: Any) -> list[tuple[int, list[str]]]:
    """The rows of a list, each with the number of its last line; empty lines are skipped.

    Raises DataError naming the line.
    """
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((line + "\n" for line in text), strict=True, **dialect)
    found = []
    try:
        for row in reader:
            if row:
                found.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid csv: {error}") from None
    return found


def listed(path: Path, needed: Sequence[str], **dialect: Any) -> tuple[list[tuple[str, dict[str, str]]], SkippedRows]:
    """The rows of a list with a header, (file:line, cells by column), and those with a wrong number of cells (id, why).

    Raises MissingColumn if a `needed` column is missing.
    """
    (_, header), *rest = cells(path, lines(path), **dialect) or [(0, [])]
    lacking = [name for name in needed if name not in header]
    if lacking:
        raise MissingColumn(f"{path}: no column {lacking[0]!r} (it has: {', '.join(header) or 'none'})")
    rows: list[tuple[str, dict[str, str]]] = []
    skips: SkippedRows = []
    for number, row in rest:
        where = f"{path.name}:{number}"
        if len(row) == len(header):
            rows.append((where, dict(zip(header, row, strict=True))))
        else:
            skips.append((where, f"{path}:{number}: {len(row)} cells for {len(header)} columns"))
    return rows, skips


def recording(path: Path, column: str = "audio") -> Row:
    """The cells of a recording or a video: its file and its size in bytes. Raises DataError naming the file."""
    if "\0" in str(path):
        raise DataError(f"{short(str(path), 300)!r}: no file has a NUL in its name")
    why, size = problem(path)
    if not why and not path.is_file():
        why = "a folder, not a file"
    if why:
        raise DataError(f"{printable(str(path))}: {why}")
    return {column: {"path": str(path), "bytes": None}, "size": size}


def add(
    source: Source,
    section: DataSection,
    name: str,
    rows: list[Row],
    skips: SkippedRows,
    columns: Sequence[str],
    where: Path,
) -> None:
    """Add the rows to `source` as a split, with columns named as the task needs them (data.columns).

    Raises DataError if there are none.
    """
    from datasets import Dataset, Features, List, Value

    if not rows:
        why = f"; the first: {skips[0][1]}" if skips else ""
        files = "videos" if "video" in columns else "recordings"
        raise DataError(f"{where}: no {files} that can be used ({len(skips)} skipped{why})")
    kinds = {str: Value("string"), int: Value("int64"), list: List(Value("string"))}
    seconds: dict[str, Any] = {name: Value("float64") for name in ("start", "end") if name in rows[0]}  # of a part
    file = {"path": Value("string"), "bytes": Value("binary"), **seconds}
    known: dict[type, Any] = {**kinds, dict: file}
    features = {key: seconds[key] if key in seconds else known[type(value)] for key, value in rows[0].items()}
    data = {key: [row[key] for row in rows] for key in features}
    have = ", ".join(key for key in features if key not in ("id", "size", *seconds))
    for column, own in {**{column: column for column in columns}, **section.columns}.items():
        if own not in features:
            hint = f"; this task needs it: name one with data.columns.{column}=NAME" if own == column else ""
            raise MissingColumn(f"{section.id}: no column {own!r} (it has: {have}){hint}")
        if own != column:
            data[column], features[column] = list(map(str, data[own])), Value("string")
    source.splits[name] = Dataset.from_dict(data, features=Features(features))
    source.skipped[name] = skips
