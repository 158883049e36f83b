"""What the demos share: looks, header, model card, examples, safe uploads, and maps of what the model looked at."""

import base64
import html
import json
import mimetypes
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# Gradio looks up its newest version and reports starts unless told otherwise before it builds a page.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from pipelines.data.images import read_image
from pipelines.errors import DataError, GraftError

if TYPE_CHECKING:
    from pipelines.load import Loaded

Input = TypeVar("Input")
Region = TypeVar("Region")

MAX_FILE_SIZE = "20mb"
KEEP_UPLOADS = 3600  # seconds that a visitor's files stay on the server's disk; all go when it stops

# ---- looks: system fonts (nothing to download), one accent, light and dark from the visitor's setting ----

THEME = gr.themes.Default(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_shadow="none",
    block_border_width="1px",
    stat_background_fill="*primary_500",
    stat_background_fill_dark="*primary_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
)

CSS = """
.gradio-container { max-width: 1040px !important; margin: 0 auto !important; }
.graft-header h1 { font-size: 1.7rem; line-height: 1.2; font-weight: 650; margin: .6rem 0 .25rem; overflow-wrap: anywhere; }
.graft-header p { color: var(--body-text-color-subdued); margin: 0 0 .7rem; overflow-wrap: anywhere; }
.graft-numbers { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .4rem; padding: 0; list-style: none; }
.graft-numbers li { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: .15rem .7rem; margin: 0;
  font-size: .85rem; background: var(--background-fill-primary); font-variant-numeric: tabular-nums; }
.graft-numbers b { color: var(--link-text-color); font-weight: 650; }
.graft-note { color: var(--body-text-color-subdued); font-size: .85rem; }
.graft-card { max-width: 46rem; margin: 0 auto; }
.graft-card table { display: block; overflow-x: auto; max-width: 100%; }
.graft-card img { max-width: 100%; }
"""


def page(loaded: "Loaded") -> gr.Blocks:
    """An empty page with telemetry off and the visitors' files short-lived; looks come from `launch`."""
    return gr.Blocks(title=title(loaded), analytics_enabled=False, delete_cache=(KEEP_UPLOADS, KEEP_UPLOADS))


# ---- header: what this is, and how good ----


def title(loaded: "Loaded") -> str:
    """The hub id, or the recipe's name; never a local path."""
    path = Path(loaded.source)
    if not path.exists():
        return str(loaded.source)
    return loaded.results["recipe"] if loaded.results else path.resolve().name


def header(loaded: "Loaded", line: str) -> gr.HTML:
    """Title, one line in words, and the test score with its interval where one was measured."""
    numbers = "".join(f"<li>{item}</li>" for item in _numbers(loaded.results))
    chips = f'<ul class="graft-numbers">{numbers}</ul>' if numbers else ""
    return gr.HTML(f"<h1>{html.escape(title(loaded))}</h1><p>{html.escape(line)}</p>{chips}", elem_classes="graft-header")


def _numbers(results: dict | None) -> list[str]:
    if not results:
        return []
    name, test = results["metric"]["name"], results["test"]
    found = [f"{html.escape(name)} <b>{test['metrics'][name]:.3f}</b>"]
    if name in test.get("ci95", {}):
        low, high = test["ci95"][name]
        found.append(f"95 % interval {low:.3f} to {high:.3f}")
    return [*found, f"n = {test['n']:,}, {html.escape(test['split'])} split"]


def origin(results: dict | None) -> str:
    """Fine-tuned from X on Y, as far as it is known, else empty."""
    if not results:
        return ""
    base = results["model"].get("base_model") or results["model"].get("id")
    data = results["data"].get("name")
    return " ".join(filter(None, ["Fine-tuned" if base or data else "", f"from {base}" if base else "", f"on {data}" if data else ""]))


# ---- the model card ----


def card_tab(loaded: "Loaded") -> None:
    """A tab with the README; none where the model has no README."""
    readme = loaded.folder / "README.md"
    if readme.is_file():
        with gr.Tab("Model card"):
            gr.Markdown(card_text(readme), elem_classes="graft-card", latex_delimiters=[])


def card_text(readme: Path) -> str:
    """The card without front matter. Its own pictures travel inside the page; others become links: nothing is asked of other hosts."""
    text = readme.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\A---\r?\n.*?\r?\n---\r?\n", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[([^\]]*)\]\(\s*<?([^)\s>]+)[^)]*\)", lambda m: _picture(m[1], m[2], readme.parent), text)
    return re.sub(r"<img\b[^>]*?\bsrc\s*=\s*[\"']?([^\"'\s>]+)[^>]*>", lambda m: _picture("", m[1], readme.parent), text, flags=re.I)


def _picture(alt: str, target: str, folder: Path) -> str:
    kind = mimetypes.guess_type(target)[0] or ""
    if re.match(r"[\w+.-]+:|//", target):
        return f"[{alt or target}]({target})"
    if kind.startswith("image/") and ".." not in Path(target).parts and not Path(target).is_absolute() and (folder / target).is_file():
        return f"![{alt}](data:{kind};base64,{base64.b64encode((folder / target).read_bytes()).decode()})"
    return alt


# ---- examples ----


def example_rows(loaded: "Loaded") -> tuple[Path, list[dict[str, Any]]]:
    """The folder of examples and its rows; no rows where there are none. The model's own first, then its run's."""
    for folder in (loaded.folder / "examples", *([loaded.run / "examples"] if loaded.run else [])):
        listing = folder / "examples.json"
        if not listing.is_file():
            continue
        try:
            rows = json.loads(listing.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{listing}: not valid JSON: {error}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{listing}: a list of rows is needed, such as [{{'image': '0.jpg', 'label': 'cat'}}]")
        return folder, rows
    return loaded.folder / "examples", []


def example_files(loaded: "Loaded", column: str) -> list[str]:
    """Files of the examples in one column. A downloaded listing may name only files beside it: they are served to visitors."""
    folder, rows = example_rows(loaded)
    names = [row[column] for row in rows if isinstance(row.get(column), str)]
    return [str(folder / name) for name in names if Path(name).name == name and (folder / name).is_file()]


# ---- uploads and errors ----


@contextmanager
def shown() -> Iterator[None]:
    """What goes wrong with a visitor's input becomes a message in the page, without a traceback."""
    try:
        yield
    except GraftError as error:
        raise gr.Error(str(error), print_exception=False) from None

from gradio.events import Dependency

class Photo(gr.Image):
    """gr.Image whose upload is read by the reader that training uses: upright, RGB, size-limited, errors in words."""

    is_template = True  # drawn by the front end as an Image

    def preprocess(self, payload: Any) -> Any:
        if payload is None:
            return None
        if payload.path is None:
            raise gr.Error("Send the image as a file.", print_exception=False)
        with shown():
            return read_image({"path": payload.orig_name or "the image", "bytes": Path(payload.path).read_bytes()})
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


# ---- what the model looked at ----


def occlusion(
    score: Callable[[Sequence[Input]], Sequence[float]],
    whole: Input,
    regions: Sequence[Region],
    hide: Callable[[Input, Region], Input],
    *,
    batch: int = 8,
    tick: Callable[[int, int], Any] | None = None,
) -> list[float]:
    """How far the score falls when each region is hidden: positive where the region spoke for the answer.

    `score` takes up to `batch` inputs at a time; `hide(whole, region)` returns the input without that region (a patch of
    an image, a word of a text); `tick(done, all)` hears of progress. Costs len(regions) + 1 forwards.
    """
    base = score([whole])[0]
    drops: list[float] = []
    for start in range(0, len(regions), batch):
        hidden = [hide(whole, region) for region in regions[start : start + batch]]
        drops += [base - value for value in score(hidden)]
        if tick:
            tick(len(drops), len(regions))
    return drops