"""Distances of made speech from real recordings: values by hand, and what must hold for all of them."""

import math

import numpy as np
import pytest

from pipelines.data.audio.mel import MelSettings, log_mel
from pipelines.errors import DataError
from pipelines.metrics import speech_synthesis as metric
from tests.support import tiny_audio

SETTINGS = MelSettings(16_000, 512, 512, 160, 40)


def mels(text: str, seed: int = 0) -> np.ndarray:
    return log_mel(tiny_audio.spoken(text, seed), SETTINGS)


def test_cepstra_by_hand() -> None:
    # x_b = cos(pi (b + 1/2) / 4): the first coefficient is 1, the others are 0
    row = np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    assert metric.cepstra(row[None], 3) == pytest.approx(np.array([[1.0, 0.0, 0.0]]), abs=1e-12)
    assert metric.cepstra(row[None] + 5, 3) == pytest.approx(np.array([[1.0, 0.0, 0.0]]), abs=1e-12)  # loudness
    # of all coefficients but the last comes the row, apart from its mean
    rows = np.random.default_rng(0).normal(size=(5, 8))
    found = metric.cepstra(rows, 7)
    again = found @ np.cos(np.pi / 8 * np.outer(np.arange(1, 8), np.arange(8) + 0.5))
    assert again == pytest.approx(rows - rows.mean(1, keepdims=True))


def test_distortion_by_hand() -> None:
    one, two = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert metric.distortions(one, two)[0] == pytest.approx(10 / math.log(10) * math.sqrt(2 * 5))
    # with all coefficients: the root mean square difference of the spectra in dB, without the mean
    rng = np.random.default_rng(1)
    made, real = rng.normal(size=(1, 16)), rng.normal(size=(1, 16))
    apart = made - real
    wanted = 20 / math.log(10) * np.sqrt(((apart - apart.mean()) ** 2).mean())
    assert metric.mel_cepstral_distortion(made, real, 15) == pytest.approx(wanted)


def test_log_mel_distance_by_hand() -> None:
    made, real = np.zeros((2, 2)), np.array([[0.0, 0.0], [math.log(10), math.log(10)]])  # the second frame is 20 dB off
    assert metric.log_mel_distance(made, real) == pytest.approx(10.0)
    assert metric.log_mel_distance(made, real, np.array([[0, 0], [1, 0]])) == 0
    with pytest.raises(DataError, match="2 and 1 frames: align them"):
        metric.log_mel_distance(made, real[:1])


def test_equal_recordings_are_0_apart_and_order_does_not_matter() -> None:
    one, two = mels("low high mid"), mels("high low", 1)
    assert metric.mel_cepstral_distortion(one, one) == 0
    assert metric.log_mel_distance(one, one) == 0
    there, back = metric.mel_cepstral_distortion(one, two), metric.mel_cepstral_distortion(two, one)
    assert there == pytest.approx(back, rel=1e-12)
    assert there > 2


def test_the_same_words_are_nearer_than_other_words() -> None:
    one = mels("low high mid", 0)
    assert metric.mel_cepstral_distortion(mels("low high mid", 3), one) < metric.mel_cepstral_distortion(
        mels("high low low", 3), one
    )


def test_slow_speech_is_as_near_as_fast_speech() -> None:
    one = mels("low high")
    for times in (2, 3):
        slow = np.repeat(one, times, axis=0)
        assert metric.mel_cepstral_distortion(slow, one) == 0
        path = metric.aligned(metric.cepstra(slow), metric.cepstra(one))
        assert metric.log_mel_distance(slow, one, path) == 0


def test_loudness_is_no_distortion() -> None:
    one = mels("low high")
    assert metric.mel_cepstral_distortion(one + 1.5, one) == pytest.approx(0, abs=1e-6)
    assert metric.log_mel_distance(one + 1.5, one) == pytest.approx(1.5 * 20 / math.log(10))


def slow_total(costs: np.ndarray) -> float:
    """The cost of the cheapest path, cell by cell."""
    total = np.full((len(costs) + 1, costs.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(costs)):
        for j in range(costs.shape[1]):
            total[i + 1, j + 1] = costs[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


def test_the_path_is_the_cheapest() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (1, 7), (7, 1), (5, 9), (12, 8)):
        one, two = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
        path = metric.aligned(one, two)
        assert path[0].tolist() == [0, 0]
        assert path[-1].tolist() == [n - 1, m - 1]
        steps = np.diff(path, axis=0)
        assert {tuple(step) for step in steps.tolist()} <= {(1, 1), (1, 0), (0, 1)}
        costs = np.linalg.norm(one[:, None] - two, axis=2)
        assert costs[path[:, 0], path[:, 1]].sum() == pytest.approx(slow_total(costs))


def test_voices() -> None:
    east, north = np.array([2.0, 0.0]), np.array([0.0, 1.0])
    assert metric.speaker_similarity(east, east) == 1
    assert metric.speaker_similarity(east, north) == 0
    assert metric.speaker_similarity(east, -east) == -1
    assert metric.speaker_similarity(np.zeros(2), east) == 0
    assert metric.speaker_similarity(np.stack([east, north]), east).tolist() == [1, 0]
    both = metric.voice(np.stack([east, north]))  # the length of an embedding says nothing
    assert both == pytest.approx(np.array([1, 1]) / math.sqrt(2))
    assert metric.voice(np.zeros((2, 2))).tolist() == [0, 0]
    assert metric.nearest_speaker(np.array([1.0, 0.9]), {"a": north, "b": east}) == "b"
    assert metric.duration_ratio(3.0, 2.0) == 1.5


def test_what_cannot_be_compared() -> None:
    for call, words in (
        (lambda: metric.cepstra(np.zeros((3, 13))), "13 cepstral coefficients of 13 bands"),
        (lambda: metric.cepstra(np.zeros((0, 20))), "a table of frames"),
        (lambda: metric.cepstra(np.full((2, 20), np.nan)), "not finite"),
        (lambda: metric.aligned(np.zeros((2, 3)), np.zeros((2, 4))), "3 and 4 values a frame"),
        (lambda: metric.aligned(np.zeros((9000, 1)), np.zeros((9000, 1))), "too many to align"),
        (lambda: metric.log_mel_distance(np.zeros((2, 3)), np.zeros((2, 4))), "3 and 4 bands"),
        (lambda: metric.duration_ratio(1.0, 0.0), "the real recording is empty"),
    ):
        with pytest.raises(DataError, match=words):
            call()
