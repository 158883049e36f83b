"""csv, tsv, jsonl, json and parquet: one file, or a folder with one file per split (train.csv, test.csv).

All but parquet may be compressed (train.csv.gz; .bz2, .xz, .zst). A .json file holds an array of objects, or one object
per line. The separator and the quotes of a csv or tsv file are detected (see pipelines.data.formats._csv_dialect). All
cells of a csv are text, including their spaces. Paths in a column of files are relative to the table's folder. A row's
id is file:line.

A row with an empty cell is not skipped here, except for a missing file: the task decides what an empty cell means.
"""

import json
import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data import compressed, parquet
from pipelines.data.audio import reading
from pipelines.data.audio.segments import PAIRS, part_columns, times, typed
from pipelines.data.files import SPLIT_NAMES, all_files, folders, kind_of
from pipelines.data.formats import _csv_dialect, hub
from pipelines.data.labels import like_flags, lost
from pipelines.data.media import AUDIO, IMAGES, MEDIA
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.data.text import chat
from pipelines.data.text.rows import talk
from pipelines.errors import DataError, MissingColumn
from pipelines.utils.formatting import short

log = logging.getLogger("graft")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
ANSWERS = ("label", "answer")  # what a task learns: numbers count as text, and a test table may lack the column

Rows = list[tuple[str, dict[Any, Any]]]  # (id, cells by column; the key None holds why they do not fit the header)


def detect(path: Path) -> bool:
    """Whether a file is a table, or a folder holds tables."""
    return is_table(path) if path.is_file() else bool(_tables(path) or _in_folders(path))


def is_table(path: Path) -> bool:
    """Whether a file is a table, judging by its name."""
    return _suffix(path) in SUFFIXES and (path.suffix.lower() in SUFFIXES or _suffix(path) != ".parquet")


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read a table or a folder of tables. Raises DataError or MissingColumn."""
    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    tables = [path] if path.is_file() else _tables(path)
    deeper = [] if tables else _in_folders(path)
    if deeper:
        some = ", ".join(table.relative_to(path).as_posix() for table in deeper[:3])
        holders = {table.parent for table in deeper}
        own = f", or give one folder ({deeper[0].parent})" if len(holders) == 1 else ""
        raise DataError(
            f"data.id: {section.id} has its tables in folders ({some}): put them into {section.id} itself, each called "
            f"like its split, as in train.csv and test.csv{own}"
        )
    if not tables:
        raise DataError(f"data.id: {section.id} holds no table ({', '.join(SUFFIXES)})")
    names = ["train" if path.is_file() else compressed.inner(table).stem for table in tables]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        both = " and ".join(table.name for name, table in zip(names, tables, strict=True) if name == twice[0])
        raise DataError(f"{path}: two tables are called {twice[0]!r}, which is the split's name ({both}): take one out")
    source = Source(splits={})
    asked = {section.train, section.validation, section.test}
    splits = [name for name in names if name in asked or name.lower() in SPLIT_NAMES] or names
    to_train = any(name.lower() in USUAL["train"] for name in splits)
    for name, table in zip(names, tables, strict=True):
        try:
            _add(source, name, table, section, columns, optional)
        except _Lacking as error:
            needed = name in asked or name.lower() in USUAL["train"] or not to_train
            unlabelled = name in splits and not needed and error.column in (*ANSWERS, *(section.label_columns or ()))
            if not unlabelled and name in splits:
                raise
            if unlabelled:
                source.unlabelled.append(name)
                log.warning("%s has no column %r: no row of it is used", table, error.own)
            source.ignored[f"rows of {table.name}, which has no column {error.own!r}"] = error.rows
        except DataError:
            if name in splits:
                raise
            source.ignored[f"tables that cannot be read: {table.name}"] = 1
    if path.is_dir():
        _count_others(source, path, tables, columns)
    return source


class _Lacking(MissingColumn):
    """A column that the task needs is missing."""

    def __init__(self, message: str, column: str, own: str, rows: int) -> None:
        super().__init__(message)
        self.column, self.own, self.rows = column, own, rows


def _add(
    source: Source, name: str, table: Path, section: DataSection, columns: Sequence[str], optional: Sequence[str]
) -> None:
    """Read one table as a split of `source`. Raises DataError."""
    held = None
    if _suffix(table) == ".parquet":
        have = parquet.column_names(table)
        wanted = {*(section.columns.get(column, column) for column in (*columns, *optional)), section.group}
        wanted |= {column for pair in PAIRS for column in pair} if "audio" in columns else set()
        taken, media = [column for column in have if column in wanted], [c for c in columns if c in MEDIA]
        files = {column: section.columns.get(column, column) for column in media}
        held = parquet.held(table, taken, list(files.values()))
        rows = list(parquet.rows(table, taken)) if held is None else parquet.light_rows(table, held)
        empty = 0
    elif _suffix(table) in (".json", ".jsonl"):
        rows, empty = _json(table), 0
        have = list(dict.fromkeys(key for _, row in rows for key in row))
    else:
        rows, have, empty, written = _csv(table)
        unusual = written.unusual(_suffix(table))
        if unusual:
            log.warning("%s: %s", table, unusual)
        if written.sign != ",":
            source.decimal_comma.add(name)
    if not rows:
        raise DataError(f"{table}: no rows")
    source.splits[name], source.skipped[name] = _take(table, rows, have, section, columns, optional)
    if held is not None:
        source.splits[name] = parquet.with_bytes(source.splits[name], held, files)
    label = section.columns.get("label", "label") if "label" in columns else None
    source.lost[name] = lost(((id_, row.get(label)) for id_, row in rows if label), source.skipped[name])
    if empty:
        source.ignored[f"rows of {table.name} without a filled cell"] = empty


LOOKED_AT = 200  # rows that decide what a column holds
_HEAD = 1 << 20  # bytes that are read for them


def columns(path: Path) -> dict[str, str]:
    """The columns of a table, or of the first of a folder, with their kinds, by its first rows. Raises DataError."""
    first = path if path.is_file() else next(iter(_tables(path)), None)
    if first is None:
        return {}
    rows = head(first)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _kind_of_cells(name, [row.get(name) for row in rows]) for name in names}


def _kind_of_cells(name: str, cells: list[Any]) -> str:
    """A medium for names of its files, messages, labels for lists, number for fractions, label for few short values;
    or text.
    """
    filled = [cell for cell in cells if cell not in (None, "")]
    texts = [str(cell) for cell in filled]
    if name in MEDIA:
        return name
    for medium in (IMAGES, AUDIO):
        if texts and all(Path(text).suffix.lower() in medium.suffixes for text in texts):
            return medium.column
    if any(map(chat.is_talk, filled)):
        return chat.KIND
    if any(isinstance(cell, list) for cell in filled):
        return "labels"
    if any(_FRACTION.fullmatch(text) for text in texts) and all(_NUMBER.fullmatch(text) for text in texts):
        return "number"
    few = len(set(texts)) * 2 <= len(texts) and max(map(len, texts), default=0) <= 60
    return "label" if few else "text"


_NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
_FRACTION = re.compile(r"[-+]?\d*[.,]\d+(e[-+]?\d+)?", re.IGNORECASE)


def head(path: Path) -> list[dict[str, Any]]:
    """The first rows of a table; a table that is damaged further down is not noticed. Raises DataError."""
    if _suffix(path) == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=20)
            return [row for batch in islice(batches, 1) for row in batch.to_pylist()]
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise parquet.unreadable(path, error) from None
    with compressed.opened(path) as file:
        start = file.read(_HEAD + 1)
    text = start[:_HEAD].decode("utf-8-sig", "replace")
    if len(start) > _HEAD:  # the last line is cut
        text = text[: text.rfind("\n") + 1] or text
    if _suffix(path) in (".json", ".jsonl"):
        return _objects(text)
    if len(start) <= _HEAD:
        written = _csv_dialect.read(path, text, _suffix(path))
    else:
        lines = text.splitlines(keepends=True)
        written = _csv_dialect.read(path, "".join(lines[: LOOKED_AT + 1]), _suffix(path))
    right = [cells for _, cells in written.rows[:LOOKED_AT] if len(cells) == len(written.header)]
    return [dict(zip(written.header, cells, strict=True)) for cells in right] or [dict.fromkeys(written.header)]


def _objects(text: str) -> list[dict[str, Any]]:
    """The first objects of a list, or of lines."""
    return [row for row, _ in islice(_each_object(text), LOOKED_AT)]


def _each_object(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Each object of a list, or of lines, and where it ends."""
    decoder, at = json.JSONDecoder(), 0
    while True:
        at = next((place for place in range(at, len(text)) if text[place] not in "[, \r\n\t"), len(text))
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if isinstance(row, dict):
            yield row, at


def _counted(text: str) -> tuple[int, int]:
    """The number of objects at the beginning of a list, and where the last one ends."""
    ends = [end for _, end in _each_object(text)]
    return len(ends), ends[-1] if ends else 0


def size(path: Path) -> tuple[int, bool]:
    """The number of rows in the tables of a path, and whether it was counted, or estimated from the sizes of files."""
    import pyarrow.parquet

    total, counted = 0, True
    for file in [path] if path.is_file() else _tables(path):
        if _suffix(file) == ".parquet":
            total += pyarrow.parquet.read_metadata(file).num_rows
            continue
        with compressed.opened(file) as opened:
            start = opened.read(_HEAD + 1)
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):  # objects may take several lines
            rows, read = _counted(start.decode("utf-8-sig", "replace"))
            if len(start) > _HEAD:
                counted, rows = False, round(rows * file.stat().st_size / max(read, 1))
            total += rows
            continue
        lines = start.count(b"\n") + (not start.endswith(b"\n")) - (_suffix(file) in (".csv", ".tsv"))
        if len(start) > _HEAD:
            counted, lines = False, round(lines * file.stat().st_size / len(start))
        total += lines
    return total, counted


def column_names(path: Path) -> list[str]:
    """The names of a table's columns. Raises DataError."""
    if _suffix(path) == ".parquet":
        return parquet.column_names(path)
    if _suffix(path) in (".json", ".jsonl"):
        return list(dict.fromkeys(key for _, row in _json(path) for key in row))
    return _csv(path)[1]


def _suffix(path: Path) -> str:
    return compressed.inner(path).suffix.lower()


def _tables(path: Path) -> list[Path]:
    """The tables in a folder. A .json file must begin with rows, and have the name of a split or be the only data."""
    entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    alone = all(p.is_file() and _suffix(p) in (".json", ".md", ".txt") for p in entries)
    found = []
    for p in entries:
        called = alone or compressed.inner(p).stem.lower() in SPLIT_NAMES
        if p.is_file() and is_table(p) and (_suffix(p) != ".json" or (called and _begins_with_rows(p))):
            found.append(p)
    return found


def _in_folders(path: Path) -> list[Path]:
    """The tables in folders of a folder, if it holds nothing else except a README or LICENSE; otherwise empty."""
    if any(file.stem.upper() not in ("README", "LICENSE") for file in all_files(path, deep=False)):
        return []
    found: list[Path] = []
    for file in (file for folder in folders(path) for file in all_files(folder)):
        if not is_table(file) or _suffix(file) == ".json":
            return []
        found.append(file)
    return found


def _begins_with_rows(path: Path) -> bool:
    try:
        with compressed.opened(path) as file:
            start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except DataError:
        return True  # reading it will report why
    if start.startswith(b"["):
        return start[1:].lstrip().startswith(b"{")
    lines = [line for line in start.splitlines() if line.strip()]
    return len(lines) > 1 and all(line.startswith(b"{") for line in lines[:2])


def _count_others(source: Source, path: Path, tables: list[Path], columns: tuple[str, ...]) -> None:
    """Count the files of a folder of tables that are neither read nor named by a row.

    If the task reads only texts, files in folders are counted only if they are tables.
    """
    from pipelines.data.media import paths

    media = any(column in MEDIA for column in columns)
    named = {os.path.realpath(file) for rows in source.splits.values() for file in paths(rows) if file}
    files = (file for file in all_files(path) if media or file.parent == path or is_table(file))
    others = [file for file in files if file not in tables and not (media and os.path.realpath(file) in named)]
    for file in others:
        packed = is_table(file) or file.suffix.lower() in (*compressed.SUFFIXES, ".zip", ".xlsx", ".xls", ".ods")
        what = f"files that may be tables and are not read: {file.relative_to(path)}" if packed else kind_of(file)
        source.ignored[what] = source.ignored.get(what, 0) + 1


# ---- files to rows ----


def _csv(path: Path) -> tuple[Rows, list[str], int, _csv_dialect.Written]:
    """Rows, the names of the columns, the number of empty rows, and how the file is written. Raises DataError."""
    written = _csv_dialect.read(path, compressed.text(path), _suffix(path))
    header = written.header
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}: rename one")
    signs = _csv_dialect.SIGNS.get(written.sign, repr(written.sign))
    hint = "is one too many or too few?" if written.sign == "\t" else "put quotes around a cell that holds one"
    rows: Rows = []
    for line, cells in written.rows:
        if len(cells) == len(header):
            row: dict[Any, Any] = dict(zip(header, cells, strict=True))
        else:  # with a cell too many or too few, the columns of the cells are unknown
            row = {None: f"{len(cells)} cells for {len(header)} columns, parted by {signs}: {hint}"}
        if any(cells) or len(header) == 1:
            rows.append((f"{path.name}:{line}", row))
    return rows, header, len(written.rows) - len(rows), written


def _json(path: Path) -> Rows:
    """The rows of an array of objects, or of one object per line. Raises DataError naming file and line."""
    with compressed.opened(path) as file:
        start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    array = _json_array(path) if start == b"[" else None
    if array is not None:
        return array
    rows: Rows = []
    with compressed.opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{path}:{number}: not UTF-8 text: save the file as UTF-8") from None
            if text.strip():
                try:
                    rows.append(_json_row(path, number, json.loads(text, object_pairs_hook=_once)))
                except (ValueError, RecursionError) as error:
                    if not rows and start == b"{" and _is_object(path):
                        advice = "make it an array of objects ([{...}, {...}]), or write an object a line"
                        raise DataError(f"{path}: one object, not rows: {advice}") from None
                    raise DataError(f"{path}:{number}: not valid JSON: {getattr(error, 'msg', error)}") from None
    return rows


def _json_array(path: Path) -> Rows | None:
    """The rows of an array; None if the file is not an array of objects (lines that are arrays, or not JSON)."""
    try:
        found = json.loads(compressed.text(path), object_pairs_hook=_once)
    except RecursionError:
        return None
    except _Twice as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        if getattr(error, "msg", "") == "Extra data" or line == 1:
            return None
        raise DataError(f"{path}:{line}: not valid JSON: {getattr(error, 'msg', error)}") from None
    if not any(isinstance(row, dict) for row in found):
        return None
    return [_json_row(path, number, row) for number, row in enumerate(found, 1)]


class _Twice(ValueError):
    """An object has a key twice; a reader would keep only one of the values."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _json_row(path: Path, number: int, row: Any) -> tuple[str, dict[Any, Any]]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: a row is an object with the columns as keys, got {type(row).__name__}")
    return f"{path.name}:{number}", row


def _is_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(compressed.text(path)), dict)
    except (ValueError, RecursionError):
        return False


# ---- rows to the task's columns ----


def _take(
    path: Path, rows: Rows, have: list[str], section: DataSection, columns: Sequence[str], also: Sequence[str]
) -> Any:
    """Rename to the task's columns, turn paths into files, skip rows with unusable cells or missing files.

    Raises DataError.
    """
    names = {column: section.columns.get(column, column) for column in columns}
    for column, name in names.items():
        if name not in have:
            talks = next((column for column in ("messages", "conversations") if column in have), None)
            hint = f"; of conversations ({talks}), options.chat=true of text-generation learns" if talks else ""
            flags = like_flags(rows, have) if column == "label" else []
            if flags:
                several = short(",".join(flags), 120)
                hint += f"; if these are labels with 0 and 1, data.label_columns=[{several}]"
                hint += " (with options.multi_label=true if a row may have several)"
            advice = f"add it, or name the right one with data.columns.{column}=NAME{hint}"
            message = f"{path}: no column {name!r} (it has: {', '.join(have)}); {advice}"
            raise _Lacking(message, column, name, len(rows))
    others = {column: section.columns.get(column, column) for column in also}
    unknown = next((c for c in section.columns if c in others and others[c] not in have), None)
    if unknown:
        raise MissingColumn(
            f"data.columns.{unknown}: {path} has no column {others[unknown]!r} (it has: {', '.join(have)})"
        )
    others = {column: name for column, name in others.items() if name in have}
    part = part_columns(have, [*names.values(), *others.values()]) if "audio" in names else None
    extra = [] if section.group in (None, "none", *others, *(c for c in names if c in MEDIA)) else [section.group]
    if extra and extra[0] not in have:
        raise DataError(f"data.group: {path} has no column {extra[0]!r} (it has: {', '.join(have)})")
    good: list[dict[Any, Any]] = []
    skipped: list[tuple[str, str]] = []
    near: str | None = None  # a hint where a missing file may be; searched for once, because folders may be large
    for id_, row in rows:
        try:
            if None in row:
                raise DataError(row[None])
            cells = {c: _cell(path, row.get(n), c, n) for c, n in names.items()}
            files = [cells[column] for column in MEDIA if column in cells]
            # the sizes make the fingerprint cover the files
            size: dict[str, Any] = {"size": sum(map(_size, files))} if files else {}
            if part:
                size |= (of := times(row, part))
                cells["audio"] |= of
            more = {c: _cell(path, row.get(n), c, n) for c, n in others.items()}
            good.append({"id": id_, **cells, **more, **size, **{g: str(row.get(g)) for g in extra}})
        except _NoFile as error:
            first, near = near is None, _like(path.parent, error.where) if near is None else near
            skipped.append((id_, f"{id_}: {error}{near if first else ''}"))
        except DataError as error:
            skipped.append((id_, f"{id_}: {error}"))
    if not good:
        raise DataError(f"{path}: none of {len(rows)} rows can be used; the first: {skipped[0][1]}")
    for column in ANSWERS:
        if any(isinstance(row.get(column), list) for row in good):
            for row in good:
                if isinstance(row[column], str):
                    row[column] = [row[column]] * bool(row[column])
    for column in good[0]:
        texts = all(row[column] is None or isinstance(row[column], str) for row in good)
        if texts and column != "label" and not (part and column in ("start", "end")):
            for row in good:
                row[column] = row[column] or ""  # null in a jsonl is the same as an empty cell in a csv
    rows_found, odd = as_dataset(path, good)
    return (typed(rows_found) if part else rows_found), [*skipped, *odd]


def as_dataset(path: Path, good: list[dict[Any, Any]]) -> tuple[Any, list[tuple[str, str]]]:
    """The rows as a data set, and those (id, why) with a cell of another type than most, or that cannot be stored.

    Raises DataError if no row is left.
    """
    import pyarrow
    from datasets import Dataset

    try:
        return Dataset.from_list(good), []
    except (pyarrow.ArrowException, UnicodeError, OverflowError, TypeError):
        pass  # the rows are checked one by one below
    kinds = {column: _kind([row[column] for row in good]) for column in good[0]}
    right: list[dict[Any, Any]] = []
    skipped: list[tuple[str, str]] = []
    for row in good:
        why = next((why for column, kind in kinds.items() if (why := _odd(row[column], column, kind))), "")
        if why:
            skipped.append((row["id"], f"{row['id']}: {why}"))
        else:
            right.append(row)
    if not right:
        raise DataError(f"{path}: none of {len(good)} rows can be used; the first: {skipped[0][1]}")
    try:
        return Dataset.from_list(right), skipped
    except (pyarrow.ArrowException, UnicodeError, OverflowError, TypeError) as error:
        raise DataError(f"{path}: a column holds values of different kinds: {str(error).splitlines()[0]}") from None


def _arrow(value: Any, kind: Any = None) -> Any:
    """A cell as an Arrow array, or None if Arrow cannot store it."""
    import pyarrow

    try:
        return pyarrow.array([value], type=kind)
    except (pyarrow.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return None


def _kind(values: list[Any]) -> Any:
    """The Arrow type of most cells of a column."""
    import pyarrow

    found = Counter(cell.type for value in values if value is not None and (cell := _arrow(value)) is not None)
    full = {kind: count for kind, count in found.items() if "null" not in str(kind)} or found
    most = max(full, key=lambda kind: full[kind], default=None)
    return pyarrow.float64() if most == pyarrow.int64() and pyarrow.float64() in full else most


def _odd(value: Any, column: str, kind: Any) -> str:
    """Why a cell does not fit its column; empty if it fits."""
    if value is None or (kind is not None and _arrow(value, kind) is not None):
        return ""
    if isinstance(value, str) and _arrow(value) is None:
        return f"{column} holds half of a surrogate pair, which is no text"
    if kind is None or _arrow(value) is None:
        return f"{column} holds what cannot be stored: {short(ascii(value))}"
    return f"{column} holds {type(value).__name__}, and most other rows hold {kind}"


def _cell(path: Path, value: Any, column: str, name: str) -> Any:
    if isinstance(value, float) and math.isnan(value):
        value = None
    if column in MEDIA:
        if value is None or value == "":
            raise DataError(f"{name} is empty")
        return _file(path, value, name, column)
    if column == "label" or (column == "answer" and not isinstance(value, dict)):
        parts = value if isinstance(value, list) else [] if value is None else [value]
        odd = next((part for part in parts if part is None or isinstance(part, (dict, list, bytes))), parts)
        if odd is not parts:
            kind = type(odd).__name__ if odd is not None else "an empty value"
            raise DataError(f"{name} holds {kind}{talk(value) or f': {column} is text or a number'}")
        return [str(part) for part in value] if isinstance(value, list) else value if value is None else str(value)
    return chat.cell(value) if column in chat.NESTED else value


def _size(file: dict[str, Any]) -> int:
    """A file's size in bytes."""
    return Path(file["path"]).stat().st_size if file["bytes"] is None else len(file["bytes"])


def _file(path: Path, value: Any, name: str, column: str) -> dict[str, Any]:
    """A file cell: a path, bytes, or datasets' {"path", "bytes"}, which programs write.

    Its path must be below the table's folder.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return {"path": None, "bytes": content}
    where = value.get("path") if isinstance(value, dict) else value
    if not isinstance(where, str):
        raise DataError(f"{name} holds {type(where).__name__}: {column} is a path, or bytes in a parquet file")
    if "://" in where:
        raise DataError(
            f"{name} is an address, {where[:200]!r}, which is not fetched: download the file and name it by its path"
        )
    why = _elsewhere(path.parent, where) if isinstance(value, dict) else ""
    if why:
        raise DataError(f"{name}: {why}")
    # also with the folder separator of Windows, without spaces around it, and in both of Unicode's forms of accents
    ways = [where, where.replace("\\", "/"), where.strip()]
    ways += [] if where.isascii() else [unicodedata.normalize(form, where) for form in ("NFC", "NFD")]
    for way in dict.fromkeys(ways):
        if os.path.isfile(path.parent / way):  # Path.is_file raises for names that no disk allows
            suffix = Path(way).suffix.lower()
            if column == "audio" and suffix in AUDIO.unread:
                raise DataError(f"{where}: {reading.advice(suffix)}")
            return {"path": str(path.parent / way), "bytes": None}
    raise _NoFile(path.parent, where)


def _elsewhere(folder: Path, where: str) -> str:
    """Why a path in datasets' form is not read; empty if it is below the table's folder."""
    ways = [os.path.join(os.path.abspath(folder), way) for way in (where, where.replace("\\", "/"))]
    return next((why for way in ways if (why := hub.elsewhere(way, [os.path.realpath(folder)]))), "")


class _NoFile(DataError):
    """A cell names a file that does not exist."""

    def __init__(self, folder: Path, where: str) -> None:
        super().__init__(f"no such file: {short(where, 200)} ({short(str((folder / where).absolute()), 300)})")
        self.where = where


def _like(folder: Path, where: str) -> str:
    """A hint at a file with that name and a suffix, here or in a folder below: the cell may hold an id.

    Or at the file that the path names from the folder above.
    """
    if "\0" not in where and os.path.isfile(folder.parent / where):
        return f"; it is there from the folder above: write paths from the table's own folder, {short(folder.name)}"
    name = where.replace("\\", "/").rpartition("/")[2]
    if "\0" in where or not name or len(name) > 200:
        return ""
    near = (file for place in [folder, *folders(folder)] for file in sorted(place.glob(f"{escape(name)}.*")))
    found = next((file for file in near if file.is_file()), None)
    if found is None:
        return ""
    return f"; there is {found.relative_to(folder)}: write the path from the table's folder, with its suffix"
