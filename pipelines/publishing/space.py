"""Write the folder of a Space that serves a published model: page, code and pinned requirements, without the Graft
package.

    space_folder("me/pets", "image-classification", Path("space"))

It holds only the modules that the page needs, found by reading their imports.
"""

import ast
import importlib.metadata
import platform
import shutil
import sys
from importlib import resources
from pathlib import Path

from pipelines.errors import ModelError

_TEMPLATES = ("README.md", "app.py", "requirements.txt")  # the only files of that folder that are copied
# The libraries use these themselves, so our imports do not show them: image processors need torchvision, timm ids timm.
_ALWAYS = ("gradio", "huggingface_hub", "pillow", "safetensors", "timm", "torch", "torchvision", "transformers")


def space_folder(repo_id: str, task: str, target: Path) -> Path:
    """Write the Space of a published model into `target`, which is created if it is missing. Returns `target`.

    Raises ModelError for a task that has no demo.
    """
    name = task.replace("-", "_")
    if _file(f"pipelines.apps.{name}") is None:
        raise ModelError(f"there is no demo for the task {task!r}: publish without --space")
    modules = _reached(
        [f"pipelines.apps.{name}", "pipelines.apps.launch", "pipelines.inference.loading", f"pipelines.tasks.{name}"]
    )
    for module in modules:
        source = _file(module)
        assert source is not None  # it was read above
        copy = target.joinpath(*module.split("."))
        copy = copy / "__init__.py" if source.name == "__init__.py" else copy.with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    # Not our own __init__.py, which names all public functions.
    (target / "pipelines" / "__init__.py").write_text(
        '"""The part of Graft that loads this model and draws its page."""\n'
    )
    words = {
        "model": repo_id,
        "name": repo_id.split("/")[-1],
        "gradio": importlib.metadata.version("gradio"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "requirements": "\n".join(requirements(modules)),
    }
    for template in _TEMPLATES:
        text = (apps_folder() / "space" / template).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace("{{" + word + "}}", value)
        (target / template).write_text(text, encoding="utf-8")
    return target


def requirements(modules: dict[str, set[str]]) -> list[str]:
    """Pinned versions, as installed here, of the packages that these modules import: ["torch==2.15.0", ...]."""
    owners = importlib.metadata.packages_distributions()
    imported = {name for names in modules.values() for name in names if name not in sys.stdlib_module_names}
    wanted = {owners[name][0] for name in imported if name in owners} | set(_ALWAYS)
    # A version such as 2.15.0+cu130 names a build that the package index does not have.
    pins = {name.lower().replace("_", "-"): importlib.metadata.version(name).split("+")[0] for name in wanted}
    return sorted(f"{name}=={version}" for name, version in pins.items())


def _reached(start: list[str]) -> dict[str, set[str]]:
    """Our modules that these modules need, also inside functions: module name -> top-level names of other packages."""
    found: dict[str, set[str]] = {}
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        names = _imports(path) | {name.rpartition(".")[0]}  # the package of a module runs first
        found[name] = {n.split(".")[0] for n in names} - {"pipelines"}
        waiting += [n for n in names if n.startswith("pipelines.")]
    return found


def _imports(path: Path) -> set[str]:
    """Names that a file imports, also inside functions, but not only for types. `from a import b` gives a and a.b."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def _file(module: str) -> Path | None:
    """The file of one of our modules, found without an import; None if there is none."""
    _, *parts = module.split(".")
    base = apps_folder().joinpath(*parts[1:]) if parts[:1] == ["apps"] else _library().joinpath(*parts)
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _library() -> Path:
    return Path(str(resources.files("pipelines")))


def apps_folder() -> Path:
    return Path(str(resources.files("pipelines.apps")))
