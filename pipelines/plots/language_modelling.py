"""Figures of language modelling."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.language_modelling import Record, by_length

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record]) -> "dict[str, Figure]":
    """Perplexity by text length, and a histogram of the lengths: name -> figure."""
    from pipelines.plots import style
    from pipelines.plots.by_length import histogram

    rows = by_length(records)
    names = [f"{row['tokens']} tokens (n = {row['n']:,})" for row in rows]
    values = [row["perplexity"] for row in rows]
    bars = style.bars_figure(names, values, "Perplexity by length", max(values))
    return {"perplexity_by_length": bars, "text_lengths": histogram([r["tokens"] for r in records])}
