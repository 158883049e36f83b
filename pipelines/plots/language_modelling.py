"""Figures of language modelling."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.language_modelling import Record, by_length

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record]) -> "dict[str, Figure]":
    """Perplexity by text length, and a histogram of the lengths: name -> figure. A chart of one bar is left out."""
    from pipelines.plots import style
    from pipelines.plots.by_length import histograms

    rows = by_length(records)
    names = [f"{row['tokens']} tokens (n = {row['n']:,})" for row in rows]
    values = [row["perplexity"] for row in rows]
    drawn = histograms([r["tokens"] for r in records])
    if len(rows) > 1:
        bars = style.bars_figure(names, values, "Perplexity by length", max(values))
        drawn = {"perplexity_by_length": bars, **drawn}
    return drawn
