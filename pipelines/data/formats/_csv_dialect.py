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
import io
import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError

log = logging.getLogger("graft")

SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}  # separators and their names in messages
_SAMPLE, _SAMPLED = 200_000, 200  # characters and rows that decide on the separator
_MERGED = 3  # a row of more lines, each of which would be a row, results from two stray quotes

Records = list[tuple[int, list[str]]]  # (number of the first line, cells)


@dataclass(frozen=True)
class Written:
    """A table as it is written: its header, its rows, and the dialect."""

    header: list[str]
    rows: Records
    sign: str  # the separator
    quotes: bool  # whether quotes were interpreted, and there are some
    blanks: bool  # whether a space after the separator was taken as part of it
    backslashes: bool  # whether quotes in a cell are escaped by a backslash

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


def read(path: Path, text: str, suffix: str) -> Written:
    """Read a table. Raises DataError naming file and line."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    first, sign = 1, ""
    if sep := re.match(r'"?sep=([^\r\n])"?(\r\n|\n|\r)', text):  # a line that Excel writes
        first, sign, text = 2, sep[1], text[sep.end() :]
    sign = sign or _sign(text, "\t" if suffix == ".tsv" else ",")
    quotes, blanks, escaped = '"' in text, False, None
    try:
        if sign == "\t":
            quotes = quotes and _quoted(text)
            records = list(_records(text, sign)) if quotes else _lines(text)
        else:
            escaped = _without_backslashes(text, sign)
            text = text if escaped is None else escaped
            records = list(_records(text, sign))
            blanks = _blanks(records, text, sign)
            if blanks:
                records = list(_records(text, sign, blanks=True))
            _check_merged(path, records, text, sign, first)
    except _Broken as error:
        hint = ": a quote opens here and is not closed" if "end of data" in str(error) else ""
        hint = ": a quote inside of a quoted cell is written twice" if "expected after" in str(error) else hint
        raise DataError(f"{path}:{error.line + first - 1}: not valid csv: {error}{hint}") from None
    (_, header), *rows = records or [(1, [])]
    numbered = [(line + first - 1, cells) for line, cells in rows]
    return Written([name.strip() for name in header], numbered, sign, quotes, blanks, escaped is not None)


class _Broken(Exception):
    """An error of the csv module, and the first line of the row."""

    def __init__(self, error: csv.Error, line: int) -> None:
        super().__init__(str(error))
        self.line = line


def _records(text: str, sign: str, *, blanks: bool = False, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Rows read with quoting, each with the number of its first line; empty lines are skipped. Raises _Broken."""
    reader = csv.reader(_physical(text), delimiter=sign, strict=strict, skipinitialspace=blanks)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Broken(error, line) from None


def _physical(text: str) -> io.StringIO:
    """The text with its line ends, as the csv module counts lines."""
    return io.StringIO(text, newline="")


def _lines(text: str, sign: str = "\t") -> Records:
    """Rows read without quoting: every line is one row."""
    text = text.replace("\r\n", "\n")
    parts = text.split("\n") if "\n" in text else text.split("\r")
    return [(number, line.split(sign)) for number, line in enumerate(parts, 1) if line]


# ---- the separator ----


def _sign(text: str, usual: str) -> str:
    """The separator with which most of the first rows have as many cells as the header.

    It is the usual one if no separator splits the header.
    """
    sample = text if len(text) <= _SAMPLE else text[: max(text.rfind("\n", 0, _SAMPLE), 0) or _SAMPLE]
    shares = {sign: share for sign in dict.fromkeys([usual, *SIGNS]) if (share := _share(sample, sign)) is not None}
    best = max(shares, key=lambda sign: (shares[sign], sign == usual), default=usual)
    return best if best == usual or shares[best] > max(0.5, shares.get(usual, 0.0)) else usual


def _share(sample: str, sign: str) -> float | None:
    """The share of rows with the header's number of cells; None if that number is 1."""
    readings = []
    with contextlib.suppress(_Broken):  # with this separator it is not a csv
        readings.append([cells for _, cells in itertools.islice(_records(sample, sign, strict=False), _SAMPLED)])
    if sign == "\t":
        readings.append([cells for _, cells in _lines(sample)[:_SAMPLED]])
    found = [
        sum(len(cells) == len(rows[0]) for cells in rows[1:]) / max(len(rows) - 1, 1) if len(rows) > 1 else 1.0
        for rows in readings
        if rows and len(rows[0]) > 1
    ]
    return max(found, default=None)


# ---- quotes and spaces ----


def _quoted(text: str) -> bool:
    """Whether the quotes in a tab-separated file are to be interpreted: see the module's docstring."""
    lines = _lines(text)
    columns = len(lines[0][1]) if lines else 0
    bad = sum(len(cells) != columns for _, cells in lines)
    try:
        rows = list(_records(text, "\t"))
    except _Broken:
        return False
    if bad == 0:
        return _as_written(rows, [cells for _, cells in lines])
    starts = {number for number, _ in rows}
    # lines that are part of a cell: whether each of them would be a row by itself
    others = [line for number, line in enumerate(_physical(text), 1) if number not in starts and line.strip()]
    inside = [line.count("\t") + 1 == columns for line in others]
    wrong = sum(len(cells) != len(rows[0][1]) for _, cells in rows)
    return wrong < bad and sum(inside) * 2 <= len(inside)


def _as_written(rows: Records, lines: list[list[str]]) -> bool:
    """Whether all quotes are where a program would put them. `lines` are the cells read without quoting."""
    holding = [cell for cells in lines for cell in cells if '"' in cell]
    if len(rows) != len(lines) or not all(_whole(cell) for cell in holding):
        return False
    columns = zip(*lines[1:], strict=True) if len(lines) > 2 else ()
    if any(all(map(_whole, cells)) for cells in (lines[0], *columns)):
        return True
    return all(cell == '""' or '"' in cell[1:-1] for cell in holding)


def _whole(cell: str) -> bool:
    """Whether a cell is in quotes, with its inner quotes doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _without_backslashes(text: str, sign: str) -> str | None:
    """The text with \\" replaced by "", as Spark writes quotes.

    None unless only this gives every row the right number of cells.
    """
    if '\\"' not in text or _fits(text, sign):
        return None
    doubled = re.sub(r'(?<!\\)\\"', '""', text)
    return doubled if _fits(doubled, sign) else None


def _fits(text: str, sign: str) -> bool:
    """Whether every row has as many cells as the header."""
    try:
        rows = [cells for _, cells in _records(text, sign)]
    except _Broken:
        return False
    return all(len(cells) == len(rows[0]) for cells in rows)


def _blanks(records: Records, text: str, sign: str) -> bool:
    """Whether the file has a space after every separator."""
    columns = len(records[0][1]) if records else 0
    if columns < 2:
        return False
    after = [[cell[:1] in (" ", "") for cell in cells[1:]] for _, cells in records]
    if all(map(all, after)) and any(cell[:1] == " " for _, cells in records for cell in cells[1:]):
        return True
    if not any(re.match(r' +"', cell) for _, cells in records for cell in cells[1:]):
        return False
    try:
        fits = all(len(cells) == columns for _, cells in _records(text, sign, blanks=True))
    except _Broken:
        return False
    return fits and (not all(len(cells) == columns for _, cells in records) or all(map(all, after[1:])))


def _check_merged(path: Path, records: Records, text: str, sign: str, first: int) -> None:
    """Check for two quotes that belong to the text and merge rows, each of which would be a row by itself.

    Raises DataError if many lines are merged. A few lines may be one cell with several lines, so they give a warning.
    """
    if not records:
        return
    ends = [line for line, _ in records[1:]] + [sum(1 for _ in _physical(text)) + 1]
    several = [(line, end) for (line, _), end in zip(records, ends, strict=True) if end - line > 1]
    columns = len(records[0][1])
    if not several or columns < 2:
        return
    fits = [line.count(sign) + 1 == columns for line in _physical(text)]
    merged = [(line + first - 1, end - line) for line, end in several if all(fits[line - 1 : end - 1])]
    long = next(((line, count) for line, count in merged if count > _MERGED), None)
    advice = "write a quote that belongs to a text twice, and put that text in quotes"
    if long is not None:
        line, count = long
        what = f"a quote opens here and closes {count - 1} lines below, and each of these would be a row"
        raise DataError(f"{path}:{line}: {what}: {advice}")
    if merged:
        line, count = merged[0]
        more = f", and so in {len(merged) - 1} more rows" if merged[1:] else ""
        what = f"a quote opens here and closes in line {line + count - 1}"
        so = "that is read as one row, but each line would be one by itself"
        log.warning("%s:%d: %s: %s%s. If so, %s", path, line, what, so, more, advice)
