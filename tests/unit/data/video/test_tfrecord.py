"""Records of YouTube-8M against protobuf's own reading of them, and features that a user gives."""

import struct
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.video import tfrecord
from pipelines.errors import DataError
from tests.support import tiny_tfrecords as tiny

SHARED = Path(__file__).parents[5] / "shared" / "data"  # real extracts, if there are any


def compare(path: Path) -> tuple[int, float, int]:
    """Compare all records of a shard with protobuf's reading. Returns videos, the sum of the features, of labels."""
    ours = []
    for offset, data in tfrecord.records(path):
        assert isinstance(data, bytes)
        ours.append((tfrecord.cell(path, offset, len(data)), tfrecord.read_example(data)))
    theirs = tiny.parsed(path)
    assert len(ours) == len(theirs)
    sums = [0.0, 0]
    for (cell, one), other in zip(ours, theirs, strict=True):
        if one.of_frames:
            context, lists = other.context.feature, other.feature_lists.feature_list
            expected = {
                name: np.array([list(frame.bytes_list.value[0]) for frame in lists[name].feature]) * (4 / 255)
                + (4 / 512)
                - 2
                for name in ("rgb", "audio")
            }
        else:
            context = other.features.feature
            expected = {name: np.array(context[f"mean_{name}"].float_list.value) for name in ("rgb", "audio")}
        assert one.id == context["id"].bytes_list.value[0].decode()
        assert one.labels == list(context["labels"].int64_list.value)
        again = tfrecord.read_record(cell)
        for name, values in expected.items():
            assert np.array_equal(one.features[name], values.astype(np.float32))
            assert np.array_equal(again.features[name], one.features[name])
            assert one.features[name].sum(dtype=np.float64) == values.astype(np.float32).sum(dtype=np.float64)
        sums[0] += sum(float(values.sum(dtype=np.float64)) for values in one.features.values())
        sums[1] += sum(one.labels)
    return len(ours), *sums


@pytest.mark.parametrize("of_frames", [False, True])
def test_records_are_what_protobuf_reads(tmp_path: Path, of_frames: bool) -> None:
    folder = tiny.videos(tmp_path, {"train0000": 12}, of_frames)
    count, total, labels = compare(folder / "train0000.tfrecord")
    assert count == 12
    assert total != 0
    assert labels == sum(sum(tiny.labels_of(number)) for number in range(12))
    places = list(tfrecord.places(folder / "train0000.tfrecord"))
    both = [(at, len(data)) for at, data in tfrecord.records(folder / "train0000.tfrecord") if isinstance(data, bytes)]
    assert places == both


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "youtube8m").is_dir(), reason="no real shards here")
def test_all_real_records_are_what_protobuf_reads() -> None:
    found = [compare(path) for path in sorted((SHARED / "youtube8m/video").glob("*.tfrecord"))]
    assert [count for count, _, _ in found] == [284, 305, 313, 300]
    assert sum(labels for _, _, labels in found) > 0


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def example(**features: bytes) -> bytes:
    entries = b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    return field(1, entries)


def floats(values: "np.ndarray") -> bytes:
    return field(2, field(1, values.astype("<f4").tobytes()))


RGB, AUDIO = np.arange(1024) / 7, -np.arange(128) / 3
ID, LABELS = field(1, field(1, b"abcd")), field(3, field(1, b"\x05" + varint(3861)))


def test_other_encodings_of_the_same_lists() -> None:
    """Lists that are not packed, in parts, with unknown fields between, and a name that occurs twice."""
    unpacked = field(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in RGB))
    parts = field(2, field(1, AUDIO[:100].astype("<f4").tobytes())) + field(
        2, field(1, AUDIO[100:].astype("<f4").tobytes())
    )
    labels = field(3, b"\x08\x05" + b"\x10\x01" + b"\x08" + varint(3861))
    data = example(id=ID, mean_rgb=floats(AUDIO)) + b"\x78\x01" + b"\x1d1234" + b"\x1912345678" + field(9, b"x")
    record = tfrecord.read_example(data + example(labels=labels, mean_rgb=unpacked, mean_audio=parts))
    assert record.id == "abcd"
    assert record.labels == [5, 3861]
    assert np.array_equal(record.features["rgb"], RGB.astype(np.float32))
    assert np.array_equal(record.features["audio"], AUDIO.astype(np.float32))


def test_frames_that_are_not_all_written_alike() -> None:
    rows = np.arange(3 * 1024).reshape(3, 1024) % 251
    one = [field(1, field(1, field(1, row.astype(np.uint8).tobytes()))) for row in rows]
    one[1] = field(1, field(1, field(1, rows[1].astype(np.uint8).tobytes())) + b"\x10\x00")
    sound = b"".join(field(1, field(1, field(1, bytes(128)))) for _ in rows)
    lists = b"".join(field(1, field(1, n) + field(2, v)) for n, v in ((b"rgb", b"".join(one)), (b"audio", sound)))
    record = tfrecord.read_example(example(id=ID, labels=LABELS) + field(2, lists))
    assert record.frames == 3
    assert np.array_equal(record.features["rgb"], (rows * (4 / 255) + (4 / 512) - 2).astype(np.float32))


GIVEN = {"rgb": np.ones((4, 1024), np.float32), "audio": np.zeros((4, 128), np.float32)}


def test_features_that_a_user_gives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **GIVEN)
    both = np.concatenate([GIVEN["rgb"], GIVEN["audio"]], axis=1)
    np.save(tmp_path / "a.npy", both)
    np.save(tmp_path / "one.npy", both[0])
    for value in (GIVEN, both, tmp_path / "a.npz", str(tmp_path / "a.npy"), {"path": str(tmp_path / "a.npz")}):
        found = tfrecord.read_features(value)
        assert found.dtype == np.float32
        assert np.array_equal(found, both)
    assert tfrecord.read_features(tmp_path / "one.npy").shape == (1, 1152)
    assert tfrecord.read_features(np.zeros(1152, np.uint8))[0, 0] == np.float32(4 / 512 - 2)
    path = tiny.shard(tmp_path / "x.tfrecord", [tiny.record(3, True)])
    (place,) = tfrecord.places(path)
    found = tfrecord.read_features(path)
    assert found.shape == (6, 1152)
    assert np.array_equal(found, tfrecord.read_features(tfrecord.cell(path, *place)))


def test_features_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "odd.npz", x=np.zeros(3))
    (tmp_path / "text.npy").write_text("no")
    (tmp_path / "text.npz").write_text("no")
    tiny.shard(tmp_path / "two.tfrecord", [tiny.record(0), tiny.record(1)])
    for value, why in (
        (np.zeros(1151), "1151, and not 1,152 numbers"),
        (np.full(1152, np.nan), "no finite numbers"),
        (np.zeros((0, 1152)), "0 x 1152"),
        ([["a"] * 1152], "not numbers"),
        ({"rgb": np.zeros(1024)}, "no audio"),
        ({**GIVEN, "audio": GIVEN["audio"][:2]}, "4 frames of rgb and 2 of audio"),
        (7, "a int holds no features"),
        (tmp_path / "objects.npy", "objects.npy: cannot be read as features"),
        (tmp_path / "odd.npz", "no rgb and audio"),
        (tmp_path / "text.npy", "cannot be read as features"),
        (tmp_path / "text.npz", "cannot be read as features"),
        (tmp_path / "none.npy", "No such file"),
        (tmp_path / "two.tfrecord", "several records"),
        (tmp_path / "x.csv", "features are read from .npy, .npz and .tfrecord"),
    ):
        with pytest.raises(DataError, match=why):
            tfrecord.read_features(value)
