"""The `model_type` of each classic, the module of its networks, and their code for a model card. It needs no torch."""

import ast
from collections.abc import Mapping
from importlib import resources
from typing import Any

KINDS = {  # model_type -> module of pipelines.models
    "perceptron": "classic_images",
    "mlp": "classic_images",
    "lenet": "classic_images",
    "autoencoder": "classic_autoencoder",
    "alexnet": "classic_images",
    "vgg": "classic_images",
}

LAYERWISE = ("autoencoder",)  # kinds whose layers can be pretrained one after the other, without labels


def code(config: Mapping[str, Any]) -> str | None:
    """The source of the network of this config.json, with all that it uses of its module; None if it is no classic."""
    kind, names = config.get("model_type"), config.get("architectures") or []
    if not isinstance(kind, str) or kind not in KINDS or not names:
        return None
    text = resources.files("pipelines.models").joinpath(f"{KINDS[kind]}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    defined = {
        name: node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign)
        for name in _names(node)
    }
    wanted = [str(names[0])]
    for name in wanted:  # grows while it is read
        if name in defined:
            used = [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
            wanted += [one for one in used if one in defined and one not in wanted]
    parts = {id(defined[name]): defined[name] for name in defined if name in wanted}
    return "\n\n\n".join("\n".join(lines[_first(node) - 1 : node.end_lineno]) for node in parts.values())


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[attr-defined]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])
