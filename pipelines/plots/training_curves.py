"""Curves of a run from the lines of its log.jsonl: loss, learning rate and the metric.

Steps are counted over all stages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.plots.style import BLUE, MUTED, ORANGE, PALE, PAPER, SMALL, TEAL, WIDTH, canvas, finish, headline, styled
from pipelines.utils.formatting import readable_name, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def learning_figure(log: Iterable[Mapping[str, Any]]) -> "Figure":
    """The training loss, with a smoothed curve if there are many points, and the learning rate below it."""
    from matplotlib.ticker import MaxNLocator

    lines = [line for line in log if line.get("loss") is not None and math.isfinite(line["loss"])]
    many, dot = len(lines) > 40, "o" if len(lines) < 20 else ""
    figure = canvas(WIDTH, 3.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for stage in _stages(lines):
        x, loss = [line["step"] for line in stage], np.array([line["loss"] for line in stage], dtype=float)
        top.plot(x, loss, color=PALE if many else BLUE, linewidth=1 if many else 1.8, marker=dot, markersize=3.5)
        if many:
            top.plot(x, _smooth(loss), color=BLUE)
        bottom.plot(x, [line["learning_rate"] for line in stage], color=TEAL, linewidth=1.5, marker=dot, markersize=3)
    headline(figure, "Training loss" + (", as logged and smoothed" if many else ""))
    if all(line["loss"] >= 0 for line in lines):
        top.set_ylim(bottom=0)
    bottom.set_title("learning rate")
    bottom.yaxis.set_major_locator(MaxNLocator(2))
    bottom.yaxis.set_major_formatter("{x:g}")
    bottom.set_ylim(bottom=0)
    _steps(bottom)
    _mark_stages(lines, top, bottom)
    rate = max(line["learning_rate"] for line in lines)
    ends = f"from {lines[0]['loss']:.3g} to {lines[-1]['loss']:.3g}"
    alt = f"Training loss over {lines[-1]['step']} steps, {ends}; learning rate at most {rate:.3g}."
    return finish(figure, alt)


@styled
def metric_figure(
    log: Iterable[Mapping[str, Any]],
    name: str,
    direction: str = "max",
    before: float | None = None,
    after: float | None = None,
    interval: Sequence[float] | None = None,
) -> "Figure":
    """The metric on validation over the steps, with its best value marked.

    `before` and `after` are the metric on test before and after training; `interval` belongs to `after`.
    """
    # None: undefined on these rows
    lines = [line for line in log if line.get("validation", {}).get(name) is not None]
    x, y = [line["step"] for line in lines], [line["validation"][name] for line in lines]
    # of equal values the latest, which is the one that the run keeps
    best = (max if direction == "max" else min)(reversed(range(len(lines))), key=y.__getitem__)
    figure = canvas(WIDTH, 3.4)
    axes = figure.subplots()
    for i, stage in enumerate(_stages(lines)):
        part = [line["step"] for line in stage], [line["validation"][name] for line in stage]
        axes.plot(*part, color=BLUE, marker="o" if len(x) < 60 else "", markersize=4, label="" if i else "validation")
    ring = f"best: {score(y[best], interval)} at step {x[best]:,}"
    axes.plot(
        x[best],
        y[best],
        "o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=ORANGE,
        markeredgewidth=2,
        label=ring,
    )
    alt = (
        f"{name} on validation over {x[-1]} steps, from {y[0]:.3f} to {y[-1]:.3f}; "
        f"best {y[best]:.3f} at step {x[best]}."
    )
    if after is not None:
        bars = None if interval is None else [[max(after - interval[0], 0)], [max(interval[1] - after, 0)]]
        note = f"test: {score(after, interval)}"
        if before is not None:  # the score of step 0: a curve of one point would show no change
            axes.plot([0, x[-1]], [before, after], color=TEAL, linestyle=":", linewidth=1.4)
            axes.plot([0], [before], "D", color=TEAL, markerfacecolor=PAPER, markersize=5)
            note = f"test: {score(before, interval)} before, {score(after, interval)} after"
            alt += f" Test before training {before:.3f}."
        axes.errorbar([x[-1]], [after], yerr=bars, fmt="D", color=TEAL, markersize=5, capsize=4, label=note)
        alt += f" Test after training {after:.3f}."
    headline(figure, f"{readable_name(name)} on validation and test" if after is not None else readable_name(name))
    _steps(axes)
    axes.margins(y=0.12)
    axes.legend(loc="best")
    _mark_stages(lines, axes)
    return finish(figure, alt)


def _steps(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step")


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred mean over a twentieth of the points, with a narrower window at the ends."""
    half = max(len(values) // 40, 2)
    total = np.cumsum(np.insert(values, 0, 0.0))
    low = np.clip(np.arange(len(values)) - half, 0, None)
    high = np.clip(np.arange(len(values)) + half + 1, None, len(values))
    means: np.ndarray = (total[high] - total[low]) / (high - low)
    return means


def _stages(lines: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [list(stage) for _, stage in groupby(lines, key=lambda line: line["stage"])]


def _mark_stages(lines: Sequence[Mapping[str, Any]], *axes: "Axes") -> None:
    """Draw a line at the step where the first stage, which trains only the head, ends."""
    for stage in _stages(lines)[1:]:
        for each in axes:
            each.axvline(stage[0]["step"], color=MUTED, linewidth=0.8, linestyle="--")
        place: dict[str, Any] = {
            "xycoords": ("data", "axes fraction"),
            "xytext": (4, -3),
            "textcoords": "offset points",
            "va": "top",
        }
        axes[0].annotate("whole model ▸", (stage[0]["step"], 1), **place, color=MUTED, fontsize=SMALL)
