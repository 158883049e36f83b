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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from glob import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.config.recipe import DataSection
from pipelines.data import compressed, parquet, stored
from pipelines.data.audio import reading
from pipelines.data.audio.segments import PAIRS, part_columns, timed, times, typed
from pipelines.data.files import SPLIT_NAMES, all_files, folders, kind_of
from pipelines.data.formats import _csv_dialect, _masks, hub
from pipelines.data.labels import like_flags, lost
from pipelines.data.media import AUDIO, IMAGES, MEDIA, SOUND_OR_PICTURES, VIDEO
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.data.stored import files_key
from pipelines.data.text import chat
from pipelines.data.text.rows import talk
from pipelines.data.video import reading as videos
from pipelines.errors import DataError, MissingColumn
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger("graft")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
ANSWERS = ("label", "answer")  # what a task learns: numbers count as text, and a test table may lack the column

T = TypeVar("T")
Cells = tuple[str, dict[Any, Any]]  # (id, cells by column; the key None holds why they do not fit the header)


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
    if "mask" in columns:
        source.mask_names = _masks.class_table([path if path.is_dir() else path.parent])
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
    own = ["columns", "group"]
    media = [column for column in columns if column in MEDIA]  # whether a file is there can change from run to run
    asked = [list(columns), list(optional), section.model_dump(include=set(own), mode="json"), str(table)]
    known = None if media else files_key([table])
    key = None if known is None else ["table", known, asked]
    files = {column: section.columns.get(column, column) for column in media}
    held = _held(table, section, columns, optional, list(files.values()))
    source.splits[name], about = _stored(table, key, lambda: _reading(table, section, columns, optional, held))
    if held is not None:
        source.splits[name] = parquet.with_bytes(source.splits[name], held, files)
    for warning in about["warnings"]:
        log.warning("%s", warning)
    if about["decimal_comma"]:
        source.decimal_comma.add(name)
    source.skipped[name] = [(id_, why) for id_, why in about["skipped"]]
    source.lost[name] = about["lost"]
    if about["empty"]:
        source.ignored[f"rows of {table.name} without a filled cell"] = about["empty"]
    cut = timed(columns)
    if "start" in source.splits[name].column_names and cut:
        source.splits[name] = typed(source.splits[name], cut)


class Found:
    """The rows of a file: they can be read several times, and are never in memory together."""

    def __init__(self, have: list[str], read: Callable[[], Iterable[Cells]]) -> None:
        self.have, self.read = have, read
        self.empty = 0
        self.warnings: list[str] = []
        self.decimal_comma = False


def _parquet_columns(table: Path, section: DataSection, columns: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The columns of a parquet file that are read."""
    have = parquet.column_names(table)
    wanted = {*(section.columns.get(column, column) for column in (*columns, *optional)), section.group}
    wanted |= {column for pair in PAIRS for column in pair} if timed(columns) else set()
    names = {str(column).partition(".")[0] if column not in have else column for column in wanted}
    return [column for column in have if column in names]


def _held(
    table: Path, section: DataSection, columns: Sequence[str], optional: Sequence[str], files: Sequence[str]
) -> "pyarrow.Table | None":
    """A large parquet table with files in its rows, which is mapped; else None. `files` are its columns of files."""
    if _suffix(table) != ".parquet" or not files:
        return None
    return parquet.held(table, _parquet_columns(table, section, columns, optional), files)


def _found(
    table: Path,
    section: DataSection,
    columns: Sequence[str],
    optional: Sequence[str],
    held: "pyarrow.Table | None",
) -> Found:
    """The rows of a table, and what is known of it. Raises DataError."""
    if _suffix(table) == ".parquet":
        taken = _parquet_columns(table, section, columns, optional)
        have = parquet.column_names(table)
        found = Found(have, lambda: parquet.rows(table, taken) if held is None else parquet.light_rows(table, held))
    elif _suffix(table) in (".json", ".jsonl"):
        found = Found(list(dict.fromkeys(key for _, row in _json(table) for key in row)), lambda: _json(table))
    else:
        found = _csv(table)
    first = list(islice(found.read(), 2))
    if not first:
        raise DataError(f"{table}: no rows")
    if len(first) == 1 and _suffix(table) in (".json", ".jsonl"):
        _check_one_object(table, first[0][1])
    return found


def _check_one_object(table: Path, row: Mapping[Any, Any]) -> None:
    """Raise DataError for a table in one object: columns with their cells, or rows under a key."""
    cells = [cell for name, cell in row.items() if name not in chat.NESTED]
    columns = bool(cells) and all(isinstance(cell, dict) and len(cell) > 1 for cell in cells)
    rows = [cell for cell in cells if isinstance(cell, list) and len(cell) > 1 and isinstance(cell[0], (dict, list))]
    if columns or rows:
        raise DataError(
            f"{table}: one object, not rows: write an array of objects ([{{...}}, {{...}}]), or an object a line; "
            "pandas does so with to_json(path, orient='records')"
        )


LOOKED_AT = 200  # rows that decide what a column holds
_HEAD = 1 << 20  # bytes that are read for them


def columns(path: Path) -> dict[str, str]:
    """The columns of a table, or of the first of a folder, with their kinds, by its first rows. Raises DataError."""
    tables = _split_tables(path)
    if not tables:
        return {}
    rows = head(tables[0])
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
    endings = {Path(text).suffix.lower() for text in texts}
    for medium in (IMAGES, AUDIO, VIDEO):
        shows = medium is AUDIO and endings <= VIDEO.suffixes and not endings <= SOUND_OR_PICTURES  # mp4 are videos
        if endings and endings <= medium.suffixes and not shows:
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
        written = _csv_dialect.read(path, compressed.Lines(text), _suffix(path))
    else:
        lines = text.splitlines(keepends=True)
        start_of = compressed.Lines("".join(lines[: LOOKED_AT + 1]))
        written = _csv_dialect.read(path, start_of, _suffix(path))
    right = [cells for _, cells in islice(written.rows(), LOOKED_AT) if len(cells) == len(written.header)]
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
    for file in _split_tables(path):
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
    return _csv(path).have


def _suffix(path: Path) -> str:
    return compressed.inner(path).suffix.lower()


def _split_tables(path: Path) -> list[Path]:
    """A table, or the tables of a folder that are its splits, those to train on first."""
    if path.is_file():
        return [path]
    tables = _tables(path)
    splits = [table for table in tables if compressed.inner(table).stem.lower() in SPLIT_NAMES] or tables
    return sorted(splits, key=lambda table: compressed.inner(table).stem.lower() not in USUAL["train"])


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


def _csv(path: Path) -> Found:
    """The rows of a csv or tsv file. Raises DataError."""
    written = _csv_dialect.read(path, compressed.lines(path), _suffix(path))
    header = written.header
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}: rename one")
    signs = _csv_dialect.SIGNS.get(written.sign, repr(written.sign))
    hint = "is one too many or too few?" if written.sign == "\t" else "put quotes around a cell that holds one"

    def read() -> Iterator[Cells]:
        found.empty = 0
        for line, cells in written.rows():
            if not any(cells) and len(header) != 1:
                found.empty += 1
            elif len(cells) == len(header):
                yield f"{path.name}:{line}", dict(zip(header, cells, strict=True))
            else:  # with a cell too many or too few, the columns of the cells are unknown
                why = f"{len(cells)} cells for {len(header)} columns, parted by {signs}: {hint}"
                yield f"{path.name}:{line}", {None: why}

    found = Found(header, read)
    unusual = written.unusual(_suffix(path))
    found.warnings = [*([written.warning] if written.warning else []), *([f"{path}: {unusual}"] if unusual else [])]
    found.decimal_comma = written.sign != ","
    return found


def _json(path: Path) -> Iterator[Cells]:
    """The rows of an array of objects, or of one object per line. Raises DataError naming file and line."""
    with compressed.opened(path) as file:
        start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" and path.stat().st_size >= LARGE and _begins_with_rows(path):
        yield from ((f"{path.name}:{number}", row) for number, row in enumerate(_elements(path), 1))
        return
    array = _json_array(path) if start == b"[" else None
    if array is not None:
        yield from array
        return
    first = True
    with compressed.opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{path}:{number}: not UTF-8 text: save the file as UTF-8") from None
            if text.strip():
                try:
                    row = _json_row(path, number, json.loads(text, object_pairs_hook=_once))
                except (ValueError, RecursionError) as error:
                    if first and start == b"{" and _is_object(path):
                        advice = "make it an array of objects ([{...}, {...}]), or write an object a line"
                        raise DataError(f"{path}: one object, not rows: {advice}") from None
                    raise DataError(f"{path}:{number}: not valid JSON: {getattr(error, 'msg', error)}") from None
                first = False
                yield row


LARGE = 16 << 20  # bytes of a .json file with an array that is not read at once


def _elements(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an array of objects, one after the other. Raises DataError naming file and line."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    pieces = iter(compressed.lines(path).read("\n"))
    text, at, line, number, ended = "", 0, 1, 0, False

    def more() -> bool:
        """Read on, as much again as is not yet understood, so that a long object is not tried too often."""
        nonlocal text, at, line, ended
        line += text.count("\n", 0, at)
        added = []
        size = 0
        while size < max(1 << 20, len(text) - at) and (piece := next(pieces, None)) is not None:
            added.append(piece)
            size += len(piece)
        text, at, ended = text[at:] + "".join(added), 0, not added
        return not ended

    def wrong(why: str, place: int) -> DataError:
        return DataError(f"{path}:{line + text.count(chr(10), 0, place)}: not valid JSON: {why}")

    def sign() -> str:
        """The next character that is not a blank; empty at the end."""
        nonlocal at
        while True:
            at += len(text[at : at + 1024]) - len(text[at : at + 1024].lstrip(" \t\r\n"))
            if at < len(text) and text[at] not in " \t\r\n":
                return text[at]
            if at >= len(text) and not more():
                return ""

    sign()
    at += 1  # the bracket
    while (found := sign()) != "]" or number:
        number += 1
        try:
            row, end = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise wrong(str(error), at) from None
        except ValueError as error:
            beyond = getattr(error, "pos", at) - at
            if not isinstance(error, _Twice) and more():
                number -= 1
                continue
            raise wrong(getattr(error, "msg", str(error)), at + beyond) from None
        if end == len(text) and not isinstance(row, dict) and more():  # a number may go on
            number -= 1
            continue
        at = end
        yield _json_row(path, number, row)[1]
        found = sign()
        if found == "]":
            break
        if found != ",":
            raise wrong("Expecting ',' delimiter", at)
        at += 1
    at += 1
    if sign():
        raise wrong("Extra data", at)


def _json_array(path: Path) -> list[Cells] | None:
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


def _json_row(path: Path, number: int, row: Any) -> Cells:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: a row is an object with the columns as keys, got {type(row).__name__}")
    return f"{path.name}:{number}", row


def _is_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(compressed.text(path)), dict)
    except (ValueError, RecursionError):
        return False


# ---- rows to the task's columns ----


class Reading:
    """Rows that are read into a table: `rows` yields those that can be used, and notes why the others cannot be."""

    def __init__(self, found: Found, rows: "Callable[[Reading], Iterator[dict[str, Any]]]", label: str | None) -> None:
        self.found, self.label = found, label
        self._rows = rows
        self.lists: set[str] = set()  # the columns of ANSWERS in which some row holds a list
        self.texts: Callable[[str], bool] = lambda column: False  # whether an empty cell of a column of texts is ""
        self.count = 0
        self.skipped: list[tuple[str, str]] = []
        self.labels: list[tuple[str, Any]] = []  # the labels of rows that cannot be used

    def rows(self) -> Iterator[dict[str, Any]]:
        self.count, self.skipped, self.labels = 0, [], []
        return self._rows(self)

    def skip(self, id_: str, why: object, row: Mapping[Any, Any]) -> None:
        self.skipped.append((id_, f"{id_}: {why}"))
        if self.label is not None:
            self.labels.append((id_, _get(row, self.label)))


class _Lists(Exception):
    """A row holds a list in a column of ANSWERS that held texts so far."""


def _reading(
    path: Path,
    section: DataSection,
    columns: Sequence[str],
    also: Sequence[str],
    held: "pyarrow.Table | None",
) -> Reading:
    """Rename to the task's columns, turn paths into files, skip rows with unusable cells or missing files.

    Raises DataError.
    """
    found = _found(path, section, columns, also, held)
    have = found.have
    names = {column: section.columns.get(column, column) for column in columns}
    for column, name in names.items():
        if not _has(have, name):
            talks = next((column for column in ("messages", "conversations") if column in have), None)
            hint = f"; of conversations ({talks}), options.chat=true of text-generation learns" if talks else ""
            flags = like_flags(found.read(), have) if column == "label" else []
            if flags:
                several = short(",".join(flags), 120)
                hint += f"; if these are labels with 0 and 1, data.label_columns=[{several}]"
                hint += " (with options.multi_label=true if a row may have several)"
            advice = f"add it, or {hub.naming(section, column)}{hint}"
            message = f"{path}: no column {name!r} (it has: {', '.join(have)}); {advice}"
            raise _Lacking(message, column, name, sum(1 for _ in found.read()))
    others = {column: section.columns.get(column, column) for column in also}
    unknown = next((c for c in section.columns if c in others and not _has(have, others[c])), None)
    if unknown:
        raise MissingColumn(
            f"data.columns.{unknown}: {path} has no column {others[unknown]!r} (it has: {', '.join(have)})"
        )
    others = {column: name for column, name in others.items() if _has(have, name)}
    cut = timed(names)
    part = part_columns(have, [*names.values(), *others.values()]) if cut else None
    own = section.group
    extra = [] if own is None or own in ("none", *others, *(c for c in names if c in MEDIA)) else [own]
    if extra and not _has(have, extra[0]):
        raise DataError(f"data.group: {path} has no column {extra[0]!r} (it has: {', '.join(have)})")
    near: list[str] = []  # a hint where a missing file may be; searched for once, because folders may be large

    def usable(reading: Reading) -> Iterator[dict[str, Any]]:
        for id_, row in found.read():
            reading.count += 1
            try:
                if None in row:
                    raise DataError(row[None])
                cells = {c: _cell(path, _get(row, n), c, n) for c, n in names.items()}
                files = [cells[column] for column in MEDIA if column in cells]
                # the sizes make the fingerprint cover the files
                size: dict[str, Any] = {"size": sum(map(_size, files))} if files else {}
                if part and cut:
                    size |= (of := times(row, part))
                    cells[cut] |= of
                more = {c: _cell(path, _get(row, n), c, n) for c, n in others.items()}
                good = {"id": id_, **cells, **more, **size, **{g: str(_get(row, g)) for g in extra}}
            except _NoFile as error:
                first = not near
                near.extend([_like(path.parent, error.where)] if first else [])
                reading.skip(id_, f"{error}{near[0] if first else ''}", row)
            except DataError as error:
                reading.skip(id_, error, row)
            else:
                for column in ANSWERS:
                    cell = good.get(column)
                    if isinstance(cell, list) and column not in reading.lists:
                        reading.lists.add(column)
                        raise _Lists
                    if column in reading.lists and isinstance(cell, str):
                        good[column] = [cell] * bool(cell)
                yield good

    reading = Reading(found, usable, section.columns.get("label", "label") if "label" in columns else None)
    # null in a jsonl is the same as an empty cell in a csv
    reading.texts = lambda column: column != "label" and not (part and column in ("start", "end"))
    return reading


def _has(have: Sequence[str], name: str) -> bool:
    """Whether a table has a column; `review.body` is the key `body` of the objects in the column `review`."""
    return name in have or ("." in name and name.partition(".")[0] in have)


def _get(row: Mapping[Any, Any], name: str) -> Any:
    if name in row or "." not in name:
        return row.get(name)
    first, _, rest = name.partition(".")
    inner = row.get(first)
    return _get(inner, rest) if isinstance(inner, dict) else None


def as_dataset(path: Path, good: list[dict[str, Any]]) -> tuple[Any, list[tuple[str, str]]]:
    """The rows as a data set, and those (id, why) with a cell of another type than most, or that cannot be stored.

    Raises DataError if no row is left.
    """
    found = Found([], lambda: ((row["id"], row) for row in good))
    rows, about = _stored(path, None, lambda: Reading(found, lambda _: iter(good), None))
    return rows, about["skipped"]


def _stored(path: Path, key: Any, begin: Callable[[], Reading]) -> tuple[Any, dict[str, Any]]:
    """The rows of a file as a data set, and what else was found in it. Rows that do not fit most others are skipped.

    Raises DataError if no row is left.
    """
    reading: Reading | None = None

    def fill(rows: stored.Rows, kinds: dict[str, Any] | None = None, filled: Collection[str] = ()) -> dict[str, Any]:
        nonlocal reading
        reading = begin() if reading is None else reading
        rows.is_text = reading.texts if kinds is None else filled.__contains__
        odd: list[tuple[str, str]] = []
        for row in reading.rows():
            why = "" if kinds is None else _misfit(row, kinds)
            if why:
                odd.append((row["id"], f"{row['id']}: {why}"))
                reading.labels += [(row["id"], row.get("label"))] if reading.label is not None else []
            else:
                rows.add(row)
        skipped = [*reading.skipped, *odd]
        if not rows.count:
            count = len(odd) if odd else reading.count
            raise DataError(f"{path}: none of {count} rows can be used; the first: {(odd or skipped)[0][1]}")
        found = reading.found
        return {
            "skipped": skipped,
            "lost": lost(reading.labels, skipped),
            "empty": found.empty,
            "warnings": found.warnings,
            "decimal_comma": found.decimal_comma,
        }

    doing = f"reading {path.name}"
    try:
        return _until_known(lambda: stored.table(key, doing, fill))
    except stored.Clash:
        pass  # the rows are checked one by one below
    assert reading is not None
    first = reading
    kinds, filled = _until_known(lambda: _kinds(first))
    try:
        return stored.table(key, doing, lambda rows: fill(rows, kinds, filled))
    except stored.Clash as error:
        raise DataError(f"{path}: a column holds values of different kinds: {error}") from None


def _until_known(read: Callable[[], T]) -> T:
    """Read again each time a column turns out to hold lists."""
    while True:
        try:
            return read()
        except _Lists:  # at most once for each column of ANSWERS
            continue


def _kinds(reading: Reading) -> tuple[dict[str, Any], set[str]]:
    """The Arrow type of most cells of each column, and the columns in which an empty cell is an empty text."""
    import pyarrow

    text = pyarrow.string()
    counts: dict[str, Counter[Any]] = {}
    mixed: set[str] = set()
    for row in reading.rows():
        for column, cell in row.items():
            of = counts.setdefault(column, Counter())
            if not (cell is None or isinstance(cell, str)):
                mixed.add(column)
            if cell is not None:
                plain = isinstance(cell, str) and cell.isascii()
                of[text if plain else getattr(_arrow(cell), "type", None)] += 1
    for of in counts.values():
        del of[None]
    kinds = {column: _most(of) for column, of in counts.items()}
    return kinds, {column for column in counts if column not in mixed and reading.texts(column)}


def _most(counts: Counter[Any]) -> Any:
    import pyarrow

    full = {kind: count for kind, count in counts.items() if "null" not in str(kind)} or counts
    most = max(full, key=lambda kind: full[kind], default=None)
    return pyarrow.float64() if most == pyarrow.int64() and pyarrow.float64() in full else most


def _misfit(row: Mapping[str, Any], kinds: Mapping[str, Any]) -> str:
    """Why a row does not fit most others; empty if it does."""
    return next((why for column, kind in kinds.items() if (why := _odd(row[column], column, kind))), "")


def _arrow(value: Any, kind: Any = None) -> Any:
    """A cell as an Arrow array, or None if Arrow cannot store it."""
    import pyarrow

    try:
        return pyarrow.array([value], type=kind)
    except (pyarrow.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return None


def _odd(value: Any, column: str, kind: Any) -> str:
    """Why a cell does not fit its column; empty if it fits."""
    import pyarrow

    if value is None or (isinstance(value, str) and value.isascii() and kind == pyarrow.string()):
        return ""
    if kind is not None and _arrow(value, kind) is not None:
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
            if column == "video" and suffix in VIDEO.unread:
                raise DataError(f"{where}: {videos.advice(suffix)}")
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
