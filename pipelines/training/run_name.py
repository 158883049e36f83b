"""The default folder of a run: runs/TASK/NAME. Equal settings have one folder, other settings have another.

    choose("photos_efficientnet_b0", recipe).folder

The first run of a recipe has the name of the recipe. A later run with other settings has a name that says what differs:
photos_efficientnet_b0-lr3e-3, or photos_efficientnet_b0-2 if that name is taken or cannot say it.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.config.recipe import Recipe
from pipelines.errors import RunError
from pipelines.training import run_folder
from pipelines.utils import distributed
from pipelines.utils.formatting import brief, short

LENGTH = 60  # most characters of a name that says what differs
PIECES = 3  # most settings that a name says
SMOKE = "-smoke"  # runs with `--smoke` have few rows, which no setting says: their names keep them apart
WORDS = {  # key -> its short word; the order is that of the pieces of a name
    "data.id": "",
    "data.config": "",
    "model.id": "",
    "model.weights": "",
    "model.freeze": "freeze_",
    "train.learning_rate": "lr",
    "train.epochs": "epochs",
    "train.max_steps": "steps",
    "train.batch_size": "batch",
    "train.seed": "seed",
    "train.head_learning_rate": "head_lr",
    "train.weight_decay": "decay",
    "train.optimizer": "",
    "train.schedule": "",
    "train.precision": "",
    "model.adapter.rank": "lora",
}
WITHOUT = {"train.clip_norm": "no_clip_norm", "model.adapter": "no_adapter"}  # pieces of keys that are null


class Choice(NamedTuple):
    folder: Path
    why: str  # one line for the user; empty if the folder is the usual one


def choose(base: str, recipe: Recipe, *, smoke: bool = False) -> Choice:
    """The folder below runs/ for a recipe: that of the run with these settings, or a new one. Creates nothing.

    `base` is the usual name of the run: that of the recipe or of the data. All processes get the choice of the main
    process.
    """
    return distributed.decided(lambda: _choose(_usual(base) + SMOKE * smoke, recipe, smoke))


def _usual(base: str) -> str:
    """A name for files: letters and digits of any language, and no space."""
    return re.sub(r"[^\w.-]+", "-", base).strip("-.")[:100] or "run"


def _choose(base: str, recipe: Recipe, smoke: bool) -> Choice:
    home = Path("runs") / recipe.task
    usual = home / base
    longer = None
    for folder in _runs(home, base, smoke):
        found = _found(folder, recipe)
        if found is None:
            continue
        if not found:
            return Choice(folder, "" if folder == usual else f"{folder} has these settings: this is the same run")
        names = {_piece(key, old) for key, (old, _) in found.items()}  # NAME-epochs2 never holds 3 epochs
        if len(run_folder.longer_of(folder, recipe, found)) == len(found) and not names & set(folder.name.split("-")):
            longer = longer or (None if run_folder.in_use(folder) else folder)
    if longer is not None:
        return Choice(longer, "" if longer == usual else f"{longer} has these settings, and goes on for longer")
    if _is_free(usual):
        return Choice(usual, "")
    found = _found(usual, recipe) or {}
    folder = next(place for place in _places(home, base, found) if _is_free(place))
    has = ", ".join(f"{key}={_shown(value)}" for key, (value, _) in itertools.islice(found.items(), 4))
    reason = f"has {has}" if has else "holds something else"
    return Choice(folder, f"{usual} {reason}; this run is a new one: {folder}")


def _runs(home: Path, base: str, smoke: bool) -> list[Path]:
    """The folders that may hold a run of this base, the usual one first."""
    try:
        names = sorted(path.name for path in home.iterdir() if path.is_dir())
    except OSError:
        return []
    named = [name for name in names if name == base or name.startswith(f"{base}-")]
    return [home / name for name in named if smoke or not name.startswith(base + SMOKE)]


def _found(folder: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]] | None:
    """How the run in a folder differs from a recipe; None if there is no run, or none that did anything."""
    if not folder.is_dir() or not (run_folder.holds_work(folder) or run_folder.in_use(folder)):
        return None
    try:
        return run_folder.differences(folder, recipe) if run_folder.written(folder) else None
    except RunError:  # damaged
        return None


def _is_free(folder: Path) -> bool:
    """Whether a new run can have this folder: nothing is there, or a run that did nothing."""
    if not folder.exists():
        return not folder.is_symlink()
    if not folder.is_dir() or run_folder.holds_work(folder) or run_folder.in_use(folder):
        return False
    return (folder / "recipe.yaml").is_file() or run_folder.is_free(folder)


def _places(home: Path, base: str, found: dict[str, tuple[Any, Any]]) -> Iterable[Path]:
    pieces = pieces_of({key: new for key, (_, new) in found.items()})
    if name := _joined(base, pieces):
        yield home / name
    for number in itertools.count(2):
        yield home / f"{base}-{number}"


def _joined(base: str, pieces: list[str]) -> str:
    """The base with the pieces that fit; empty if none does."""
    name = base
    for piece in pieces[:PIECES]:
        if len(name) + 1 + len(piece) <= max(LENGTH, len(base) + 20):
            name += f"-{piece}"
    return name if name != base else ""


def pieces_of(values: dict[str, Any]) -> list[str]:
    """Settings as short parts of a name: {"train.learning_rate": 3e-3, "data.id": "/data/pets"} -> [pets, lr3e-3]."""
    order = list(WORDS)
    keys = sorted(values, key=lambda key: order.index(key) if key in order else len(order))
    return list(dict.fromkeys(piece for key in keys if (piece := _piece(key, values[key]))))


def _piece(key: str, value: Any) -> str:
    leaf = key.rpartition(".")[2]
    if key in ("data.id", "model.id"):
        path = Path(str(value))
        last = path.parent if path.name in ("hf", "model") and path.parent.name else path
        return _safe(last.stem if key == "data.id" else last.name)[:24].strip("-._")
    if value is None:  # most keys are unset by default, so that their absence says nothing
        return WITHOUT.get(key, "")
    if isinstance(value, dict | list):
        value = value.get("rank", "") if isinstance(value, dict) else "_".join(map(str, value))
        return _safe(f"lora{value}" if key == "model.adapter" else f"{leaf}_{value}")[:24].strip("-._")
    if isinstance(value, bool):
        return _safe(leaf if value else f"no_{leaf}")
    word = WORDS.get(key, f"{leaf}_")
    return _safe(f"{word}{brief(value) if isinstance(value, int | float) else value}")[:32].strip("-._")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return brief(value)
    text = str(value)
    return short(f"…/{Path(text).name}" if text.startswith("/") else text, 40)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
