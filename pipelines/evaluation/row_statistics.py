"""The statistics of a run's test rows on disk (predictions/test_statistics.safetensors), which `graft compare` reads.

The file holds one tensor per column of the statistics, the ids of the rows, and the unit of each row: the number of the
group that it belongs to.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import ModelError, RunError
from pipelines.metrics.statistics import Proportion, Statistics

FILE = "test_statistics.safetensors"
IDS, UNITS = "graft.ids", "graft.units"  # names that no column has
SCHEMA = 1


class Kept(NamedTuple):
    statistics: Statistics
    units: np.ndarray  # [rows], numbers from 0
    group: str | None  # the column whose values are the units; None if each row is a unit


def write(path: Path, statistics: Statistics, units: np.ndarray, group: str | None) -> None:
    """Write the statistics. Raises RunError if the disk refuses."""
    from safetensors.numpy import save

    ids = np.frombuffer(json.dumps(statistics.ids).encode(), dtype=np.uint8)
    columns = {name: np.ascontiguousarray(values) for name, values in statistics.items()}
    about = {"schema": SCHEMA, "group": group, "proportions": statistics.proportions}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.new")
        partial.write_bytes(save({**columns, IDS: ids, UNITS: units.astype(np.int64)}, {"graft": json.dumps(about)}))
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def read(path: Path) -> Kept:
    """Read the statistics. Raises ModelError for a damaged file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["graft"])
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if about["schema"] != SCHEMA:
            raise ValueError(f"schema {about['schema']}, and this version reads {SCHEMA}")
        return _kept(tensors, about)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError(f"{path}: not the statistics of a run's test rows ({why}): restore the file") from None


def _kept(tensors: dict[str, np.ndarray], about: dict[str, Any]) -> Kept:
    """Build the statistics. Raises ValueError, KeyError or TypeError if the parts do not fit together."""
    ids, units = json.loads(tensors.pop(IDS).tobytes()), tensors.pop(UNITS)
    if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) for id_ in ids) or ids != sorted(ids):
        raise ValueError("the ids of its rows are no sorted texts")
    for name, values in {**tensors, UNITS: units}.items():
        if values.shape[:1] != (len(ids),) or values.ndim > 2 or values.dtype.kind not in "bifu":
            raise ValueError(f"{name} has the shape {list(values.shape)} for {len(ids)} rows")
        if values.dtype.kind in "iu" and int(values.max(initial=0)) > 2**53:
            raise ValueError(f"{name} holds a number that no count reaches")
    if units.ndim != 1 or units.dtype.kind != "i" or units.min() != 0 or len(np.unique(units)) != int(units.max()) + 1:
        raise ValueError("the units of its rows are no numbers from 0 on")
    proportions = {
        name: Proportion(str(part), of, float(scale)) for name, (part, of, scale) in about["proportions"].items()
    }
    if lacking := {key for part, of, _ in proportions.values() for key in (part, of) if key is not None} - set(tensors):
        raise ValueError(f"no column {min(lacking)}")
    for part, _, _ in proportions.values():
        if tensors[part].ndim != 1 or not np.isfinite(tensors[part]).all():
            raise ValueError(f"{part} is no column of numbers, and a proportion counts it")
    group = about["group"]
    return Kept(Statistics(ids, tensors, proportions), units, None if group is None else str(group))
