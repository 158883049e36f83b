"""The loss of a model that makes sounds, on rows that it was not trained on, as a mean over frames or samples.

A record: {"id", "parts": {name: [sum, count]}}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.metrics.statistics import Statistics, plain, ratio, total
from pipelines.task import Record


def record(id_: str, parts: Mapping[str, tuple[float, float]]) -> Record:
    """A record of one row: for each part of the loss its sum, and the number of frames, samples or tokens."""
    return {"id": id_, "parts": {name: [float(part), float(count)] for name, (part, count) in parts.items()}}


def statistics(records: Sequence[Record]) -> Statistics:
    """For each part the columns `<part>_sum` and `<part>_count`. Raises DataError if there are no records."""
    names = list(records[0]["parts"]) if records else []
    columns = {
        f"{name}_{what}": [record["parts"][name][place] for record in records]
        for name in names
        for place, what in enumerate(("sum", "count"))
    }
    return Statistics([record["id"] for record in records], columns)


def summarize(statistics: Statistics, weights: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The parts as means over their counts. `weights` [rows], or [draws, rows] for arrays [draws]."""
    return plain(
        {
            name: ratio(total(weights, statistics[f"{name}_sum"]), total(weights, statistics[f"{name}_count"]))
            for name in names
        }
    )


def names(statistics: Statistics) -> list[str]:
    """The parts that `statistics` has columns of."""
    return [name.removesuffix("_sum") for name in statistics if name.endswith("_sum")]


def table(records: Sequence[Record], groups: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """The first part for each group of rows, a row of the table each: {column, part, n}. `groups` is id -> group."""
    found: dict[str, list[tuple[float, float]]] = {}
    name = next(iter(records[0]["parts"])) if records else "loss"
    for record in records:
        found.setdefault(str(groups[record["id"]]), []).append(record["parts"][name])
    return [
        {
            column: group,
            name: sum(part for part, _ in own) / max(sum(count for _, count in own), 1e-12),
            "n": len(own),
        }
        for group, own in sorted(found.items())
    ]
