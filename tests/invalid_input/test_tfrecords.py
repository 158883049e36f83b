"""Shards of YouTube-8M that are damaged, or that somebody wrote to do harm.

Every case begins with a shard that is right, and spoils it. A record that cannot be used is skipped and named, and the
others are read. Where nobody can know how many records are lost, the error names the shard and the byte.
"""

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import Splits
from pipelines.data.video import tfrecord
from pipelines.errors import DataError
from tests.support import tiny_tfrecords as tiny
from tests.unit.data.video.test_feature_sets import NEEDS

RGB, AUDIO = np.ones(1024), np.ones(128)
SIZE = len(tiny.framed(tiny.record(0)))  # of the first record, with its checksums


def load(folder: Path, **keys: Any) -> Splits:
    return load_splits(DataSection(id=str(folder), **keys), NEEDS)


def spoilt(folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """30 videos in a shard whose bytes are changed."""
    path = tiny.videos(folder, {"train0000": 30}) / "train0000.tfrecord"
    path.write_bytes(change(path.read_bytes()))
    return folder


def with_record(folder: Path, record: bytes) -> Path:
    """30 videos, and a record before the last."""
    records = [tiny.record(number) for number in range(30)]
    tiny.shard(folder / "train0000.tfrecord", [*records[:-1], record, records[-1]])
    return folder


def put(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def header(length: int) -> bytes:
    return struct.pack("<Q", length) + tiny.masked(struct.pack("<Q", length))


SHARDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "wrong length checksum": (put(SIZE + 8, b"\0\0\0\0"), rf"the length at byte {SIZE:,} has a wrong checksum"),
    "wrong length": (put(SIZE, b"\1\1\1\1"), rf"the length at byte {SIZE:,} has a wrong checksum"),
    "cut off in the header": (lambda data: data[: SIZE + 5], rf"cut off: the record at byte {SIZE:,} ends in its head"),
    "cut off in the data": (lambda data: data[: SIZE + 99], rf"cut off: the record at byte {SIZE:,} ends in its data"),
    "cut off in the footer": (lambda data: data[: 2 * SIZE - 2], r"cut off: .* ends in its last checksum"),
    "empty": (lambda data: b"", r"train0000.tfrecord: empty: fetch the file again"),
    "2^60 bytes": (
        put(SIZE, header(1 << 60)),
        r"at byte [\d,]+ states 1,152,921,504,606,846,976 bytes, and at most 16",
    ),
    "20 MB": (put(SIZE, header(20 << 20)), r"states 20,971,520 bytes, and at most 16 MB are read"),
    "text": (lambda data: b"id,label\n1,2\n" * 9, r"no TFRecord file: it starts with b'id,label"),
    "gzip": (gzip.compress, r"a file of gzip, and not of TFRecord: unpack it first"),
    "zeros": (lambda data: bytes(1000), r"no TFRecord file: it starts with b'\\x00"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_shards_that_cannot_be_read(tmp_path: Path, case: str) -> None:
    change, why = SHARDS[case]
    with pytest.raises(DataError, match=why) as error:
        load(spoilt(tmp_path, change))
    assert str(tmp_path) in str(error.value)
    assert len(str(error.value)) < 400


def test_a_damaged_record_is_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    splits = load(spoilt(tmp_path, put(SIZE + 50, b"\xff\xff")))
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 29
    ((id_, why),) = splits.skipped["train"]
    assert id_ == f"train0000.tfrecord@{SIZE + 12}"
    assert why == f"{tmp_path}/train0000.tfrecord: the record at byte {SIZE + 12:,} has a wrong checksum: it is damaged"


def plain(**features: tuple[str, Any]) -> bytes:
    """A tf.Example with other features than those of YouTube-8M."""
    example = tiny.messages()["Example"]()
    for name, (kind, values) in features.items():
        getattr(example.features.feature[name], f"{kind}_list").value.extend(values)
    return bytes(example.SerializeToString())


def nested(depth: int) -> bytes:
    return b"\x0b" * depth + b"\x0c" * depth


RECORDS: dict[str, tuple[bytes, str]] = {
    "unknown features": (plain(image=("bytes", [b"x"])), r"neither mean_rgb nor rgb \(it has: image\)"),
    "no features": (b"", r"neither mean_rgb nor rgb \(it has: no features\)"),
    "1,023 floats": (tiny.video("x", [1], RGB[1:], AUDIO), r"1,023 numbers of mean_rgb, and not 1,024"),
    "no audio": (plain(id=("bytes", [b"x"]), mean_rgb=("float", RGB)), "no mean_audio"),
    "NaN": (tiny.video("x", [1], RGB * np.nan, AUDIO), "mean_rgb has values that are no finite numbers"),
    "infinite": (tiny.video("x", [1], RGB, AUDIO * np.inf), "mean_audio has values that are no finite numbers"),
    "label beyond": (tiny.video("x", [1, 3862], RGB, AUDIO), r"has the label 3862, beyond the 3,862 classes"),
    "negative label": (tiny.video("x", [-1], RGB, AUDIO), "has the label -1, which is no class"),
    "no label": (tiny.video("x", [], RGB, AUDIO), "has no labels"),
    "many labels": (tiny.video("x", [1] * 10_001, RGB, AUDIO), "more than 10,000 labels"),
    "no id": (tiny.video("", [1], RGB, AUDIO), "no id"),
    "long id": (tiny.video("x" * 201, [1], RGB, AUDIO), "an id of 201 bytes"),
    "id not UTF-8": (tiny.video(b"\xff\xfe", [1], RGB, AUDIO), "is not UTF-8"),
    "id with a line end": (tiny.video("a\nb", [1], RGB, AUDIO), "cannot be printed"),
    "frames": (tiny.record(3, True), "has features of frames, unlike the others"),
    "unequal frames": (tiny.frames("x", [1], [RGB] * 3, [AUDIO] * 2), "3 frames of rgb and 2 of audio"),
    "short frame": (tiny.frames("x", [1], [RGB, RGB[1:]], [AUDIO] * 2), "frame 1 of rgb has 1023 bytes, and not 1,024"),
    "no frames of audio": (tiny.frames("x", [1], [RGB], []), "no audio"),
    "varint of 11 bytes": (b"\x08" + b"\xff" * 10 + b"\x01", "a number has more than ten bytes"),
    "varint of 70 bits": (b"\x08" + b"\xff" * 9 + b"\x7f", "a number has more than 64 bits"),
    "endless varint": (b"\x08\xff", "the record ends within a number"),
    "groups": (nested(5000), "a field of the kind 3, which no tf.Example has"),
    "unknown wire type": (b"\x0f", "a field of the kind 7"),
    "longer than the record": (b"\x0a\xff\xff\xff\x7f", "a field is longer than its record"),
    "2^63 bytes": (b"\x0a" + b"\xff" * 9 + b"\x01", "a field is longer than its record"),
    "field 0": (b"\x02\x01x", "a field has the number 0"),
    "cut-off float": (b"\x0d\x01", "a field is longer than its record"),
    "random": (np.random.default_rng(0).bytes(5000), "the record at byte"),
    "twice": (tiny.record(5), "the video v005 a second time"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_records_that_are_skipped(tmp_path: Path, case: str) -> None:
    record, why = RECORDS[case]
    splits = load(with_record(tmp_path, record))
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 30
    ((_, said),) = splits.skipped["train"]
    assert "train0000.tfrecord" in said
    assert len(said) < 300
    assert re.search(why, said)


def test_records_that_are_cut_anywhere_are_errors_of_the_data() -> None:
    """No cut and no changed byte leads to another error."""
    rng, messages = np.random.default_rng(0), []
    for record in (tiny.record(1), tiny.record(1, True)):
        wanted = [*range(60), *rng.integers(60, len(record), 60).tolist()]
        for at in wanted:
            for spoilt_one in (record[:at], record[:at] + bytes(rng.integers(0, 256, 3).tolist()) + record[at + 3 :]):
                try:
                    found = tfrecord.read_example(spoilt_one)
                    assert found.features["rgb"].shape[-1] == 1024
                except tfrecord.BadRecord as error:
                    messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith("the record: ") for message in messages)


def test_all_records_are_bad(tmp_path: Path) -> None:
    tiny.shard(tmp_path / "train0000.tfrecord", [plain(image=("bytes", [b"x"]))] * 3)
    with pytest.raises(
        DataError, match=r"train0000.tfrecord: none of 3 records can be used; the first: .*neither mean"
    ):
        load(tmp_path)


def test_a_video_in_two_splits(tmp_path: Path) -> None:
    tiny.videos(tmp_path, {"train0000": 20, "validate0000": 10})
    tiny.shard(tmp_path / "validate0001.tfrecord", [tiny.record(7), tiny.record(40)])
    with pytest.raises(DataError, match="the video v007 in train and in validation too, which makes scores too good"):
        load(tmp_path)


VOCABULARIES = {
    "Index,Name\n0,a\n0,b\n": "vocabulary.csv:3: Index 0 a second time",
    "Index,Name\n-1,a\n": "vocabulary.csv:2: Index is '-1', and not the number of a class",
    "Index,Name\n999999,a\n": "Index is '999999'",
    "Index,Name\n99999,a\n": "1 classes with numbers up to 99,999",
    "Number,Name\n1,a\n": r"no columns Index and Name \(it has: Number, Name\)",
    "Index,Name\n": "no rows",
    "Index,Name\n0,\xff\n": "cannot be read as csv",
}


@pytest.mark.parametrize("content", VOCABULARIES)
def test_vocabularies(tmp_path: Path, content: str) -> None:
    tiny.videos(tmp_path, {"train0000": 20})
    (tmp_path / "vocabulary.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=VOCABULARIES[content]):
        load(tmp_path)
