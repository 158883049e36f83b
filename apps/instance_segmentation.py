"""The demo of instance segmentation: masks of single objects on a photo or video, above a threshold."""

from typing import TYPE_CHECKING

import gradio as gr

from pipelines.apps import detection

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    blocks: gr.Blocks = detection.page(loaded, "Finds the outlines of objects")
    return blocks
