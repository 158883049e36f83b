"""The recipes that Graft ships. File names are recipe names; the list shows what the header of each recipe states.

A header is the comment at the top of a recipe: its command, then `hardware:`, `published:` and `measured:`, then notes.
"""

import re
from importlib import resources
from pathlib import Path

from pipelines.config.validation_errors import suggest
from pipelines.config.yaml_io import parse
from pipelines.errors import RecipeError
from pipelines.utils.files import did_you_mean, problem
from pipelines.utils.formatting import short

HEADER = ("hardware", "published", "measured")


def recipe_paths() -> dict[str, Path]:
    """The shipped recipes: name -> file. Launch configurations are not recipes."""
    root = Path(str(resources.files("pipelines.recipes")))
    return {p.stem: p for p in sorted(root.glob("*/*.yaml")) if p.parent.name != "launch"}


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe, given by its path or by a name that `graft recipes` prints. Raises RecipeError."""
    path = Path(source)
    why = problem(str(source))
    if why:
        raise RecipeError(f"no recipe {short(str(source))!r}: {why}")
    if path.is_file():
        return path
    shipped = recipe_paths()
    name = path.stem if path.suffix in (".yaml", ".yml") else str(source)
    if path.suffix == "" and name in shipped:
        return shipped[name]
    if path.is_dir():
        raise RecipeError(f"{source} is a folder: a recipe is a YAML file, or a name that `graft recipes` prints")
    raise RecipeError(
        f"no recipe {str(source)!r}: no such file{did_you_mean(str(source))}, and no shipped recipe has the name"
        f"{suggest(name, shipped)}"
    )


def catalog() -> list[dict[str, str]]:
    """The shipped recipes, by task and name: name, task, model, data, command, hardware, published, measured, path.

    It reads text only, so it takes milliseconds.
    """
    return sorted(
        (_entry(name, path) for name, path in recipe_paths().items()), key=lambda entry: (entry["task"], entry["name"])
    )


def without_hub() -> list[str]:
    """The shipped recipes that need no hub: random weights, and data on this disk or in a library."""
    found = []
    for name, path in recipe_paths().items():
        raw = parse(path.read_text(encoding="utf-8"), str(path)).value
        local = raw["data"].get("format") not in (None, "hub") or "/" not in raw["data"]["id"]
        if "config" in raw["model"] and local:
            found.append(name)
    return found


def catalog_table() -> None:
    """Print the catalogue: under each task one line per recipe."""
    entries = catalog()
    keys = ("name", "model", "data", "published", "measured")
    rows = [{**entry, **{key: score(entry[key]) for key in ("published", "measured")}} for entry in entries]
    wide = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}
    for task in sorted({entry["task"] for entry in entries}):
        print("  ".join(word.ljust(wide[key]) for key, word in zip(keys, (task, *keys[1:]), strict=True)).rstrip())
        for row in rows:
            if row["task"] == task:
                print("  ".join(row[key].ljust(wide[key]) for key in keys).rstrip())
    print("\n`graft recipes NAME` prints one, to copy; `graft train NAME` runs it.")


def score(text: str) -> str:
    """The score in the `published` or `measured` line of a header, without its source; `-` if there is none."""
    return "-" if text.startswith(("none", "not yet")) else text.partition(" (")[0]


def header(text: str) -> tuple[str, dict[str, str], str]:
    """Split the comment at the top of a recipe into command, `key: value` lines and notes. Missing parts are empty."""
    block = re.match(r"(?:#.*\n)*", text)
    lines = [line.lstrip("#").strip() for line in block.group().splitlines()] if block else []
    command, values, notes = "", dict.fromkeys(HEADER, ""), []
    for line in lines:
        key, colon, value = line.partition(": ")
        if colon and key in HEADER:
            values[key] = value.strip()
        elif line.startswith("graft train "):
            command = line
        else:
            notes.append(line)
    return command, values, " ".join(notes)


def _entry(name: str, path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    raw, _, problems = parse(text, str(path))
    if problems or not {"task", "model", "data"} <= raw.keys():
        raise RecipeError(f"{path}: no complete recipe; `graft check {path}` says why")
    command, values, _ = header(text)
    model = raw["model"]
    where = model["id"] if "id" in model else f"{model['config']['model_type']} from random weights"
    where += " (random weights)" if model.get("weights") == "random" else ""
    return {
        "name": name,
        "task": raw["task"],
        "model": where,
        "data": raw["data"]["id"],
        "command": command,
        **values,
        "path": str(path),
    }
