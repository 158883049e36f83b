"""What all tasks that generate sound share: options, the form of a result, and wav files that say what made them."""

import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from pipelines.config.recipe import Int, Strict
from pipelines.errors import DataError
from pipelines.generation.requests import MOST_LETTERS, parsed_settings
from pipelines.generation.spec import GenerationSpec, Request, Setting

if TYPE_CHECKING:
    import numpy as np


class Sound(NamedTuple):
    """A recording that a model made."""

    samples: "np.ndarray"
    """float32 [samples]; full scale is -1 to 1."""
    rate: int
    """Samples per second."""


class Sounding(Strict):
    """Options of every task that generates sound."""

    models: ClassVar[tuple[str, ...]] = ("recogniser", "speaker_model")

    samples: Annotated[Int, Field(ge=0, le=10_000)] = 32
    """Number of recordings to make after training, at fixed seeds. They are saved in samples/ and measured; 0: none."""
    grid: Annotated[Int, Field(ge=0, le=64)] = 4
    """Number of recordings to make before training and at every evaluation, of fixed texts and seeds, to hear progress;
    0: none.
    """
    recogniser: str | None = None
    """The model that listens to samples and to real recordings: one of speech recognition (word and character error
    rate), or an audio classifier (recognised). A run folder, model folder or hub id.
    """
    speaker_model: str | None = None
    """The model that compares voices: `resemblyzer` (needs that package), or a speaker verification model (folder or
    hub id of transformers' ...ForXVector).
    """
    dnsmos: bool = False
    """Estimate the mean opinion score of samples and of real recordings by DNSMOS (Reddy et al. 2022); needs speechmos.
    """


def audio_generation(
    options: Any,
    *,
    generate: Callable[[Any, Sequence[Request]], list[Any]],
    requests: Callable[[Any, int], list[dict[str, Any]]],
    defaults: Callable[[int], dict[str, Any]],
    settings: Mapping[str, Setting],
    at_once: int = 8,
) -> GenerationSpec:
    """The spec of a task whose results are `Sound`s. `options` are a Sounding."""
    return GenerationSpec(
        generate=generate,
        requests=requests,
        defaults=defaults,
        settings=settings,
        write=save_wav,
        suffix=".wav",
        one="recording",
        many="recordings",
        grid=lambda sounds: _measuring().grid(sounds),
        prepare=lambda device: _measuring().judges(options, device),
        measure=lambda samples: _measuring().measured(samples, options),
        samples=options.samples,
        shown=options.grid,
        at_once=at_once,
        text="text",
        displayed=lambda sound: (sound, {"duration": f"{len(sound.samples) / sound.rate:.2f} s"}),
        kept=True,
    )


def _measuring() -> Any:
    """The module that measures, imported by its name: a Space copies what its task imports, and a Space measures
    nothing.
    """
    return importlib.import_module("pipelines.generation.sounds")


def save_wav(sound: Sound, path: Path | IO[bytes], settings: dict[str, Any]) -> None:
    """Write a 16-bit wav file with its settings as JSON in the tag `comment`; samples beyond full scale are cut off.

    Raises OSError.
    """
    import numpy as np
    import soundfile

    samples = np.nan_to_num(sound.samples, nan=0.0, posinf=1.0, neginf=-1.0)
    noted = _noted(settings)
    try:
        with soundfile.SoundFile(path, "w", sound.rate, 1, "PCM_16", format="WAV") as file:
            file.comment = noted
            file.write(samples)
    except soundfile.LibsndfileError as error:
        raise OSError(str(error.error_string)) from None


MOST_NOTED = 2000  # bytes of settings in a wav file: libsndfile reads no tag of 2,048
LENGTHS = (1000, 500, 250, 100, 50, 25)  # letters to which texts are cut, if the settings do not fit


def _noted(settings: Mapping[str, Any]) -> str:
    """The settings as JSON, with long texts cut off so that they fit."""
    whole = {**settings, "synthetic": True}
    noted = json.dumps(whole, ensure_ascii=False)
    for most in LENGTHS:
        if len(noted.encode()) <= MOST_NOTED:
            break
        cut = {key: f"{one[:most]}…" if isinstance(one, str) and len(one) > most else one for key, one in whole.items()}
        noted = json.dumps(cut, ensure_ascii=False)
    return noted


def read_settings(source: Path | bytes, called: str) -> dict[str, Any]:
    """The settings that `save_wav` wrote into a file. The file may come from anybody.

    Settings are texts, numbers and null; of other programs' comments the text is {"parameters": text}. Raises DataError
    if the file is no recording, or does not say what made it.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            noted = file.comment
    except (OSError, RuntimeError, TypeError, UnicodeDecodeError) as error:  # also libsndfile's own
        why = str(error).rpartition(": ")[2]
        raise DataError(f"{called}: not a readable recording: {why}") from None
    if not noted:
        raise DataError(f"{called} does not say what made it: WAV files saved here do, converted and cut copies do not")
    if len(noted) > MOST_LETTERS:
        raise DataError(f"{called} says {len(noted):,} letters about what made it: at most {MOST_LETTERS:,} are read")
    return parsed_settings(noted)
