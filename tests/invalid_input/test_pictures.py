"""Images that no generator can learn from.

Errors in lists, captions and files of MNIST are refused, or skipped and reported.
"""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.data.image.pixels import Pictures
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from tests.support.tiny_pictures import IMAGE, LABEL, TEXT, all_rows, idx, idx_bytes, listed, load, shapes, table, write


def edited(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path.parent


def packed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(change(gzip.decompress(data)))


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
REFUSED: dict[str, tuple[Callable[[Path], Path], DataSpec, dict[str, Any], str]] = {
    "an empty folder": (lambda t: t, IMAGE, {}, r"data\.id.*found: nothing"),
    "texts alone": (lambda t: write(t / "1.txt", "a red disc").parent, IMAGE, {}, "plain text.* needs image"),
    "texts alone, as captions": (
        lambda t: write(t / "1.txt", "a").parent,
        TEXT,
        {"format": "captions"},
        "no folder with images",
    ),
    "no captions": (shapes, TEXT, {}, r"images without text.*metadata\.csv.*1\.txt beside 1\.jpg"),
    "no captions, as captions": (
        shapes,
        TEXT,
        {"format": "captions"},
        r"none of 12 images .*; the first: 000\.png: no caption 000\.txt",
    ),
    "a list without files": (
        lambda t: table(shapes(t) / "metadata.csv", "name,text", ["a"]).parent,
        TEXT,
        {},
        r"columns\.image=NAME",
    ),
    "a split's list without files": (
        lambda t: table(shapes(t / "train") / "metadata.csv", "name,text", ["a"]).parents[1],
        TEXT,
        {},
        "no column 'file_name'.*name, text",
    ),
    "a list without texts": (
        lambda t: table(shapes(t) / "metadata.csv", "file_name,x", ["000.png"]).parent,
        TEXT,
        {},
        r"no column 'text' .*columns\.text=NAME",
    ),
    "a list of nothing": (
        lambda t: table(shapes(t) / "metadata.csv", "file_name,text", ["a.png"]).parent,
        TEXT,
        {},
        "no such file: a.png",
    ),
    "a list cut short": (
        lambda t: edited(shapes(t, captions="metadata") / "metadata.jsonl", lambda d: d[:-9]),
        TEXT,
        {},
        "not valid JSON",
    ),
    "columns of a folder": (
        lambda t: shapes(t, captions="txt"),
        TEXT,
        {"columns": {"text": "caption"}},
        r"data\.columns",
    ),
    "a wrong magic": (
        lambda t: edited(idx(t) / IMAGES, packed(lambda d: b"\1" + d[1:])),
        IMAGE,
        {},
        f"{IMAGES}: starts with 01 00 08 03",
    ),
    "labels for images": (
        lambda t: shutil.copy(idx(t) / LABELS, t / IMAGES).parent,
        IMAGE,
        {},
        f"{IMAGES}: starts with 00 00 08 01",
    ),
    "half a gz": (
        lambda t: edited(idx(t) / IMAGES, lambda d: d[: len(d) // 2]),
        IMAGE,
        {},
        f"{IMAGES}: cannot be unpacked",
    ),
    "no gz": (
        lambda t: edited(idx(t) / LABELS, lambda d: b"version https://git-lfs"),
        LABEL,
        {},
        f"{LABELS}: cannot be unpacked",
    ),
    "pixels cut short": (
        lambda t: edited(idx(t) / IMAGES, packed(lambda d: d[:-5])),
        IMAGE,
        {},
        "31355 values, .* 40 x 28 x 28",
    ),
    "a header alone": (lambda t: edited(idx(t) / IMAGES, packed(lambda d: d[:7])), IMAGE, {}, f"{IMAGES}: starts with"),
    "no images in it": (
        lambda t: edited(idx(t) / IMAGES, lambda d: gzip.compress(idx_bytes(np.zeros((0, 28, 28))))),
        IMAGE,
        {},
        "0 x 28",
    ),
    "counts that differ": (
        lambda t: edited(idx(t) / LABELS, lambda d: gzip.compress(idx_bytes(np.zeros(39)))),
        IMAGE,
        {},
        "39 labels, but .* 40 images",
    ),
    "no labels": (lambda t: [(idx(t) / LABELS).unlink(), t][1], LABEL, {}, "no train-labels-idx1-ubyte"),
    "no such labels": (idx, IMAGE, {"format": "mnist", "config": "4-11"}, r"data\.config: '4-11' is no range"),
    "labels that it has not": (
        lambda t: idx(t, 5),
        IMAGE,
        {"format": "mnist", "config": "7-9"},
        "no image of the labels 7-9",
    ),
    "a part of what has none": (shapes, IMAGE, {"config": "0-4"}, r"data\.config: .* leave it out"),
    "texts of digits": (idx, TEXT, {}, "no text, which this task needs"),
    "mnist that is none": (shapes, IMAGE, {"format": "mnist"}, r"holds no train-images-idx3-ubyte\.gz"),
    "mnist that is not there": (lambda t: t / "none", IMAGE, {"format": "mnist"}, "no such folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_images(name: str, tmp_path: Path) -> None:
    make, needs, section, words = REFUSED[name]
    with pytest.raises(DataError, match=words):
        load(make(tmp_path), needs, **section)


def test_rows_without_an_image_or_a_caption_are_skipped_and_named(tmp_path: Path) -> None:
    assert len(REFUSED) >= 12
    folder = shapes(tmp_path / "texts", 20, captions="txt")
    (folder / "001.txt").unlink()
    write(folder / "002.txt", " \n")
    write(folder / "003.txt", b"caf\xe9")
    write(folder / "004.png", "")
    splits = load(folder, TEXT)
    assert len(all_rows(splits)) == 16
    assert dict(splits.skipped["train"]) == {
        "001.png": "001.png: no caption 001.txt beside it",
        "002.png": "002.png: no caption: 002.txt is empty",
        "003.png": f"{folder}/003.txt: not UTF-8 text (byte 3): save the file as UTF-8",
        "004.png": f"{folder}/004.png: empty file",
    }
    path = listed(tmp_path / "listed", "csv", "text", 12)
    write(path, path.read_text() + 'gone.png,a red disc\n000.png,\n001.png,"  "\n,a red disc\n')
    splits = load(path.parent, TEXT)
    assert [why for _, why in splits.skipped["train"]] == [
        f"metadata.csv:14: no such file: gone.png ({path.parent / 'gone.png'})",
        "metadata.csv:17: file_name is empty",
        "metadata.csv:15: no caption: text is empty",
        "metadata.csv:16: no caption: text is empty",
    ]
    assert len(all_rows(splits)) == 12


def test_damaged_images_are_said_when_they_are_read(tmp_path: Path) -> None:
    folder = shapes(tmp_path, 4)
    edited(folder / "001.png", lambda data: data[:60])
    edited(folder / "002.png", lambda data: b"text")
    rows = all_rows(load(folder, holdout=0.3))
    bad = []
    for picture in range(4):
        try:
            _ = Pictures(rows, (16, 16))[picture]
        except DataError as error:
            bad.append(str(error))
    assert sorted(why.partition(": ")[0] for why in bad) == [f"{folder}/001.png", f"{folder}/002.png"]
