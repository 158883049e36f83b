"""The parts of README.md and of the documentation site that are generated from the sources.

`make docs` (`python -m tests.support.generated_docs`) writes README's part, between `<!-- generated: tasks -->` and
`<!-- end -->`. A page of docs/ names a part in one line, `<!-- generated: recipes -->`, or with an argument,
`<!-- generated: options fill-mask -->`. MkDocs inserts the part while it builds: this file is also its hook
(mkdocs.yml).
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.task import headline
from tests.support.floors import FLOOR, FLOORS, SIDEWAYS
from tests.unit.test_house_rules import module_name

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PLACE = re.compile(r"(?m)^<!-- generated: (\w+)(?: ([\w-]+))? -->$")

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


# ---- the sources in words ----


def half_line(text: str, width: int = 99) -> str:
    """The first sentence, or as many of its clauses as fit."""
    sentence = re.split(r"(?<!\bet al)\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
    if len(sentence) <= width:
        return sentence
    starts = [sentence[: m.start()] for m in re.finditer(r"[;:,] ", sentence) if m.start() <= width]
    balanced = [start for start in starts if start.count("(") == start.count(")")]
    return balanced[-1] if balanced else sentence[:width].rpartition(" ")[0]


def docstring(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, f"{path} has no docstring"
    return doc


def summary(path: Path) -> str:
    return half_line(docstring(path))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; a line break inside a cell becomes a space."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |\n" for row in lines
    )


def floors() -> str:
    """The packages from the top floor down, with what each may import."""
    rows = []
    for number, names in reversed(list(enumerate(FLOORS))):
        shown = ", ".join(
            f"`{name}`" if name else "`__init__`" for name in sorted(names) if name == "" or _exists(name)
        )
        also = "; ".join(
            f"`{a}` also {', '.join(f'`{b}`' for b in sorted(SIDEWAYS[a]))}" for a in sorted(names) if a in SIDEWAYS
        )
        below = f"0 to {number - 1}" if number > 1 else "0" if number else "nothing"
        rows.append((str(number), shown, below + (f" ({also})" if also else "")))
    return table(("floor", "packages", "may import from floors"), rows)


def _exists(name: str) -> bool:
    return any((ROOT / place / name).exists() or (ROOT / place / f"{name}.py").exists() for place in ("pipelines", "."))


def tree() -> str:
    """The library from the top floor down, then the other folders."""
    files = [p for p in (ROOT / "pipelines").rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT / "pipelines"]
    files.sort(key=lambda p: (-FLOOR.get(module_name(p).split(".")[0], 0), module_name(p)))
    lines = {str(p.relative_to(ROOT)).replace("/__init__.py", "/"): summary(p) for p in files}
    lines |= {
        str(p.relative_to(ROOT)): summary(p) for p in sorted((ROOT / "apps").glob("*.py")) if p.name != "__init__.py"
    }
    lines |= OTHER_FILES
    wide = max(map(len, lines))
    return "```text\n" + "".join(f"{name.ljust(wide)}  {text}\n" for name, text in lines.items()) + "```\n"


# ---- commands ----


def commands() -> str:
    """Every verb of `graft` with its arguments, options and their help."""
    import typer

    from pipelines.cli import app

    parts = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        words, rows = ["graft", name], []
        for p in command.params:
            if p.param_type_name == "argument":
                word = p.metavar or p.name.upper()
                words.append(word if p.required or word.startswith("[") else f"[{word}]")
                rows += [(f"`{word.strip('[]')}`", p.help)] if p.help else []
            else:
                value = "" if p.is_flag else f" {p.metavar or p.name.upper()}"
                words.append(f"[{p.opts[0]}{value}]")
                default = "" if p.is_flag or p.default is None else f" Default: `{p.default}`."
                rows.append((f"`{p.opts[0]}{value}`", f"{p.help or ''}{default}".strip()))
        shown = f"```text\n{' '.join(words)}\n```\n\n{command.help.strip()}\n"
        parts.append(f"## graft {name}\n\n{shown}" + (f"\n{table(('argument', 'meaning'), rows)}" if rows else ""))
    return "\n".join(parts)


# ---- tasks and recipes ----


def tasks() -> str:
    """README's table: its links lead to the pages of the site, which can be read without a build."""
    return _tasks("docs/tasks/{}.md")


def task_list() -> str:
    return _tasks("{}.md")


def _tasks(link: str) -> str:
    from pipelines.config.recipe import task_class, task_names

    rows = []
    for name in task_names():
        folder = name.replace("-", "_")
        count = len(list((ROOT / "recipes" / folder).glob("*.yaml")))
        about = summary(ROOT / "pipelines/tasks" / f"{folder}.py")
        about = about.partition(": ")[2] or about
        rows.append((f"[{name}]({link.format(folder)})", about, headline(task_class(name)()).name, str(count)))
    return table(("task", "what it learns", "scored by", "recipes"), rows)


def recipes() -> str:
    """Every shipped recipe: a table, then the text of each file."""
    from pipelines.config.catalog import catalog, score

    rows, files = [], []
    for entry in catalog():
        name, path = entry["name"], Path(entry["path"])
        rows.append(
            (f"[{name}](#{name})", entry["model"], entry["data"], score(entry["published"]), score(entry["measured"]))
        )
        files.append(f"### {name}\n\n```yaml\n{path.read_text()}```\n")
    head = ("recipe", "model", "data", "published", "measured by us")
    return table(head, rows) + "\n## The files\n\n" + "\n".join(files)


def recipe(name: str) -> str:
    from pipelines.config.catalog import recipe_paths

    return f"```yaml\n{recipe_paths()[name].read_text()}```\n"


def measured() -> str:
    """What runs of Graft measured, and what others published, as the headers give it."""
    from pipelines.config.catalog import catalog

    parts = []
    for key, title in (("measured", "Measured by runs of Graft"), ("published", "Published by others")):
        rows = [
            (f"[{e['name']}](recipes.md#{e['name']})", e["hardware"], e[key])
            for e in catalog()
            if re.search(r"\d", _figure(e[key]))
        ]
        parts.append(f"## {title}\n\n{table(('recipe', 'hardware', key), rows)}")
    return "\n".join(parts)


def measured_of(task: str) -> str:
    """The same for the recipes of one task."""
    from pipelines.config.catalog import catalog

    entries = [e for e in catalog() if e["task"] == task]
    rows = [
        (f"[{e['name']}](../recipes.md#{e['name']})", e["hardware"], e["published"], e["measured"]) for e in entries
    ]
    return table(("recipe", "hardware", "published", "measured"), rows)


def _figure(text: str) -> str:
    """The text of a header if it holds a score: "none" and "not yet" do not."""
    return "" if text.startswith("none") or text in ("not yet", "") else text


# ---- the recipe's keys ----


def recipe_reference() -> str:
    """Every key of a recipe except the tasks' options, from the JSON schema."""
    from pipelines.config.recipe import recipe_schema

    schema = recipe_schema()
    parts = [f"## The sections\n\n{_keys(schema, schema)}"]
    for title, name in (
        ("model", "ModelSection"),
        ("model.adapter", "Adapter"),
        ("data", "DataSection"),
        ("train", "TrainSection"),
        ("hub", "HubSection"),
    ):
        parts.append(f"## {title}\n\n{_keys(schema['$defs'][name], schema)}")
    return "\n".join(parts)


def options() -> str:
    """The options of every task."""
    from pipelines.config.recipe import task_names

    return "\n".join(f"## options of {name}\n\n{options_of(name)}" for name in task_names())


def options_of(task: str) -> str:
    from pipelines.config.recipe import recipe_schema

    schema = recipe_schema()
    return _keys(schema["$defs"][task], schema)


def keys_without_a_sentence() -> list[str]:
    from pipelines.config.recipe import recipe_schema, task_names

    schema = recipe_schema()
    sections = {"": schema} | {
        name: schema["$defs"][name] for name in [*schema["$defs"], *task_names()] if name != "BaseModel"
    }
    return [
        f"{section}.{key}"
        for section, found in sections.items()
        for key, value in found.get("properties", {}).items()
        if not value.get("description") and (section, key) != ("", "options")
    ]


def _keys(section: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    rows = []
    needed = section.get("required", [])
    for key, value in section.get("properties", {}).items():
        default = (
            "needed"
            if key in needed
            else "-"
            if isinstance(value.get("default"), dict) or key == "options"
            else _value(value)
        )
        about = value.get("description", "Settings of the task.")
        rows.append((f"`{key}`", _kind(value, schema), default, about))
    return table(("key", "value", "default", "meaning"), rows) if rows else "None.\n"


def _value(value: Mapping[str, Any]) -> str:
    import json

    return "left out" if value.get("default") is None else f"`{json.dumps(value['default'])}`".replace('"', "")


def _kind(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A JSON schema type with its bounds, in words: `whole number, 1 to 1,000`."""
    if "anyOf" in value:
        return " or ".join(_kind(one, schema) for one in value["anyOf"] if one.get("type") != "null")
    if "$ref" in value or "allOf" in value:
        return "mapping, see below"
    if "const" in value or "enum" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if "prefixItems" in value:  # a tuple; ours have items of one type
        return f"list of {len(value['prefixItems'])}: {_kind(value['prefixItems'][0], schema)}"
    if value.get("type") == "array":
        kinds = [value["items"]] if "items" in value else value["prefixItems"]
        return f"list of {' and '.join(dict.fromkeys(_kind(kind, schema) for kind in kinds))}"
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true` or `false`",
        "object": "mapping",
    }
    return names[value["type"]] + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    def find(*keys: str) -> tuple[str, Any]:
        return next(((key, value[key]) for key in keys if key in value), ("", None))

    low_key, low = find("minimum", "exclusiveMinimum", "ge", "gt")
    high_key, high = find("maximum", "exclusiveMaximum", "le", "lt")
    words = []
    if low is not None:
        words.append(("above " if low_key in ("exclusiveMinimum", "gt") else "from ") + f"{low:,}")
    if high is not None:
        words.append(("below " if high_key in ("exclusiveMaximum", "lt") else "to ") + f"{high:,}")
    return f", {' '.join(words)}" if words else ""


# ---- data, API, other files ----


def formats() -> str:
    """Every format with its own docstring, which shows how its files look."""
    from pipelines.data.loading import format_names

    parts = []
    for name in format_names():
        doc = docstring(ROOT / f"pipelines/data/formats/{name}.py")
        parts.append(f"### {name}\n\n{_plain_braces(doc)}\n")
    return "\n".join(parts)


def _plain_braces(doc: str) -> str:
    """Lines of JSON or XML become code, and so do words in angle brackets, which are no HTML here."""
    lines = []
    for line in doc.splitlines():
        shows = line.startswith(("{", "<"))
        lines.append(
            f"    {line}"
            if shows
            else line
            if line.startswith("    ")
            else re.sub(r"(?<!`)(\S*<\w+>\S*)", r"`\1`", line)
        )
    return "\n".join(lines)


def api() -> str:
    """The public names of `import pipelines`. mkdocstrings documents each from its own file."""
    import pipelines

    return "\n".join(f"::: {getattr(pipelines, name).__module__}.{name}\n" for name in pipelines.__all__)


def benchmarks() -> str:
    return _included(ROOT / "tests/benchmarks/README.md")


def changelog() -> str:
    return _included(ROOT / "CHANGELOG.md")


def _included(path: Path) -> str:
    """A file of the repository without its title."""
    return path.read_text().partition("\n")[2]


PARTS: dict[str, Callable[..., str]] = {
    "api": api,
    "benchmarks": benchmarks,
    "changelog": changelog,
    "commands": commands,
    "floors": floors,
    "formats": formats,
    "measured": measured,
    "options": options,
    "recipe": recipe,
    "recipe_reference": recipe_reference,
    "recipes": recipes,
    "task_list": task_list,
    "tasks": tasks,
    "tree": tree,
}
OF_ONE = {"measured": measured_of, "options": options_of, "recipe": recipe}


def render(text: str) -> str:
    """README's text with every generated part replaced."""
    return PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[3]}", text)


def filled(text: str) -> str:
    """A page of docs/ with its generated parts."""
    return PLACE.sub(lambda match: OF_ONE[match[1]](match[2]) if match[2] else PARTS[match[1]](), text)


def places(text: str) -> Iterator[tuple[str, str]]:
    """The parts that a page of docs/ includes: (name, argument)."""
    yield from PLACE.findall(text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page before it becomes HTML."""
    return filled(markdown)


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
    print(f"{README.name}: {', '.join(name for _, name, _ in PART.findall(README.read_text()))}")
