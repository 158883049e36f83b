"""How well a diffusion model removes noise from images it never saw: records {id, loss, levels}, levels from clean to noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.metrics.statistics import Statistics, plain, ratio, total
from pipelines.task import Record


def record(id_: str, levels: Sequence[float]) -> Record:
    """`levels` are the mean squared errors at even shares of the noise schedule."""
    return {"id": id_, "loss": sum(levels) / len(levels), "levels": list(levels)}


def statistics(records: Sequence[Record]) -> Statistics:
    """The mean error of each image, and its errors at each noise level, [rows, levels]. Raises DataError for no records."""
    columns = {"loss": [record["loss"] for record in records], "levels": [record["levels"] for record in records]}
    return Statistics([record["id"] for record in records], columns)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """`denoising_loss`: the mean squared error of what the model predicts, over images and noise levels.

    `weights` [rows], or [draws, rows] for arrays [draws].
    """
    return plain({"denoising_loss": ratio(total(weights, statistics["loss"]), total(weights))})


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records)
    return summarize(found, found.ones())


def by_level(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The error at each share of the noise schedule."""
    count = len(records[0]["levels"])
    return [
        {
            "noise": f"{100 * level // count} to {100 * (level + 1) // count} %",
            "denoising_loss": sum(r["levels"][level] for r in records) / len(records),
        }
        for level in range(count)
    ]
