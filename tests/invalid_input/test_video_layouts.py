"""Wrong lists of videos: an error names the file and the line, or the row is skipped or counted with its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.schema import Splits
from pipelines.errors import DataError
from tests.support.tiny_audio_sets import load, text
from tests.support.tiny_video_sets import KINETICS, LABEL, files, hmdb51, kinetics, something, ucf101, ucf_names

Make = Callable[[Path], Any]
UCF, HMDB = "ucfTrainTestlist", "testTrainMulti_7030_splits"


def more(path: Path, content: str) -> Path:
    path.write_text(path.read_text() + content)
    return path.parent


def replaced(path: Path, old: str, new: str) -> Path:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    return path.parent


def without(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path.parent


def entries(path: Path, change: Callable[[list[Any]], object]) -> Path:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    return path.parent


def rows(root: Path, *lines: str, header: str = "video,start,end,label\n") -> Path:
    """A table of 20 good rows and some others."""
    files(root, [f"{n}.mp4" for n in range(20)])
    good = [f"{n}.mp4,0,{n + 1},{'ab'[n % 2]}" for n in range(20)]
    return text(root / "t.csv", header + "\n".join([*good, *lines]) + "\n")


def bare(root: Path) -> Path:
    """Kinetics's lists without a video."""
    kinetics(root)
    without(root / "train")
    return without(root / "val")


WRONG: dict[str, tuple[Make, str]] = {  # data that are refused -> what the error says
    "UCF101, missing list": (
        lambda f: without(ucf101(f) / UCF / "testlist01.txt").parent,
        r"no testlist01\.txt, which lists the videos of test: download the lists again",
    ),
    "UCF101, missing classes": (lambda f: without(ucf101(f) / UCF / "classInd.txt").parent, r"no classInd\.txt"),
    "UCF101, wrong classes": (
        lambda f: more(ucf101(f) / UCF / "classInd.txt", "Running 4\n").parent,
        r"classInd\.txt:4: a line is a number and a class",
    ),
    "UCF101, a class twice": (
        lambda f: more(ucf101(f) / UCF / "classInd.txt", "4 Diving\n").parent,
        r"classInd\.txt:4: '4 Diving' names a class or a number a second time",
    ),
    "UCF101, a group in both splits": (
        lambda f: (
            replaced(
                ucf101(f) / UCF / "trainlist01.txt", "Diving/v_Diving_g03_c01.avi 2", "Diving/v_Diving_g01_c01.avi 2"
            ).parent
            and replaced(
                f / UCF / "testlist01.txt", "Diving/v_Diving_g01_c01.avi", "Diving/v_Diving_g03_c01.avi"
            ).parent
        ),
        r"group 'Diving_g01'.* in train and in test too.*data\.group=none",
    ),
    "UCF101, no video": (
        lambda f: without(ucf101(f) / "UCF-101") and files(f, ["Diving/v_Other_g01_c01.avi"]),
        r"no row of the lists can be used .*no such video below",
    ),
    "HMDB51, missing list": (
        lambda f: without(hmdb51(f) / HMDB / "hit_test_split1.txt").parent,
        r"no hit_test_split1\.txt, which lists the videos of split 1",
    ),
    "Kinetics, no video": (bare, r"none of 18 rows has a video: put files called .* as in train-0_000000_000010\.mp4"),
    "Kinetics, a video in two splits": (
        lambda f: more(
            files(kinetics(f), ["val-1_000050_000060.mp4"]) / "train.csv", "riding a bike,val-1,50,60,train,0\n"
        ),
        r"group 'val-1' in (train|validation) and in (validation|test) too",
    ),
    "Kinetics, two cells of csv in one": (
        lambda f: more(kinetics(f) / "train.csv", '"riding a bike,x,0,10\n'),
        r"train\.csv:\d+: not valid csv",
    ),
    "Something-Something, no JSON": (
        lambda f: replaced(something(f) / "train.json", "[", "[[,"),
        r"train\.json:1: not valid JSON",
    ),
    "Something-Something, no videos": (
        lambda f: without(something(f) / "20bn-something-something-v2"),
        r"no videos: put the folder 20bn-something-something-v2",
    ),
    "Something-Something, two classes with a number": (
        lambda f: replaced(something(f) / "labels.json", '"1"', '"0"'),
        r"labels\.json: two classes have the number 0",
    ),
    "Something-Something, a class without a number": (
        lambda f: replaced(something(f) / "labels.json", '"1"', '"one"'),
        r"labels\.json: the class 'Putting something on something' has no number but 'one'",
    ),
    "Something-Something, answers without a class": (
        lambda f: text(something(f) / "test-answers.csv", "15;Holding something\n16\n").parent,
        r"test-answers\.csv:2: a line is an id and a class",
    ),
    "videos without classes": (
        lambda f: files(f, [f"{n}.mp4" for n in range(5)]),
        r"this task learns labels, so give videos in class folders, or a table of them",
    ),
    "splits of which one lacks class folders": (
        lambda f: files(f, ["train/1.mp4", "train/2.mp4", "test/3.mp4"]),
        r"hold videos without class folders",
    ),
    "an empty class folder": (
        lambda f: ((files(f, ["a/1.mp4", "b/1.mp4"], real=True) / "c").mkdir(), f)[1],
        r"/c: an empty class folder: add videos, or remove it",
    ),
    "a table of addresses": (
        lambda f: text(f / "t.csv", "video,label\n" + "https://example.org/a.mp4,a\n" * 5),
        r"is an address, 'https://example\.org/a\.mp4', which is not fetched",
    ),
    "a table without a column of videos": (
        lambda f: text(f / "t.csv", "clip,label\n" + "a.mp4,a\n" * 5),
        r"no column 'video'.*data\.columns\.video=NAME",
    ),
    "images in class folders": (
        lambda f: files(f, ["a/1.jpg", "b/1.jpg"]),
        "class folders of images have labels and no video, which this task needs",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_are_refused(name: str, tmp_path: Path) -> None:
    make, words = WRONG[name]
    with pytest.raises(DataError, match=words) as error:
        load(make(tmp_path / "data"), LABEL)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("4", "data.config: '4' is no split: give split1, split2 or split3"),
        ("split3", "no trainlist03.txt, which lists the videos of train"),
    ],
)
def test_a_split_that_is_not_there(config: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        load(ucf101(tmp_path / "ucf"), LABEL, config=config)
    files(tmp_path / "plain", ucf_names(), real=True)
    with pytest.raises(DataError, match=r"has no folder ucfTrainTestlist .* or leave data.config out"):
        load(tmp_path / "plain", LABEL, config="split2")


SKIPPED: dict[str, tuple[Make, str, str]] = {  # one row that is left out -> its split, and why
    "UCF101, an unknown class": (
        lambda f: more(ucf101(f) / UCF / "trainlist01.txt", "Juggling/v_Juggling_g01_c01.avi 4\n").parent,
        "train",
        "trainlist01.txt:37: 'Juggling' is no class of classInd.txt",
    ),
    "UCF101, another number": (
        lambda f: replaced(ucf101(f) / UCF / "trainlist01.txt", "g03_c01.avi 1", "g03_c01.avi 3").parent,
        "train",
        "trainlist01.txt:1: Archery has the number 1 in classInd.txt, and 3 here",
    ),
    "UCF101, a row twice": (
        lambda f: more(ucf101(f) / UCF / "trainlist01.txt", "Diving/v_Diving_g03_c01.avi 2\n").parent,
        "train",
        "trainlist01.txt:37: Diving/v_Diving_g03_c01.avi a second time (the first: trainlist01.txt:13)",
    ),
    "UCF101, a row in both lists": (
        lambda f: more(ucf101(f) / UCF / "testlist01.txt", "Diving/v_Diving_g03_c01.avi\n").parent,
        "test",
        "testlist01.txt:13: Diving/v_Diving_g03_c01.avi a second time (the first: trainlist01.txt:13)",
    ),
    "UCF101, no class": (
        lambda f: more(ucf101(f) / UCF / "testlist01.txt", "v_Diving_g03_c01.avi\n").parent,
        "test",
        "testlist01.txt:13: a line is Class/video.avi and the number of the class, got 'v_Diving_g03_c01.avi'",
    ),
    "UCF101, an empty file": (
        lambda f: (ucf101(f) / "UCF-101" / "Diving" / "v_Diving_g03_c01.avi").write_bytes(b"") or f,
        "train",
        "v_Diving_g03_c01.avi: empty file",
    ),
    "HMDB51, a wrong number": (
        lambda f: more(hmdb51(f) / HMDB / "hit_test_split1.txt", "Film_9#_hit_f_cm_np1_ba_goo_0.avi 3\n").parent,
        "train",
        "hit_test_split1.txt:19: a line is video.avi and 0, 1 or 2, got 'Film_9#_hit_f_cm_np1_ba_goo_0.avi 3'",
    ),
    "HMDB51, a missing video": (
        lambda f: more(hmdb51(f) / HMDB / "hit_test_split1.txt", "Film_9#_hit_f_cm_np1_ba_goo_0.avi 2\n").parent,
        "test",
        "hit_test_split1.txt:19: hit/Film_9#_hit_f_cm_np1_ba_goo_0.avi: no such video below",
    ),
    "HMDB51, a path": (
        lambda f: more(hmdb51(f) / HMDB / "hit_test_split1.txt", "../../secret.avi 1\n").parent,
        "train",
        "hit_test_split1.txt:19: a line is video.avi and 0, 1 or 2, got '../../secret.avi 1'",
    ),
    "Kinetics, no times": (
        lambda f: more(kinetics(f) / "train.csv", "riding a bike,x,soon,later,train,0\n"),
        "train",
        "train.csv:15: 'soon' to 'later' are no seconds",
    ),
    "Kinetics, endless": (
        lambda f: more(kinetics(f) / "train.csv", "riding a bike,x,0,inf,train,0\n"),
        "train",
        "train.csv:15: '0' to 'inf' are no seconds",
    ),
    "Kinetics, negative times": (
        lambda f: more(kinetics(f) / "train.csv", "riding a bike,x,-3,7,train,0\n"),
        "train",
        "train.csv:15: the part begins at -3 seconds: a video begins at 0",
    ),
    "Kinetics, reversed times": (
        lambda f: more(kinetics(f) / "train.csv", "riding a bike,x,20,10,train,0\n"),
        "train",
        "train.csv:15: the part ends at 10 seconds and begins at 20",
    ),
    "Kinetics, a row twice": (
        lambda f: more(kinetics(f) / "train.csv", "tai chi (slow),train-0,0,10,train,0\n"),
        "train",
        "train.csv:15: train-0_000000_000010 a second time (the first: train.csv:2)",
    ),
    "Kinetics, no label": (
        lambda f: more(files(kinetics(f), ["x_000001_000011.mp4"]) / "train.csv", ",x,1,11,train,0\n"),
        "train",
        "train.csv:15: no label",
    ),
    "Kinetics, a path": (
        lambda f: more(kinetics(f) / "train.csv", "tai chi (slow),../../x,0,10,train,0\n"),
        "train",
        "train.csv:15: '../../x' is no id of a video",
    ),
    "Kinetics, too few cells": (
        lambda f: more(kinetics(f) / "train.csv", "tai chi (slow),x\n"),
        "train",
        "train.csv:15: 2 cells for 6 columns",
    ),
    "Something-Something, an unknown class": (
        lambda f: entries(something(f) / "train.json", lambda e: e[2].update(template="Eating [something]")),
        "train",
        "train.json:3: 'Eating something' is no class of labels.json",
    ),
    "Something-Something, no template": (
        lambda f: entries(something(f) / "train.json", lambda e: e[2].pop("template")),
        "train",
        "train.json:3: an entry has no template, which is its class",
    ),
    "Something-Something, an id twice": (
        lambda f: entries(something(f) / "validation.json", lambda e: e[0].update(id="3")),
        "validation",
        "validation.json:1: the id '3' a second time (the first: train.json:3)",
    ),
    "Something-Something, no object": (
        lambda f: entries(something(f) / "train.json", lambda e: e.insert(0, None)),
        "train",
        "train.json:1: an entry is an object with an id",
    ),
    "Something-Something, a missing video": (
        lambda f: without(something(f) / "20bn-something-something-v2" / "2.webm").parent,
        "train",
        "train.json:2: no video 2.webm below",
    ),
    "a table, reversed times": (
        lambda f: rows(f, "1.mp4,5,3,a"),
        "train",
        "t.csv:22: the part ends at 3 seconds and begins at 5",
    ),
    "a table, negative times": (lambda f: rows(f, "1.mp4,-5,3,a"), "train", "t.csv:22: start is -5"),
    "a table, one time": (lambda f: rows(f, "1.mp4,5,,a"), "train", "t.csv:22: end is empty, and start is not"),
    "a table, no such file": (lambda f: rows(f, "x.mp4,1,2,a"), "train", "t.csv:22: no such file: x.mp4"),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_a_wrong_row_is_skipped_with_its_reason(name: str, tmp_path: Path) -> None:
    make, split, why = SKIPPED[name]
    splits: Splits = load(make(tmp_path / "data"), LABEL)
    assert [why in reason for _, reason in splits.skipped[split]] == [True], splits.skipped


def test_a_list_of_kinetics_beside_other_tables(tmp_path: Path) -> None:
    root = kinetics(tmp_path)
    text(root / "notes.csv", "a,b\n1,2\n")
    text(root / "empty.csv", "")
    assert len(load(root, LABEL).validation) == 4
    text(root / "train.csv", KINETICS)
    with pytest.raises(DataError, match=r"train\.csv: no rows"):
        load(root, LABEL)
    without(root / "train.csv")
    with pytest.raises(DataError, match="no split to train on"):
        load(root, LABEL, test="validation")
