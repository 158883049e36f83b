"""The demo of audio classification: it shows the likeliest classes of a recording, and its spectrogram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import heat_map, parts, sound
from pipelines.models import audio

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.audio_classification import AudioClassification

TOP = 5
PROGRESS = gr.Progress()  # Gradio finds it as the default of a parameter, and replaces it for each event


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("AudioClassification", loaded.task)  # `launch` serves no other task here
    rate = audio.rate(task.extractor)

    def predict(file: dict[str, Any] | None) -> tuple[dict[str, float] | None, str, str]:
        """The likeliest classes with their confidences, the spectrogram, and a note on what was not read."""
        recording = sound.uploaded_audio(file, rate, silent_ok=True)
        if recording is None:
            return None, "", ""
        samples = recording.samples
        with parts.shown():
            answers = loaded.infer((rate, samples), top_k=TOP)
        read = part_read(len(samples), task.window, rate)
        picture = sound.spectrogram(recording, rate, read)
        return {answer["label"]: answer["score"] for answer in answers}, picture, note(len(samples) / rate, read)

    def explain(file: dict[str, Any] | None, method: str, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """A heat map over the time of the recording, and a sentence about it."""
        recording = sound.uploaded_audio(file, rate, silent_ok=True)
        if recording is None:
            return "", ""
        with parts.shown():
            row = {"audio": (rate, recording.samples)}
            _, heat, caption = heat_map.pictures(
                loaded, row, method, lambda done, of: progress(done / of, desc="Silencing one stretch at a time")
            )
        alt = "Spectrogram with a heat map: orange where the recording speaks for the answer"
        return heat_map.figure(heat, alt), caption

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, describe(task.labels, loaded.results))
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=300):
                        field = sound.recorder()
                        parts.labelled_examples(loaded, "audio", field)
                    with gr.Column(min_width=300):
                        single = not task.options.multi_label
                        answer = gr.Label(
                            label="Prediction", num_top_classes=TOP, show_heading=single, elem_classes="graft-bars"
                        )
                        method = heat_map.choice()
                        button = gr.Button("What did it listen to?", elem_classes="graft-ask")
                        heat = gr.HTML(elem_classes="graft-map")
                        heard = gr.Markdown(elem_classes="graft-note")
                        parts.hint("The likeliest classes of a recording appear here.")
                picture = gr.HTML(elem_classes="graft-sound")
                unread = gr.Markdown(elem_classes="graft-note")
            parts.card_tab(loaded)

        # Only one forward pass runs at a time for all visitors. Our code reads the files.
        read: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
        looking = button.click(
            explain, [field, method], [heat, heard], api_visibility="private", show_progress_on=heat, **read
        )
        field.change(lambda: ("", ""), None, [heat, heard], cancels=[looking], queue=False, api_visibility="private")
        field.change(predict, field, [answer, picture, unread], api_name="predict", show_progress_on=answer, **read)
    return blocks


def describe(labels: Sequence[str], results: dict[str, Any] | None) -> str:
    """One line below the title: the classes, and the origin of the model."""
    line = f"Audio classification into {len(labels):,} classes: {parts.listed(labels)}."
    source = parts.origin(results)
    return f"{line} {source}." if source else line


def part_read(samples: int, window: int, rate: int) -> tuple[float, float] | None:
    """Start and end in seconds if only the middle of a recording is read, else None."""
    start = (samples - window) // 2
    return (start / rate, (start + window) / rate) if samples > window else None


def note(seconds: float, read: tuple[float, float] | None) -> str:
    """A note for a recording that is longer than the model reads."""
    return (
        f"The model reads {read[1] - read[0]:.1f} seconds at a time: the middle of these {seconds:.1f}." if read else ""
    )
