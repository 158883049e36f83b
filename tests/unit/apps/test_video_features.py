"""The page for features of videos: what it reads of a visitor's file, and what it refuses."""

import html
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio.utils import get_upload_folder

from pipelines.apps import video_features
from pipelines.data.video import tfrecord
from pipelines.errors import DataError
from tests.support import tiny_tfrecords

LABELS = [f"class {number}" for number in range(tiny_tfrecords.CLASSES)]


@pytest.fixture(scope="module")
def uploads() -> Iterator[Path]:
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=get_upload_folder()) as folder:
        yield Path(folder)


def read(path: Path, record: int = 1, name: str = "", labels: list[str] = LABELS) -> tuple[Any, str, int]:
    """The features, the line about them, and the number of records."""
    with video_features.opened({"path": str(path), "orig_name": name or path.name}) as found:
        assert found is not None
        count = video_features.record_count(*found)
        return *video_features.read(*found, record, labels), count


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def test_one_record_of_a_shard(uploads: Path) -> None:
    path = tiny_tfrecords.shard(uploads / "a.tfrecord", [tiny_tfrecords.record(number) for number in range(5)])
    features, note, count = read(path, 4)
    assert count == 5
    assert np.array_equal(features, tfrecord.joined(tfrecord.parse(tiny_tfrecords.record(3)).features))
    own = ", ".join(f"class {number}" for number in tiny_tfrecords.labels_of(3))
    assert note == f"Features of the video. Its own labels: {own}."
    with pytest.raises(DataError, match=r"^my videos.tfrecord: no record 6: it has 5$"):
        read(path, 6, "my videos.tfrecord")


def test_names_of_classes_are_no_markup(uploads: Path) -> None:
    labels = ["[x](http://e.org) <b>*a*</b> | `b` $c$"] * tiny_tfrecords.CLASSES
    note = read(tiny_tfrecords.shard(uploads / "b.tfrecord", [tiny_tfrecords.record(1)]), labels=labels)[1]
    assert not re.search(r"[\[\]()<>*`$|]", note)
    assert html.unescape(note).endswith(f"labels: {', '.join(labels[:2])}.")


def test_frames_and_arrays(uploads: Path) -> None:
    path = tiny_tfrecords.shard(uploads / "c.tfrecord", [tiny_tfrecords.record(2, of_frames=True)])
    features, note, _ = read(path)
    assert features.shape[1] == 1152
    assert note.startswith(f"Features of {len(features)} frames. Its own labels: ")
    np.save(uploads / "d.npy", features)
    found, note, count = read(uploads / "d.npy")
    assert np.array_equal(found, features)
    assert (note, count) == (f"Features of {len(features)} frames.", 1)
    (uploads / "e.npz").write_bytes(npz(rgb=features[:, :1024], audio=features[:, 1024:]))
    assert np.array_equal(read(uploads / "e.npz")[0], features)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.txt", b"", "features are read from .tfrecord, .npy and .npz files"),
        ("x.tfrecord", b"", "empty"),
        ("x.tfrecord", b"no record at all", "no TFRecord file"),
        ("x.tfrecord", tiny_tfrecords.framed(b"abc")[:-2], "cut off"),
        (
            "x.tfrecord",
            tiny_tfrecords.framed(tiny_tfrecords.record(0)).replace(b"mean_rgb", b"mean_rgB"),
            "checksum|changed",
        ),
        ("x.npy", b"\x93NUMPY no array", "cannot be read as features"),
        ("x.npz", b"PK no archive", "cannot be read as features"),
        ("x.npz", npz(rgb=np.zeros((20_000, 1024), np.uint8)), "unpacks to 19 MB; at most 16 are read here"),
        ("x.npz", npz(rgb=np.zeros((3001, 1024), np.uint8), audio=np.zeros((3001, 128), np.uint8)), "3,001 frames"),
        ("x.npz", npz(rgb=np.array([{"a": 1}], dtype=object), audio=np.zeros(128)), "cannot be read as features"),
    ],
)
def test_other_files_are_refused(uploads: Path, name: str, data: bytes, words: str) -> None:
    path = uploads / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as refused:
        read(path)
    assert str(refused.value).startswith(name), "the visitor's name, and not that of the copy"
    assert tempfile.gettempdir() not in str(refused.value)


def test_no_file_but_an_upload_is_read(tmp_path: Path) -> None:
    path = tiny_tfrecords.shard(tmp_path / "a.tfrecord", [tiny_tfrecords.record(0)])
    with pytest.raises(DataError, match=r"^This file cannot be used"):
        read(path)
    with video_features.opened(None) as found:
        assert found is None
