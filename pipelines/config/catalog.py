"""The recipes that Graft ships. File names are recipe names; the list shows what the header of each recipe states.

A header is the comment at the top of a recipe: its command, then `hardware:`, `published:` and `measured:`, then notes.
A recipe for a user's own data also has `takes:`, which says what these data are. `first choice` marks the recipe that
is used if the user names none.
"""

import difflib
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.config import encoders
from pipelines.config.validation_errors import suggest
from pipelines.config.yaml_io import parse
from pipelines.errors import RecipeError
from pipelines.utils.files import did_you_mean, problem, read_json
from pipelines.utils.formatting import short

HEADER = ("takes", "hardware", "published", "measured")
FIRST = "; first choice"  # the end of `takes:` in the recipe that is taken if the user names none
FORMER_NAMES = {  # name of a recipe in versions up to 0.1 -> its name now
    "cats_dogs_efficientnet_b0": "photos_efficientnet_b0",
    "cats_dogs_vit_frozen": "photos_vit_frozen",
    "squad_minilm": "questions_minilm",
}


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
    if path.suffix == "" and (name in shipped or name in FORMER_NAMES):
        return shipped[FORMER_NAMES.get(name, name)]
    if path.is_dir():
        raise RecipeError(f"{source} is a folder: a recipe is a YAML file, or a name that `graft recipes` prints")
    raise RecipeError(
        f"no recipe {str(source)!r}: no such file{did_you_mean(str(source))}, and no shipped recipe has the name"
        f"{suggest(name, shipped)}"
    )


def is_name(source: str) -> bool:
    """Whether this is the name of a recipe that Graft ships, or was, or the path of a recipe file."""
    is_file = Path(source).suffix in (".yaml", ".yml") and not problem(source) and Path(source).is_file()
    return source in FORMER_NAMES or source in recipe_paths() or is_file


def run_name(source: str | Path) -> str:
    """The name that a recipe gives to its runs: the one that was typed, so that a former name finds its runs again.

    The recipe.yaml of a run gives the name of that run.
    """
    if str(source) in FORMER_NAMES:
        return str(source)
    path = find_recipe(source)
    run = run_of(path)
    return path.stem if run is None else run.name


def recipe_name(source: str | Path) -> str:
    """The recipe's own name: for the recipe.yaml of a run, the one that this run was trained with."""
    run = run_of(Path(source))
    if run is None:
        return Path(source).stem
    results = read_json(run / "results.json")
    named = results.get("recipe") if isinstance(results, dict) else None
    return named if isinstance(named, str) and named else run.name


def run_of(path: Path) -> Path | None:
    """The run folder whose recipe.yaml this is; also for the copy in its model/. None if it belongs to no run."""
    if path.name != "recipe.yaml" or not path.is_file():
        return None
    folder = path.absolute().parent
    folder = folder.parent if folder.name == "model" else folder
    return folder if any((folder / name).exists() for name in ("results.json", "log.jsonl", "checkpoints")) else None


def catalog() -> list[dict[str, str]]:
    """The shipped recipes, by task, those for own data first: name, task, model, data, command, the header's values,
    hub ("", "model", "data" or "model, data": what comes from the hub) and path.

    It reads text only, so it takes milliseconds.
    """
    return sorted(
        (_entry(name, path) for name, path in recipe_paths().items()),
        key=lambda entry: (entry["task"], not entry["takes"], not entry["takes"].endswith(FIRST), entry["name"]),
    )


SEARCHED = ("name", "task", "model", "data", "takes", "hardware")


def matching(words: Sequence[str]) -> list[dict[str, str]]:
    """The entries of the catalogue that hold every word, in any of `SEARCHED`. Raises RecipeError if there are none."""
    entries = catalog()
    texts = {entry["name"]: " ".join(entry[key] for key in SEARCHED).lower() for entry in entries}
    found = [entry for entry in entries if all(word.lower() in texts[entry["name"]] for word in words)]
    if found:
        return found
    known = [*texts, *{part for text in texts.values() for part in re.findall(r"[a-z0-9]{4,}", text)}]
    near = list(dict.fromkeys(n for word in words for n in difflib.get_close_matches(word.lower(), known, 3, 0.7)))
    meant = f": did you mean {' or '.join(near)}?" if near else ": `graft recipes` lists all"
    shown = " ".join(short(word) for word in words)
    raise RecipeError(f"no recipe has {shown!r} in its name, task, model or data{meant}")


def catalog_table(entries: Sequence[dict[str, str]]) -> None:
    """Print entries of the catalogue: under each task a paragraph per recipe, as wide as the terminal."""
    width = min(100, shutil.get_terminal_size((80, 24)).columns)
    wide = max(len(entry["name"]) for entry in entries)
    for task in dict.fromkeys(entry["task"] for entry in entries):
        print(task)
        for entry in (entry for entry in entries if entry["task"] == task):
            what = f"your {entry['takes'].removesuffix(FIRST)}" if entry["takes"] else entry["data"]
            print(f"  {entry['name']:{wide}}  {_without_hub(entry)}{what}".rstrip())
            scores = [f"{score(entry[key])} ({key})" for key in ("measured", "published") if score(entry[key]) != "-"]
            about = "; ".join([entry["model"], *(scores or [entry["hardware"]])])
            print(textwrap.fill(about, width, initial_indent=" " * 6, subsequent_indent=" " * 6, **_WORDS))
        print()
    print(textwrap.fill("* needs no hub.  + needs no hub with --model FOLDER, a model on this disk.", width))
    print(textwrap.fill("`graft recipes NAME` prints one, to copy; `graft recipes WORD` filters.", width))
    print(textwrap.fill("`graft train NAME` runs one; `graft train FOLDER` chooses one for your data.", width))


_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}


def _without_hub(entry: Mapping[str, str]) -> str:
    return {"": "* ", "model": "+ "}.get(entry["hub"], "  ")


def own_data() -> list[dict[str, str]]:
    """The entries of the recipes for a user's own data, in the order of choice."""
    return sorted(
        (entry for entry in catalog() if entry["takes"]), key=lambda entry: not entry["takes"].endswith(FIRST)
    )


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
    model, data = raw["model"], raw["data"]
    asked = {"model": "id" in model and not model["id"].startswith("runs/")}
    asked["data"] = " --data " not in command and data.get("format") != "digits"  # the digits come with scikit-learn
    encoder = encoders.place(model.get("config"))
    asked["model"] |= encoder is not None
    where = model["id"] if "id" in model else f"{model['config']['model_type']} from random weights"
    where = f"{model['config']['architecture']} on {encoder}" if encoder else where
    where += " (random weights)" if model.get("weights") == "random" else ""
    return {
        "name": name,
        "task": raw["task"],
        "model": where,
        "data": data["id"],
        "command": command,
        **values,
        "hub": ", ".join(key for key, needed in asked.items() if needed),
        "path": str(path),
    }
