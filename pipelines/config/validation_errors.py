"""Pydantic's errors in the terms of the recipe: file, line, key, what is allowed, and what was probably meant."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

Path = tuple[str | int, ...]
COMMAND_LINE = 0  # line number of a key that the command line sets


def suggest(word: str, known: Iterable[str]) -> str:
    close = closest(word, known)
    return f": did you mean {close!r}?" if close else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: the most similar one, or one with these initials (lr, bs)."""
    names = list(known)
    initials = [name for name in names if "_" in name and "".join(part[:1] for part in name.split("_")) == word]
    return next(iter(initials + difflib.get_close_matches(word, names, n=1, cutoff=0.6)), None)


def explain(
    errors: Sequence[Mapping[str, Any]],
    name: str,
    lines: Mapping[Path, int],
    schema: type[BaseModel],
    options: type[BaseModel],
) -> list[str]:
    """One line for every wrong key.

    `name` is the file and `lines` has the line number of every key by its path. `schema` and `options` hold the allowed
    keys.
    """
    found: dict[Path, list[Mapping[str, Any]]] = {}
    for error in errors:
        found.setdefault(_path(error, schema, options), []).append(error)
    meant = {
        (*path[:-1], closest(str(path[-1]), fields_at(path[:-1], schema, options)))
        for path, e in found.items()
        if _unknown(e[0])
    }
    messages = []
    for path, same in found.items():
        if same[0]["type"] == "missing" and path in meant:
            continue  # the key is in the file, misspelt, and that is an error of its own
        if _unknown(same[0]):
            allowed = fields_at(path[:-1], schema, options)
            message = "unknown key" + (suggest(str(path[-1]), allowed) or f" (allowed: {', '.join(allowed)})")
        else:
            message = _sentence(same)
        messages.append(f"{_where(path, name, lines)}: {'.'.join(map(str, path)) or 'recipe'}: {message}")
    return messages


def fields_at(path: Path, schema: type[BaseModel], options: type[BaseModel]) -> list[str]:
    """Names allowed below a path of the schema; empty if any name is allowed."""
    kind: Any = schema
    for depth, part in enumerate(path):
        kind = _kind(kind, part, options if depth == 0 else None)
    return list(kind.model_fields) if _is_model(kind) else []


def keys(schema: type[BaseModel], options: type[BaseModel], above: str = "") -> dict[str, str]:
    """Every full key of a recipe, and what it holds: a `value`, a `section` of keys, or `names` that are free."""
    found: dict[str, str] = {}
    for name in schema.model_fields:
        below = _kind(schema, name, None if above else options)
        full = f"{above}{name}"
        if not _is_model(below):
            found[full] = "names" if get_origin(below) is dict else "value"
            continue
        found[full] = "section"
        found |= keys(below, options, f"{full}.")
    return found


def _unknown(error: Mapping[str, Any]) -> bool:
    return error["type"] in ("extra_forbidden", "invalid_key")


def _where(path: Path, name: str, lines: Mapping[Path, int]) -> str:
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    if line == COMMAND_LINE:
        return "command line"
    return name if line is None else f"{name}:{line}"


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind(kind: Any, part: str | int, options: type[BaseModel] | None) -> Any:
    """The type below `part`: a section, or a container; None for a plain value."""
    if not _is_model(kind) or part not in kind.model_fields:
        return None
    if options is not None and part == "options":
        return options
    annotation = kind.model_fields[part].annotation
    members = [annotation, *get_args(annotation)]
    return next((m for m in members if _is_model(m) or get_origin(m) in (dict, list)), None)


def _path(error: Mapping[str, Any], schema: type[BaseModel], options: type[BaseModel]) -> Path:
    """The key that the error is about, without the branch of a union, which pydantic adds and no file contains."""
    path: list[str | int] = []
    kind: Any = schema
    for part in error["loc"]:
        container = get_origin(kind)
        if _is_model(kind):
            path.append(str(part))
            kind = _kind(kind, part, options if len(path) == 1 else None)
        elif (container is list and isinstance(part, int)) or container is dict:
            path.append(part)
            kind = None
        else:
            break
    return tuple(path)


def _sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    """`must be A or B, got X`: one sentence for all branches of a union.

    If the type is right, only the bound is named.
    """
    first = errors[0]
    if first["type"] == "missing":
        return "is missing"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    got = first["input"]
    bounds = [_expected(e) for e in errors if e["type"].startswith(("greater", "less"))]
    wanted = " or ".join(dict.fromkeys(bounds or [_expected(e) for e in errors]))
    choices = [choice for e in errors for choice in _choices(e)]
    hint = suggest(got, choices) if isinstance(got, str) else ""
    if all(e["type"] == "string_type" for e in errors) and not isinstance(got, (dict, list)) and got is not None:
        hint = ": put it in quotes"
    if all(e["type"] == "list_type" for e in errors) and isinstance(got, str):
        hint = f": did you mean [{got}]?"
    number = str(got).strip(" '\"“”„‘’").replace(",", ".")
    if not hint and isinstance(got, str) and re.fullmatch(r"-?\d+\.?\d*(e-?\d+)?", number) and "number" in wanted:
        hint = f": did you mean {number}?"  # 0,001, or a number in quotes
    return f"must be {wanted}, got {_shown(got)}{hint}"


def _choices(error: Mapping[str, Any]) -> list[str]:
    return [word.strip("' ") for word in error.get("ctx", {}).get("expected", "").replace(" or ", ",").split(",")]


def _expected(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    words = {
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "string_type": "text",
        "dict_type": "a mapping of keys",
        "model_type": "a mapping of keys",
        "list_type": "a list",
        "value_error": "a number",  # the only check inside a union: recipe._not_bool
        "literal_error": context.get("expected"),
        "greater_than": f"above {context.get('gt')}",
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than": f"below {context.get('lt')}",
        "less_than_equal": f"at most {context.get('le')}",
        "string_pattern_mismatch": "OWNER/NAME"
        if "/" in str(context.get("pattern"))
        else f"like {context.get('pattern')}",
    }
    return words.get(error["type"]) or str(error["msg"]).removeprefix("Input should be ")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)
