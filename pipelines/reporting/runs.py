"""The runs below `runs/`: their list (`graft runs`), and the folder of a run by its short name.

    find("photos_efficientnet_b0-lr3e-3")   find("image-classification/photos_efficientnet_b0")   find("last")

Only recipe.yaml, results.json and the names of checkpoints are read, so 200 runs are listed in well under a second.
"""

import contextlib
import difflib
import json
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import load_recipe, task_class
from pipelines.errors import GraftError, ModelError
from pipelines.utils import lock
from pipelines.utils.files import problem
from pipelines.utils.formatting import brief, interval, short, utc
from pipelines.utils.formatting import score as rounded

ROOT = Path("runs")
LAST = "last"  # the short name of the newest run
MARKS = ("recipe.yaml", "results.json", "checkpoints", "log.jsonl")  # what only a run folder holds
SHORT = {"learning_rate": "lr", "batch_size": "batch", "max_steps": "steps", "head_learning_rate": "head lr"}
# settings that change no score, or that the list shows in a column of their own
UNSHOWN = {"data.id", "data.revision", "model.revision", "data.workers", "data.cache_gb", "metrics", "hub", "task"}
UNSHOWN_PARTS = ("hub.", "data.columns")
UNSHOWN |= {f"train.{key}" for key in ("micro_batch", "eval_batch_size", "log_every", "save_every", "keep", "trackers")}


# ---- find ----


def find(name: str) -> Path:
    """The folder of a run, by its path, its name, the end of its path (`task/name`), or `last` for the newest run.

    A path that exists is always itself. Raises ModelError that names similar runs.
    """
    if found := _known(name):
        return found
    names = [folder.name for folder in folders()]
    if not names:
        raise ModelError(f"no run {short(name, 80)!r}: there is no run below {ROOT}/ here; `graft train` makes one")
    raise ModelError(f"no run {short(name, 80)!r} below {ROOT}/{_near(name, names)}; `graft runs` lists them")


def source(name: str) -> str:
    """The path of the run with this short name. Any other text stays as it is: a hub id or a path."""
    return str(_known(name) or name)


def hint(name: str, error: GraftError) -> GraftError:
    """The error about a source that was not found, with the name of the run that was probably meant."""
    near = "" if _known(name) else _near(name, [folder.name for folder in folders()])
    return type(error)(f"{error}\n{short(name, 80)!r} is no run here{near}") if near else error


def short_name(folder: Path) -> str:
    """The shortest text that `find` takes for a run."""
    for count in (1, 2):
        name = str(Path(*folder.parts[-count:]))
        with contextlib.suppress(ModelError):
            if _known(name) == folder:
                return name
    return str(folder)


def _known(name: str) -> Path | None:
    if problem(name):
        return None
    path = Path(name).expanduser()
    if path.exists() or path.is_absolute():
        return path if path.exists() else None
    every = folders()
    parts = path.parts
    fitting = [folder for folder in every if parts and folder.parts[-len(parts) :] == parts]
    if not fitting and name == LAST:
        return max(every, key=changed, default=None)
    if len(fitting) > 1:
        named = ", ".join(str(folder.relative_to(ROOT)) for folder in fitting[:6])
        raise ModelError(f"{len(fitting)} runs are called {short(name, 80)!r}: say which one: {named}")
    return fitting[0] if fitting else None


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.rpartition("/")[2], names, n=3, cutoff=0.6)
    return f": did you mean {' or '.join(repr(clean(one)) for one in close)}?" if close else ""


def folders(root: Path = ROOT) -> list[Path]:
    """All run folders below a folder, in the order of their paths."""
    return sorted(_walk(root))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_run(Path(entry.path))):
            path = folder / entry.name
            if _is_run(path):
                yield path
            else:
                yield from _walk(path)


def _is_run(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in MARKS)


def changed(folder: Path) -> float:
    """When a run finished or, if it is not finished, last wrote something: seconds since 1970."""
    return _when(folder, _json(folder / "results.json"))


# ---- list ----

FIELDS = [
    *("name", "folder", "task", "recipe", "state", "step", "date", "started", "finished", "wall_seconds"),
    *("metric", "score", "ci95", "rows", "data", "model", "differs", "problem"),
]
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, GraftError, yaml.YAMLError)


def runs(*words: str, root: str | Path = ROOT) -> list[dict[str, Any]]:
    """The runs below a folder, the newest first. With words, only those whose fields hold all of them.

    Each is {name, folder, task, recipe, state, step, date, started, finished, wall_seconds, metric, score, ci95, rows,
    data, model, differs, problem}. What is not known is None. `differs` holds the settings that differ from the recipe:
    key -> value.
    """
    every = {folder: _row(folder) for folder in folders(Path(root))}
    _compare(every)
    found = sorted(every.values(), key=lambda row: float(row.pop("when")), reverse=True)
    for row in found:
        del row["settings"]
    return [row for row in found if all(word.lower() in _text(row) for word in words)]


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row |= {"name": folder.name, "folder": str(folder), "state": "damaged", "differs": {}, "settings": {}}
    results: Any = None
    try:
        recipe = _yaml(folder / "recipe.yaml")
        if recipe is not None:
            row |= {"task": _as_text(recipe.get("task")), "settings": _flat(recipe)}
            row["data"] = _last(row["settings"].get("data.id"))
            row["model"] = _last(row["settings"].get("model.id"))
        results = _json(folder / "results.json", strict=True)
        row["step"] = _step(folder)
        if results is not None:
            row |= _of_results(results)
        row["state"] = _state(folder, results)
        if recipe is None:
            raise ValueError("recipe.yaml is missing")
    except UNREADABLE as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, KeyError | TypeError) else str(error)
        row |= {"state": "damaged", "problem": short(clean(what), 200)}
    row["when"] = _when(folder, results)
    row["date"] = utc(row["when"])
    return row


def _of_results(results: dict[str, Any]) -> dict[str, Any]:
    name, test, data = results["metric"]["name"], results["test"], results["data"]
    return {
        "task": str(results["task"]),
        "recipe": str(results["recipe"]),
        "started": results.get("started"),
        "finished": results.get("finished"),
        "wall_seconds": results.get("wall_seconds"),
        "metric": str(name),
        "score": test["metrics"][name],
        "ci95": test["ci95"].get(name),
        "rows": test["n"],
        "data": str(data["name"]),
        "model": _as_text(results["model"].get("name") or results["model"]["id"]),
        "step": results["train"]["steps"],
    }


def _state(folder: Path, results: Any) -> str:
    if lock.in_use(folder / ".lock"):
        return "training"
    if results is not None and (folder / "model" / "results.json").is_file():
        return "finished"
    return "stopped"


def _step(folder: Path) -> int | None:
    """The step of the last checkpoint."""
    try:
        text = (folder / "checkpoints" / "last").read_text(errors="replace").strip()
        return int(text.removeprefix("step_"))
    except (OSError, ValueError):
        return None


def _when(folder: Path, results: Any) -> float:
    try:
        return datetime.fromisoformat(results["finished"]).timestamp()
    except (TypeError, KeyError, ValueError, AttributeError):  # not finished, or by an older version
        pass
    names = ("results.json",) if results else ("log.jsonl", "checkpoints/last", "recipe.yaml", "")
    return max((os.path.getmtime(folder / name) for name in names if os.path.exists(folder / name)), default=0.0)


# ---- what differs ----


def _compare(rows: dict[Path, dict[str, Any]]) -> None:
    """Fill `differs`: the settings that are not those of the shipped recipe or, without one, of the run of its name."""
    named = {(row["task"], row["name"]): row["settings"] for row in rows.values()}
    for row in rows.values():
        recipe = row["recipe"] or _recipe_of(row, named)
        shipped = _shipped(recipe) if recipe else {}
        base = shipped or named.get((row["task"], recipe)) or {}
        row["recipe"] = recipe
        row["differs"] = {
            key: value
            for key, value in row["settings"].items()
            if key in base and value != base[key] and key not in UNSHOWN and not key.startswith(UNSHOWN_PARTS)
        }


def _recipe_of(row: dict[str, Any], named: dict[tuple[Any, Any], Any]) -> str | None:
    """The recipe of an unfinished run, by its name: NAME-lr3e-3 is of NAME."""
    parts = row["name"].split("-")
    ends = ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]
    shipped = recipe_paths()
    return next((end for end in ends if end in shipped or (end != row["name"] and (row["task"], end) in named)), None)


@cache
def _shipped(name: str) -> dict[str, Any]:
    """The settings of a shipped recipe, without those that a run settles itself; empty if there is none."""
    path = recipe_paths().get(name)
    if path is None:
        return {}
    recipe = load_recipe(path, exists=True)
    settled = {f"options.{key}" for key in task_class(recipe.task).Options.settled}
    found = _flat(recipe.model_dump(mode="json"))
    return {key: value for key, value in found.items() if value != "auto" and not (key in settled and value is None)}


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        at = f"{path}.{key}".lstrip(".")
        found |= _flat(value, at) if isinstance(value, dict) and value else {at: value}
    return found


# ---- small texts ----


def _yaml(path: Path) -> dict[str, Any] | None:
    """The mapping in a recipe.yaml, read by the fast parser; None if there is no file."""
    if not path.is_file():
        return None
    found = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(found, dict):
        raise ValueError("recipe.yaml is no mapping of keys")
    return found


def _json(path: Path, strict: bool = False) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if strict:
            raise ValueError(f"{path.name} cannot be read: {error}") from None
        return None
    return found


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _last(value: Any) -> str | None:
    """A hub id, or the last part of a path."""
    text = _as_text(value)
    if text is None or (text.count("/") == 1 and not text.startswith((".", "/", "~"))):
        return text
    return Path(text).name


def clean(text: str) -> str:
    """The text with a question mark in place of each control character, because a terminal acts on them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---- for people ----


def _text(row: dict[str, Any]) -> str:
    """Everything that a word can be found in."""
    values = [row[key] for key in ("name", "folder", "task", "recipe", "state", "metric", "data", "model", "problem")]
    shown = [state(row), score(row), when(row["date"]), row["date"], *_differing(row), *row["differs"]]
    return " ".join(str(value) for value in [*values, *shown] if value).lower()


def score(row: dict[str, Any]) -> str:
    """0.96 (0.93 to 0.98); what the run does if it has no score."""
    if row["state"] != "finished" or row["metric"] is None:
        return state(row)
    bounds = f" ({interval(row['ci95'])})" if row["ci95"] else ""
    return f"{rounded(row['score'], row['ci95'])}{bounds}"


def state(row: dict[str, Any]) -> str:
    if row["state"] == "training":
        return "training now"
    if row["state"] == "stopped":
        return f"stopped at step {row['step']:,}" if row["step"] else "stopped before step 1"
    return str(row["state"])


def when(date: str, now: datetime | None = None) -> str:
    """The time of today, the day of this year, or the month: 21:15, 29 Nov, Nov 2025. In local time."""
    at = datetime.fromisoformat(date).astimezone()
    today = (now or datetime.now(UTC)).astimezone()
    if at.date() == today.date():
        return at.strftime("%H:%M")
    return at.strftime("%d %b").lstrip("0") if at.year == today.year else at.strftime("%b %Y")


def _place(key: str) -> int:
    order = [*(f"train.{leaf}" for leaf in ("learning_rate", "epochs", "max_steps", "batch_size")), "train", "options"]
    return next((place for place, start in enumerate(order) if f"{key}.".startswith(f"{start}.")), len(order))


def _differing(row: dict[str, Any]) -> list[str]:
    found = []
    for key, value in sorted(row["differs"].items(), key=lambda item: _place(item[0])):
        leaf = key.rpartition(".")[2]
        word = SHORT.get(leaf, leaf.replace("_", " "))
        if key == "model.id":
            found.append(str(row["model"]).removesuffix(" (local folder)"))
        elif value is None and leaf in ("epochs", "max_steps"):
            continue
        else:
            found.append(f"{word} {brief(value) if isinstance(value, float) else value}")
    return found


def table(rows: Sequence[dict[str, Any]], width: int | None = None) -> str:
    """Lines of at most `width` characters (those of the terminal): one for each run, under its task."""
    width = width or shutil.get_terminal_size().columns
    parts = []
    for task in dict.fromkeys(row["task"] for row in rows):
        found = [row for row in rows if row["task"] == task]
        metrics = {row["metric"] for row in found if row["metric"]}
        data = {row["data"] for row in found}
        heads = ["name", "date", metrics.pop() if len(metrics) == 1 else "score", "data", "differs"]
        cells = [_cells(row, mixed=heads[2] == "score") for row in found]
        title = str(task or "unknown task")
        if len(data) == 1 and len(found) > 1:  # all have the same data: no column is needed
            title += f" on {found[0]['data']}"
            heads, *cells = [[*row[:3], row[4]] for row in (heads, *cells)]
        wide = _widths([heads, *cells], width)
        lines = [short(clean(title), width), _line(heads, wide)]
        for row, cell in zip(found, cells, strict=True):
            lines.append(_line(cell, wide))
            if row["problem"]:
                lines += textwrap.wrap(row["problem"], width, initial_indent="    ", subsequent_indent="    ")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(row: dict[str, Any], mixed: bool) -> list[str]:
    shown = f"{row['metric']} {score(row)}" if mixed and row["state"] == "finished" else score(row)
    found = [row["name"], when(row["date"]), shown, row["data"] or "–", ", ".join(_differing(row))]
    return [clean(cell) for cell in found]


def _widths(cells: list[list[str]], width: int) -> list[int]:
    """The widths of the columns. Dates and scores keep theirs; name, data and differences share the rest."""
    wide = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    room = width - 2 - sum(wide[1:3]) - 2 * (len(wide) - 1)
    least = 8 * (len(wide) - 3)  # of data and differences
    wide[0] = min(wide[0], max(20, room - least))
    room -= wide[0]
    if len(wide) == 5:
        wide[3] = min(wide[3], max(8, room - wide[4], room // 2))
        room -= wide[3]
    wide[-1] = max(4, room)
    return wide


def _line(cells: Sequence[str], wide: Sequence[int]) -> str:
    rest = "".join(f"  {short(cell, room):{room}}" for cell, room in zip(cells[1:], wide[1:], strict=True))
    if len(cells[0]) > wide[0]:  # a name is never cut, because the next command needs it
        return f"  {cells[0]}\n  {' ' * wide[0]}{rest}".rstrip()
    return f"  {cells[0]:{wide[0]}}{rest}".rstrip()
