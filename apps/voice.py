"""What the demos of sound generation share: fields, the sound as it is made, saved files and their settings."""

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from pipelines.apps import parts, sound, visitor
from pipelines.data.audio import tags
from pipelines.data.text.spoken import spoken
from pipelines.errors import DataError, ModelError
from pipelines.generation import audio, requests

if TYPE_CHECKING:
    from pipelines.generation.audio import Sound
    from pipelines.inference.loading import Loaded

Request = dict[str, Any]

LONGEST = 1000  # characters of a visitor's text; about a minute of speech
USUAL_STEPS = 50  # steps that are always allowed, for the longest text
MOST_SECONDS = 20.0  # of a recording that is made out of nothing, or again
REDRAW = 0.4  # seconds between two drawings of a sound that grows
SYNTHETIC = "This sound is synthetic: a model made it. The saved file says so, and what made it."
LABELS = {  # setting -> label, step and explanation of its field
    "speed": ("Speed", 0.05, "1 is the speed of the recordings it learned from"),
    "temperature": ("Temperature", 0.05, "how much one try differs from the next; 0: not at all"),
    "steps": ("Steps", 1, "more take longer, and follow the model more closely"),
    "seconds": ("Seconds", 0.25, ""),
}


class Shown(NamedTuple):
    """What the page shows of a sound: a file to play or no change, two drawings, and a note."""

    player: Any
    wave: str
    spectrum: str
    note: str


# ---- fields ----


def text_field() -> gr.Textbox:
    """A field for what is to be said."""
    return gr.Textbox(label="Text", lines=3, max_lines=8, max_length=LONGEST, placeholder="What is to be said")


def choice_field(label: str, names: Sequence[str]) -> gr.Dropdown:
    """A field for one of the voices or classes that the model knows."""
    return gr.Dropdown(list(names), value=names[0], label=label)


def seed_field() -> gr.Textbox:
    """A field for the seed, a text because browsers round large numbers."""
    return gr.Textbox(
        "0", label="Seed", max_lines=1, max_length=40, info="the same seed and settings make the same sound"
    )


def setting_fields(task: Any) -> dict[str, gr.Slider]:
    """A slider for each number that the model takes, by the name of the setting."""
    usual = task.generation.defaults(0)
    fields = {}
    for name, setting in task.generation.settings.items():
        label, step, info = LABELS.get(name, (name.capitalize(), 0.05, ""))
        most = min(setting.most, MOST_SECONDS) if name == "seconds" else setting.most
        value = min(max(usual.get(name, setting.least), setting.least), most)
        whole = setting.kind is int
        fields[name] = gr.Slider(
            setting.least,
            most,
            value,
            step=1 if whole else step,
            label=label,
            info=info or None,
            precision=0 if whole else None,
        )
    return fields


# ---- sound in the making ----


def make(loaded: "Loaded", request: Request, name: str | None = None) -> Iterator[Shown]:
    """Yield what the page shows of a sound as it is made; the last has the file.

    `name` is the beginning of the file's name; left out: what is said, or the model. Raises DataError for a request
    that is not valid, ModelError for a model that makes no sound.
    """
    task: Any = loaded.task
    whole = requests.whole(task, request)
    start, drawn, made = time.monotonic(), 0.0, None
    for made in requests.results(task, loaded.model, whole):
        if time.monotonic() - drawn < REDRAW or not len(made.samples):
            continue
        yield Shown(gr.skip(), *drawings(made), f"{seconds_of(made)} so far …")
        drawn = time.monotonic()
    if made is None or not len(made.samples):
        raise ModelError("the model made no sound of this: try another text or seed")
    took = time.monotonic() - start
    about = requests.settings(parts.title(loaded), whole, task.generation.text)
    note = f"{seconds_of(made)} of sound at {made.rate / 1000:g} kHz, made in {took:.1f} s. {SYNTHETIC}"
    yield Shown(saved(made, name or requests.subject(parts.title(loaded), about), about), *drawings(made), note)


def seconds_of(made: "Sound") -> str:
    """`1.8 seconds`, for a note."""
    return f"{len(made.samples) / made.rate:.1f} seconds"


def drawings(made: "Sound") -> tuple[str, str]:
    """Waveform and spectrogram as HTML; values that are no numbers are drawn as silence."""
    samples = np.nan_to_num(made.samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return sound.waveform(samples, made.rate), sound.spectrogram(sound.Recording(samples, made.rate), made.rate)


def saved(made: "Sound", what: str, about: Mapping[str, Any]) -> str:
    """Save a sound in the folder from which Gradio serves and deletes files; the file holds the settings."""
    data = io.BytesIO()
    audio.save_wav(made, data, dict(about))
    name = requests.file_name(what, int(about["seed"]), ".wav")
    return str(save_bytes_to_cache(data.getvalue(), name, get_upload_folder()))


def asked(task: Any, values: Mapping[str, Any]) -> Request:
    """The request of the fields `values`. Raises DataError for more work than one request may be."""
    request: Request = {"seed": requests.check_seed(values["seed"])}
    spoken_length = LONGEST
    if "text" in values:
        text = values["text"].strip() if isinstance(values["text"], str) else ""
        if not text:
            raise DataError("a text is needed: write what is to be said")
        # numbers and symbols become words: what is spoken may be many times as long as what is written
        spoken_length = max(len(text), len(spoken(text))) if len(text) <= LONGEST else len(text)
        if spoken_length > LONGEST:
            raise DataError(
                f"{spoken_length:,} characters, as the text is spoken: at most {LONGEST:,} are read at a time here"
            )
        request["text"] = text
    for name in ("speaker", "label"):
        if name in values:
            request[name] = values[name]
    for name, setting in task.generation.settings.items():
        if name in values:
            # a whole number comes from a slider as 50.0
            value = values[name]
            whole = setting.kind is int and isinstance(value, float) and value.is_integer()
            request[name] = requests.number(name, str(int(value) if whole else value), setting)
    if request.get("seconds", 0) > MOST_SECONDS:
        raise DataError(f"{request['seconds']:g} seconds: at most {MOST_SECONDS:g} are made at a time here")
    steps = request.get("steps")
    if steps is not None:
        budget = LONGEST * max(int(task.generation.defaults(0).get("steps", 1)), USUAL_STEPS)
        length = spoken_length
        if length * steps > budget:
            raise DataError(
                f"a text of {length:,} characters in {steps:,} steps: at most {budget // steps:,} characters are read "
                "with so many steps"
            )
    return request


# ---- the page ----


def page(
    loaded: "Loaded",
    line: str,
    build_fields: Callable[[], dict[str, Any]],
    handler: Callable[[Mapping[str, Any]], Iterator[Shown]],
    *,
    button: str,
    hint: str,
    examples: Callable[[dict[str, Any]], None],
    label: str = "Recording",
) -> gr.Blocks:
    """The page of a task that makes sound. `handler` gets the values of the fields by their names.

    `hint` stands where the sound appears, and `examples` adds examples of the fields below them.
    """
    blocks: gr.Blocks
    with parts.page(loaded) as blocks:
        parts.header(loaded, line)
        with gr.Tabs():
            with gr.Tab("Try it"), gr.Row(equal_height=False):
                with gr.Column(min_width=280, scale=2):
                    fields = build_fields()
                    with gr.Row():
                        start = gr.Button(button, variant="primary", scale=3, min_width=140)
                        stop = gr.Button("Stop", min_width=80)
                    examples(fields)
                with gr.Column(min_width=300, scale=3):
                    player = made_player(label)
                    wave = gr.HTML(elem_classes=["graft-answer", "graft-above"])
                    spectrum = gr.HTML(elem_classes="graft-sound")
                    note = gr.Markdown(elem_classes=["graft-note", "graft-output"])
                    parts.hint(hint)
            with gr.Tab("Recording settings"):
                _what_made_it()
            parts.card_tab(loaded)

        names = list(fields)

        def speak(*values: Any) -> Iterator[Shown]:
            """Yield the player, the drawings and a note as the sound is made."""
            with parts.shown():
                if visitor.full():
                    raise DataError(visitor.FULL)
                yield from handler(dict(zip(names, values, strict=True)))

        outputs = [player, wave, spectrum, note]
        triggers = [start.click, *(fields[name].submit for name in ("text", "seed") if name in fields)]
        limits: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal"}
        speaking = gr.on(
            triggers,
            speak,
            list(fields.values()),
            outputs,
            api_name="predict",
            trigger_mode="once",
            show_progress_on=note,
            preprocess=False,
            **limits,
        )
        stop.click(None, cancels=[speaking], queue=False, api_visibility="private")
    return blocks


def made_player(label: str) -> gr.Audio:
    """A player of what was made, which saves the file with its settings."""
    colours = gr.WaveformOptions(waveform_color="#94a3b8", waveform_progress_color=sound.LINE)
    return gr.Audio(
        label=label,
        interactive=False,
        type="filepath",
        buttons=["download"],
        waveform_options=colours,
        elem_classes="graft-made-sound",
    )


def text_examples(loaded: "Loaded", fields: Mapping[str, Any]) -> None:
    """The texts of the sample rows as examples, each with its speaker if the page has a field for it."""
    rows = [row for row in parts.example_rows(loaded)[1] if isinstance(row.get("text"), str) and row["text"].strip()]
    rows = [row for row in rows if len(row["text"]) <= LONGEST]
    names = ["text"]
    known = [value for _, value in fields["speaker"].choices] if "speaker" in fields else []
    if known and all(row.get("speaker") in known for row in rows):
        names.append("speaker")
    found = list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))
    if found:
        gr.Examples(
            [list(one) for one in found],
            inputs=[fields[name] for name in names],
            label="Examples",
            examples_per_page=6,
            cache_examples=False,
        )


def _what_made_it() -> None:
    parts.what_made_it(
        "WAV",
        lambda: gr.Audio(label="WAV file", sources=["upload"], buttons=[], min_width=280),
        lambda file: tags.read_settings(file.data, file.name),
    )
