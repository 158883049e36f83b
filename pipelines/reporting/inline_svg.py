"""A figure's SVG file as markup for an HTML page: in the page's font and colours, which change in dark mode.

    markup((run / "figures" / "calibration.svg").read_bytes(), "calibration")

Only known elements and properties pass, so a file that somebody else made cannot run a script or load anything.
"""

import re
import xml.etree.ElementTree as ET
from html import escape

from pipelines.errors import RunError
from pipelines.plots.style import COLOURS, WIDTH

ELEMENTS = {"g", "path", "rect", "text", "tspan", "defs", "use", "image", "clipPath"}
NUMBERS = {"x", "y", "width", "height", "transform", "d"}
STYLES = {
    "fill",
    "fill-opacity",
    "font-size",
    "font-weight",
    "opacity",
    "stroke",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-opacity",
    "stroke-width",
    "text-anchor",
}
HREF = "{http://www.w3.org/1999/xlink}href"
POINT = 1.45  # pixels of the page for a point, at most


def markup(content: bytes, name: str, alt: str) -> str:
    """The figure as one `svg` element, whose ids start with `name`; `alt` is its text for readers who do not see it.

    It is shown with at least a pixel for each point, so that its texts can be read. Raises RunError if it is no SVG.
    """
    try:
        root = ET.fromstring(content)
        width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    except (ET.ParseError, KeyError, ValueError) as error:
        raise RunError(f"figures/{name}.svg: not a figure of Graft ({error}): delete it, or train again") from error
    values = " ".join(value for part in root.iter() for value in part.attrib.values())
    used = set(re.findall(r"#([\w-]+)", values))
    inner = "".join(_element(child, name, used) for child in root)
    share = min(100, 100 * width / (72 * WIDTH))  # a narrow figure is not enlarged more than others
    size = f"width:{share:.0f}%;min-width:{width:.0f}px;max-width:{POINT * width:.0f}px"
    size += f";aspect-ratio:{width:.0f}/{height:.0f}"
    return f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width:g} {height:g}" style="{size}">{inner}</svg>'


def _element(element: ET.Element, name: str, used: set[str]) -> str:
    tag = str(element.tag).rpartition("}")[2]
    if tag not in ELEMENTS:
        return ""
    found = []
    for key, value in element.attrib.items():
        if key == "id" and value in used:
            found.append(("id", f"{name}-{value}"))
        elif key in NUMBERS:
            found.append((key, _rounded(value)))
        elif key == "clip-path" and (target := re.fullmatch(r"url\(#([\w-]+)\)", value)):
            found.append((key, f"url(#{name}-{target[1]})"))
        elif key == HREF and (target := re.fullmatch(r"#([\w-]+)", value)):
            found.append(("href", f"#{name}-{target[1]}"))
        elif key == HREF and tag == "image" and re.fullmatch(r"data:image/png;base64,[\w+/=\s]+", value):
            found.append(("href", "".join(value.split())))
        elif key == "style":
            found.append((key, _style(value)))
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in found if value)
    inner = escape(element.text or "", quote=False) if tag in ("text", "tspan") else ""
    inner += "".join(_element(child, name, used) for child in element)
    if tag in ("g", "text", "defs") and not inner:
        return ""
    if tag == "g" and not attributes:
        return inner
    return f"<{tag}{attributes}>{inner}</{tag}>"


def _style(text: str) -> str:
    """The allowed properties, with the page's variables in place of the colours of plots/style.py."""
    found = []
    for part in text.split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key in STYLES and re.fullmatch(r"[#\w., -]+", value):
            found.append(f"{key}:{f'var(--{COLOURS[value]})' if value in COLOURS else value}")
        elif key == "font-family" and "Mono" in value:
            found.append("font-family:ui-monospace,Menlo,Consolas,monospace")
    return ";".join(found)


def _rounded(text: str) -> str:
    """Numbers with two decimals, which is a hundredth of a point."""
    text = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), text)
    text = re.sub(r"rotate\(-?0 [^)]*\)", "", " ".join(text.split()))
    return text if re.fullmatch(r"[\w\s.,()+-]*", text) else ""
