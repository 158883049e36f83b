"""The settings that a generated file holds: JSON in a text field of an image, or in a tag of a recording."""

import json
from typing import Any

MOST_LETTERS = 100_000  # longest text of settings that is read from a file


def parsed(noted: str) -> dict[str, Any]:
    """The settings in a text that anybody may have written: texts, numbers and null.

    What other programs write there comes back as {"parameters": text}: plain text, nested values, and numbers that a
    page cannot show.
    """
    try:
        found = json.loads(noted)
    except (ValueError, RecursionError):
        found = None
    plain = isinstance(found, dict) and all(_plain(value) for value in found.values())
    return found if plain else {"parameters": str(noted)}


def _plain(value: Any) -> bool:
    return isinstance(value, str) or value is None or (isinstance(value, (int, float)) and abs(value) < 2**63)
