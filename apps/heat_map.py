"""What the demos of classifiers share to explain an answer: the choice of a method, and the map by gradients."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from pipelines.apps import parts
from pipelines.models import attribution

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.inference.loading import Loaded

HIDING, GRADIENTS = "By hiding parts", "By gradients"  # the two methods, as a visitor reads them


def choice() -> gr.Radio:
    """The choice of a method. Put it below the answer and above its button: it shows when there is an answer."""
    return gr.Radio(
        [HIDING, GRADIENTS], value=HIDING, label="How to find out", elem_classes="graft-choose", show_label=False
    )


def explained(
    loaded: "Loaded", row: Mapping[str, Any], method: str, tick: Callable[[int, int], Any] | None = None
) -> tuple[attribution.Map, attribution.Parts]:
    """The map of the first answer by a method of `choice`, and the parts of the row. Raises DataError, ModelError."""
    task: Any = loaded.task
    read = task.parts(loaded.model, row)
    name = "integrated gradients" if method == GRADIENTS else "occlusion"
    return attribution.map_of(read, name, task.data.label_kind, tick=tick), read


def pictures(
    loaded: "Loaded", row: Mapping[str, Any], method: str, tick: Callable[[int, int], Any] | None = None
) -> "tuple[Image, Image, str]":
    """What the model reads of a row as an image, the same with the map over it, and a sentence."""
    task: Any = loaded.task
    found, read = explained(loaded, row, method, tick)
    shown = task.map_picture(row, read, found.values)
    return task.map_picture(row, read, np.zeros_like(found.values)), shown, sentence(loaded, found)


def sentence(loaded: "Loaded", found: attribution.Map) -> str:
    """What the colours say, and what the randomisation test of the run said. It names no label, so it is safe text."""
    return "Orange parts speak for the answer, blue parts against it." + tested(loaded, found.method)


def tested(loaded: "Loaded", method: str) -> str:
    """A sentence on the randomisation test of a method; empty if the run has none."""
    explanation = (loaded.results or {}).get("explanation")
    one = explanation.get(method) if isinstance(explanation, dict) else None
    value = one.get("rank_correlation") if isinstance(one, dict) else None
    if not isinstance(value, int | float):
        return ""
    passed = one.get("passed") if isinstance(one, dict) else None
    if passed is True:
        return (
            f" A model with random weights gives another map (rank correlation {value:.2f}): such maps depend on what "
            "the model learned, for the most part."
        )
    if passed is False:
        return (
            f" A model with random weights gives a partly similar map (rank correlation {value:.2f}), so it also shows "
            "the input, not only what the model learned."
        )
    return f" It is not shown that such maps depend on what the model learned (rank correlation {value:.2f})."


def figure(picture: "Image", alt: str) -> str:
    """A picture as HTML for a `graft-map`."""
    return f'<figure><img alt="{alt}" src="{parts.data_uri(picture, "JPEG")}" style="width: 100%"></figure>'
