"""How well a diffusion model removes noise from images it was not trained on.

A record: {"id", "loss", "levels"}; `levels` are the losses from almost clean to all noise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.metrics.statistics import Statistics, plain, ratio, total
from pipelines.task import Record

DIRECTIONS = {"denoising_loss": "min"}  # the scores


def record(id_: str, levels: Sequence[float]) -> Record:
    """A record; `levels` are the mean squared errors at evenly spaced parts of the noise schedule."""
    return {"id": id_, "loss": sum(levels) / len(levels), "levels": list(levels)}


def statistics(records: Sequence[Record]) -> Statistics:
    """The columns loss (the mean error of each image) and levels [rows, levels].

    Raises DataError if there are no records.
    """
    columns = {"loss": [record["loss"] for record in records], "levels": [record["levels"] for record in records]}
    return Statistics([record["id"] for record in records], columns)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """`denoising_loss`: the mean squared error of the model's prediction, over images and noise levels.

    `weights` [rows], or [draws, rows] for arrays [draws].
    """
    return plain({"denoising_loss": ratio(total(weights, statistics["loss"]), total(weights))})


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records)
    return summarize(found, found.ones())


def by_level(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The mean error in each part of the noise schedule: rows {"noise", "denoising_loss"}."""
    count = len(records[0]["levels"])
    return [
        {
            "noise": f"{100 * level // count} to {100 * (level + 1) // count} %",
            "denoising_loss": sum(r["levels"][level] for r in records) / len(records),
        }
        for level in range(count)
    ]
