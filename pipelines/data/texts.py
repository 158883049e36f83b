"""Texts: what a row must hold to be read as one."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.errors import DataError


def readable(row: Mapping[str, Any], column: str, *, may_be_empty: bool = False) -> str:
    """The text in a row's column. Raises DataError for anything else: numbers, nothing, what is binary."""
    text = row[column]
    if not isinstance(text, str):
        raise DataError(f"{column} is no text but {type(text).__name__ if text is not None else 'empty'}")
    check_characters(text, column)
    if blank(text) and not may_be_empty:
        raise DataError(f"{column} is empty")
    return text


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
    """The row's `title`, by which what belongs together stays in one split: its article's, else one made of its `context`."""
    if row.get("title"):
        return {"title": str(row["title"])}
    return {"title": hashlib.blake2b(row["context"].encode(), digest_size=8).hexdigest()} if row.get("context") else {}
