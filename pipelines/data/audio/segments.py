"""Rows that are parts of a recording or a video, in seconds.

Their columns are `offset` and `duration`, as in NeMo, or `start` and `end`.
"""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

ROUNDING = 0.05  # seconds by which two statements about one time may differ, because lists are rounded

if TYPE_CHECKING:
    from datasets import Dataset

PAIRS = (("offset", "duration"), ("start", "end"))
TIMED = ("audio", "video")  # columns of files of which a row may be a part


def timed(columns: Collection[str]) -> str | None:
    """The column of files of which a row may be a part; None if there is none."""
    return next((column for column in TIMED if column in columns), None)


def part_columns(have: Collection[str], taken: Collection[str]) -> tuple[str, str] | None:
    """The two columns that select a part of a recording; None if a table has none.

    Columns that the task reads as something else do not count. A duration without an offset is the length of the
    recording, not a part.
    """
    for pair in PAIRS:
        needed = pair[:1] if pair[0] == "offset" else pair
        if set(needed) <= set(have) and not set(pair) & set(taken):
            return pair
    return None


def times(row: Mapping[str, Any], pair: tuple[str, str]) -> dict[str, float | None]:
    """{"start": seconds, "end": seconds}; both None if the cells are empty, for the complete recording.

    Raises DataError for an invalid part: not a number, negative, or an end that is not after the start.
    """
    first, second = (_seconds(row.get(name), name) for name in pair)
    if pair[0] == "offset":
        if second is not None and second <= 0:
            raise DataError(f"{pair[1]} is {second:g}: a part is longer than 0 seconds")
        first = 0.0 if first is None and second is not None else first
        second = None if first is None or second is None else first + second
    elif (first is None) != (second is None):
        raise DataError(
            f"{pair[0] if first is None else pair[1]} is empty, and {pair[1] if first is None else pair[0]} is not"
        )
    if first is not None and first < 0:
        raise DataError(f"{pair[0]} is {first:g}: a part begins at 0 seconds or later")
    if first is not None and second is not None and second <= first:
        raise DataError(f"the part ends at {second:g} seconds and begins at {first:g}")
    if pair[0] == "offset":
        _check_others(row, first, second)
    return {"start": first, "end": second}


def _check_others(row: Mapping[str, Any], first: float | None, last: float | None) -> None:
    """Raise DataError if the columns start and end contradict offset and duration."""
    for name, seconds, stated in (("start", first, "offset"), ("end", last, "offset and duration")):
        try:
            other = _seconds(row.get(name), name)
        except DataError:  # a column that says something else
            continue
        if other is not None and seconds is not None and abs(other - seconds) > ROUNDING:
            raise DataError(f"{name} is {other:g}, and {stated} say {seconds:g}: correct one, or take it out")


def typed(rows: "Dataset", column: str) -> "Dataset":
    """The rows with times as floats, also if all of a column are None, so that every split has the same types."""
    from datasets import Dataset, Features, Value
    from datasets.table import table_cast

    seconds = {"start": Value("float64"), "end": Value("float64")}
    file = {"path": Value("string"), "bytes": Value("binary"), **seconds}
    # not Dataset.cast: it shows a progress bar, and columns of a struct cannot be selected after it
    return Dataset(table_cast(rows.data, Features({**rows.features, column: file, **seconds}).arrow_schema))


def _seconds(value: Any, name: str) -> float | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(f"{name} is no number of seconds: {str(value)[:40]!r}")
    return seconds
