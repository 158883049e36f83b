"""What all tasks that generate sound share: options, the form of a result, and wav files that say what made them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from pipelines.config.recipe import Int, Strict
from pipelines.data.audio import tags
from pipelines.generation.spec import GenerationSpec, Request
from pipelines.utils.settings import Setting

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
    """Write a 16-bit wav file with its settings (`tags.read_settings` reads them). Raises OSError."""
    tags.write(path, sound.samples, sound.rate, settings)
