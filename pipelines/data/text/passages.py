"""Questions on a passage: rows in one form however a data set writes its answers, and where an answer stands among the tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.data.text.rows import blank, check_characters, titled
from pipelines.errors import DataError
from pipelines.utils.formatting import short


def answered(row: Mapping[str, Any], may_be_none: bool) -> dict[str, Any]:
    """A row with `answer` as {"text": [...], "answer_start": [...]}, each answer at its place in the context; none: empty lists.

    Answers may come in that form, as text, or as a list of texts; one without a place stands where it first occurs.
    Raises DataError.
    """
    for column in ("question", "context"):
        if isinstance(row[column], str):
            check_characters(row[column], column)
        if not isinstance(row[column], str) or blank(row[column]):
            raise DataError(f"{column} is empty or no text")
    texts, starts = _answers(row)
    if not texts and not may_be_none:
        raise DataError("the question has no answer (options.version: '2.0' allows that)")
    for text, start in zip(texts, starts, strict=True):
        found = row["context"][start : start + len(text)] if start >= 0 else ""
        if found != text:
            there = f" (there: {found[:60]!r})" if found else ""
            where = f"at {start} of" if start >= 0 else "in"
            raise DataError(f"the answer {text[:60]!r} does not stand {where} its context{there}")
    kept = {key: row[key] for key in ("id", "question", "context")}
    return {**kept, **titled(row), "answer": {"text": texts, "answer_start": starts}}


def answer_texts(answer: Any) -> list[str]:
    """The accepted answers, in SQuAD's form, as text or a list of texts; none: an empty list. Raises DataError."""
    texts = answer.get("text") if isinstance(answer, Mapping) else answer
    texts = [] if texts is None or texts == "" else texts if isinstance(texts, (list, tuple)) else [texts]
    # numbers and true or false count as their text, as labels do
    texts = [str(text) if isinstance(text, (bool, int, float)) else text for text in texts]
    if not all(isinstance(text, str) and text for text in texts):
        raise DataError("answer is empty, or holds what is no text")
    return texts


def _answers(row: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Texts and where each starts (-1: nowhere), however a data set writes them; each answer once. Raises DataError."""
    answer = row["answer"]
    texts = answer_texts(answer)
    starts = answer.get("answer_start", answer.get("start")) if isinstance(answer, Mapping) else row.get("answer_start")
    starts = list(starts) if isinstance(starts, (list, tuple)) else [] if starts is None or starts == "" else [starts]
    if not texts:  # programs write no place, or one of these
        starts = [start for start in starts if start not in (None, "", 0, -1, "0", "-1", "0.0", "-1.0")]
    elif not starts:
        starts = [row["context"].find(text) for text in texts]
    numbers = [_place(start) for start in starts]
    if len(numbers) != len(texts):
        raise DataError(f"{len(texts)} answers, but {len(numbers)} places where they start")
    once = dict.fromkeys(zip(texts, numbers, strict=True))
    return [text for text, _ in once], [start for _, start in once]


def _place(start: Any) -> int:
    """31, or 31.0 as pandas writes it where other rows have none. Raises DataError."""
    try:
        number = float(start)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(start, bool) or not number.is_integer():
        raise DataError(f"answer_start is no number: {short(repr(start))}")
    return int(number)


def token_span(offsets: Sequence[Sequence[int]], start: int, size: int) -> tuple[int, int]:
    """First and last token of the characters [start, start + size); (-1, -1) where this window does not hold them all."""
    end = start + size
    if offsets[0][0] > start or offsets[-1][1] < end:
        return -1, -1
    first = next(i for i, (_, stop) in enumerate(offsets) if stop > start)
    last = next(i for i in range(len(offsets) - 1, -1, -1) if offsets[i][0] < end)
    return (first, last) if first <= last else (-1, -1)
