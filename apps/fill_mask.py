"""The demo of fill-mask: it shows the likeliest words for [MASK] in a text."""

from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts
from pipelines.errors import DataError

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.fill_mask import FillMask

LONGEST = 20_000  # characters of a visitor's text
TOP = 5


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("FillMask", loaded.task)  # `launch` serves no other task here
    mask = task.tokenizer.mask_token

    def fill(text: str) -> tuple[dict[str, float] | None, str]:
        """The likeliest words at the first mask, and the text with the likeliest word at every mask."""
        if not text.strip():
            return None, ""
        with parts.shown():
            if len(text) > LONGEST:
                raise DataError(f"the text has {len(text):,} characters; at most {LONGEST:,} are read here")
            found = loaded.infer(text, top_k=TOP)
        filled = text.replace("[MASK]", mask)
        for words in found:
            filled = filled.replace(mask, words[0]["token"], 1)
        return {word["token"]: word["score"] for word in found[0]}, filled

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, f"Finds the words that are masked in a text. {parts.origin(loaded.results)}")
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        hint = "Put [MASK] where a word is missing, once or more"
                        text = gr.Textbox(
                            label="Text",
                            info=hint,
                            lines=5,
                            max_lines=16,
                            max_length=LONGEST,
                            placeholder="The sky is [MASK].",
                        )
                        button = gr.Button("Fill", variant="primary")
                    with gr.Column(min_width=300):
                        words = gr.Label(
                            label="At the first mask",
                            num_top_classes=TOP,
                            show_heading=False,
                            elem_classes="graft-bars",
                        )
                        filled = gr.Textbox(
                            label="With the likeliest word at each",
                            lines=2,
                            interactive=False,
                            placeholder=" ",
                            elem_classes="graft-output",
                        )
                        parts.hint("The likeliest words appear here.")
                rows = [[row["text"]] for row in parts.example_rows(loaded)[1]]
                if rows:
                    gr.Examples(rows, inputs=[text], label="Examples", examples_per_page=6, cache_examples=False)
            parts.card_tab(loaded)

        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([button.click, text.submit], fill, text, [words, filled], api_name="predict", **limits)
    return blocks
