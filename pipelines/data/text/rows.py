"""Texts: what a row must hold to be read as one."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.errors import DataError


def readable(row: Mapping[str, Any], column: str, *, may_be_empty: bool = False, numbers: bool = False) -> str:
    """The text in a row's column. Raises DataError for anything else: numbers (unless these count as text), nothing."""
    text = row[column]
    if text is None:
        text = ""
    if numbers and isinstance(text, (bool, int, float)):
        text = str(text)
    if not isinstance(text, str):
        raise DataError(f"{column} is no text but {type(text).__name__}{talk(text)}")
    check_characters(text, column)
    if blank(text) and not may_be_empty:
        raise DataError(f"{column} is empty")
    return text


def talk(value: Any) -> str:
    """What to say of a cell that holds a conversation, a list of what each side wrote; nothing of any other."""
    first = value[0] if isinstance(value, list) and value else None
    known = isinstance(first, Mapping) and not {"content", "value"}.isdisjoint(first)
    return ": conversations are not read; write each as one text, or its parts as columns" if known else ""


def blank(text: str) -> bool:
    """Whether a text holds nothing to read: blanks, and characters without a width, of which a tokenizer may make no token at all."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def check_characters(text: str, column: str) -> None:
    """Raises DataError for what no text holds, and no tokenizer reads: NUL, and halves of surrogate pairs, which JSON can write."""
    if "\0" in text:
        raise DataError(f"{column} holds NUL bytes: is it text?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{column} holds {text[error.start]!a}, half of a character: it is no Unicode text") from None


def titled(row: Mapping[str, Any]) -> dict[str, str]:
    """The row's `title`, by which rows of one text stay in one split: its article's, else one made of its `context`.

    A row without either stands alone, under its own id; nothing where no row has such a column.
    """
    if row.get("title"):
        return {"title": str(row["title"])}
    if row.get("context"):
        return {"title": hashlib.blake2b(row["context"].encode(), digest_size=8).hexdigest()}
    return {"title": str(row["id"])} if "title" in row or "context" in row else {}


def transcribed(row: dict[str, Any]) -> dict[str, Any]:
    """A recording's row with a transcript that can be read, its speaker as text. Raises DataError."""
    readable(row, "text")
    return {**row, "speaker": str(row["speaker"])} if row.get("speaker") is not None else row
