"""The demo of text-to-image: it generates images from a prompt, and shows how they develop."""

from typing import TYPE_CHECKING

import gradio as gr

from pipelines.apps import gallery, parts

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

MOST = 4  # images at a time


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    line = f"Makes images of what a text says. {parts.origin(loaded.results)}"
    blocks: gr.Blocks = gallery.page(loaded, line, most=MOST, prompts=True)
    return blocks
