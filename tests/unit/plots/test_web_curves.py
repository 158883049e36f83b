"""Curves as inline SVG: round ticks, hostile names, points that are missing."""

import math
import xml.etree.ElementTree as tree
from itertools import pairwise

import pytest

from pipelines.plots.web_curves import Curve, chart, ticks


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.61, 0.98), (-3.2, 140.0), (0, 1e-5), (5.0, 5.0), (0.0, 0.0)])
def test_ticks_are_round_and_hold_every_value(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-12
    assert found[-1] >= high * (1 - 1e-12)
    step = found[1] - found[0]
    assert all(math.isclose(b - a, step) for a, b in pairwise(found))
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 2.5, 5)


def test_a_chart_is_well_formed_and_escapes_names() -> None:
    evil = '<script>alert("1")</script>'
    text = chart(evil, [Curve(evil, [(0, 1.0), (10, 0.5)]), Curve("b", [(5, 0.25)], 1)], level=(evil, 0.75), marks=[4])
    assert "<script" not in text
    root = tree.fromstring(text)
    paths = {path.get("class"): path.get("d", "") for path in root.iter("path")}
    assert paths["curve c0"].startswith("M0.0 0.0L")  # the highest value is at the top of the drawing
    assert "dots c1" in paths, "one point is shown, too"
    assert paths["mark"].startswith("M400.0 ")
    assert [span.text for span in root.iter("span") if span.get("class") in ("c0", "c1", "level")] == [evil, "b", evil]
    assert ["from 1 to 0.5" in str(svg.get("aria-label")) for svg in root.iter("svg")] == [True]


def test_what_is_not_finite_is_left_out() -> None:
    assert chart("loss", [Curve("a", [(1, math.nan), (2, math.inf)])]) == ""
    assert chart("loss", []) == ""
    text = chart("loss", [Curve("a", [(1, math.nan), (2, 0.5), (4, 0.75)])])
    assert "nan" not in text
    assert text.count("h.01") == 2


def test_time_is_written_as_time() -> None:
    text = chart("loss", [Curve("a", [(0, 1.0), (7200, 0.5)])], in_time=True)
    assert "over time" in text
    assert ">33 min 20 s<" in text
