"""Stretches of recordings for models of samples: what is learned, and the real samples before it.

A stretch begins in the middle of a recording or at its start. The samples before it, as many as the model looks back,
are given as context and do not count. So its loss is exactly that part of the loss of the whole recording.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np

from pipelines.data.audio.recordings import OfRecordings, Recordings
from pipelines.data.encoding import Budget, Lengths
from pipelines.errors import DataError

UNIT = 100  # samples of a `length`
# A network of 16 layers with 64 channels keeps about 25 kB of each sample for its gradients.
SAMPLES = Budget({"cpu": 160, "cuda": 8000}, {"cpu": 640, "cuda": 32000}, 160)


class Stretches(OfRecordings):
    """Rows as examples {id, row, audio, start, stop, number}.

    `number(row)` gives the number of a row's class or speaker, and may raise DataError. Whole recordings are scored, of
    a longer one the middle `longest` samples. `crop` samples of each are trained on (None: the same as in scoring).
    """

    length_unit = f"{UNIT} samples"
    budget = SAMPLES

    def __init__(
        self,
        rows: Any,
        rate: int,
        number: Callable[[dict[str, Any]], int],
        *,
        longest: int,
        context: int,
        crop: int | None = None,
        trains: bool = False,
    ) -> None:
        self.rows, self.rate, self.number = rows, rate, number
        self.longest, self.context, self.crop, self.trains = longest, context, crop, trains
        self.recordings = Recordings(rows, rate, math.inf, lambda row, seconds: {"number": number(row)})

    def __len__(self) -> int:
        return len(self.recordings)

    def training(self) -> "Stretches":
        found = object.__new__(Stretches)
        found.__dict__.update(self.__dict__)
        found.trains = True
        return found

    @property
    def lengths(self) -> Lengths:
        most = self.crop if self.trains and self.crop is not None else self.longest
        return [self._length(round(seconds * self.rate), most) for seconds in self.recordings.seconds]

    def _length(self, samples: int, most: int) -> int:
        """The length of a stretch with its context, padding included, if at most `most` samples count."""
        return max(1, math.ceil(min(samples, most + self.context) / UNIT))

    def __getitem__(self, index: Any) -> Any:
        """One example by number. Raises DataError."""
        example = self.recordings[index]
        samples = len(example["audio"])
        count = min(samples, self.longest)
        start = (samples - count) // 2
        return {**example, "start": start, "stop": start + count}


def cropped(example: dict[str, Any], crop: int, rng: Random) -> dict[str, Any]:
    """The example with another stretch of at most `crop` samples, at a random place.

    Every sample of a recording is as likely as any other but those near both ends, which are rarer.
    """
    samples = len(example["audio"])
    start = rng.randint(0, max(0, samples - crop))
    return {**example, "start": start, "stop": min(samples, start + crop)}


class Piece(NamedTuple):
    """A stretch with its context."""

    samples: np.ndarray  # float32 [time + 1]: the sample before the context (0 at the beginning), context and stretch
    valid: np.ndarray  # bool [time]: what counts
    frame: int  # number of the frame at its first sample


def piece(audio: np.ndarray, start: int, stop: int, context: int, hop: int = 1) -> Piece:
    """The stretch from `start` to `stop` with up to `context` samples before it, from a multiple of `hop` on."""
    if not 0 <= start < stop <= len(audio):
        raise DataError(f"no samples {start} to {stop} in a recording of {len(audio)}")
    first = max(0, start - context) // hop * hop
    before = audio[first - 1 : first] if first else np.zeros(1, np.float32)
    times = np.arange(first, stop)
    return Piece(np.concatenate([before, audio[first:stop]]), times >= start, first // hop)
