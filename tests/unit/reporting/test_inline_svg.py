"""A figure in the page: its texts and colours stay, and nothing that could run or load something passes."""

import pytest

from pipelines.errors import RunError
from pipelines.plots import style
from pipelines.reporting.inline_svg import markup

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 100 50">{}</svg>'


def test_texts_and_colours_of_a_figure() -> None:
    bars = style.bars_figure(["猫 & <b>", "قطة"], [0.25, 0.5], "Bars", 1.0)
    found = markup(style.svg(bars), "bars", 'two "bars"')
    assert 'aria-label="two &quot;bars&quot;"' in found
    for text in ("猫 &amp; &lt;b&gt;", "قطة", "0.25", "0.50", "Bars"):
        assert f">{text}</text>" in found
    assert "fill:var(--blue)" in found
    assert "fill:var(--ink)" in found
    assert not [colour for colour in style.COLOURS if colour in found], "each colour has a value for dark mode"
    assert "font-family" not in found
    assert 'id="bars-' in found
    assert "url(#bars-" in found
    assert len(found) < 0.7 * len(style.svg(bars))


@pytest.mark.parametrize(
    "part",
    [
        "<script>alert(1)</script>",
        '<g onclick="alert(1)"><text>x</text></g>',
        '<image xlink:href="https://example.org/x.png"/>',
        '<image xlink:href="data:image/svg+xml;base64,AAAA"/>',
        '<path d="M 0 0" style="fill: url(https://example.org/x)"/>',
        '<path d="M 0 0" style="behavior: x; background: red"/>',
        '<foreignObject><iframe src="https://example.org"/></foreignObject>',
        '<use xlink:href="https://example.org/x.svg#a"/>',
        '<a href="javascript:alert(1)"><text>x</text></a>',
        '<style>@import "https://example.org"</style>',
        '<path d="&quot;&gt;&lt;script&gt;"/>',
    ],
)
def test_what_could_run_or_load_something_is_left_out(part: str) -> None:
    found = markup(SVG.format(part).encode(), "x", "x")
    for sign in ("script", "alert", "example.org", "svg+xml", "red", "import", "foreign", "onclick"):
        assert sign not in found


@pytest.mark.parametrize("content", [b"", b"no svg", b"<svg></svg>", SVG.replace("100", "wide").encode()])
def test_what_is_no_figure_is_said(content: bytes) -> None:
    with pytest.raises(RunError, match=r"figures/x\.svg: not a figure of Graft"):
        markup(content, "x", "x")
