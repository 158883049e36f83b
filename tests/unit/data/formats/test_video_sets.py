"""Kinetics, UCF101, HMDB51 and Something-Something in their own layouts: their splits, groups, and what is missing."""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config.recipe import DataSection
from pipelines.data.formats import imagefolder
from pipelines.data.loading import format_module, load_rows
from pipelines.data.schema import SPLITS, DataSpec, Splits
from pipelines.errors import DataError
from tests.support.tiny_audio_sets import load, named, sizes, text
from tests.support.tiny_imagenet import picture
from tests.support.tiny_video_sets import (
    CLASSES,
    KINETICS,
    LABEL,
    files,
    hmdb51,
    kinetics,
    something,
    ucf101,
    ucf_names,
)


def parted(splits: Splits) -> bool:
    """Whether no group is in two splits, and groups hold several rows."""
    groups = named(splits, "group")
    rows = sum(sizes(splits))
    return sum(map(len, groups.values())) == len(set.union(*groups.values())) < rows


def test_every_layout_is_found_with_and_without_a_task(tmp_path: Path) -> None:
    layouts = {
        "kinetics": [kinetics(tmp_path / "k"), kinetics(tmp_path / "k2", "annotations")],
        "ucf101": [ucf101(tmp_path / "u"), tmp_path / "u" / "UCF-101", files(tmp_path / "plain", ucf_names())],
        "hmdb51": [hmdb51(tmp_path / "h"), tmp_path / "h" / "hmdb51_org"],
        "something_something": [something(tmp_path / "s"), something(tmp_path / "t" / "labels", "../v").parent],
    }
    for name, paths in layouts.items():
        for path in paths:
            for columns in ((), ("video", "label")):
                module = format_module(DataSection(id=str(path)), columns)
                assert module.__name__.endswith(f".{name}"), (path, columns)
            assert {"video": "video", "label": "label"}.items() <= module.columns(path).items()
            # a task that does not take videos never gets a format of videos
            for columns in (("audio", "label"), ("image", "label"), ("text", "label")):
                other = ""
                with contextlib.suppress(DataError):
                    other = format_module(DataSection(id=str(path)), columns).__name__
                assert not other.endswith(f".{name}")


# ---- kinetics ----


def test_kinetics_reads_clips_wherever_they_are(tmp_path: Path) -> None:
    for lists in ("", "annotations"):
        splits = load(kinetics(tmp_path / f"k{lists}", lists), LABEL)
        assert (sizes(splits), splits.group) == ([11, 4, 1], "group")
        assert splits.labels == ["riding a bike", "tai chi (slow)"]
        assert splits.source == {"train": "train", "validation": "validation", "test": "cut from train"}
        assert splits.ignored == {"rows of train.csv without a video": 1, "rows of val.csv without a video": 1}
        row = splits.validation[3]
        assert (row["id"], row["group"], row["label"]) == ("val-3_000003_000013", "val-3", "tai chi (slow)")
        assert row["video"]["path"].endswith("val/val-3_000003_000013.mp4")
        assert "start" not in row


def test_validation_of_kinetics_has_the_name_that_is_asked_for(tmp_path: Path) -> None:
    for folder, name in (("a", "validate"), ("b", "val")):
        root = kinetics(tmp_path / folder)
        path = root / "val.csv"
        path.write_text(path.read_text().replace(",validate,", f",{name},"))
        for asked in ("validation", "val"):
            splits = load(root, LABEL, test=asked)
            assert (splits.source["test"], len(splits.test)) == (asked, 4)


def test_kinetics_takes_parts_of_complete_videos(tmp_path: Path) -> None:
    root = kinetics(tmp_path)
    files(root, ["train-1.mp4", "extra.mp4"])  # train-1 has a clip already
    with (root / "train.csv").open("a") as file:
        for label, start, end in (
            ("tai chi (slow)", 0, 10),
            ("riding a bike", 10, 10.5),
            ("riding a bike", 10.5, 20.5),
        ):
            file.write(f"{label},full,{start},{end},train,0\n")
    files(root, ["full.webm"])
    splits = load(root, LABEL)
    parts = [row for name in SPLITS for row in splits[name] if row["start"] is not None]
    assert [(row["id"], row["start"], row["end"], row["group"]) for row in parts] == [
        ("full_000000_000010", 0, 10, "full"),
        ("full_10_10.5", 10, 10.5, "full"),
        ("full_10.5_20.5", 10.5, 20.5, "full"),
    ]
    assert parts[1]["video"] == {"path": str(root / "full.webm"), "bytes": None, "start": 10, "end": 10.5}
    assert splits.validation[0]["video"]["start"] is None
    assert len({splits[name].features["video"]["end"].dtype for name in SPLITS}) == 1
    assert parted(splits)
    assert splits.ignored["videos that no row names"] == 1
    name, rows, _ = load_rows(DataSection(id=str(root)), LABEL)
    assert (name, len(rows)) == ("all", 19)


def test_kinetics_takes_replaced_files_first(tmp_path: Path) -> None:
    root = files(kinetics(tmp_path), ["replacement/replacement_for_corrupted_k400/train-2_000002_000012.mp4"])
    rows = {row["id"]: row["video"]["path"] for name in SPLITS for row in load(root, LABEL)[name]}
    assert rows["train-2_000002_000012"].endswith("replacement_for_corrupted_k400/train-2_000002_000012.mp4")
    assert rows["train-4_000004_000014"].endswith("riding_a_bike/train-4_000004_000014.mp4")


def test_a_test_list_without_labels_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = files(kinetics(tmp_path), ["test/t_000001_000011.mp4"])
    text(root / "test.csv", "youtube_id,time_start,time_end,split\nt,1,11,test\n")
    splits = load(root, LABEL)
    assert splits.ignored["rows of test without a label"] == 1
    assert splits.source["test"] == "cut from train"
    assert "the list of test has no labels" in caplog.text
    with pytest.raises(DataError, match="the table of test has no labels to score by"):
        load_rows(DataSection(id=str(root)), LABEL, "test")
    name, rows, _ = load_rows(DataSection(id=str(root)), DataSpec(("video",)))
    assert (name, rows["id"][:]) == ("test", ["t_000001_000011"])


# ---- UCF101 ----


@pytest.mark.parametrize("inside", [True, False])
def test_ucf101_keeps_its_splits_and_its_groups(inside: bool, tmp_path: Path) -> None:
    root = ucf101(tmp_path) if inside else ucf101(tmp_path, "videos", "TrainTestlist") / "videos"
    splits = load(root, LABEL)
    assert splits.labels == list(CLASSES)
    assert (sizes(splits)[2], sum(sizes(splits))) == (12, 48)
    assert {row["group"][-3:] for row in splits.test} == {"g01", "g02"}
    assert splits.train[0]["group"].startswith(splits.train[0]["label"] + "_g")
    assert parted(splits)
    assert splits.source["validation"] == "cut from train"
    second = load(root, LABEL, config="split2")
    assert {row["group"][-3:] for row in second.test} == {"g03", "g04"}
    assert second.fingerprint["test"] != splits.fingerprint["test"]


def test_ucf101_without_lists_keeps_groups(tmp_path: Path) -> None:
    plain = load(files(tmp_path / "plain", ucf_names(), real=True), LABEL)
    assert (sum(sizes(plain)), plain.group, parted(plain)) == (48, "group", True)
    assert load(tmp_path / "plain", LABEL, group="group").fingerprint == plain.fingerprint
    names = [  # the subset of the transformers notebook
        *(f"train/{name}" for name in ucf_names(groups=range(3, 9))),
        *(f"val/{name}" for name in ucf_names(groups=[2])),
        *(f"test/{name}" for name in ucf_names(groups=[1])),
    ]
    subset = load(files(tmp_path / "UCF101_subset", names, real=True), LABEL)
    assert (sizes(subset), subset.group) == ([36, 6, 6], "group")
    assert subset.source == {"train": "train", "validation": "val", "test": "test"}
    assert named(subset, "group")["test"] == {f"{label}_g01" for label in CLASSES}
    ucf101(tmp_path)  # the lists next to a copy that has splits of its own do not count
    assert load(tmp_path / "UCF101_subset", LABEL).fingerprint == subset.fingerprint


def test_ucf101_with_some_classes_and_odd_names(tmp_path: Path) -> None:
    root = ucf101(tmp_path)
    shutil.rmtree(root / "UCF-101" / "Typing")
    (root / "UCF-101" / "Diving" / "v_Diving_g08_c02.avi").rename(
        root / "UCF-101" / "Diving" / "v_DiVing_g08_c02.avi"  # HandstandPushups/v_HandStandPushups_g01_c01.avi
    )
    (root / "UCF-101" / "Diving" / "v_Diving_g07_c02.avi").unlink()
    files(root / "UCF-101", ["Diving/other.avi"])
    splits = load(root, LABEL)
    assert splits.labels == ["Archery", "Diving"]
    assert sum(sizes(splits)) == 31
    assert splits.ignored == {
        "rows of train of classes without a video here": 12,
        "rows of test of classes without a video here": 4,
        "videos that no row names": 1,
    }
    assert [why.partition(": ")[2] for _, why in splits.skipped["train"]] == [
        f"Diving/v_Diving_g07_c02.avi: no such video below {root}"
    ]


# ---- HMDB51 ----


@pytest.mark.parametrize("inside", [True, False])
def test_hmdb51_keeps_its_splits_and_its_videos(inside: bool, tmp_path: Path) -> None:
    root = hmdb51(tmp_path) if inside else hmdb51(tmp_path) / "hmdb51_org"
    splits = load(root, LABEL, holdout=0.3)
    assert splits.labels == ["brush_hair", "hit"]
    assert (sizes(splits)[2], sum(sizes(splits))) == (12, 30)
    assert splits.ignored == {"videos that this split does not use": 6}
    assert splits.test[0]["group"] == "Film_0#_brush_hair_f_cm_np1_ba_med"
    assert parted(splits)
    second = load(root, LABEL, config="split2")
    assert {row["group"].split("#")[0] for row in second.test} == {"Film_4", "Film_5"}


def test_hmdb51_with_a_video_in_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = hmdb51(tmp_path) / "testTrainMulti_7030_splits" / "hit_test_split1.txt"
    path.write_text(
        path.read_text().replace("Film_3#_hit_f_cm_np1_ba_goo_0.avi 1", "Film_3#_hit_f_cm_np1_ba_goo_0.avi 2")
    )
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path, LABEL)
    assert "1 videos have clips in both train and test of the lists, as Film_3#_hit" in caplog.text
    assert "Film_3#_hit_f_cm_np1_ba_goo (test)" in splits.test["group"][:]
    assert sum(sizes(splits)) == 30


def test_hmdb51_without_lists_keeps_videos(tmp_path: Path) -> None:
    names = [f"{c}/F{v}_{c}_u_nm_np2_fr_bad_{n}.avi" for c in ("hit", "kick") for v in range(5) for n in range(3)]
    splits = load(files(tmp_path, names, real=True), LABEL)
    assert (sum(sizes(splits)), splits.group, parted(splits)) == (30, "group", True)


# ---- Something-Something ----


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_something_something(prefix: str, tmp_path: Path) -> None:
    root = something(tmp_path, prefix=prefix)
    splits = load(root, LABEL)
    assert splits.labels == ["Holding something", "Putting something on something"]
    assert (sizes(splits), splits.source["test"]) == ([9, 4, 1], "cut from train")
    assert splits.ignored == {"rows of test without a label": 2}
    assert splits.validation[0]["video"]["path"].endswith("/11.webm")
    answers = "15;Holding something\n16;Putting something on something\n"
    text(root / f"{prefix}test-answers.csv", answers)
    assert load(root, LABEL).test["label"][:] == ["Holding something", "Putting something on something"]
    text(root / f"{prefix}test-answers.csv", answers.replace(";", ","))
    assert sizes(load(root, LABEL)) == [10, 4, 2]


def test_something_something_with_its_videos_next_to_the_lists(tmp_path: Path) -> None:
    something(tmp_path / "labels", "../20bn-something-something-v2")
    splits = load(tmp_path / "labels", LABEL)
    assert sizes(splits) == [9, 4, 1]
    entries = json.loads((tmp_path / "labels" / "train.json").read_text())
    assert {row["id"] for row in (*splits.train, *splits.test)} == {entry["id"] for entry in entries}


def test_lists_give_the_columns_that_the_recipe_names(tmp_path: Path) -> None:
    lines = [f"{'ab'[n % 2]},v{n // 6},{n},{n + 9},train,0\n" for n in range(24)]
    text(tmp_path / "train.csv", KINETICS + "".join(lines))
    files(tmp_path, [f"v{n // 6}_{n:06d}_{n + 9:06d}.mp4" for n in range(24)])
    assert load(tmp_path, LABEL, columns={"label": "group"}, group="none").labels == ["v0", "v1", "v2", "v3"]
    with pytest.raises(DataError, match=r"no column 'is_cc' \(it has: video, label, group\)"):
        load(tmp_path, LABEL, columns={"label": "is_cc"})


@pytest.mark.parametrize("layout", [ucf101, hmdb51])
def test_converted_videos_are_found_by_the_original_lists(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    root = layout(tmp_path)
    before = sizes(load(root, LABEL))
    for number, video in enumerate(list(root.rglob("*.avi"))):
        if number:
            video.rename(video.with_suffix(".mp4"))
        else:  # the listed file comes first
            shutil.copy(video, video.with_suffix(".3gp"))
    splits = load(root, LABEL)
    assert sizes(splits) == before
    assert not any(splits.skipped.values())
    assert "videos that no row names" not in splits.ignored
    endings = [Path(row["video"]["path"]).suffix for name in SPLITS for row in splits[name]]
    assert {ending: endings.count(ending) for ending in set(endings)} in (
        {".avi": 1, ".mp4": sum(before) - 1},
        {".mp4": sum(before)},  # the split does not use it
    )


def test_one_such_video_among_photos_changes_nothing(tmp_path: Path) -> None:
    for number in range(3):
        for label in ("cat", "dog"):
            picture(tmp_path / label / f"{number}.jpg", number)
    files(tmp_path, ["cat/v_Diving_g01_c01.avi"])
    for columns in ((), ("image", "label")):
        assert format_module(DataSection(id=str(tmp_path)), columns) is imagefolder


def test_lists_of_other_videos_say_the_first_reason(tmp_path: Path) -> None:
    root = ucf101(tmp_path)
    for video in root.rglob("*.avi"):
        video.rename(video.with_name(video.name.replace("_c0", "_c7")))
    with pytest.raises(DataError, match=r"no row of the lists can be used; 48 cannot be used; the first: trainlist01"):
        load(root, LABEL)


def test_features_of_class_folders_are_refused_with_advice(tmp_path: Path) -> None:
    files(tmp_path, ["a/1.mp4", "b/2.mp4"])
    needs = DataSpec({"features": "features", "label": "label"})
    with pytest.raises(DataError, match=r": videos, and options.input=features .* set options.input=frames"):
        load(tmp_path, needs)
