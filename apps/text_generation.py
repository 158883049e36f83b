"""The demo of text generation: it continues a text, answers the parts of a prompt, or chats, word by word."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts
from pipelines.data.text import chat
from pipelines.errors import DataError

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.text_generation import TextGeneration

LONGEST = 20_000  # characters of a visitor's text


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("TextGeneration", loaded.task)  # `launch` serves no other task here
    if task.options.chat:
        return _chat(loaded, task)
    columns, answers = task.data.input_columns, task.options.prompt is not None

    def write(*values: Any) -> Iterator[str]:
        """Yield the growing text. The values are the texts of the columns, then the settings."""
        texts, (most, temperature, top_p, seed) = values[: len(columns)], values[len(columns) :]
        with parts.shown():
            long = next((name for name, text in zip(columns, texts, strict=True) if len(text) > LONGEST), None)
            if long is not None:
                raise DataError(f"{long} is too long: at most {LONGEST:,} characters are read here")
            wanted = {"max_new_tokens": int(most), "temperature": temperature, "top_p": top_p, "seed": int(seed)}
            for text in task.infer(loaded.model, *texts, **wanted):
                yield text if answers else texts[0] + text

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        does = f"Answers from {' and '.join(columns)}." if answers else "Goes on with a text."
        parts.header(loaded, f"{does} {parts.origin(loaded.results)}")
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        fields = [_field(name, place == len(columns) - 1) for place, name in enumerate(columns)]
                        with gr.Row():
                            button = gr.Button("Write", variant="primary", min_width=100)
                            stop = gr.Button("Stop", min_width=100)
                        with gr.Accordion("Settings", open=False):
                            settings = _settings(task)
                    with gr.Column(min_width=300):
                        answer = gr.Textbox(
                            label="Answer" if answers else "Text, continued",
                            lines=6,
                            max_lines=30,
                            interactive=False,
                            placeholder=" ",
                            elem_classes="graft-output",
                        )
                        parts.hint("The answer appears here." if answers else "The text and what follows appear here.")
                rows = [[row[name] for name in columns] for row in parts.example_rows(loaded)[1]]
                if rows:
                    gr.Examples(rows, inputs=fields, label="Examples", examples_per_page=6, cache_examples=False)
            parts.card_tab(loaded)

        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        asked = [*fields, *settings]
        writing = gr.on([button.click, fields[-1].submit], write, asked, answer, api_name="predict", **limits)
        stop.click(None, cancels=[writing], queue=False, api_visibility="private")
    return blocks


def _settings(task: "TextGeneration") -> list[gr.Component]:
    """The fields of the numbers that `infer` takes: tokens at most, temperature, top p and seed."""
    return [
        gr.Slider(1, 512, task.options.max_new_tokens, step=1, label="Tokens at most"),
        gr.Slider(0, 2, 0, step=0.05, label="Temperature", info="0: always the likeliest token"),
        gr.Slider(0.05, 1, 1, step=0.05, label="Top p", info="draw from the likeliest tokens of this probability"),
        gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53, info="the same seed draws the same text"),
    ]


def _chat(loaded: "Loaded", task: "TextGeneration") -> gr.Blocks:
    """The page of a model that answers in a chat."""

    def answer(
        text: str, talk: list[dict[str, Any]], system: str, most: int, temperature: float, top_p: float, seed: int
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield an empty field, and the conversation with the growing answer."""
        with parts.shown():
            if len(text) > LONGEST:
                raise DataError(f"the message is too long: at most {LONGEST:,} characters are read here")
            # the page sends more keys than these two, and a text as a list of its parts, which `turns` joins
            before = [{"role": one["role"], "content": one["content"]} for one in talk]
            messages = chat.turns([*before, {"role": "user", "content": text}])
            first = [{"role": "system", "content": system}] if system.strip() else []
            wanted = {"max_new_tokens": int(most), "temperature": temperature, "top_p": top_p, "seed": int(seed)}
            for written in task.infer(loaded.model, [*first, *messages], **wanted):
                yield "", [*messages, {"role": "assistant", "content": written}]

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, f"Answers in a chat. {parts.origin(loaded.results)}")
        with gr.Tabs():
            with gr.Tab("Try it"):
                # a model may write anything, so its words are not read as Markdown
                talk = gr.Chatbot(
                    label="Chat",
                    render_markdown=False,
                    elem_classes="graft-output",
                    feedback_options=None,
                    buttons=["copy", "copy_all"],
                )
                # with one line at first, the enter key sends the message
                field = gr.Textbox(label="Message", lines=1, max_lines=16, max_length=LONGEST, placeholder="Type here")
                with gr.Row():
                    button = gr.Button("Send", variant="primary", min_width=100)
                    stop = gr.Button("Stop", min_width=100)
                    clear = gr.Button("New chat", min_width=100)
                with gr.Accordion("Settings", open=False):
                    system = gr.Textbox(label="System message", info="what the model is to keep to", max_length=LONGEST)
                    settings = _settings(task)
                rows = [[row[chat.KIND][-1]["content"]] for row in parts.example_rows(loaded)[1]]
                if rows:
                    gr.Examples(rows, inputs=[field], label="Examples", examples_per_page=6, cache_examples=False)
            parts.card_tab(loaded)
        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        asked = [field, talk, system, *settings]
        writing = gr.on([button.click, field.submit], answer, asked, [field, talk], api_name="predict", **limits)
        stop.click(None, cancels=[writing], queue=False, api_visibility="private")
        clear.click(lambda: ("", []), None, [field, talk], cancels=[writing], api_visibility="private")
    return blocks


def _field(name: str, last: bool) -> gr.Textbox:
    return gr.Textbox(
        label=name.replace("_", " ").capitalize(),
        lines=2 if last else 6,
        max_lines=16,
        max_length=LONGEST,
        placeholder="Type or paste here",
    )
