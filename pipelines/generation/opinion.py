"""Estimates of how listeners would rate a recording, by DNSMOS P.835 (Reddy et al. 2022): 1 to 5, higher is better.

    dnsmos()([Sound(samples, rate), ...])     {"dnsmos": [n], "dnsmos_signal": [n], "dnsmos_background": [n]}

The network was trained on noisy calls at 16 kHz. It knows nothing of the words: fluent nonsense may score high.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipelines.data.audio.reading import resampled
from pipelines.errors import ModelError, RunError
from pipelines.generation.audio import Sound

Opinions = Callable[[Sequence[Sound]], dict[str, np.ndarray]]

RATE = 16_000
PART = int(9.01 * RATE)  # samples that the network reads; shorter recordings are repeated
# The polynomials with which speechmos 0.0.1.1 maps the network's outputs (signal, background, overall) to ratings.
SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
OVERALL = (-0.06766283, 1.11546468, 0.04602535)


def dnsmos(file: Path | None = None) -> Opinions:
    """The estimates of speechmos' network. Only the file is read, because the package itself imports librosa.

    Raises RunError if speechmos or onnxruntime is not installed, ModelError if the file is damaged.
    """
    path = file or _network()
    try:
        import onnxruntime
    except ImportError:
        raise RunError("options.dnsmos needs onnxruntime: pip install onnxruntime") from None
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if [one.name for one in session.get_inputs()] != ["input_1"]:
            raise ValueError("other inputs")
    except Exception as error:  # a damaged file raises many kinds
        raise ModelError(f"{path}: not DNSMOS's network: pip install --force-reinstall speechmos") from error

    def rated(sound: Sound) -> np.ndarray:
        parts = windows(resampled(sound.samples, sound.rate, RATE))
        found = np.stack([session.run(None, {"input_1": part[None]})[0][0] for part in parts])
        mapped = [np.polyval(curve, found[:, place]) for place, curve in enumerate((SIGNAL, BACKGROUND, OVERALL))]
        means: np.ndarray = np.stack(mapped, axis=1).mean(0)
        return means

    def opinions(sounds: Sequence[Sound]) -> dict[str, np.ndarray]:
        rows = np.stack([rated(sound) for sound in sounds]) if len(sounds) else np.zeros((0, 3))
        return {"dnsmos": rows[:, 2], "dnsmos_signal": rows[:, 0], "dnsmos_background": rows[:, 1]}

    return opinions


def windows(samples: np.ndarray) -> list[np.ndarray]:
    """Parts of 9.01 seconds, one for each second, as speechmos takes them. Samples beyond full scale are cut off."""
    samples = np.clip(samples, -1, 1).astype(np.float32)
    if not len(samples):
        samples = np.zeros(PART, np.float32)
    while len(samples) < PART:
        samples = np.append(samples, samples)
    starts = range(0, (int(len(samples) // RATE - 9.01) + 1) * RATE, RATE)
    return [samples[start : start + PART] for start in starts if start + PART <= len(samples)]


def _network() -> Path:
    spec = importlib.util.find_spec("speechmos")  # finds the package without importing it
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders)), "dnsmos_models", "sig_bak_ovr.onnx") if folders else None
    if path is None or not path.is_file():
        raise RunError("options.dnsmos needs speechmos, which is not installed: pip install speechmos onnxruntime")
    return path
