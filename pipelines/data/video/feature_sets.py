"""Features of videos with labels, as examples for classification."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.columns import select, values, with_column
from pipelines.data.encoding import Encoding, Lengths
from pipelines.data.labels import check_known, several
from pipelines.data.media import paths
from pipelines.data.video import tfrecord
from pipelines.errors import DataError
from pipelines.utils import progress
from pipelines.utils.formatting import printable, short

if TYPE_CHECKING:
    from datasets import Dataset


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
        # a file without records of its own, such as a .npy file, has no place in it
        self.offset, self.size = (_field(rows, name).fill_null(-1).to_numpy() for name in ("offset", "length"))
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
                raise DataError(_several(self.ids[row], parts))
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
        offset = int(self.offset[number])
        cell = tfrecord.cell(path, offset, int(self.size[number])) if offset >= 0 else path
        features = spread(tfrecord.read_features(cell), self.max_frames)
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


def with_records(rows: "Dataset", one_label: bool) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows of features with the columns that a task reads, and the rows that cannot be used (id, why).

    Rows of shards have them. Rows of a table name a file (.npy, .npz, or a TFRecord file with one record), which is
    read here for its number of frames and the digest of its features. With `one_label` a list of one label becomes that
    label. Raises DataError for a row with several labels.
    """
    skipped: list[tuple[str, str]] = []
    if rows.data.column("features").type.get_field_index("offset") < 0:
        rows, skipped = _of_files(rows)
    if not one_label or "label" not in rows.column_names:
        return rows, skipped
    labels = values(rows, "label")
    if not any(isinstance(label, list) for label in labels):
        return rows, skipped
    given = [label if isinstance(label, list) else [label] for label in labels]
    odd = next((number for number, label in enumerate(given) if len(label) > 1), None)
    if odd is not None:
        raise DataError(_several(rows["id"][odd], given[odd]))
    return with_column(rows, "label", [label[0] if label else None for label in given]), skipped


def _several(id_: str, labels: list[str]) -> str:
    shown = short(", ".join(map(str, labels)), 80)
    return f"{id_}: {len(labels)} labels ({shown}), and one is wanted: set options.multi_label=true"


def _of_files(rows: "Dataset") -> "tuple[Dataset, list[tuple[str, str]]]":
    from datasets import Value

    found: list[tuple[int, str, int]] = []  # row, digest, frames
    skipped: list[tuple[str, str]] = []
    ids, files = values(rows, "id"), paths(rows, "features")
    with progress.preparing("reading features") as report:
        for number, (id_, file) in enumerate(zip(ids, files, strict=True)):
            report(1)
            try:
                if file is None:
                    raise DataError("features are read from files: give the path of a .npy or .npz file")
                features = tfrecord.read_features(file)
            except DataError as error:
                skipped.append((id_, f"{id_}: {error}"))
                continue
            found.append((number, hashlib.blake2b(features.tobytes(), digest_size=16).hexdigest(), len(features)))
    kept = select(rows, [number for number, _, _ in found])
    text, whole = Value("string"), Value("int64")
    kind = {"path": text, "bytes": Value("binary"), "offset": whole, "length": whole}
    cells = [{"path": files[number], "bytes": None, "offset": None, "length": None} for number, _, _ in found]
    kept = with_column(kept, "features", cells, feature=kind)
    kept = with_column(kept, "digest", [digest for _, digest, _ in found], feature=text)
    return with_column(kept, "frames", [frames for _, _, frames in found], feature=whole), skipped


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
    each = sum(len(label) if isinstance(label, list) else 1 for label in labels) / max(1, len(labels))
    frames = pyarrow.compute.max(rows.data.column("frames")).as_py()
    of = "the video" if frames == 1 else f"frames (at most {frames:,})"
    kind = "shard" if files and files[0].lower().endswith(tfrecord.SUFFIXES) else "file"
    return f"{len(files):,} {kind}{'s' * (len(files) != 1)} ({shown}), {each:.2f} labels per video, features of {of}"


def spread(features: np.ndarray, most: int | None) -> np.ndarray:
    """At most so many frames, evenly spread over the video."""
    if most is None or len(features) <= most:
        return features
    return features[np.arange(most) * len(features) // most]
