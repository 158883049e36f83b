"""Each record of a shard is an input of its own where features of videos are read."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.data.video.tfrecord import read_features
from pipelines.errors import DataError
from pipelines.inference.loading import Located
from pipelines.inference.predict import read_inputs
from pipelines.tasks.video_classification import VideoClassification
from tests.support import tiny_tfrecords as tiny


def model() -> Located:
    task = VideoClassification(VideoClassification.Options(input="features", multi_label=True))
    return Located(task, Path(), None, None, None, "x")


@pytest.mark.parametrize("folder", [False, True])
def test_records_are_inputs(tmp_path: Path, folder: bool) -> None:
    path = tiny.videos(tmp_path, {"train0000": 3}) / "train0000.tfrecord"
    data = path.read_bytes()
    size = len(data) // 3
    path.write_bytes(data[: size + 50] + b"\0\0\0" + data[size + 53 :])  # damages the second
    found = read_inputs(model(), [str(tmp_path if folder else path)], tmp_path)
    assert len(found) == 3
    first, second, third = found
    assert [first.name, third.name] == [f"{path}#v000", f"{path}#v002"]
    assert read_features(first.read()["features"]).shape == (1, 1152)
    assert second.name.startswith(f"{path}@")
    with pytest.raises(DataError, match="the record at byte"):
        second.read()


def test_files_with_one_video_are_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 1152), np.float32))
    (one,) = read_inputs(model(), [str(tmp_path / "a.npy")], tmp_path)
    assert read_features(one.read()["features"]).shape == (4, 1152)
    np.save(tmp_path / "b.npy", np.zeros(7))
    with pytest.raises(DataError, match=r"b.npy: 7, and not 1,152 numbers"):
        list(read_inputs(model(), [str(tmp_path / "b.npy")], tmp_path))
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(tiny.framed(tiny.record(0))[:100])
    found = list(read_inputs(model(), [str(path)], tmp_path))
    assert [entry.name for entry in found] == [str(path)]
    with pytest.raises(DataError, match=r"cut.tfrecord: cut off"):
        found[0].read()


def test_records_before_and_next_to_a_cut_off_one_are_read(tmp_path: Path) -> None:
    good = tiny.videos(tmp_path / "good", {"train0000": 2}) / "train0000.tfrecord"
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(tiny.framed(tiny.record(0)) + tiny.framed(tiny.record(1))[:100])
    entries = list(read_inputs(model(), [str(cut), str(good)], tmp_path))
    assert [entry.name for entry in entries] == [f"{cut}#v000", str(cut), f"{good}#v000", f"{good}#v001"]
    with pytest.raises(DataError, match=r"cut.tfrecord: cut off"):
        entries[1].read()
    assert len(read_inputs(model(), [str(tmp_path)], tmp_path)) == 4
