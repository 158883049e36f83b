"""Curves as HTML with inline SVG, for pages that are written often: one chart takes about a millisecond.

Lines stretch with the page and texts keep their size, so a chart can be read at every width. charts.css holds the
style; `.c0` to `.c7` are the colours of the curves.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from pipelines.utils.formatting import duration

COLOURS = 8
DOTS = 30  # a curve of at most so many points shows each as a dot
SIDE = 1000.0  # width and height of the drawing in its own units


class Curve(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


def chart(
    title: str,
    curves: Sequence[Curve],
    *,
    marks: Sequence[float] = (),
    level: tuple[str, float] | None = None,
    in_time: bool = False,
    from_zero: bool = False,
) -> str:
    """One chart; empty text if no curve has a finite point.

    `marks` are places of vertical lines, `level` is a named horizontal line. With `in_time` x is seconds.
    """
    shown = [
        Curve(curve.name, [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)], curve.colour)
        for curve in curves
    ]
    points = [point for curve in shown for point in curve.points]
    if not points:
        return ""
    heights = [y for _, y in points] + ([level[1]] if level else [])
    rows = ticks(min(heights + [0.0] * from_zero), max(heights))
    low, high = rows[0], rows[-1]
    left = min([x for x, _ in points] + [0.0])
    right = max(max(x for x, _ in points), left + 1e-9)
    columns = [tick for tick in ticks(left, right, 4) if left <= tick <= right]

    def place(x: float, y: float) -> str:
        return f"{SIDE * (x - left) / (right - left):.1f} {SIDE * (high - y) / (high - low):.1f}"

    lines = "".join(f"M0 {SIDE * (high - row) / (high - low):.1f}h{SIDE:.0f}" for row in rows)
    drawn = [f'<path class="grid" d="{lines}"/>']
    drawn += [f'<path class="mark" d="M{place(x, high)}V{SIDE:.0f}"/>' for x in marks if left <= x <= right]
    if level is not None:
        drawn.append(f'<path class="level" d="M{place(left, level[1])}H{SIDE:.0f}"/>')
    for curve in shown:
        colour = f"c{curve.colour % COLOURS}"
        path = "L".join(place(x, y) for x, y in curve.points)
        drawn.append(f'<path class="curve {colour}" d="M{path}"/>' if path else "")
        if len(curve.points) <= DOTS:
            dots = "".join(f"M{place(x, y)}h.01" for x, y in curve.points)
            drawn.append(f'<path class="dots {colour}" d="{dots}"/>' if dots else "")
    name = duration if in_time else _short_number
    across = "".join(
        f'<span style="left:{100 * (tick - left) / (right - left):.2f}%">{escape(name(tick) if tick else "0")}</span>'
        for tick in columns
    )
    up = "".join(
        f'<span style="bottom:{100 * (row - low) / (high - low):.2f}%">{escape(_short_number(row))}</span>'
        for row in rows
    )
    along = "over time" if in_time else "by step"
    key = [f'<span class="c{c.colour % COLOURS}">{escape(c.name)}</span>' for c in shown if len(shown) > 1 and c.points]
    key += [f'<span class="level">{escape(level[0])}</span>'] if level is not None else []
    return (
        f'<div class="curves" role="figure"><p class="curves-title">{escape(title)}<small>{along}</small></p>'
        f'<div class="plot"><div class="up" aria-hidden="true">{up}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{escape(alt(title, shown))}">'
        f'{"".join(drawn)}</svg><div class="across" aria-hidden="true">{across}</div></div>'
        + (f'<p class="curves-key">{"".join(key)}</p>' if key else "")
        + "</div>"
    )


def alt(title: str, curves: Sequence[Curve]) -> str:
    """The chart in words."""
    ends = [
        f"{curve.name} from {_short_number(curve.points[0][1])} to {_short_number(curve.points[-1][1])}"
        for curve in curves
        if curve.points
    ]
    return f"{title}: {'; '.join(ends)}."


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` steps apart."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _short_number(value: float) -> str:
    """25000 -> 25k, 0.30000000000000004 -> 0.3, 0.00002 -> 2e-5."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        unit, size = ("M", 1e6) if abs(value) >= 1e6 else ("k", 1e3)
        return f"{value / size:.3g}{unit}"
    if abs(value) < 0.001:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"
