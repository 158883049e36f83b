"""The run folder as a place: claim it, settle what `auto` meant, write its log; and what a run needs of this machine."""

import contextlib
import json
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import ModelError, RunError
from pipelines.loop import State
from pipelines.progress import Progress
from pipelines.recipe import Recipe, dump_recipe, validate
from pipelines.results import write_text


def claim(folder: Path, recipe: Recipe, smoke: bool = False) -> dict[str, Any] | None:
    """Take a run folder for a recipe. Returns its results if the very run is finished, else None.

    Raises RunError when the folder holds a run of another recipe (naming what differs) or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --run") from None
    path = folder / "recipe.yaml"
    if not path.is_file():
        if any(folder.iterdir()) and not (folder / "checkpoints").is_dir():
            raise RunError(f"{folder}: not empty and no run of Graft's; choose another folder with --run")
        return None
    old, new = yaml.safe_load(path.read_text()), public_paths(recipe).model_dump(mode="json")
    found = _differences(old, new)
    longer = [key for key in found if key in ("train.epochs", "train.max_steps") and None not in found[key] and found[key][1] > found[key][0]]
    rest = {key: value for key, value in found.items() if key not in longer}
    if rest:
        listed = "; ".join(f"{key}: the run has {a!r}, you ask for {b!r}" for key, (a, b) in list(rest.items())[:4])
        raise RunError(f"{folder} belongs to another recipe ({listed}); choose another folder with --run, or remove it")
    results = folder / "results.json"
    return json.loads(results.read_text()) if results.is_file() and not longer else None


def public_paths(recipe: Recipe) -> Recipe:
    """The recipe with local sources as absolute paths, so that the run can be repeated from any folder."""
    changes: dict[str, Any] = {}
    for section in ("model", "data"):
        source = getattr(recipe, section)
        if source.id is not None and Path(source.id).expanduser().exists():
            changes[section] = source.model_copy(update={"id": str(Path(source.id).expanduser().resolve())})
    return recipe.model_copy(update=changes)


def _differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ; what was `auto` or left out when asked and settled in the run does not."""
    if isinstance(old, dict) and isinstance(new, dict) and path != "model.config":
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        return found
    settled = path in ("train.precision", "model.revision", "data.revision") and new in (None, "auto")
    free = path in ("data.workers", "data.cache_gb", "train.keep", "train.log_every", "train.trackers") or path.startswith("hub.")
    return {} if old == new or settled or free else {path: (old, new)}


def settle(folder: Path, recipe: Recipe, model: Any, weights: Any, splits: Any, *, main: bool) -> Recipe:
    """Decide what `auto` means for this model, machine and hub state, and write recipe.yaml."""
    path = folder / "recipe.yaml"
    before = yaml.safe_load(path.read_text()) if path.is_file() else None
    precision = recipe.train.precision
    if precision == "auto":
        precision = before["train"]["precision"] if before else best_precision(model)
    recipe = public_paths(recipe)
    changes = {"train": recipe.train.model_copy(update={"precision": precision})}
    if weights.revision and recipe.model.revision is None:
        changes["model"] = recipe.model.model_copy(update={"revision": weights.revision})
    if splits.revision and recipe.data.revision is None:
        changes["data"] = recipe.data.model_copy(update={"revision": splits.revision})
    settled = recipe.model_copy(update=changes)
    if main:
        write_text(path, dump_recipe(settled))
    return validate(yaml.safe_load(dump_recipe(settled)), str(path))


def best_precision(model: Any) -> str:
    """bf16 where the hardware multiplies it faster and the model is mostly matrix products, else fp32.

    On a CPU without AMX or AVX-512 bf16, and for small or convolutional models, autocast costs more than it gives.
    """
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    products = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and min(m.weight.shape) >= 128)
    return "bf16" if fast and products > 0.5 * sum(p.numel() for p in model.parameters()) else "fp32"


def micro_batch(train: Any, model: Any, accelerator: Any) -> int:
    """Examples on one device at a time. `auto` is the whole share on a GPU (halved when memory does not suffice) and 8 on a
    CPU, where small batches stay in the caches; a model with BatchNorm in training is not split."""
    from pipelines.layers import has_batch_norm

    share = -(-train.batch_size // accelerator.num_processes)
    if train.micro_batch != "auto":
        return min(train.micro_batch, share)
    if accelerator.device.type != "cpu" or has_batch_norm(model):
        return share
    return min(8, share)


def workers(asked: int | str, processes: int) -> int:
    """Loader processes per training process: what was asked, or a fair share of the cores, at most 8."""
    if isinstance(asked, int):
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes))


def checkpoint_gradients(model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def saved_state(folder: Path | None) -> State | None:
    """The plain state of a checkpoint."""
    if folder is None:
        return None
    try:
        return State(**json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{folder}: the checkpoint cannot be read ({error}); remove the folder to go on from an earlier one") from None


class Log:
    """log.jsonl, the trackers and the progress bar: one call tells all three. Main process only."""

    def __init__(self, folder: Path, accelerator: Any, progress: Progress) -> None:
        self.path, self.accelerator, self.progress = folder / "log.jsonl", accelerator, progress
        self.shown: Any = None

    def __call__(self, entry: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}; what was saved is whole: free some room and run again") from None
        flat = {f"validation/{k}": v for k, v in entry["validation"].items()} if "validation" in entry else entry
        self.accelerator.log({k: v for k, v in flat.items() if isinstance(v, int | float)}, step=entry["step"])
        if "validation" in entry:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in list(entry["validation"].items())[:4])
            self.progress.say(f"  step {entry['step']}, epoch {entry['epoch']:.3g}: {scores}")

    def truncate(self, step: int) -> None:
        """Forget what came after the checkpoint: it will come again."""
        if self.accelerator.is_main_process and self.path.is_file():
            lines = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            write_text(self.path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # a line cut off by a kill
        return float("inf")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C only raise a flag: the loop ends its step, saves and returns. A second one ends at once."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: the host program handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet_libraries(progress: Progress) -> None:
    """Libraries speak through us: their own bars and advice off, our warnings as one line each."""
    import datasets
    import transformers

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|datasets")
    logger = logging.getLogger("graft")
    logger.handlers = [_Say(progress)]
    logger.propagate = False


class _Say(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.say(record.getMessage())
