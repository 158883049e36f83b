"""Clips of videos: times, random and evenly spread clips, and rows as examples."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value

from pipelines.data.video import clips
from pipelines.data.video.clips import Clips, random_clip, span, starts, times
from pipelines.errors import DataError
from pipelines.tasks.video_classification import VideoClassification
from tests.support import tiny_videos
from tests.support.tiny_video_models import tiny


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    tiny_videos.write(path, 250)  # 10 seconds
    return path


def rows(*paths: Path, labels: list[Any] | None = None) -> Dataset:
    cells = [{"path": str(path), "bytes": None} for path in paths]
    found = {"id": [path.name for path in paths], "video": cells, "label": labels or ["a"] * len(paths)}
    file = {"path": Value("string"), "bytes": Value("binary")}
    features = (
        None
        if labels and isinstance(labels[0], list)
        else Features({"id": Value("string"), "video": file, "label": Value("string")})
    )
    return Dataset.from_dict(found, features=features)


def numbers(frames: np.ndarray) -> list[int]:
    return [tiny_videos.number(np.asarray(frame)) for frame in frames]


def test_times_of_a_clip() -> None:
    assert times(10, 4, 2.0, 3.0) == [3.0, 3.5, 4.0, 4.5]
    assert times(1.6, 4, 2.0) == [0.0, 0.5, 1.0, 1.5], "just long enough"
    assert times(1.0, 4, 2.0) == [0.125, 0.375, 0.625, 0.875], "shorter: spread over all of it"
    assert times(0.04, 2, 8.0, 0.0) == [0.01, 0.03]
    assert span(16, 8.0) == 2.0


def row_of(id_: str, data: bytes) -> Any:
    """A row with a video in bytes, as the task makes examples of it."""
    task = VideoClassification()
    task.labels, (_, task.family) = ["a"], tiny("r2plus1d")
    return task.encode(Dataset.from_list([{"id": id_, "video": {"path": None, "bytes": data}, "label": "a"}]))


@pytest.mark.parametrize("name", ["row 7", "5", "video"])
def test_the_row_of_bytes_is_named(name: str) -> None:
    """Also by an id that is in the message by chance, and without the number of a clip."""
    examples = row_of(name, b"no video")
    for read in (examples.__getitem__, examples.to_augment):
        with pytest.raises(DataError, match=f"^{name}: video bytes: not a video that is read here"):
            read(1)


def test_the_row_of_bytes_with_damaged_frames_is_named(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(value: Any, times: Any) -> np.ndarray:
        raise DataError("video bytes: damaged")

    monkeypatch.setattr(clips, "read_frames", fail)
    with pytest.raises(DataError, match=r"^damaged: video bytes: damaged"):
        row_of("damaged", long.read_bytes())[1]


def test_clips_are_spread_over_a_video() -> None:
    assert starts(10, 2, 3) == [0, 4, 8]
    assert starts(10, 2, 1) == [4]
    assert starts(1, 2, 3) == [0, 0, 0]


def test_a_random_clip_is_a_function_of_its_seed(long: Path) -> None:
    found = [numbers(random_clip(long, 8, 12.5, Random(seed))) for seed in range(12)]
    assert found == [numbers(random_clip(long, 8, 12.5, Random(seed))) for seed in range(12)]
    assert all(clip == list(range(clip[0], clip[0] + 16, 2)) for clip in found), "every second frame"
    first = [clip[0] for clip in found]
    assert min(first) < 60 < 170 < max(first)
    assert len(set(first)) > 8
    part = {"path": str(long), "bytes": None, "start": 4.0, "end": 6.0}
    assert all(100 <= number < 150 for seed in range(8) for number in numbers(random_clip(part, 8, 12.5, Random(seed))))
    assert numbers(random_clip({**part, "end": 4.2}, 10, 12.5, Random(0))) == [
        100,
        100,
        101,
        101,
        102,
        102,
        103,
        103,
        104,
        104,
    ]


def test_rows_are_examples(long: Path) -> None:
    examples = Clips(rows(long, long, labels=["b", "c"]), ["a", "b"], False, 4, 12.5, 3, torch.from_numpy)
    assert len(examples) == 6
    found = [examples[number] for number in range(6)]
    assert [example["id"] for example in found[:4]] == ["long.mp4#0", "long.mp4#1", "long.mp4#2", "long.mp4#0"]
    assert [example["row"] for example in found] == [0, 0, 0, 1, 1, 1]
    assert [example["clip"] for example in found] == [0, 1, 2, 0, 1, 2]
    assert [numbers(example["pixels"]) for example in found[:3]] == [
        [0, 2, 4, 6],
        [121, 123, 125, 127],
        [242, 244, 246, 248],
    ]
    assert found[0]["pixels"].dtype == torch.uint8
    assert found[0]["target"].tolist() == [0, 1]
    assert found[0]["true"] == "b"
    assert found[3]["target"].tolist() == [0, 0], "an unknown label"
    assert examples[-1]["id"] == "long.mp4#2"
    with pytest.raises(IndexError):
        examples[6]
    raw = examples.to_augment(4)
    assert raw["video"] == {"path": str(long), "bytes": None}
    assert set(raw) == {"id", "row", "clip", "video", "target", "true"}
    assert examples.lengths is None
    assert "4 frames" in examples.cache_key


def test_one_clip_and_several_labels(long: Path) -> None:
    examples = Clips(rows(long, labels=[["a", "b"]]), ["a", "b"], True, 2, 25.0, 1, torch.from_numpy)
    assert examples[0]["id"] == "long.mp4"
    assert examples[0]["target"].tolist() == [1, 1]
    assert examples[0]["true"] == ["a", "b"]
    assert numbers(examples[0]["pixels"]) == [124, 125], "the middle"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(200))
    examples = Clips(rows(broken), ["a"], False, 4, 8.0, 2, torch.from_numpy)
    for read in (examples.__getitem__, examples.to_augment):
        with pytest.raises(DataError, match=r"broken\.mp4: not a readable video"):
            read(1)
    cell = {"path": None, "bytes": b"no video"}
    table = Dataset.from_list([{"id": "row 7", "video": cell, "label": "a"}])
    with pytest.raises(DataError, match="row 7: video bytes: not a video that is read here"):
        Clips(table, ["a"], False, 4, 8.0, 1, torch.from_numpy)[0]


def test_workers_of_a_loader_read_clips(long: Path) -> None:
    from torch.utils.data import DataLoader

    examples: Any = Clips(rows(long), ["a"], False, 4, 12.5, 3, torch.from_numpy)
    loader: Any = DataLoader(examples, batch_size=None, num_workers=2, collate_fn=lambda example: example["pixels"])
    assert [numbers(frames)[0] for frames in loader] == [0, 121, 242]


def test_labels_that_the_model_does_not_know(long: Path) -> None:
    with pytest.raises(DataError):
        clips.Clips(rows(long, labels=["x"]), ["a"], False, 4, 8.0, 1, torch.from_numpy)
