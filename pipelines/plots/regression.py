"""Figures of regression: predicted against true values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.metrics.regression import Record, statistics, summarize
from pipelines.plots.style import BLUE, MUTED, ROWS, WIDTH, canvas, finish, headline, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record]) -> "dict[str, Figure]":
    """Predicted against true numbers. A point shows a row's label, so the figure stays in the run folder."""
    found = statistics(records)
    pearson = summarize(found, found.ones())["pearson"]
    return {"predicted_against_true": _scatter(found["true"], found["predicted"], pearson)}


@styled
def _scatter(true: np.ndarray, predicted: np.ndarray, pearson: float) -> "Figure":
    figure = canvas(WIDTH, 4.2)
    axes = figure.subplots()
    ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
    axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1.4, label="right")
    axes.plot(true, predicted, "o", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    headline(figure, "Predicted against true")
    axes.legend(loc="upper left")
    alt = f"Predicted against true numbers of {len(true)} rows; Pearson correlation {pearson:.3f}."
    return finish(figure, alt, ROWS)
