"""Features of videos: frames that are described and averaged, and features that are given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.baselines import videos
from pipelines.baselines.features import Unreadable
from pipelines.errors import DataError
from tests.support.tiny_videos import write

COLOURS = 512


def rows(*files: Path) -> Dataset:
    return Dataset.from_dict({"id": [file.name for file in files], "video": [{"path": str(file)} for file in files]})


def frames(*colours: tuple[int, int, int], count: int = 8) -> list[np.ndarray]:
    return [np.full((32, 48, 3), colour, np.uint8) for colour in colours for _ in range(count // len(colours))]


def test_colours_of_all_frames_are_averaged(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    red, blue = (200, 30, 30), (30, 30, 200)
    files = {"red": frames(red), "blue": frames(blue), "both": frames(red, blue)}
    for name, some in files.items():
        write(tmp_path / f"{name}.mp4", some, rate=8)
    found = videos.read(rows(*[tmp_path / f"{name}.mp4" for name in files]))
    assert found.dtype == np.float32
    one, two, both = found[:, :COLOURS]
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    assert one @ two < 0.1 * (one @ one)


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    write(tmp_path / "good.mp4", frames((9, 9, 9)), rate=8)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(Unreadable) as error:
        videos.read(rows(tmp_path / "good.mp4", tmp_path / "bad.mp4"))
    assert list(error.value.rows) == [1]
    assert "bad.mp4" in error.value.rows[1]


def test_given_features_are_averaged_over_frames() -> None:
    given: list[Any] = [np.float32([[1, 2], [3, 4]]), np.float32([[5, 6]])]

    def encode(some: Dataset) -> Any:
        return [{"features": one} for one in given][: len(some)]

    task: Any = SimpleNamespace(encode=encode, options=SimpleNamespace(input="features"))
    (one,) = videos.feature_sets(task)
    assert one.read(Dataset.from_dict({"id": ["1", "2"]})).tolist() == [[2, 3], [5, 6]]
    assert one.learners == ("logistic",)


def test_an_error_of_one_row_does_not_lose_the_others_count() -> None:
    def describe(place: int) -> np.ndarray:
        if place % 2:
            raise DataError(f"row {place}")
        return np.zeros(2)

    with pytest.raises(Unreadable) as error:
        videos.read_all(describe, range(5), "numbers")
    assert error.value.rows == {1: "row 1", 3: "row 3"}
