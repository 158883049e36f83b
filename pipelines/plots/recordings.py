"""Figures of generated recordings: spectrograms, beside those of real recordings."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.plots.style import AGGREGATE, MUTED, ROWS, WIDTH, canvas, finish, headline, styled
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 8  # recordings in a figure

# A panel: its title, decibels [bands, columns] with low pitches first, and seconds.
Panel = tuple[str, np.ndarray, float]


@styled
def spectrograms_figure(made: Sequence[Panel], title: str, shows: str = AGGREGATE) -> "Figure":
    """Spectrograms of samples, on one axis of time, at most eight.

    `shows` is ROWS if samples were made of recordings of rows.
    """
    shown = made[:SHOWN]
    across = 2 if len(shown) > 1 else 1
    down = math.ceil(len(shown) / across)
    figure = canvas(WIDTH, 0.45 + 1.15 * down)
    places = figure.subplots(down, across, squeeze=False).ravel()
    longest = max([seconds for _, _, seconds in shown] + [0.05])
    for place in places[len(shown) :]:
        place.axis("off")
    for place, panel in zip(places, shown, strict=False):
        _draw(place, panel, longest)
    for place in places[max(0, len(shown) - across) : len(shown)]:
        _seconds(place)
    headline(figure, title)
    return finish(figure, f"{title}: spectrograms of {len(shown)} generated recordings.", shows)


@styled
def beside_real_figure(pairs: Sequence[tuple[Panel, Panel]]) -> "Figure":
    """Spectrograms of samples over those of the real recordings of the same rows. It shows rows of the data."""
    shown = pairs[: SHOWN // 2]
    figure = canvas(WIDTH, 0.55 + 2.0 * len(shown))
    places = figure.subplots(2 * len(shown), 1, squeeze=False).ravel()
    longest = max([panel[2] for pair in shown for panel in pair] + [0.05])
    for number, (made, real) in enumerate(shown):
        _draw(places[2 * number], made, longest)
        _draw(places[2 * number + 1], real, longest)
    _seconds(places[2 * len(shown) - 1])
    headline(figure, "Samples over real recordings")
    return finish(
        figure, f"Spectrograms of {len(shown)} generated recordings, each over the real recording of its row.", ROWS
    )


def _draw(axes: "Axes", panel: Panel, longest: float) -> None:
    title, loud, seconds = panel
    top = float(loud.max()) if loud.size else 0.0
    axes.imshow(
        loud, origin="lower", aspect="auto", cmap="magma", vmin=top - 80, vmax=top, extent=(0, max(seconds, 0.01), 0, 1)
    )
    axes.set_xlim(0, longest)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.grid(False)
    axes.set_title(short(title, 40), color=MUTED, pad=2)


def _seconds(axes: "Axes") -> None:
    """Write the time below the last panel of a column; all panels have this axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("seconds", color=MUTED)
