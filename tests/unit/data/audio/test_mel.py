"""Log-mel spectrograms of speech synthesis: those of SpeechT5, their way back to sound, and settings of strangers."""

from typing import Any

import numpy as np
import pytest

from pipelines.data.audio.mel import SPEECHT5, MelSettings, griffin_lim, log_mel
from pipelines.errors import ModelError


def sound(seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1200 * time)).astype(np.float32)


def test_they_are_those_of_speecht5() -> None:
    from transformers import SpeechT5FeatureExtractor

    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    theirs = SpeechT5FeatureExtractor()(audio_target=samples, sampling_rate=16_000, return_tensors="np")
    ours = log_mel(samples, SPEECHT5)
    assert ours.shape == (SPEECHT5.frames(16_000), 80) == (63, 80)
    assert np.allclose(ours, theirs["input_values"][0], atol=1e-5)


def test_griffin_lim_finds_a_sound_with_these_spectrograms() -> None:
    settings = MelSettings()
    mels = log_mel(sound(), settings)
    again = griffin_lim(mels, settings)
    assert len(again) == (len(mels) - 1) * settings.hop_length
    assert np.abs(log_mel(again, settings) - mels)[4:-4].mean() < 0.3
    assert np.array_equal(again, griffin_lim(mels, settings))
    assert not np.array_equal(again, griffin_lim(mels, settings, seed=1))
    assert len(griffin_lim(mels[:1], settings)) == 0


def test_settings_come_back() -> None:
    assert MelSettings.read(SPEECHT5.plain(), "config.json") == SPEECHT5
    assert MelSettings.read({}, "config.json") == MelSettings()


@pytest.mark.parametrize(
    "found",
    [
        None,
        [1],
        {"hop": 3},
        {"n_fft": 511},
        {"n_fft": 2, "win_length": 2, "hop_length": 1},
        {"n_fft": 2**20},
        {"n_fft": "512"},
        {"hop_length": 0},
        {"hop_length": 512},
        {"hop_length": 64.5},
        {"sampling_rate": 10**400},
        {"sampling_rate": 1e9},
        {"num_mel_bins": 0},
        {"floor": 1e-50},
        {"floor": float("nan")},
        {"fmin": 5000.0},
        {"fmax": 9000.0},
        {"log": "log2"},
        {"n_fft": True},
    ],
)
def test_settings_of_a_stranger_are_checked(found: Any) -> None:
    with pytest.raises(ModelError, match=r"config\.json: "):
        MelSettings.read(found, "config.json")
