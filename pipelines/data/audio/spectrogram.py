"""Spectrograms for display: loudness over time and pitch, as numbers and as a small image. Models use their own."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

BANDS = 96  # equally wide on the mel scale
RANGE = 80.0  # dB below the maximum that are shown


def decibels(samples: np.ndarray, rate: int, columns: int) -> np.ndarray:
    """float32 [samples] -> [BANDS, columns or fewer] in dB, low pitches first.

    Windows of 32 ms, evenly spread over the recording, in triangular bands of the mel scale.
    """
    size = 1 << max(6, math.ceil(math.log2(0.032 * rate)))
    padded = np.pad(samples.astype(np.float32), size // 2)
    count = max(1, min(columns, len(samples) // (size // 16)))
    starts = np.linspace(0, len(padded) - size, count).astype(int)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)) ** 2
    decibels: np.ndarray = 10 * np.log10(_bands(rate, power.shape[1]) @ power.T + 1e-10)
    return decibels


def _bands(rate: int, lines: int) -> np.ndarray:
    """float [BANDS, bins of the transform]: the weight of each bin in each band; the weights of a band sum to 1."""
    edges = 700 * (10 ** (np.linspace(0, mel(rate / 2), BANDS + 2) / 2595) - 1)
    pitch = np.linspace(0, rate / 2, lines)
    rise, fall = (
        (pitch - edges[:-2, None]) / np.diff(edges)[:-1, None],
        (edges[2:, None] - pitch) / np.diff(edges)[1:, None],
    )
    bands = np.clip(np.minimum(rise, fall), 0, None)
    between = np.flatnonzero(bands.sum(1) == 0)  # bands too narrow to contain a bin take the nearest one
    bands[between, np.abs(pitch - edges[between + 1, None]).argmin(1)] = 1.0
    weights: np.ndarray = bands / bands.sum(1, keepdims=True)
    return weights


def mel(hertz: float) -> float:
    """Frequency in hertz -> mel (O'Shaughnessy's formula); equal steps in mel sound equally far from each other."""
    return 2595 * math.log10(1 + hertz / 700)


def picture(samples: np.ndarray, rate: int, side: int = 160) -> "Image":
    """A square thumbnail of the spectrogram, [side, side] pixels, bright where the recording is loud."""
    import matplotlib
    from PIL import Image

    loud = decibels(samples, rate, side)
    share = np.clip((loud - loud.max() + RANGE) / RANGE, 0, 1)
    colours = matplotlib.colormaps["magma"](share[::-1], bytes=True)[..., :3]
    return Image.fromarray(np.ascontiguousarray(colours)).resize((side, side), Image.Resampling.BILINEAR)
