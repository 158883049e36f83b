"""Shards in the published format of YouTube-8M, written through protobuf, and not with any code of Graft's reader.

folder = videos(tmp_path / "yt8m", {"train0000": 40, "validate0000": 10})     features of each video
folder = videos(tmp_path / "yt8m", {"train0000": 40}, frames=True)            features of each frame

Labels are 0 to 4; a video has one or two, which its features tell.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CLASSES = 5  # that occur
Field = descriptor_pb2.FieldDescriptorProto


@lru_cache(1)
def messages() -> dict[str, Any]:
    """The classes Example and SequenceExample, from descriptors written out as in TensorFlow's .proto files."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, Any, bool], oneof: str = "") -> Any:
        made = file.message_type.add(name=name)
        if oneof:
            made.oneof_decl.add(name=oneof)
        for field, number, kind, repeated in fields:
            own = made.field.add(name=field, number=number)
            own.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                own.type, own.type_name = Field.TYPE_MESSAGE, f".tf.{kind}"
            else:
                own.type = kind
            if oneof:
                own.oneof_index = 0
        return made

    def mapping(name: str, field: str, value: str) -> None:
        made = message(name, (field, 1, f"{name}.{field.title().replace('_', '')}Entry", True))
        entry = made.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        entry.field.add(
            name="value", number=2, label=Field.LABEL_OPTIONAL, type=Field.TYPE_MESSAGE, type_name=f".tf.{value}"
        )

    message("BytesList", ("value", 1, Field.TYPE_BYTES, True))
    message("FloatList", ("value", 1, Field.TYPE_FLOAT, True))
    message("Int64List", ("value", 1, Field.TYPE_INT64, True))
    kinds = [(f"{kind}_list", number, f"{kind.title()}List", False) for number, kind in enumerate(KINDS, 1)]
    message("Feature", *kinds, oneof="kind")
    mapping("Features", "feature", "Feature")
    message("Example", ("features", 1, "Features", False))
    message("FeatureList", ("feature", 1, "Feature", True))
    mapping("FeatureLists", "feature_list", "FeatureList")
    message("SequenceExample", ("context", 1, "Features", False), ("feature_lists", 2, "FeatureLists", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf.{name}"))
        for name in ("Example", "SequenceExample")
    }


KINDS = ("bytes", "float", "int64")


def video(id_: str | bytes, labels: Sequence[int], rgb: Any, audio: Any) -> bytes:
    """The record of a video: features of all of it."""
    example = messages()["Example"]()
    features = example.features.feature
    features["id"].bytes_list.value.append(id_.encode() if isinstance(id_, str) else id_)
    features["labels"].int64_list.value.extend(labels)
    features["mean_rgb"].float_list.value.extend(np.asarray(rgb, np.float32).tolist())
    features["mean_audio"].float_list.value.extend(np.asarray(audio, np.float32).tolist())
    return bytes(example.SerializeToString(deterministic=True))


def frames(id_: str | bytes, labels: Sequence[int], rgb: Iterable[Any], audio: Iterable[Any]) -> bytes:
    """The record of a video: features of each frame, a byte for each number."""
    example = messages()["SequenceExample"]()
    context = example.context.feature
    context["id"].bytes_list.value.append(id_.encode() if isinstance(id_, str) else id_)
    context["labels"].int64_list.value.extend(labels)
    for name, rows in (("rgb", rgb), ("audio", audio)):
        for row in rows:
            one = example.feature_lists.feature_list[name].feature.add()
            one.bytes_list.value.append(np.asarray(row, np.uint8).tobytes())
    return bytes(example.SerializeToString(deterministic=True))


def masked(data: bytes) -> bytes:
    crc = int.from_bytes(google_crc32c.Checksum(data).digest(), "big")
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def framed(record: bytes) -> bytes:
    """A record with its length and both checksums."""
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def shard(path: Path, records: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, records)))
    return path


def labels_of(number: int) -> list[int]:
    return sorted({number % CLASSES, number * 7 // 3 % CLASSES})


def record(number: int, of_frames: bool = False) -> bytes:
    """The record of video `number`."""
    rng = np.random.default_rng(number)
    labels = labels_of(number)
    wave = sum(np.sin(np.arange(1152) * (label + 1) / 9) for label in labels)
    id_ = f"v{number:03d}"
    if not of_frames:
        values = wave + 0.1 * rng.standard_normal(1152)
        return video(id_, labels, values[:1024], values[1024:])
    rows = np.clip(128 + 50 * wave + 5 * rng.standard_normal((3 + number % 4, 1152)), 0, 255).astype(np.uint8)
    return frames(id_, labels, rows[:, :1024], rows[:, 1024:])


def videos(folder: Path, shards: Mapping[str, int], frames: bool = False) -> Path:
    """Shards with so many videos, numbered throughout."""
    first = 0
    for name, count in shards.items():
        shard(folder / f"{name}.tfrecord", [record(number, frames) for number in range(first, first + count)])
        first += count
    return folder


def parsed(path: Path) -> list[Any]:
    """The messages of a shard, read by protobuf. Frame-level shards have `context`."""
    found, data, at = [], path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + length]
        assert data[at + 8 : at + 12] == masked(data[at : at + 8])
        assert data[at + 12 + length : at + 16 + length] == masked(body)
        sequence = messages()["SequenceExample"].FromString(body)
        found.append(sequence if sequence.feature_lists.feature_list else messages()["Example"].FromString(body))
        at += 16 + length
    return found
