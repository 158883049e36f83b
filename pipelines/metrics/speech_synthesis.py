"""How far made speech is from a real recording of the same words, and how alike two voices are.

    path = aligned(cepstra(made), cepstra(real))          made, real: log-mel spectrograms [frames, bands]
    mel_cepstral_distortion(made, real)                   5.31 (dB)
    speaker_similarity(embedding, other)                  0.84

A spectrogram holds natural logarithms of magnitudes. Distances are in decibels, lengths in frames. Everything is
computed in float64. Raises DataError for spectrograms that cannot be compared.

Values depend on how a spectrogram is computed (bands, window, rate), on the silence at both ends and on the alignment,
so they compare models that Graft measured with equal settings, and nothing else.
"""

import math
from collections.abc import Mapping

import numpy as np

from pipelines.errors import DataError

COEFFICIENTS = 13  # of a mel-cepstrum, from the first; the zeroth is the loudness and does not count
DECIBELS = 20 / math.log(10)  # of one unit of the natural logarithm of a magnitude
MOST_CELLS = 40_000_000  # pairs of frames of one alignment: 320 MB


def cepstra(mels: np.ndarray, coefficients: int = COEFFICIENTS) -> np.ndarray:
    """Mel-cepstra of a log-mel spectrogram [frames, bands]: float64 [frames, coefficients], without the zeroth.

    c_m = 2 / B sum_b x_b cos(pi m (b + 1/2) / B), so that x_b = mean + sum_m c_m cos(pi m (b + 1/2) / B). That is the
    convention of SPTK's mel-cepstra (log|H| = sum c_m cos(m w)). Raises DataError for too few bands.
    """
    mels = _spectrogram(mels)
    bands = mels.shape[1]
    if not 1 <= coefficients < bands:
        raise DataError(f"{coefficients} cepstral coefficients of {bands} bands: give from 1 to {bands - 1}")
    angles = np.pi / bands * np.outer(np.arange(bands) + 0.5, np.arange(1, coefficients + 1))
    found: np.ndarray = 2 / bands * (mels @ np.cos(angles))
    return found


def aligned(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Dynamic time warping: the cheapest path through all frames of both [frames, D], as pairs of numbers [steps, 2].

    A step goes on by a frame in one of them or in both; its cost is the Euclidean distance of the two frames (Sakoe and
    Chiba 1978, without weights). Of equally cheap paths it takes the one that goes on in both. Raises DataError for
    recordings that are too long to align.
    """
    one, two = _spectrogram(one), _spectrogram(two)
    if one.shape[1] != two.shape[1]:
        raise DataError(f"{one.shape[1]} and {two.shape[1]} values a frame: both need the same settings")
    n, m = len(one), len(two)
    if n * m > MOST_CELLS:
        raise DataError(f"{n:,} and {m:,} frames are too many to align: cut the recordings")
    total = np.full((n + 1, m + 1), np.inf)  # total[i, j]: the cost of the cheapest path to frames i - 1 and j - 1
    total[0, 0] = 0.0
    costs = _distances(one, two)
    for diagonal in range(n + m - 1):  # all pairs of one diagonal depend on earlier diagonals only
        down = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        across = diagonal - down
        before = np.minimum(total[down, across], np.minimum(total[down, across + 1], total[down + 1, across]))
        total[down + 1, across + 1] = costs[down, across] + before
    path, i, j = [], n, m
    while i and j:
        path.append((i - 1, j - 1))
        choices = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
        step = choices.index(min(choices))
        i, j = i - (step != 2), j - (step != 1)
    return np.array(path[::-1])


def mel_cepstral_distortion(made: np.ndarray, real: np.ndarray, coefficients: int = COEFFICIENTS) -> float:
    """Mel-cepstral distortion in dB of two log-mel spectrograms, after dynamic time warping (Kubichek 1993).

    The mean of 10 / ln 10 sqrt(2 sum_m (c_m - c'_m)^2) over the steps of the path, for the mel-cepstral coefficients 1
    to 13. With all coefficients it is the root mean square difference of the spectra in dB, apart from the loudness.
    """
    one, two = cepstra(made, coefficients), cepstra(real, coefficients)
    path = aligned(one, two)
    return float(distortions(one[path[:, 0]], two[path[:, 1]]).mean())


def distortions(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The distortion in dB of each pair of mel-cepstra [steps, coefficients]: [steps]."""
    found: np.ndarray = DECIBELS / 2 * np.sqrt(2 * ((one - two) ** 2).sum(1))
    return found


def log_mel_distance(made: np.ndarray, real: np.ndarray, path: np.ndarray | None = None) -> float:
    """The mean over frames of the root mean square difference over bands in dB, of two log-mel spectrograms.

    Frames are compared along `path` (from `aligned`). Without a path, both must have equally many frames, and each is
    compared with the one of the same time: for recordings that a vocoder made of the other's spectrogram. Raises
    DataError.
    """
    one, two = _spectrogram(made), _spectrogram(real)
    if one.shape[1] != two.shape[1]:
        raise DataError(f"{one.shape[1]} and {two.shape[1]} bands: both need the same settings")
    if path is not None:
        one, two = one[path[:, 0]], two[path[:, 1]]
    elif len(one) != len(two):
        raise DataError(f"{len(one)} and {len(two)} frames: align them, or make both equally long")
    return float((DECIBELS * np.sqrt(((one - two) ** 2).mean(1))).mean())


def duration_ratio(made: float, real: float) -> float:
    """How many times as long as the real recording the made one is. Raises DataError for an empty real recording."""
    if real <= 0:
        raise DataError("the real recording is empty: there is no length to compare with")
    return made / real


# ---- voices ----


def speaker_similarity(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The cosine of speaker embeddings [D] or [rows, D], -1 to 1. An embedding of length 0 is like none: 0."""
    one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    products = (one * two).sum(-1)
    found: np.ndarray = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return found


def voice(embeddings: np.ndarray) -> np.ndarray:
    """The embedding of a speaker from those of some recordings [rows, D]: the mean direction, of length 1 (or 0)."""
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    mean = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).mean(0)
    length = np.linalg.norm(mean)
    found: np.ndarray = mean / length if length > 0 else mean
    return found


def nearest_speaker(embedding: np.ndarray, voices: Mapping[str, np.ndarray]) -> str:
    """The name of the voice that an embedding [D] is most alike, of those in `voices`; the first of equal ones."""
    return max(voices, key=lambda name: float(speaker_similarity(embedding, voices[name])))


# ---- helpers ----


def _spectrogram(rows: np.ndarray) -> np.ndarray:
    found = np.asarray(rows, np.float64)
    if found.ndim != 2 or not found.size:
        raise DataError(f"a spectrogram is a table of frames, got the shape {found.shape}")
    if not np.isfinite(found).all():
        raise DataError("a spectrogram holds numbers that are not finite")
    return found


def _distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs [n, m], from differences: those of equal frames are exactly 0."""
    found = np.empty((len(one), len(two)))
    block = max(1, 2_000_000 // two.size)
    for start in range(0, len(one), block):
        found[start : start + block] = np.sqrt(((one[start : start + block, None] - two) ** 2).sum(2))
    return found
