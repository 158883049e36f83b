"""Wrong data and wrong recipes: the error has a line or two, names the file, row or key, and exits 2.

tests/invalid_input/test_models.py has wrong models and hubs. tests/invalid_input/test_during_a_run.py has what goes
wrong during a run.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.errors import RecipeError
from tests.support import tiny
from tests.support.command import RECIPE, Done, graft, refused
from tests.support.invalid_inputs import (
    World,
    a_right_world,  # noqa: F401 (a fixture)
    a_world,  # noqa: F401 (a fixture)
    all_empty,
    bombs,
    csv,
    empty,
    jsonl,
    labelled,
    parquet,
    photo,
    spoiled,
    table,
    twice,
    with_file,
    without,
)

Case = tuple[Callable[[World], Any], str, list[str]]

# what is wrong -> (the data, overrides, words that the error must contain)
DATA: dict[str, Case] = {
    "no such folder": (lambda w: w.tmp / "absent", "", ["no such file or folder", "absent", "--data"]),
    "no such table": (lambda w: w.tmp / "absent.csv", "", ["no such file or folder", "absent.csv"]),
    "an empty folder": (empty, "", ["data.id", "found: nothing", "class folders"]),
    "empty class folders": (lambda w: empty(w, "cat", "dog"), "", ["data.id", "cat, dog"]),
    "a photo": (lambda w: photo(w.photos), "", ["data.id", "000.jpg", "class folders"]),
    "a folder of photos": (lambda w: w.flat / "cat", "", ["data.id", "000.jpg", "class folders"]),
    "an empty class folder": (
        lambda w: with_file(w, "train/eel/"),
        "",
        ["train/eel: an empty class folder", "remove it"],
    ),
    "empty files": (all_empty, "", ["data/cat: no image of this class can be read", "empty file"]),
    "truncated photos": (
        lambda w: spoiled(w, 4),
        "",
        ["train/cat: no image of this class can be read (000.jpg, 001.jpg"],
    ),
    "texts called .jpg": (
        lambda w: spoiled(w, 4, lambda d: b"hello"),
        "",
        ["train/cat: no image of this class", "not a readable"],
    ),
    "decompression bombs": (
        bombs,
        "",
        ["4 rows of train", "of 12", "data.max_skipped", "train/cat/bomb", "190000000 pixels"],
    ),
    "one class": (
        lambda w: without(w, "train/dog", "validation/dog", "test/dog"),
        "",
        ["1 class found (cat)", "at least two"],
    ),
    "a class missing in train": (
        lambda w: without(w, "train/dog"),
        "",
        ["class 'dog' occurs in validation but not in train"],
    ),
    "a class beside the splits": (
        lambda w: with_file(w, "eel/1.jpg"),
        "",
        ["eel/1.jpg lies outside", "data.train=train"],
    ),
    "a photo beside the splits": (lambda w: with_file(w, "loose.jpg"), "", ["loose.jpg lies outside"]),
    "too few photos": (
        lambda w: tiny.photos(w.tmp / "two", n=1, splits=()),
        "",
        ["no test split", "2 rows are too few", "each class"],
    ),
    "groups of a folder": (lambda w: w.flat, "data.group=who", ["data.group", "'who'", "csv"]),
    "a split that is not there": (lambda w: w.photos, "data.test=exam", ["data.test", "no split 'exam'", "train"]),
    "test is train": (
        lambda w: w.photos,
        "data.train=train data.test=train",
        ["data.test", "'train' is train already"],
    ),
    "holdout takes all": (lambda w: w.flat, "data.holdout=0.5", ["data.holdout", "no rows to train on"]),
    "fewer rows than classes": (
        lambda w: w.flat,
        "data.max_train_rows=1",
        ["data.max_train_rows", "at least 2 are needed"],
    ),
    "an unknown format": (lambda w: w.flat, "data.format=excel", ["data.format", "'excel'", "imagefolder"]),
    "a format that is not there": (lambda w: w.flat, "data.format=table", ["holds no table", ".csv"]),
    "a folder as a hub id": (lambda w: w.flat, "data.format=hub", ["data.format", "on this disk"]),
    "a revision of a folder": (
        lambda w: w.flat,
        "data.revision=main",
        ["data.revision", "on this disk", "leave it out"],
    ),
    "columns of a folder": (
        lambda w: w.flat,
        "data.columns.label=kind",
        ["data.columns", "class folders", "leave it out"],
    ),
    "digits that are none": (lambda w: w.flat, "data.format=digits data.config=9-3", ["data.config", "'9-3'", "0-4"]),
    "a column that the task has not": (
        lambda w: w.flat,
        "data.columns.lable=x",
        ["data.columns", "'lable'", "image, label"],
    ),
    "no label column": (
        lambda w: table(w, "a.csv", csv("image,kind")),
        "",
        ["a.csv", "no column 'label'", "image, kind", "columns.label"],
    ),
    "a column twice": (
        lambda w: table(w, "a.csv", csv("label,label")),
        "",
        ["a.csv:1", "two columns are called 'label'"],
    ),
    "paths to nowhere": (
        lambda w: table(w, "a.csv", csv(line="x/{},{}")),
        "",
        ["none of 24 rows", "a.csv:2: no such file: x/flat"],
    ),
    "an open quote": (lambda w: table(w, "a.csv", csv(more='"flat/cat/000.jpg,cat\nx,y\n')), "", ["a.csv:26", "quote"]),
    "a cell too many": (
        lambda w: table(w, "a.csv", csv(more="a,b,c\n" * 4)),
        "",
        ["a.csv:26: 3 cells for 2 columns", "data.max_skipped"],
    ),
    "Latin-1": (lambda w: table(w, "a.csv", csv(more="x,caf\xe9").encode("latin-1")), "", ["a.csv", "not UTF-8"]),
    "UTF-16": (lambda w: table(w, "a.csv", csv().encode("utf-16")), "", ["a.csv", "not UTF-8"]),
    "an empty csv": (lambda w: table(w, "a.csv", ""), "", ["a.csv", "no rows"]),
    "a header alone": (lambda w: table(w, "a.csv", "image,label\n"), "", ["a.csv", "no rows"]),
    "endless cells": (lambda w: table(w, "a.csv", csv(more=("x" * 200_000 + "\n") * 4)), "", ["a.csv:26: 1 cells for"]),
    "no group column": (
        lambda w: table(w, "a.csv", csv()),
        "data.group=who",
        ["data.group", "a.csv", "'who'", "image, label"],
    ),
    "two groups": (
        lambda w: table(w, "a.csv", csv("image,label,who", "{0},{1},{1}")),
        "data.group=who",
        ["too few", "groups of 'who'"],
    ),
    "a broken line": (lambda w: table(w, "a.jsonl", jsonl() + '{"image": '), "", ["a.jsonl:25", "not valid JSON"]),
    "arrays": (lambda w: table(w, "a.jsonl", '["x", "cat"]\n'), "", ["a.jsonl:1", "got list"]),
    "endless nesting": (lambda w: table(w, "a.jsonl", "[" * 100_000), "", ["a.jsonl:1", "not valid JSON"]),
    "half a surrogate": (lambda w: labelled(w, *["\ud800"] * 4), "", ["a.jsonl:25: label holds half of a"]),
    "no labels": (lambda w: labelled(w, None, "", None, None), "", ["4 rows of train", "a.jsonl:25: label is empty"]),
    "objects as labels": (lambda w: labelled(w, {}, {}, {}, [None]), "", ["a.jsonl:25: label holds dict"]),
    "numbers as images": (lambda w: labelled(w, *["cat"] * 4, image=5), "", ["a.jsonl:25: image holds int"]),
    "lists of labels": (lambda w: labelled(w, ["cat", "pet"]), "", ["a.jsonl", "options.multi_label=true"]),
    "a table twice": (twice, "", ["two tables are called 'train'"]),
    "half a parquet file": (lambda w: parquet(w, 0.5), "", ["a.parquet", "not a readable parquet file"]),
    "an empty parquet file": (lambda w: parquet(w, 0), "", ["a.parquet", "not a readable parquet file"]),
}


@pytest.mark.parametrize("name", DATA)
def test_wrong_data(name: str, world: World) -> None:
    make, overrides, words = DATA[name]
    done = world.graft("train", *overrides.split(), data=make(world))
    refused(done, 2, *words)
    assert done.out == ""
    assert not (world.tmp / "run" / "model").exists()


def test_there_are_many_cases() -> None:
    assert len(DATA) + len(RECIPES) >= 60


# ---- recipes ----

# arguments after the recipe on the command line -> words that the error must contain
RECIPES: dict[str, list[str]] = {
    "train.epoch=3 model.frezze=none": [
        "train.epoch: unknown key: did you mean train.epochs=3?",
        "model.frezze: unknown key: did you mean model.freeze=none?",
    ],
    "model.freeze=true": ["model.freeze", "'backbone'", "a number", "got true"],
    "train.batch_size=true": ["train.batch_size", "a number is needed, got true"],
    "train.batch_size=0": ["train.batch_size", "at least 1, got 0"],
    "train.learning_rate=1e30": ["train.learning_rate", "at most 100"],
    "train.learning_rate=.nan": ["train.learning_rate", "finite"],
    "data.holdout=7": ["data.holdout", "at most 0.5"],
    "train.epochs=[1": ["train.epochs=[1", "not valid YAML"],
    "train.trackers=[wandb]": ["train.trackers", "wandb is not installed", "pip install"],
    "train.trackers=[mlflow]": ["train.trackers", "wandb", "got 'mlflow'"],
    "task=image-clasification": ["task", "did you mean 'image-classification'"],
    "options=3": ["options", "a section, which takes no value"],
    "foo": ["'foo'", "key=value"],
    "hub.repo_id=name": ["hub.repo_id", "OWNER/NAME"],
    "--frobnicate": ["--frobnicate", "--help"],
}


@pytest.mark.parametrize("arguments", RECIPES)
def test_wrong_recipe(arguments: str, world: World) -> None:
    done = world.graft("train", *arguments.split())
    refused(done, 2, *RECIPES[arguments])
    assert not (world.tmp / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], None),
        (["frobnicate"], ["frobnicate"]),
        (["train"], ["needs your data", "a recipe"]),
        (["train", "no_such_recipe"], ["no_such_recipe", "no shipped recipe"]),
        (["train", "{tmp}", "--data", "{tmp}"], ["are both data", "leave one out"]),
        (["train", "{tmp}/photo.jpg"], ["photo.jpg", "cannot be read"]),
        (["train", "{tmp}/list.yaml"], ["list.yaml", "a mapping of keys"]),
        (["predict", "{tmp}/nowhere"], ["`graft predict` needs inputs"]),
    ],
)
def test_wrong_command(arguments: list[str], words: list[str] | None, world: World) -> None:
    shutil.copy(photo(world.photos), world.tmp / "photo.jpg")
    (world.tmp / "list.yaml").write_text("- a\n- b\n")
    done = graft(*(argument.replace("{tmp}", str(world.tmp)) for argument in arguments))
    if words is None:
        assert done.code == 2
        assert "Usage" in done.err
    else:
        refused(done, 2, *words)


def test_debug_shows_where() -> None:
    with pytest.raises(RecipeError, match="no_such_recipe"):
        graft("train", "no_such_recipe", "--debug")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", "train.epoch: unknown key"),
        ("data.max_skipped=0", "rows of train cannot be read, none may be"),
    ],
)
def test_in_a_process_of_its_own(override: str, words: str, world: World) -> None:
    (world.tmp / "recipe.yaml").write_text(RECIPE)
    sources = ["--data", str(bombs(world)), "--model", str(world.vit)]
    command = [sys.executable, "-m", "pipelines", "train", "recipe.yaml", override, *sources]
    done = subprocess.run(command, cwd=world.tmp, capture_output=True, text=True)
    refused(Done(done.returncode, done.stdout, done.stderr), 2, words)
