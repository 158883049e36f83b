"""Figures of classification: confusion, calibration, class balance, precision and recall."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics.classification import Record, calibration, confusion, per_class, scores
from pipelines.plots.style import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PALE,
    PAPER,
    TEAL,
    WIDTH,
    canvas,
    finish,
    headline,
    height_of_bars,
    inches,
    names_on_y,
    room_for_wide,
    shortened,
    styled,
    write_beside,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_WHOLE = 40  # classes; with more, a figure shows a selection of them, which its title states


@styled
def confusion_figure(
    matrix: np.ndarray, labels: Sequence[str], limit: int = DRAWN_WHOLE, shares: bool = False
) -> "Figure":
    """Counts [true, predicted], shaded by the share of the true class. With many classes, only the most confused.

    `shares`: the counts are pixels, and the numbers are whole percents of the true class.
    """
    from matplotlib.patches import Rectangle

    matrix = np.asarray(matrix)
    wrong = matrix - np.diag(np.diag(matrix))
    keep, title = np.arange(len(labels)), "Confusion matrix"
    if len(labels) > limit:
        keep = _most_confused(wrong, min(limit, 30))
        title = f"Confusion matrix: the {len(keep)} most confused of {len(labels)} classes"
    shown, size = matrix[np.ix_(keep, keep)], len(keep)
    share = shown / np.maximum(matrix.sum(1)[keep], 1)[:, None]
    if shares:
        shown, title = np.rint(100 * share).astype(int), title + ", in % of the true class"
    names = [shortened(labels[i]) for i in keep.tolist()]
    longest = max(map(inches, names)) + room_for_wide(names)
    digits = len(str(shown.max()))
    cell = max(0.26, 0.1 * digits + 0.1, min(0.75, 2.6 / size))  # inches
    upright = longest < cell  # no name needs to be turned
    figure = canvas(max(WIDTH, size * cell + longest + 0.7), size * cell + (0.2 if upright else longest) + 1.0)
    axes = figure.subplots()
    for row, column in zip(*np.nonzero(shown), strict=True):
        # at this opacity, the ink of the page has enough contrast in light and in dark mode
        shade = 0.55 * float(share[row, column]) ** 0.6
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=BLUE, alpha=shade, linewidth=0))
        axes.text(column, row, f"{shown[row, column]}", ha="center", va="center_baseline", color=INK)
    names_on_y(axes, names)
    axes.set_xticks(range(size), names, rotation=0 if upright else 90)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true", labelpad=axes.yaxis.labelpad)
    for side in axes.spines.values():
        side.set_visible(True)
    axes.grid(False)
    axes.tick_params(length=0)
    headline(figure, title)
    return finish(figure, f"{title}. {_worst_pair(wrong, labels, 'pixels' if shares else 'times')}")


def _most_confused(wrong: np.ndarray, limit: int) -> np.ndarray:
    """The classes of the most frequent mistakes, in the order of the labels; then those that are wrong most often."""
    pairs = [divmod(int(place), len(wrong)) for place in np.argsort(-wrong, axis=None, kind="stable")[:limit]]
    often = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable").tolist()
    classes = dict.fromkeys([label for pair in pairs if wrong[pair] for label in pair] + often)
    return np.sort(list(classes)[:limit])


def _worst_pair(wrong: np.ndarray, labels: Sequence[str], unit: str) -> str:
    if not wrong.any():
        return "No class is confused."
    row, column = divmod(int(np.argmax(wrong)), len(wrong))
    return f"Most frequent mistake: {labels[row]} taken for {labels[column]}, {wrong[row, column]} {unit}."


@styled
def calibration_figure(bins: Sequence[Mapping[str, Any]], ece: float) -> "Figure":
    """Reliability diagram: accuracy in each bin of confidence, with the diagonal, and the rows per bin below it."""
    figure = canvas(WIDTH, 4.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    filled = [b for b in bins if b["n"]]
    left, width = [b["low"] for b in filled], [b["high"] - b["low"] for b in filled]
    top.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.4, label="perfectly calibrated")
    mean, hits = [b["confidence"] for b in filled], [b["accuracy"] for b in filled]
    top.bar(left, hits, width, align="edge", color=PALE, edgecolor=PAPER, label="accuracy of the bin")
    top.plot(mean, hits, "o", color=BLUE, markersize=4.5, label="at its mean confidence")
    top.set_ylim(0, 1.02)
    top.set_xlim(0, 1)
    top.set_ylabel("accuracy")
    headline(figure, f"Calibration: expected error {ece:.2f}")
    top.legend(loc="best")
    bottom.bar(left, [b["n"] for b in filled], width, align="edge", color=BLUE, edgecolor=PAPER)
    bottom.set_ylabel("rows")
    bottom.set_xlabel("confidence")
    rows = sum(b["n"] for b in filled)
    return finish(
        figure, f"Reliability diagram of {rows} rows in {len(bins)} bins; expected calibration error {ece:.3f}."
    )


@styled
def class_balance_figure(counts: Mapping[str, Mapping[str, int]]) -> "Figure":
    """Rows per class (split -> label -> rows).

    Bars for a few classes; for many, curves of the class sizes in descending order.
    """
    labels = list(dict.fromkeys(label for split in counts.values() for label in split))
    table = {split: np.array([of.get(label, 0) for label in labels]) for split, of in counts.items()}
    total = np.sum(list(table.values()), axis=0)
    most, least = int(total.argmax()), int(total.argmin())
    colours = [BLUE, TEAL, ORANGE, MUTED]
    only = "" if len(table) > 1 else f" ({next(iter(table))})"
    if len(labels) <= DRAWN_WHOLE:
        figure = canvas(WIDTH, height_of_bars(len(labels)) + 0.55)
        axes, start = figure.subplots(), np.zeros(len(labels), dtype=int)
        for (split, rows), colour in zip(table.items(), colours, strict=False):
            axes.barh(
                range(len(labels)), rows, 0.7, left=start, color=colour, edgecolor=PAPER, linewidth=0.6, label=split
            )
            start = start + rows
        for place, rows in enumerate(total):
            write_beside(axes, rows, place, f"{rows}")
        names_on_y(axes, labels)
        axes.set_ylim(len(labels) - 0.4, -0.6 if len(table) == 1 else -1.7)
        axes.grid(False, axis="y")
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.set_xlabel("rows")
        headline(figure, "Rows per class" + only)
        if len(table) > 1:  # in a row of its own above the bars
            legend = axes.legend(loc="upper right", ncols=len(table), borderaxespad=0, columnspacing=1.2)
            legend.set_in_layout(False)  # with long names it is wider than the bars, and may begin above the names
    else:
        figure = canvas(WIDTH, 3.4)
        axes = figure.subplots()
        for (split, rows), colour in zip(table.items(), colours, strict=False):
            axes.step(np.arange(1, len(labels) + 1), np.sort(rows)[::-1], where="mid", color=colour, label=split)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("classes, the largest first in each split")
        axes.set_ylabel("rows")
        headline(figure, f"Rows per class, {len(labels)} classes" + only)
        if len(table) > 1:
            axes.legend(loc="upper right")
    ends = f"most {labels[most]} with {total[most]}, fewest {labels[least]} with {total[least]}"
    alt = f"Rows per class: {ends if total[most] > total[least] else f'{total[most]} in each of {len(labels)}'}."
    return finish(figure, alt)


@styled
def average_precision_figure(table: Sequence[Mapping[str, Any]], limit: int = DRAWN_WHOLE) -> "Figure":
    """Average precision of each label (rows of `per_class`), best first. With many labels, only the lowest."""
    known = sorted((r for r in table if r["average_precision"] is not None), key=lambda r: -r["average_precision"])
    shown = known[-limit:]
    figure = canvas(WIDTH, height_of_bars(len(shown)))
    axes = figure.subplots()
    axes.barh(range(len(shown)), [r["average_precision"] for r in shown], 0.7, color=BLUE)
    for place, row in enumerate(shown):
        write_beside(axes, row["average_precision"], place, f"{row['average_precision']:.2f}  ({row['n']} rows)")
    names_on_y(axes, [r["label"] for r in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6)  # room for the notes
    axes.set_xticks([0, 0.5, 1])
    axes.grid(False, axis="y")
    title = "Average precision per label" + (f": the {len(shown)} lowest of {len(known)}" if len(known) > limit else "")
    headline(figure, title)
    low = f" Lowest: {shown[-1]['label']} with {shown[-1]['average_precision']:.2f}." if shown else ""
    return finish(figure, f"{title}.{low}")


def figures(
    records: Sequence[Record],
    labels: Sequence[str],
    multi_label: bool = False,
    balance: Mapping[str, Mapping[str, int]] | None = None,
) -> "dict[str, Figure]":
    """The figures of one split's predictions: name -> figure.

    `balance` holds the rows per class of each split (split
    -> label -> rows); by default those of the records.
    """
    if balance is None:
        counted = Counter(label for r in records for label in (r["true"] if multi_label else [r["true"]]))
        balance = {"rows scored": {label: counted[label] for label in labels}}
    drawn = {}
    if multi_label:
        drawn["average_precision"] = average_precision_figure(per_class(records, labels, multi_label))
    else:
        drawn["confusion_matrix"] = confusion_figure(confusion(records, labels), labels)
        drawn["calibration"] = calibration_figure(calibration(records), scores(records, labels)["ece"])
    return {**drawn, "class_balance": class_balance_figure(balance)}
