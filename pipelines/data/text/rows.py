"""Check that a row's cells hold readable text."""

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pipelines.errors import DataError

SpecialTokens = Literal["text", "keep"]  # how a tokenizer reads its special tokens (<s>, [SEP]) in the texts of users


def readable(row: Mapping[str, Any], column: str, *, may_be_empty: bool = False, numbers: bool = False) -> str:
    """The text in a row's column; with `numbers`, numbers count as text.

    Raises DataError for other types and empty text.
    """
    text = row[column]
    if text is None or text != text:  # pandas writes NaN for an empty cell
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
    """The end of a message about a cell that holds a conversation (a list of messages); empty for any other cell."""
    first = value[0] if isinstance(value, list) and value else None
    known = isinstance(first, Mapping) and not {"content", "value"}.isdisjoint(first)
    return ": text-generation with options.chat=true learns from conversations" if known else ""


def printed(cell: Any, kinds: tuple[type, ...]) -> Any:
    """The list or dictionary that a program wrote into a cell: '["a", "b"]', "{'text': array(['a'], dtype=object)}".

    None if the cell holds anything else.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(("[", "{")):
        return None
    for read in (json.loads, ast.literal_eval, _with_arrays):
        try:
            found = read(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, kinds) else None
    return None


def _with_arrays(text: str) -> Any:
    """A Python literal that holds arrays as NumPy prints them."""
    return ast.literal_eval(re.sub(r"\barray\((\[[^\]]*\])(?:,\s*dtype=[^)]*)?\)", r"\1", text))


def blank(text: str) -> bool:
    """Whether a text has no visible character: a tokenizer may give no token for spaces and zero-width characters."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def check_characters(text: str, column: str) -> None:
    """Raise DataError for NUL and halves of surrogate pairs, which JSON can contain: no tokenizer reads them."""
    if "\0" in text:
        raise DataError(f"{column} holds NUL bytes: is it text?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{column} holds {text[error.start]!a}, half of a character: it is no Unicode text") from None


def titled(row: Mapping[str, Any]) -> dict[str, str]:
    """{"title": ...}, which keeps rows of one text in one split: the article's title, else a digest of the `context`.

    A row with neither gets its own id. Empty if rows have no such columns.
    """
    if row.get("title"):
        return {"title": str(row["title"])}
    if row.get("context"):
        return {"title": hashlib.blake2b(row["context"].encode(), digest_size=8).hexdigest()}
    return {"title": str(row["id"])} if "title" in row or "context" in row else {}


def transcribed(row: dict[str, Any]) -> dict[str, Any]:
    """A recording's row with a checked transcript, and its speaker as text. Raises DataError."""
    row = {**row, "text": readable(row, "text", numbers=True)}  # recordings of digits may have numbers
    return {**row, "speaker": str(row["speaker"])} if row.get("speaker") is not None else row
