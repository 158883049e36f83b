"""YouTube-8M's shards as rows: layouts, splits, names of classes."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.formats import imagefolder, youtube8m
from pipelines.data.loading import format_module, load_rows, load_splits
from pipelines.data.schema import Splits
from pipelines.data.video import tfrecord
from pipelines.diagnostics.guess import choose
from pipelines.errors import DataError, RecipeError
from tests.support import tiny_tfrecords as tiny
from tests.support.tiny_imagenet import picture
from tests.unit.data.video.test_feature_sets import NEEDS

SHARED = Path(__file__).parents[5] / "shared" / "data"  # real extracts, if there are any


def load(folder: Path, **keys: Any) -> Splits:
    return load_splits(DataSection(id=str(folder), **keys), NEEDS)


def sizes(splits: Splits) -> dict[str, tuple[int, str]]:
    return {name: (len(splits[name]), splits.source[name]) for name in ("train", "validation", "test")}


def test_splits_are_in_the_names_of_the_shards(tmp_path: Path) -> None:
    folder = tiny.videos(tmp_path / "video", {"train0000": 30, "trainXy": 20, "validate0000": 9, "validateaB": 6})
    unlabelled = [tiny.video(f"t{number}", [], [0.5] * 1024, [0.5] * 128) for number in range(4)]
    tiny.shard(folder / "testzZ.tfrecord", unlabelled)
    splits = load(tmp_path)
    assert sizes(splits) == {"train": (45, "train"), "validation": (15, "validation"), "test": (5, "cut from train")}
    assert splits.ignored == {"shards of test, which have no labels": 1}
    assert splits.labels == [str(number) for number in range(3862)]
    row = splits.validation[0]
    assert set(row) == {"id", "features", "digest", "label", "frames"}
    assert row["features"]["path"] == str(folder / "validate0000.tfrecord")
    assert row["features"]["offset"] == 12
    assert row["label"] == [str(label) for label in tiny.labels_of(50)]
    assert row["frames"] == 1
    with pytest.raises(DataError, match="the table of test has no labels to score by"):
        load_rows(DataSection(id=str(tmp_path)), NEEDS, "test")


def test_folders_and_single_files(tmp_path: Path) -> None:
    tiny.videos(tmp_path / "a/frame/train", {"0000": 20}, True)
    tiny.videos(tmp_path / "a/frame/validate", {"0000": 20}, True)
    with pytest.raises(DataError, match=r"the video v000 and 19 more in train and in validation too"):
        load(tmp_path / "a")
    assert len(load(tmp_path / "a", group="none").validation) == 20
    only = tiny.videos(tmp_path / "b", {"validate0000": 20, "validate0001": 20})
    assert sizes(load(only))["train"] == (32, "validation")
    assert len(load(only / "validate0001.tfrecord").train) == 16
    tested = tiny.videos(tmp_path / "c", {"train0000": 40, "test0000": 8})  # one's own shards may have labels
    assert sizes(load(tested))["test"] == (8, "test")


def test_features_of_videos_and_of_frames_are_chosen_between(tmp_path: Path) -> None:
    tiny.videos(tmp_path / "video", {"train0000": 20})
    tiny.videos(tmp_path / "frame", {"train0000": 25}, True)
    with pytest.raises(DataError, match=r"choose with data.config=video or data.config=frame"):
        load(tmp_path)
    for level, count in (("video", 16), ("frame", 21)):
        splits = load(tmp_path, config=level)
        assert len(splits.train) == count
        assert list(splits.ignored.values()) == [1]
    with pytest.raises(DataError, match=r"holds no features of frames, only of videos"):
        load(tmp_path / "video", config="frame")
    with pytest.raises(DataError, match=r"data.config: 'both' is neither video nor frame"):
        load(tmp_path, config="both")


def test_the_vocabulary_names_the_classes(tmp_path: Path) -> None:
    tiny.videos(tmp_path / "video", {"train0000": 20})
    names = ["Game", "Vehicle", "Game", "Concert", "Dance", "Food"]
    lines = [f"{number},1,/m/0{number},{name},url" for number, name in enumerate(names)]
    head = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl\n"
    (tmp_path / "vocabulary.csv").write_text(head + "\n".join(lines))
    for data in (tmp_path, tmp_path / "video", tmp_path / "video/train0000.tfrecord"):
        splits = load(data)
        assert splits.labels == ["Game (0)", "Vehicle", "Game (2)", "Concert", "Dance", "Food"]
        assert {label for row in splits.train["label"] for label in row} <= set(splits.labels)


def test_it_is_found_by_its_files(tmp_path: Path) -> None:
    tiny.videos(tmp_path / "video", {"train0000": 4})
    (tmp_path / "README.md").write_text("about")
    for data in (tmp_path, tmp_path / "video", tmp_path / "video/train0000.tfrecord"):
        assert format_module(DataSection(id=str(data))) is youtube8m
        assert format_module(DataSection(id=str(data)), ("video", "label")) is youtube8m
    with pytest.raises(RecipeError, match=r"name a recipe, as in graft check youtube8m_logistic --data"):
        choose("check", str(tmp_path))
    with pytest.raises(DataError, match=r"no video, which this task needs: set options.input=features"):
        youtube8m.read(DataSection(id=str(tmp_path)), ("video", "label"))


def test_a_large_index_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data import stored

    monkeypatch.setattr(stored, "SMALL_ROWS", 10)
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    folder = tiny.videos(tmp_path / "data", {"train0000": 30})
    shard = folder / "train0000.tfrecord"
    data = shard.read_bytes()
    changed = data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]  # the last record
    shard.write_bytes(changed)
    monkeypatch.setattr("pipelines.utils.cache.SETTLED", -1)
    first = load(folder)
    monkeypatch.setattr(youtube8m.tfrecord, "records", None)  # a second reading would fail
    monkeypatch.setattr(youtube8m, "_level", lambda shard: "video")
    again = load(folder)
    assert again.train[:] == first.train[:]
    assert again.fingerprint == first.fingerprint
    assert len(again.skipped["train"]) == 1 == len(first.skipped["train"])
    monkeypatch.undo()
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    shard.write_bytes(data)
    os.utime(shard, (1e9, 1e9))
    assert not load(folder).skipped["train"]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "youtube8m").is_dir(), reason="no real shards here")
def test_real_shards() -> None:
    splits = load(SHARED / "youtube8m")
    assert sum(len(splits[name]) for name in ("train", "validation", "test")) == 1202
    labels = [len(label) for name in ("train", "validation", "test") for label in splits[name]["label"]]
    assert round(sum(labels) / 1202, 2) == 3.07
    assert not splits.ignored
    assert not any(splits.skipped.values())


def test_a_stray_shard_does_not_change_what_a_folder_holds(tmp_path: Path) -> None:
    tiny.videos(tmp_path, {"train0000": 2})
    for number in range(2):
        for label in ("cat", "dog"):
            picture(tmp_path / label / f"{number}.jpg", number)
    assert not youtube8m.detect(tmp_path)
    for columns in ((), ("image", "label")):
        assert format_module(DataSection(id=str(tmp_path)), columns) is imagefolder
    assert format_module(DataSection(id=str(tmp_path)), ("features", "label")) is youtube8m
    assert choose("train", str(tmp_path)).recipe == "photos_efficientnet_b0"
    (tmp_path / "other").mkdir()
    tiny.shard(tmp_path / "other/a.tfrecord", [b"\x0a\x00"])  # an Example without features of videos
    assert not youtube8m.detect(tmp_path / "other")
    assert not youtube8m.detect(tmp_path / "other/a.tfrecord")


def test_an_empty_shard_is_an_error(tmp_path: Path) -> None:
    folder = tiny.videos(tmp_path, {"train0000": 20})
    (folder / "train0001.tfrecord").touch()
    with pytest.raises(DataError, match=r"train0001.tfrecord: empty: fetch the file again, or take it out"):
        load(tmp_path)
    with pytest.raises(DataError, match="empty"):
        list(tfrecord.places(folder / "train0001.tfrecord"))


def test_a_name_may_hold_any_separator_of_lines(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.csv").write_text('Index,Name\n0,"a\u2028b"\n1,c\x85d\n2,"two\nlines"\n', encoding="utf-8")
    videos = [tiny.video(f"v{n}", [n % 3], [n / 20] * 1024, [0.5] * 128) for n in range(20)]
    tiny.shard(tmp_path / "train0000.tfrecord", videos)
    assert load(tmp_path).labels == ["a\u2028b", "c\x85d", "two\nlines"]
