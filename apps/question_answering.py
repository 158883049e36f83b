"""The demo of question answering: it marks the answer to a question in a passage, and lists other likely answers."""

import html
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.apps import parts
from pipelines.errors import DataError

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded

LONGEST, LONGEST_QUESTION = 20_000, 2000  # characters of a visitor's passage and question
NONE = "The passage does not answer this."
NO_ANSWER = "no answer"


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""

    def answer(question: str, context: str) -> tuple[str, dict[str, float] | None, str]:
        """The passage with its answer marked, the likeliest answers with their scores, and a sentence."""
        if not question.strip() or not context.strip():
            return "", None, "<p>A passage and a question are needed.</p>"
        with parts.shown():
            if len(context) > LONGEST:
                raise DataError(f"the passage has {len(context):,} characters; at most {LONGEST:,} are read here")
            found = loaded.infer(question, context)
        others: dict[str, float] = {}
        for one in found["nbest"]:  # the same words may occur several times: the likeliest place counts
            if one["text"] != found["answer"]:
                words = one["text"] or NO_ANSWER
                others[words] = max(others.get(words, 0.0), one["score"])
        line = (
            f"<strong>{html.escape(found['answer'])}</strong> ({found['score']:.0%} sure)" if found["answer"] else NONE
        )
        return marked(context, found), others or None, f"<p>{html.escape(question.strip())} {line}</p>"

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, f"Finds the answer to a question in a passage. {parts.origin(loaded.results)}")
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        question = gr.Textbox(
                            label="Question", max_length=LONGEST_QUESTION, placeholder="What do you want to know?"
                        )
                        context = gr.Textbox(
                            label="Passage", lines=9, max_lines=18, max_length=LONGEST, placeholder="Paste a text here"
                        )
                        button = gr.Button("Answer", variant="primary")
                    with gr.Column(min_width=300):
                        line = gr.HTML(elem_classes="graft-answer")
                        passage = gr.HTML(elem_classes="graft-passage")
                        spans = gr.Label(
                            label="Other answers it considered",
                            num_top_classes=5,
                            show_heading=False,
                            elem_classes="graft-bars",
                        )
                        parts.hint("The answer appears here, marked in its passage.")
                rows = [[row["question"], row["context"]] for row in parts.example_rows(loaded)[1]]
                if rows:
                    gr.Examples(
                        rows, inputs=[question, context], label="Examples", examples_per_page=6, cache_examples=False
                    )
            parts.card_tab(loaded)

        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on(
            [button.click, question.submit],
            answer,
            [question, context],
            [passage, spans, line],
            api_name="predict",
            **limits,
        )
    return blocks


def marked(context: str, found: dict[str, Any]) -> str:
    """The passage as HTML with the answer in <mark>."""
    start, end = (found["start"], found["end"]) if found["answer"] else (0, 0)
    pieces = [html.escape(piece) for piece in (context[:start], context[start:end], context[end:])]
    inside = f"<mark>{pieces[1]}</mark>" if pieces[1] else ""
    return f"<p>{pieces[0]}{inside}{pieces[2]}</p>".replace("\n", "<br>")
