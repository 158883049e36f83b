"""Features of videos with labels, as examples for classification; and features that a user gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.columns import values
from pipelines.data.encoding import Encoding, Lengths
from pipelines.data.labels import check_known, several
from pipelines.data.video import tfrecord
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short


class FeatureSets(Encoding):
    """Rows as examples. The record of a video is read when it is indexed, in a worker, and its checksum is compared.

    An example has `features`, float32 [n, 1152]: rgb, then audio; n is 1 for features of the video. Of a video with
    more than `max_frames` frames, so many are taken, evenly spread. It warns of labels that the model does not know.
    Raises DataError if it knows none of them.
    """

    length_unit = "frames"

    def __init__(self, rows: Any, labels: list[str], multi_label: bool, max_frames: int | None) -> None:
        self.multi_label, self.max_frames = multi_label, max_frames
        self.number_of = {label: number for number, label in enumerate(labels)}
        # columns in place of rows: to read a row takes ten times as long as the record itself
        self.ids = values(rows, "id")
        files = _field(rows, "path").dictionary_encode()
        self.files, self.file = files.dictionary.to_pylist(), files.indices.to_numpy()
        self.offset, self.size = _field(rows, "offset").to_numpy(), _field(rows, "length").to_numpy()
        self.frames = np.array(values(rows, "frames"), np.int64)
        self._name(values(rows, "label"))
        check_known(set(self.names), labels)

    def _name(self, labels: list[Any]) -> None:
        """Keep the labels as numbers, in one piece."""
        numbers: dict[str, int] = {}
        flat: list[int] = []
        ends = [0]
        for row, label in enumerate(labels):
            parts = several(label) if self.multi_label or isinstance(label, list) else [str(label)]
            if not self.multi_label and len(parts) != 1:
                raise DataError(
                    f"{self.ids[row]}: {len(parts)} labels, and one is wanted: set options.multi_label=true"
                )
            flat += [numbers.setdefault(part, len(numbers)) for part in parts]
            ends.append(len(flat))
        self.names = list(numbers)
        self.flat, self.ends = np.array(flat, np.int32), np.array(ends, np.int64)
        # a label that the model does not know counts as an error when scored
        self.classes = np.array([self.number_of.get(name, -1) for name in self.names], np.int64)

    @property
    def lengths(self) -> Lengths | None:
        if not len(self) or self.frames.max() == 1:
            return None
        return self.frames if self.max_frames is None else np.minimum(self.frames, self.max_frames)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: Any) -> Any:
        """One example by number."""
        import torch

        path = self.files[self.file[number]]
        cell = tfrecord.cell(path, int(self.offset[number]), int(self.size[number]))
        features = spread(tfrecord.joined(tfrecord.read_cell(cell)), self.max_frames)
        own = self.flat[self.ends[number] : self.ends[number + 1]]
        target = np.zeros(len(self.number_of), np.float32)
        classes = self.classes[own]
        target[classes[classes >= 0]] = 1.0
        true = [self.names[one] for one in own]
        return {
            "id": self.ids[number],
            "row": number,
            "features": features,
            "target": torch.from_numpy(target),
            "true": true if self.multi_label else true[0],
        }


def _field(rows: Any, name: str) -> Any:
    """A part of the cells of the column `features`, as one piece in memory."""
    import pyarrow.compute

    found = pyarrow.compute.struct_field(rows.data.column("features"), name)
    found = found if rows._indices is None else found.take(rows._indices.column(0))
    return found.combine_chunks() if isinstance(found, pyarrow.ChunkedArray) else found


def described(rows: Any) -> str:
    """The shards of the rows, labels per video, and what the features are of, in one line."""
    import pyarrow.compute

    files = sorted(_field(rows, "path").unique().to_pylist())
    shown = ", ".join(printable(Path(file).name) for file in files[:3]) + (", ..." if files[3:] else "")
    labels = values(rows, "label")
    each = sum(map(len, labels)) / max(1, len(labels))
    frames = pyarrow.compute.max(rows.data.column("frames")).as_py()
    of = "the video" if frames == 1 else f"frames (at most {frames:,})"
    return f"{len(files):,} shard{'s' * (len(files) != 1)} ({shown}), {each:.2f} labels per video, features of {of}"


def spread(features: np.ndarray, most: int | None) -> np.ndarray:
    """At most so many frames, evenly spread over the video."""
    if most is None or len(features) <= most:
        return features
    return features[np.arange(most) * len(features) // most]


# ---- features that a user gives ----

_LARGEST = 256 << 20  # bytes of a file


def read_features(value: Any) -> np.ndarray:
    """The features of one video as float32 [n, 1152]: rgb, then audio.

    `value` is a cell, a mapping with `rgb` and `audio`, an array [1152] or [n, 1152], or the path of a .npy file with
    such an array, of a .npz file with `rgb` and `audio` (or mean_rgb and mean_audio), or of a TFRecord file with one
    record. Bytes (uint8) are decoded as YouTube-8M's are. Raises DataError.
    """
    if isinstance(value, Mapping) and value.get("path") is not None and value.get("offset") is not None:
        return tfrecord.joined(tfrecord.read_cell(value))
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
        if path.suffix.lower() in tfrecord.SUFFIXES:
            some = [place for place, _ in zip(tfrecord.places(path), range(2), strict=False)]
            if len(some) != 1:
                raise DataError(f"{name}: {'several records' if some else 'no record'}, and one video is wanted")
            return tfrecord.joined(tfrecord.read_cell(tfrecord.cell(path, *some[0])))
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
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or short(str(error), 100)
        raise DataError(f"{name}: cannot be read as features: {why}") from None
    raise DataError(f"{name}: features are read from .npy, .npz and .tfrecord files")


def _of_mapping(value: Mapping[str, Any], name: str) -> np.ndarray:
    parts = []
    for one, size in tfrecord.SIZES.items():
        found = value.get(one, value.get(f"mean_{one}"))
        if found is None:
            raise DataError(f"{name}: no {one}: give rgb [n, 1024] and audio [n, 128]")
        parts.append(_numbers(found, f"{name}: {one}", size))
    if len(parts[0]) != len(parts[1]):
        raise DataError(f"{name}: {len(parts[0])} frames of rgb and {len(parts[1])} of audio")
    return np.concatenate(parts, axis=1)


def _of_array(value: Any, name: str) -> np.ndarray:
    return _numbers(value, name, sum(tfrecord.SIZES.values()))


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
    found = np.atleast_2d(tfrecord.decoded(found)).astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{name}: values that are no finite numbers")
    return found
