"""Models that listen to recordings: one of speech recognition writes down the words, a classifier names the class.

    heard = recogniser("runs/digits-asr", "cpu").hear([Sound(samples, rate), ...])     ["seven", None, ...]

Any model that Graft loads for these tasks will do: a run folder, a model folder or a hub id.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import DataError, ModelError
from pipelines.generation.audio import Sound

NORMALISER = "basic"  # of both texts, for word and character error rates (pipelines.metrics.text_normalizers)
TRANSCRIBES = ("speech-recognition-ctc", "speech-recognition-seq2seq")
CLASSIFIES = "audio-classification"


class Recogniser(NamedTuple):
    """A model that listens."""

    name: str
    hear: Callable[[Sequence[Sound]], list[str | None]]
    """The text or the class of each recording; None for one that it cannot read, such as silence."""
    labels: tuple[str, ...] | None
    """The classes of a classifier; None for speech recognition."""


def recogniser(source: str, device: Any) -> Recogniser:
    """The model of `options.recogniser`. Raises GraftErrors, ModelError for a model of another task."""
    from pipelines.inference import batches
    from pipelines.inference.loading import locate

    path = Path(source).expanduser()
    located = locate(path if path.exists() else source)
    task = located.task.name
    if task not in (*TRANSCRIBES, CLASSIFIES):
        raise ModelError(
            f"options.recogniser: {source} is a model of {task}: choose one of speech recognition, or an audio "
            "classifier"
        )
    loaded = located.load(str(device))
    classifies = task == CLASSIFIES
    if classifies and loaded.task.data.label_kind == "classes":
        raise ModelError(
            f"options.recogniser: {source} gives several labels per recording: choose a classifier that gives one"
        )

    def hear(sounds: Sequence[Sound]) -> list[str | None]:
        asked = [
            batches.Request(f"recording {number}", {"audio": (sound.rate, sound.samples)}, number)
            for number, sound in enumerate(sounds)
        ]
        found = [answer for _, answer in batches.answered(loaded, asked)]
        if classifies:
            return [None if isinstance(one, DataError) else str(one[0]["label"]) for one in found]
        return [None if isinstance(one, DataError) else str(one["text"]) for one in found]

    return Recogniser(called(source), hear, tuple(loaded.task.data.labels) if classifies else None)


def called(source: str) -> str:
    """The name of a judge in results: a hub id, or the name of the run or folder."""
    path = Path(source).expanduser()
    if not path.exists():
        return source
    path = path.resolve()
    return path.parent.name if path.name == "model" else path.name
