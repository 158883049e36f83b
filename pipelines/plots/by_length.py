"""Figures of scores by the length of a text."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.metrics.by_length import Record, table
from pipelines.plots.style import BLUE, ORANGE, PAPER, WIDTH, bars_figure, canvas, finish, headline, styled
from pipelines.utils.formatting import readable_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record], value: Callable[[Record], float], name: str, most: int) -> "dict[str, Figure]":
    """The table of `metrics.by_length` as bars, and a histogram of the lengths: name -> figure.

    A chart of one bar is left out.
    """
    rows = table(records, value, name, most)
    names, values = [f"{row['tokens']} (n = {row['n']:,})" for row in rows], [row[name] for row in rows]
    highest = max([1.0 if name.endswith("accuracy") else 0.0, *values]) or 1.0
    drawn = histograms([r["tokens"] for r in records], most)
    if len(rows) > 1:
        bars = bars_figure(names, values, f"{readable_name(name)} by text length in tokens", highest)
        drawn = {f"{name}_by_text_length": bars, **drawn}
    return drawn


def histograms(sizes: Sequence[int], most: int | None = None) -> "dict[str, Figure]":
    """The histogram of text lengths: name -> figure; empty if all texts have one length."""
    return {"text_lengths": histogram(sizes, most)} if len(set(sizes)) > 1 else {}


@styled
def histogram(sizes: Sequence[int], most: int | None = None) -> "Figure":
    """A histogram of text lengths in tokens, with a line at `most`, where longer texts were cut."""
    tokens = np.asarray(sizes)
    figure = canvas(WIDTH, 2.8)
    axes = figure.subplots()
    axes.hist(
        tokens, bins=min(30, max(1, int(tokens.max() - tokens.min()))), color=BLUE, edgecolor=PAPER, linewidth=0.6
    )
    cut = 0 if most is None else int((tokens > most).sum())
    if most is not None and cut:
        axes.axvline(most, color=ORANGE, linestyle="--", linewidth=1.4, label=f"cut here ({cut:,} rows)")
        axes.legend(loc="upper right")
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows")
    axes.grid(False, axis="x")
    headline(figure, "How long the texts are")
    middle = f"{int(tokens.min())} to {int(tokens.max())} tokens, median {int(np.median(tokens))}"
    note = "" if most is None else f"; {cut} are longer than {most} tokens and were cut"
    return finish(figure, f"Histogram of the length of {len(tokens)} texts: {middle}{note}.")
