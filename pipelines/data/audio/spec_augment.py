"""SpecAugment (Park et al. 2019): random spans of time and frequency are masked."""

from random import Random

import numpy as np


def spans(size: int, share: float, length: int, fewest: int, rng: Random) -> np.ndarray:
    """bool [size], true in random spans of `length`, which may overlap.

    The number of spans is the one that would cover `share` without overlap, rounded up or down at random. This is the
    rule of transformers (Park et al. 2019; wav2vec 2.0, appendix B) for one utterance.
    """
    masked = np.zeros(size, dtype=bool)
    count = max(int(share * size / length + rng.random()), fewest)
    for start in rng.sample(range(size - length + 1), min(count, size // length)) if size >= length else ():
        masked[start : start + length] = True
    return masked


SPAN = 10  # columns or bands in one masked span


def mask_spans(features: np.ndarray, columns: int, time: float, bands: float, rng: Random) -> np.ndarray:
    """A copy of a spectrogram [bands, columns] with zeros in random spans.

    They cover the share `time` of the first `columns`, which hold the recording, and the share `bands` of the bands.
    """
    masked = features.copy()
    columns = min(columns, features.shape[1])
    masked[spans(len(features), bands, SPAN, 0, rng)] = 0
    masked[:, :columns][:, spans(columns, time, SPAN, 0, rng)] = 0
    return masked


def stretch(share: float, rng: Random) -> tuple[float, float]:
    """A random span of up to `share` of an axis: its start and end as shares of that axis."""
    width = rng.uniform(0, share)
    start = rng.uniform(0, 1 - width)
    return start, start + width


def mask_stretch(values: np.ndarray, part: tuple[float, float], axis: int) -> np.ndarray:
    """A copy of an array with zeros in the span `part` (see `stretch`) of one axis."""
    size = values.shape[axis]
    masked = np.moveaxis(values.copy(), axis, 0)
    masked[round(part[0] * size) : round(part[1] * size)] = 0
    return np.moveaxis(masked, 0, axis)
