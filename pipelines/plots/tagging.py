"""Figures of videos with many labels: precision and recall of all predictions together, and of each label."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.metrics import tagging
from pipelines.metrics.tagging import Record
from pipelines.plots.classification import average_precision_figure, class_balance_figure
from pipelines.plots.style import BLUE, WIDTH, canvas, finish, headline, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 500  # of a curve; a drawing of all predictions would have megabytes


@styled
def precision_recall_figure(recall: np.ndarray, precision: np.ndarray, gap: float) -> "Figure":
    """Precision and recall of the 20 best predictions of all videos in one list, best first."""
    figure = canvas(WIDTH, 3.2)
    axes = figure.subplots()
    keep = np.unique(np.linspace(0, max(0, len(recall) - 1), POINTS).astype(int))[: len(recall)]
    axes.plot(recall[keep], precision[keep], color=BLUE, linewidth=1.6)
    axes.fill_between(recall[keep], precision[keep], color=BLUE, alpha=0.12, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall: share of all true labels")
    axes.set_ylabel("precision")
    headline(figure, f"Predictions of all videos: GAP {gap:.2f}")
    reached = f"{recall[-1]:.2f}" if len(recall) else "0"
    return finish(
        figure, f"Precision against recall of the 20 best predictions of all videos; recall ends at {reached}."
    )


def figures(records: Sequence[Record], labels: Sequence[str]) -> "dict[str, Figure]":
    """The figures of one split's predictions: name -> figure."""
    found = tagging.statistics(records, labels)
    gap = tagging.summarize(found, found.ones())["gap"]
    counted = Counter(label for record in records for label in record["true"])
    drawn = {
        "precision_recall": precision_recall_figure(*tagging.curve(found), gap),
        "average_precision": average_precision_figure(tagging.per_class(records, labels)),
    }
    balance = {label: counted[label] for label in labels if counted[label]}
    return {**drawn, "class_balance": class_balance_figure({"rows scored": balance})} if balance else drawn
