"""The demo of unconditional image generation: it generates images from a seed, and shows how they develop."""

from typing import TYPE_CHECKING

import gradio as gr

from pipelines.apps import gallery, parts

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

MOST = 16  # images at a time


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    line = f"Makes images like those it was trained on, out of noise. {parts.origin(loaded.results)}"
    blocks: gr.Blocks = gallery.page(loaded, line, most=MOST, prompts=False)
    return blocks
