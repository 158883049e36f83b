"""Random changes of a recording; each is a pure function of its samples and a `random.Random`."""

from random import Random

import numpy as np

from pipelines.data.audio.reading import resampled

SPEED = (0.9, 1.1)  # changes pitch and duration (Ko et al. 2015)
NOISE = (10.0, 40.0)  # level of white noise in dB below the recording
CLEAN = 0.5  # share of recordings without noise, because noise fills frequency bands that are empty in clean recordings
GAIN = (-6.0, 6.0)  # dB


def perturbed(samples: np.ndarray, rate: int, rng: Random) -> np.ndarray:
    """Change speed and volume, and add noise to half of the recordings; float32 of another length."""
    changed = resampled(samples, round(rate * rng.uniform(*SPEED)), rate)
    if rng.random() > CLEAN:
        below = 10 ** (-rng.uniform(*NOISE) / 20)
        noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(len(changed), dtype=np.float32)
        changed = changed + noise * np.float32(below * np.sqrt(np.mean(changed**2)))
    return changed * np.float32(10 ** (rng.uniform(*GAIN) / 20))


def cropped(samples: np.ndarray, longest: int, rng: Random | None = None) -> np.ndarray:
    """A contiguous part of at most `longest` samples, at a random position; without `rng` the middle."""
    spare = len(samples) - longest
    if spare <= 0:
        return samples
    start = spare // 2 if rng is None else rng.randint(0, spare)
    return samples[start : start + longest]


def shifted(samples: np.ndarray, longest: int, rng: Random) -> np.ndarray:
    """Add silence of random length before a recording that is shorter than `longest` samples."""
    spare = longest - len(samples)
    return samples if spare <= 0 else np.pad(samples, (rng.randint(0, spare), 0))


def mixup(first: np.ndarray, second: np.ndarray, alpha: float, rng: Random) -> tuple[np.ndarray, float]:
    """A weighted mean of two recordings, as long as the first (Tokozume et al. 2018), and the weight of the first."""
    weight = rng.betavariate(alpha, alpha)
    other = np.zeros_like(first)
    other[: len(second)] = second[: len(first)]
    return np.float32(weight) * first + np.float32(1 - weight) * other, weight
