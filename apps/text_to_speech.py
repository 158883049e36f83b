"""The demo of text-to-speech: it says a text in one of the model's voices, and shows the sound as it is made."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.apps import parts, voice

if TYPE_CHECKING:
    from pipelines.inference.loading import Loaded
    from pipelines.tasks.text_to_speech import TextToSpeech


def build(loaded: "Loaded") -> gr.Blocks:
    """The page for one model; `launch` serves it."""
    task = cast("TextToSpeech", loaded.task)  # `launch` serves no other task here

    def fields() -> dict[str, Any]:
        found: dict[str, Any] = {"text": voice.text_field()}
        if len(task.speakers) > 1:
            found["speaker"] = voice.choice_field("Voice", task.speakers)
        return {**found, **voice.setting_fields(task), "seed": voice.seed_field()}

    def speak(values: Mapping[str, Any]) -> Iterator[voice.Shown]:
        yield from voice.make(loaded, voice.asked(task, values))

    blocks: gr.Blocks = voice.page(
        loaded,
        describe(task.speakers, loaded.results),
        fields,
        speak,
        button="Speak",
        hint="The recording appears here as it is spoken, sentence by sentence.",
        examples=lambda found: voice.text_examples(loaded, found),
    )
    return blocks


def describe(speakers: list[str], results: dict[str, Any] | None) -> str:
    """What the model does, in whose voices, and what it learned from."""
    whose = f" in the voices of {parts.listed(speakers)}" if len(speakers) > 1 else ""
    return f"Says what a text says{whose}. All its recordings are synthetic. {parts.origin(results)}".strip()
