"""The `model_type` of each classic, the module of its networks, and their code for a model card. It needs no torch."""

import ast
from collections.abc import Mapping
from importlib import resources
from typing import Any

SEQUENCES = ("classic_texts", "classic_audio")

KINDS: dict[str, tuple[str, ...]] = {  # model_type -> modules of pipelines.models
    "perceptron": ("classic_images",),
    "mlp": ("classic_images",),
    "lenet": ("classic_images",),
    "autoencoder": ("classic_autoencoder",),
    "alexnet": ("classic_images",),
    "vgg": ("classic_images",),
    "lstm": SEQUENCES,
    "gru": SEQUENCES,
    "transformer": SEQUENCES,
}

# networks that are no classics: the module of each uses nothing of Graft
ALONE = {"flow_speech": "flow_network", "wavenet": "wavenet_network"}
# what a network of log-mel spectrograms needs of pipelines.data.audio.mel
SPECTRUM = {"flow_speech": "griffin_lim", "wavenet": "log_mel"}

LAYERWISE = ("autoencoder",)  # kinds whose layers can be pretrained one after the other, without labels


def code(config: Mapping[str, Any]) -> str | None:
    """The source of the network of this config.json, with all that it uses of its module; None if a library has it."""
    kind, names = config.get("model_type"), config.get("architectures") or []
    if isinstance(kind, str) and kind in ALONE:
        text = resources.files("pipelines.models").joinpath(f"{ALONE[kind]}.py").read_text(encoding="utf-8")
        own = "\n".join(text.splitlines()[ast.parse(text).body[0].end_lineno :]).strip()
        settings = {"mel.MelSettings"}
        spectrum = _quoted("mel", [SPECTRUM[kind]], settings, "pipelines.data.audio") if config.get("mel") else []
        return "\n\n\n".join([own, *spectrum])
    if not isinstance(kind, str) or kind not in KINDS or not names:
        return None
    found = (_quoted(module, [str(names[0])], set()) for module in KINDS[kind])
    return next(("\n\n\n".join(parts) for parts in found if parts), None)


def _quoted(module: str, wanted: list[str], done: set[str], package: str = "pipelines.models") -> list[str]:
    """What a module defines under these names, with all that it uses of this module and of other classics' modules.

    `done` are the names that need not be quoted again.
    """
    text = resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")
    lines, body = text.splitlines(), ast.parse(text).body
    defined = {
        name: node
        for node in body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign)
        for name in _names(node)
    }
    imported = {
        alias.name: node.module.rpartition(".")[2]
        for node in body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipelines.models.classic_")
        for alias in node.names
        if node.module
    }
    wanted = [name for name in wanted if name in defined]
    elsewhere: dict[str, list[str]] = {}
    for name in wanted:  # grows while it is read
        for one in [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]:
            if one in defined and one not in wanted and f"{module}.{one}" not in done:
                wanted.append(one)
            elif one in imported and one not in elsewhere.setdefault(imported[one], []):
                elsewhere[imported[one]].append(one)
    before = [part for name, used in elsewhere.items() for part in _quoted(name, used, done)]
    parts = {id(defined[name]): defined[name] for name in defined if name in wanted and f"{module}.{name}" not in done}
    done.update(f"{module}.{name}" for name in wanted)
    return [*before, *("\n".join(lines[_first(node) - 1 : node.end_lineno]) for node in parts.values())]


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[attr-defined]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])
