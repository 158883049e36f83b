"""What README.md says about files, commands, tasks and recipes is made here from the sources: `make docs` writes it.

Each part stands between `<!-- generated: NAME -->` and `<!-- end -->`; tests/unit/test_docs.py fails while one is out of date.
"""

import ast
import re
from pathlib import Path

from tests.support.floors import FLOOR
from tests.unit.test_house_rules import module_name

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

OTHER_FILES = {
    "recipes/<task>/<dataset>_<model>.yaml": "one recipe; its header tells command, hardware and scores",
    "recipes/launch/": "for `accelerate launch`: several GPUs, FSDP2, several machines",
    "hub_cards/<task>.md.j2": "the model card of one task, on top of base.md.j2",
    "tests/tasks/contract.py": "what every task must show",
    "tests/support/tiny.py": "tiny real models and photos, made on disk",
    "tests/support/hub.py": "a model hub on loopback, for the real clients",
    "tests/tasks/test_<task>.py": "the contract, and what is special about the task",
    "tests/browser/": "the demos in a real browser",
    "tests/benchmarks/": "speed against transformers.Trainer on the same machine",
}


def half_line(text: str, width: int = 99) -> str:
    """The first sentence, or as many of its clauses as fit."""
    sentence = re.split(r"(?<!\bet al)\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
    if len(sentence) <= width:
        return sentence
    starts = [sentence[: m.start()] for m in re.finditer(r"[;:,] ", sentence) if m.start() <= width]
    whole = [start for start in starts if start.count("(") == start.count(")")]
    return whole[-1] if whole else sentence[:width].rpartition(" ")[0]


def summary(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, f"{path} has no docstring"
    return half_line(doc)


def tree() -> str:
    """The library from the top floor down, then what stands beside it."""
    files = [p for p in (ROOT / "pipelines").rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT / "pipelines"]
    files.sort(key=lambda p: (-FLOOR.get(module_name(p).split(".")[0], 0), module_name(p)))
    lines = {str(p.relative_to(ROOT)).replace("/__init__.py", "/"): summary(p) for p in files}
    lines |= {str(p.relative_to(ROOT)): summary(p) for p in sorted((ROOT / "apps").glob("*.py")) if p.name != "__init__.py"}
    lines |= OTHER_FILES
    wide = max(map(len, lines))
    return "```\n" + "".join(f"{name.ljust(wide)}  {text}\n" for name, text in lines.items()) + "```\n"


def commands() -> str:
    import typer

    from pipelines.cli import app

    rows = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        words = ["graft", name]
        for p in command.params:
            word = p.metavar or p.name.upper() if p.param_type_name == "argument" else p.opts[0]
            words.append(word if p.required or word.startswith("[") else f"[{word}]")
        rows.append((f"`{' '.join(words)}`", command.help.strip().splitlines()[0].rstrip(".")))
    return table(("command", "does"), rows)


def tasks() -> str:
    from pipelines.config.recipe import task_class, task_names

    rows = []
    for name in task_names():
        kind = task_class(name)
        folder = name.replace("-", "_")
        count = len(list((ROOT / "recipes" / folder).glob("*.yaml")))
        about = summary(ROOT / "pipelines/tasks" / f"{folder}.py")
        rows.append((f"[{name}](pipelines/tasks/{folder}.py)", about.partition(": ")[2] or about, kind().metric.name, str(count)))
    return table(("task", "what it learns", "scored by", "recipes"), rows)


def recipes() -> str:
    from pipelines.config.catalog import catalog, score

    rows = []
    for entry in catalog():
        where = Path(entry["path"]).relative_to(ROOT)
        rows.append((f"[{entry['name']}]({where})", entry["model"], entry["data"], score(entry["published"]), score(entry["measured"])))
    return table(("recipe", "model", "data", "published", "measured by us"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in [head, ("---",) * len(head), *rows])


PARTS = {"tree": tree, "commands": commands, "tasks": tasks, "recipes": recipes}


def render(text: str) -> str:
    """README's text with every generated part made anew."""
    return PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
    print(f"{README.name}: {', '.join(PARTS)}")
