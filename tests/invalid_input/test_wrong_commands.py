"""Commands that a person mistypes: each message names what was meant, at once, and nothing is made on disk."""

import re
import shlex
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import graft, refused
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)

R = "photos_efficientnet_b0"
# what a person types after `graft` -> words of the error
COMMANDS = {
    # verbs
    f"trian {R}": f"no command 'trian': did you mean `graft train {R}`?",
    f"Train {R}": f"did you mean `graft train {R}`?",
    "eval runs/a": "did you mean `graft evaluate runs/a`?",
    f"run {R}": f"did you mean `graft train {R}`?",
    f"fit {R}": f"did you mean `graft train {R}`?",
    f"finetune {R}": f"did you mean `graft train {R}`?",
    "serve runs/a": "did you mean `graft demo runs/a`?",
    "list": "did you mean `graft recipes`",
    "ls": "did you mean `graft recipes`",
    "help": "did you mean `graft --help`?",
    "help train": "did you mean `graft train --help`?",
    "version": "did you mean `graft --version`?",
    "predcit runs/a x.jpg": "did you mean `graft predict runs/a x.jpg`?",
    "push runs/a me/a": "did you mean `graft publish runs/a me/a`?",
    "validate mine.yaml": "did you mean `graft check mine.yaml`?",
    R: f"did you mean `graft train {R}`?",
    "mine.yaml": "did you mean `graft train mine.yaml`?",
    "photos": "no command 'photos': did you mean `graft train photos`?",
    "photos epochs=3": "did you mean `graft train photos epochs=3`?",
    "foo": "The commands: ",
    # options
    "--json recipes": "options come after the verb: did you mean `graft recipes --json`?",
    "--verison": "did you mean `graft --version`?",
    f"train {R} --epochs 3": "did you mean train.epochs=3?",
    f"train {R} --lr=1e-3": "did you mean train.learning_rate=1e-3?",
    f"train {R} -lr 1e-3": "did you mean train.learning_rate=1e-3?",
    f"train {R} --batch-size 8": "did you mean train.batch_size=8?",
    f"train {R} --learning_rate 1e-3": "did you mean train.learning_rate=1e-3?",
    f"train {R} --image-size 64": "did you mean options.image_size=64?",
    f"train {R} --num_train_epochs 3": "did you mean train.epochs=3?",
    f"train {R} --output_dir out": "--run FOLDER",
    f"train {R} --dat photos": "did you mean --data photos?",
    f"train {R} -d photos": "did you mean --data photos?",
    f"train --recipe {R}": f"did you mean `graft train {R}`?",
    f"train {R} --seed 3": "data.seed=3 or train.seed=3",
    f"train {R} --gpu 0": "CUDA_VISIBLE_DEVICES",
    "recipes --jsn": "did you mean --json?",
    "predict runs/a -5": "graft predict RUN -- -5",
    "predict --model runs/a x.jpg": "it is used as `graft predict RUN_OR_MODEL INPUT...`",
    "publish --repo me/a runs/a": "it is used as `graft publish RUN OWNER/NAME`",
    "-V": "did you mean `graft --version`?",
    # what is missing
    "compare": "`graft compare` needs two runs: give",
    "report": "`graft report` needs a run: give its name, its folder, or `last`",
    "demo": "`graft demo` needs a run or a model: give",
    "evaluate": "`graft evaluate` needs a run, a model or a recipe: give",
    "predict runs/a": "`graft predict` needs inputs: files, folders",
    "publish runs/a": "needs a name on the hub",
    # settings
    f"train {R} lr=3e-3": "did you mean train.learning_rate=3e-3?",
    f"train {R} batch=8": "did you mean train.batch_size=8?",
    f"train {R} bs=8": "did you mean train.batch_size=8?",
    f"train {R} learningrate=1e-3": "did you mean train.learning_rate=1e-3?",
    f"train {R} train.lr=3e-3": "did you mean train.learning_rate=3e-3?",
    f"train {R} max_step=5": "did you mean train.max_steps=5?",
    f"train {R} model=google/vit": "did you mean model.id=google/vit (--model google/vit)?",
    f"train {R} data=photos": "did you mean data.id=photos (--data photos)?",
    f"train {R} seed=3": "write data.seed=3 or train.seed=3",
    f"train {R} train.epochs = 3": "did you mean train.epochs=3?",
    f"train {R} train.epochs:3": "did you mean train.epochs=3?",
    f"train {R} train.epochs 3": "did you mean train.epochs=3?",
    f"train {R} train.epochs=": "the value is missing",
    f"train {R} train.epochs=“3”": "did you mean 3?",
    f"train {R} train.learning_rate=0,001": "did you mean 0.001?",
    f"train {R} train.optimizer=adam": "did you mean 'adamw'?",
    f"train {R} train.trackers=wandb": "did you mean [wandb]?",
    f"train {R} model.adapter=lora": "(allowed: kind, rank, alpha, dropout, targets)",
    f"train {R} photos": "did you mean --data photos?",
    # recipes, folders and files
    "train photos_efficentnet_b0": f"did you mean '{R}'?",
    f"train {R} --data photo": "no file or folder 'photo' here (did you mean photos?)",
    f"train {R} --data photo/": "no such file or folder: photo/ (did you mean photos?)",
    f"train {R} --data ./Photos": "no such file or folder: ./Photos (did you mean photos?)",
    f"train {R} --data texts.cvs": "no file or folder 'texts.cvs' here (did you mean texts.csv?)",
    f"check {R} --data data/photos": "no file or folder 'data/photos' here (did you mean photos?)",
    f"train {R} --data photos --model ./model": "no such folder: ./model (did you mean modell?)",
    "train min.yaml": "no such file (did you mean mine.yaml?)",
    "check mine.yml": "no such file (did you mean mine.yaml?)",
    f"predict {R} photos": f"is a recipe, and not a model: train it first, with `graft train {R}`",
    "predict photos/cat 1.png": "photos/cat: no model here",
    "evaluate runs/image": "runs/image: no such folder",
    "predict modle photos": "no folder 'modle' here (did you mean modell?)",
    f"evaluate {R} --data photo data.columns.image=x": "did you mean photos?",
    f"evaluate {R} --data photos lr=1": "did you mean train.learning_rate=1?",
}


@pytest.fixture(name="place")
def a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, a table, a recipe and a folder for a model, as a user has."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "texts.csv").write_text("text,label\na,b\n")
    (tmp_path / "modell").mkdir()
    (tmp_path / "mine.yaml").write_text(
        "task: fill-mask\nmodel: {id: a/b}\ndata: {id: texts.csv}\ntrain: {epochs: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_message_names_what_was_meant(command: str, place: Path) -> None:
    before = listed(place)
    done = graft(*shlex.split(command))
    refused(done, 2, COMMANDS[command])
    assert done.out == ""
    assert listed(place) == before


def test_there_are_enough_of_them() -> None:
    assert len(COMMANDS) >= 60


@pytest.mark.parametrize("verb", ["train", "check", "demo", "report", "card", "compare", "evaluate", "predict"])
def test_a_verb_alone_says_what_it_needs(verb: str, place: Path) -> None:
    done = graft(verb)
    assert done.code == 2
    assert f"graft {verb}" in done.err
    assert not (place / "runs").exists()


@pytest.mark.parametrize("kind", ["data", "model"])
def test_a_name_that_the_hub_does_not_have(kind: str, place: Path, hub: HubServer) -> None:
    """The hub is asked once, before anything is made. A name that looks like a path is not asked for."""
    (place / "vit").mkdir()
    known = ["--data", "photos"] if kind == "model" else ["--model", "vit"]
    close = "vitt" if kind == "model" else "photo"
    error = refused(graft("train", R, *known, f"--{kind}", close), 2, f"'{close}' here (did you mean ")
    assert "of that name on the hub" in error
    assert len(hub.asked) == 1
    refused(graft("train", R, *known, f"--{kind}", f"./{close}"), 2, "did you mean")
    assert len(hub.asked) == 1
    assert not (place / "runs").exists()


def test_without_the_hub(place: Path, hub: HubServer) -> None:
    """The error says what works without it, and comes without waiting."""
    with hub.offline():
        start = time.monotonic()
        done = graft("train", R, "--data", "photos")
        assert time.monotonic() - start < 5
    error = refused(done, 1, "cannot be reached", "--model FOLDER and --data FOLDER work", "digits_vit_pretrain")
    assert "no model of that name is in the cache" in error
    assert not (place / "runs").exists()


def test_offline_is_set(place: Path) -> None:
    error = refused(graft("train", R, "--data", "photos"), 1, "HF_HUB_OFFLINE is set", "digits_ddpm", "in the cache")
    assert len(error.splitlines()) == 2
    refused(graft("predict", "someone/model", "x.jpg"), 1, "run folders, model folders and models in the cache work")


def test_the_versions() -> None:
    done = graft("--version")
    assert done.code == 0
    assert re.fullmatch(r"graft [\d.]+ \(torch 2\.\S+, transformers 5\.\S+, Python 3\.\d+\.\d+\)\n", done.out)


def test_help_before_the_verb() -> None:
    for words in (["--help", "train"], ["-h", "train"], ["train", "-h"]):
        done = graft(*words)
        assert (done.code, done.err) == (0, "")
        assert "--smoke" in done.out
