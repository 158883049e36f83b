"""The run folder: claim it for a recipe, resolve `auto` values, and find out what a former run left in it."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config import renamed
from pipelines.config.recipe import Recipe, Strict, dump_recipe, local_metric, task_class, validate
from pipelines.config.yaml_io import parse, read_file
from pipelines.data.schema import Splits
from pipelines.errors import RecipeError, RunError
from pipelines.models.source import Weights
from pipelines.reporting.results import read_results
from pipelines.training.checkpoint import latest
from pipelines.utils.files import write_text
from pipelines.utils.hardware import best_precision

# These settings may change while a run is unfinished: they change its results by rounding at most.
FREE = {f"data.{key}" for key in ("workers", "cache_gb", "max_skipped")}
FREE |= {"metrics"}  # metrics score predictions that are stored
FREE |= {
    f"train.{key}"
    for key in (
        "micro_batch",
        "eval_batch_size",
        "gradient_checkpointing",
        "save_every",
        "keep",
        "log_every",
        "trackers",
    )
}


def _options_of(recipe: Recipe) -> type[Strict]:
    """The class of the options of the recipe's task."""
    kind: type[Strict] = task_class(recipe.task).Options
    return kind


def claim(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Take a run folder for a recipe. Returns the results if this run is finished, else None.

    Raises RunError if the folder holds a run of another recipe (the message names the differences), if it lies inside
    the data, or if it cannot be written.
    """
    data = Path(recipe.data.id).expanduser()
    # else the next run would read its pictures as data
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise RunError(f"{folder}: a run folder inside of the data {data}; choose another folder with --run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # several processes may do this at once
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --run") from None
    path = folder / "recipe.yaml"
    if not path.is_file():
        if any(not p.name.startswith(".") for p in folder.iterdir()) and not (folder / "checkpoints").is_dir():
            raise RunError(f"{folder}: not empty and no run of Graft's; choose another folder with --run")
        return None
    old, new = _known_recipe(path), absolute_paths(recipe).model_dump(mode="json")
    old["options"] = type(recipe.options)().model_dump(mode="json") | (
        old.get("options") or {}
    )  # an option may be newer than the run
    found = _differences(old, new, settled=tuple(f"options.{key}" for key in _options_of(recipe).settled))
    longer = [
        key
        for key in found
        if (key in ("train.epochs", "train.max_steps") and None not in found[key] and found[key][1] > found[key][0])
        or (key == "train.min_steps" and (found[key][1] or 0) > (found[key][0] or 0))
    ]
    if "train.epochs" in longer and "train.min_steps" in found:  # typed epochs take min_steps away
        longer.append("train.min_steps")
    rest = {key: value for key, value in found.items() if key not in longer}
    if rest and _holds_work(folder):
        listed = "; ".join(f"{key}: the run has {a!r}, you ask for {b!r}" for key, (a, b) in list(rest.items())[:4])
        raise RunError(f"{folder} belongs to another recipe ({listed}); choose another folder with --run, or remove it")
    results, last = (
        folder / "results.json",
        folder / "model" / "results.json",
    )  # the copy in the model folder is the last file that a run writes
    if longer:  # without this, a killed run with more steps would look finished
        results.unlink(missing_ok=True)
    return read_results(folder) if last.is_file() else None


def other_hub(folder: Path, recipe: Recipe) -> bool:
    """Whether the run started with a different `hub` section."""
    return bool(_known_recipe(folder / "recipe.yaml").get("hub") != recipe.hub.model_dump(mode="json"))


def goes_on(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the work of a run whose `hub` section equals this recipe's."""
    return (folder / "recipe.yaml").is_file() and _holds_work(folder) and not other_hub(folder, recipe)


def _holds_work(folder: Path) -> bool:
    """Whether the folder holds a checkpoint or a model, which another recipe must not overwrite."""
    return latest(folder / "checkpoints") is not None or (folder / "model").is_dir()


@contextlib.contextmanager
def alone(folder: Path, main: bool) -> Iterator[None]:
    """Lock the folder for one run. The lock ends with the process, also after a kill.

    Raises RunError if another run holds the lock.
    """
    if not main:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes would inherit that lock
        except BlockingIOError:
            raise RunError(
                f"{folder}: another `graft train` is at work here; wait for it, or choose another folder with --run"
            ) from None
        except OSError:  # the file system has no locks
            pass
        yield


def pinned(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with what the run settled at its start: revisions, precision, and `auto` of freezing and averaging.

    A hub repository may have changed since, and `auto` may mean something else in another version.
    """
    path = folder / "recipe.yaml"
    if not path.is_file() or not _holds_work(folder):
        return recipe
    before = _known_recipe(path)
    updates: dict[str, dict[str, Any]] = {"train": {"precision": before["train"]["precision"]}, "model": {}, "data": {}}
    for section in ("model", "data"):
        if getattr(recipe, section).revision is None:
            updates[section]["revision"] = before[section]["revision"]
    for section, key in (("model", "freeze"), ("train", "ema")):
        if getattr(getattr(recipe, section), key) == "auto" and key in before[section]:
            updates[section][key] = before[section][key]
    return recipe.model_copy(
        update={section: getattr(recipe, section).model_copy(update=values) for section, values in updates.items()}
    )


def _known_recipe(path: Path) -> dict[str, Any]:
    """The resolved recipe of the run in this folder. Raises RunError if it is not a recipe that Graft wrote."""
    refusal = f"{path}: no recipe of a run that Graft began; choose another folder with --run"
    try:
        old = read_file(path).value
    except RecipeError as error:
        raise RunError(refusal) from error
    if not {"task", "model", "data", "train"} <= old.keys():
        raise RunError(refusal)
    return renamed.options(old, exists=True)[0]


def absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths for local sources, so that the run can be repeated from any folder."""
    changes: dict[str, Any] = {}
    for section in ("model", "data"):
        source = getattr(recipe, section)
        if source.id is not None and Path(source.id).expanduser().exists():
            changes[section] = source.model_copy(update={"id": str(Path(source.id).expanduser().resolve())})
    named = {key: getattr(recipe.options, key, None) for key in _options_of(recipe).models}
    folders = {key: Path(value).expanduser() for key, value in named.items() if value not in (None, "inception")}
    found = {key: str(folder.resolve()) for key, folder in folders.items() if folder.is_dir()}
    if found:
        changes["options"] = recipe.options.model_copy(update=found)
    changes["metrics"] = [local_metric(entry, Path()) for entry in recipe.metrics]
    return recipe.model_copy(update=changes)


def _differences(old: Any, new: Any, path: str = "", settled: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
    """Key -> (old, new) where values differ.

    Keys that are `auto` or unset now and that the run resolved do not count.
    """
    if isinstance(old, dict) and isinstance(new, dict) and path != "model.config":
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."), settled)
        return found
    resolved = path in ("train.precision", "model.revision", "data.revision", *settled) and new in (None, "auto")
    resolved = resolved or (path in ("train.ema", "model.freeze") and new == "auto")
    return {} if old == new or resolved or path in FREE or path.startswith("hub.") else {path: (old, new)}


def _ema(recipe: Recipe) -> float | None:
    """The decay of the moving average that the task sets for one of its phases; None if it sets none."""
    return next((phase.ema for phase in task_class(recipe.task)(recipe.options).phases if phase.ema is not None), None)


def resolve(folder: Path, recipe: Recipe, model: Any, weights: Weights, splits: Splits, *, main: bool) -> Recipe:
    """Replace `auto` by a value for this model and machine, pin revisions, and write recipe.yaml (main process)."""
    path = folder / "recipe.yaml"
    precision = best_precision(model) if recipe.train.precision == "auto" else recipe.train.precision
    recipe = absolute_paths(recipe)
    ema = _ema(recipe) if recipe.train.ema == "auto" else recipe.train.ema
    changes: dict[str, Any] = {"train": recipe.train.model_copy(update={"precision": precision, "ema": ema})}
    if weights.revision and recipe.model.revision is None:
        changes["model"] = recipe.model.model_copy(update={"revision": weights.revision})
    if splits.revision and recipe.data.revision is None:
        changes["data"] = recipe.data.model_copy(update={"revision": splits.revision})
    resolved = recipe.model_copy(update=changes)
    if main:
        write_text(path, dump_recipe(resolved))
    return validate(parse(dump_recipe(resolved), str(path)).value, str(path), exists=True)
