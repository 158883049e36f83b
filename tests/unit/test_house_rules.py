"""Rules for the sources: who may import what, names, sizes, and the files of a task."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.floors import FLOOR, LIGHT, LIGHT_LIBRARIES, NEVER_IN, ONLY_IN, SIDEWAYS

ROOT = Path(__file__).parents[2]
LIBRARY = sorted(
    p
    for folder in ("pipelines", "apps", "recipes", "hub_cards")
    for p in (ROOT / folder).rglob("*.py")
    if "space" not in p.parts
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))


# ---- reading the sources ----


def module_name(path: Path) -> str:
    """`apps/parts.py` -> apps.parts, `pipelines/data/images.py` -> data.images, `pipelines/__init__.py` -> ""."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "pipelines" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import that runs, at any place in the file. Imports for types only do not run."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def used_package(dotted: str) -> str:
    """pipelines.data.image.reading.read_image -> data; pipelines.train -> "", because it is a public name."""
    first = dotted.split(".")[1] if "." in dotted else ""
    return first if first in FLOOR else ""


def floor_breaks(name: str, source: str) -> list[str]:
    own = name.split(".")[0]
    never = {
        library for place, libraries in NEVER_IN.items() if f"{name}.".startswith(f"{place}.") for library in libraries
    }
    found = []
    for line, dotted in imports(ast.parse(source)):
        top = dotted.split(".")[0]
        where = f"{name}:{line}: imports {dotted}"
        if top == "pipelines":
            used = used_package(dotted)
            inside = used == own and not (own == "tasks" and dotted.split(".")[2] != name.split(".")[1])
            if not inside and FLOOR[used] >= FLOOR[own] and used not in SIDEWAYS.get(own, ()):
                found.append(f"{where}: {own} is on floor {FLOOR[own]}, {used or 'pipelines'} on {FLOOR[used]}")
        elif own in LIGHT and top not in LIGHT_LIBRARIES | set(sys.stdlib_module_names):
            found.append(f"{where}: {own} uses {', '.join(sorted(LIGHT_LIBRARIES))} and the standard library")
        if own not in ONLY_IN.get(top, {own}) or top in never:
            found.append(f"{where}: not allowed in {own}")
    return found


def circles(uses: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import themselves through others (Tarjan's strongly connected components)."""
    from graphlib import CycleError, TopologicalSorter

    try:
        tuple(TopologicalSorter(uses).static_order())
    except CycleError as error:
        return [error.args[1]]
    return []


def imports_at_the_top(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# ---- floors ----


def test_every_package_has_a_floor() -> None:
    assert len(LIBRARY) > 100
    unknown = sorted({module_name(p).split(".")[0] for p in LIBRARY} - set(FLOOR) - {"recipes", "hub_cards"})
    assert not unknown, f"give these packages a floor in FLOORS: {unknown}"


def test_few_files_at_the_top() -> None:
    assert len(list((ROOT / "pipelines").glob("*.py"))) <= 8


def test_no_circles() -> None:
    """A module that is imported while another is loaded must not need that other module at the same time."""
    modules = {f"pipelines.{module_name(p)}".rstrip("."): p for p in LIBRARY}
    uses: dict[str, set[str]] = {}
    for name, path in modules.items():
        wanted = set(imports_at_the_top(path))
        uses[name] = {
            m for w in wanted for m in (w, w.rpartition(".")[0]) if m in modules and m != name and m.count(".") > 1
        }
    assert sum(map(len, uses.values())) > 200
    assert circles(uses) == []
    assert circles({"a": {"b"}, "b": {"a"}})


def test_imports_go_down() -> None:
    breaks = [
        b
        for path in LIBRARY
        if path.parent.name not in ("recipes", "hub_cards")
        for b in floor_breaks(module_name(path), path.read_text())
    ]
    assert not breaks, "\n".join(breaks)


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("config.recipe", "import torch", False),
        ("config.recipe", "from pipelines.errors import GraftError", True),
        ("models.vision", "from pipelines.plots import style", False),
        ("data.encoding", "def f():\n    from pipelines.training.run import train", False),
        ("training.loop", "from pipelines import train", False),
        ("training.loop", "from pipelines.evaluation.scoring import predict", True),
        ("publishing.card", "from pipelines.reporting.results import SCHEMA", True),
        ("reporting.results", "from pipelines.publishing.card import write_card", False),
        ("reporting.report", "def f():\n    import torch", False),
        ("publishing.card", "import torch", False),
        ("tasks.x", "from accelerate import Accelerator", False),
        ("tasks.x", "from pipelines.tasks import y", False),
        ("metrics.x", "import gradio", False),
        ("apps.x", "import gradio", True),
        ("data.image.reading", "from pipelines.data.schema import Source", True),
        (
            "task",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipelines.data.loading import Splits",
            True,
        ),
    ],
)
def test_the_floor_test_sees(module: str, source: str, allowed: bool) -> None:
    assert (floor_breaks(module, source) == []) is allowed


LIGHT_MODULES = (
    "cli",
    "config.catalog",
    "config.recipe",
    "data.loading",
    "evaluation.evaluate",
    "inference.loading",
    "inference.predict",
    "models.source",
    "publishing.card",
    "publishing.publish",
    "publishing.space",
    "reporting.report",
    "task",
    "training.run",
)


def test_light_modules_leave_torch_alone() -> None:
    """In a fresh process, importing a task, card, hub, report or app module does not import torch."""
    from pipelines.config.recipe import task_names

    names = [f"pipelines.tasks.{t.replace('-', '_')}" for t in task_names()]
    names += [f"pipelines.{m}" for m in LIGHT_MODULES]
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
    for heavy in ("torch", "transformers", "diffusers", "gradio"):
        if heavy in sys.modules:
            sys.exit(f"importing {{name}} brings {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# ---- names ----


def missing_files(task: str, root: Path) -> list[str]:
    """The missing ones of a task's five files. The recipes are a folder with at least one recipe."""
    name = task.replace("-", "_")
    files = [f"pipelines/tasks/{name}.py", f"apps/{name}.py", f"hub_cards/{name}.md.j2", f"tests/tasks/test_{name}.py"]
    missing = [f for f in files if not (root / f).is_file()]
    return missing + ([] if list((root / "recipes" / name).glob("*.yaml")) else [f"recipes/{name}/*.yaml"])


def task_like_names(root: Path) -> set[str]:
    """Every name that one of the five kinds of files uses. So a card or an app without its task is found too."""
    other = {"__init__", "parts", "gallery", "samples", "sound", "transcript", "launch", "watch", "base", "visitor"}
    other |= {"detection", "photo", "video", "timeline", "heat_map", "torchvision_detector", "libreyolo_detector"}
    other |= {"segmenter", "smp_segmenter", "torchvision_segmenter"}
    other |= {"transformers_video", "torchvision_video", "video_clips", "video_features"}
    other |= {"classic_images", "classic_texts", "classic_audio", "flow_speech", "sounds", "voice"}
    found = {p.stem for p in (root / "pipelines/tasks").glob("*.py")} | {p.stem for p in (root / "apps").glob("*.py")}
    found |= {p.name.removesuffix(".md.j2") for p in (root / "hub_cards").glob("*.md.j2")}
    found |= {p.stem.removeprefix("test_") for p in (root / "tests/tasks").glob("test_*.py")}
    found |= {p.name for p in (root / "recipes").iterdir() if p.is_dir() and p.name not in ("launch", "__pycache__")}
    return {name.replace("_", "-") for name in found - other}


def test_each_task_has_its_five_files() -> None:
    tasks = task_like_names(ROOT)
    assert len(tasks) >= 1
    missing = {task: missing_files(task, ROOT) for task in sorted(tasks)}
    assert not any(missing.values()), missing


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for file in (
        "pipelines/tasks/tone.py",
        "hub_cards/tone.md.j2",
        "recipes/tone/a.yaml",
        "apps/parts.py",
        "tests/tasks/test_tone.py",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert task_like_names(tmp_path) == {"tone"}
    assert missing_files("tone", tmp_path) == ["apps/tone.py"]


def test_task_names_are_their_file_names() -> None:
    from pipelines.config.recipe import task_class, task_names

    names = task_names()
    assert len(names) >= 1
    assert [task_class(name).name for name in names] == names


def test_public_names() -> None:
    import pipelines

    errors = {"GraftError", "RecipeError", "DataError", "ModelError", "RunError", "HubError"}
    verbs = {"baseline", "check", "compare", "evaluate", "predict", "publish", "runs", "train"}
    verbs |= {"as_evaluate", "load", "load_recipe", "load_splits"}
    assert set(pipelines.__all__) == {"Recipe", "Task"} | verbs | errors
    for name in pipelines.__all__:
        assert getattr(pipelines, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = pipelines.no_such_name


# ---- private names ----


def private_uses(path: Path, source: str) -> list[str]:
    """Names with an underscore that a module imports from another one of Graft.

    Such a name belongs to its module. A module with an underscore belongs to its package, and the package's other
    modules may import it.
    """
    ours = {"pipelines", "apps", "tests"}
    tree = ast.parse(source)
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found, modules = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name.split(".")[0] in ours}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ours:
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                parts = f"{node.module}.{alias.name}".split(".")
                place = next((n for n, part in enumerate(parts) if re.match(r"_(?!_)", part)), None)
                if place is None:
                    continue
                owner = ".".join(parts[:place])
                if owner != package or not (ROOT / path.relative_to(ROOT).parent / f"{parts[place]}.py").is_file():
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: imports {'.'.join(parts)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr) and ast.unparse(node.value) in modules:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: uses {ast.unparse(node)}")
    return found


def test_nobody_uses_what_is_private_to_another_module() -> None:
    found = [use for path in LIBRARY + TESTS for use in private_uses(path, path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("pipelines/data/formats/squad.py", "from pipelines.data.formats import _metadata", True),
        ("pipelines/data/formats/squad.py", "from pipelines.data.formats._metadata import own_list", True),
        ("pipelines/data/formats/squad.py", "from pipelines.data.formats import _none_of_these", False),
        ("pipelines/data/loading.py", "from pipelines.data.formats import _metadata", False),
        ("pipelines/data/loading.py", "from pipelines.data.formats._metadata import own_list", False),
        ("pipelines/data/loading.py", "from pipelines.data.labels import _lost", False),
        ("pipelines/data/loading.py", "from pipelines.data import labels\nlabels._lost", False),
        ("pipelines/data/loading.py", "from torch.utils import _pytree", True),
        ("pipelines/data/loading.py", "from pipelines.data.labels import lost\nlost.__name__", True),
    ],
)
def test_the_test_of_privacy_sees(module: str, source: str, allowed: bool) -> None:
    assert (private_uses(ROOT / module, source) == []) is allowed


# ---- sizes and habits ----


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def test_the_loop_is_short() -> None:
    lines = len((ROOT / "pipelines/training/loop.py").read_text().splitlines())
    assert lines < 200, f"loop.py: {lines} lines"


def test_no_loose_ends() -> None:
    """No work is left for later, and no error is silently ignored."""
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|NotImplemented" + "Error")
    found = [
        f"{p.relative_to(ROOT)}:{i}"
        for p in LIBRARY + TESTS
        for i, line in enumerate(p.read_text().splitlines(), 1)
        if mark.search(line)
    ]
    for path in LIBRARY + TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            swallows = isinstance(node, ast.ExceptHandler) and isinstance(node.body[0], ast.Pass)
            if swallows and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: swallows every error")
    assert not found, "\n".join(found)


def checks_something(function: ast.AST, helpers: set[str]) -> bool:
    names = {ast.unparse(n.func).split(".")[-1] for n in ast.walk(function) if isinstance(n, ast.Call)}
    return any(isinstance(n, ast.Assert) for n in ast.walk(function)) or any(
        name in {"raises", "warns", "expect", *helpers} or name.startswith("assert_") for name in names
    )


def test_every_test_asserts() -> None:
    """A module does it by itself, or through a helper of Graft that does."""
    written = [(p, f) for p in TESTS for f in functions(p)]
    helpers = {f.name for _, f in written if not f.name.startswith("test_") and checks_something(f, set())}
    tests = [(p, f) for p, f in written if p.name.startswith("test_") and f.name.startswith("test_")]
    assert len(tests) > 30
    silent = [f"{p.relative_to(ROOT)}:{f.lineno}: {f.name}" for p, f in tests if not checks_something(f, helpers)]
    assert not silent, "\n".join(silent)


def test_no_big_file_is_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    big = [f"{p.relative_to(ROOT)}: {p.stat().st_size} bytes" for p in files if p.stat().st_size > 1_000_000]
    assert not big, "\n".join(big)


# ---- the package ----


def test_the_package_is_complete() -> None:
    """Every folder with code is a package of the wheel.

    Every other file in the three data folders is package data.
    """
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {p.parent for p in LIBRARY}
    names = {".".join(("pipelines", *[x for x in f.relative_to(ROOT).parts if x != "pipelines"])) for f in folders}
    assert names == set(setup["packages"])
    checked = 0
    for package in setup["packages"]:
        base = ROOT / setup["package-dir"].get(package, package.replace(".", "/"))
        nested = {ROOT / f for f in folders if f != base and f.is_relative_to(base)}
        carried = {p for pattern in setup["package-data"].get(package, []) for p in base.glob(pattern)}
        files = {p for p in base.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p not in LIBRARY}
        files = {p for p in files if not any(p.is_relative_to(f) for f in nested)}
        checked += len(files)
        assert files <= carried, (
            f"not in package-data of {package}: {sorted(str(p.relative_to(ROOT)) for p in files - carried)}"
        )
    assert checked > 15
