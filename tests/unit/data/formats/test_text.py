"""Plain text: every file is read, the order on disk does not matter, and every layout is read by its own format."""

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection
from pipelines.data.formats import text
from pipelines.data.loading import format_module, load_splits
from pipelines.data.schema import DataSpec, Source, Splits
from pipelines.errors import DataError
from tests.support import tiny, tiny_text

NEEDS = DataSpec(("text",), ("title",))
PROPERTY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(path), **section), NEEDS)


def read_text(path: Path, **section: Any) -> Source:
    return text.read(DataSection(id=str(path), **section), ("text",))


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def counted(source: Source) -> int:
    return sum(map(len, [*source.splits.values(), *source.skipped.values()])) + sum(source.ignored.values())


def rows_of(source: Source) -> dict[str, list[dict[str, Any]]]:
    return {name: list(rows) for name, rows in source.splits.items()}


# ---- plain text: every file is read ----

SEGMENTS = ("train", "Test", "val", "notes", "deep", ".hidden")
NAMES = (
    "a.txt",
    "b.MD",
    "train.txt",
    "Test.md",
    "valid.txt",
    "empty.txt",
    "old.txt",
    "zero.txt",
    "c.pdf",
    "noend",
    ".d.txt",
)
SPOILED = {"empty.txt": b" \n", "old.txt": "caf\xe9".encode("latin-1"), "zero.txt": "a\0b"}
LINES = ("", " ", "\t", "one", "  two", "three\x0b\x0c\u2028")
TREES = st.lists(
    st.tuples(st.lists(st.sampled_from(SEGMENTS), max_size=2), st.sampled_from(NAMES)),
    min_size=1,
    max_size=12,
    unique_by=str,
)


@PROPERTY
@given(tree=TREES, random=st.randoms(use_true_random=False))
def test_files_found_are_rows_skips_or_said(tree: list, random: Random, tmp_path: Path) -> None:
    """The files are created in any order, which is the order in which some file systems list them."""
    found = []
    for order in (tree, random.sample(tree, len(tree))):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        write(tmp_path / "data", {"/".join([*folders, name]): SPOILED.get(name, "one line") for folders, name in order})
        try:
            found.append(read_text(tmp_path / "data"))
        except DataError as error:
            event("no text at all" if "no text in it" in str(error) else "nothing can be used")
            return
    seen = [folders for folders, name in tree if not name.startswith(".") and ".hidden" not in folders]
    event(f"splits: {', '.join(sorted(found[0].splits))}")
    assert counted(found[0]) == len(seen)
    assert rows_of(found[0]) == rows_of(found[1])
    assert (found[0].skipped, found[0].ignored) == (found[1].skipped, found[1].ignored)


@PROPERTY
@given(
    lines=st.lists(st.sampled_from(["", " ", "\t", "one", "  two", "three\x0b\x0c\u2028"]), max_size=20),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_file_is_cut_at_its_empty_lines(lines: list[str], end: str, tmp_path: Path) -> None:
    """Every line with text is in one row, under its line number in an editor, with any line ending."""
    path = write(tmp_path, {"a.txt": "\ufeff" + end.join(lines)}) / "a.txt"
    filled = [line for line in lines if line.strip()]
    if not filled:
        with pytest.raises(DataError, match=r"a\.txt: no text in it"):
            read_text(path)
        return
    rows = list(read_text(path).splits["train"])
    assert [line for row in rows for line in row["text"].split("\n")] == filled
    for row in rows:
        start = int(row["id"].removeprefix("a.txt:")) - 1
        count = row["text"].count("\n") + 1
        assert lines[start : start + count] == row["text"].split("\n")
        assert not "".join(lines[start + count : start + count + 1]).strip()
        assert start == 0 or not lines[start - 1].strip()


LAYOUTS: dict[str, tuple[list[str], dict[str, Any], dict[str, list[str]]]] = {
    "documents": (["b.md", "a.txt", "deep/c.txt"], {}, {"train": ["a.txt", "b.md", "deep/c.txt"]}),
    "split folders": (
        ["Train/a.txt", "val/x/b.txt", "README.md"],
        {},
        {"Train": ["Train/a.txt"], "val": ["val/x/b.txt"]},
    ),
    "split files": (["train.txt", "valid.txt", "README.md"], {}, {"train": ["train.txt:1"], "valid": ["valid.txt:1"]}),
    "folders before files": (["train/a.txt", "test.txt"], {}, {"train": ["train/a.txt"]}),
    "only a test split": (["test/a.txt"], {}, {"test": ["test/a.txt"]}),
    "a folder that is called test": (["test/a.txt", "b.txt"], {}, {"train": ["b.txt", "test/a.txt"]}),
    "a split that is asked for": (
        ["old/a.txt", "test/b.txt"],
        {"train": "old"},
        {"old": ["old/a.txt"], "test": ["test/b.txt"]},
    ),
    "a folder of no text": (["train/a.txt", "test/b.pdf"], {}, {"train": ["train/a.txt"]}),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_splits_are_found(case: str, tmp_path: Path) -> None:
    names, section, splits = LAYOUTS[case]
    source = read_text(write(tmp_path / "data", dict.fromkeys(names, "one line")), **section)
    assert {name: rows["id"] for name, rows in source.splits.items()} == splits
    assert counted(source) == len(names)


def test_a_document_is_one_row_as_it_is(tmp_path: Path) -> None:
    source = read_text(write(tmp_path / "data", {"a.txt": "\ufeff\r\n  one\r\n\r\ntwo\r\n", "b.txt": "ü"}))
    assert list(source.splits["train"]) == [{"id": "a.txt", "text": "  one\n\ntwo"}, {"id": "b.txt", "text": "ü"}]
    parts = load(write(tmp_path / "many", {f"{i}.txt": f"text {i}" for i in range(20)}))
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [16, 2, 2]


def test_spoiled_files_are_skipped_in_a_folder_and_refused_alone(tmp_path: Path) -> None:
    data = write(tmp_path / "data", {**SPOILED, "good.txt": "text"})
    (data / "gone.txt").symlink_to("nowhere.txt")
    whys = {
        "empty.txt": "no text",
        "old.txt": "not UTF-8 text (byte 3)",
        "zero.txt": "holds zero bytes",
        "gone.txt": "cannot be read: No such",
    }
    skipped = dict(read_text(data).skipped["train"])
    assert set(skipped) == set(whys)
    for name, why in whys.items():
        assert f"{data / name}: {why}" in skipped[name]
    for name in SPOILED:
        with pytest.raises(DataError, match=name):
            load(data / name)
        with pytest.raises(DataError, match=r"train\.txt"):
            load(write(tmp_path / name, {"train.txt": SPOILED[name], "test.txt": "text"}))
    (data / "good.txt").unlink()
    with pytest.raises(DataError, match=r"none of 4 text files can be used; the first: .*empty"):
        load(data)


def test_what_plain_text_has_not(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.txt": "text"}) / "a.txt"
    for section, words in (({"columns": {"text": "body"}}, "no columns"), ({"group": "author"}, "no column 'author'")):
        with pytest.raises(DataError, match=words):
            load(path, **section)
    with pytest.raises(DataError, match="this task needs image, label"):
        load_splits(DataSection(id=str(path)), DataSpec(("image", "label")))


def test_every_layout_is_read_by_its_own_format(tmp_path: Path) -> None:
    other_files = {"README.md": "about it", "notes.txt": "more"}
    photos = tiny.photos(tmp_path / "photos", n=1, splits=(), size=8)
    layouts = {
        "imagefolder": [
            photos,
            write(tiny.photos(tmp_path / "split", n=1, size=8), {**other_files, "train/cat/000.txt": "a caption"}),
        ],
        "squad": [write(tiny_text.squad(tmp_path / "squad", n=1), other_files)],
        "table": [write(tmp_path / "table", {"train.csv": "text\na\n", **other_files})],
        "text": [write(tmp_path / "text", other_files), tmp_path / "text" / "README.md"],
        "wikipedia": [write(tmp_path / "dump", {"a.xml": "<mediawiki/>", **other_files}), tmp_path / "dump" / "a.xml"],
    }
    for name, paths in layouts.items():
        for path in paths:
            assert format_module(DataSection(id=str(path))).__name__.endswith(f".{name}"), path
    for captions in (write(photos / "cat", other_files), write(tmp_path / "none", {"a.pdf": ""})):
        with pytest.raises(DataError, match=r"cannot be read as data .*\.txt or \.md files, or a Wikipedia dump"):
            load(captions)
