"""The run folder as a place: claim it, settle what `auto` meant, write its log; and what a run needs of this machine."""

import contextlib
import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.checkpoint import State
from pipelines.errors import ModelError, RecipeError, RunError
from pipelines.progress import Progress
from pipelines.recipe import Recipe, dump_recipe, validate
from pipelines.results import read_json, write_text

# what may change while a run is under way, for it changes no result by more than rounding
FREE = {f"data.{key}" for key in ("workers", "cache_gb", "max_skipped")}
FREE |= {
    f"train.{key}" for key in ("micro_batch", "eval_batch_size", "gradient_checkpointing", "save_every", "keep", "log_every", "trackers")
}


def claim(folder: Path, recipe: Recipe, smoke: bool = False) -> dict[str, Any] | None:
    """Take a run folder for a recipe. Returns its results if the very run is finished, else None.

    Raises RunError when the folder holds a run of another recipe (naming what differs) or cannot be written.
    """
    data = Path(recipe.data.id).expanduser()
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):  # its pictures would be data the next time
        raise RunError(f"{folder}: a run folder inside of the data {data}; choose another folder with --run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # several processes try at once
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --run") from None
    path = folder / "recipe.yaml"
    if not path.is_file():
        if any(not p.name.startswith(".") for p in folder.iterdir()) and not (folder / "checkpoints").is_dir():
            raise RunError(f"{folder}: not empty and no run of Graft's; choose another folder with --run")
        return None
    old, new = _known_recipe(path), public_paths(recipe).model_dump(mode="json")
    found = _differences(old, new)
    longer = [
        key for key in found if key in ("train.epochs", "train.max_steps") and None not in found[key] and found[key][1] > found[key][0]
    ]
    rest = {key: value for key, value in found.items() if key not in longer}
    if rest:
        listed = "; ".join(f"{key}: the run has {a!r}, you ask for {b!r}" for key, (a, b) in list(rest.items())[:4])
        raise RunError(f"{folder} belongs to another recipe ({listed}); choose another folder with --run, or remove it")
    results, last = folder / "results.json", folder / "model" / "results.json"  # the model folder's copy is the last file of a run
    if longer:  # or the longer run, should it be killed, would pass for finished
        results.unlink(missing_ok=True)
    return read_json(results) if last.is_file() else None


def pinned(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with what the run settled when it began: a hub repo may have moved on since."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return recipe
    before = _known_recipe(path)
    changes: dict[str, Any] = {"train": recipe.train.model_copy(update={"precision": before["train"]["precision"]})}
    for section in ("model", "data"):
        if getattr(recipe, section).revision is None:
            changes[section] = getattr(recipe, section).model_copy(update={"revision": before[section]["revision"]})
    return recipe.model_copy(update=changes)


def _known_recipe(path: Path) -> dict[str, Any]:
    """The resolved recipe of the run that is here."""
    try:
        old = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        old = None
    if not isinstance(old, dict) or not {"task", "model", "data", "train"} <= old.keys():
        raise RunError(f"{path}: no recipe of a run that Graft began; choose another folder with --run")
    return old


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
    return {} if old == new or settled or path in FREE or path.startswith("hub.") else {path: (old, new)}


def settle(folder: Path, recipe: Recipe, model: Any, weights: Any, splits: Any, *, main: bool) -> Recipe:
    """Decide what `auto` means for this model, machine and hub state, and write recipe.yaml."""
    path = folder / "recipe.yaml"
    precision = best_precision(model) if recipe.train.precision == "auto" else recipe.train.precision
    recipe = public_paths(recipe)
    changes: dict[str, Any] = {"train": recipe.train.model_copy(update={"precision": precision})}
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


def micro_batch(train: Any, model: Any, accelerator: Any, examples: Any) -> int:
    """Examples on one device at a time. `auto` is the whole share on a GPU (halved when memory does not suffice); on a CPU as
    many as have 5 MB of input (8 photos of 224 pixels), which stay in the caches. BatchNorm in training is not split."""
    import torch

    from pipelines.layers import has_batch_norm

    share = -(-train.batch_size // accelerator.num_processes)
    if train.micro_batch != "auto":
        return min(train.micro_batch, share)
    if accelerator.device.type != "cpu" or has_batch_norm(model):
        return share
    batch = examples[[(None, 0)]].batch
    tensors = [t for value in batch.values() for t in (value if isinstance(value, list) else [value]) if isinstance(t, torch.Tensor)]
    return max(1, min(share, round(5e6 / max(1, sum(t.untyped_storage().nbytes() for t in tensors)))))


def workers(asked: int | str, processes: int, examples: Any) -> int:
    """Loader processes per training process: what was asked, or a fair share of the cores, at most 8.

    None where a pass over `examples` takes less than two seconds here: starting processes would take longer. The number
    never changes a result.
    """
    if isinstance(asked, int):
        return asked
    since = time.perf_counter()
    some = [(None, i) for i in range(min(4, len(examples)))]
    examples[some]
    if (time.perf_counter() - since) / max(1, len(some)) * len(examples) < 2.0:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes))


def trackers(recipe: Recipe) -> list[str]:
    """The recipe's trackers. Raises RecipeError for one that is not installed."""
    from accelerate.tracking import get_available_trackers

    ready = {str(t.value if hasattr(t, "value") else t) for t in get_available_trackers()}
    missing = [t for t in recipe.train.trackers if t not in ready]
    if missing:
        raise RecipeError(f"train.trackers: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")
    return list(recipe.train.trackers)


def checkpoint_gradients(model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


class Log:
    """log.jsonl, the trackers and the progress bar: one call tells all three. Main process only."""

    def __init__(self, folder: Path, accelerator: Any, progress: Progress) -> None:
        self.path, self.accelerator, self.progress = folder / "log.jsonl", accelerator, progress

    def __call__(self, entry: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror}; what was saved is whole: free some room and run again"
            ) from None
        flat = {f"validation/{k}": v for k, v in entry["validation"].items()} if "validation" in entry else entry
        self.accelerator.log({k: v for k, v in flat.items() if isinstance(v, int | float)}, step=entry["step"])
        if "validation" in entry:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in list(entry["validation"].items())[:4])
            self.progress.say(f"  step {entry['step']}, epoch {entry['epoch']:.3g}: {scores}")

    def truncate(self, saved: State | None) -> None:
        """Forget what came after the checkpoint, all of it if there is none: it will come again."""
        if self.accelerator.is_main_process and self.path.is_file():
            lines = [line for line in self.path.read_text().splitlines() if saved is not None and _known(line, saved)]
            write_text(self.path, "".join(line + "\n" for line in lines))


def _known(line: str, saved: State) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # a line cut off by a kill
        return False
    at = saved.before + saved.step
    return entry["step"] < at or (entry["step"] == at and not (saved.owed and "validation" in entry))


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


def processes() -> Any:
    """Accelerate's view of the processes of this run (PartialState).

    Where there is no accelerator it has to be told to use the CPU, or each process that torchrun started thinks it is alone.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def quiet_libraries(progress: Progress) -> None:
    """Libraries speak through us: their own bars and advice off, our warnings as one line each."""
    import datasets
    import transformers

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):  # they log every retry; what it comes to in the end is told by our errors
        logging.getLogger(library).setLevel(logging.CRITICAL)
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
