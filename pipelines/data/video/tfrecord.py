"""Records of TFRecord files, and the features of videos in them, read without TensorFlow (extra `youtube8m`).

A file is a row of records: 8 bytes with the length, their checksum, the data, and the checksum of the data. The data
are protocol buffers: a tf.Example with the features of a video (`id`, `labels`, `mean_rgb`, `mean_audio`), or a
tf.SequenceExample with those of its frames (`rgb` and `audio`, one byte for each number). Both checksums are compared
each time that a record is read.

A record with a wrong checksum of its data is left out, because the next one is found by its length. Where a length is
wrong or the file ends too early, nobody knows how many records are lost, so the file is an error.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipelines.errors import DataError
from pipelines.utils.formatting import short

SUFFIXES = (".tfrecord", ".tfrecords")
MOST_BYTES = 16 << 20  # of a record; five minutes of video, a frame each second, have 0.4 MB
SIZES = {"rgb": 1024, "audio": 128}  # numbers of a frame, in the order in which a network reads them
MOST_LABELS = 10_000  # of a video
_LONGEST_ID = 200  # bytes
_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
_BUFFER = 1 << 20  # bytes that are read at once
# YouTube-8M's own code: a byte stands for a number from -2 to 2, and the middle of its step is taken
_VALUES = (np.arange(256) * (4 / 255) + (4 / 512) - 2).astype(np.float32)


class BadRecord(DataError):
    """A record that cannot be used, while those after it can."""


class Record(NamedTuple):
    """A video: its id, the numbers of its labels, and its features."""

    id: str
    labels: list[int]
    features: dict[str, np.ndarray]
    """`rgb` [1024] and `audio` [128]; [n, 1024] and [n, 128] of frames. float32; bytes if not decoded."""

    @property
    def frames(self) -> int:
        """The number of frames; 1 for features of the video."""
        rgb = self.features["rgb"]
        return len(rgb) if rgb.ndim == 2 else 1

    @property
    def of_frames(self) -> bool:
        return self.features["rgb"].ndim == 2


# ---- files ----


def records(path: str | Path) -> Iterator[tuple[int, bytes | BadRecord]]:
    """The records of a file with the place of their data, in bytes; a BadRecord where the data's checksum is wrong.

    Raises DataError naming the file and the byte if the rest of the file cannot be read.
    """
    verify = _crc32c()
    with _opened(path) as file:
        size = _size(path, file)
        at = 0
        while at < size:
            length = _length(path, file.read(_HEADER.size), at, size)
            both = file.read(length + _CHECKSUM.size)
            if len(both) < length + _CHECKSUM.size:
                raise _cut_off(path, at, "its data")
            at += _HEADER.size
            data = both[:length]
            yield at, (data if _masked(verify(data)) == _CHECKSUM.unpack_from(both, length)[0] else _damaged(path, at))
            at += length + _CHECKSUM.size


def places(path: str | Path) -> Iterator[tuple[int, int]]:
    """The place and the length of each record's data, without reading the data. Raises DataError as `records` does."""
    with _opened(path) as file:
        size = _size(path, file)
        at = 0
        while at < size:
            length = _length(path, file.read(_HEADER.size), at, size)
            at += _HEADER.size
            yield at, length
            at += length + _CHECKSUM.size
            file.seek(at)


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=_BUFFER)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _size(path: str | Path, file: BinaryIO) -> int:
    """The bytes of a file. Raises DataError for an empty one: it is what a failed download leaves."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise DataError(f"{path}: empty: fetch the file again, or take it out")
    return size


def _length(path: str | Path, header: bytes, at: int, size: int) -> int:
    """The length of the record whose header is at this byte. Raises DataError."""
    if len(header) < _HEADER.size:
        raise _cut_off(path, at, "its header")
    length, checksum = _HEADER.unpack(header)
    if _masked(_crc32c()(header[:8])) != checksum:
        raise DataError(_no_records(path, header) if at == 0 else _wrong_length(path, at))
    if length > MOST_BYTES:
        raise DataError(
            f"{path}: the record at byte {at:,} states {length:,} bytes, and at most {MOST_BYTES >> 20} MB are read: "
            "these are no features of videos"
        )
    if at + _HEADER.size + length > size:
        raise _cut_off(path, at, "its data")
    if at + _HEADER.size + length + _CHECKSUM.size > size:
        raise _cut_off(path, at, "its last checksum")
    return int(length)


def _no_records(path: str | Path, header: bytes) -> str:
    if header[:2] == b"\x1f\x8b":
        return f"{path}: a file of gzip, and not of TFRecord: unpack it first (gunzip)"
    return (
        f"{path}: no TFRecord file: it starts with {short(repr(header), 60)}, "
        "and not with a length and its checksum; if it is one, fetch it again"
    )


def _wrong_length(path: str | Path, at: int) -> str:
    return (
        f"{path}: the length at byte {at:,} has a wrong checksum, so the records after it cannot be found: "
        "fetch the file again, or take it out"
    )


def _cut_off(path: str | Path, at: int, where: str) -> DataError:
    return DataError(
        f"{path}: cut off: the record at byte {at:,} ends in {where}: fetch the file again, or take it out"
    )


def _damaged(path: str | Path, at: int) -> BadRecord:
    return BadRecord(f"{path}: the record at byte {at:,} has a wrong checksum: it is damaged")


def _masked(crc: int) -> int:
    """A checksum as TFRecord stores it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(1)
def _crc32c() -> Any:
    try:
        from google_crc32c import value
    except ImportError:
        raise DataError(
            "TFRecord files need the package google-crc32c: pip install 'graft-pipelines[youtube8m]'"
        ) from None
    return value


# ---- cells ----


def cell(path: str | Path, offset: int, length: int) -> dict[str, Any]:
    """The cell of a record in the column `features`."""
    return {"path": str(path), "bytes": None, "offset": offset, "length": length}


def read_record(cell: Mapping[str, Any]) -> Record:
    """The video that a cell points to, with decoded features. Raises DataError, also if the file has changed."""
    path, offset, length = cell["path"], cell["offset"], cell["length"]
    if length > MOST_BYTES or length < 0 or offset < _HEADER.size:
        raise DataError(f"{path}: no record can be {length:,} bytes at byte {offset:,}")
    start = offset - _HEADER.size
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            found = os.pread(file, _HEADER.size + length + _CHECKSUM.size, start)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    data = found[_HEADER.size : _HEADER.size + length]
    right = (
        len(found) == _HEADER.size + length + _CHECKSUM.size
        and _HEADER.unpack_from(found)[0] == length
        and _masked(_crc32c()(data)) == _CHECKSUM.unpack_from(found, _HEADER.size + length)[0]
    )
    if not right:
        raise DataError(
            f"{path}: the record at byte {offset:,} is no longer the one that was listed: the file has changed or is "
            "damaged; start again"
        )
    return read_example(data, f"{path}, byte {offset:,}")


def read_cell(cell: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The decoded features that a cell points to: `rgb` and `audio`, float32. Raises DataError."""
    return read_record(cell).features


def joined(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """`rgb` and `audio` as one array [n, 1152], float32; n is 1 for features of the video."""
    return np.concatenate([np.atleast_2d(features[name]) for name in SIZES], axis=1)


# ---- protocol buffers ----


def read_example(data: bytes, where: str = "the record") -> Record:
    """The video in a record's data, with features as float32. Raises BadRecord, which begins with `where`."""
    found = parse(data, where)
    return found._replace(features={name: decoded(values) for name, values in found.features.items()})


def decoded(values: np.ndarray) -> np.ndarray:
    """Features as float32: the bytes of frames stand for numbers from -2 to 2."""
    return _VALUES[values] if values.dtype == np.uint8 else values


def parse(data: bytes, where: str = "the record") -> Record:
    """The video in a record's data; features of frames stay bytes (uint8). Raises BadRecord."""
    try:
        return _record(data)
    except BadRecord as error:
        raise BadRecord(f"{where}: {error}") from None


def _record(data: bytes) -> Record:
    context: dict[bytes, tuple[int, int]] = {}
    lists: dict[bytes, tuple[int, int]] = {}
    for number, start, end in _messages(data, 0, len(data)):
        if number == 1:
            _map(data, start, end, context)
        elif number == 2:
            _map(data, start, end, lists)
    frames = b"rgb" in lists
    if not frames and b"mean_rgb" not in context:
        known = sorted({name.decode("utf-8", "replace") for name in (*context, *lists)})[:8]
        raise BadRecord(f"neither mean_rgb nor rgb (it has: {short(', '.join(known), 80) or 'no features'})")
    id_ = _id(data, context)
    labels = _labels(data, context)
    features = {}
    for name, size in SIZES.items():
        own = (name if frames else f"mean_{name}").encode()
        place = (lists if frames else context).get(own)
        if place is None:
            raise BadRecord(f"no {own.decode()}")
        features[name] = _frames(data, *place, name, size) if frames else _floats(data, *place, name, size)
    if frames and len(features["rgb"]) != len(features["audio"]):
        raise BadRecord(f"{len(features['rgb'])} frames of rgb and {len(features['audio'])} of audio")
    return Record(id_, labels, features)


def _id(data: bytes, context: Mapping[bytes, tuple[int, int]]) -> str:
    place = context.get(b"id") or context.get(b"video_id")
    found = None if place is None else next(_strings(data, *place), None)
    if not found:
        raise BadRecord("no id")
    if len(found) > _LONGEST_ID:
        raise BadRecord(f"an id of {len(found):,} bytes")
    try:
        text = found.decode()
    except UnicodeDecodeError:
        raise BadRecord(f"the id {short(repr(found), 40)} is not UTF-8") from None
    if not text.isprintable() or not text.strip():
        raise BadRecord(f"the id {short(repr(text), 40)} cannot be printed")
    return text


def _labels(data: bytes, context: Mapping[bytes, tuple[int, int]]) -> list[int]:
    place = context.get(b"labels")
    found: list[int] = []
    for start, end in () if place is None else _lists(data, *place, 3):
        at = start
        while at < end:
            tag, at = _varint(data, at, end)
            if tag == 0x08:  # one number
                value, at = _varint(data, at, end)
                found.append(value - (1 << 64) if value >> 63 else value)
            elif tag == 0x0A:  # several numbers, packed
                size, at = _varint(data, at, end)
                stop = at + size
                if stop > end:
                    raise BadRecord(_TOO_LONG)
                while at < stop:
                    value, at = _varint(data, at, stop)
                    found.append(value - (1 << 64) if value >> 63 else value)
                    if len(found) > MOST_LABELS:
                        raise BadRecord(_TOO_MANY)
            else:
                at = _skipped(data, tag, at, end)
            if len(found) > MOST_LABELS:
                raise BadRecord(_TOO_MANY)
    return found


_TOO_MANY = f"more than {MOST_LABELS:,} labels"
_TOO_LONG = "a field is longer than its record"


def _floats(data: bytes, start: int, end: int, name: str, size: int) -> np.ndarray:
    """The numbers of the feature of a video."""
    parts: list[np.ndarray] = []
    for at, stop in _lists(data, start, end, 2):
        while at < stop:
            tag, at = _varint(data, at, stop)
            if tag == 0x0A:  # packed
                length, at = _varint(data, at, stop)
                if at + length > stop or length % 4:
                    raise BadRecord(_TOO_LONG if at + length > stop else f"{length} bytes of mean_{name} are no floats")
                parts.append(np.frombuffer(data, "<f4", length // 4, at))
                at += length
            elif tag == 0x0D:  # one number
                if at + 4 > stop:
                    raise BadRecord(_TOO_LONG)
                parts.append(np.frombuffer(data, "<f4", 1, at))
                at += 4
            else:
                at = _skipped(data, tag, at, stop)
    values = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.float32)
    if len(values) != size:
        raise BadRecord(f"{len(values):,} numbers of mean_{name}, and not {size:,}")
    if not np.isfinite(values).all():
        raise BadRecord(f"mean_{name} has values that are no finite numbers")
    return values.astype(np.float32, copy=False)


def _frames(data: bytes, start: int, end: int, name: str, size: int) -> np.ndarray:
    """The bytes of the frames [n, size]."""
    found = _equal_frames(data, start, end, size)
    if found is None:
        frames: list[np.ndarray] = []
        for number, at, stop in _messages(data, start, end):
            if number != 1:
                continue
            values = list(_strings(data, at, stop))
            if len(values) != 1 or len(values[0]) != size:
                sizes = ", ".join(str(len(value)) for value in values[:3]) or "no"
                raise BadRecord(f"frame {len(frames)} of {name} has {sizes} bytes, and not {size:,}")
            frames.append(np.frombuffer(values[0], np.uint8))
        found = np.stack(frames) if frames else np.empty((0, size), np.uint8)
    if not len(found):
        raise BadRecord(f"no frames of {name}")
    return found


def _equal_frames(data: bytes, start: int, end: int, size: int) -> np.ndarray | None:
    """The frames of a list whose frames are all written in the same way, which are read at once; else None."""
    first = next(_messages(data, start, end), None)
    if first is None or first[0] != 1:
        return None
    stride = first[2] - start
    if first[2] - size < start or (end - start) % stride:
        return None
    values = list(_strings(data, first[1], first[2]))
    if len(values) != 1 or len(values[0]) != size or values[0] != data[first[2] - size : first[2]]:
        return None
    table = np.frombuffer(data, np.uint8, end - start, start).reshape(-1, stride)
    head = stride - size
    return table[:, head:] if (table[:, :head] == table[0, :head]).all() else None


def _map(data: bytes, start: int, end: int, found: dict[bytes, tuple[int, int]]) -> None:
    """Add the entries of a map: name -> where its value is. A later value of a name takes the place of a former one."""
    for number, at, stop in _messages(data, start, end):
        if number != 1:
            continue
        key, value = b"", (stop, stop)
        for part, first, last in _messages(data, at, stop):
            if part == 1:
                key = data[first:last]
            elif part == 2:
                value = (first, last)
        found[key] = value


def _lists(data: bytes, start: int, end: int, kind: int) -> Iterator[tuple[int, int]]:
    """Where the lists of a feature are: of bytes (1), of floats (2), of whole numbers (3)."""
    return ((at, stop) for number, at, stop in _messages(data, start, end) if number == kind)


def _strings(data: bytes, start: int, end: int) -> Iterator[bytes]:
    for at, stop in _lists(data, start, end, 1):
        for number, first, last in _messages(data, at, stop):
            if number == 1:
                yield data[first:last]


def _messages(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields with a length: their number, and where they are. Other fields are passed over."""
    at = start
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(data, at, end)
        if tag & 7 != 2:
            at = _skipped(data, tag, at, end)
            continue
        if at < end and data[at] < 0x80:
            size, at = data[at], at + 1
        else:
            size, at = _varint(data, at, end)
        if size > end - at:
            raise BadRecord(_TOO_LONG)
        if tag < 8:
            raise BadRecord("a field has the number 0")
        yield tag >> 3, at, at + size
        at += size


def _skipped(data: bytes, tag: int, at: int, end: int) -> int:
    """The place after a field that is not read."""
    kind = tag & 7
    if kind == 0:
        at = _varint(data, at, end)[1]
    elif kind == 1:
        at += 8
    elif kind == 2:
        size, at = _varint(data, at, end)
        at += size
    elif kind == 5:
        at += 4
    else:  # groups were given up before tf.Example was written, and may hold each other without end
        raise BadRecord(f"a field of the kind {kind}, which no tf.Example has")
    if at > end:
        raise BadRecord(_TOO_LONG)
    return at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A whole number of 64 bits and the place after it."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise BadRecord("a number has more than 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise BadRecord("a number has more than ten bytes")
    raise BadRecord("the record ends within a number")


# ---- features that a user gives ----

_LARGEST = 256 << 20  # bytes of a file


def read_features(value: Any) -> np.ndarray:
    """The features of one video as float32 [n, 1152]: rgb, then audio.

    `value` is a cell, a mapping with `rgb` and `audio`, an array [1152] or [n, 1152], or the path of a .npy file with
    such an array, of a .npz file with `rgb` and `audio` (or mean_rgb and mean_audio), or of a TFRecord file with one
    record. Bytes (uint8) are decoded as YouTube-8M's are. Raises DataError.
    """
    if isinstance(value, Mapping) and value.get("path") is not None and value.get("offset") is not None:
        return joined(read_cell(value))
    if isinstance(value, Mapping) and "path" in value:
        value = value["path"]
    if isinstance(value, (str, Path)):
        return _of_file(Path(value))
    if isinstance(value, Mapping):
        return _of_mapping(value, "the features")
    if isinstance(value, (np.ndarray, list, tuple)):
        return _of_array(value, "the features")
    raise DataError(f"a {type(value).__name__} holds no features: give an array [n, 1152], or rgb and audio")


def _of_file(path: Path) -> np.ndarray:
    import zipfile

    name = str(path)
    try:
        if path.suffix.lower() in SUFFIXES:
            some = [place for place, _ in zip(places(path), range(2), strict=False)]
            if len(some) != 1:
                raise DataError(f"{name}: {'several records' if some else 'no record'}, and one video is wanted")
            return joined(read_cell(cell(path, *some[0])))
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > _LARGEST:
                    raise DataError(f"{name}: unpacked it has more than {_LARGEST >> 20} MB")
            with np.load(path, allow_pickle=False) as arrays:
                keys = {"rgb", "audio", "mean_rgb", "mean_audio"} & set(arrays.files)
                if not keys:
                    raise DataError(f"{name}: no rgb and audio (it has: {short(', '.join(arrays.files), 80)})")
                return _of_mapping({key: arrays[key] for key in keys}, name)
        if path.suffix.lower() == ".npy":
            # the array is mapped, so a header cannot ask for more memory than the file has bytes
            return _of_array(np.load(path, mmap_mode="r", allow_pickle=False), name)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or short(str(error), 100)
        raise DataError(f"{name}: cannot be read as features: {why}") from None
    raise DataError(f"{name}: features are read from .npy, .npz and .tfrecord files")


def _of_mapping(value: Mapping[str, Any], name: str) -> np.ndarray:
    parts = []
    for one, size in SIZES.items():
        found = value.get(one, value.get(f"mean_{one}"))
        if found is None:
            raise DataError(f"{name}: no {one}: give rgb [n, 1024] and audio [n, 128]")
        parts.append(_numbers(found, f"{name}: {one}", size))
    if len(parts[0]) != len(parts[1]):
        raise DataError(f"{name}: {len(parts[0])} frames of rgb and {len(parts[1])} of audio")
    return np.concatenate(parts, axis=1)


def _of_array(value: Any, name: str) -> np.ndarray:
    return _numbers(value, name, sum(SIZES.values()))


def _numbers(value: Any, name: str, size: int) -> np.ndarray:
    """An array as float32 [n, size]. Raises DataError."""
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.empty(0)
    if found.dtype.kind not in "fiu":
        raise DataError(f"{name}: {found.dtype} values, and not numbers")
    if found.ndim not in (1, 2) or found.shape[-1] != size or not found.size:
        shape = " x ".join(map(str, found.shape)) or "a single number"
        raise DataError(f"{name}: {shape}, and not {size:,} numbers for the video or for each frame")
    if found.nbytes > _LARGEST:
        raise DataError(f"{name}: more than {_LARGEST >> 20} MB")
    found = np.atleast_2d(decoded(found)).astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{name}: values that are no finite numbers")
    return found
