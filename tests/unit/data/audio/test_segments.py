"""Rows that are segments of recordings: Graft reads and counts only the segment.

Segments of one recording stay in one split. Wrong segments are reported.
"""

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile

from pipelines.config.recipe import DataSection
from pipelines.data.audio.reading import header, read_audio
from pipelines.data.audio.recordings import Recordings
from pipelines.data.leakage import contents
from pipelines.data.loading import load_rows, load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError
from tests.support import tiny_audio

RATE = 16000
TEXT = DataSpec(("audio", "text"), ("speaker",), group_column="speaker")
LABEL = DataSpec(("audio", "label"), group_column="speaker")
WORDS = ("low", "mid", "high")


def long(folder: Path, number: int, ending: str = "wav") -> tuple[str, list[dict[str, Any]]]:
    """A recording of three words, and one row per word with its start and end."""
    rows, parts, at = [], [], 0.0
    for place, word in enumerate(WORDS):
        sound = tiny_audio.spoken(word, 10 * number + place, RATE)
        rows.append(
            {
                "audio": f"{number}.{ending}",
                "text": word,
                "label": word,
                "start": round(at, 4),
                "end": round(at + len(sound) / RATE, 4),
            }
        )
        parts += [sound, np.zeros(RATE // 10, np.float32)]
        at += len(sound) / RATE + 0.1
    tiny_audio.write(folder / f"{number}.{ending}", np.concatenate(parts), RATE)
    return f"{number}.{ending}", rows


def table(folder: Path, rows: list[dict[str, Any]], kind: str = "jsonl", columns: str = "start") -> Path:
    if columns == "offset":
        times = [{"offset": row["start"], "duration": round(row["end"] - row["start"], 4)} for row in rows]
        plain = [{name: cell for name, cell in row.items() if name not in ("start", "end")} for row in rows]
        rows = [{**row, **time} for row, time in zip(plain, times, strict=True)]
    path = folder / f"all.{kind}"
    if kind in ("paths", "bytes", "hubfolder", "hubfolder of paths"):
        return parquet(folder, rows, kind)
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        path.write_text(
            ",".join(names) + "\n" + "".join(",".join(str(row.get(n, "")) for n in names) + "\n" for row in rows)
        )
    return path


def parquet(folder: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    """all.parquet with paths, with bytes, or in the form that the datasets library uploads to the hub."""
    import pyarrow
    import pyarrow.parquet
    from datasets import Audio, Features, Value

    held = kind in ("bytes", "hubfolder")
    if kind != "paths":
        bytes_of = {row["audio"]: (folder / row["audio"]).read_bytes() if held else None for row in rows}
        rows = [{**row, "audio": {"bytes": bytes_of[row["audio"]], "path": row["audio"]}} for row in rows]
    made = pyarrow.Table.from_pylist(rows)
    if kind.startswith("hubfolder"):
        texts = {name: Value("string" if isinstance(cell, str) else "float64") for name, cell in rows[0].items()}
        features = Features({**texts, "audio": Audio()})
        made = pyarrow.Table.from_pylist(rows, features.arrow_schema)
    pyarrow.parquet.write_table(made, folder / "all.parquet")
    return folder / "all.parquet"


def made(folder: Path, n: int = 10, ending: str = "wav") -> list[dict[str, Any]]:
    return [row for number in range(n) for row in long(folder, number, ending)[1]]


def load(path: Path, needs: DataSpec = TEXT, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(path), **section), needs)


def all_rows(splits: Splits) -> list[dict[str, Any]]:
    return [row for name in SPLITS for row in splits[name]]


KINDS = ("jsonl", "csv", "paths", "bytes", "hubfolder", "hubfolder of paths")


@pytest.mark.parametrize("columns", ["start", "offset"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_read_and_nothing_else(
    kind: str, columns: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = made(tmp_path)
    splits = load(table(tmp_path, rows, kind, columns))
    assert "several rows name one recording" not in caplog.text
    assert sum(len(splits[name]) for name in SPLITS) == 30
    for row in all_rows(splits):
        own = rows[int(row["id"].rpartition("/")[2].rpartition(":")[2]) - {"jsonl": 1, "csv": 2}.get(kind, 0)]
        assert (row["text"], row["start"], row["end"]) == (own["text"], own["start"], pytest.approx(own["end"]))
        want, _ = soundfile.read(tmp_path / own["audio"], dtype="float32")
        want = want[round(own["start"] * RATE) : round(own["end"] * RATE)]
        got = read_audio(row["audio"], RATE)
        assert got.shape == want.shape
        assert (got == want).all()
        assert header(row["audio"]).seconds == pytest.approx(own["end"] - own["start"], abs=1e-4)
    recordings = Recordings(splits.train, RATE, 10)
    assert max(recordings.seconds) < 0.4  # not the 1.2 seconds of a file: budgets and max_seconds count the segment
    assert not recordings.wrong
    if kind in ("bytes", "hubfolder"):
        return  # nothing shows which rows belong to one recording
    where = {name: set(splits[name]["file"]) for name in SPLITS}
    assert sum(map(len, where.values())) == len(set.union(*where.values())) == 10  # no recording is in two splits
    assert [len(splits[name]) for name in SPLITS] == [3 * len(where[name]) for name in SPLITS]


@pytest.mark.parametrize("columns", ["start", "offset"])
@pytest.mark.parametrize("kind", ["jsonl", "bytes", "hubfolder"])
def test_parts_are_equal_where_recording_and_times_are(kind: str, columns: str, tmp_path: Path) -> None:
    rows = made(tmp_path, 2)
    (tmp_path / "1.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    rows = [{**rows[0], "start": 0.1 * number, "end": 0.1 * number + 0.2} for number in range(3)]
    rows += [{**row, "audio": "1.wav"} for row in rows]  # the same segments of an equal file
    rows.append({**rows[0], "end": 0.3})
    _, found, _ = load_rows(DataSection(id=str(table(tmp_path, rows, kind, columns))), TEXT)
    digests = contents(found, TEXT.content)
    assert digests[:3] == digests[3:6]
    assert len(set(digests)) == 4


def test_classes_of_parts(tmp_path: Path) -> None:
    path = table(tmp_path, made(tmp_path))
    for section in ({}, {"group": "audio"}):
        splits = load(path, LABEL, **section)
        assert splits.labels == ["high", "low", "mid"]
        assert {name: len(set(splits[name]["file"])) for name in SPLITS} == {"train": 8, "validation": 1, "test": 1}
    other = load(table(tmp_path, [{**row, "end": row["end"] - 0.01} for row in made(tmp_path)]), LABEL)
    assert other.fingerprint != splits.fingerprint


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3"])
def test_parts_of_compressed_recordings(ending: str, tmp_path: Path) -> None:
    name, rows = long(tmp_path, 0, ending)
    recording = read_audio(str(tmp_path / name), RATE)
    for row in rows:
        part = read_audio({"path": str(tmp_path / name), "bytes": None, "start": row["start"], "end": row["end"]}, RATE)
        want = recording[round(row["start"] * RATE) : round(row["end"] * RATE)]
        assert len(part) == len(want)
        assert np.abs(part - want).max() < 0.02
        held = read_audio(
            {"path": None, "bytes": (tmp_path / name).read_bytes(), "start": row["start"], "end": row["end"]}, RATE
        )
        assert (held == part).all()


def test_a_long_recording_is_not_decoded_for_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_audio.write(tmp_path / "long.wav", np.tile(tiny_audio.spoken("low", 0), 1000), RATE)
    read: list[int] = []
    real = soundfile.SoundFile.read

    def counted(self: Any, frames: int = -1, *args: Any, **kwargs: Any) -> Any:
        read.append(frames)
        return real(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    part = read_audio({"path": str(tmp_path / "long.wav"), "bytes": None, "start": 100.0, "end": 101.5}, RATE)
    assert len(part) == 1.5 * RATE
    assert sum(read) == 1.5 * RATE
    to_the_end = {
        "path": str(tmp_path / "long.wav"),
        "bytes": None,
        "start": header(str(tmp_path / "long.wav")).seconds - 1,
        "end": None,
    }
    assert abs(len(read_audio(to_the_end, RATE)) - RATE) <= 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"start": -1, "end": 0.2}, "start is -1: a part begins at 0 seconds or later"),
    ({"start": 0.3, "end": 0.3}, "the part ends at 0.3 seconds and begins at 0.3"),
    ({"start": 0.5, "end": 0.2}, "the part ends at 0.2 seconds and begins at 0.5"),
    ({"start": "0:01", "end": 2}, "start is no number of seconds: '0:01'"),
    ({"start": 0.1, "end": "nan"}, "end is no number of seconds: 'nan'"),
    ({"start": 0.1, "end": "1e999"}, "end is no number of seconds: '1e999'"),
    ({"start": True, "end": 2}, "start is no number of seconds: 'True'"),
    ({"start": [1], "end": 2}, "start is no number of seconds: '[1]'"),
    ({"start": None, "end": 2}, "start is empty, and end is not"),
    ({"start": 0.1, "end": ""}, "end is empty, and start is not"),
]


def test_parts_that_are_none(tmp_path: Path) -> None:
    rows = made(tmp_path)
    bad = [{**rows[0], **part} for part, _ in WRONG]
    section = DataSection(id=str(table(tmp_path, [*rows, *bad])))
    _, found, skipped = load_rows(section, TEXT)
    assert len(found) == 30
    assert [why.partition(": ")[2] for _, why in skipped] == [why for _, why in WRONG]
    nemo = [
        {"audio": "0.wav", "text": "low", "offset": o, "duration": d}
        for o, d in ((0.1, 0), (0.1, -1), (-0.1, 1), ("", 0.3), (0.1, None))
    ]
    path = tmp_path / "nemo.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in nemo))
    _, found, skipped = load_rows(DataSection(id=str(path)), TEXT)
    assert [(row["start"], row["end"]) for row in found] == [(0.0, 0.3), (0.1, None)]
    whys = [why.partition(": ")[2] for _, why in skipped]
    assert whys[:2] == [f"duration is {duration}: a part is longer than 0 seconds" for duration in (0, -1)]
    assert whys[2:] == ["offset is -0.1: a part begins at 0 seconds or later"]


def test_parts_outside_of_their_recording(tmp_path: Path) -> None:
    """Only the file's header shows the error: these rows are skipped before training, with the reason."""
    rows = made(tmp_path)
    seconds = header(str(tmp_path / "0.wav")).seconds
    rows += [
        {**rows[0], "start": start, "end": end}
        for start, end in ((seconds + 1, seconds + 2), (0.2, seconds + 1), (0.1, 0.12))
    ]
    rows.append({**rows[0], "start": 0.2, "end": round(seconds + 0.04, 3)})  # the times of a list are rounded
    _, found, _ = load_rows(DataSection(id=str(table(tmp_path, rows))), TEXT)
    recordings = Recordings(found, RATE, 10)
    assert sorted(recordings.wrong) == [30, 31, 32]
    assert f"0.wav from 0.2 s to {seconds + 1:g} s: the recording is {seconds:.2f} seconds long" in recordings.wrong[31]
    assert "20 milliseconds are too short" in recordings.wrong[32]
    assert recordings.seconds[33] == pytest.approx(seconds - 0.2, abs=1e-3)
    with pytest.raises(DataError, match="this part is not in it"):
        recordings[30]


def test_columns_that_are_no_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A duration without an offset is the length of the file.

    Without either, rows that share a file are reported, and stay in one split.
    """
    rows = [{key: row[key] for key in ("audio", "text", "label")} for row in made(tmp_path)]
    for more in ({"duration": 0.1}, {"start": 1}, {}):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="graft"):
            splits = load(table(tmp_path, [{**row, **more} for row in rows]))
        assert (
            "several rows name one recording, and each gets it from beginning to end: "
            "give the columns offset and duration" in caplog.text
        )
        assert header(splits.train[0]["audio"]).seconds > 0.8
        assert sum(len(set(splits[name]["file"])) for name in SPLITS) == 10
    empty = load(table(tmp_path, [{**row, "start": None, "end": None} for row in rows]))
    assert header(empty.train[0]["audio"]).seconds > 0.8
    named = load(table(tmp_path, [{**row, "start": "a", "end": row["text"]} for row in rows]), columns={"text": "end"})
    assert set(named.train["text"]) <= set(WORDS)  # an input column of the task is no time


def test_predict_reads_the_part(tmp_path: Path) -> None:
    from pipelines.inference.predict import read_inputs

    class Loaded:
        recipe = None
        columns: ClassVar[dict[str, str]] = {}

        class task:
            data = DataSpec(("audio",), input_columns=("audio",))
            generation = None

            def infer(self, model: Any, *inputs: Any) -> None: ...

    rows = made(tmp_path, 1)
    inputs = read_inputs(Loaded, [str(table(tmp_path, rows))], tmp_path)  # type: ignore[arg-type]
    seconds = [header(entry.read()["audio"]).seconds for entry in inputs]
    assert seconds == pytest.approx([row["end"] - row["start"] for row in rows], abs=1e-4)


@pytest.mark.parametrize("kind", ["paths", "bytes", "hubfolder", "hubfolder of paths"])
def test_parts_that_are_none_in_a_parquet(kind: str, tmp_path: Path) -> None:
    rows = made(tmp_path, 2)
    bad = [{**rows[0], "start": start, "end": end} for start, end in ((-1.0, 0.2), (0.5, 0.2), (None, 0.2))]
    _, found, skipped = load_rows(DataSection(id=str(table(tmp_path, [*rows[:3], *bad, *rows[3:]], kind))), TEXT)
    assert list(found["text"]) == [row["text"] for row in rows]
    sizes = [round((row["end"] - row["start"]) * RATE) for row in rows]
    assert [read_audio(row["audio"], RATE).size for row in found] == sizes
    whys = [why.partition(": ")[2] for _, why in skipped]
    assert whys == [WRONG[0][1], WRONG[2][1], WRONG[8][1]]
    with pytest.raises(DataError, match=r"none of 3 rows .*can be used; the first: .*start is -1"):
        load_rows(DataSection(id=str(table(tmp_path, bad, kind))), TEXT)
