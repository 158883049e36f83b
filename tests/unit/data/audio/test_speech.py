"""Silence at the ends of a recording, its level, and whether a text can be what is said in it."""

import numpy as np
import pytest

from pipelines.data.audio.speech import implausible, levelled, trimmed


def tone(seconds: float, rate: int = 8000, loud: float = 0.5) -> np.ndarray:
    return (loud * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def silence(seconds: float, rate: int = 8000, noise: float = 0.0) -> np.ndarray:
    return (noise * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_silence_at_both_ends_goes_and_50_ms_stay(rate: int, noise: float) -> None:
    samples = np.concatenate(
        [silence(0.7, rate, noise), tone(0.4, rate), silence(0.3, rate), tone(0.1, rate), silence(1, rate, noise)]
    )
    found = trimmed(samples, rate)
    assert found.dtype == np.float32
    assert len(found) / rate == pytest.approx(0.8 + 2 * 0.05, abs=0.021)  # the pause inside stays
    heard = np.flatnonzero(np.abs(found) > 0.01) / rate
    assert heard[0] == pytest.approx(0.05, abs=0.011)
    assert len(found) / rate - heard[-1] == pytest.approx(0.05, abs=0.011)


def test_what_is_not_trimmed() -> None:
    for samples in (tone(1.0), silence(1.0), np.zeros(0, np.float32), tone(0.02), silence(1.0, noise=0.1)):
        assert np.array_equal(trimmed(samples, 8000), samples)
    soft = np.concatenate([tone(0.5, loud=0.01), tone(0.5), tone(0.5, loud=0.004)])  # -34 dB and -42 dB
    assert len(trimmed(soft, 8000)) / 8000 == pytest.approx(1.05, abs=0.011)


@pytest.mark.parametrize("rate", [1000, 8000, 192_000])
def test_at_least_50_ms_are_left(rate: int) -> None:
    click = silence(2.0, rate)
    for place in (0, rate, len(click) - 1):
        click[:] = 0
        click[place] = 1
        found = trimmed(click, rate)
        assert len(found) >= 0.05 * rate
        assert found.max() == 1


@pytest.mark.parametrize("loud", [0.9, 0.1, 1e-4])
def test_levels_become_equal(loud: float) -> None:
    samples = np.concatenate([silence(1.0), tone(1.024, loud=loud), silence(1.0)])
    found = levelled(samples)
    inside = found[8192 : 8000 + 8192]
    assert found.dtype == np.float32
    assert 20 * np.log10(np.sqrt(np.mean(inside**2))) == pytest.approx(-23, abs=0.5)  # silence does not count
    assert np.allclose(found * samples.max(), samples * found.max(), atol=1e-6)  # all times one factor


def test_nothing_is_clipped() -> None:
    samples = tone(1.0, loud=0.01)
    samples[4000] = 0.5
    found = levelled(samples)
    assert np.abs(found).max() == pytest.approx(0.95)
    assert np.allclose(found, samples * 1.9)
    for samples in (silence(1.0), np.zeros(0, np.float32)):
        assert np.array_equal(levelled(samples), samples)


@pytest.mark.parametrize(
    ("characters", "seconds"),
    [(5, 0.1435), (3, 1.3), (4, 0.2), (14, 0.5), (200, 10.2), (200, 32), (1, 2), (12_000, 900)],
)
def test_texts_that_fit(characters: int, seconds: float) -> None:
    assert implausible(characters, seconds) is None


@pytest.mark.parametrize(
    ("characters", "seconds", "words"),
    [
        (500, 0.05, "500 characters in 0.05 s: nobody speaks more than 40 per second"),
        (100, 2.0, "100 characters in 2.00 s"),
        (1, 60.0, "60.0 s for 1 characters: the text is a part of what is said"),
        (100, 120.0, "120.0 s for 100 characters"),
    ],
)
def test_texts_that_do_not_fit(characters: int, seconds: float, words: str) -> None:
    assert words in (implausible(characters, seconds) or "")
