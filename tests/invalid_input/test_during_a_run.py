"""What goes wrong during a run, and with a run afterwards: an error of a line or two; saved files are never lost."""

import contextlib
import errno
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch

from pipelines.training import checkpoint
from tests.support import tiny
from tests.support.command import graft, refused
from tests.support.invalid_inputs import (
    World,
    csv,
    photo,
    results,
    spoiled,
    table,
    weights,
)
from tests.support.runs import without_pictures

# ---- a full disk ----


@contextlib.contextmanager
def full_at(place: str) -> Iterator[None]:
    """Writing to a path with `place` in it fails as on a full disk."""
    save, opened = safetensors.torch.save_file, io.open

    def refuse(path: Any, error: Exception) -> None:
        if place in str(path):
            raise error

    def save_file(tensors: Any, path: Any, *rest: Any, **more: Any) -> Any:
        disk_error = "Error while serializing: I/O error: No space left on device (os error 28)"
        refuse(path, safetensors.SafetensorError(disk_error))  # the error of that library
        return save(tensors, path, *rest, **more)

    def open_(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wxa+"):
            refuse(path, OSError(errno.ENOSPC, "No space left on device", str(path)))
        return opened(path, mode, *rest, **more)

    with (
        mock.patch.object(safetensors.torch, "save_file", save_file),
        # this library has an error of its own for it
        mock.patch("transformers.modeling_utils.safe_save_file", save_file),
        mock.patch.object(io, "open", open_),
    ):
        yield


# where the disk is full -> the step of the last checkpoint before
FULL = {
    "run/.recipe.yaml": 0,
    "log.jsonl": 0,
    ".writing_step_000001/model": 0,
    ".writing_step_000002/model": 1,
    ".writing_step_000002/state": 1,
}
FULL |= {".writing_step_000002/state": 1, ".model.new/model": 2, "predictions": 2, "run/.results.json": 2}


@pytest.mark.parametrize("place", FULL)
def test_the_disk_is_full(place: str, world: World, finished: Path) -> None:
    run, saved = world.tmp / "run", FULL[place]
    with without_pictures():
        with full_at(place):
            refused(world.graft("train"), 1, str(run), "No space left on device")
        last = checkpoint.marked(run / "checkpoints", "last")
        assert (checkpoint.read_state(last).step if last else 0) == saved
        assert not list(run.rglob("*.new")), "something half written was left"
        again = world.graft("train")
    assert again.code == 0, again.err
    assert (f"going on from step {saved}" in again.err) is bool(saved)
    assert weights(run) == weights(finished)
    assert results(run)["test"]["metrics"] == results(finished)["test"]["metrics"]


@pytest.mark.parametrize("place", ["figures", "report.html", "README.md"])
def test_the_disk_is_full_after_the_scores(place: str, world: World, finished: Path) -> None:
    run = world.tmp / "run"
    shutil.copytree(finished, run)
    (run / "recipe.yaml").write_text((finished / "recipe.yaml").read_text())
    with full_at(place):
        verb = "card" if place == "README.md" else "report"
        refused(graft(verb, run), 1, place, "No space left on device")
    assert results(run) == results(finished)
    assert weights(run) == weights(finished)
    assert graft(verb, run).code == 0


# ---- values that are not finite ----


def test_the_loss_explodes(world: World) -> None:
    explosive = ["train.learning_rate=100", "train.optimizer=sgd", "train.schedule=constant", "train.clip_norm=null"]
    often = ["train.max_steps=50", "train.eval_every=50", "train.save_every=1", "train.keep=99"]
    done = world.graft("train", *explosive, *often)
    refused(done, 1, "step ", "rows: train/", "Nothing saved is lost", "train.learning_rate")
    last = checkpoint.marked(world.tmp / "run" / "checkpoints", "last")
    assert last is not None
    for tensor in safetensors.torch.load_file(last / "model.safetensors").values():
        assert tensor.isfinite().all(), "a checkpoint without numbers was saved over a good one"


def test_weights_that_are_no_numbers(world: World) -> None:
    folder = world.copy(world.vit, "model")
    bad = {
        name: value * float("nan") for name, value in safetensors.torch.load_file(folder / "model.safetensors").items()
    }
    safetensors.torch.save_file(bad, folder / "model.safetensors", {"format": "pt"})
    refused(world.graft("train", model=folder), 1, "test/cat/000.jpg is not a number", "weights")


# ---- rows that cannot be read ----


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "not a readable image": lambda data: data[:300],
    "empty file": lambda data: b"",
    "not a readable image: cannot identify": lambda data: b"hello",
}


@pytest.mark.parametrize("why", SPOILED)
def test_a_few_bad_photos_are_skipped_and_counted(why: str, world: World) -> None:
    data = spoiled(world, 3, SPOILED[why])
    with without_pictures():
        done = world.graft("train", data=data)
    assert done.code == 0, done.err
    assert "2 classes: cat, dog\n" in done.out + done.err  # the form in which check prints them
    assert done.err.count("skipped, cannot be read") == 3
    assert f"train/cat/001.jpg: {why}" in done.err
    found = results(world.tmp / "run")["data"]
    assert [found[split]["skipped"] for split in ("train", "validation", "test")] == [3, 0, 0]


def test_odd_names_and_a_bad_test_photo_go_all_the_way(world: World) -> None:
    """They appear in the figures, the report and the card. A test row that cannot be read is no example on the card."""
    data, odd = world.copy(), ("$\\frac{$ {{x}} <b>\n|`[b]☃", "n" * 200)
    for split in data.iterdir():
        for name, better in zip(("cat", "dog"), odd, strict=True):
            (split / name).rename(split / better)
            (split / better / "001.jpg").rename(split / better / "a b,'\"#?%.jpg")
            if split.name == "test":  # otherwise the first row of its class would be the example
                (split / better / "000.jpg").write_bytes(b"hello")
    done = world.graft("train", "hub.examples=4", data=data)
    assert done.code == 0, done.err
    run = world.tmp / "run"
    assert len(list((run / "model" / "examples").glob("*.jpg"))) == 4
    assert "<b>\n" not in (run / "report.html").read_text()
    assert results(run)["labels"] == sorted(odd)
    assert results(run)["data"]["test"]["skipped"] == 2


# ---- a finished run and other data ----

# what is wrong -> (the arguments of `graft`, words that the error must contain); {run} is a finished run
ASKED: dict[str, tuple[str, list[str]]] = {
    "no such run": ("evaluate {tmp}/nowhere", ["nowhere", "no such folder"]),
    "no such split": ("evaluate {run} --split exam", ["--split exam", "train"]),
    "no such data": ("evaluate {run} --data {tmp}/nowhere", ["nowhere"]),
    "other classes": ("evaluate {run} --data {tmp}/birds", ["none of the classes", "emu, owl", "cat, dog"]),
    "no recipe": ("evaluate {vit}", ["--data"]),
    "no such file": ("predict {run} {tmp}/no.jpg", ["no.jpg: no such file"]),
    "one file of two": ("predict {run} {photo} {tmp}/no.jpg", ["no.jpg: no such file"]),
    "no photo": ("predict {run} {tmp}/recipe.yaml", ["recipe.yaml: a .yaml file, and this model reads images"]),
    "an empty folder": ("predict {run} {tmp}/void", ["void: an empty folder"]),
    "a folder without photos": ("predict {run} {tmp}/texts", ["texts: a folder without images", "a.txt"]),
    "no image column": ("predict {run} {tmp}/a.csv", ["a.csv", "no column 'image'"]),
    "a value to nowhere": ("predict {run} image={tmp}/no.jpg", ["no.jpg: no such file"]),
}


@pytest.mark.parametrize("name", ASKED)
def test_wrong_question(name: str, world: World, finished: Path) -> None:
    command, words = ASKED[name]
    tiny.photos(world.tmp / "birds", ("owl", "emu"), n=1, size=16)
    table(world, "a.csv", csv("picture,label"))
    for folder in ("void", "texts"):
        (world.tmp / folder).mkdir()
    (world.tmp / "texts" / "a.txt").write_text("hello")
    (world.tmp / "recipe.yaml").write_text("hello")
    names = {"tmp": world.tmp, "run": finished, "vit": world.vit, "photo": photo(world.photos)}
    done = graft(*(word.format(**names) for word in command.split()))
    refused(done, 2, *words)
    assert done.out == ""


def test_what_is_not_known_is_told(world: World, finished: Path) -> None:
    """Other data may hold some unknown classes: those rows are scored as errors.

    In a folder or table, Graft answers what it can read.
    """
    done = graft("evaluate", finished, "--data", tiny.photos(world.tmp / "some", ("cat", "emu"), n=2), "--json")
    assert done.code == 0, done.err
    assert "does not know 1 of 2 classes (emu)" in done.err
    assert json.loads(done.out)["n"] == 4
    assert json.loads(done.out)["metrics"]["accuracy"] <= 0.5
    shutil.copytree(world.photos / "test", world.tmp / "new")
    (world.tmp / "new" / "notes.txt").write_text("hello")
    rows = table(world, "New.CSV", "image\nflat/cat/000.jpg\nflat/no.jpg\n")
    done = graft("predict", finished, world.tmp / "new", rows, "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) == 8 + 1
    assert "notes.txt" in done.err
    assert "New.CSV:3: no such file" in done.err
