"""Places that a user names, before a system is asked for them."""

import os


def problem(place: str) -> str:
    """Why no file, folder or hub id can have this name; empty where one can. Systems answer such names with errors of many kinds."""
    if not place.strip():
        return "it is empty"
    if "\0" in place:
        return "it holds a NUL character"
    try:
        parts = os.fsencode(place).split(b"/")
    except UnicodeEncodeError:
        return "it is no Unicode text"
    if any(len(part) > 255 for part in parts) or sum(map(len, parts)) + len(parts) > 4000:
        return "it is longer than a file's name can be"
    if place.startswith("~") and os.path.expanduser(place).startswith("~"):
        return f"there is no user {place[1:].split('/')[0]!r} here"
    return ""
