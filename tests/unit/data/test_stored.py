"""Large data are written once, mapped into memory and read from there by later runs; small data stay in memory."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pipelines.config.recipe import DataSection
from pipelines.data import compressed, stored
from pipelines.data.columns import batches, select, values, with_column
from pipelines.data.encoding import encode
from pipelines.data.filtering import cleaned
from pipelines.data.formats import table
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError, RunError
from pipelines.tasks.text_classification import TextClassification
from pipelines.tasks.text_generation import TextGeneration
from pipelines.utils import cache

TASK = TextClassification(None)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every table counts as large; the folder of their entries."""
    monkeypatch.setattr(stored, "SMALL_ROWS", 1)
    monkeypatch.setattr(stored, "AT_ONCE", 7)
    monkeypatch.setattr(compressed, "_SMALL", 100)
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED", -(10**12))  # the files of a test were written just now
    return tmp_path / "cache" / "rows"


def contents(splits: Splits) -> Any:
    return [splits[name].to_list() for name in SPLITS], splits.fingerprint, splits.skipped, splits.labels


def written(folder: Path, form: str) -> Path:
    rows: list[dict[str, Any]] = [{"text": f'one, "two"\n{n} words', "label": f"class {n % 3}"} for n in range(60)]
    path = folder / f"t.{form}"
    if form == "csv":
        cells = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]}' for row in rows]
        path.write_text("text,label\n" + "\n".join([*cells, ",class 1", "too,many,cells"]) + "\n")
    else:
        odd = [
            {"text": None, "label": "class 0"},
            {"text": {"a": 1}, "label": "class 0"},
            {"text": "\ud800", "label": "class 1"},
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *odd]))
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_on_disk_are_those_in_memory(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = DataSection(id=str(written(tmp_path, form)))
    in_memory = contents(load_splits(section, TASK.data))
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(stored, "SMALL_ROWS", 1)
    monkeypatch.setattr(stored, "AT_ONCE", 7)
    monkeypatch.setattr(compressed, "_SMALL", 100)
    found = load_splits(section, TASK.data)
    assert contents(found) == in_memory
    assert any("rows.arrow" in file["filename"] for file in found.train.cache_files)


def test_a_later_run_reads_nothing(on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "csv")
    first = contents(load_splits(DataSection(id=str(path)), TASK.data))
    entries = sorted(on_disk.iterdir())

    def read(*_: Any) -> Any:
        raise AssertionError("the data were read again")

    monkeypatch.setattr(table, "_found", read)
    assert contents(load_splits(DataSection(id=str(path)), TextClassification(None).data)) == first
    assert sorted(on_disk.iterdir()) == entries
    os.utime(path, ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        load_splits(DataSection(id=str(path)), TASK.data)


def damage(entry: Path, kind: str) -> None:
    rows, about = entry / "rows.arrow", entry / "about.json"
    if kind in ("file", "empty folder"):
        shutil.rmtree(entry)
        entry.write_text("") if kind == "file" else entry.mkdir()
    elif kind == "no rows":
        rows.unlink(missing_ok=True)
    elif kind == "no about":
        about.unlink()
    elif kind == "other about":
        about.write_text("[]")
    elif kind == "all cut":
        about.write_text("")
        replace(rows, b"")
    elif rows.exists():
        replace(rows, b"\0" * rows.stat().st_size if kind == "zeros" else rows.read_bytes()[:-8])


def replace(file: Path, content: bytes) -> None:
    """Write another file of this name: the old one may be mapped into memory, so it must not be cut."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


KINDS = ["file", "empty folder", "no rows", "no about", "other about", "zeros", "cut", "all cut"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_entry_is_written_again(
    kind: str, on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = DataSection(id=str(written(tmp_path, "csv")))
    wanted = contents(load_splits(section, TASK.data))
    entries = sorted(on_disk.iterdir())
    for entry in entries:
        damage(entry, kind)
    assert contents(load_splits(section, TASK.data)) == wanted
    assert sorted(on_disk.iterdir()) == entries
    monkeypatch.setattr(table, "_found", None)  # the next run reads the entry
    assert contents(load_splits(section, TASK.data)) == wanted


def test_a_leftover_of_the_same_process_number(on_disk: Path, tmp_path: Path) -> None:
    """The processes of a container that is started again have the numbers of the killed ones."""
    section = DataSection(id=str(written(tmp_path, "csv")))
    wanted = contents(load_splits(section, TASK.data))
    entries = sorted(on_disk.iterdir())
    for entry in entries:
        left = entry.with_name(f".{entry.name}.{socket.gethostname()}.{os.getpid()}")
        entry.rename(left)
        (left / "rows.arrow").write_text("half")
    assert contents(load_splits(section, TASK.data)) == wanted
    assert sorted(on_disk.iterdir()) == entries


def test_a_change_with_the_same_size_and_time(on_disk: Path, tmp_path: Path) -> None:
    """As `cp -p`, rsync and unzip leave a file."""
    path = tmp_path / "t.csv"
    for label in ("pos", "neg"):
        path.write_text("text,label\n" + "".join(f"text {n},{label}\n" for n in range(60)))
        os.utime(path, ns=(10**18, 10**18))
        rows = table.read(DataSection(id=str(path)), ("text", "label")).splits["train"]
        assert set(rows["label"][:]) == {label}


def test_a_file_that_changed_just_now_is_not_kept(
    on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = DataSection(id=str(written(tmp_path, "csv")))
    wanted = contents(load_splits(section, TASK.data))
    shutil.rmtree(on_disk)
    monkeypatch.setattr(cache, "SETTLED", 10**12)
    assert contents(load_splits(section, TASK.data)) == wanted
    assert all(entry.name.startswith(".") for entry in on_disk.iterdir())


def test_a_warning_is_given_by_a_later_run_too(on_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\n" + "".join(f"text {n};{'ab'[n % 2]}\n" for n in range(60)))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_splits(DataSection(id=str(path)), TASK.data)
        assert "its cells are parted by semicolons" in caplog.text


def test_columns_whose_types_appear_late(on_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    cells = [None] * 20 + [1] * 20 + [2.5] + [None] * 3
    path.write_text("".join(json.dumps({"text": "a", "answer_start": cell}) + "\n" for cell in cells))
    found = table.read(DataSection(id=str(path)), ("text", "answer_start")).splits["train"]
    assert str(found.features["answer_start"].dtype) == "float64"
    assert found["answer_start"][:] == cells


def test_one_odd_cell_is_named_and_skipped(on_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": f"text {n}", "answer": n} for n in range(30)]
    rows.insert(17, {"text": ["no", "text"], "answer": 1})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = table.read(DataSection(id=str(path)), ("text", "answer"))
    assert len(source.splits["train"]) == 30
    assert source.skipped["train"] == [("t.jsonl:18", "t.jsonl:18: text holds list, and most other rows hold string")]


def test_lists_of_answers_after_texts(on_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    answers = ["one"] * 10 + [["two", "three"], ""]
    path.write_text("".join(json.dumps({"text": "a", "answer": answer}) + "\n" for answer in answers))
    found = table.read(DataSection(id=str(path)), ("text", "answer")).splits["train"]
    assert found["answer"][:] == [["one"]] * 10 + [["two", "three"], []]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_nested_columns(form: str, tmp_path: Path) -> None:
    rows = [{"review": {"body": f"text {n}", "of": {"kind": "ab"[n % 2]}}} for n in range(40)]
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text": "review.body", "label": "review.of.kind"}
    found = load_splits(DataSection(id=str(path), columns=columns), TASK.data)
    assert found.labels == ["a", "b"]
    assert set(found.train["text"][:]) < {f"text {n}" for n in range(40)}


def test_a_task_with_a_tokenizer_is_not_known() -> None:
    task = TextGeneration(None)
    assert stored.function_key(task.data.clean) == stored.function_key(TextGeneration(None).data.clean)
    other = TextGeneration(TextGeneration.Options(prompt="{text}"))
    assert stored.function_key(other.data.clean) != stored.function_key(task.data.clean)
    task.tokenizer = Dataset.from_dict({"id": ["1"]}).data.table  # an object without a state that can be read
    assert stored.function_key(task.data.clean) is None


def test_rows_without_a_key_go_with_their_process(tmp_path: Path) -> None:
    program = (
        "from pipelines.data import stored; stored.SMALL_ROWS = 1\n"
        "fill = lambda rows: [rows.add({'id': str(n)}) for n in range(2000)] and None\n"
        "rows, _ = stored.table(None, 'reading', fill)\n"
        "import os; print(len(rows), len(os.listdir(os.environ['GRAFT_CACHE'] + '/rows')))"
    )
    environment = {**os.environ, "GRAFT_CACHE": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True)
    assert found.stdout.split() == [b"2000", b"1"]
    assert not list((tmp_path / "rows").iterdir())


def test_a_cache_that_cannot_be_written(on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match="free some room, or set GRAFT_CACHE"):
        load_splits(DataSection(id=str(written(tmp_path, "csv"))), TASK.data)


def test_columns_of_selected_rows(on_disk: Path) -> None:
    rows = Dataset.from_dict({"id": [f"{n}" for n in range(3000)], "label": [f"{n % 2}" for n in range(3000)]})
    some = select(rows, range(0, 3000, 2))
    more = with_column(some, "size", list(range(1500)))
    assert values(more, "id") == [f"{n}" for n in range(0, 3000, 2)]
    assert values(more, "label") == ["0"] * 1500
    assert values(more, "size") == list(range(1500))
    assert [cell for batch in batches(more) for cell in batch["size"]] == list(range(1500))
    again = with_column(select(rows, range(0, 3000, 2)), "size", list(range(1500)))
    assert again._fingerprint == more._fingerprint
    assert with_column(some, "size", [1] * 1500)._fingerprint != more._fingerprint


def test_encodings_are_read_again(on_disk: Path) -> None:
    rows = Dataset.from_dict({"id": [str(n) for n in range(50)]})

    def double(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        return {"row": [n for n in numbers for _ in range(2)]}

    wanted = [n for n in range(50) for _ in range(2)]
    assert encode(rows, double, "key")["row"][:] == wanted
    assert encode(rows, lambda batch, numbers: {}, "key")["row"][:] == wanted


@pytest.mark.parametrize("kind", ["file", "empty folder", "no rows", "zeros", "leftover"])
def test_a_damaged_encoding_is_written_again(kind: str, on_disk: Path) -> None:
    rows = Dataset.from_dict({"id": [str(n) for n in range(50)]})
    wanted = list(range(50))

    def read() -> Any:
        return encode(rows, lambda batch, numbers: {"row": numbers}, "key")["row"][:]

    assert read() == wanted
    (entry,) = (on_disk.parent / "encoded").iterdir()
    parts = list(entry.glob("*.arrow"))
    if kind in ("file", "empty folder"):
        damage(entry, kind)
    elif kind == "leftover":
        left = entry.rename(entry.with_name(f".{entry.name}.{socket.gethostname()}.{os.getpid()}"))
        (left / "examples_00007_of_00008.arrow").write_text("of the killed run")
    for part in parts if kind in ("no rows", "zeros") else []:
        replace(part, b"\0" * part.stat().st_size) if kind == "zeros" else part.unlink()
    assert read() == wanted
    assert list(entry.parent.iterdir()) == [entry]


def test_cells_of_cleaned_rows_that_do_not_fit() -> None:
    rows = Dataset.from_dict({"id": ["1", "2"]})
    with pytest.raises(DataError, match="values of different kinds"):
        cleaned(rows, lambda row: {**row, "label": 1 if row["id"] == "1" else "b"}, "here")
    assert DataSpec(("text",)).clean is None


def _named(text: str, *, sign: str = "-", times: int = 2) -> str:
    return text + sign * times


def test_arguments_of_a_function_count() -> None:
    """A function with other defaults, and a partial with other arguments, gives other rows."""
    functions = [partial(_named, "a"), partial(_named, "b"), partial(_named, "a", sign="+"), partial(len, "a")]
    functions += [_named, *(lambda text, n=n: text * n for n in (1, 2))]
    keys = [json.dumps(stored.function_key(function)) for function in functions]
    assert len(set(keys)) == len(functions), keys
    assert json.dumps(stored.function_key(partial(_named, "a"))) == keys[0]
