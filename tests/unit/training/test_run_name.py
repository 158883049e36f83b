"""The default folders of runs: equal settings have one folder, other settings another, and names say what differs."""

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import Recipe, dump_recipe, validate
from pipelines.training.run_folder import absolute_paths
from pipelines.training.run_name import choose, pieces_of
from pipelines.utils.formatting import brief

HOME = Path("runs/image-classification")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(**changes: Any) -> Recipe:
    """A recipe; keys of `changes` have two underscores for a dot. A value of None removes the key."""
    raw: dict[str, Any] = {
        "task": "image-classification",
        "model": {"id": "me/model"},
        "data": {"id": "me/photos"},
        "options": {},
        "train": {"epochs": 5, "learning_rate": 1e-4},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        raw[section][name] = value
    return validate(
        {
            part: {k: v for k, v in of.items() if v is not None} if isinstance(of, dict) else of
            for part, of in raw.items()
        }
    )


def ran(found: Recipe, base: str = "photos", smoke: bool = False, work: str = "model") -> Path:
    """What a command leaves: the chosen folder with the recipe and, as its work, a model."""
    folder = choose(base, found, smoke=smoke).folder
    (folder / work).mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(absolute_paths(found)))
    return folder


def test_names_say_what_differs_from_the_first_run() -> None:
    assert ran(recipe()) == HOME / "photos"
    for changes, name in (
        ({"train__learning_rate": 3e-3}, "photos-lr3e-3"),
        ({"train__epochs": 3}, "photos-epochs3"),
        ({"train__epochs": None, "train__max_steps": 20}, "photos-steps20"),
        ({"train__batch_size": 64, "train__seed": 1}, "photos-batch64-seed1"),
        ({"data__id": "you/more_photos"}, "photos-more_photos"),
        ({"model__id": "facebook/dinov2-base"}, "photos-dinov2-base"),
        ({"model__freeze": "backbone"}, "photos-freeze_backbone"),
        ({"model__adapter": {"kind": "lora", "rank": 8}}, "photos-lora8"),
        ({"train__clip_norm": 2.5, "options__mixup": 0.2}, "photos-mixup_0.2-clip_norm_2.5"),
        (
            {"train__optimizer": "sgd", "train__schedule": "cosine", "train__weight_decay": 0.5, "train__warmup": 7},
            "photos-decay0.5-sgd-cosine",
        ),
    ):
        assert ran(recipe(**changes)) == HOME / name


def test_the_line_says_what_the_first_run_has() -> None:
    ran(recipe())
    assert choose("photos", recipe()).why == ""
    assert choose("photos", recipe(train__learning_rate=3e-3)).why == (
        "runs/image-classification/photos has train.learning_rate=1e-4; this run is a new one: "
        "runs/image-classification/photos-lr3e-3"
    )


def test_other_settings_never_share_a_folder_and_equal_ones_always_do() -> None:
    rng = random.Random(0)
    values: dict[str, list[Any]] = {
        "train__learning_rate": [1e-4, 1.00004e-4, 3e-3],
        "train__batch_size": [32, 64],
        "train__seed": [0, 1],
        "train__weight_decay": [0.01, 0.1],
        "train__warmup": [0.1, 0.2, 5],
        "train__clip_norm": [1.0, 0.5],
        "data__id": ["me/photos", "me/plants", "me/" + "p" * 90],
        "data__config": [None, "../a b"],
        "model__freeze": ["auto", 3],
    }
    every = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    folders: dict[Path, dict[str, Any]] = {}
    known: dict[str, Path] = {}
    for settings in [*rng.sample(every, 24), *rng.choices(every[:8], k=10)]:
        folder = ran(recipe(**settings))
        assert folders.setdefault(folder, settings) == settings, folder
        assert known.setdefault(repr(settings), folder) == folder
        assert re.fullmatch(r"[A-Za-z0-9._-]+", folder.name)
        assert len(folder.name) <= 60
        assert folder.parent == HOME
    assert len(folders) == len(known) > 25


def test_settings_that_change_no_result_make_no_new_run() -> None:
    ran(recipe())
    for changes in ({"train__micro_batch": 4}, {"data__workers": 0}, {"train__log_every": 1}):
        assert choose("photos", recipe(**changes)).folder == HOME / "photos"


def test_more_epochs_go_on_and_fewer_are_a_new_run() -> None:
    ran(recipe())
    assert choose("photos", recipe(train__epochs=9)).folder == HOME / "photos"
    assert ran(recipe(train__epochs=2)) == HOME / "photos-epochs2"
    assert ran(recipe(train__epochs=3)) == HOME / "photos-epochs3"  # and not photos-epochs2, whose name says 2
    assert ran(recipe(train__epochs=2)) == HOME / "photos-epochs2"
    assert choose("photos", recipe(train__epochs=9)).folder == HOME / "photos"


def test_epochs_are_compared_with_the_least_number_of_steps() -> None:
    """The first run made 300 steps, 50 epochs of 6: its 20 epochs are 120."""
    folder = ran(recipe(train__epochs=20, train__min_steps=300))
    more = recipe(train__epochs=60)
    assert choose("photos", more).folder == HOME / "photos-epochs60", "how long the first run is cannot be known yet"
    (folder / "log.jsonl").write_text('{"step": 300, "epoch": 50.0, "loss": 0.5}\n{"step": 301, "ep')
    assert choose("photos", more).folder == folder
    assert choose("photos", recipe(train__epochs=50)).folder == HOME / "photos-epochs50"
    assert choose("photos", recipe(train__epochs=30)).folder == HOME / "photos-epochs30"
    assert choose("photos", recipe(train__epochs=30, train__min_steps=400)).folder == folder
    assert choose("photos", recipe(train__epochs=20, train__min_steps=200)).folder != folder


def test_a_number_where_no_name_says_it() -> None:
    ran(recipe())
    assert ran(recipe(data__id="you/photos")) == HOME / "photos-photos"
    assert ran(recipe(data__id="they/photos")) == HOME / "photos-2"
    assert ran(recipe(data__id="they/photos")) == HOME / "photos-2"
    assert ran(recipe(data__id="we/photos")) == HOME / "photos-3"


def test_what_holds_no_work_is_taken_and_other_folders_are_left() -> None:
    ran(recipe(), work="checkpoints")  # killed before the first checkpoint
    assert choose("photos", recipe(train__seed=7)) == (HOME / "photos", "")
    (HOME / "photos" / "recipe.yaml").write_text("soup: [leek")
    (HOME / "photos" / "model").mkdir()
    assert ran(recipe()) == HOME / "photos-2"
    (HOME / "thesis").mkdir()
    (HOME / "thesis" / "chapter1.tex").touch()
    assert choose("thesis", recipe()).folder == HOME / "thesis-2"
    (HOME / "file").touch()
    assert choose("file", recipe()).folder == HOME / "file-2"


def test_smoke_runs_have_folders_of_their_own() -> None:
    assert ran(recipe(), smoke=True) == HOME / "photos-smoke"
    assert ran(recipe()) == HOME / "photos"
    assert ran(recipe(train__seed=1), smoke=True) == HOME / "photos-smoke-seed1"
    assert ran(recipe(train__seed=1)) == HOME / "photos-seed1"


@pytest.mark.parametrize(
    ("base", "name"), [("my recipe", "my-recipe"), ("../../etc", "etc"), ("", "run"), ("фото", "фото"), ("-x", "x")]
)
def test_a_base_is_a_name_for_files(base: str, name: str) -> None:
    assert choose(base, recipe()).folder == HOME / name


def test_a_run_at_work_is_known_by_its_lock(tmp_path: Path) -> None:
    """Another command began a moment ago: other settings take another name; the same settings, its folder."""
    ran(recipe(), work="checkpoints")
    hold = (
        "import sys; from pathlib import Path; from pipelines.utils.lock import locked\n"
        f"with locked(Path({str(HOME / 'photos' / '.lock')!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert choose("photos", recipe()).folder == HOME / "photos"
        assert choose("photos", recipe(train__seed=1)).folder == HOME / "photos-seed1"
        assert choose("photos", recipe(train__epochs=9)).folder == HOME / "photos-epochs9"  # cannot go on meanwhile
        other.kill()
    assert choose("photos", recipe(train__seed=1)).folder == HOME / "photos"


def test_numbers_and_pieces() -> None:
    assert [brief(value) for value in (3e-3, 1e-4, 2.5e-4, 0.25, 64, 0.0, 1e5, 5)] == [
        "3e-3",
        "1e-4",
        "2.5e-4",
        "0.25",
        "64",
        "0",
        "100000",
        "5",
    ]
    assert pieces_of(
        {"train.clip_norm": None, "data.max_train_rows": None, "train.compile": True, "train.betas": [0.9, 0.95]}
    ) == [
        "no_clip_norm",
        "compile",
        "betas_0.9_0.95",
    ]
    assert pieces_of({"model.id": "/models/mobilenet/hf", "data.id": "/data/my photos.csv"}) == [
        "my-photos",
        "mobilenet",
    ]
