"""Figures of question answering."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.question_answering import Record, row_scores, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: Sequence[Record]) -> "dict[str, Figure]":
    """F1 by question word and by answer length; a calibration figure if answers have a confidence. Name -> figure."""
    from pipelines.metrics.classification import calibration
    from pipelines.plots import classification, style

    drawn = {}
    for title, rows in tables(records).items():
        if len(rows) < 2:
            continue  # a chart of one bar shows no difference
        label = next(iter(rows[0]))
        names = [f"{row[label]} (n = {row['n']:,})" for row in rows]
        drawn["f1_" + title.replace(" ", "_")] = style.bars_figure(
            names, [row["f1"] for row in rows], f"F1 {title}", 100
        )
    if "confidence" in records[0]:
        right = [
            {"confidence": r["confidence"], "true": 1.0, "predicted": row_scores(r)["exact_match"]} for r in records
        ]
        bins = [b for b in calibration(right) if b["n"]]
        ece = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / len(records)
        drawn["calibration"] = classification.calibration_figure(bins, ece)
    return drawn
