"""How a csv or tsv file is written: its separator, and whether it uses quotes.

The header and the first rows decide on the separator, whatever the suffix: the separator with which most rows have as
many cells as the header.

Quotes: a csv has them (RFC 4180). A tsv as IANA defines it has none, but Python and pandas write some: a cell that
contains a tab, a line break or a quote is put in quotes, and its quotes are doubled. So a tab-separated file is read
without quoting if every line has the header's number of cells. It is read with quoting if only that gives rows the
right number, and if every quote in it is where a program would write it: all cells that contain a quote begin and end
with one and have the others doubled, and either there are such others, or the header or a column is quoted throughout.

Spaces belong to their cell, except in files that have a space after every separator (`a, b, "c, d"`).
"""

import contextlib
import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.compressed import Lines
from pipelines.errors import DataError

SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}  # separators and their names in messages
_SAMPLE, _SAMPLED = 200_000, 200  # characters and rows that decide on the separator
_MERGED = 3  # a row of more lines, each of which would be a row, results from two stray quotes

Record = tuple[int, list[str]]  # number of the first line, cells


@dataclass(frozen=True)
class Written:
    """A table as it is written: its header, its rows, and the dialect."""

    header: list[str]
    rows: Callable[[], Iterator[Record]]  # reads the file again, so that its rows need not be in memory
    sign: str  # the separator
    quotes: bool  # whether quotes were interpreted, and there are some
    blanks: bool  # whether a space after the separator was taken as part of it
    backslashes: bool  # whether quotes in a cell are escaped by a backslash
    warning: str  # about rows that may have been merged; or empty

    def unusual(self, suffix: str) -> str:
        """What is unusual about the dialect for files with this suffix; empty if nothing is."""
        usual = "\t" if suffix == ".tsv" else ","
        found = [] if self.sign == usual else [f"its cells are parted by {SIGNS.get(self.sign, repr(self.sign))}"]
        if self.quotes and self.sign == "\t":
            found.append("quotes around a cell are no part of it")
        if self.blanks:
            found.append("a blank follows every sign and is no part of the next cell")
        if self.backslashes:
            found.append("a backslash stands before the quotes in a cell and is no part of it")
        return " and ".join(found)


def read(path: Path, text: Lines, suffix: str) -> Written:
    """Read a table. Raises DataError naming file and line."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    first, sign = 1, ""
    if sep := re.match(r'"?sep=([^\r\n])"?(\r\n|\n|\r)', text.beginning(12)):  # a line that Excel writes
        first, sign, text = 2, sep[1], text.after(sep.end())
    sign = sign or _sign(text, "\t" if suffix == ".tsv" else ",")
    quotes, blanks, escaped, warning = text.holds('"'), False, False, ""
    try:
        if sign == "\t":
            quotes = quotes and _quoted(text)
        else:
            escaped = _has_backslashes(text, sign)
            text = text.changed(_without_backslashes) if escaped else text
            found = _survey(text, sign)
            blanks = _blanks(found, text, sign)
            warning = _check_merged(path, _survey(text, sign, blanks=True) if blanks else found, first)
        records = _Reader(text, sign, quotes or sign != "\t", blanks)
        header = next(records.read(), (1, list[str]()))[1]
    except _Broken as error:
        hint = ": a quote opens here and is not closed" if "end of data" in str(error) else ""
        hint = ": a quote inside of a quoted cell is written twice" if "expected after" in str(error) else hint
        raise DataError(f"{path}:{error.line + first - 1}: not valid csv: {error}{hint}") from None

    def rows() -> Iterator[Record]:
        return ((line + first - 1, cells) for line, cells in itertools.islice(records.read(), 1, None))

    return Written([name.strip() for name in header], rows, sign, quotes, blanks, escaped, warning)


@dataclass(frozen=True)
class _Reader:
    text: Lines
    sign: str
    quotes: bool
    blanks: bool

    def read(self) -> Iterator[Record]:
        """All rows, the header first."""
        return _records(self.text, self.sign, blanks=self.blanks) if self.quotes else _unquoted(self.text)


class _Broken(Exception):
    """An error of the csv module, and the first line of the row."""

    def __init__(self, error: csv.Error, line: int) -> None:
        super().__init__(str(error))
        self.line = line


def _records(text: Lines, sign: str, *, blanks: bool = False, strict: bool = True) -> Iterator[Record]:
    """Rows read with quoting, each with the number of its first line; empty lines are skipped. Raises _Broken."""
    return _parsed(text.read(), sign, blanks=blanks, strict=strict)


def _parsed(lines: Iterable[str], sign: str, *, blanks: bool, strict: bool, empty: bool = False) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=sign, strict=strict, skipinitialspace=blanks)
    line = 1
    try:
        for cells in reader:
            if cells or empty:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Broken(error, line) from None


def _unquoted(text: Lines, sign: str = "\t") -> Iterator[Record]:
    """Rows read without quoting: every line is one row."""
    end = "\n" if text.holds("\n") else "\r"
    for number, line in enumerate(text.read(end), 1):
        line = line.removesuffix("\r\n") if end == "\n" and line.endswith("\r\n") else line.removesuffix(end)
        if line:
            yield number, line.split(sign)


# ---- the separator ----


def _sign(text: Lines, usual: str) -> str:
    """The separator with which most of the first rows have as many cells as the header.

    It is the usual one if no separator splits the header.
    """
    start = text.beginning(_SAMPLE + 1)
    sample = Lines(start if len(start) <= _SAMPLE else start[: max(start.rfind("\n", 0, _SAMPLE), 0) or _SAMPLE])
    shares = {sign: share for sign in dict.fromkeys([usual, *SIGNS]) if (share := _share(sample, sign)) is not None}
    best = max(shares, key=lambda sign: (shares[sign], sign == usual), default=usual)
    return best if best == usual or shares[best] > max(0.5, shares.get(usual, 0.0)) else usual


def _share(sample: Lines, sign: str) -> float | None:
    """The share of rows with the header's number of cells; None if that number is 1."""
    readings = []
    with contextlib.suppress(_Broken):  # with this separator it is not a csv
        readings.append([cells for _, cells in itertools.islice(_records(sample, sign, strict=False), _SAMPLED)])
    if sign == "\t":
        readings.append([cells for _, cells in itertools.islice(_unquoted(sample), _SAMPLED)])
    found = [
        sum(len(cells) == len(rows[0]) for cells in rows[1:]) / max(len(rows) - 1, 1) if len(rows) > 1 else 1.0
        for rows in readings
        if rows and len(rows[0]) > 1
    ]
    return max(found, default=None)


# ---- quotes and spaces ----


def _quoted(text: Lines) -> bool:
    """Whether the quotes in a tab-separated file are to be interpreted: see the module's docstring."""
    columns = len(next(_unquoted(text), (1, list[str]()))[1])
    bad = sum(len(cells) != columns for _, cells in _unquoted(text))
    try:
        count = sum(1 for _ in _records(text, "\t"))
    except _Broken:
        return False
    if bad == 0:
        return _as_written(count, text)
    width = len(next(_records(text, "\t"), (1, list[str]()))[1])
    wrong = sum(len(cells) != width for _, cells in _records(text, "\t"))
    # lines that are part of a cell: whether each of them, and the line that opens the cell, would be a row by itself
    others = inside = 0
    starts = (number for number, _ in _records(text, "\t"))
    start, opens = next(starts, None), False
    for number, line in enumerate(text.read(), 1):
        fits = line.count("\t") + 1 == columns
        if number == start:
            start, opens = next(starts, None), fits
        elif line.strip():
            others += 1
            inside += opens and fits
    return wrong < bad and inside * 2 <= others


def _as_written(count: int, text: Lines) -> bool:
    """Whether all quotes are where a program would put them, in a table of `count` rows read with quoting."""
    lines, doubled = 0, True
    quoted: list[bool] = []  # whether the cells of a column are all in quotes, without the header
    header = False
    for number, (_, cells) in enumerate(_unquoted(text)):
        lines += 1
        marked = [_whole(cell) for cell in cells]
        if any('"' in cell and not mark for cell, mark in zip(cells, marked, strict=True)):
            return False
        doubled = doubled and all(cell == '""' or '"' in cell[1:-1] for cell in cells if '"' in cell)
        if number == 0:
            header = all(marked)
        else:
            quoted = [old and new for old, new in zip(quoted, marked, strict=True)] if number > 1 else marked
    return lines == count and (header or doubled or (lines > 2 and any(quoted)))


def _whole(cell: str) -> bool:
    """Whether a cell is in quotes, with its inner quotes doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _has_backslashes(text: Lines, sign: str) -> bool:
    """Whether quotes in a cell are written \\", as Spark does: only then has every row the right number of cells."""
    return text.holds('\\"') and not _fits(text, sign) and _fits(text.changed(_without_backslashes), sign)


def _without_backslashes(line: str) -> str:
    return re.sub(r'(?<!\\)\\"', '""', line)


def _fits(text: Lines, sign: str) -> bool:
    """Whether every row has as many cells as the header."""
    try:
        records = _records(text, sign)
        columns = len(next(records, (1, list[str]()))[1])
        return all(len(cells) == columns for _, cells in records)
    except _Broken:
        return False


@dataclass
class _Survey:
    """What is to be known of all rows of a table before it is read."""

    columns: int = 0  # of the header
    fits: bool = True  # whether every row has as many
    after: bool = True  # whether every cell but a row's first is empty or begins with a space
    after_header: bool = True  # the same without the header
    spaced: bool = False  # whether one of these begins with a space
    spaced_quote: bool = False  # whether one of these is a quote after spaces
    merged: int = 0  # rows of several lines, each of which would be a row
    first: tuple[int, int] = (0, 0)  # the first of them: its line, its number of lines
    long: tuple[int, int] | None = None  # the first of more than _MERGED lines


def _survey(text: Lines, sign: str, *, blanks: bool = False) -> _Survey:
    """Read a table once. Raises _Broken."""
    found = _Survey()
    counts: list[int] = []  # cells of each line since the last row, if each line was a row

    def counted() -> Iterator[str]:
        for line in text.read():
            counts.append(line.count(sign) + 1)
            yield line

    row: tuple[int, list[int]] | None = None  # the last row: its line, and the cells of its lines and empty ones below
    for number, (line, cells) in enumerate(_parsed(counted(), sign, blanks=blanks, strict=True, empty=True)):
        lines, counts[:] = list(counts), []
        if not cells:
            if row is not None:
                row[1].extend(lines)
            continue
        if row is None:
            found.columns = len(cells)
        else:
            _add_merged(found, *row)
        row = (line, lines)
        found.fits = found.fits and len(cells) == found.columns
        begins = [cell[:1] for cell in cells[1:]]
        after = all(begin in (" ", "") for begin in begins)
        found.after = found.after and after
        found.after_header = found.after_header and (after or number == 0)
        if " " in begins:
            found.spaced = True
            found.spaced_quote = found.spaced_quote or any(re.match(r' +"', cell) for cell in cells[1:])
    if row is not None:
        _add_merged(found, *row)
    return found


def _add_merged(found: _Survey, line: int, counts: list[int]) -> None:
    """Count a row if two quotes that belong to the text may have merged its lines."""
    if len(counts) > 1 and found.columns > 1 and all(count == found.columns for count in counts):
        found.first = (line, len(counts)) if not found.merged else found.first
        found.merged += 1
        found.long = (line, len(counts)) if found.long is None and len(counts) > _MERGED else found.long


def _blanks(found: _Survey, text: Lines, sign: str) -> bool:
    """Whether the file has a space after every separator."""
    if found.columns < 2:
        return False
    if found.after and found.spaced:
        return True
    if not found.spaced_quote:
        return False
    try:
        fits = all(len(cells) == found.columns for _, cells in _records(text, sign, blanks=True))
    except _Broken:
        return False
    return fits and (not found.fits or found.after_header)


def _check_merged(path: Path, found: _Survey, first: int) -> str:
    """Check for two quotes that belong to the text and merge rows, each of which would be a row by itself.

    Raises DataError if many lines are merged. A few lines may be one cell with several lines, so they give a warning.
    """
    advice = "write a quote that belongs to a text twice, and put that text in quotes"
    if found.long is not None:
        line, count = found.long
        what = f"a quote opens here and closes {count - 1} lines below, and each of these would be a row"
        raise DataError(f"{path}:{line + first - 1}: {what}: {advice}")
    if not found.merged:
        return ""
    line, count = found.first[0] + first - 1, found.first[1]
    more = f", and so in {found.merged - 1} more rows" if found.merged > 1 else ""
    what = f"a quote opens here and closes in line {line + count - 1}"
    so = "that is read as one row, but each line would be one by itself"
    return f"{path}:{line}: {what}: {so}{more}. If so, {advice}"
