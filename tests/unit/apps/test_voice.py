"""What the demos of sound show, save and refuse. tests/browser tests them as a visitor."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.apps import voice
from pipelines.data.audio.tags import read_settings
from pipelines.errors import DataError, ModelError
from pipelines.generation.audio import Sound
from pipelines.utils.settings import Setting
from tests.support.pages import gradio_page

__all__ = ["gradio_page"]

pytestmark = pytest.mark.usefixtures("gradio_page")

SETTINGS = {"speed": Setting(float, 0.25, 4), "steps": Setting(int, 1, 200)}


def loaded(*sounds: Sound, settings: dict[str, Setting] = SETTINGS) -> Any:
    """A model that makes these sounds, one after the other."""

    def infer(model: Any, text: str, seed: int = 0, speed: float = 1, steps: int = 10) -> Iterator[Sound]:
        yield from sounds

    usual = {"speed": 1.0, "steps": 10}
    spec = SimpleNamespace(
        defaults=lambda seed: {name: usual[name] for name in settings},
        settings=settings,
        text="text",
        many="recordings",
    )
    return SimpleNamespace(
        task=SimpleNamespace(infer=infer, generation=spec), model=None, run=Path("a_voice"), folder=Path("a_voice"),
        source="a_voice", results=None,
    )  # fmt: skip


def tone(seconds: float, rate: int = 8000) -> Sound:
    return Sound(0.3 * np.sin(np.arange(round(seconds * rate)) / 5).astype(np.float32), rate)


def test_a_sound_is_drawn_as_it_grows_and_saved_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "REDRAW", 0)
    request = {"text": "Hello <b>there</b>", "seed": 3, "speed": 0.5}
    *growing, last = voice.make(loaded(tone(0.5), tone(1.0), tone(1.5)), request)
    assert [one.note for one in growing] == [f"{seconds} seconds so far …" for seconds in (0.5, 1.0, 1.5)]
    assert all(not isinstance(one.player, str) for one in growing)  # there is no file before the sound is complete
    assert Path(last.player).name == "hello-b-there-b-seed-3.wav"
    assert last.note.startswith("1.5 seconds of sound at 8 kHz, made in ")
    assert "This sound is synthetic" in last.note
    assert "Waveform of 1.5 seconds" in last.wave
    assert "Spectrogram of 1.5 seconds, up to 4 kHz" in last.spectrum
    made = read_settings(Path(last.player), "x.wav")
    assert made == {"model": "a_voice", "text": "Hello <b>there</b>", "seed": 3, "steps": 10, "speed": 0.5,
                    "synthetic": True}  # fmt: skip


def test_a_model_that_makes_no_sound_or_no_numbers() -> None:
    for sounds in ((), (Sound(np.zeros(0, np.float32), 8000),)):
        with pytest.raises(ModelError, match="the model made no sound of this: try another text or seed"):
            list(voice.make(loaded(*sounds), {"text": "a"}))
    broken = tone(1.0).samples.copy()
    broken[::7], broken[1], broken[2] = np.nan, np.inf, -np.inf
    *_, last = voice.make(loaded(Sound(broken, 8000)), {"text": "a"})
    assert "nan" not in last.wave
    *_, silent = voice.make(loaded(Sound(np.zeros(3, np.float32), 8000)), {"text": "a"})
    assert "Waveform of 0.0 seconds" in silent.wave


def test_what_is_asked_for() -> None:
    task = loaded().task
    assert voice.asked(task, {"text": " a b ", "speaker": "ann", "speed": 2, "steps": 50.0, "seed": " 7 "}) == {
        "text": "a b", "speaker": "ann", "speed": 2.0, "steps": 50, "seed": 7
    }  # fmt: skip
    assert voice.asked(task, {"label": "cat", "seed": "0"}) == {"label": "cat", "seed": 0}
    assert voice.asked(task, {"text": "x" * voice.LONGEST, "steps": 50, "seed": "0"})["steps"] == 50
    for values, words in (
        ({"text": "  ", "seed": "0"}, "a text is needed: write what is to be said"),
        ({"text": "a", "seed": "x"}, "is no seed"),
        ({"text": "a", "seed": "-1"}, "seed -1: give a number from 0"),
        ({"text": "x" * 251, "steps": 200, "seed": "0"}, "a text of 251 characters in 200 steps: at most 250"),
        ({"steps": 51, "seed": "0"}, "a text of 1,000 characters in 51 steps"),
        # what a visitor sends without the page
        ({"text": None, "seed": "0"}, "a text is needed"),
        ({"text": ["a"], "seed": "0"}, "a text is needed"),
        ({"text": "x" * 1001, "seed": "0"}, "1,001 characters, as the text is spoken: at most 1,000"),
        ({"text": "999999999999999 " * 62, "seed": "0"}, "characters, as the text is spoken: at most 1,000"),
        ({"text": "a", "seed": None}, "is no seed"),
        ({"text": "a", "speed": "abc", "seed": "0"}, "speed='?abc"),
        ({"text": "a", "speed": None, "seed": "0"}, "speed='?None"),
        ({"text": "a", "speed": [1], "seed": "0"}, "speed=.*give a number from 0.25 to 4"),
        ({"text": "a", "speed": math.nan, "seed": "0"}, "speed='?nan"),
        ({"text": "a", "steps": math.inf, "seed": "0"}, "steps='?inf.*whole number"),
        ({"text": "a", "steps": -1000, "seed": "0"}, "steps='?-1000"),
    ):
        with pytest.raises(DataError, match=words):
            voice.asked(task, values)
    long = loaded(settings={"seconds": Setting(float, 0.05, 60)}).task
    assert voice.asked(long, {"seconds": 20, "seed": "0"})["seconds"] == 20
    with pytest.raises(DataError, match="60 seconds: at most 20 are made"):
        voice.asked(long, {"seconds": 60, "seed": "0"})


def test_fields_have_the_bounds_of_the_model() -> None:
    settings = {**SETTINGS, "seconds": Setting(float, 0.05, 60)}
    task = loaded(settings=settings).task
    task.generation.defaults = lambda seed: {"speed": 1.0, "steps": 10, "seconds": 60.0}
    fields = voice.setting_fields(task)
    assert {name: (one.minimum, one.maximum, one.value) for name, one in fields.items()} == {
        "speed": (0.25, 4, 1.0),
        "steps": (1, 200, 10),
        "seconds": (0.05, voice.MOST_SECONDS, voice.MOST_SECONDS),
    }
    assert fields["steps"].step == 1
    assert all(math.isfinite(one.value) for one in fields.values())
