"""YAML as people mean it: `no` is a word, `5e-5` is a number, and a repeated key is an error.

Each key has its line number.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.errors import RecipeError

Keys = tuple[str | int, ...]  # path of a value: ("train", "epochs")


class Document(NamedTuple):
    """One YAML mapping: its value, the line (from 1) of every key, and problems that do not stop the reading (repeated
    keys).
    """

    value: dict[str, Any]
    lines: dict[Keys, int]
    problems: list[str]


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, in which `no` is False and `5e-5` is a string.

    This loader takes both rules from YAML 1.2.
    """


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in yaml.SafeDumper.yaml_implicit_resolvers.keys() | _Loader.yaml_implicit_resolvers.keys()
}


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML folds these line breaks unless they are escaped.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style='"' if re.search("[\x85\u2028\u2029\ufeff]", value) else None
    )


_Dumper.add_representer(str, _text)


def dump(value: object) -> str:
    """YAML that `parse` reads back as the same value. Keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_file(path: Path) -> Document:
    """Read the YAML mapping in a file, such as a recipe.

    Raises RecipeError if the file is unreadable or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str = "recipe") -> Document:
    """Read one YAML mapping; errors call it `name`. Raises RecipeError if the text is not YAML or not a mapping."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys (task, model, data, ...), got {type(value).__name__}")
    lines: dict[Keys, int] = {}
    problems: list[str] = []
    _walk(node, (), name, lines, problems)
    return Document(value, lines, problems)


def parse_value(text: str) -> object:
    """One value as a recipe reads it: `5e-5` -> 5e-05, `[a, b]` -> a list, `no` -> "no"."""
    return yaml.load(text, Loader=_Loader)


def _walk(node: yaml.Node | None, path: Keys, name: str, lines: dict[Keys, int], problems: list[str]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*path, position)] = item.start_mark.line + 1
            _walk(item, (*path, position), name, lines, problems)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, item in node.value:
        here = (*path, str(key.value))
        line = key.start_mark.line + 1
        if here in lines:
            problems.append(f"{name}:{line}: {'.'.join(map(str, here))}: given twice (first on line {lines[here]})")
            for below in [p for p in lines if p[: len(here)] == here]:  # of repeated keys YAML keeps the second
                del lines[below]
        lines[here] = line
        _walk(item, here, name, lines, problems)
