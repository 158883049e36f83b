"""Log-mel spectrograms of speech synthesis, and Griffin-Lim, which makes a recording of one without a model.

    settings = MelSettings()
    mels = log_mel(samples, settings)             float32 [frames, num_mel_bins]
    samples = griffin_lim(mels, settings)

A model that makes spectrograms and the vocoder that makes recordings of them must have equal settings.
"""

import functools
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from pipelines.errors import ModelError

MOMENTUM = 0.99  # of the fast Griffin-Lim algorithm (Perraudin et al. 2013)
SMALLEST = 1e-8


@dataclass(frozen=True)
class MelSettings:
    """How a log-mel spectrogram is computed. The defaults are for speech at 8 kHz."""

    sampling_rate: int = 8000
    """Samples per second."""
    n_fft: int = 512
    """Size of the Fourier transform in samples; a shorter window is padded with zeros."""
    win_length: int = 256
    """Length of the Hann window in samples."""
    hop_length: int = 64
    """Samples between two frames."""
    num_mel_bins: int = 64
    """Bands, on the mel scale of Slaney, each with unit area."""
    fmin: float = 0.0
    fmax: float | None = None
    """Lowest and highest frequency in hertz; None: half of the sampling rate."""
    log: Literal["ln", "log10"] = "ln"
    floor: float = 1e-5
    """The smallest value whose logarithm is taken."""

    def __post_init__(self) -> None:
        top = self.fmax if self.fmax is not None else self.sampling_rate / 2
        wrong = (
            "hop_length <= win_length <= n_fft" if not 0 < self.hop_length <= self.win_length <= self.n_fft
            else "an even n_fft from 4 to 65,536" if self.n_fft % 2 or not 4 <= self.n_fft <= 65_536
            else "a sampling_rate from 1,000 to 192,000" if not 1000 <= self.sampling_rate <= 192_000
            else "num_mel_bins from 1 to 512" if not 1 <= self.num_mel_bins <= 512
            else "0 <= fmin < fmax <= half of sampling_rate" if not 0 <= self.fmin < top <= self.sampling_rate / 2
            else "a floor from 1e-30 to 1" if not 1e-30 <= self.floor < 1
            else ""
        )  # fmt: skip
        if wrong:
            raise ModelError(f"spectrograms need {wrong}: {asdict(self)}")

    @classmethod
    def read(cls, found: Any, where: str) -> "MelSettings":
        """The settings of a configuration. Raises ModelError naming `where` for what cannot be settings."""
        if not isinstance(found, dict):
            raise ModelError(f"{where}: no settings of spectrograms")
        known = {one.name: one.default for one in fields(cls)}
        for key, value in found.items():
            usual = known.get(key)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e9
            fits = (
                value in ("ln", "log10") if key == "log"
                else number and value == int(value) if isinstance(usual, int)
                else number or (value is None and key == "fmax")
            )  # fmt: skip
            if key not in known or not fits:
                raise ModelError(f"{where}: {key}={value!r} is no setting of spectrograms")
        given: dict[str, Any] = {key: int(one) if isinstance(known[key], int) else one for key, one in found.items()}
        try:
            return cls(**given)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from None

    def plain(self) -> dict[str, Any]:
        """The settings for a configuration, as `read` takes them."""
        return asdict(self)

    def frames(self, samples: int) -> int:
        """The number of frames of a recording with so many samples."""
        return 1 + samples // self.hop_length

    @property
    def seconds(self) -> float:
        """Seconds between two frames."""
        return self.hop_length / self.sampling_rate

    @property
    def silence(self) -> float:
        """The value of a band without sound."""
        return math.log(self.floor) if self.log == "ln" else math.log10(self.floor)


SPEECHT5 = MelSettings(16_000, 1024, 1024, 256, 80, 80.0, 7600.0, "log10", 1e-10)  # equal to SpeechT5FeatureExtractor's


@functools.cache
def _filters(settings: MelSettings) -> np.ndarray:
    """float32 [n_fft // 2 + 1, num_mel_bins]."""
    from transformers.audio_utils import mel_filter_bank

    found: np.ndarray = mel_filter_bank(
        settings.n_fft // 2 + 1,
        settings.num_mel_bins,
        settings.fmin,
        settings.fmax or settings.sampling_rate / 2,
        settings.sampling_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return found.astype(np.float32)


@functools.cache
def _window(settings: MelSettings) -> np.ndarray:
    """float32 [n_fft]: a periodic Hann window, with zeros on both sides."""
    window = np.hanning(settings.win_length + 1)[:-1]
    before = (settings.n_fft - settings.win_length) // 2
    return np.pad(window, (before, settings.n_fft - settings.win_length - before)).astype(np.float32)


def _transform(samples: np.ndarray, settings: MelSettings) -> np.ndarray:
    """complex64 [frames, n_fft // 2 + 1]; frame f is centred at sample f * hop_length."""
    half = settings.n_fft // 2
    padded = np.pad(samples.astype(np.float32), half, mode="reflect" if len(samples) > half else "constant")
    parts = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop_length]
    found: np.ndarray = np.fft.rfft(parts[: settings.frames(len(samples))] * _window(settings)).astype(np.complex64)
    return found


def log_mel(samples: np.ndarray, settings: MelSettings) -> np.ndarray:
    """float32 [samples] -> float32 [frames, num_mel_bins], the logarithm of magnitudes."""
    mels = np.maximum(np.abs(_transform(samples, settings)) @ _filters(settings), settings.floor)
    found: np.ndarray = np.log(mels) if settings.log == "ln" else np.log10(mels)
    return found


def griffin_lim(mels: np.ndarray, settings: MelSettings, iterations: int = 60, seed: int = 0) -> np.ndarray:
    """float32 [frames, num_mel_bins] -> float32 [(frames - 1) * hop_length].

    Magnitudes come from the bands by non-negative least squares, phases by the fast Griffin-Lim algorithm (Griffin and
    Lim 1984, Perraudin et al. 2013) from random ones of this seed.
    """
    bands: np.ndarray = np.exp(mels) if settings.log == "ln" else 10.0**mels
    magnitudes = _magnitudes(bands, _filters(settings))
    samples = (len(mels) - 1) * settings.hop_length
    if samples <= 0:
        return np.zeros(0, np.float32)
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitudes.shape)).astype(np.complex64)
    before = np.zeros_like(phases)
    for _ in range(iterations):
        again = _transform(_inverse(magnitudes * phases, settings, samples), settings)
        phases = again - (MOMENTUM / (1 + MOMENTUM)) * before
        phases /= np.maximum(np.abs(phases), SMALLEST)
        before = again
    return _inverse(magnitudes * phases, settings, samples)


def _magnitudes(bands: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Magnitudes [frames, n_fft // 2 + 1] whose bands are nearest to `bands`, by multiplicative updates."""
    found = np.maximum(bands @ np.linalg.pinv(filters), SMALLEST)
    wanted, own = bands @ filters.T, filters @ filters.T
    for _ in range(50):
        found *= wanted / np.maximum(found @ own, SMALLEST)
    magnitudes: np.ndarray = found.astype(np.float32)
    return magnitudes


def _inverse(spectrum: np.ndarray, settings: MelSettings, samples: int) -> np.ndarray:
    """Overlap and add, divided by the sum of the squared windows."""
    window, hop, size = _window(settings), settings.hop_length, settings.n_fft
    parts = np.fft.irfft(spectrum, n=size).astype(np.float32) * window
    total = np.zeros(size + hop * (len(parts) - 1), np.float32)
    weight = np.zeros_like(total)
    for number, part in enumerate(parts):
        total[number * hop : number * hop + size] += part
        weight[number * hop : number * hop + size] += window**2
    half = size // 2
    found: np.ndarray = (total / np.maximum(weight, SMALLEST))[half : half + samples]
    return found
