"""How well a diffusion model removes noise from images it never saw: records {id, loss, levels}, levels from clean to noise."""

from collections.abc import Sequence
from typing import Any

from pipelines.task import Record


def record(id_: str, levels: Sequence[float]) -> Record:
    """`levels` are the mean squared errors at even shares of the noise schedule."""
    return {"id": id_, "loss": sum(levels) / len(levels), "levels": list(levels)}


def scores(records: Sequence[Record]) -> dict[str, float]:
    """`denoising_loss`: the mean squared error of what the model predicts, over images and noise levels."""
    return {"denoising_loss": sum(sorted(r["loss"] for r in records)) / len(records)}


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
