"""Figures of speech recognition: error rates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.speech_recognition import Record, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record], normaliser: str) -> "dict[str, Figure]":
    """Error rates by length and by speaker as bars: name -> figure."""
    from pipelines.plots import classification, style

    drawn = {}
    for title, rows in tables(records, normaliser).items():
        if len(rows) < 2:
            continue  # a chart of one bar shows no difference
        label = next(iter(rows[0]))
        shown = rows[: classification.DRAWN_WHOLE]
        unit = " s" if label == "seconds" else ""
        names = [f"{row[label]}{unit} (n = {row['n']:,})" for row in shown]
        few = f": the {len(shown)} worst of {len(rows)}" if len(shown) < len(rows) else ""
        heading = f"Word error rate {title}{few}"
        highest = max([0.1, *[row["wer"] for row in shown]])
        drawn["wer_" + title.replace(" ", "_")] = style.bars_figure(
            names, [row["wer"] for row in shown], heading, highest
        )
    return drawn
