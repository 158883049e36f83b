"""results.json: every number that the card may show, and where it was measured."""

import contextlib
import json
import math
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.errors import ModelError, RunError

SCHEMA = 1
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm", "diffusers", "peft", "numpy")


def environment(processes: int, precision: str, device: str) -> dict[str, Any]:
    """Versions, and the hardware that was used: `processes` devices of the kind `device` (cuda, mps, cpu). No host names, no paths."""
    import torch

    versions: dict[str, str | None] = {}
    for name in ("graft-pipelines", *LIBRARIES):
        try:
            versions[name.removesuffix("-pipelines")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name.removesuffix("-pipelines")] = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if device == "cuda":
        hardware = f"{processes} x {torch.cuda.get_device_name()}"
    else:
        hardware = f"{ {'mps': 'Apple GPU (MPS)', 'cpu': 'CPU'}.get(device, device) }, {cores} cores, {platform.machine()}"
    return {
        **{name: version for name, version in versions.items() if version},
        "python": platform.python_version(),
        "system": platform.system(),
        "hardware": hardware,
        "processes": processes,
        "precision": precision,
    }


def peak_memory_mb() -> float:
    """Peak of this process: of the GPU's allocator where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def to_json(value: Any, indent: int | None = None) -> str:
    """A JSON document of what Graft found out. JSON has no NaN and no infinity: they are null."""
    return json.dumps(_without_nan(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def undefined(split: str, n: int, metrics: dict[str, Any]) -> list[str]:
    """What to say of the metrics that have no value on these rows: one line, or none."""
    names = [name for name, value in metrics.items() if value is None or not math.isfinite(value)]
    if not names:
        return []
    rows = f"the {n} row{'s' * (n != 1)} of {split}"
    return [f"{', '.join(names)}: undefined on {rows} (null in JSON): they are too few, or do not hold what it compares"]


NEEDED = ("task", "recipe", "metric", "test", "train", "data", "model", "environment")  # keys of every results.json


def check_run_folder(run: Path) -> None:
    """Raises ModelError where a folder is that of a model, and not of a run: a run's model/ is one."""
    names = ("config.json", "model_index.json", "adapter_config.json", "pytorch_lora_weights.safetensors")
    if any((run / name).is_file() for name in names):
        above = f": give {run.parent}" if (run.parent / "recipe.yaml").is_file() else ""
        raise ModelError(f"{run}: the folder of a model, and not of the run that made it{above}")


def read_results(run: Path) -> Any:
    """results.json of a run folder; None where it has none. Raises RunError for a damaged one."""
    path = run / "results.json"
    found = read_json(path)
    if found is None:
        return None
    lacking = [key for key in NEEDED if not isinstance(found, dict) or key not in found]
    if lacking:
        raise RunError(f"{path}: not the results of a run, it lacks {', '.join(lacking)}: restore it, or train again in another folder")
    return found


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all. Raises RunError when the disk refuses."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no such file. Raises RunError for a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # older runs wrote NaN
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """One JSON object per line."""
    write_text(path, "".join(to_json(record) + "\n" for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
