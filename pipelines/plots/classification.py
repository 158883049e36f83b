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
    canvas,
    finish,
    styled,
    write_beside,
)
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_WHOLE = 40  # classes; with more, a figure shows a selection of them, which its title states


@styled
def confusion_figure(matrix: np.ndarray, labels: Sequence[str], limit: int = DRAWN_WHOLE) -> "Figure":
    """Counts [true, predicted], shaded by the share of the true class. With many classes, only the most confused."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    matrix = np.asarray(matrix)
    wrong = matrix - np.diag(np.diag(matrix))
    keep, title = np.arange(len(labels)), "Confusion matrix"
    if len(labels) > limit:
        keep = _most_confused(wrong, min(limit, 30))
        title = f"Confusion matrix: the {len(keep)} most confused of {len(labels)} classes"
    shown, size = matrix[np.ix_(keep, keep)], len(keep)
    share = shown / np.maximum(matrix.sum(1)[keep], 1)[:, None]
    side = min(2.6 + 0.42 * size, 3.4 + 0.26 * size)
    figure = canvas(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(
        share,
        cmap=LinearSegmentedColormap.from_list("graft", [PAPER, PALE, BLUE, "#12365e"]),
        norm=PowerNorm(0.6, 0, 1),
    )
    font = max(4.5, min(11.0, 9.5 - 0.13 * size))
    for row, column in zip(*np.nonzero(shown), strict=True):
        colour = PAPER if share[row, column] > 0.35 else INK
        axes.text(column, row, f"{shown[row, column]}", ha="center", va="center", fontsize=font, color=colour)
    names = [short(labels[i]) for i in keep.tolist()]
    tick = 8.5 if size <= 20 else 7.5
    turn = 90 if size > 12 else 40 if size > 6 or max(map(len, names)) > 8 else 0
    axes.set_xticks(range(size), names, rotation=turn, ha="right" if turn == 40 else "center", fontsize=tick)
    axes.set_yticks(range(size), names, fontsize=tick)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.set_title(title)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=18, pad=0.02)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7.5, length=0)
    bar.outline.set_visible(False)
    return finish(figure, f"{title}. {_worst_pair(wrong, labels)}")


def _most_confused(wrong: np.ndarray, limit: int) -> np.ndarray:
    """The classes of the most frequent mistakes, in the order of the labels; then those that are wrong most often."""
    pairs = [divmod(int(place), len(wrong)) for place in np.argsort(-wrong, axis=None, kind="stable")[:limit]]
    often = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable").tolist()
    classes = dict.fromkeys([label for pair in pairs if wrong[pair] for label in pair] + often)
    return np.sort(list(classes)[:limit])


def _worst_pair(wrong: np.ndarray, labels: Sequence[str]) -> str:
    if not wrong.any():
        return "No row is confused."
    row, column = divmod(int(np.argmax(wrong)), len(wrong))
    return f"Most frequent mistake: {labels[row]} taken for {labels[column]}, {wrong[row, column]} times."


@styled
def calibration_figure(bins: Sequence[Mapping[str, Any]], ece: float) -> "Figure":
    """Reliability diagram: accuracy in each bin of confidence, with the diagonal, and the rows per bin below it."""
    figure = canvas(6.2, 5.2)
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
    top.set_title(f"Calibration: expected error {ece:.3f}")
    top.legend(loc="upper left")
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
        figure = canvas(6.2, 1.3 + 0.24 * len(labels))
        axes, start = figure.subplots(), np.zeros(len(labels), dtype=int)
        for (split, rows), colour in zip(table.items(), colours, strict=False):
            axes.barh(
                range(len(labels)), rows, 0.7, left=start, color=colour, edgecolor=PAPER, linewidth=0.6, label=split
            )
            start = start + rows
        for place, rows in enumerate(total):
            write_beside(axes, rows, place, f"{rows}")
        axes.set_yticks(range(len(labels)), [short(label) for label in labels], fontsize=8.5)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.margins(x=0.1)
        axes.set_xlabel("rows")
        axes.set_title("Rows per class" + only)
    else:
        figure = canvas(6.2, 4.2)
        axes = figure.subplots()
        for (split, rows), colour in zip(table.items(), colours, strict=False):
            axes.step(np.arange(1, len(labels) + 1), np.sort(rows)[::-1], where="mid", color=colour, label=split)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("classes, the largest first (each split in its own order)")
        axes.set_ylabel("rows")
        axes.set_title(f"Rows per class, {len(labels)} classes" + only)
    if len(table) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(table))
    ends = f"most {labels[most]} with {total[most]}, fewest {labels[least]} with {total[least]}"
    alt = f"Rows per class: {ends if total[most] > total[least] else f'{total[most]} in each of {len(labels)}'}."
    return finish(figure, alt)


@styled
def average_precision_figure(table: Sequence[Mapping[str, Any]], limit: int = DRAWN_WHOLE) -> "Figure":
    """Average precision of each label (rows of `per_class`), best first. With many labels, only the lowest."""
    known = sorted((r for r in table if r["average_precision"] is not None), key=lambda r: -r["average_precision"])
    shown = known[-limit:]
    figure = canvas(6.2, 1.2 + 0.24 * len(shown))
    axes = figure.subplots()
    axes.barh(range(len(shown)), [r["average_precision"] for r in shown], 0.7, color=BLUE)
    for place, row in enumerate(shown):
        write_beside(axes, row["average_precision"], place, f"{row['average_precision']:.2f}  ({row['n']} rows)")
    axes.set_yticks(range(len(shown)), [short(r["label"]) for r in shown], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(False, axis="y")
    title = "Average precision per label" + (f": the {len(shown)} lowest of {len(known)}" if len(known) > limit else "")
    axes.set_title(title)
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
