"""Videos in class folders, with lists, in tables and from the hub; and what an mp4 or a gif is for which task."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.formats import videofolder
from pipelines.data.loading import format_module, load_rows
from pipelines.data.schema import SPLITS
from pipelines.errors import DataError
from tests.support.tiny_audio_sets import LABEL as SOUND
from tests.support.tiny_audio_sets import load, named, sizes, text
from tests.support.tiny_video_sets import LABEL, LABELS, files, moving

WEBM_SOUND = b"\x1a\x45\xdf\xa3" + b"A_OPUS" + bytes(60)
WEBM_VIDEO = b"\x1a\x45\xdf\xa3" + b"V_VP9A_OPUS" + bytes(60)


def names(suffix: str = "mp4", count: int = 10) -> list[str]:
    return [f"{label}/{n}.{suffix}" for label in ("jump", "run") for n in range(count)]


def found(path: Path, columns: tuple[str, ...] = ()) -> str:
    return str(format_module(DataSection(id=str(path)), columns).__name__.rpartition(".")[2])


# ---- what a folder holds ----


def test_the_task_decides_what_a_file_is(tmp_path: Path) -> None:
    gifs, films, mixed = (files(tmp_path / name, names(name)) for name in ("gif", "mp4", "avi"))
    files(mixed, names("jpg", 3))
    assert [found(gifs, columns) for columns in ((), ("image", "label"), ("video", "label"))] == [
        "imagefolder",
        "imagefolder",
        "videofolder",
    ]
    assert [found(films, columns) for columns in ((), ("audio", "label"), ("video", "label"))] == [
        "videofolder",
        "audiofolder",
        "videofolder",
    ]
    assert [found(mixed, columns) for columns in ((), ("image", "label"), ("video", "label"))] == [
        "videofolder",
        "imagefolder",
        "videofolder",
    ]
    photos = files(files(tmp_path / "photos", names("jpg")), names("avi", 2))
    assert (found(photos), found(photos, ("video", "label"))) == ("imagefolder", "videofolder")


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        ("webm", WEBM_SOUND, "audiofolder"),
        ("webm", WEBM_VIDEO, "videofolder"),
        ("webm", b"?" * 50, "audiofolder"),
        ("mp4", b"?" * 50, "videofolder"),
        ("mp4", b"....ftyp....smhd", "audiofolder"),
        ("mp4", b"....ftyp....smhd....vmhd", "videofolder"),
        ("mov", b"?" * 50, "videofolder"),
    ],
)
def test_without_a_task_the_files_decide(suffix: str, content: bytes, expected: str, tmp_path: Path) -> None:
    for name in names(suffix, 2):
        files(tmp_path, [name])
        (tmp_path / name).write_bytes(content)
    assert found(tmp_path) == expected
    if expected == "videofolder":
        assert videofolder.columns(tmp_path) == {"video": "video", "label": "label"}
        assert videofolder.classes(tmp_path) == ["jump", "run"]


# ---- class folders ----


def test_class_folders(tmp_path: Path) -> None:
    root = files(tmp_path / "plain", [*names(), *names("webm", 2)], real=True)
    files(root, ["loose.mov", "jump/cover.jpg", "jump/0.jpg", "run/0.srt", "run/old.rm", "run/song.wav"])
    (root / "run" / "empty.mkv").touch()
    splits = load(root, LABEL)
    assert (splits.labels, sum(sizes(splits))) == (["jump", "run"], 24)
    assert {id_: why.rpartition(": ")[2] for id_, why in splits.skipped["train"]} == {
        "jump/cover.jpg": "no video but an image",
        "loose.mov": "in no class folder",
        "run/empty.mkv": "empty file",
        "run/old.rm": "convert them, as with `ffmpeg -i x.rm x.mp4`",
        "run/song.wav": "no video but a recording",
    }
    assert splits.ignored == {".jpg files": 1, ".srt files": 1}
    assert splits.train[0]["video"]["bytes"] is None
    parts = files(
        tmp_path / "parts", [f"{split}/{name}" for split in ("train", "val", "test") for name in names()], True
    )
    assert sizes(load(parts, LABEL)) == [20, 20, 20]


def test_a_class_needs_a_video_that_can_be_read(tmp_path: Path) -> None:
    files(files(tmp_path, names(), real=True), ["still/1.mp4", "still/2.mp4"])
    with pytest.raises(DataError, match=r"/still: no video of this class can be read \(1\.mp4, 2\.mp4\)"):
        load(tmp_path, LABEL)


# ---- lists and tables ----


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_list_of_files(name: str, tmp_path: Path) -> None:
    files(tmp_path, [f"clips/{n}.mp4" for n in range(13)])
    rows = [{"file_name": f"clips/{n}.mp4", "label": "ab"[n % 2], "group": f"film {n // 3}"} for n in range(12)]
    write(tmp_path / name, rows)
    splits = load(tmp_path, LABEL)
    assert (sum(sizes(splits)), splits.group) == (12, "group")
    assert splits.ignored == {"videos that no metadata lists": 1}
    assert sum(map(len, named(splits, "group").values())) == 4
    assert found(tmp_path) == "videofolder"
    assert videofolder.columns(tmp_path)["label"] == "label"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return text(path, "".join(json.dumps(row) + "\n" for row in rows))
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("pair", [("start", "end"), ("offset", "duration")])
def test_tables_with_parts_of_videos(kind: str, pair: tuple[str, str], tmp_path: Path) -> None:
    files(tmp_path, [f"{n}.mp4" for n in range(8)])
    second = 5 if pair[1] == "end" else 3
    rows = [{"video": f"{n}.mp4", pair[0]: 2.0, pair[1]: float(second), "label": "ab"[n % 2]} for n in range(8)] + [
        {"video": f"{n}.mp4", pair[0]: 6.0, pair[1]: float(second + 4 * (pair[1] == "end")), "label": "b"}
        for n in range(8)
    ]
    splits = load(write(tmp_path / f"t.{kind}", rows), LABEL)
    assert (sum(sizes(splits)), splits.group) == (16, "file")
    files_of = named(splits, "file")
    assert sum(map(len, files_of.values())) == 8  # both parts of a file are in one split
    row = splits.train[0]
    assert (row["start"], row["end"]) in ((2, 5), (6, 9))
    assert row["video"]["end"] == row["end"]
    assert len(splits.train[:]["video"][0]) == 4


def test_other_names_of_columns_and_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files(tmp_path, [f"{n}.webm" for n in range(8)])
    rows = [{"path": f"{n % 8}.webm", "label": "a|b" if n % 2 else "b"} for n in range(16)]
    splits = load(write(tmp_path / "t.csv", rows), LABELS, columns={"video": "path"})
    assert (splits.labels, splits.group) == (["a", "b"], "file")
    assert "several rows name one video, and each gets it from beginning to end" in caplog.text
    assert load_rows(DataSection(id=str(tmp_path / "t.csv"), columns={"video": "path"}), LABELS)[0] == "all"


def test_videos_as_bytes_and_unread_ones(tmp_path: Path) -> None:
    rows = [{"video": {"bytes": moving(n), "path": None}, "label": "ab"[n % 2]} for n in range(8)]
    splits = load(write(tmp_path / "t.parquet", rows), LABEL)
    assert sum(sizes(splits)) == 8
    assert splits.train[0]["video"]["bytes"].startswith(b"GIF")
    files(tmp_path, [f"{n}.mp4" for n in range(8)] + ["a.rm"])
    rows = [{"video": f"{n}.mp4", "label": "ab"[n % 2]} for n in range(8)]
    skipped = load(write(tmp_path / "u.csv", [*rows, {"video": "a.rm", "label": "a"}]), LABEL).skipped["train"]
    assert skipped[0][1].endswith("rm videos cannot be read: convert them, as with `ffmpeg -i x.rm x.mp4`")


def test_recordings_in_mp4_are_read_as_before(tmp_path: Path) -> None:
    files(tmp_path, [f"{n}.mp4" for n in range(8)])
    rows = [{"audio": f"{n}.mp4", "start": 1, "end": 2, "label": "ab"[n % 2]} for n in range(8)]
    splits = load(write(tmp_path / "t.csv", rows), SOUND)
    assert splits.train[0]["audio"]["start"] == 1


# ---- the hub ----


def test_a_clone_of_a_hub_data_set(tmp_path: Path) -> None:
    import pyarrow.parquet
    from datasets import ClassLabel, Dataset, Features, Value, Video

    files(tmp_path, [f"clips/{n}.mp4" for n in range(8)])
    features = Features(
        {"clip": Video(decode=False), "y": ClassLabel(names=["a", "b"]), "start": Value("int64"), "end": Value("int64")}
    )
    columns = {
        "clip": [{"path": f"clips/{n}.mp4", "bytes": None} for n in range(7)]
        + [{"path": "/etc/passwd", "bytes": None}],
        "y": [n % 2 for n in range(8)],
        "start": [1] * 8,
        "end": [2, 3] * 4,
    }
    rows = Dataset.from_dict(columns, features=features)
    # `to_parquet` opens the files, and a data set on the hub names them by their paths in it
    pyarrow.parquet.write_table(rows.data.table, tmp_path / "train-00000-of-00001.parquet")
    assert found(tmp_path, ("video", "label")) == "hubfolder"
    assert format_module(DataSection(id=str(tmp_path))).columns(tmp_path)["video"] == "video"
    splits = load(tmp_path, LABEL)
    assert (splits.labels, sum(sizes(splits))) == (["a", "b"], 7)
    assert "it names the file '/etc/passwd', which is not in the data set" in splits.skipped["train"][0][1]
    rows = {row["video"]["path"]: row for name in SPLITS for row in splits[name]}
    row = rows[str(tmp_path / "clips" / "1.mp4")]
    assert row["video"] == {"path": str(tmp_path / "clips" / "1.mp4"), "bytes": None, "start": 1, "end": 3}
    assert (row["start"], row["end"], row["size"]) == (1, 3, len("clips/1.mp4"))


def test_a_clone_whose_rows_name_videos(tmp_path: Path) -> None:
    files(tmp_path, [f"clips/{n}.mp4" for n in range(8)])
    rows = [{"video": f"clips/{n}.mp4", "label": "ab"[n % 2]} for n in range(8)]
    write(tmp_path / "train-00000-of-00001.parquet", [*rows, {"video": "../x.mp4", "label": "a"}])
    splits = load(tmp_path, LABEL)
    assert found(tmp_path, ("video", "label")) == "hubfolder"
    assert sum(sizes(splits)) == 8
    assert splits.train[0]["video"]["path"].startswith(str(tmp_path / "clips"))
    assert len(splits.skipped["train"]) == 1
