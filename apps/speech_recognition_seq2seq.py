"""The demo of Whisper: it writes the transcript of a recording or the microphone, and shows the waveform with its
pieces.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts, sound, transcript
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.speech_recognition_seq2seq import SpeechRecognitionSeq2Seq

HEARD = "as it is heard"  # choice of language if the model shall detect it


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("SpeechRecognitionSeq2Seq", loaded.task)  # `launch` serves no other task here

    def listen(file: dict[str, Any] | None, language: str = HEARD) -> Iterator[tuple[str, str, str]]:
        """Yield the transcript as it grows; then the waveform, and a line about both."""
        recording = sound.uploaded_audio(file, task.rate)
        if recording is None:
            yield "", "", ""
            return
        samples = recording.samples
        with parts.shown():
            answer: dict[str, Any] = {}
            for answer in task.infer(
                loaded.model, (task.rate, samples), language=None if language == HEARD else language
            ):
                yield written(answer["parts"], done=False), "", ""
            marks = [(part["start"], part["end"], "") for part in answer["parts"]]
            picture = sound.waveform(samples, task.rate, marks if len(marks) > 1 else ())
            yield written(answer["parts"]), picture, summary(answer)

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, f"Writes down what is said. {parts.origin(loaded.results)}".strip())
        with gr.Tabs():
            with gr.Tab("Try it"):
                audio = sound.recorder()
                spoken = [] if not task.languages else [_languages(task)]
                output = gr.HTML(label="Transcript", show_label=True, container=True, elem_classes="graft-output")
                wave = gr.HTML(elem_classes="graft-wave")
                note = gr.Markdown(elem_classes="graft-note")
                files = parts.example_files(loaded, "audio")
                if files:
                    texts = [short(str(row.get("text") or ""), 60) for row in parts.example_rows(loaded)[1]]
                    gr.Examples(
                        [[name] for name in files],
                        inputs=[audio],
                        label="Examples",
                        example_labels=texts if len(texts) == len(files) and all(texts) else None,
                        examples_per_page=6,
                        cache_examples=False,
                    )
            parts.card_tab(loaded)

        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        gr.on(
            [audio.change, *[choice.change for choice in spoken]],
            listen,
            [audio, *spoken],
            [output, wave, note],
            api_name="predict",
            trigger_mode="always_last",
            **read,
        )
    return blocks


def _languages(task: "SpeechRecognitionSeq2Seq") -> gr.Dropdown:
    return gr.Dropdown([HEARD, *task.languages], value=task.language or HEARD, label="Spoken language")


def written(pieces: Sequence[Mapping[str, Any]], done: bool = True) -> str:
    """HTML with a line and its time for each piece. Words with a low confidence are underlined."""
    if not any(piece["text"] for piece in pieces):
        return (
            f'<p style="color: var(--body-text-color-subdued)">{"No speech was heard." if done else "Listening …"}</p>'
        )
    rows = []
    for piece in pieces:
        words = " ".join(_span(word) for word in piece["words"])
        time = f'<span style="{_TIME}">{transcript.clock(piece["start"])}</span>'
        rows.append(
            '<div style="display: flex; gap: .8rem; margin: .2rem 0">'
            f'<div>{time}</div><div style="{_TEXT}">{words}</div></div>'
        )
    return "".join(rows)


_TIME = "color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; font-size: .85rem; line-height: 1.7"
_TEXT = "line-height: 1.7; overflow-wrap: anywhere"


def _span(word: Mapping[str, Any]) -> str:
    doubt = max(0.0, 1 - word["confidence"] / transcript.DOUBT)
    style = f' style="border-bottom: 2px solid rgba(235, 125, 30, {0.35 + 0.65 * doubt:.2f})"' if doubt > 0 else ""
    return f'<span title="{word["confidence"]:.0%} sure"{style}>{html.escape(word["word"])}</span>'


def summary(answer: Mapping[str, Any]) -> str:
    """One line below a transcript: its length, the number of uncertain words, the language."""
    words = [
        {**word, "start": piece["start"], "end": piece["end"]} for piece in answer["parts"] for word in piece["words"]
    ]
    language = f" Language: {answer['language']}." if answer["language"] else ""
    return f"{transcript.summary(words, answer['seconds'])}{language}"
