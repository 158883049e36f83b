"""The common style of all figures: numbers and records in, matplotlib figures out (object API, no global state).

A figure's alt text is its label (`get_label()`). Its gid is "rows" if it shows rows of the data: such a figure stays in
the run folder and is never published. `png` writes both into the file ("Description", "Comment").
"""

import io
import warnings
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2733", "#667085", "#e4e7ec", "#ffffff"
BLUE, ORANGE, TEAL, PALE = "#2b6cb0", "#d9722b", "#2a9d8f", "#a9c5e3"
AGGREGATE, ROWS = "aggregate", "rows"
P = ParamSpec("P")


@cache
def _style() -> Any:  # rcParams; matplotlib types their keys one by one
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    wide = (
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "WenQuanYi Zen Hei",
        "PingFang SC",
        "Microsoft YaHei",
        "Arial Unicode MS",
    )
    return {
        "font.family": ["DejaVu Sans", *[name for name in wide if name in installed]],
        "font.size": 9,
        "text.parse_math": False,  # a label may contain a $
        "text.color": INK,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
        "axes.titlepad": 10,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": "#98a2b3",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": "#98a2b3",
        "ytick.color": "#98a2b3",
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
    }


def styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Decorate a function that returns a figure, so that it draws in this style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_style()):
            return draw(*args, **kwargs)

    return drawn


def canvas(width: float, height: float) -> "Figure":
    """An empty figure; `width` and `height` are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: "Figure", alt: str, shows: str = AGGREGATE) -> "Figure":
    """Set a figure's alt text and whether it shows rows of the data. Returns the figure."""
    figure.set_label(" ".join(alt.split()))
    figure.set_gid(shows)
    return figure


def png(figure: "Figure", dpi: int = 160) -> bytes:
    """The figure as a PNG file that holds its alt text, and whether it shows rows of the data."""
    import matplotlib

    out = io.BytesIO()
    about = {"Description": str(figure.get_label()), "Comment": figure.get_gid() or ROWS, "Software": None}
    with matplotlib.rc_context(_style()), warnings.catch_warnings():
        # a label in a script that no installed font covers is drawn as boxes; the tables still show it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(out, format="png", dpi=dpi, metadata=about)
    return out.getvalue()


# ---- bars ----


def write_beside(axes: "Axes", x: float, y: float, note: str) -> None:
    """Write a small note to the right of a point."""
    axes.annotate(note, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=MUTED)


@styled
def bars_figure(names: Sequence[str], values: Sequence[float], title: str, most: float) -> "Figure":
    """One horizontal bar for each name, in the given order; `most` is the highest possible value."""
    figure = canvas(6.2, 1.1 + 0.28 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), values, 0.7, color=BLUE)
    for place, value in enumerate(values):
        write_beside(axes, value, place, f"{value:.1f}" if most > 1 else f"{value:.3f}")
    axes.set_yticks(range(len(names)), [short(name, 32) for name in names], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * most)
    axes.grid(False, axis="y")
    axes.set_title(title)
    return finish(
        figure, f"{title}: " + ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values, strict=True)) + "."
    )
