"""Tables: every file format gives the same rows, no row is merged or lost, and an error names the row of a bad cell."""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection
from pipelines.data.formats import table
from pipelines.data.loading import load_rows, load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError
from pipelines.tasks.fill_mask import FillMask
from pipelines.tasks.image_classification import ImageClassification
from pipelines.tasks.question_answering import QuestionAnswering
from pipelines.tasks.text_classification import TextClassification
from pipelines.tasks.text_generation import TextGeneration
from tests.support import tiny

PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Log = pytest.LogCaptureFixture
LABELLED = DataSpec(("text", "label"), ("text_pair",))


def no_data(words: str) -> Any:
    return pytest.raises(DataError, match=words)


def section(path: Path, **settings: Any) -> DataSection:
    return DataSection(id=str(path), **settings)


def read(path: Path, columns: tuple[str, ...] = ("text", "label")) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one file, and the reasons why others were skipped."""
    source = table.read(section(path), columns)
    rows = [{column: row[column] for column in columns} for row in source.splits["train"]]
    return rows, [why for _, why in source.skipped["train"]]


def load(path: Path, task: Any, **settings: Any) -> tuple[list[dict[str, Any]], list[str], Splits]:

    splits = load_splits(section(path, **settings), task.data)
    rows = [row for name in SPLITS for row in splits[name]]
    rows.sort(key=lambda row: int(row["id"].rpartition(":")[2]))
    return rows, [why for name in SPLITS for _, why in splits.skipped[name]], splits


def written(rows: list[list[str]], **dialect: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()


def labels_csv(folder: Path, rows: list[list[str]]) -> Path:
    return put(folder / "a.csv", written([["text", "label"], *rows]))


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def zst(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


PACKED: dict[str, Callable] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


# ---- the same rows from every file format ----

SIGNS = st.sampled_from("ab ,;|\t\n\"'\\é\u00a0\u2028#=")
CELLS = st.text(SIGNS | st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
TEXTS = st.text(st.sampled_from("ab \"',;"), min_size=1, max_size=8).map(lambda text: f"x{text}")
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8)


@PROPERTY
@given(rows=ROWS, quoting=QUOTING, end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("0\n\t", "")], quoting=csv.QUOTE_ALL, end="\n")
@example(rows=[("0\n\t", "")], quoting=csv.QUOTE_MINIMAL, end="\n")
def test_every_form_holds_the_same_rows(rows: list[tuple[str, str]], quoting: Any, end: str, tmp_path: Path) -> None:
    """The tables as csv.writer and pandas write them, as JSON and as parquet."""
    # a tab-separated table of blank cells alone reads as well without quoting
    assume(any(cell.strip() for row in rows for cell in row))
    found = [{"n": str(number), "text": text, "note": note} for number, (text, note) in enumerate(rows)]
    columns = ("n", "text", "note")
    cells = [list(columns), *(list(row.values()) for row in found)]
    for sign, suffix in ((",", ".csv"), (";", ".csv"), ("\t", ".csv"), ("\t", ".tsv")):
        path = put(tmp_path / f"a{suffix}", written(cells, delimiter=sign, quoting=quoting, lineterminator=end))
        assert read(path, columns) == (found, []), (sign, suffix)
    packed = put(tmp_path / "a.csv.gz", gzip.compress(written(cells).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "a.parquet")
    array, listed = put(tmp_path / "a.json", json.dumps(found, indent=2)), put(tmp_path / "b.json", lines(found))
    for path in (packed, tmp_path / "a.parquet", array, listed, put(tmp_path / "a.jsonl", lines(found))):
        assert read(path, columns) == (found, []), path.name


@PROPERTY
@given(texts=st.lists(TEXTS, min_size=2, max_size=9))
def test_lines_without_quoting_are_as_many_rows(texts: list[str], tmp_path: Path) -> None:
    """A quote inside a cell is a character, whatever the other rows hold."""
    path = put(tmp_path / "a.tsv", "label\ttext\n" + "".join(f"good\t{text}\n" for text in texts))
    assert [row["text"] for row in read(path)[0]] == texts


def test_unpaired_quotes_in_a_tsv_merge_no_rows(tmp_path: Path) -> None:
    texts = [f"visit {number}" for number in range(40)]
    texts[7], texts[30] = '"I have never slept so well.', 'From start to end."'
    path = put(tmp_path / "a.tsv", "label\ttext\n" + "".join(f"good\t{text}\n" for text in texts))
    assert [row["text"] for row in read(path)[0]] == texts
    put(path, path.read_text() + "a line without a tab\n")  # one wrong line does not change the cells of the others
    rows, skipped = read(path)
    assert ([row["text"] for row in rows], len(skipped)) == (texts, 1)
    assert skipped[0].startswith("a.tsv:42: 1 cells for 2 columns")


def test_quotes_that_merge_rows_of_a_csv_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", 'label,text\ngood,"Splendid\n' + "bad,noisy\n" * 5 + 'good,to the end"\n')
    with no_data(r"a\.csv:2: a quote opens here and closes 6 lines below.*twice"):
        read(path)
    letter = "Dear all,\nwe had a good time.\nYours,\nAda and\nTobin"
    assert read(put(path, written([["label", "text"], ["good", letter]])))[0] == [{"text": letter, "label": "good"}]


def test_a_few_rows_of_a_csv_that_quotes_may_have_merged_are_named(tmp_path: Path, caplog: Log) -> None:
    path = put(tmp_path / "a.csv", 'text,label\nfine,pos\n"wow,pos\nx,neg\nshe said ",neg\nfine,pos\n')
    rows, _ = read(path)
    assert [row["text"] for row in rows] == ["fine", "wow,pos\nx,neg\nshe said ", "fine"]
    assert "a.csv:3: a quote opens here and closes in line 5: that is read as one row, but each line" in caplog.text
    caplog.clear()
    put(path, 'sep=,\ntext,label\n"a,pos\nb",neg\nfine,pos\n"c,pos\nd",neg\n')
    assert len(read(path)[0]) == 3
    assert "a.csv:3: a quote opens here and closes in line 4: " in caplog.text
    assert "by itself, and so in 1 more rows." in caplog.text
    caplog.clear()
    read(put(path, 'text,label\n"Dear all\nhow are you, and they?",pos\n"two\nlines, no more",neg\n"a\n\nb",pos\n'))
    read(put(path, 'text\n"two\nlines"\n'), ("text",))
    assert not caplog.records


DIALECTS: dict[str, tuple[str, str, str, str]] = {
    "semicolons": (".csv", "text;label\na, b;x\nc;y\n", "a, b", "its cells are parted by semicolons"),
    "a comma in a quoted header": (".csv", '"text, long";label\n"a, b";x\nc;y\n', "a, b", "semicolons"),
    "tabs in a csv": (".csv", "text\tlabel\na, b\tx\nc\ty\n", "a, b", "its cells are parted by tabs"),
    "bars": (".csv", "text|label\na, b|x\nc|y\n", "a, b", "its cells are parted by bars"),
    "commas in a tsv": (".tsv", 'text,label\n"a, b",x\nc,y\n', "a, b", "its cells are parted by commas"),
    "the line that Excel writes": (".csv", "sep=;\ntext;label\na, b;x\nc;y\n", "a, b", "semicolons"),
    "a blank after each comma": (".csv", 'text, label\n"a, b", x\nc, y\n', "a, b", "a blank follows every sign"),
    "a blank before quotes alone": (".csv", 'label,text\nx, "a, b"\ny, "c"\n', "a, b", "a blank follows every sign"),
    "a quoted tsv": (".tsv", '"text"\t"label"\n"a, b"\t"x"\n"c"\t"y"\n', "a, b", "quotes around a cell"),
    "backslashes": (".csv", 'text,label\n"a, b",x\nc,y\n"d \\"e, f\\" \\"",z\n', "a, b", "a backslash stands before"),
    "the usual": (".csv", 'text,label\n"a, b",x\nc,y\n', "a, b", ""),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_a_table_is_read_as_it_is_written(case: str, tmp_path: Path, caplog: Log) -> None:
    suffix, content, first, words = DIALECTS[case]
    columns = ("text, long", "label") if "text, long" in content else ("text", "label")
    rows, skipped = read(put(tmp_path / f"a{suffix}", content), columns)
    assert ([list(row.values()) for row in rows][:2], skipped) == ([[first, "x"], ["c", "y"]], [])
    assert [list(row.values()) for row in rows][2:] == ([['d "e, f" "', "z"]] if case == "backslashes" else [])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(words)
    assert words in "".join(messages)


def test_one_column_stays_one_column(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", 'text\na;b\n"c, d"\ne|f\n')
    assert read(path, ("text",))[0] == [{"text": "a;b"}, {"text": "c, d"}, {"text": "e|f"}]


def test_blanks_of_a_cell_belong_to_it_and_those_of_a_label_do_not(tmp_path: Path, caplog: Log) -> None:
    rows = [[" a", " x"], ["b ", "x "], ["c", "y\u00a0"], [" d", "y"], ["e", "X"]] * 6
    spelled = [{"text": text, "label": label} for text, label in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(spelled), tmp_path / "a.parquet")
    put(tmp_path / "a.csv", written([["text", "label"], *rows]))
    put(tmp_path / "a.jsonl", lines(spelled))
    for path in (tmp_path / f"a.{form}" for form in ("csv", "jsonl", "parquet")):
        caplog.clear()
        found, _, splits = load(path, TextClassification())
        assert [row["text"] for row in found][:4] == [" a", "b ", "c", " d"]
        assert splits.labels == ["X", "x", "y"]
        assert "classes that differ in case, blanks, accents' spelling or zeros only: 'X', 'x'" in caplog.text


def test_classes_that_print_alike_are_told_from_one_another(tmp_path: Path, caplog: Log) -> None:
    labels = ["caf\u00e9", "cafe\u0301", "a\u00a0b", "a b"] * 5
    rows, _, _ = load(labels_csv(tmp_path, [[f"t{n}", label] for n, label in enumerate(labels)]), TextClassification())
    assert {row["label"] for row in rows} == {"caf\u00e9", "a\u00a0b", "a b"}  # two forms of one accent are one class
    assert r"'a b', 'a\xa0b'" in caplog.text


def test_a_class_spelled_otherwise_in_test_is_shown(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", "text,label\n" + "".join(f"a{n},Late\nb{n},early\n" for n in range(5)))
    put(tmp_path / "test.csv", "text,label\na,late\n")
    with no_data(r"class 'late' \(train has 'Late': spell it in one way\) occurs in test but not in train"):
        load(tmp_path, TextClassification())


def test_a_decimal_comma_is_a_number_where_commas_part_no_cells(tmp_path: Path, caplog: Log) -> None:
    task = TextClassification(TextClassification.Options(regression=True))
    texts = "".join(f"t{number};{number},5\n" for number in range(20))
    rows, skipped, _ = load(put(tmp_path / "a.csv", f"text;label\n{texts}"), task)
    assert ([row["label"] for row in rows], skipped) == ([number + 0.5 for number in range(20)], [])
    assert "labels have a decimal comma: 0,5 is read as 0.5" in caplog.text
    put(tmp_path / "a.csv", "text,label\n" + "".join(f't{number},"{number},5"\n' for number in range(20)))
    with no_data(r"label is no number: '0,5' .*with a decimal point"):
        load(tmp_path / "a.csv", task)


# ---- compressed files ----


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_tables_and_texts_are_read(suffix: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "xy"[number % 2]} for number in range(20)]
    forms = {
        ".csv": written([["text", "label"], *map(list, map(dict.values, rows))]),
        ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows),
        ".jsonl": lines(rows),
        ".txt": "\n\n".join(row["text"] for row in rows),
    }
    for form, content in forms.items():
        path = put(tmp_path / f"a{form}{suffix}", PACKED[suffix](content.encode()))
        needs = DataSpec(("text",)) if form == ".txt" else LABELLED
        found = load_rows(section(path), needs)[1]
        assert found["text"][:] == [row["text"] for row in rows]
        put(tmp_path / "split" / f"train{form}{suffix}", path.read_bytes())
        assert len(load_rows(section(tmp_path / "split"), needs, "train")[1]) == 20
        (tmp_path / "split" / f"train{form}{suffix}").unlink()
        for broken in (path.read_bytes()[:-9], path.read_bytes()[:6] + b"\xff" * 9 + path.read_bytes()[15:]):
            with no_data(rf"bad{form}{suffix}: a damaged {suffix} file"):
                load_rows(section(put(tmp_path / f"bad{form}{suffix}", broken)), needs)
        with no_data(f"no {suffix} file, whatever its name says"):
            load_rows(section(put(tmp_path / f"bad{form}{suffix}", content)), needs)


def test_a_small_file_that_holds_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.compressed._FREE", 1 << 20)
    for suffix, pack in PACKED.items():
        path = put(tmp_path / f"a.jsonl{suffix}", pack(b" " * (4 << 20)))
        with no_data("holds more than 200 times its size"):
            read(path)


# ---- folders ----


def test_a_table_in_two_forms_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", "text,label\na,x\n")
    put(tmp_path / "train.csv.gz", gzip.compress(b"text,label\na,x\n"))
    with no_data(r"two tables are called 'train'.*\(train\.csv and train\.csv\.gz\): take one out"):
        load(tmp_path, TextClassification())


def test_a_contest_trains_on_what_has_labels(tmp_path: Path, caplog: Log) -> None:
    put(tmp_path / "train.csv", "id,text,label\n" + "".join(f"{n},order {n},{n % 2}\n" for n in range(20)))
    put(tmp_path / "test.csv", "id,text\n8,a\n9,b\n")
    put(tmp_path / "sample_submission.csv", "id,label\n8,0\n9,0\n")
    put(tmp_path / "README.csv", '"')
    put(tmp_path / "old.csv.zip", b"PK")
    put(tmp_path / "notes.pdf", b"%PDF")
    rows, _, splits = load(tmp_path, TextClassification())
    assert (len(rows), splits.source["test"]) == (20, "cut from train")
    assert splits.ignored == {
        "rows of test.csv, which has no column 'label'": 2,
        "rows of sample_submission.csv, which has no column 'text'": 2,
        "tables that cannot be read: README.csv": 1,
        "files that may be tables and are not read: old.csv.zip": 1,
        ".pdf files": 1,
    }
    assert "test.csv has no column 'label': no row of it is used" in caplog.text
    for split in (None, "test"):
        with no_data("the table of test has no labels to score by"):
            load_rows(section(tmp_path), LABELLED, split)
    with no_data(r"test\.csv: no column 'label' \(it has: id, text\)"):
        load(tmp_path, TextClassification(), test="test")


def test_a_folder_of_json(tmp_path: Path) -> None:
    rows = [{"text": f"t {number}", "label": "xy"[number % 2]} for number in range(20)]
    put(tmp_path / "one" / "reviews.json", json.dumps(rows, indent=2))
    put(tmp_path / "two" / "train.json", lines(rows))
    put(tmp_path / "two" / "more.json", "{}")
    for folder, ignored in (("one", {}), ("two", {"files that may be tables and are not read: more.json": 1})):
        found, _, splits = load(tmp_path / folder, TextClassification())
        assert (len(found), splits.ignored) == (20, ignored)


ROWS_OF_TWO = [[f"text {i}", "ab"[i % 2]] for i in range(12)]


def test_tables_below_the_folder_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", written([["text", "label"], *ROWS_OF_TWO]))
    for name in ("sub/b.csv", "sub/deep/c.jsonl.gz", "sub/notes.txt", "notes.txt"):
        put(tmp_path / name, "x")
    what = "files that may be tables and are not read: "
    splits = load_splits(section(tmp_path), LABELLED)
    assert splits.ignored == {f"{what}sub/b.csv": 1, f"{what}sub/deep/c.jsonl.gz": 1, ".txt files": 1}


@pytest.mark.parametrize("more", ["train/b.csv", "README.md", "val/a.parquet"])
def test_tables_in_split_folders_are_refused(more: str, tmp_path: Path) -> None:
    for name in ("train/a.csv", "test/a.csv", more):
        put(tmp_path / name, written([["text", "label"], *ROWS_OF_TWO]))
    words = r"has its tables in folders \(test/a\.csv, train/a\.csv.*\): put them into .*as in train\.csv and test\.csv"
    for needs in (LABELLED, DataSpec(("text",)), DataSpec(("context", "question", "answer"))):
        with no_data(words):
            load_splits(section(tmp_path), needs)
    with no_data("no folder with images or recordings"):
        load_splits(section(tmp_path, format="captions"), LABELLED)


def test_tables_in_one_folder_are_refused_with_its_name(tmp_path: Path) -> None:
    put(tmp_path / "own" / "train.csv", written([["text", "label"], *ROWS_OF_TWO]))
    with no_data(rf"has its tables in folders .*or give one folder \({tmp_path}/own\)"):
        load_splits(section(tmp_path), LABELLED)
    put(tmp_path / "a.txt", "a text")  # then the table is the data
    assert load_rows(section(tmp_path), DataSpec(("text",)))[1]["text"] == ["a text"]


def test_rows_without_anything_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "text,label\n" + "".join(f"a{n},x\nb{n},y\n" for n in range(9)) + ",\n,\n")
    assert load(path, TextClassification())[2].ignored == {"rows of a.csv without a filled cell": 2}


# ---- empty cells ----


def test_questions_without_an_answer_are_rows_where_the_task_wants_them(tmp_path: Path) -> None:
    context = "The mill was run by Mara."
    rows = [{"question": f"Who, {n}?", "context": context, "answer": "Mara", "answer_start": 20.0} for n in range(20)]
    for row in rows[::4]:
        row.update(answer="", answer_start="")
    nulls = [{key: None if value == "" else value for key, value in row.items()} for row in rows]
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nulls), tmp_path / "a.parquet")
    put(tmp_path / "a.csv", written(cells))
    put(tmp_path / "a.jsonl", lines(nulls))
    for path in (tmp_path / f"a.{form}" for form in ("csv", "jsonl", "parquet")):
        found, skipped, _ = load(path, QuestionAnswering(QuestionAnswering.Options(version="2.0")), group="none")
        assert ([row["answer"]["answer_start"] for row in found], skipped) == ([[], [20], [20], [20]] * 5, [])
        skipped = load(path, QuestionAnswering(), group="none")[1]
        assert len(skipped) == 5
        assert "the question has no answer (options.version: '2.0' allows that)" in skipped[0]


def test_a_column_of_a_prompt_may_be_empty_and_all_of_them_may_not(tmp_path: Path) -> None:
    task = TextGeneration(TextGeneration.Options(prompt="{instruction} {input}"))
    rows: list[dict[str, Any]] = [
        {"instruction": f"Name {n}", "input": f"box {n}" if n % 3 else None, "answer": f"cork {n}"} for n in range(18)
    ]
    rows += [{"instruction": "", "input": "", "answer": "a"}, {"instruction": "b", "input": "c", "answer": None}]
    cells = [["instruction", "input", "answer"], *([value or "" for value in row.values()] for row in rows)]
    texts = {"a.csv": written(cells), "a.jsonl": lines(rows), "a.json": json.dumps(rows)}
    for path in (put(tmp_path / name, content) for name, content in texts.items()):
        found, skipped, _ = load(path, task)
        assert [row["input"] for row in found][:4] == ["", "box 1", "box 2", ""]
        assert [why.partition(": ")[2] for why in skipped] == ["instruction and input are empty", "answer is empty"]


def test_rows_with_an_empty_context_are_no_group(tmp_path: Path) -> None:
    task = TextGeneration(TextGeneration.Options(prompt="{context} {question}"))
    rows = [{"context": "" if n % 2 else f"passage {n // 4}", "question": f"q {n}", "answer": "a"} for n in range(40)]
    _, _, splits = load(put(tmp_path / "a.jsonl", lines(rows)), task)
    assert all(3 <= len(splits[name]) <= 6 for name in ("validation", "test"))


def test_a_row_without_a_label_has_none_where_there_may_be_several(tmp_path: Path) -> None:
    sets = [["rude"], [], ["rude", "threat"], [], ["spam"]] * 8
    rows = [[f"message {number}", "|".join(labels)] for number, labels in enumerate(sets)]
    objects = [{"text": text, "label": labels or None} for (text, _), labels in zip(rows, sets, strict=True)]
    empty = [{**row, "label": row["label"] or []} for row in objects]
    task = TextClassification(TextClassification.Options(multi_label=True))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), tmp_path / "a.parquet")
    csv_ = written([["text", "label"], *rows])
    tsv = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    texts = {"a.csv": csv_, "a.tsv": tsv, "a.jsonl": lines(objects), "b.jsonl": lines(empty)}
    for path in (tmp_path / "a.parquet", *(put(tmp_path / name, content) for name, content in texts.items())):
        found, skipped, splits = load(path, task)
        assert ([row["label"] for row in found], skipped, splits.labels) == (sets, [], ["rude", "spam", "threat"])
    found, skipped, _ = load(tmp_path / "a.csv", TextClassification())
    assert (len(found), len(skipped)) == (24, 16)
    assert skipped[0] == "a.csv:3: label is empty"


def test_an_empty_label_of_a_hub_data_set_is_for_the_task_to_judge() -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    from pipelines.data.formats.hub import labels_by_name
    from pipelines.data.labels import labelled

    def named(labels: list[Any], kind: Any) -> tuple[Any, list[str]]:
        ids = [f"train/{number}" for number in range(len(labels))]
        features = Features({"id": Value("string"), "label": kind})
        rows, skipped = labels_by_name(Dataset.from_dict({"id": ids, "label": labels}, features=features))
        return rows, [id_ for id_, _ in skipped]

    names = ClassLabel(names=["cat", "dog"])
    for labels, kind, found in (
        ([["cat "], None, []], List(Value("string")), [["cat"], [], []]),
        ([[0, 1], None, []], List(names), [["cat", "dog"], [], []]),
        (["cat|dog", None, ""], Value("string"), [["cat", "dog"], [], []]),
    ):
        rows, skipped = named(labels, kind)
        assert (labelled(rows, True, True)[0]["label"][:], skipped) == (found, [])
    rows, skipped = named([0, None, -1, 1], names)
    assert skipped == ["train/2"]  # labels that are kept secret
    rows, bad = labelled(rows, False, True)
    assert (rows["label"][:], bad) == (["cat", "dog"], [("train/1", "train/1: label is empty")])
    assert len(named([-1, -1], names)[0]) == 0


def test_an_empty_second_text_is_a_pair(tmp_path: Path) -> None:
    rows = [{"text": f"report {n}", "text_pair": f"by {n}" if n % 3 else None, "label": "xy"[n % 2]} for n in range(20)]
    cells = [list(rows[0]), *([value or "" for value in row.values()] for row in rows)]
    for path in (put(tmp_path / "a.csv", written(cells)), put(tmp_path / "a.jsonl", lines(rows))):
        found, skipped, _ = load(path, TextClassification())
        assert ([row["text_pair"] for row in found], skipped) == ([row["text_pair"] or "" for row in rows], [])
        asked = load_rows(section(path), DataSpec(("text", "text_pair")))[1]  # the form of predictions
        assert asked["text_pair"][:] == [row["text_pair"] or "" for row in rows]


# ---- several labels, joined ----

TAGS = [["rust"], ["scab"], ["rust", "scab"], ["healthy"], ["rust", "complex"], ["scab", "frog eye"]] * 6
JOINED = {"commas": ",".join, "semicolons": "; ".join, "blanks": " ".join, "slashes": "/".join}


@pytest.mark.parametrize("name", JOINED)
def test_labels_that_another_sign_joins_are_warned_of(name: str, tmp_path: Path, caplog: Log) -> None:
    path = labels_csv(tmp_path, [[f"t{n}", JOINED[name](tags)] for n, tags in enumerate(TAGS)])
    load_rows(section(path), DataSpec(("text", "label"), label_kind="classes"))
    assert f"{JOINED[name](['rust', 'scab'])!r} looks like 2 labels with {name} between them" in caplog.text
    caplog.clear()
    load_rows(section(path), LABELLED)
    assert not caplog.text


@pytest.mark.parametrize(("sign", "name"), [(",", "commas"), (";", "semicolons"), (" ", "blanks"), ("/", "slashes")])
def test_the_separator_of_labels_can_be_named(sign: str, name: str, tmp_path: Path, caplog: Log) -> None:
    tags = [[tag.replace(" ", "_") for tag in some] for some in [*TAGS, []]]
    path = labels_csv(tmp_path, [[f"t{n}", JOINED[name](some)] for n, some in enumerate(tags)])
    task = TextClassification(TextClassification.Options(multi_label=True))
    found, skipped, _ = load(path, task, label_separator=sign)
    assert ([row["label"] for row in found], skipped) == (tags, [])
    assert not caplog.text
    with no_data("data.label_separator stands between several labels of a row: set options.multi_label=true"):
        load(path, TextClassification(), label_separator=sign)
    with no_data("data.label_separator stands between several labels of a row: this task has none"):
        load(path, TextGeneration(), label_separator=sign)


FLAGS = ["rude", "spam", "threat"]


@pytest.mark.parametrize(
    "form", [lambda on: str(int(on)), lambda on: str(float(on)), str, lambda on: "x" if on else ""]
)
def test_a_column_for_each_label(form: Callable, tmp_path: Path) -> None:
    sets = [[], ["rude"], ["rude", "threat"], ["spam"], [], ["rude", "spam", "threat"]] * 8
    rows = [["text", *FLAGS], *[[f"t{n}", *(form(flag in some) for flag in FLAGS)] for n, some in enumerate(sets)]]
    path = put(tmp_path / "a.csv", written(rows))
    task = TextClassification(TextClassification.Options(multi_label=True))
    found, skipped, splits = load(path, task, label_columns=FLAGS)
    assert ([row["label"] for row in found], skipped) == (sets, [])
    assert set(splits.train.column_names) == {"id", "text", "label"}
    single = TextClassification()
    found, skipped, _ = load(path, single, label_columns=FLAGS, max_skipped=1.0)
    assert [row["label"] for row in found] == ["rude", "spam"] * 8
    assert skipped[:2] == [
        "a.csv:2: no label, and one is wanted; options.multi_label=true allows any number",
        "a.csv:4: 2 labels (rude, threat), and one is wanted; options.multi_label=true allows any number",
    ]


def test_columns_of_labels_are_offered_and_odd_ones_refused(tmp_path: Path) -> None:
    rows = [["text", *FLAGS, "stars"], *[[f"t{n}", "0", "1", "0.0", str(n % 5)] for n in range(20)]]
    path = put(tmp_path / "a.csv", written(rows))
    with pytest.raises(DataError, match=r"if these are labels with 0 and 1, data\.label_columns=\[rude,spam,threat\]"):
        load(path, TextClassification())
    task = TextClassification(TextClassification.Options(multi_label=True))
    found, skipped, _ = load(path, task, label_columns=["rude", "stars"])
    assert len(found) == 8
    assert skipped[0] == "a.csv:4: stars holds '2', and not 0 or 1"
    with no_data("data.label_columns: 'text' is another column of the task"):
        load(path, task, label_columns=["text", "rude"])
    with no_data("no column 'angry' .*name the columns of labels with data.label_columns="):
        load(path, task, label_columns=["angry", "rude"])
    with no_data("this task has no classes"):
        load(path, TextGeneration(), label_columns=FLAGS)


def test_a_test_table_without_the_columns_of_labels_is_left_out(tmp_path: Path) -> None:
    rows = [["text", "a", "b"], *[[f"t{n}", str(n % 2), "1"] for n in range(40)]]
    put(tmp_path / "train.csv", written(rows))
    put(tmp_path / "test.csv", written([["text"], ["u"], ["v"]]))
    task = TextClassification(TextClassification.Options(multi_label=True))
    splits = load_splits(section(tmp_path, label_columns=["a", "b"]), task.data)
    assert splits.ignored == {"rows of test.csv, which has no column 'a'": 2}


def test_a_label_of_no_row_is_named(tmp_path: Path, caplog: Log) -> None:
    put(tmp_path / "a.csv", "text,rude,spam,never\n" + "".join(f"a{n},{n % 2},1,0\n" for n in range(20)))
    task = TextClassification(TextClassification.Options(multi_label=True))
    splits = load_splits(section(tmp_path / "a.csv", label_columns=["rude", "spam", "never"]), task.data)
    assert splits.labels == ["rude", "spam"]
    assert "no row of train has the class 'never': the model does not learn it" in caplog.text


def test_names_with_blanks_are_no_joined_labels(tmp_path: Path, caplog: Log) -> None:
    rows = [["a", "New York"], ["b", "San Marino"], ["c", "either/or"]]
    load_rows(section(labels_csv(tmp_path, rows)), DataSpec(("text", "label"), label_kind="classes"))
    assert not caplog.text


@pytest.mark.parametrize("form", [str, json.dumps])
def test_printed_lists_of_labels_are_read(form: Callable, tmp_path: Path, caplog: Log) -> None:
    sets = [*TAGS, [], ["it's", 'a "b"']]
    path = labels_csv(tmp_path, [[f"t{n}", form(tags)] for n, tags in enumerate(sets)])
    assert load_rows(section(path), DataSpec(("text", "label"), label_kind="classes"))[1]["label"][:] == sets
    assert "labels are printed lists" in caplog.text
    put(path, path.read_text() + "last,['a' 'b']\n")  # as numpy prints them, which Python reads as one string
    assert load_rows(section(path), DataSpec(("text", "label"), label_kind="classes"))[1]["label"][-1] == ["a", "b"]


# ---- other types of cells ----


def test_numbers_and_booleans_as_answers_and_labels_are_text(tmp_path: Path) -> None:
    task = TextGeneration(TextGeneration.Options(prompt="{question}"))
    answers = [3, True, 0.5, "yes", "no"] * 4
    path = put(tmp_path / "a.jsonl", lines([{"question": n, "answer": answer} for n, answer in enumerate(answers)]))
    found, skipped, _ = load(path, task)
    assert ([row["answer"] for row in found], skipped) == ([[str(answer)] for answer in answers], [])
    assert found[1]["question"] == "1"
    path = put(tmp_path / "a.jsonl", lines([{"text": f"t {n}", "label": n % 2 == 0} for n in range(20)]))
    assert load(path, TextClassification())[2].labels == ["False", "True"]


ODD: dict[str, tuple[Any, str]] = {
    "a number": (5, "text holds int, and most other rows hold string"),
    "a list": (["a"], "text holds list, and most other rows hold string"),
    "an object": ({"a": 1}, "text holds dict, and most other rows hold string"),
    "true": (True, "text holds bool"),
    "a huge number": (2**70, "text holds what cannot be stored: 1180591620717411303424"),
    "half a surrogate pair": ("a\ud800", "text holds half of a surrogate pair"),
    "nothing": (None, "text is empty"),
    "no number": (float("nan"), "text is empty"),
    "NUL": ("a\0", "text holds NUL"),
}


ODDEST = st.sampled_from(["", " ", "a\ud800", 2**90])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | ODDEST
KEYS = st.sampled_from(["text", "a"])
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner))
TASKS = [
    TextClassification(),
    TextClassification(TextClassification.Options(multi_label=True)),
    TextClassification(TextClassification.Options(regression=True)),
    TextGeneration(),
    TextGeneration(TextGeneration.Options(prompt="{context} {question}")),
    QuestionAnswering(QuestionAnswering.Options(version="2.0")),
    FillMask(),
    ImageClassification(),
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), task=st.sampled_from(TASKS))
def test_whatever_cells_hold_only_data_errors_come_out(data: Any, task: Any, tmp_path: Path) -> None:
    """Rows of any JSON, some of them correct. Each is read or skipped, or the data are refused."""

    columns = tuple(task.data.kinds)
    right = {**dict.fromkeys(columns, "Mara"), "label": "1", "answer_start": 0}
    odd = data.draw(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(columns, ANY)), min_size=1, max_size=6))
    rows = [{**right, **row} for row in odd] + [right] * data.draw(st.sampled_from([0, 9]))
    path = put(tmp_path / "a.jsonl", lines(rows))
    try:
        _, found, skipped = load_rows(section(path), task.data)
    except DataError:
        return
    assert len(found) + len(skipped) == len(rows)


@pytest.mark.parametrize("case", ODD)
def test_one_odd_cell_is_skipped_and_named(case: str, tmp_path: Path) -> None:
    value, words = ODD[case]
    rows = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(20)]
    rows.insert(3, {"text": value, "label": "x"})
    found, skipped, _ = load(put(tmp_path / "a.jsonl", lines(rows)), TextClassification())
    assert len(found) == 20
    assert len(skipped) == 1
    assert skipped[0].startswith(f"a.jsonl:4: {words}")


def test_answers_of_several_forms_and_one_that_is_none(tmp_path: Path) -> None:
    asked = [{"question": f"Who, {number}?", "context": "It was Mara."} for number in range(19)]
    squad = {"text": ["Mara"], "answer_start": [7]}
    rows = [{**row, "answer": squad} for row in asked[:18]]
    rows.append({**asked[18], "answer": {"text": "Mara", "answer_start": "seven"}})
    found, skipped, _ = load(put(tmp_path / "a.jsonl", lines(rows)), QuestionAnswering(), group="none")
    assert (len(found), len(skipped)) == (18, 1)
    assert skipped[0].startswith("a.jsonl:19: answer holds dict, and most other rows hold struct")
    for answer in (squad, "Mara", ["Mara", "Mara"]):
        rows = [{**row, "answer": answer} for row in asked[:18]] + [{**asked[18], "answer": [[1]]}]
        found = load(put(tmp_path / "a.jsonl", lines(rows)), QuestionAnswering(), group="none")[0]
        assert [one["answer"] for one in found] == [squad] * 18


def test_odd_questions_in_squads_form(tmp_path: Path) -> None:
    def question(number: int, text: Any) -> dict[str, Any]:
        return {"id": str(number), "question": text, "answers": [{"text": "Mara", "answer_start": 7}]}

    texts = [*(f"Who, {number}?" for number in range(18)), 5, "half \ud800"]
    paragraph = {"context": "It was Mara.", "qas": [question(number, text) for number, text in enumerate(texts)]}
    content = json.dumps({"data": [{"title": 3, "paragraphs": [paragraph]}]})
    put(tmp_path / "train.json.gz", gzip.compress(content.encode()))
    put(tmp_path / "notes.pdf", b"%PDF")
    found, skipped, splits = load(tmp_path, QuestionAnswering(), group="none")
    assert (len(found), splits.ignored) == (18, {".pdf files": 1})
    assert [why.partition(", ")[0] for why in skipped] == [
        "18: question holds int",
        "19: question holds half of a surrogate pair",
    ]


def test_odd_cells_among_printed_lists(tmp_path: Path) -> None:
    """NumPy prints no commas; a missing list is nan; a program may print tuples and sets."""
    cells = ["['a', 'b']", "['b']", "[]", "nan", "['a' 'b']", "{'a'}", "('a',)", '["a", "b"]', "b", "['b']"]
    path = labels_csv(tmp_path, [[f"t{n}", cell] for n, cell in enumerate(cells)])
    rows, _, _ = load(path, TextClassification(TextClassification.Options(multi_label=True)))
    both = ["a", "b"]
    assert [row["label"] for row in rows] == [both, ["b"], [], [], both, ["a"], ["a"], both, ["b"], ["b"]]


def test_a_cell_may_be_a_book(tmp_path: Path) -> None:
    book = "word " * 40_000
    rows = [["text", "label"], ["a", "x"], [book, "y"]]
    assert read(put(tmp_path / "a.csv", written(rows)))[0][1]["text"] == book
    assert read(put(tmp_path / "a.tsv", written(rows, delimiter="\t")))[0][1]["text"] == book


WRONG_JSON: dict[str, tuple[str, str, str]] = {
    "one object": ("a.json", '{\n"rows": []\n}', r"a\.json: one object, not rows: make it an array of objects"),
    "columns of cells": (
        "a.json",
        '{"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}',
        r"orient='records'",
    ),
    "rows under a key": (
        "a.json",
        '{"data": [{"text": "a"}, {"text": "b"}]}',
        r"one object, not rows: .*orient='records'",
    ),
    "columns, index, data": ("a.json", '{"columns": ["text"], "data": [["a"], ["b"]]}', r"one object, not rows"),
    "a broken array": ("a.json", '[\n{"text": "a"},\n{"text": \n]', r"a\.json:4: not valid JSON"),
    "an array of texts": ("a.jsonl", '["a", "b"]\n', r"a\.jsonl:1: a row is an object.*got list"),
    "a text among objects": ("a.json", '[{"text": "a"}, "b"]', r"a\.json:2: a row is an object.*got str"),
    "a chat": (
        "a.jsonl",
        '{"messages": [{"content": "a"}]}\n',
        r"no column 'text' .*conversations \(messages\), options\.chat=true",
    ),
}


@pytest.mark.parametrize("case", WRONG_JSON)
def test_wrong_json(case: str, tmp_path: Path) -> None:
    name, content, words = WRONG_JSON[case]
    with no_data(words):
        load(put(tmp_path / name, content), TextClassification())


def test_a_conversation_as_a_text_is_refused(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "What floats?"}, {"role": "assistant", "content": "A cork."}]
    path = put(tmp_path / "a.jsonl", lines([{"text": talk, "answer": talk}] * 9))
    for task in (TextGeneration(), TextGeneration(TextGeneration.Options(prompt="{text}"))):
        with no_data(
            r"none of 9 rows can be used; the first: a\.jsonl:1: .*options\.chat=true learns from conversations"
        ):
            load(path, task)


# ---- paths ----


def test_paths_of_windows_and_ids_without_a_suffix(tmp_path: Path) -> None:
    tiny.photos(tmp_path / "img", n=6, splits=(), size=8)
    names = [(f"img\\{label}\\{n:03d}.jpg", label) for n in range(6) for label in ("cat", "dog")]
    path = put(tmp_path / "a.csv", written([["image", "label"], *map(list, names)]))
    rows = read(path, ("image", "label"))[0]
    assert [row["image"]["path"] for row in rows] == [str(tmp_path / name.replace("\\", "/")) for name, _ in names]
    put(path, "image,label\nimg/cat/000,cat\n" + f"{'x' * 5000},cat\n")
    near = f"no such file: img/cat/000 ({tmp_path}/img/cat/000)"
    with pytest.raises(DataError) as error:
        read(path, ("image", "label"))
    assert near in str(error.value)
    put(tmp_path / "img" / "ids.csv", "image,label\n000,cat\n")
    with no_data(r"no such file: 000 \(.*\); there is cat/000\.jpg: write the path .* with its suffix"):
        read(tmp_path / "img" / "ids.csv", ("image", "label"))


def test_captions_that_look_like_nothing_are_text(tmp_path: Path) -> None:
    """In a csv, every cell is text. In a jsonl, a value that is no text is skipped and reported."""
    from pipelines.data.image.pixels import caption

    tiny.photos(tmp_path, ("a",), n=12, splits=(), size=8)
    words = ["null", "None", "nan", "NA", "true", "42", "1.0", "no", "a", "b", "c", "d"]
    values = ["null", "None", "nan", "NA", True, 42, 1.0, "no", "a", "b", "c", None]
    needs = DataSpec(("image", "text"), clean=lambda row: {**row, "text": caption(row)})
    files = [f"a/{n:03d}.jpg" for n in range(12)]
    put(tmp_path / "a.csv", written([["image", "text"], *map(list, zip(files, words, strict=True))]))
    _, rows, skipped = load_rows(section(tmp_path / "a.csv"), needs)
    assert (rows["text"][:], skipped) == (words, [])
    rows = [{"image": file, "text": value} for file, value in zip(files, values, strict=True)]
    put(tmp_path / "a.jsonl", lines(rows))
    _, rows, skipped = load_rows(section(tmp_path / "a.jsonl"), needs)
    assert rows["text"][:] == ["null", "None", "nan", "NA", "no", "a", "b", "c"]
    assert [id_ for id_, _ in skipped] == ["a.jsonl:5", "a.jsonl:6", "a.jsonl:7", "a.jsonl:12"]
    for (_, why), word in zip(skipped, ("bool", "int", "float", "empty"), strict=True):
        assert word in why


def test_logs_come_from_graft(caplog: Log, tmp_path: Path) -> None:
    read(put(tmp_path / "a.csv", "text;label\na;x\n"))
    assert [(record.name, record.levelno) for record in caplog.records] == [("graft", logging.WARNING)]


def test_a_key_twice_in_one_object(tmp_path: Path) -> None:
    lines_ = ['{"text": "a", "label": "x"}', '{"text": "b", "text": "c", "label": "y"}']
    for content, where in (("\n".join(lines_), ":2"), (f"[{', '.join(lines_)}]", "")):
        path = put(tmp_path / ("a.json" if where == "" else "a.jsonl"), content)
        with no_data(rf"{path.name}{where}: not valid JSON: the key 'text' stands twice"):
            load(path, TextClassification())


def test_labels_that_are_one_number(tmp_path: Path, caplog: Log) -> None:
    rows = "".join(f"t{n},{label}\n" for n in range(20) for label in ("1", "1.0", "0"))
    load(put(tmp_path / "a.csv", "text,label\n" + rows.replace("t", "some ")), TextClassification())
    assert "differ in case, blanks, accents' spelling or zeros only: '1', '1.0'" in caplog.text
