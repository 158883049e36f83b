"""Figures of the section `baselines` of results.json: classical learners beside the network of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.plots.style import (
    BLUE,
    MUTED,
    ORANGE,
    ROWS,
    TEAL,
    WIDTH,
    canvas,
    finish,
    headline,
    shortened,
    styled,
)
from pipelines.utils.formatting import readable_name, score, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, MAPS = BESIDE = "baselines_rows", "baselines_maps"  # the names of their files
STRONGEST = 99  # percentile of the sizes of a map's values that has the full colour
ACROSS, TALLEST = 1.4, 1.9  # inches: the width of a photo, and its largest height


def figures(found: Mapping[str, Any]) -> "dict[str, Figure]":
    """The curve over the number of training rows; nothing if no learner has two points of it."""
    drawn = [curve for curve in found["curve"] if len(_known(curve["points"])) > 1]
    return {CURVE: curve_figure(drawn, found)} if drawn else {}


def _known(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [point for point in points if point["value"] is not None and math.isfinite(point["value"])]


@styled
def curve_figure(curves: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> "Figure":
    """The headline metric on test over the number of training rows, and the score of the network, which had all rows.

    `curves` and `found` are parts of the section `baselines` of results.json.
    """
    name, network = found["metric"]["name"], found["network"]
    figure = canvas(WIDTH, 3.4 + 0.2 * len(curves))
    axes = figure.subplots()
    own = {
        "rows": found["rows"]["train"],
        "value": network["metrics"].get(name),
        "ci95": network["ci95"].get(name),
    }
    told = draw_curves(axes, curves, found, [own])
    headline(figure, f"{readable_name(name)} by the number of training rows")
    figure.legend(loc="outside lower left", ncols=1, labelcolor=MUTED, framealpha=0)
    return finish(figure, f"{readable_name(name)} on test by the number of training rows: {told}.")


def draw_curves(
    axes: "Axes",
    curves: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    network: Sequence[Mapping[str, Any]],
) -> str:
    """Draw the curves of learners, and the points of the network, into axes of a figure. Returns them in words.

    A point is {rows, value, ci95}; one without a value is left out.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    learned = {learner["name"] for learner in found["learners"] if learner["kind"] == "learned"}
    counts, told = {found["rows"]["train"]}, []
    lines = [(curve["name"], _known(curve["points"])) for curve in curves]
    for place, (name, points) in enumerate([*lines, ("the network", _known(network))]):
        rows, values = [point["rows"] for point in points], [point["value"] for point in points]
        if not points:
            continue
        counts |= {*rows}
        last, deep = place == len(lines), name in learned
        bounds = [point["ci95"] for point in points]
        _errors(
            axes,
            [count * 1.02 ** (place - 1) for count in rows],  # apart, so that no interval hides another
            values,
            bounds,
            color=ORANGE if last else TEAL if deep else BLUE,
            marker="D" if last else "s" if deep else "o",
            label=f"{short(name, 42)}: {score(values[-1], bounds[-1])}",
        )
        parts = (f"{value:.3g} with {count:,} rows" for count, value in zip(rows, values, strict=True))
        told.append(f"{name} {', '.join(parts)}")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(counts)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{round(value):,}")
    axes.set_xlabel("training rows")
    axes.margins(x=0.1, y=0.12)
    return "; ".join(told)


def _errors(axes: "Axes", x: Sequence[float], y: Sequence[float], bounds: Sequence[Any], **look: Any) -> None:
    """A line with its 95 % intervals; a point without one has no bar."""
    sides = [
        [max(value - ends[0], 0) if ends else 0 for value, ends in zip(y, bounds, strict=True)],
        [max(ends[1] - value, 0) if ends else 0 for value, ends in zip(y, bounds, strict=True)],
    ]
    axes.errorbar(x, y, yerr=sides, capsize=4, elinewidth=1.2, markersize=5, **look)


# ---- what decides, on rows of the data ----


class Beside(NamedTuple):
    """A test row with two maps: where hiding a patch lowers the score of the class that each answered."""

    photo: np.ndarray
    """uint8 [height, width, 3]."""
    true: str
    answers: tuple[str, str]
    """Of the classical learner and of the network."""
    maps: tuple[np.ndarray, np.ndarray]
    """Floats [rows, columns] of any resolution, which cover the photo; positive supports the answer."""


@styled
def maps_figure(rows: Sequence[Beside], learner: str) -> "Figure":
    """Photo, map of the classical learner and map of the network, one test row a line. It shows rows of the data."""
    heights = [min(TALLEST, ACROSS * row.photo.shape[0] / row.photo.shape[1]) for row in rows]
    figure = canvas(WIDTH, 0.5 + sum(heights) + 0.36 * len(rows))
    places = figure.subplots(len(rows), 3, squeeze=False, height_ratios=heights)
    for line, row in zip(places, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(row.photo)
        _caption(line[0], row.true, MUTED)
        for axes, values, answer in zip(line[1:], row.maps, row.answers, strict=True):
            _map(axes, row.photo, values)
            _caption(axes, answer, MUTED if answer == row.true else ORANGE)
    headline(figure, f"True class | {learner} | network")
    wrong = [sum(row.answers[place] != row.true for row in rows) for place in (0, 1)]
    alt = (
        f"{len(rows)} test rows with the parts that decide for {learner}, which has {wrong[0]} of them wrong, and for "
        f"the network, which has {wrong[1]} wrong: orange supports the answer, blue speaks against it."
    )
    return finish(figure, alt, ROWS)


def _caption(axes: "Axes", text: str, colour: str) -> None:
    axes.set_title(shortened(text) if len(text) < 19 else f"{text[:17]}…", loc="center", pad=3, color=colour)


def _map(axes: "Axes", photo: np.ndarray, values: np.ndarray) -> None:
    """The photo in grey, with what supports the answer in orange and what speaks against it in blue."""
    from matplotlib.colors import to_rgb

    grey = photo.astype(float) @ np.array([0.299, 0.587, 0.114]) / 255
    height, width = grey.shape
    most = float(np.percentile(np.abs(values), STRONGEST)) or 1.0
    share = np.clip(values / most, -1, 1)
    colours = np.where(share[..., None] > 0, to_rgb(ORANGE), to_rgb(BLUE))
    axes.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    overlay = np.dstack([colours, 0.8 * np.abs(share)])
    axes.imshow(overlay, extent=(0, width, height, 0), interpolation="nearest")
