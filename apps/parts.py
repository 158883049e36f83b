"""What the demos share: style, header, model card, examples, images, and the search for the inputs that decide an
answer.
"""

import base64
import html
import json
import math
import mimetypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Without this, Gradio looks up its newest version and reports starts as soon as a page is built.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from pipelines.apps import visitor
from pipelines.apps.visitor import shown as shown
from pipelines.data.image.reading import read_image
from pipelines.errors import DataError
from pipelines.models.occlusion import occlusion as occlusion
from pipelines.reporting.results import run_name

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

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
    body_text_color_subdued="*neutral_500",  # readable on a light and on a dark background
    body_text_color_subdued_dark="*neutral_400",
    block_shadow="none",
    block_border_width="1px",
    stat_background_fill="*primary_500",
    stat_background_fill_dark="*primary_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
)

CSS = """
.gradio-container { width: 100% !important; max-width: 1040px !important; margin: 0 auto !important; }
.graft-header .html-container { padding: 0; }
.graft-header h1 { font-size: clamp(1.35rem, 5vw, 1.8rem); line-height: 1.2; font-weight: 650; margin: .4rem 0 .3rem; }
.graft-header p { color: var(--body-text-color-subdued); margin: 0 0 .7rem; overflow-wrap: anywhere; }
.graft-header ul { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .4rem; padding: 0; list-style: none; }
.graft-header li { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: .1rem .7rem; margin: 0;
  font-size: .85rem; background: var(--background-fill-primary); font-variant-numeric: tabular-nums; }
.graft-header b { color: var(--link-text-color); font-weight: 650; }
.graft-bars h2.output-class { padding: var(--size-5) var(--size-2) var(--size-3); overflow-wrap: anywhere; }
.graft-bars button.confidence-set { font-family: var(--font); line-height: 1.4; margin-bottom: var(--size-3); }
.graft-bars .inner-wrap { display: flex; flex-direction: column-reverse; position: relative; width: 100%; }
.graft-bars .inner-wrap::before { content: ""; position: absolute; inset: auto 0 0 0; height: .5rem;
  border-radius: .25rem; background: var(--border-color-primary); }
.graft-bars meter.bar { position: relative; height: .5rem; margin: 0; border-radius: .25rem; }
.graft-bars dl.label { margin: 0 0 .2rem; }
.graft-bars dl.label .line { border: none; }
.graft-bars dl.label dt { overflow-wrap: anywhere; text-align: left; }
.graft-bars dl.label dd { font-variant-numeric: tabular-nums; }
.graft-passage p { line-height: 1.7; overflow-wrap: anywhere; }
.graft-passage mark { background: var(--color-accent-soft); color: inherit;
  border-bottom: 2px solid var(--color-accent); padding: .05rem .15rem; border-radius: .2rem; }
.graft-made .grid-wrap { padding-top: var(--size-8); min-height: var(--size-80); max-height: none; }
.graft-made .thumbnail-lg { aspect-ratio: auto; height: auto; }
.graft-made .thumbnail-lg img { aspect-ratio: 1; height: auto; }
.graft-made .grid-container { grid-auto-rows: auto; grid-template-rows: none; }
.graft-made .caption-label { position: static; max-width: 100%; border: none; background: none;
  padding: .15rem .3rem; text-align: center; font-variant-numeric: tabular-nums; }
.graft-grids .grid-wrap { padding-top: var(--size-2); }
.graft-pixels img { image-rendering: pixelated; }
.graft-note, .graft-note p { color: var(--body-text-color-subdued); font-size: .9rem; }
.graft-card { max-width: 46rem; min-width: 0 !important; margin: 0 auto; overflow-wrap: break-word; }
.graft-card .prose { overflow-x: auto; }
.graft-card table { overflow-wrap: normal; word-break: normal; }
.graft-card img { max-width: 100%; margin: .4rem 0; border-radius: .4rem; }
footer .divider { display: none !important; }
"""


def page(loaded: "Loaded") -> gr.Blocks:
    """An empty page without telemetry that keeps visitors' files for a short time. `launch` sets its style."""
    keep = visitor.KEEP_UPLOADS
    blocks: gr.Blocks = visitor.Page(title=title(loaded), analytics_enabled=False, delete_cache=(keep, keep))
    return blocks


# ---- header: what this is, and how good ----


def title(loaded: "Loaded") -> str:
    """The hub id or, for a local model, the name of the run or folder; never a path."""
    if loaded.run is None and not Path(loaded.source).expanduser().exists():
        return loaded.source
    if loaded.run is None and loaded.results:
        return run_name(loaded.results)
    return (loaded.run or loaded.folder).resolve().name


def header(loaded: "Loaded", line: str) -> gr.HTML:
    """The title, one line of text, and the test score with its interval if it was measured."""
    numbers = "".join(f"<li>{item}</li>" for item in numbers_shown(loaded.results))
    name = re.sub(
        r"([_/.-])", r"\1<wbr>", html.escape(title(loaded))
    )  # long names break at the end of a word, also on a phone
    return gr.HTML(
        f"<h1>{name}</h1><p>{html.escape(line)}</p>" + (f"<ul>{numbers}</ul>" if numbers else ""),
        elem_classes="graft-header",
    )


def numbers_shown(results: dict[str, Any] | None) -> list[str]:
    if not results:
        return []
    name, test = results["metric"]["name"], results["test"]
    value = test["metrics"][name]  # None: undefined on these rows
    found = [f"{html.escape(name)} <b>{'undefined' if value is None else f'{value:.3f}'}</b>"]
    if name in test.get("ci95", {}):
        low, high = test["ci95"][name]
        found.append(f"95 % interval {low:.3f} to {high:.3f}")
    return [*found, f"n = {test['n']:,}, {html.escape(test['split'])} split"]


def origin(results: dict[str, Any] | None) -> str:
    """`Fine-tuned from X on Y`, as far as it is known; else empty."""
    if not results:
        return ""
    data = results["data"].get("name")
    if results["model"].get("random_weights"):
        return f"Trained from scratch on {data}" if data else ""
    base = results["model"].get("base_model") or results["model"].get("id")
    return " ".join(
        filter(
            None, ["Fine-tuned" if base or data else "", f"from {base}" if base else "", f"on {data}" if data else ""]
        )
    )


# ---- the model card ----


def card_tab(loaded: "Loaded") -> None:
    """A tab with the README; no tab if the model has no README."""
    readme = loaded.folder / "README.md"
    if readme.is_file():
        with gr.Tab("Model card"):
            gr.Markdown(card_text(readme), elem_classes="graft-card", latex_delimiters=[])


def card_text(readme: Path) -> str:
    """The card without front matter.

    Its own pictures are embedded; others become links, so no other host is contacted.
    """

    def markdown(match: re.Match[str]) -> str:
        alt, target = match.groups()
        data = _inline(target, readme.parent)
        return f"![{alt}]({data})" if data else _link(alt, target)

    def tag(match: re.Match[str]) -> str:
        data = _inline(match["target"], readme.parent)
        alt = re.search(r"\balt\s*=\s*\"([^\"]*)", match[0])
        return match[0].replace(match["target"], data) if data else _link(alt[1] if alt else "", match["target"])

    text = readme.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\A---\r?\n.*?\r?\n---\r?\n", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[([^\]]*)\]\(\s*<?([^)\s>]+)[^)]*\)", markdown, text)
    return re.sub(r"<img\b[^>]*?\bsrc\s*=\s*[\"']?(?P<target>[^\"'\s>]+)[^>]*>", tag, text, flags=re.IGNORECASE)


def _inline(target: str, folder: Path) -> str | None:
    """A picture of this folder as a data URI; None for anything else."""
    kind = mimetypes.guess_type(target)[0] or ""
    path = Path(target)
    if (
        not kind.startswith("image/")
        or ":" in target
        or path.is_absolute()
        or ".." in path.parts
        or not (folder / path).is_file()
    ):
        return None
    return f"data:{kind};base64,{base64.b64encode((folder / path).read_bytes()).decode()}"


def _link(text: str, target: str) -> str:
    return f"[{text or target}]({target})" if re.match(r"https?://", target) else text


# ---- examples ----


def example_rows(loaded: "Loaded") -> tuple[Path, list[dict[str, Any]]]:
    """The folder of sample rows and its rows. The model's own come first, then those of its run; there may be none."""
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
    """Files of the sample rows in one column.

    A downloaded list may only name files of its own folder, because they are served.
    """
    folder, rows = example_rows(loaded)
    names = [row[column] for row in rows if isinstance(row.get(column), str)]
    return [str(folder / name) for name in names if Path(name).name == name and (folder / name).is_file()]


# ---- uploads ----


def uploaded_image(value: Any) -> Any:
    """Read what gr.Image sends with `preprocess=False` as PIL, with the reader of training; None for no image.

    Gradio's own `preprocess` shows a traceback for a broken file, and supports other modes.
    """
    with shown():
        file = visitor.read(value)
        if file is None:
            return None
        image = read_image({"path": file.name, "bytes": file.data}, visitor.MAX_PIXELS, visitor.IMAGES)
        return image if image.width * image.height <= visitor.WHOLE_PIXELS else image.reduce(2)


# ---- what the model looked at ----


def log_odds(answers: Sequence[dict[str, Any]], label: str, multi: bool) -> float:
    """Log-odds of a label.

    A confident probability stays near 1.0 when a region is hidden, but its log-odds still change.
    """
    scores = {answer["label"]: answer["score"] for answer in answers}
    against = 1 - scores[label] if multi else sum(value for name, value in scores.items() if name != label)
    return math.log(max(scores[label], 1e-12)) - math.log(max(against, 1e-12))


def percent(log_odds: float) -> str:
    return f"{100 / (1 + math.exp(-log_odds)):.0f} %"
