"""The demo of WaveNet: it makes sound sample by sample, of a class or a speaker, or again from a spectrogram."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts, sound, visitor, voice
from pipelines.errors import DataError

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.audio_generation_wavenet import AudioGenerationWavenet


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("AudioGenerationWavenet", loaded.task)  # `launch` serves no other task here
    if task.mel is not None:
        return _again(loaded, task)
    names = task.labels or task.speakers

    def fields() -> dict[str, Any]:
        found: dict[str, Any] = {}
        if names:
            found[task.options.condition] = voice.choice_field("Class" if task.labels else "Speaker", names)
        return {**found, **voice.setting_fields(task), "seed": voice.seed_field()}

    def make(values: Mapping[str, Any]) -> Iterator[voice.Shown]:
        yield from voice.make(loaded, voice.asked(task, values))

    whose = f" of {parts.listed(names)}" if names else ""
    blocks: gr.Blocks = voice.page(
        loaded,
        f"Makes sound{whose}, one sample after the other, each from those before it. {parts.origin(loaded.results)}",
        fields,
        make,
        button="Make sound",
        hint="The sound appears here. It is made one sample after the other, which takes a while.",
        examples=lambda found: None,
    )
    return blocks


def _again(loaded: "Loaded", task: "AudioGenerationWavenet") -> gr.Blocks:
    """The page of a vocoder: a recording is heard beside what the model makes of its spectrogram."""

    def fields() -> dict[str, Any]:
        return {"audio": sound.recorder(), **voice.setting_fields(task), "seed": voice.seed_field()}

    def make(values: Mapping[str, Any]) -> Iterator[voice.Shown]:
        recording = sound.uploaded_audio(values["audio"], task.rate)
        if recording is None:
            raise DataError("a recording is needed: upload one, or speak")
        seconds = len(recording.samples) / task.rate
        if seconds > voice.MOST_SECONDS:
            raise DataError(f"{seconds:.1f} seconds: at most {voice.MOST_SECONDS:g} are made again here")
        request = {**voice.asked(task, values), "audio": (task.rate, recording.samples)}
        name = f"{Path(visitor.file_name(values['audio'])).stem} again"
        yield from voice.make(loaded, request, name)

    def examples(found: dict[str, Any]) -> None:
        parts.labelled_examples(loaded, "audio", found["audio"])

    blocks: gr.Blocks = voice.page(
        loaded,
        f"Makes the sound of a recording again, from its spectrogram alone. {parts.origin(loaded.results)}",
        fields,
        make,
        button="Make it again",
        hint="The recording is heard here again, made from its spectrogram alone.",
        examples=examples,
        label="Made again",
    )
    return blocks
