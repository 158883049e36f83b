"""SpecAugment (Park et al. 2019): random spans of time and frequency are masked."""

from random import Random

import numpy as np


def spans(size: int, share: float, length: int, fewest: int, rng: Random) -> np.ndarray:
    """bool [size]: spans of `length` that may overlap, so many that without overlap they would cover `share`, rounded at random.

    The library's own rule (Park et al. 2019; wav2vec 2.0, appendix B), one utterance at a time.
    """
    masked = np.zeros(size, dtype=bool)
    count = max(int(share * size / length + rng.random()), fewest)
    for start in rng.sample(range(size - length + 1), min(count, size // length)) if size >= length else ():
        masked[start : start + length] = True
    return masked


SPAN = 10  # columns, or bands, that SpecAugment masks together


def masked(features: np.ndarray, columns: int, time: float, bands: float, rng: Random) -> np.ndarray:
    """SpecAugment (Park et al. 2019): a copy with zeros in these shares of the recording, its first `columns`, and of the bands."""
    made = features.copy()
    columns = min(columns, features.shape[1])
    made[spans(len(features), bands, SPAN, 0, rng)] = 0
    made[:, :columns][:, spans(columns, time, SPAN, 0, rng)] = 0
    return made


def stretch(share: float, rng: Random) -> tuple[float, float]:
    """Where to mask, as shares of the whole: a stretch of up to `share`, anywhere (SpecAugment, Park et al. 2019)."""
    width = rng.uniform(0, share)
    start = rng.uniform(0, 1 - width)
    return start, start + width
