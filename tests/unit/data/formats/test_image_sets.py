"""Images to generate: in a flat folder, in class folders, with captions in lists, tables and texts, as MNIST files."""

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.image.pixels import Pictures
from pipelines.data.image.reading import read_image
from pipelines.data.loading import format_module
from pipelines.data.schema import SPLITS, Splits
from pipelines.errors import DataError
from tests.support import tiny
from tests.support.tiny_pictures import CAPTIONS, LABEL, TEXT, all_rows, digit, idx, listed, load, shapes, table, write

SHARED = Path(__file__).parents[5] / "shared" / "data"


def ids(splits: Splits) -> dict[str, list[str]]:
    return {name: sorted(splits[name]["id"]) for name in SPLITS}


def moved(folder: Path, into: Path) -> Path:
    """The same files, created in another order."""
    for path in sorted((p for p in folder.rglob("*") if p.is_file()), reverse=True):
        (into / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into / path.relative_to(folder))
    return into


# ---- which format it is ----


def test_every_layout_is_read_by_its_own_format(tmp_path: Path) -> None:
    split = shapes(tmp_path / "split" / "train").parent
    shapes(split / "test", 3, captions="txt")
    captioned = shapes(tmp_path / "beside", 3, captions="txt")
    table(captioned / "a.csv", "image,text", ["000.png"])
    few = shapes(tmp_path / "few", 3)
    write(few / "001.txt", "a caption")
    layouts = {
        "imagefolder": [shapes(tmp_path / "flat"), shapes(tmp_path / "listed", captions="metadata"), split, few],
        "captions": [
            shapes(tmp_path / "texts", captions="txt"),
            shapes(tmp_path / "deep" / "one", captions="txt").parent,
        ],
        "mnist": [idx(tmp_path / "digits"), idx(tmp_path / "MNIST" / "raw"), tmp_path / "MNIST"],
        "table": [captioned, table(shapes(tmp_path / "table") / "a.csv", "image,text", ["000.png"]).parent],
    }
    for name, paths in layouts.items():
        for path in paths:
            assert format_module(DataSection(id=str(path))).__name__.endswith(f".{name}"), path
    with pytest.raises(DataError, match=r"cannot be read as data .* a folder of images or of class folders"):
        load(write(tmp_path / "mixed" / "a.pdf", "x").parent)


# ---- images alone ----


def test_a_flat_folder(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "flat", 20)
    write(folder / "notes.pdf", "x")
    write(folder / "empty.png", "")
    splits = load(folder)
    assert ids(splits)["train"][0].endswith(".png")
    assert [len(splits[name]) for name in SPLITS] == [16, 2, 2]
    assert splits.source == {"train": "train", "validation": "cut from train", "test": "cut from train"}
    assert (splits.labels, splits.ignored) == (None, {".pdf files": 1})
    assert splits.skipped["train"] == [("empty.png", f"{folder}/empty.png: empty file")]
    assert len(Pictures(splits.train, (16, 16))) == 16
    again = load(moved(folder, tmp_path / "again"))
    assert (ids(again), again.fingerprint) == (ids(splits), splits.fingerprint)
    path = Path(splits.train[0]["image"]["path"])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    stamp = splits.files_fingerprint("train")
    write(path, path.read_bytes() + b"\0")
    assert load(folder).fingerprint["train"] != splits.fingerprint["train"]
    assert splits.files_fingerprint("train") != stamp


def test_class_folders_without_their_labels(tmp_path: Path) -> None:
    flat = tiny.photos(tmp_path / "flat", n=10, splits=(), size=8)
    Image.new("RGB", (8, 8)).save(flat / "loose.png")
    splits = load(flat)
    assert sum(map(len, ids(splits).values())) == 21
    assert splits.train.column_names == ["id", "image", "size"]
    assert len(load(tiny.photos(tmp_path / "train_bus", ("train", "bus"), n=6, splits=(), size=8)).train) == 10
    parted = load(tiny.photos(tmp_path / "parted", n=4, size=8))
    assert [len(parted[name]) for name in SPLITS] == [8, 8, 8]
    assert parted.source == {name: name for name in SPLITS}


def test_split_folders_of_loose_images(tmp_path: Path) -> None:
    for name, count in (("train", 9), ("Test", 3)):
        shapes(tmp_path / name, count)
    splits = load(tmp_path)
    assert splits.source == {"train": "train", "validation": "cut from train", "test": "Test"}
    assert ids(splits)["test"] == ["Test/000.png", "Test/001.png", "Test/002.png"]
    shapes(tmp_path / "more", 4)
    assert len(all_rows(load(tmp_path))) == 16  # then these folders are classes, one of which is called train
    chosen = load(tmp_path, train="more", test="Test")
    assert (chosen.source["train"], len(chosen.train), chosen.ignored) == ("more", 3, {"rows of the split 'train'": 9})
    shutil.rmtree(tmp_path / "more")
    shapes(tmp_path, 1)
    with pytest.raises(DataError, match=r"Test, train are splits, and 000\.png lies outside"):
        load(tmp_path)


def test_tasks_with_labels_refuse_a_flat_folder(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "flat", 7)
    for section in ({}, {"format": "imagefolder"}):
        with pytest.raises(
            DataError, match=r"data\.id: .* \(found: 000\.png, .*005\.png\): this task learns labels, .*class folders"
        ):
            load(folder, LABEL, **section)


# ---- captions ----


@pytest.mark.parametrize(
    ("ending", "column", "columns"),
    [("csv", "text", {}), ("jsonl", "caption", {}), ("csv", "words", {"text": "words"})],
)
def test_a_list_beside_the_images(ending: str, column: str, columns: dict[str, str], tmp_path: Path) -> None:
    flat = listed(tmp_path / "flat", ending, column, 12).parent
    shapes(flat / "more", 1)
    splits = load(flat, TEXT, columns=columns)
    assert [len(splits[name]) for name in SPLITS] == [10, 1, 1]
    assert splits.ignored == {"images that no metadata lists": 1}
    for row in all_rows(splits):
        assert row["text"] == CAPTIONS[int(Path(row["image"]["path"]).stem) % 6]
    assert load(moved(flat, tmp_path / "again"), TEXT, columns=columns).fingerprint == splits.fingerprint
    for name in ("train", "test"):
        listed(tmp_path / "split" / name, ending, column, 6)
    split = load(tmp_path / "split", TEXT, columns=columns)
    assert (split.source["test"], split.test[0]["id"]) == (
        "test",
        f"test/metadata.{ending}:{2 if ending == 'csv' else 1}",
    )
    assert len(all_rows(load(flat))) == 12  # the list also selects the images of a task without captions


def test_a_list_and_class_folders(tmp_path: Path) -> None:
    """A list gives labels if it has them. With split folders, it changes nothing."""
    folder = tiny.photos(tmp_path / "flat", n=5, splits=(), size=8)
    table(
        folder / "metadata.csv", "file_name,text", [f"{name}/{i:03d}.jpg" for name in ("cat", "dog") for i in range(5)]
    )
    assert load(folder, LABEL).labels == ["cat", "dog"]
    assert len(all_rows(load(folder, TEXT))) == 10
    table(
        folder / "metadata.csv", "file_name,label", [f"{name}/{i:03d}.jpg" for i in range(5) for name in ("cat", "dog")]
    )
    assert load(folder, LABEL).labels == sorted(CAPTIONS)


def test_a_list_beside_split_folders(tmp_path: Path) -> None:
    folder = tiny.photos(tmp_path, n=3, size=8)
    table(folder / "metadata.csv", "file_name,text", ["train/cat/000.jpg"])
    assert (len(load(folder, LABEL).train), len(load(folder).train)) == (6, 6)
    with pytest.raises(DataError, match=r"metadata\.csv: stands beside split folders \(test, train, validation\)"):
        load(folder, TEXT)


def test_texts_beside_the_images(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "flat", 20, captions="txt")
    write(folder / "003.txt", "\ufeffa r\u00f6d disc \n")
    write(folder / "notes.txt", "of nothing")
    splits = load(folder, TEXT)
    assert sum(map(len, ids(splits).values())) == 20
    texts = {row["id"]: row["text"] for row in all_rows(splits)}
    assert (texts["000.png"], texts["003.png"]) == (CAPTIONS[0], "a r\u00f6d disc")
    assert splits.ignored == {"texts without an image": 1}
    assert load(moved(folder, tmp_path / "again"), TEXT).fingerprint == splits.fingerprint
    write(folder / "004.txt", "something else")
    assert load(folder, TEXT).fingerprint != splits.fingerprint
    assert len(all_rows(load(folder))) == 20
    assert load(folder).ignored == {".txt files": 21}
    for name in ("train", "test"):
        shapes(tmp_path / "split" / name, 6, captions="txt")
    assert load(tmp_path / "split", TEXT).source == {"train": "train", "validation": "cut from train", "test": "test"}
    classes = tiny.photos(tmp_path / "classes", n=5, splits=(), size=8)
    for path in sorted(classes.rglob("*.jpg")):
        write(path.with_suffix(".txt"), f"a {path.parent.name}")
    assert load(classes, LABEL).labels == ["cat", "dog"]
    assert {row["text"] for row in all_rows(load(classes, TEXT))} == {"a cat", "a dog"}


@pytest.mark.parametrize("name", ["{stem}.TXT", "{stem}.caption", "{stem}.png.txt"])
def test_captions_by_other_names(name: str, tmp_path: Path) -> None:
    folder = shapes(tmp_path / "flat", 6)
    for number in range(6):
        write(folder / name.format(stem=f"{number:03d}"), CAPTIONS[number])
    splits = load(folder, TEXT)
    assert {row["id"]: row["text"] for row in all_rows(splits)} == {f"{n:03d}.png": CAPTIONS[n] for n in range(6)}
    assert splits.ignored == {}


def test_a_list_in_json_with_a_column_prompt(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "flat", 6)
    rows = [{"file_name": f"{number:03d}.png", "prompt": CAPTIONS[number]} for number in range(6)]
    write(folder / "metadata.json", json.dumps(rows))
    assert {row["text"] for row in all_rows(load(folder, TEXT))} == set(CAPTIONS[:6])
    write(folder / "metadata.json", json.dumps({"name": "shapes"}))  # about the data as a whole
    assert len(all_rows(load(folder))) == 6


@pytest.mark.parametrize("ending", ["csv", "jsonl", "tsv"])
def test_tables_of_paths(ending: str, tmp_path: Path) -> None:
    folder = shapes(tmp_path / "images", 12)
    for start in ("images/", f"{folder}/"):
        rows = [{"picture": f"{start}{i:03d}.png", "caption": CAPTIONS[i % 6]} for i in range(12)]
        sep = {"csv": ",", "tsv": "\t"}.get(ending, "")
        lines = (
            [json.dumps(row) for row in rows]
            if ending == "jsonl"
            else [sep.join(r) for r in (rows[0], *(row.values() for row in rows))]
        )
        path = write(tmp_path / f"a.{ending}", "\n".join(lines))
        splits = load(path, TEXT, columns={"image": "picture", "text": "caption"})
        found = sorted((Path(row["image"]["path"]).name, row["text"]) for row in all_rows(splits))
        assert found == [(f"{i:03d}.png", CAPTIONS[i % 6]) for i in range(12)]


def test_captions_of_one_image_stay_in_one_split(tmp_path: Path) -> None:
    folder = shapes(tmp_path, 20)
    table(folder / "metadata.csv", "file_name,text", [f"{i:03d}.png" for i in range(20)] * 3)
    splits = load(folder, TEXT, holdout=0.2)
    where = {name: {row["image"]["path"] for row in splits[name]} for name in SPLITS}
    assert [len(splits[name]) for name in SPLITS] == [3 * len(where[name]) for name in SPLITS]
    assert len(set.union(*where.values())) == 20
    assert [len(load(folder, TEXT, holdout=0.2, group="none")[name]) for name in SPLITS] == [
        len(splits[name]) for name in SPLITS
    ]


# ---- mnist ----


def test_mnist_files(tmp_path: Path) -> None:
    idx(tmp_path, 60)
    one = load(tmp_path, LABEL)
    assert one.source == {"train": "train", "validation": "cut from train", "test": "cut from train"}
    assert one.labels == list("0123456789")
    idx(tmp_path, 20, "t10k", seed=1)
    two = load(tmp_path)
    assert two.source == {"train": "train", "validation": "cut from train", "test": "test"}
    assert (two.test.column_names, two.test[3]["id"]) == (["id", "image", "crc32"], "t10k/00003")
    for name, row in (("train", two.train[5]), ("t10k", two.test[7])):
        index = int(row["id"].removeprefix(f"{name}/"))
        assert np.array(read_image(row["image"]).convert("L")).tolist() == digit(index, seed=name == "t10k").tolist()
    some = load(tmp_path, LABEL, format="mnist", config="2-4")
    assert (some.labels, len(all_rows(some))) == (["2", "3", "4"], 24)
    assert len(all_rows(load(tmp_path, format="mnist", config="2-4"))) == 24
    raw = tmp_path / "set" / "raw"
    for path in sorted(tmp_path.glob("*.gz")):
        write(raw / path.name.removesuffix(".gz").replace("-idx", ".idx"), gzip.decompress(path.read_bytes()))
    assert load(tmp_path / "set").fingerprint == two.fingerprint
    idx(tmp_path, 60, seed=2)
    assert load(tmp_path).fingerprint["train"] != two.fingerprint["train"]
    for path in tmp_path.glob("*labels*"):
        path.unlink()
    assert len(load(tmp_path).test) == 20


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="no real data here")
def test_the_real_digits() -> None:
    splits = load(SHARED / "mnist", LABEL)
    assert [len(splits[name]) for name in SPLITS] == [8000, 1000, 1000]
    first = next(row for row in all_rows(splits) if row["id"] == "t10k/00000")
    assert (first["label"], Pictures([first], (28, 28), 1)[0]["pixels"].shape) == ("7", (1, 28, 28))
