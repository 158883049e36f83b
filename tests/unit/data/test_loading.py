"""Loading rows: every layout gives the same rows, none is lost, and splits are fair in any order on disk."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection
from pipelines.data.formats import imagefolder
from pipelines.data.loading import load_rows, load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.data.splitting import name_splits
from pipelines.errors import DataError
from tests.support import tiny

COLUMNS = ("image", "label")


def load(source: Path, several: bool = False, **section: Any) -> Splits:
    return load_splits(
        DataSection(id=str(source), **section), DataSpec(COLUMNS, label_kind="classes" if several else "class")
    )


def all_rows(splits: Splits) -> list[dict[str, Any]]:
    return [row for name in SPLITS for row in splits[name]]


def labels_of(splits: Splits) -> dict[str, Counter]:
    return {name: Counter(splits[name]["label"]) for name in SPLITS}


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 cats and 8 dogs in class folders. Read only."""
    folder = tiny.photos(tmp_path_factory.mktemp("flat"), n=12, splits=(), size=16)
    for path in files(folder / "dog")[8:]:
        path.unlink()
    return folder


def listed(flat: Path) -> list[dict[str, str]]:
    return [{"image": str(path), "label": path.parent.name} for path in files(flat)]


# ---- layouts ----


def write_csv(path: Path, rows: list[dict[str, str]], comma: str = ",", start: str = "", end: str = "\n") -> Path:
    lines = [comma.join(["image", "label"]), *(comma.join(f'"{row[c]}"' for c in COLUMNS) for row in rows)]
    path.write_bytes((start + end.join(lines) + end).encode())
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], how: str) -> Path:
    import pyarrow
    import pyarrow.parquet

    def image(row: dict[str, Any]) -> Any:
        content = Path(row["image"]).read_bytes()
        return {"path": row["image"], "bytes": content, "struct": {"bytes": content, "path": "a.jpg"}}[how]

    pyarrow.parquet.write_table(
        pyarrow.table({"image": list(map(image, rows)), "label": [row["label"] for row in rows]}), path
    )
    return path


LAYOUTS: dict[str, Callable[[Path, list], Path]] = {
    "csv": lambda tmp, rows: write_csv(tmp / "a.csv", rows),
    "csv with a byte order mark": lambda tmp, rows: write_csv(tmp / "a.csv", rows, start="\ufeff"),
    "csv with semicolons": lambda tmp, rows: write_csv(tmp / "a.csv", rows, ";"),
    "csv with spaces": lambda tmp, rows: write_csv(tmp / "a.csv", rows, ", "),
    "csv of Windows": lambda tmp, rows: write_csv(tmp / "A.CSV", rows, end="\r\n"),
    "tsv": lambda tmp, rows: write_csv(tmp / "a.tsv", rows, "\t"),
    "jsonl": lambda tmp, rows: write_jsonl(tmp / "a.jsonl", rows),
    "parquet of paths": lambda tmp, rows: write_parquet(tmp / "a.parquet", rows, "path"),
    "parquet of bytes": lambda tmp, rows: write_parquet(tmp / "a.parquet", rows, "bytes"),
    "parquet of the hub": lambda tmp, rows: write_parquet(tmp / "a.parquet", rows, "struct"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_table_holds_the_same_rows(layout: str, flat: Path, tmp_path: Path) -> None:
    from pipelines.data.image.reading import read_image

    splits = load(LAYOUTS[layout](tmp_path, listed(flat)))
    assert splits.labels == ["cat", "dog"]
    assert not any(splits.skipped.values())
    found = sorted((read_image(row["image"]).tobytes(), row["label"]) for row in all_rows(splits))
    assert found == sorted((read_image(path).tobytes(), path.parent.name) for path in files(flat))


def test_a_folder_of_tables_and_one_of_images(flat: Path, tmp_path: Path) -> None:
    rows = listed(flat)
    for name, some in (("Train", rows[::2]), ("val", rows[1::4]), ("test", rows[3::4])):
        write_csv(tmp_path / f"{name}.csv", some)
    splits = load(tmp_path)
    assert splits.source == {"train": "Train", "validation": "val", "test": "test"}
    assert [len(splits[name]) for name in SPLITS] == [10, 5, 5]
    write_csv(tmp_path / "test.csv", rows[2::4])
    with pytest.raises(
        DataError, match=r"002\.jpg and 4 more in train and in test too: a file may be in one split only"
    ):
        load(tmp_path, group="none")
    neighbour = tmp_path / "beside"
    shutil.copytree(flat / "cat", neighbour / "images")
    write_csv(neighbour / "labels.csv", [{"image": f"images/{i:03d}.jpg", "label": str(i % 2)} for i in range(12)])
    assert load(neighbour).labels == ["0", "1"]  # the table refers to the folder of images, which is no class


def test_columns_by_other_names(flat: Path, tmp_path: Path) -> None:
    lines = ["id,breed,,", *(f"{row['image']},{row['label']},," for row in listed(flat))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    splits = load(tmp_path / "a.csv", columns={"image": "id", "label": "breed"})
    assert splits.labels == ["cat", "dog"]
    assert len({row["id"] for row in all_rows(splits)}) == 20


def test_a_comma_and_a_line_break_inside_quotes(flat: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a, b\nc.jpg"
    shutil.copy(files(flat)[0], odd)
    last = listed(flat)[0]
    splits = load(write_csv(tmp_path / "a.csv", [*listed(flat)[1:], {"image": odd.name, "label": "cat"}, last]))
    paths = {row["id"]: row["image"]["path"] for row in all_rows(splits)}
    assert paths["a.csv:21"] == str(odd)
    assert paths["a.csv:23"] == str(files(flat)[0])  # the line after one that spans two lines


def test_digits_come_with_scikit_learn() -> None:
    splits = load_splits(DataSection(id="digits", format="digits", config="5-9"), DataSpec(COLUMNS))
    assert splits.labels == ["5", "6", "7", "8", "9"]
    assert sum(len(splits[name]) for name in SPLITS) == 896


# ---- folders: every file is read ----

SEGMENTS = ("train", "Test", "val", "bus", "cat", "deep", "__MACOSX", ".hidden")
NAMES = ("train_0.jpg", "1.JPG", "2.png", "notes.txt", "noend", ".DS_Store", "empty.jpg")
TREES = st.lists(
    st.tuples(st.lists(st.sampled_from(SEGMENTS), max_size=3), st.sampled_from(NAMES)),
    min_size=1,
    max_size=12,
    unique_by=str,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
@example(tree=[([".hidden"], "train_0.jpg"), (["Test", "train"], "train_0.jpg")])
def test_files_found_are_rows_skips_or_said(tree: list, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    for folders, name in tree:
        path = tmp_path.joinpath("data", *folders, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty.jpg" else b"x")
    hidden = re.compile(r"(^|/)(\.|__MACOSX/)")
    seen = [p for p in files(tmp_path / "data") if not hidden.search(p.relative_to(tmp_path).as_posix())]
    try:
        source = imagefolder.read(DataSection(id=str(tmp_path / "data")), COLUMNS)
    except DataError as error:
        event(
            "no readable images"
            if "no readable" in str(error)
            else "outside"
            if "outside" in str(error)
            else str(error)[-40:]
        )
        return
    event("read")
    rows = sum(map(len, source.splits.values()))
    # images in hidden folders are named, too; `seen` leaves them out
    named = sum(count for what, count in source.ignored.items() if "in the hidden folder" not in what)
    assert rows + sum(map(len, source.skipped.values())) + named == len(seen)


def test_classes_named_like_splits(tmp_path: Path) -> None:
    """One of them is a class among others. A train and a test folder together are splits."""
    for names in (["bus", "train"], ["bus", "test"]):
        folder = tiny.photos(tmp_path / names[1], names, n=6, splits=(), size=8)
        splits = load(folder)
        assert splits.labels == names
        assert len(all_rows(splits)) == 12
    with pytest.raises(DataError, match="test, train are splits, and hold images without class folders"):
        load(tiny.photos(tmp_path / "both", ("train", "bus", "test"), n=6, splits=(), size=8))


SPLIT_FOLDERS = [
    ("train", "validation", "test"),
    ("Train", "Val", "Test"),
    ("training", "dev", "testing"),
    ("TRAIN", "valid", "eval"),
]


@pytest.mark.parametrize("names", SPLIT_FOLDERS)
def test_split_folders(names: tuple[str, str, str], tmp_path: Path) -> None:
    tiny.photos(tmp_path, n=3, splits=names, size=8)
    splits = load(tmp_path)
    assert splits.source == dict(zip(SPLITS, names, strict=True))
    assert all(counts == Counter(cat=3, dog=3) for counts in labels_of(splits).values())


def test_odd_files_and_folders(flat: Path, tmp_path: Path) -> None:
    data = shutil.copytree(flat, tmp_path / "data")
    odd = ["a b.JPG", "ü☃.jpeg", "new\nline.jpg", "'\".jpg", "#?%.jpg", "-x.jpg", "deep/er/x.jpg"]
    for name in [*odd, ".hidden.jpg", "Thumbs.db", "notes.txt", "noend"]:
        (data / "cat" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files(flat)[0], data / "cat" / name)
    shutil.copy(files(flat)[0], data / "loose.jpg")
    (data / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (data / "cat" / "self").symlink_to("self")
    (data / "cat" / "again").symlink_to(data / "cat")
    (data / "everything").symlink_to(data)
    splits = load(data)
    assert labels_of(splits)["train"] + labels_of(splits)["validation"] + labels_of(splits)["test"] == Counter(
        cat=12 + len(odd), dog=8
    )
    assert dict(splits.skipped["train"]) == {
        "loose.jpg": f"{data}/loose.jpg: in no class folder",
        "cat/gone.jpg": f"{data}/cat/gone.jpg: No such file or directory",
    }
    assert splits.ignored == {".txt files": 1, "files without a suffix": 2}


def test_a_name_that_is_no_unicode(flat: Path, tmp_path: Path) -> None:
    data = shutil.copytree(flat, tmp_path / "data")
    try:
        Path(os.fsdecode(os.fsencode(data) + b"/cat/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    splits = load(data)
    assert [why for _, why in splits.skipped["train"]] == [f"{data}/cat/\ufffd.jpg: its name is not UTF-8"]
    assert len(all_rows(splits)) == 20


# ---- names of splits ----


@pytest.mark.parametrize(
    ("found", "asked", "named"),
    [
        (["test", "train"], {}, {"train": "train", "test": "test"}),
        (["Train", "dev", "TEST"], {}, {"train": "Train", "validation": "dev", "test": "TEST"}),
        (
            ["train", "validation"],
            {"test": "validation"},
            {"train": "train", "test": "validation"},
        ),  # as for SQuAD: validation is then cut from train
        (["a", "b"], {"train": "b"}, {"train": "b"}),
        (["everything"], {}, {"train": "everything"}),
        (["test"], {}, {"train": "test"}),
        (
            ["train", "test", "extra"],
            {"validation": "extra"},
            {"train": "train", "validation": "extra", "test": "test"},
        ),
        (["train", "val", "valid"], {}, {"train": "train", "validation": "val"}),
    ],
)
def test_splits_find_their_names(found: list[str], asked: dict[str, str], named: dict[str, str]) -> None:
    assert name_splits(DataSection(id="x", **asked), found) == named


def test_a_split_that_nothing_uses_is_said(tmp_path: Path) -> None:
    tiny.photos(tmp_path, n=3, splits=("train", "val", "valid", "test"), size=8)
    assert load(tmp_path).ignored == {"rows of the split 'valid'": 6}


def test_rows_to_score(flat: Path, tmp_path: Path) -> None:
    name, rows, skipped = load_rows(DataSection(id=str(flat)), DataSpec(COLUMNS))
    assert (name, len(rows), skipped) == ("all", 20, [])
    tiny.photos(tmp_path, n=2, splits=("train", "Test"), size=8)
    assert [
        load_rows(DataSection(id=str(tmp_path)), DataSpec(COLUMNS), split)[0] for split in (None, "test", "train")
    ] == [
        "test",
        "test",
        "train",
    ]


# ---- fingerprints ----


def test_a_fingerprint_covers_labels_and_sizes(flat: Path, tmp_path: Path) -> None:
    """The same files have the same fingerprint in any folder. Another label or another image size changes it."""
    data = shutil.copytree(flat, tmp_path / "data")
    first = load(flat).fingerprint
    assert load(data).fingerprint == first
    longer = files(data)[3]
    longer.write_bytes(longer.read_bytes() + b"\0")
    assert load(data).fingerprint != first
    for name, write in (("a.csv", write_csv), ("a.jsonl", write_jsonl)):
        rows = listed(data)
        before = load(write(tmp_path / name, rows)).fingerprint
        assert load(write(tmp_path / name, rows)).fingerprint == before
        longer.write_bytes(longer.read_bytes() + b"\0")
        assert load(tmp_path / name).fingerprint != before
    before = load(write_parquet(tmp_path / "a.parquet", rows, "bytes")).fingerprint
    longer.write_bytes(longer.read_bytes() + b"\0")
    assert load(write_parquet(tmp_path / "a.parquet", rows, "bytes")).fingerprint != before


def test_a_stamp_sees_a_file_written_anew(flat: Path, tmp_path: Path) -> None:
    splits = load(shutil.copytree(flat, tmp_path / "data"))
    before = splits.files_fingerprint("train")
    path = splits.train[0]["image"]["path"]
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))
    assert splits.files_fingerprint("train") != before
