"""The demo of speech recognition with CTC: it writes the transcript of a recording or the microphone, with times."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts, sound, transcript
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.speech_recognition_ctc import SpeechRecognitionCTC


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("SpeechRecognitionCTC", loaded.task)  # `launch` serves no other task here
    rate = task.rate

    def listen(file: dict[str, Any] | None) -> Iterator[tuple[str, str, str]]:
        """Yield transcript, waveform with its words, and a line about both; several times for a long recording."""
        recording = sound.uploaded_audio(file, rate)
        if recording is None:
            yield "", "", ""
            return
        samples = recording.samples
        with parts.shown():
            answer: dict[str, Any] = {}
            for answer in task.infer(loaded.model, (rate, samples)):
                yield transcript.written(answer["words"], answer["seconds"], done=False), "", ""
            words, seconds = answer["words"], answer["seconds"]
            marks = [(word["start"], word["end"], word["word"]) for word in words]
            picture = sound.waveform(samples, rate, marks)
            yield transcript.written(words, seconds), picture, transcript.summary(words, seconds)

    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, f"Writes down what is said. {parts.origin(loaded.results)}".strip())
        with gr.Tabs():
            with gr.Tab("Try it"):
                audio = sound.recorder()
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
        audio.change(listen, audio, [output, wave, note], api_name="predict", trigger_mode="always_last", **read)
    return blocks
