"""Features of images: the time and the memory that they share, and visual words."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.baselines import images, visual_words
from pipelines.baselines.peak_memory import PeakMemory


@pytest.fixture
def rows(tmp_path: Any) -> Any:
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (20, 20), (number, 0, 0)).save(path)
        found.append({"id": str(number), "image": str(path)})
    return found


def test_decoding_is_paid_once_and_counted_for_all(rows: Any) -> None:
    first, second, _ = images.feature_sets(SimpleNamespace(options=SimpleNamespace(white=None)))  # type: ignore[arg-type]
    first.read(rows)
    assert first.shared() == 0
    assert first.cached() == 4 * 20 * 20 * 3
    second.read(rows)
    assert 0 < second.shared() < 1


def test_the_clock_of_several_processes_is_shared_out(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four processes decoded for 5 s and described for 15 s, at the same time, which took 20 s."""
    now = iter([0.0, 20.0])
    monkeypatch.setattr(images.time, "perf_counter", lambda: next(now))
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    monkeypatch.setattr(
        images, "_each", lambda work, items, count: [(picture, (5.0, 15.0), np.zeros(1)) for _ in items]
    )
    pictures = images.Pictures(None)
    pictures.features(images.colours, rows)
    assert sum(pictures.decoding.values()) == pytest.approx(5)


def test_a_full_cache_takes_no_more(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "KEPT", 2 * 20 * 20 * 3)
    asked: list[bool] = []
    known = images.described
    monkeypatch.setattr(images, "described", lambda *given: (asked.append(given[-1][1]), known(*given))[1])
    pictures = images.Pictures(None)
    pictures.features(images.colours, rows)
    assert asked == [True, True, False, False]
    assert len(pictures.kept) == 2


def test_descriptors_are_sampled_without_copying_all(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [np.full((count, 2), place) + np.arange(count)[:, None] * 100 for place, count in enumerate([3, 0, 5, 1])]
    together = {tuple(one) for one in np.concatenate(every).tolist()}
    assert len(visual_words.sample(every, np.random.default_rng(0))) == 9
    monkeypatch.setattr(visual_words, "SAMPLE", 6)
    some = [tuple(one) for one in visual_words.sample(every, np.random.default_rng(0)).tolist()]
    assert len(set(some)) == 6
    assert set(some) < together


def test_memory_counts_from_the_start_of_a_block() -> None:
    held = np.ones(8 * 2**20)  # 64 MB
    cache: list[np.ndarray] = []
    with PeakMemory(apart=lambda: sum(one.nbytes for one in cache)) as memory:
        more = np.ones(4 * 2**20)
        del more
    assert memory.mb < 60
    with PeakMemory(apart=lambda: sum(one.nbytes for one in cache)) as memory:
        kept = np.ones(4 * 2**20)
        cache.append(np.ones(4 * 2**20))
    assert 25 < memory.kept_mb < 45
    assert memory.kept_mb <= memory.mb + 1
    assert len(held) > len(kept)
