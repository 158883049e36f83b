"""The run folder: claim it for a recipe, resolve `auto` values, and find out what a former run left in it."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import renamed
from pipelines.config.recipe import (
    NEWER,
    SCORELESS,
    Recipe,
    Strict,
    dump_recipe,
    local_metric,
    task_class,
    validate,
    with_older_meanings,
)
from pipelines.config.yaml_io import parse, read_file
from pipelines.data.schema import Splits
from pipelines.errors import RecipeError, RunError
from pipelines.models.source import Weights
from pipelines.reporting.results import read_results
from pipelines.training.checkpoint import latest
from pipelines.utils import distributed, lock
from pipelines.utils.files import write_text
from pipelines.utils.hardware import best_precision


def _options_of(recipe: Recipe) -> type[Strict]:
    """The class of the options of the recipe's task."""
    kind: type[Strict] = task_class(recipe.task).Options
    return kind


OLDER = ".version_0_1"  # marks a run that version 0.1 began: it may go on without the options of later versions
GOES_ON = ".goes_on"  # marks a finished run that trains for longer: its results are those of before


class Taken(RunError):
    """The folder holds a run with other settings."""


@contextlib.contextmanager
def claimed(folder: Path, recipe: Recipe) -> Iterator[dict[str, Any] | None]:
    """Claim a run folder and lock it inside the block. Gives the results if the run is finished, else None.

    If the block fails before the run has a checkpoint, a model or a logged step, everything that this command created
    is removed again. The main process does the work, and every process raises its errors.
    """
    before = _Before(folder)
    with contextlib.ExitStack() as held:

        def take() -> dict[str, Any] | None:
            outcome = claim(folder, recipe)
            if outcome is not None:
                return outcome
            if not held.enter_context(_locked(folder)):
                raise _in_use(folder, recipe)
            before.locked = True
            outcome = claim(folder, recipe)  # the folder may have changed before this process had the lock
            if outcome is None and not holds_work(folder):  # now other commands can compare their settings
                write_text(folder / "recipe.yaml", dump_recipe(absolute_paths(recipe)))
            return outcome

        try:
            yield distributed.decided(take)
        except (Exception, KeyboardInterrupt):
            if distributed.processes().is_main_process:
                before.restore()
            raise


class _Before:
    """What a run folder held before a command, so that a command that failed early leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.locked = False  # whether this process has the lock of the folder
        self.missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.names = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        self.worked = self.folder.is_dir() and holds_work(self.folder)
        self.contents = {path: path.read_bytes() for name in _WRITTEN if (path := self.folder / name).is_file()}

    def restore(self) -> None:
        """Put back what was there, unless the folder now holds a checkpoint, a model or newly logged steps."""
        if self.locked and self.folder.is_dir() and not self._valuable():
            for path in [path for path in self.folder.iterdir() if path.name not in self.names]:
                with contextlib.suppress(OSError):  # the error of the run is the one to report
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            for path, content in self.contents.items():
                with contextlib.suppress(OSError):
                    path.write_bytes(content)
        for path in self.missing:
            with contextlib.suppress(OSError):  # not empty: another command uses it
                path.rmdir()

    def _valuable(self) -> bool:
        log = self.folder / "log.jsonl"
        logged = log.read_bytes() if log.is_file() else b""
        return holds_work(self.folder) is not self.worked or logged not in (b"", self.contents.get(log, b""))


# what a run writes before it trains
_WRITTEN = ("recipe.yaml", "log.jsonl", "live.json", "report.html")


def claim(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Create a run folder, or compare its run with a recipe. Returns the results if this run is finished, else None.

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
    if not (folder / "recipe.yaml").is_file():
        if not is_free(folder):
            raise RunError(f"{folder}: not empty and no run of Graft's; choose another folder with --run")
        return None
    found = differences(folder, recipe)
    longer = longer_of(folder, recipe, found)
    rest = {key: value for key, value in found.items() if key not in longer}
    if rest and holds_work(folder):
        listed = "; ".join(f"{key}: the run has {a!r}, you ask for {b!r}" for key, (a, b) in list(rest.items())[:4])
        raise Taken(f"{folder} belongs to another recipe ({listed}); choose another folder with --run, or remove it")
    return read_results(folder) if is_finished(folder) and not longer else None


def is_free(folder: Path) -> bool:
    """Whether a new run can begin in a folder without recipe.yaml: it is empty, or a run lost its recipe there."""
    return not folder.is_dir() or (folder / "checkpoints").is_dir() or not _shown(folder)


def _shown(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def is_finished(folder: Path) -> bool:
    """Whether the run has no more to do: the last of its files is the copy of the results in the model folder."""
    return (folder / "model" / "results.json").is_file() and not (folder / GOES_ON).exists()


def finished(folder: Path) -> None:
    """Note that a run which went on for longer has its results."""
    (folder / GOES_ON).unlink(missing_ok=True)


def differences(folder: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between the run in a folder and a recipe: key -> (of the run, of the recipe).

    Raises RunError if recipe.yaml is not of a run.
    """
    old, new = _known_recipe(folder / "recipe.yaml"), absolute_paths(recipe).model_dump(mode="json")
    old["options"] = type(recipe.options)().model_dump(mode="json") | (
        old.get("options") or {}
    )  # an option may be newer than the run
    for section in ("data", "train"):
        old[section] = NEWER[section] | old[section]
    new["options"] |= _older_options(folder, recipe)
    means: dict[str, tuple[Any, ...]] = {"model.freeze": ("none", "encoder"), "train.ema": (None, _ema(recipe))}
    return _differences(old, new, tuple(f"options.{key}" for key in _options_of(recipe).settled), means)


def _older_options(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What a run that version 0.1 began goes on with, if the recipe does not set it: option -> value."""
    if "special_tokens" in recipe.options.model_fields_set or not _is_older(folder):
        return {}
    found = _known_recipe(folder / "recipe.yaml").get("options") or {}
    return {key: value for key, value in found.items() if key == "special_tokens"}


def _is_older(folder: Path) -> bool:
    """Whether version 0.1 began the run in this folder: its recipe lacks an option, or `resolve` marked the folder."""
    raw = _written(folder / "recipe.yaml")
    return (folder / OLDER).exists() or with_older_meanings(raw, folder) != raw


def longer_of(folder: Path, recipe: Recipe, found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Of the settings that differ, those of the length, if the recipe trains for more steps than the run; else none."""
    keys = [key for key in ("train.epochs", "train.max_steps", "train.min_steps") if key in found]
    old, new = _known_recipe(folder / "recipe.yaml")["train"], recipe.train.model_dump()
    if not keys or (old["max_steps"] is None) is not (new["max_steps"] is None):
        return []
    lengths = [[train.get(key) or 0 for key in ("max_steps", "epochs", "min_steps")] for train in (old, new)]
    if all(now >= before for before, now in zip(*lengths, strict=True)):
        return keys
    # one setting grows, the other shrinks: 20 epochs, but at least 300 steps, or 30 epochs
    per_epoch = _steps_per_epoch(folder)
    if per_epoch is None:
        return []
    before, now = (max(least, round(epochs * per_epoch)) for _, epochs, least in lengths)
    return keys if now > before else []


def _steps_per_epoch(folder: Path) -> float | None:
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a kill cut the line off
            entry = json.loads(line)
            return float(entry["step"] / entry["epoch"])
    return None


def other_hub(folder: Path, recipe: Recipe) -> bool:
    """Whether the run started with a different `hub` section."""
    return bool(_known_recipe(folder / "recipe.yaml").get("hub") != recipe.hub.model_dump(mode="json"))


def goes_on(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the work of a run whose `hub` section equals this recipe's."""
    return (folder / "recipe.yaml").is_file() and holds_work(folder) and not other_hub(folder, recipe)


def holds_work(folder: Path) -> bool:
    """Whether the folder holds a checkpoint or a model, which another recipe must not overwrite."""
    return latest(folder / "checkpoints") is not None or (folder / "model").is_dir()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder of a finished run. Raises RunError if another run holds the lock."""
    with _locked(folder) as mine:
        if not mine:
            raise RunError(f"{folder}: {IN_USE}")
        yield


IN_USE = "another `graft train` is at work here; wait for it, or choose another folder with --run"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    try:
        with lock.locked(folder / ".lock") as mine:
            yield mine
    except PermissionError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --run") from None


def in_use(folder: Path) -> bool:
    """Whether a run works in this folder now."""
    return lock.in_use(folder / ".lock") is True


def _in_use(folder: Path, recipe: Recipe) -> RunError:
    """The error for a folder that another run holds: Taken if its settings are others."""
    kind = Taken if written(folder) and differences(folder, recipe) else RunError
    return kind(f"{folder}: {IN_USE}")


def written(folder: Path, patience: float = 2.0) -> bool:
    """Whether the run that works in this folder has written its recipe; it does so as soon as it has the lock."""
    until = time.monotonic() + patience
    while not (folder / "recipe.yaml").is_file():
        if time.monotonic() > until or not in_use(folder):
            return (folder / "recipe.yaml").is_file()
        time.sleep(0.02)
    return True


def pinned(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with what the run settled at its start: revisions, precision, `auto` of freezing and averaging, and
    what version 0.1 did in place of a later option.

    A hub repository may have changed since, and `auto` may mean something else in another version.
    """
    path = folder / "recipe.yaml"
    if not path.is_file() or not holds_work(folder):
        return recipe
    before = _known_recipe(path)
    updates: dict[str, dict[str, Any]] = {"train": {"precision": before["train"]["precision"]}, "model": {}, "data": {}}
    updates["options"] = _older_options(folder, recipe)
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
    return with_older_meanings(_written(path), path.parent)


def _written(path: Path) -> dict[str, Any]:
    """The same as it is written, with today's names of options."""
    refusal = f"{path}: no recipe of a run that Graft began; choose another folder with --run"
    try:
        old = read_file(path).value
    except RecipeError as error:
        raise RunError(refusal) from error
    if not {"task", "model", "data", "train"} <= old.keys():
        raise RunError(refusal)
    return renamed.options(old, exists=True)[0]


PACKAGED = ("inception", "resemblyzer")  # models that a package brings: no folder, whatever is called so here


def absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths for local sources, so that the run can be repeated from any folder."""
    changes: dict[str, Any] = {}
    for section in ("model", "data"):
        source = getattr(recipe, section)
        if source.id is not None and Path(source.id).expanduser().exists():
            changes[section] = source.model_copy(update={"id": str(Path(source.id).expanduser().resolve())})
    named = {key: getattr(recipe.options, key, None) for key in _options_of(recipe).models}
    folders = {key: Path(value).expanduser() for key, value in named.items() if value not in (None, *PACKAGED)}
    found = {key: str(folder.resolve()) for key, folder in folders.items() if folder.is_dir()}
    if found:
        changes["options"] = recipe.options.model_copy(update=found)
    changes["metrics"] = [local_metric(entry, Path()) for entry in recipe.metrics]
    return recipe.model_copy(update=changes)


def _differences(
    old: Any, new: Any, settled: tuple[str, ...], means: dict[str, tuple[Any, ...]], path: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Key -> (old, new) where values differ.

    Keys that are `auto` or unset now and that the run resolved do not count. `means` holds what `auto` may have been.
    """
    if isinstance(old, dict) and isinstance(new, dict) and path != "model.config":
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= _differences(old.get(key), new.get(key), settled, means, f"{path}.{key}".lstrip("."))
        return found
    resolved = path in ("train.precision", "model.revision", "data.revision", *settled) and new in (None, "auto")
    resolved = resolved or (new == "auto" and old in means.get(path, ()))
    return {} if old == new or resolved or path in SCORELESS or path.startswith("hub.") else {path: (old, new)}


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
        if is_finished(folder):  # it keeps its results until the longer run has its own
            (folder / GOES_ON).touch()
        if path.is_file() and holds_work(folder) and _is_older(folder):
            (folder / OLDER).touch()
        write_text(path, dump_recipe(resolved))
    return validate(parse(dump_recipe(resolved), str(path)).value, str(path), exists=True)
