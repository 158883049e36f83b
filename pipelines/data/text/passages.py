"""Questions about a passage: bring answers into one form, and find the tokens of an answer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.data.text.rows import check_characters, printed, readable, titled
from pipelines.errors import DataError
from pipelines.utils.formatting import short


def answered(row: Mapping[str, Any], may_be_none: bool) -> dict[str, Any]:
    """A row with `answer` as {"text": [...], "answer_start": [...]}; empty lists if there is no answer.

    Answers may be in this form, a text, or a list of texts. An answer without a position gets its first occurrence in
    the context. Raises DataError, also if an answer is not at its position.
    """
    row = {**row, **{column: readable(row, column) for column in ("question", "context")}}
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
    """The accepted answers from SQuAD's form, a text or a list of texts; an empty list if there are none.

    SQuAD's form may be printed, as pandas writes it into a csv file. Any other text stays as it is, also JSON: it may
    be what a model is to write. Raises DataError.
    """
    found = printed(answer, (dict,))
    if found is not None and set(found) == {"text", "answer_start"} and _are_lists(found.values()):
        answer = found
    texts = answer.get("text") if isinstance(answer, Mapping) else answer
    texts = [] if texts is None or texts == "" else texts if isinstance(texts, (list, tuple)) else [texts]
    # numbers and booleans count as text, as for labels
    texts = [str(text) if isinstance(text, (bool, int, float)) else text for text in texts]
    if not all(isinstance(text, str) and text for text in texts):
        raise DataError("answer is empty, or holds what is no text")
    for text in texts:
        check_characters(text, "answer")
    return texts


def _are_lists(found: Iterable[Any]) -> bool:
    return all(isinstance(one, list) for one in found)


def _answers(row: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Texts and their start positions (-1: not found) in any of the allowed forms, without duplicates.

    Raises DataError.
    """
    answer, starts = row["answer"], row.get("answer_start")
    if isinstance(answer, str) and answer not in row["context"]:
        found = printed(answer, (dict, list))
        if isinstance(found, list) or (found is not None and "text" in found):
            answer = found
    known = printed(starts, (list,))
    starts = starts if known is None else known
    texts = answer_texts(answer)
    if isinstance(answer, Mapping):
        starts = answer.get("answer_start", answer.get("start"))
    starts = list(starts) if isinstance(starts, (list, tuple)) else [] if starts is None or starts == "" else [starts]
    if not texts:  # without an answer, programs write no position, or one of these
        starts = [start for start in starts if start not in (None, "", 0, -1, "0", "-1", "0.0", "-1.0")]
    elif not starts:
        starts = [row["context"].find(text) for text in texts]
    numbers = [_place(start) for start in starts]
    if len(numbers) != len(texts):
        raise DataError(f"{len(texts)} answers, but {len(numbers)} places where they start")
    once = dict.fromkeys(zip(texts, numbers, strict=True))
    return [text for text, _ in once], [start for _, start in once]


def _place(start: Any) -> int:
    """A start position as an integer: 31, or 31.0, which pandas writes if other rows have none. Raises DataError."""
    try:
        number = float(start)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(start, bool) or not number.is_integer():
        raise DataError(f"answer_start is no number: {short(repr(start))}")
    return int(number)


def token_span(offsets: Sequence[Sequence[int]], start: int, size: int) -> tuple[int, int]:
    """First and last token of the characters [start, start + size).

    It is (-1, -1) if this window does not contain all of them.
    """
    end = start + size
    if offsets[0][0] > start or offsets[-1][1] < end:
        return -1, -1
    first = next(i for i, (_, stop) in enumerate(offsets) if stop > start)
    last = next(i for i in range(len(offsets) - 1, -1, -1) if offsets[i][0] < end)
    return (first, last) if first <= last else (-1, -1)
