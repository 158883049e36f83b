"""results.json: the numbers of a run, and where each was measured."""

import math
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.schema import SPLITS
from pipelines.errors import ModelError, RunError
from pipelines.utils.files import read_json
from pipelines.utils.formatting import utc
from pipelines.utils.hardware import cores

if TYPE_CHECKING:
    from pipelines.training.trainer import Trainer

SCHEMA = 2
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm", "diffusers", "peft", "numpy")


def environment(processes: int, precision: str, device: str) -> dict[str, Any]:
    """Versions and hardware of a run on `processes` devices of the kind `device` (cuda, mps, cpu), without host names
    or paths.
    """
    import torch

    versions: dict[str, str | None] = {}
    for name in ("graft-pipelines", *LIBRARIES):
        try:
            versions[name.removesuffix("-pipelines")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name.removesuffix("-pipelines")] = None
    if device == "cuda":
        hardware = f"{processes} x {torch.cuda.get_device_name()}"
    else:
        hardware = (
            f"{ {'mps': 'Apple GPU (MPS)', 'cpu': 'CPU'}.get(device, device) }, {cores()} cores, {platform.machine()}"
        )
    return {
        **{name: version for name, version in versions.items() if version},
        "python": platform.python_version(),
        "system": platform.system(),
        "hardware": hardware,
        "processes": processes,
        "precision": precision,
    }


def undefined(split: str, n: int, metrics: dict[str, Any]) -> list[str]:
    """One line about the metrics that are undefined for these rows, or no line."""
    names = [name for name, value in metrics.items() if value is None or not math.isfinite(value)]
    if not names:
        return []
    rows = f"the {n} row{'s' * (n != 1)} of {split}"
    return [
        f"{', '.join(names)}: undefined on {rows} (null in JSON): they are too few, or do not hold what it compares"
    ]


NEEDED = ("task", "recipe", "metric", "test", "train", "data", "model", "environment")  # keys of every results.json


def check_run_folder(run: Path) -> None:
    """Raise ModelError if a folder is the model folder inside a run, and not the run folder."""
    names = ("config.json", "model_index.json", "adapter_config.json", "pytorch_lora_weights.safetensors")
    if any((run / name).is_file() for name in names):
        above = f": give {run.parent}" if (run.parent / "recipe.yaml").is_file() else ""
        raise ModelError(f"{run}: the folder of a model, and not of the run that made it{above}")


def read_results(run: Path) -> Any:
    """results.json of a run folder; None if there is none. Raises RunError if it is damaged."""
    path = run / "results.json"
    found = read_json(path)
    if found is None:
        return None
    lacking = [key for key in NEEDED if not isinstance(found, dict) or key not in found]
    if lacking:
        raise RunError(
            f"{path}: not the results of a run, it lacks {', '.join(lacking)}: restore it, or train again in another "
            "folder"
        )
    return current(found)


def run_name(results: dict[str, Any]) -> str:
    """The name of a run; older results have only that of its recipe."""
    return str(results.get("name") or results["recipe"])


def current(found: dict[str, Any]) -> dict[str, Any]:
    """The content of a results.json with the key names of this version.

    In schema 1 the baseline may be called `before`, and nothing states how intervals were computed: up to 1,000
    resamples of rows.
    """
    found = {"baseline" if name == "before" else name: value for name, value in found.items()}
    unknown: dict[str, Any] = {"groups": None, "interval": {"unit": "rows", "resamples": None, "exact": []}}
    for name in ("test", "validation", "baseline"):
        if isinstance(found.get(name), dict):  # the order of keys stays: a file that is written again is the same
            found[name] = found[name] | {key: value for key, value in unknown.items() if key not in found[name]}
    return found


def summary(trainer: "Trainer", state: Any, scores: dict[str, Any]) -> dict[str, Any]:
    """The content of results.json."""
    splits, weights, recipe = trainer.splits, trainer.weights, trainer.recipe
    metric = trainer.metric
    steps = state.previous_steps + state.step
    seen = len(trainer.encoded["train"])
    epochs = steps / trainer.per_epoch
    seconds = round(state.seconds, 3)
    shown = round(epochs * seen)
    return {
        "schema": SCHEMA,
        "task": recipe.task,
        "name": trainer.folder.resolve().name,
        "recipe": trainer.name,
        "started": state.started,
        "finished": utc(time.time()),
        "wall_seconds": None if (wall := trainer.wall_seconds()) is None else round(wall, 1),
        "metric": {"name": metric.name, "direction": metric.direction},
        "test": scores["test"],
        "validation": scores["validation"],
        "baseline": state.baseline_scores,
        "train": {
            "steps": steps,
            "epochs": round(epochs, 4),
            "examples": shown,
            "seconds": seconds,
            "examples_per_second": round(shown / max(seconds, 1e-9), 3),
            "peak_memory_mb": round(
                state.peak_memory_mb, 1
            ),  # peak of training: later steps load a second model and draw
            "stopped": state.stopped,
            "best_step": state.best_step,
            **({"skipped_steps": state.skipped_steps} if state.loss_scale is not None else {}),  # of fp16
        },
        "data": {
            "name": splits.name,
            "hub_id": splits.hub_id,
            "revision": splits.revision,
            "license": splits.license,
            **{
                s: {
                    "rows": len(splits[s]),
                    "skipped": len(trainer.skips.found.get(s, {})),
                    "fingerprint": splits.fingerprint[s],
                    "source": splits.source[s],
                    "overlap": splits.overlap.get(s, 0),
                    "trained_before": splits.trained_before.get(s, 0),
                }
                for s in SPLITS
            },
        },
        "model": {
            "id": weights.name,
            "name": weights.title,
            "base_model": weights.base_model,
            "revision": weights.revision,
            "license": weights.license,
            "parameters": trainer.parameters[0],
            "trainable_parameters": trainer.parameters[1],
            "random_weights": weights.scratch,
            **({"encoder": weights.encoder} if weights.encoder else {}),
            "adapter": bool(recipe.model.adapter and recipe.hub.adapter),
        },
        "labels": list(trainer.task.data.labels) or None,
        "environment": environment(
            trainer.accelerator.num_processes, recipe.train.precision, trainer.accelerator.device.type
        ),
    }
