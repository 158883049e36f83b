"""Figures of denoising: the loss by time step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics.denoising import by_level
from pipelines.plots.style import BLUE, MUTED, ORANGE, TEAL, WIDTH, canvas, finish, headline, styled
from pipelines.task import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def loss_by_time_figure(curves: Mapping[str, Sequence[tuple[float, float]]]) -> "Figure":
    """Mean denoising loss over the noise schedule, one line per name; points are (share of the schedule, loss)."""
    figure = canvas(WIDTH, 3.2)
    axes = figure.subplots()
    colours, dashes = (BLUE, ORANGE, TEAL, MUTED), ("-", "--", ":")
    losses: list[float] = []
    for number, (name, points) in enumerate(curves.items()):
        x, y = zip(*sorted(points), strict=True)
        colour, dash = colours[number % len(colours)], dashes[number // len(colours) % len(dashes)]
        axes.plot(x, y, color=colour, linestyle=dash, marker="o" if len(x) <= 20 else "", markersize=3.5, label=name)
        losses += y
    if min(losses) > 0 and max(losses) > 20 * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(
            "{x:g}"
        )  # the default writes powers as formulas, which this style shows as plain text
        axes.grid(False, which="minor")
        axes.set_ylabel("mean loss, log scale")
    else:
        axes.set_ylim(min(0, min(losses)), 1.08 * max(losses) or 1)
        axes.set_ylabel("mean loss")
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the noise schedule (1: all noise)")
    headline(figure, "Denoising loss by time step")
    if len(curves) > 1:
        axes.legend(loc="best")
    means = "; ".join(
        f"{name} {np.mean([loss for _, loss in points]):.3g} on average" for name, points in curves.items()
    )
    return finish(figure, f"Denoising loss by time step: {means}.")


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """The loss by time step: name -> figure."""
    count = len(records[0]["levels"])
    curve = [((level + 0.5) / count, row["denoising_loss"]) for level, row in enumerate(by_level(records))]
    return {"loss_by_time": loss_by_time_figure({"test": curve})}
