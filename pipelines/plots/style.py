"""The common style of all figures: numbers and records in, matplotlib figures out (object API, no global state).

A figure's alt text is its label (`get_label()`). Its gid is "rows" if it shows rows of the data: such a figure stays in
the run folder and is never published. `png` and `svg` write both into the file ("Description", "Comment").

A figure of the width WIDTH fits a phone without scaling, and no text of it is smaller than 10 points. The page's style
sheet has a variable for each colour, with a second value for dark mode; so a figure is transparent, and only `png` puts
paper below it.
"""

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, EDGE, GRID, PAPER = "#1f2733", "#5d6879", "#98a2b3", "#e4e7ec", "#ffffff"
# blue, orange and bluish green differ for every kind of colour blindness, and have a contrast of 4.5 on white
BLUE, ORANGE, TEAL, PALE = "#2563a5", "#b45309", "#0f766e", "#a9c5e3"
COLOURS = {  # as they are called in reporting/style.css
    INK: "ink",
    MUTED: "muted",
    EDGE: "edge",
    GRID: "line",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    TEAL: "teal",
    PALE: "pale",
}
WIDTH = 4.6  # inches
SMALL, TITLE = 10, 11  # points
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
        "font.size": SMALL,
        "text.parse_math": False,  # a label may contain a $
        "text.color": INK,
        "axes.titlesize": SMALL,
        "axes.titleweight": "normal",
        "axes.titlelocation": "left",
        "axes.titlecolor": MUTED,
        "axes.titlepad": 6,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": EDGE,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": EDGE,
        "ytick.color": EDGE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "lines.linewidth": 1.8,
        "legend.frameon": True,
        "legend.facecolor": PAPER,
        "legend.edgecolor": "none",
        "legend.framealpha": 0.85,
        "legend.fontsize": SMALL,
        "legend.handlelength": 1.4,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "svg.fonttype": "none",  # texts stay texts: the page's font and colours, and scripts that no font here has
        "svg.hashsalt": "graft",  # the same figure has the same bytes
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
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def headline(figure: "Figure", text: str) -> None:
    """Write the title at the top left of the figure, in as many lines as it needs."""
    lines = textwrap.wrap(" ".join(text.split()), max(16, int(figure.get_figwidth() * 10.2)))
    figure.suptitle("\n".join(lines), x=0.02, ha="left", fontsize=TITLE, fontweight="bold", color=INK)


LONGEST = 1.75  # inches of a name at an axis


def shortened(name: str) -> str:
    """The name as one line of at most LONGEST inches."""
    line = short(name, 60)
    while inches(line) > LONGEST:
        line = line.removesuffix("…")[:-1] + "…"
    return line


def inches(text: str) -> float:
    """About how wide a text of the size SMALL is; matplotlib cannot measure the letters that its fonts lack."""
    widths = (1.0 if _is_wide(sign) or sign in "MWmw@%—…" else 0.75 if sign.isupper() else 0.62 for sign in text)
    return sum(widths) * SMALL / 72


def names_on_y(axes: "Axes", names: Sequence[str]) -> None:
    """Label the places of the y axis with names, shortened if they are long."""
    shown = [shortened(name) for name in names]
    axes.set_yticks(range(len(shown)), shown)
    room = room_for_wide(shown)
    if room:
        axes.set_ylabel(axes.get_ylabel() or " ", labelpad=4 + 72 * room)


def room_for_wide(names: Sequence[str]) -> float:
    """Inches to add for Chinese and other wide letters: matplotlib measures them too narrow if its fonts lack them."""
    return 0.45 * SMALL / 72 * max((sum(map(_is_wide, name)) for name in names), default=0)


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def finish(figure: "Figure", alt: str, shows: str = AGGREGATE) -> "Figure":
    """Set a figure's alt text and whether it shows rows of the data. Returns the figure."""
    figure.set_label(" ".join(alt.split()))
    figure.set_gid(shows)
    return figure


def png(figure: "Figure", dpi: int = 160) -> bytes:
    """The figure on white paper with round corners, as a PNG file that holds its alt text and whether it shows rows."""
    from matplotlib.patches import FancyBboxPatch

    width, height = figure.get_size_inches()
    edge = 0.01 * width
    paper = FancyBboxPatch(
        (edge, edge),
        width - 2 * edge,
        height - 2 * edge,
        boxstyle=f"round,pad={edge},rounding_size=0.1",
        transform=figure.dpi_scale_trans,
        facecolor=PAPER,
        edgecolor="none",
        zorder=-10,
    )
    paper.set_in_layout(False)
    figure.add_artist(paper)
    about = {"Description": str(figure.get_label()), "Comment": figure.get_gid() or ROWS, "Software": None}
    content = _saved(figure, "png", dpi, about)
    paper.remove()
    return content


def svg(figure: "Figure", dpi: int = 120) -> bytes:
    """The figure as an SVG file without paper; `dpi` is the resolution of photos in it."""
    about = {"Description": str(figure.get_label()), "Type": figure.get_gid() or ROWS, "Date": None, "Creator": None}
    return _saved(figure, "svg", dpi, about)


def _saved(figure: "Figure", form: str, dpi: int, about: dict[str, str | None]) -> bytes:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(_style()), warnings.catch_warnings():
        # a label in a script that no installed font covers is drawn as boxes; the report and its tables still show it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(out, format=form, dpi=dpi, metadata=about)
    return out.getvalue()


# ---- bars ----


def write_beside(axes: "Axes", x: float, y: float, note: str) -> None:
    """Write a small note to the right of a point."""
    axes.annotate(note, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=SMALL, color=MUTED)


def height_of_bars(count: int) -> float:
    """The height in inches of a figure with so many horizontal bars."""
    return 0.75 + 0.25 * count


@styled
def bars_figure(names: Sequence[str], values: Sequence[float], title: str, most: float) -> "Figure":
    """One horizontal bar for each name, in the given order; `most` is the highest possible value."""
    figure = canvas(WIDTH, height_of_bars(len(names)))
    axes = figure.subplots()
    axes.barh(range(len(names)), values, 0.7, color=BLUE)
    for place, value in enumerate(values):
        write_beside(axes, value, place, f"{value:.1f}" if most > 1 else f"{value:.2f}")
    names_on_y(axes, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * most)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(False, axis="y")
    headline(figure, title)
    return finish(
        figure, f"{title}: " + ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values, strict=True)) + "."
    )
