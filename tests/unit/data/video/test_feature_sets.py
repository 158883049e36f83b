"""Features of videos as examples."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec, Splits
from pipelines.data.video import tfrecord
from pipelines.data.video.feature_sets import FeatureSets, described, spread
from pipelines.errors import DataError
from tests.support import tiny_tfrecords as tiny

NEEDS = DataSpec({"features": "features", "digest": "text", "label": "label", "frames": "number"}, label_kind="classes")


def load(folder: Path) -> Splits:
    return load_splits(DataSection(id=str(folder)), NEEDS)


@pytest.mark.parametrize("of_frames", [False, True])
def test_examples_are_the_records(tmp_path: Path, of_frames: bool) -> None:
    rows = load(tiny.videos(tmp_path, {"train0000": 30, "train0001": 20}, of_frames)).train
    labels = ["4", "0", "1", "2"]  # another order, and without 3
    encoded = FeatureSets(rows, labels, True, None)
    lengths = encoded.lengths
    assert (lengths is None) is not of_frames
    assert encoded.length_unit == "frames"
    for number, row in enumerate(rows):
        example = encoded[number]
        own = int(row["id"][1:])
        assert example["id"] == row["id"]
        assert example["row"] == number
        assert example["true"] == [str(label) for label in tiny.labels_of(own)]
        assert [labels[place] for place in np.flatnonzero(example["target"])] == [
            label for label in labels if int(label) in tiny.labels_of(own)
        ]
        expected = tfrecord.read_example(tiny.record(own, of_frames))
        assert np.array_equal(example["features"], tfrecord.joined(expected.features))
        assert example["features"].shape == (row["frames"], 1152)
        if lengths is not None:
            assert lengths[number] == row["frames"] == 3 + own % 4
    with ThreadPoolExecutor(4) as pool:  # and in several at once, as a worker's copy
        several = list(pool.map(pickle.loads(pickle.dumps(encoded)).__getitem__, range(len(encoded))))
    assert all(np.array_equal(one["features"], encoded[i]["features"]) for i, one in enumerate(several))


def test_long_videos_are_read_in_evenly_spread_frames(tmp_path: Path) -> None:
    rows = load(tiny.videos(tmp_path, {"train0000": 30}, True)).train
    short, long = FeatureSets(rows, ["0"], True, 3), FeatureSets(rows, ["0"], True, None)
    assert short.lengths is not None
    assert set(short.lengths) == {3}
    place = rows["id"][:].index("v003") if "v003" in rows["id"][:] else int(np.argmax(rows["frames"][:]))
    assert np.array_equal(short[place]["features"], spread(long[place]["features"], 3))
    assert spread(np.arange(300), 4).tolist() == [0, 75, 150, 225]


def test_a_line_for_graft_check(tmp_path: Path) -> None:
    rows = load(tiny.videos(tmp_path, {"train0000": 30, "train0001": 20}, True)).train
    each = sum(map(len, rows["label"])) / len(rows)
    shards = "2 shards (train0000.tfrecord, train0001.tfrecord)"
    assert described(rows) == f"{shards}, {each:.2f} labels per video, features of frames (at most 6)"


def test_one_label_needs_one_label(tmp_path: Path) -> None:
    rows = load(tiny.videos(tmp_path, {"train0000": 30}, False)).train
    with pytest.raises(DataError, match=r"v\d+: 2 labels \(\d, \d\), and one is wanted: set options.multi_label=true"):
        FeatureSets(rows, ["0", "1"], False, None)
    single = rows.filter(lambda label: len(label) == 1, input_columns="label")
    example = FeatureSets(single, ["0", "1", "2", "3", "4"], False, None)[0]
    assert example["true"] in "01234"
    assert example["target"].sum() == 1


def test_a_shard_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    rows = load(tiny.videos(tmp_path, {"train0000": 30}, False)).train
    encoded = FeatureSets(rows, ["0", "1"], True, None)
    path = tmp_path / "train0000.tfrecord"
    data, at = path.read_bytes(), int(encoded.offset[0])
    path.write_bytes(data[: at + 50] + bytes([data[at + 50] ^ 1]) + data[at + 51 :])
    with pytest.raises(DataError, match=rf"train0000.tfrecord: the record at byte {at:,} is no longer the one"):
        encoded[0]
    assert encoded[1]["features"].shape == (1, 1152)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="is no longer the one that was listed"):
        encoded[len(encoded) - 1]
    path.unlink()
    with pytest.raises(DataError, match=r"train0000.tfrecord: cannot be read: No such file"):
        encoded[0]


def test_a_table_may_name_files_with_features(tmp_path: Path) -> None:
    needs = DataSpec({"features": "features", "label": "label"}, {"digest": "text", "frames": "number"})
    rng = np.random.default_rng(0)
    arrays = {f"{n}.npy": rng.random((2 + n, 1152), np.float32) for n in range(10)}
    arrays["10.npz"] = rng.random((4, 1152), np.float32)
    (tmp_path / "files").mkdir()
    for name, array in arrays.items():
        if name.endswith("npz"):
            np.savez(tmp_path / "files" / name, rgb=array[:, :1024], audio=array[:, 1024:])
        else:
            np.save(tmp_path / "files" / name, array)
    np.save(tmp_path / "files/bad.npy", np.zeros((3, 7), np.float32))
    names = [*arrays, "bad.npy"]
    lines = [f"files/{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("features,label\n" + "\n".join(lines) + "\n")
    section = DataSection(id=str(tmp_path / "list.csv"), max_skipped=0.5)
    splits = load_splits(section, needs)
    assert [why for rows in splits.skipped.values() for _, why in rows] == [
        f"list.csv:13: {tmp_path}/files/bad.npy: 3 x 7, and not 1,152 numbers for the video or for each frame"
    ]
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 11
    encoded = FeatureSets(splits.train, ["a", "b"], False, None)
    for number, row in enumerate(splits.train):
        array = arrays[Path(row["features"]["path"]).name]
        assert row["frames"] == len(array)
        assert np.array_equal(encoded[number]["features"], array)
        assert encoded[number]["true"] == row["label"]
    assert "9 files (" in described(splits.train)
    assert "1.00 labels per video" in described(splits.train)


def test_records_with_one_label_are_rows_of_one_label(tmp_path: Path) -> None:
    needs = DataSpec({"features": "features", "label": "label"}, {"digest": "text", "frames": "number"})
    videos = [tiny.video(f"v{n}", [n % 2], [n / 40] * 1024, [0.5] * 128) for n in range(40)]
    tiny.shard(tmp_path / "train0000.tfrecord", videos)
    (tmp_path / "vocabulary.csv").write_text("Index,Name\n0,cat\n1,dog\n")
    rows = load_splits(DataSection(id=str(tmp_path)), needs).train
    assert set(rows["label"]) == {"cat", "dog"}
    assert FeatureSets(rows, ["cat", "dog"], False, None)[0]["true"] == rows["label"][0]
    tiny.shard(tmp_path / "train0001.tfrecord", [tiny.video("w", [0, 1], [0.5] * 1024, [0.5] * 128)])
    with pytest.raises(DataError, match=r"w: 2 labels \(cat, dog\), and one is wanted: set options.multi_label=true"):
        load_splits(DataSection(id=str(tmp_path)), needs)
