"""Texts: what a row must hold to be read as one."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.errors import DataError


def readable(row: Mapping[str, Any], column: str, *, may_be_empty: bool = False, numbers: bool = False) -> str:
    """The text in a row's column. Raises DataError for anything else: numbers (but where these count as text), nothing, what is binary."""
    text = row[column]
    if text is None:
        text = ""
    if numbers and isinstance(text, (bool, int, float)):
        text = str(text)
    if not isinstance(text, str):
        talk = isinstance(text, list) and text and isinstance(text[0], Mapping) and {"content", "value"} & set(text[0])
        hint = ": conversations are not read; write each as one text, or its parts as columns" if talk else ""
        raise DataError(f"{column} is no text but {type(text).__name__}{hint}")
    if "\0" in text:
        raise DataError(f"{column} holds NUL bytes: is it text?")
    if not text.strip() and not may_be_empty:
        raise DataError(f"{column} is empty")
    return text


def titled(row: Mapping[str, Any]) -> dict[str, str]:
    """The row's `title`, by which what belongs together stays in one split: its article's, else one made of its `context`.

    A row without either stands alone, under its own id; nothing where no row has such a column.
    """
    if row.get("title"):
        return {"title": str(row["title"])}
    if row.get("context"):
        return {"title": hashlib.blake2b(row["context"].encode(), digest_size=8).hexdigest()}
    return {"title": str(row["id"])} if "title" in row or "context" in row else {}
