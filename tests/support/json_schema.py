"""What an editor checks by a JSON schema, for the keywords that the schema of recipes has.

problems(recipe, schema) -> ["train.lr: unknown key"]
"""

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# keywords that are checked below, and those that say nothing about values
CHECKED = {"type", "const", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "$ref"}
CHECKED |= {"properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"}
CHECKED |= {"minProperties", "anyOf", "allOf", "if", "then"}
SILENT = {"$schema", "$defs", "title", "description", "default"}


def problems(value: Any, schema: Any, root: Any = None, at: str = "") -> Iterator[str]:
    """What is wrong with a value. Raises AssertionError for a keyword that this file does not know."""
    root = root or schema
    unknown = set(schema) - CHECKED - SILENT
    assert not unknown, f"{at}: {unknown}"
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from problems(value, target, root, at)
    for one in schema.get("allOf", []):
        yield from problems(value, one, root, at)
    if "anyOf" in schema and all(any(problems(value, one, root, at)) for one in schema["anyOf"]):
        yield f"{at}: {value!r} fits none of {schema['anyOf']}"
    if "if" in schema and not any(problems(value, schema["if"], root, at)):
        yield from problems(value, schema["then"], root, at)
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not in {schema['enum']}"
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{at}: {value!r} is no {kind}"
        return
    yield from _bounds(value, schema, at)
    if isinstance(value, dict):
        yield from (f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value)
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            if below is False:
                yield f"{at}.{key}: unknown key".lstrip(".")
            elif isinstance(below, dict):
                yield from problems(item, below, root, f"{at}.{key}".lstrip("."))
    if isinstance(value, list):
        for number, item in enumerate(value):
            each = schema.get("prefixItems", [])
            below = each[number] if number < len(each) else schema.get("items", {})
            yield from problems(item, below, root, f"{at}.{number}")


def _bounds(value: Any, schema: Any, at: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        above, below = schema.get("exclusiveMinimum", value - 1), schema.get("exclusiveMaximum", value + 1)
        if not (low <= value <= high and above < value < below):
            yield f"{at}: {value!r} is out of bounds"
    if isinstance(value, list) and not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{at}: {len(value)} items"
    if isinstance(value, dict) and len(value) < schema.get("minProperties", 0):
        yield f"{at}: {len(value)} keys"
