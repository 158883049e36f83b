"""MFCC statistics: exact on made-up numbers, and finite on odd recordings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.baselines import audio
from pipelines.baselines.features import Unreadable
from pipelines.data.audio.reading import read_audio, resampled
from tests.support.tiny_audio import spoken, write

RATE = 16000
SIZE = 2 * 5 * audio.COEFFICIENTS


def features(samples: Any) -> np.ndarray:
    return audio.statistics(audio.mfcc(np.asarray(samples, dtype=np.float32), RATE))


def task(window: float = 0.5) -> Any:
    """A stand-in for a task that reads the first `window` seconds at 16 kHz."""

    def example(row: Any) -> dict[str, Any]:
        return {"audio": (RATE, read_audio(row["audio"]["path"], RATE, silent_ok=True)[: round(window * RATE)])}

    return SimpleNamespace(data=SimpleNamespace(example=example))


def rows(*files: Path) -> Dataset:
    return Dataset.from_dict({"id": [file.name for file in files], "audio": [{"path": str(file)} for file in files]})


def test_statistics_of_known_numbers() -> None:
    ramp = np.arange(11.0)[:, None] * [1, -2]
    found = audio.statistics(ramp).reshape(2, 5, 2)
    np.testing.assert_allclose(found[0], [[5, -10], ramp.std(0), [1, -18], [5, -10], [9, -2]], rtol=1e-6)
    np.testing.assert_allclose(found[1, 3], [1, -2])  # the median slope
    np.testing.assert_allclose(audio.slope(ramp)[2:-2], np.tile([1, -2], (7, 1)))


def test_louder_is_the_first_coefficient_and_no_other() -> None:
    samples = spoken("low mid high")
    quiet, loud = audio.mfcc(samples / 10, RATE), audio.mfcc(samples, RATE)
    bands = 96
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 20 * np.sqrt(bands), rtol=0.02)
    assert np.abs(loud[:, 1:] - quiet[:, 1:]).mean() < 1


def test_a_word_is_nearer_to_itself_than_to_another_word() -> None:
    low, high = features(spoken("low")), features(spoken("high"))
    for seed in range(1, 6):  # another speaker
        again = features(spoken("low", seed=seed))
        assert np.abs(low - again).mean() < 0.6 * np.abs(high - again).mean()


@pytest.mark.parametrize(
    "samples",
    [np.zeros(800), np.zeros(RATE), np.ones(5), np.eye(1, RATE)[0], np.full(RATE, 0.5)],
    ids=["silence", "a second of silence", "five samples", "a click", "constant"],
)
def test_odd_recordings_give_finite_numbers(samples: np.ndarray) -> None:
    found = features(samples)
    assert found.shape == (SIZE,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_a_long_recording_has_no_more_windows_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MOST", 50)
    samples = np.tile(spoken("low"), 100)
    assert audio.mfcc(samples, RATE).shape == (50, audio.COEFFICIENTS)
    assert len(audio.mfcc(samples[: RATE // 4], RATE)) == 25


def test_stereo_and_another_rate_give_nearly_the_same(tmp_path: Path) -> None:
    samples = spoken("low mid")
    plain = write(tmp_path / "plain.wav", samples)
    both = write(tmp_path / "both.wav", np.stack([samples, samples], 1))
    fast = write(tmp_path / "fast.wav", resampled(samples, RATE, 2 * RATE), rate=2 * RATE)
    found = audio.read(task(), rows(plain, both, fast))
    assert found.shape == (3, SIZE)
    np.testing.assert_allclose(found[1], found[0], atol=0.2)  # 16 bits a sample
    other = audio.read(task(), rows(write(tmp_path / "other.wav", spoken("high high"))))[0]
    assert np.abs(found[2] - found[0]).mean() < 0.3 * np.abs(other - found[0]).mean()


def test_only_the_window_of_the_network_is_read(tmp_path: Path) -> None:
    low = spoken("low low low low low")
    one = write(tmp_path / "one.wav", np.concatenate([low, spoken("high high high")]))
    two = write(tmp_path / "two.wav", low)
    found = audio.read(task(window=0.3), rows(one, two))
    np.testing.assert_array_equal(found[0], found[1])


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", spoken("low"))
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(Unreadable) as error:
        audio.read(task(), rows(good, tmp_path / "bad.wav"))
    assert list(error.value.rows) == [1]
    assert "bad.wav" in error.value.rows[1]
