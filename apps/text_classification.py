"""The demo of text classification: it shows the likeliest labels of a text or pair, and the words that decided the
answer.
"""

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import heat_map, parts
from pipelines.errors import DataError
from pipelines.models.occlusion import Region, Texts, hide, regions

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.text_classification import TextClassification

TOP = 5
LONGEST = 20_000  # characters of a visitor's text
PROGRESS = gr.Progress()  # Gradio finds it as the default of a parameter, and replaces it for each event
FLAT = 0.1  # log-odds; if no word changes more than this, there is nothing to show
LINE = {1: "A text is needed.", 2: "Two texts are needed."}


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("TextClassification", loaded.task)  # `launch` serves no other task here
    number = len(task.data.input_columns)

    def predict(*texts: str) -> tuple[Any, str]:
        """The likeliest labels with their confidences (for regression the number), and a note on what was not read."""
        with parts.shown():
            check(texts)
            return display(loaded.infer(*texts)), cut_note(task.read(*texts), texts)

    def explain(method: str, *texts: str, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        with parts.shown():
            check(texts)
            if method == heat_map.GRADIENTS:
                page, caption = by_gradients(loaded, texts)
            else:
                page, caption = look(
                    loaded, texts, lambda done, of: progress(done / of, desc="Hiding one word at a time")
                )
                caption += heat_map.tested(loaded, "occlusion")
        return page, f"<p>{html.escape(caption)}</p>"

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(task, loaded.results))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        fields = [
                            gr.Textbox(
                                label=label,
                                lines=6 if number == 1 else 3,
                                max_lines=14,
                                max_length=LONGEST,
                                placeholder="Paste a text",
                            )
                            for label in (("Text",) if number == 1 else ("First text", "Second text"))
                        ]
                        button = gr.Button("Classify" if task.data.labels else "Estimate", variant="primary")
                    with gr.Column(min_width=300):
                        single = not task.options.multi_label
                        answer = gr.Label(
                            label="Prediction", num_top_classes=TOP, show_heading=single, elem_classes="graft-bars"
                        )
                        unread = gr.Markdown(elem_classes="graft-note")
                        method = heat_map.choice()
                        ask = gr.Button("What did it look at?", elem_classes="graft-ask")
                        words = gr.HTML(elem_classes="graft-passage")
                        note = gr.HTML(elem_classes="graft-note")
                        parts.hint(
                            "The likeliest labels appear here." if task.data.labels else "The estimate appears here."
                        )
                rows = [[row[column] for column in task.data.input_columns] for row in parts.example_rows(loaded)[1]]
                if rows:
                    gr.Examples(rows, inputs=fields, label="Examples", examples_per_page=6, cache_examples=False)
            parts.card_tab(loaded)

        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on(
            [button.click, *[field.submit for field in fields]],
            predict,
            fields,
            [answer, unread],
            api_name="predict",
            **limits,
        )
        # A map shows its own text, so it can stay when the fields change.
        ask.click(explain, [method, *fields], [words, note], api_visibility="private", show_progress_on=words, **limits)
    return blocks


def check(texts: Sequence[str]) -> None:
    """Raise DataError for an empty or very long text."""
    if not all(text and text.strip() for text in texts):
        raise DataError(LINE[len(texts)])
    longest = max(map(len, texts))
    if longest > LONGEST:
        raise DataError(f"the text has {longest:,} characters; at most {LONGEST:,} are read here")


def display(answer: Any) -> Any:
    """An answer of the task in the form of gr.Label: label -> confidence, or a number as text."""
    return f"{answer['value']:.4g}" if isinstance(answer, dict) else {one["label"]: one["score"] for one in answer}


def cut_note(read: Sequence[int], texts: Sequence[str]) -> str:
    """A note for texts that are longer than the model reads."""
    short = [
        f"the first {n:,} of {len(text.rstrip()):,} characters"
        for n, text in zip(read, texts, strict=True)
        if n < len(text.rstrip())
    ]
    return f"Too long to be read whole: {' and '.join(short)} were read." if short else ""


def describe(task: "TextClassification", results: dict[str, Any] | None) -> str:
    """One line below the title: the labels, and the origin of the model."""
    what = "Two texts in" if len(task.data.input_columns) > 1 else "A text in"
    few = "any" if task.options.multi_label else "one"
    line = f"{what}, a number out."
    if task.data.labels:
        line = f"{what}, {few} of {len(task.labels):,} labels out: {parts.listed(task.labels)}."
    source = parts.origin(results)
    return f"{line} {source}." if source else line


# ---- the words ----


def look(loaded: "Loaded", texts: Texts, tick: Callable[[int, int], Any] | None = None) -> tuple[str, str]:
    """The texts as HTML, with colours for the words that supported or opposed the first answer, and a sentence about
    them.

    It removes each word in turn and shows how much the answer loses. Takes at most 82 forward passes.
    """
    task = cast("TextClassification", loaded.task)  # `launch` serves no other task here
    read = task.read(*texts)
    places = regions(texts, read)
    if len(places) < 2:
        return coloured(texts, read, places, [0.0] * len(places)), "There is one word only: nothing to compare it with."
    label = loaded.infer(*texts, top_k=1)[0]["label"] if task.data.labels else ""

    def score(inputs: Sequence[Texts]) -> list[float]:
        if not task.data.labels:
            return [loaded.infer(*one)["value"] for one in inputs]
        return [
            parts.log_odds(loaded.infer(*one, top_k=len(task.labels)), label, task.options.multi_label)
            for one in inputs
        ]

    base = score([texts])[0]
    drops = parts.occlusion(score, texts, places, hide, tick=tick)
    flat = FLAT if task.data.labels else 0.01 * max(abs(base), 0.1)
    place, worst = max(enumerate(drops), key=lambda item: abs(item[1]))
    if abs(worst) < flat:
        stays = parts.percent(base) if task.data.labels else f"{base:.3g}"
        return coloured(
            texts, read, places, [0.0] * len(places)
        ), f"No single word decides: whichever is taken out, the answer stays at {stays}."
    region = places[place]
    words = " ".join(texts[region.text][region.start : region.end].split())
    of, show = (f" “{label}”", parts.percent) if task.data.labels else (" the number", lambda value: f"{value:.3g}")
    caption = (
        f"Without “{words}”{of} goes from {show(base)} to {show(base - worst)}. Green words raise it, orange words "
        "lower it."
    )
    return coloured(texts, read, places, drops), caption


def by_gradients(loaded: "Loaded", texts: Texts) -> tuple[str, str]:
    """The same by the gradients of the model; a text needs two dozen forward and backward passes."""
    task = cast("TextClassification", loaded.task)
    row = dict(zip(task.data.input_columns, texts, strict=True))
    found, _ = heat_map.explained(loaded, row, heat_map.GRADIENTS)
    answer = f"“{task.labels[found.number]}”" if task.data.labels else "the number"
    caption = f"Green words raise {answer}, orange words lower it." + heat_map.tested(loaded, found.method)
    return coloured(texts, task.read(*texts), found.places, found.values.tolist()), caption


def coloured(texts: Sequence[str], read: Sequence[int], places: Sequence[Region], drops: Sequence[float]) -> str:
    """HTML: green if removing the words lowered the answer's score, orange if it raised it; unread text is pale."""
    highest = max(map(abs, drops), default=0.0) or 1.0
    lines = []
    for number, text in enumerate(texts):
        pieces, at = [], 0
        for region, drop in zip(places, drops, strict=True):
            if region.text == number:
                share, ground = abs(drop) / highest, "20, 170, 140" if drop > 0 else "235, 125, 30"
                style = (
                    f' style="background: rgba({ground}, {0.65 * share:.2f}); border-radius: .2rem"'
                    if share > 0.05
                    else ""
                )
                pieces += [
                    html.escape(text[at : region.start]),
                    f"<span{style}>{html.escape(text[region.start : region.end])}</span>",
                ]
                at = region.end
        pieces.append(html.escape(text[at : max(at, read[number])]))
        rest = html.escape(text[max(at, read[number]) :])
        lines.append("".join(pieces) + (f'<span style="opacity: .45">{rest}</span>' if rest.strip() else ""))
    return "".join(f"<p>{line}</p>" for line in lines).replace("\n", "<br>")
