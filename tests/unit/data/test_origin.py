"""Where a row comes from: a file of its own, or a line of a table; never a file outside of the data."""

from pathlib import Path

from datasets import Dataset, Features, Value

from pipelines.data.origin import Origin, origins


def rows(ids: list[str], files: list[str] | None = None) -> Dataset:
    if files is None:
        return Dataset.from_dict({"id": ids})
    features = Features({"id": Value("string"), "image": {"path": Value("string"), "bytes": Value("binary")}})
    return Dataset.from_dict({"id": ids, "image": [{"path": file, "bytes": None} for file in files]}, features=features)


def test_a_row_of_a_table_has_a_line(tmp_path: Path) -> None:
    for name in ("reviews.csv", "part.parquet", "test.csv.gz"):
        (tmp_path / name).write_bytes(b"")
    ids = ["reviews.csv:57", "part.parquet:0", "test.csv.gz:3", "gone.csv:4", "../secret.csv:1"]
    (tmp_path.parent / "secret.csv").write_bytes(b"")
    assert origins(rows(ids), range(5), str(tmp_path)) == [
        Origin("reviews.csv, line 57", tmp_path / "reviews.csv"),
        Origin("part.parquet, row 0", tmp_path / "part.parquet"),
        Origin("test.csv.gz, line 3", tmp_path / "test.csv.gz"),
        Origin("gone.csv, line 4", None),
        Origin("../secret.csv, line 1", None),
    ]
    table = tmp_path / "reviews.csv"
    assert origins(rows(["reviews.csv:57", "5733be28"]), [0, 1], str(table)) == [
        Origin("reviews.csv, line 57", table),
        Origin("5733be28", table),  # a format of one file whose rows have ids of their own
    ]


def test_a_row_of_files_has_its_own(tmp_path: Path) -> None:
    photo = tmp_path / "cat" / "1.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"")
    found = origins(rows(["cat/1.jpg", "gone.jpg"], [str(photo), str(tmp_path / "gone.jpg")]), [0, 1], str(tmp_path))
    assert found == [Origin("cat/1.jpg", photo), Origin("gone.jpg", None)]


def test_a_hub_data_set_has_no_file_here() -> None:
    assert origins(rows(["test/3", "a\0b", "x" * 5000, ":", "a:b"]), [0, 1, 2, 3, 4], "owner/name")[0] == Origin(
        "test/3", None
    )
    assert origins(rows(["test/3"]), [0], "") == [Origin("test/3", None)]
