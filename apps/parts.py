"""What the demos share: style, header, model card, examples, images, and the search for the inputs that decide an
answer.
"""

import base64
import html
import io
import json
import math
import mimetypes
import os
import re
from collections.abc import Callable, Sequence
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
from pipelines.utils.formatting import interval, readable_name, score, short

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.inference.loading import Loaded

# ---- looks: system fonts (nothing to download), one accent, light and dark from the visitor's setting ----

# Every text has a contrast of at least 4.5:1 to what is behind it, in light and in dark mode.
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
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_600",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    link_text_color="*secondary_700",
    link_text_color_active="*secondary_700",
    link_text_color_hover="*secondary_800",
    link_text_color_visited="*secondary_700",
    link_text_color_dark="*secondary_400",
    link_text_color_active_dark="*secondary_400",
    link_text_color_hover_dark="*secondary_300",
    link_text_color_visited_dark="*secondary_400",
    block_shadow="none",
    block_border_width="1px",
    stat_background_fill="*primary_500",
    stat_background_fill_dark="*primary_500",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_secondary_text_color="*neutral_800",
)

# A box is hidden while it holds nothing and nothing is on its way to it.
_IDLE = ':has(> [data-testid="status-tracker"].hide)'
_NO_VALUE = f'.block:has(> [aria-label="Empty value"]){_IDLE}'
_NO_HTML = f".block:has(> .html-container > .prose:empty){_IDLE}"
_NO_WORDS = f'.block:has(> div > [data-testid="markdown"] > .md:empty){_IDLE}'
_NO_TEXT = f".graft-output.block:has(textarea:placeholder-shown){_IDLE}"

CSS = (
    f"""
{_NO_VALUE}, {_NO_HTML}, {_NO_WORDS}, {_NO_TEXT} {{ display: none !important; }}
.block.graft-hint, .block:has(> [aria-label="Empty value"]) ~ :is(.graft-ask, .graft-choose),
.block.graft-found:has(> .html-container > .prose:empty) ~ :is(.graft-ask, .graft-choose) {{ display: none; }}
{_NO_VALUE} ~ .block.graft-hint, {_NO_TEXT} ~ .block.graft-hint {{ display: flex; }}
.block.graft-found:has(> .html-container > .prose:empty){_IDLE} ~ .block.graft-hint {{ display: flex; }}
.block.graft-answer:not(:has(> .html-container > .prose:empty)) ~ .block.graft-hint {{ display: none; }}
"""
    + """
.gradio-container { width: 100% !important; max-width: 1040px !important; margin: 0 auto !important; }
[role=tab].selected { color: var(--link-text-color) !important; }
:focus-visible { outline: 2px solid var(--link-text-color) !important; outline-offset: 2px; }
.graft-header .html-container { padding: 0; }
.graft-header h1 { font-size: clamp(1.35rem, 5vw, 1.8rem); line-height: 1.2; font-weight: 650; margin: .4rem 0 .3rem;
  overflow-wrap: anywhere; }
.graft-header p { color: var(--body-text-color-subdued); margin: 0 0 .7rem; overflow-wrap: anywhere; }
.graft-header ul { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .4rem; padding: 0; list-style: none; }
.graft-header li { border: 1px solid var(--border-color-primary); border-radius: 1rem; padding: .1rem .7rem; margin: 0;
  font-size: .85rem; background: var(--background-fill-primary); font-variant-numeric: tabular-nums; }
.graft-header b { font-weight: 650; }
.graft-header b.graft-good { color: var(--link-text-color); }

/* a box has its label above what it holds, never on it */
.block:has(> [data-testid="block-label"]):has(> :is(.image-container, .video-container)) { display: flex;
  flex-direction: column; }
.block > [data-testid="block-label"] { position: static !important; display: flex; flex: none; width: 100%;
  padding: var(--spacing-md) var(--spacing-xl); border: none; border-bottom: 1px solid var(--border-color-primary);
  border-radius: 0; background: none; }
.block:has(> [data-testid="block-label"]) > :is(.image-container, .video-container) { flex: 1; min-height: 0; }
.block > .video-container { height: auto !important; overflow: hidden; }
.block > .video-container > :is(.upload-container, .wrap) { flex: 1 1 0; min-height: 0; }
.block > .video-container > .upload-container > .upload-container { height: 100%; }
.block > .video-container :is(.mirror-wrap, video) { width: 100%; height: 100%; object-fit: contain; }
.block > [data-testid="block-label"] ~ div .icon-button-wrapper { border: none; background: none; }
.block > .html-container.label-padding { padding-top: var(--spacing-md); }

.block.graft-hint { align-items: center; justify-content: center; min-height: 7rem; padding: 1rem;
  border: 1px dashed var(--border-color-primary) !important; border-radius: var(--block-radius); text-align: center; }
.graft-hint p { color: var(--body-text-color-subdued); font-size: .9rem; margin: 0; }
.graft-bars h2.output-class { margin: var(--size-3) var(--size-2); padding: 0; overflow-wrap: anywhere;
  font-size: 1.5rem; line-height: 1.25; text-align: center; overflow: hidden;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; }
.graft-bars > .container { padding-top: var(--size-3); }
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
.graft-answer p { overflow-wrap: anywhere; }

/* the photo and its map: one size, one place */
.graft-photo .image-frame, .graft-photo .image-frame img, .graft-stack img { width: 100%; height: 16rem;
  object-fit: contain; }
.graft-photo .image-frame { overflow: hidden; }
.graft-map .html-container { padding: 0; }
.graft-map figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); overflow: hidden; }
.graft-stack { display: grid; }
.graft-stack img { grid-area: 1 / 1; margin: 0; }
.graft-stack img + img { opacity: .8; pointer-events: none; }
.graft-map label { display: flex; align-items: center; gap: .7rem; padding: .5rem .8rem; font-size: .85rem;
  border-top: 1px solid var(--border-color-primary); color: var(--body-text-color); }
.graft-map input { flex: 1; min-width: 0; accent-color: var(--color-accent); }
.graft-map.block:has(> [data-testid="status-tracker"]:not(.hide)) { min-height: 8rem; }

/* boxes and masks: what is drawn lies on the photo or video, and its words below */
.graft-found .html-container { padding: 0; }
.graft-found figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); overflow: hidden; }
.graft-found .graft-scene { position: relative; display: flex; justify-content: center; background: #0b1220; }
.graft-found .graft-scene > * { display: block; max-width: 100%; max-height: 70vh; margin: 0; }
.graft-found .graft-scene > [hidden] { display: none; }
.graft-found video { width: 100%; object-fit: contain; min-height: 9rem; }
.graft-found video + canvas { position: absolute; inset: 0; margin: auto; pointer-events: none; }
.graft-found .graft-slide { display: flex; align-items: center; gap: .7rem; padding: .6rem .8rem; font-size: .9rem;
  color: var(--body-text-color); border-top: 1px solid var(--border-color-primary); }
.graft-found input { flex: 1; min-width: 0; margin: 0; accent-color: var(--color-accent); }
.graft-found output { min-width: 2.4rem; font-variant-numeric: tabular-nums; text-align: right; }
.graft-found ul { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0; padding: 0 .8rem .7rem; list-style: none; }
.graft-found li { display: flex; align-items: center; gap: .4rem; margin: 0; padding: .1rem .7rem; font-size: .85rem;
  border: 1px solid var(--border-color-primary); border-radius: 1rem; color: var(--body-text-color);
  overflow-wrap: anywhere; }
.graft-found li i { flex: none; width: .7rem; height: .7rem; border-radius: .2rem; }
.graft-found li b { font-variant-numeric: tabular-nums; }
.graft-found .graft-times { padding: 0 .8rem .6rem; }
.graft-found .graft-times svg polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.graft-found .graft-times svg line { stroke: var(--body-text-color-subdued); vector-effect: non-scaling-stroke; }
.graft-found .graft-times .graft-x span:last-child { transform: translateX(-100%); }
.graft-found .graft-saves { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; padding: .6rem .8rem;
  border-top: 1px solid var(--border-color-primary); font-size: .85rem; }
.graft-found .graft-saves > * { color: var(--body-text-color); }
.graft-found .graft-saves > button, .graft-found .graft-saves > a { margin: 0; padding: .25rem .8rem;
  border-radius: .5rem; font-size: .85rem; line-height: 1.5; min-height: 0;
  border: 1px solid var(--border-color-primary); background: var(--button-secondary-background-fill);
  color: var(--button-secondary-text-color) !important; text-decoration: none; cursor: pointer;
  font-weight: 500; }
.graft-found.block:has(> [data-testid="status-tracker"]:not(.hide)) { min-height: 10rem; }

/* classes over the time of a video: six lines that are told apart in light and in dark mode, also by their dashes */
.graft-over-time { --line-0: #0f766e; --line-1: #c2410c; --line-2: #2563a5; --line-3: #a21caf; --line-4: #854d0e;
  --line-5: #475569; }
.dark .graft-over-time { --line-0: #2dd4bf; --line-1: #fb923c; --line-2: #60a5fa; --line-3: #e879f9; --line-4: #facc15;
  --line-5: #cbd5e1; }
.graft-over-time .graft-line-0 { stroke: var(--line-0); background: var(--line-0); }
.graft-over-time .graft-line-1 { stroke: var(--line-1); background: var(--line-1); stroke-dasharray: 7 3; }
.graft-over-time .graft-line-2 { stroke: var(--line-2); background: var(--line-2); stroke-dasharray: 2 3; }
.graft-over-time .graft-line-3 { stroke: var(--line-3); background: var(--line-3); stroke-dasharray: 9 3 2 3; }
.graft-over-time .graft-line-4 { stroke: var(--line-4); background: var(--line-4); stroke-dasharray: 4 4; }
.graft-over-time .graft-line-5 { stroke: var(--line-5); background: var(--line-5); stroke-dasharray: 12 3; }
.graft-over-time .graft-times { padding-top: .4rem; }
.graft-over-time .graft-area { cursor: crosshair; touch-action: pan-y; }
.graft-over-time .graft-area path { vector-effect: non-scaling-stroke; stroke-linecap: round; stroke-width: 6;
  stroke-dasharray: none; }
.graft-found.graft-over-time .graft-area line.grid { stroke: var(--border-color-primary); }
.graft-found.graft-over-time .graft-area line.cursor { stroke: var(--body-text-color); stroke-width: 1.5; }
.graft-found.graft-over-time .graft-times .graft-x span:last-child { transform: translateX(-50%); }
.graft-found.graft-over-time .graft-times .graft-x span:first-child { transform: none; }
.graft-over-time .graft-plot .graft-y { min-width: 2.4rem; }
.graft-over-time .graft-scene video { max-height: 19rem; }
.graft-over-time li b { white-space: nowrap; }
.block.graft-film .video-container:has(.graft-unplayable)::after { content: "This browser does not play the file. "
  "The answer has a copy that it plays."; position: absolute; inset: 30% 1rem auto; text-align: center;
  color: var(--body-text-color-subdued); font-size: .9rem; }

/* Gradio's scissors fetch a program from another host */
.video-container :is([aria-label^="Trim video"], [aria-label^="Reset video"]) { display: none; }

/* the frames that decide: a bar below each, the longer and warmer the more the answer needs the frame */
.graft-strip .html-container { padding: 0; }
.graft-strip figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); overflow: hidden; padding: .6rem .8rem; }
.graft-strip ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.4rem, 1fr)); gap: .5rem; margin: 0;
  padding: 0; list-style: none; }
.graft-strip li { margin: 0; padding: 0; }
.graft-strip button { display: block; width: 100%; padding: 0; border: none; background: none; cursor: pointer;
  font-size: .75rem; font-weight: 400; line-height: 1.5; text-align: left; }
.graft-strip button img { display: block; width: 100%; margin: 0; aspect-ratio: 4 / 3; object-fit: contain;
  background: #0b1220; border-radius: .3rem; }
.graft-strip button i { display: block; height: .4rem; margin: .25rem 0 .1rem; border-radius: .2rem;
  background: linear-gradient(90deg, color-mix(in srgb, #d61e32 calc(100% * var(--share)), #ffd03c)
  calc(100% * var(--share)), var(--border-color-primary) calc(100% * var(--share))); }
.graft-strip button span { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.graft-strip.block:has(> [data-testid="status-tracker"]:not(.hide)) { min-height: 6rem; }

/* classes of pixels: what is under the pointer, and a switch for each class */
.graft-found .graft-pointed { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem; min-height: 2.2rem;
  margin: 0; padding: .4rem .8rem; font-size: .85rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.graft-found .graft-pointed b { color: var(--body-text-color); }
.graft-found .graft-pointed i, .graft-legend i { flex: none; width: .8rem; height: .8rem; border-radius: .2rem; }
.graft-legend { border-top: 1px solid var(--border-color-primary); padding: .6rem .8rem; font-size: .85rem; }
.graft-legend > div { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .5rem;
  margin-bottom: .4rem; color: var(--body-text-color-subdued); }
.graft-legend button { margin: 0; padding: .15rem .7rem; border-radius: .5rem; font-size: .85rem; line-height: 1.5;
  border: 1px solid var(--border-color-primary); background: var(--button-secondary-background-fill);
  color: var(--button-secondary-text-color) !important; cursor: pointer; font-weight: 500; }
.graft-found .graft-legend ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  gap: 0 1rem; max-height: 19rem; overflow-y: auto; padding: 0; }
.graft-found .graft-legend li { display: block; padding: 0; border: none; border-radius: .3rem; }
.graft-legend li::after { content: ""; display: block; height: 2px; margin-left: 2.9rem;
  width: calc((100% - 2.9rem) * var(--share)); background: var(--colour); }
.graft-legend label { display: flex; align-items: center; gap: .5rem; padding: .25rem .1rem; cursor: pointer;
  color: var(--body-text-color); }
.graft-legend label:hover { background: var(--background-fill-secondary); }
.graft-legend span { overflow-wrap: anywhere; }
.graft-legend label span { flex: 1; min-width: 0; }
.graft-found .graft-legend input { flex: none; width: 1.1rem; height: 1.1rem; margin: 0; }
.graft-legend label:has(input:not(:checked)) i { opacity: .25; }

/* waveform and spectrogram: the picture stretches, its words keep their size */
.graft-plot { display: grid; grid-template-columns: auto minmax(0, 1fr); column-gap: .5rem; margin: .6rem 0 0;
  font-size: .75rem; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.graft-plot .graft-y { position: relative; min-width: 3.2rem; }
.graft-plot .graft-y span { position: absolute; right: 0; transform: translateY(50%); white-space: nowrap; }
.graft-plot .graft-area { grid-column: 2; position: relative; height: 11rem; overflow: hidden;
  border-bottom: 1px solid var(--border-color-primary); }
.graft-plot svg * { color: var(--color-accent) !important; }
.graft-plot span { color: var(--body-text-color-subdued) !important; }
.graft-plot .graft-area.graft-low { height: 8rem; }
.graft-plot .graft-area > img, .graft-plot .graft-area > svg { position: absolute; inset: 0; width: 100%; height: 100%;
  margin: 0; border-radius: .3rem; }
.graft-plot .graft-band { position: absolute; top: 0; bottom: 0; border-radius: .2rem;
  background: color-mix(in srgb, var(--color-accent) 14%, transparent); }
.graft-plot .graft-pale { position: absolute; top: 0; bottom: 0; background: var(--body-background-fill);
  opacity: .75; }
.graft-plot .graft-words, .graft-plot .graft-x { grid-column: 2; position: relative; height: 1.5rem;
  line-height: 1.5rem; }
.graft-plot .graft-words span { position: absolute; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  text-align: center; }
.graft-plot .graft-x span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.graft-plot .graft-x span:first-child { transform: none; }

/* a waveform above its spectrogram: the same times above each other */
.graft-above .graft-plot { padding-left: 3.7rem; }

.graft-made .grid-wrap { min-height: 0; max-height: none; }
.graft-made .icon-button-wrapper { top: auto !important; bottom: 100%; }
.graft-made .thumbnail-lg { aspect-ratio: auto; height: auto; }
.graft-made .thumbnail-lg img { aspect-ratio: 1; height: auto; }
.graft-made .grid-container { grid-auto-rows: auto; grid-template-rows: none; }
.graft-made .caption-label { opacity: 1 !important; position: static; max-width: 100%; border: none; background: none;
  padding: .15rem .3rem; text-align: center; font-variant-numeric: tabular-nums; }
.graft-pixels img { image-rendering: pixelated; }
.gradio-container .table-wrap th, .gradio-container .table-wrap td { text-align: left; }
.graft-note, .graft-note p { color: var(--body-text-color-subdued); font-size: .9rem; }
.graft-card { max-width: 46rem; min-width: 0 !important; margin: 0 auto; overflow-wrap: break-word; }
.graft-card table { display: block; width: max-content; max-width: 100%; overflow-x: auto; overflow-wrap: normal;
  word-break: normal; }
.graft-card :is(th, td) { border-color: var(--border-color-primary) !important; }
.graft-card img { max-width: 100%; margin: .4rem 0; border-radius: .4rem; }

/* the colours of code, of the player and of messages, with enough contrast on their grounds */
.gradio-container .prose .token, .gradio-container .prose .token.punctuation { color: var(--body-text-color); }
.gradio-container .prose .token:is(.string, .attr-value, .char) { color: #166534; }
.gradio-container .prose .token:is(.comment, .prolog) { color: #52606f; font-style: italic; }
.gradio-container .prose .token:is(.keyword, .operator.in) { color: #9d174d; }
.gradio-container .prose .token:is(.number, .boolean) { color: #9a3412; }
.gradio-container .prose .token:is(.builtin, .function, .class-name) { color: #1d4ed8; }
.dark .prose .token:is(.string, .attr-value, .char) { color: #86efac !important; }
.dark .prose .token:is(.comment, .prolog) { color: #a3b1c2 !important; }
.dark .prose .token:is(.keyword, .operator.in) { color: #f9a8d4 !important; }
.dark .prose .token:is(.number, .boolean) { color: #fdba74 !important; }
.dark .prose .token:is(.builtin, .function, .class-name) { color: #93c5fd !important; }
.timestamps time, .control-wrapper button, .control-wrapper span { color: var(--body-text-color-subdued) !important; }
.toast-title.error, .toast-text.error, .toast-close.error, .toast-close.error span {
  color: var(--error-text-color) !important; opacity: 1 !important; }
@media (max-width: 480px) { .tab-container button { padding-inline: .5rem !important; } }
footer .divider { display: none !important; }
"""
)

# Gradio draws pictures without an alternative text, and buttons with a picture alone have no name.
NAMES = """() => {
  const name = () => {
    document.querySelectorAll('button.gallery-item, button.thumbnail-lg').forEach(button => {
      const place = [...button.parentElement.children].indexOf(button) + 1;
      if (!button.innerText.trim() && !button.ariaLabel) button.ariaLabel = `Example ${place}`;
    });
    document.querySelectorAll('.block img[alt=""]').forEach(image => {
      const label = image.closest('.block').querySelector('[data-testid="block-label"]');
      if (label && image.closest('.image-frame')) image.alt = label.innerText.trim();
    });
  };
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
}"""


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
    recipe = loaded.results["recipe"] if loaded.results else title(loaded)
    line = line.strip().rstrip(".") + (f", with the recipe {recipe}." if recipe != title(loaded) else ".")
    name = re.sub(
        r"([_/.-])", r"\1<wbr>", html.escape(title(loaded))
    )  # long names break at the end of a word, also on a phone
    return gr.HTML(
        f"<h1>{name}</h1><p>{html.escape(line)}</p>" + (f"<ul>{numbers}</ul>" if numbers else ""),
        elem_classes="graft-header",
    )


def numbers_shown(results: dict[str, Any] | None) -> list[str]:
    """The test score with its interval and its number of rows, as HTML. A score whose best is low is not green."""
    if not results:
        return []
    name, test = results["metric"]["name"], results["test"]
    value = test["metrics"][name]  # None: undefined on these rows
    low = results["metric"]["direction"] == "min"
    good = "" if low or value is None else " class=graft-good"
    shown = html.escape("undefined" if value is None else score(value, test.get("ci95", {}).get(name)))
    found = [f"{html.escape(readable_name(name))} <b{good}>{shown}</b>" + (" (lower is better)" if low else "")]
    if name in test.get("ci95", {}):
        found.append(f"95 % interval {html.escape(interval(test['ci95'][name]))}")
    return [*found, f"n = {test['n']:,}, {html.escape(test['split'])} split"]


def origin(results: dict[str, Any] | None) -> str:
    """`Fine-tuned from X on Y`, as far as it is known; else empty."""
    if not results:
        return ""
    data = results["data"].get("name")
    if results["model"].get("random_weights"):
        return f"Trained from scratch on {data}" if data else ""
    if encoder := results["model"].get("encoder"):
        return f"Trained on {data}, with the encoder of {encoder}" if data else f"With the encoder of {encoder}"
    base = results["model"].get("base_model") or results["model"].get("name") or results["model"].get("id")
    return " ".join(
        filter(
            None, ["Fine-tuned" if base or data else "", f"from {base}" if base else "", f"on {data}" if data else ""]
        )
    )


def listed(names: Sequence[str]) -> str:
    """The first names of classes, for a line of text."""
    shown = ", ".join(short(name, 40) for name in names[:6])
    return shown + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")


def hint(text: str) -> None:
    """A sentence in the place of an answer; it goes when there is one. Add it below the answer, in the same column."""
    gr.HTML(f"<p>{html.escape(text)}</p>", elem_classes="graft-hint")


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


def data_uri(image: "Image", form: str) -> str:
    """A PIL image inside the page, so that no file stays on the server."""
    out = io.BytesIO()
    image.save(out, format=form, quality=88)
    return f"data:image/{form.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


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


def labelled_examples(loaded: "Loaded", column: str, field: Any) -> None:
    """The files of the sample rows for a field, if there are any, as buttons that are named by their labels."""
    files = example_files(loaded, column)
    if not files:
        return
    labels = [row.get("label") for row in example_rows(loaded)[1]]
    names = [", ".join(map(str, one)) if isinstance(one, list) else str(one or "") for one in labels]
    named = len(names) == len(files)
    if not any(names):  # the data have no labels
        names, named = [f"Example {number}" for number in range(1, len(files) + 1)], True
    shown_names = [short(name, 60) or "no label" for name in names] if named else None
    gr.Examples([[name] for name in files], [field], label="Examples", example_labels=shown_names, cache_examples=False)


# ---- what made a file ----


def what_made_it(
    kind: str, build_field: Callable[[], Any], read_settings: Callable[[visitor.Upload], dict[str, Any]]
) -> None:
    """A field for a file that was saved by the demo, and beside it the settings that it carries.

    `kind` is what such a file is called, PNG or WAV. A DataError of `read_settings` is shown to the visitor.
    """

    def tell(value: Any) -> Any:
        with shown():
            file = visitor.read(value)
            return gr.JSON(read_settings(file), visible=True) if file else gr.JSON(None, visible=False)

    gr.Markdown(
        f"Drop in a {kind} that was saved here: it carries the settings that made it.", elem_classes="graft-note"
    )
    with gr.Row(equal_height=False):
        dropped = build_field()
        told = gr.JSON(label="Made with", visible=False, min_width=280, elem_classes="graft-settings")
    # Not in the queue of the model: settings are read at once, even while the model is at work.
    read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "files"}
    dropped.change(tell, dropped, told, api_visibility="private", **read)


# ---- uploads ----


def uploaded_image(value: Any, page: int = 0) -> Any:
    """Read what gr.Image sends with `preprocess=False` as PIL, with the reader of training; None for no image.

    `page` is that of a TIFF, from 0.

    Gradio's own `preprocess` shows a traceback for a broken file, and supports other modes.
    """
    with shown():
        file = visitor.read(value)
        if file is None:
            return None
        image = read_image({"path": file.name, "bytes": file.data, "page": page}, visitor.MAX_PIXELS, visitor.IMAGES)
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
