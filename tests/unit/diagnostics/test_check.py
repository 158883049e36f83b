"""`graft check` reports what `graft train` then does with the recipe: the same rows, errors and advice."""

import csv
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import TrainSection
from pipelines.data.filtering import Skips
from pipelines.errors import DataError
from pipelines.training.optim import without_effect
from tests.support import tiny_text
from tests.support.command import Done, graft, refused
from tests.support.invalid_inputs import World, a_right_world, a_world, spoiled  # noqa: F401 (fixtures)
from tests.support.runs import one_thread, without_pictures  # noqa: F401 (one_thread is a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = """task: text-classification
model: {id: nowhere}
data: {id: nowhere, workers: 0, max_skipped: 0.1}
train: {max_steps: 1, batch_size: 8, warmup: 0, precision: fp32}
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.bert(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification")


def both(bert: Path, folder: Path, empty: int) -> tuple[Done, Done]:
    """Run both verbs on 100 training rows, of which so many have no text."""
    (folder / "data").mkdir()
    (folder / "texts.yaml").write_text(TEXTS)
    for name, n, without in (("train", 100, empty), ("validation", 8, 0), ("test", 8, 0)):
        rows = [["" if i < without else f"{name} {i} {'warm' if i % 2 else 'cold'}", "ab"[i % 2]] for i in range(n)]
        with (folder / "data" / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
    asked = [folder / "texts.yaml", "--data", folder / "data", "--model", bert]
    with without_pictures():
        return graft("check", *asked), graft("train", *asked, "--run", folder / "run")


def test_as_many_skipped_rows_as_may_be(bert: Path, tmp_path: Path) -> None:
    """Ten of a hundred: the share is of all rows, including those that are skipped."""
    for done in both(bert, tmp_path, 10):
        assert done.code == 0, done.err


def test_one_skipped_row_too_many(bert: Path, tmp_path: Path) -> None:
    errors = [
        refused(done, 2, "11 rows of train cannot be read, 10 of 100 may be") for done in both(bert, tmp_path, 11)
    ]
    assert errors[0] == errors[1]


@pytest.mark.parametrize("verb", ["check", "train"])
def test_none_may_be_skipped(world: World, verb: str) -> None:
    data = spoiled(world, 1)
    refused(
        world.graft(verb, "data.max_skipped=0", data=data),
        2,
        "1 row of train cannot be read, none may be (data.max_skipped=0)",
        "it",
    )


@pytest.mark.parametrize(
    ("share", "bad", "fits"), [(0, 0, True), (0, 1, False), (1e-9, 3, True), (1e-9, 4, False), (0.05, 5, True)]
)
def test_how_many_may_be_skipped(share: float, bad: int, fits: bool) -> None:
    """Three rows of few: so many may be unreadable in any data."""
    rows = [(str(i), f"row {i}") for i in range(bad)]
    if fits:
        Skips(share, {"train": rows}, {"train": 100})
        return
    with pytest.raises(DataError, match=f"{bad} rows? of train cannot be read"):
        Skips(share, {"train": rows}, {"train": 100})


def test_a_warm_up_longer_than_the_run_is_told(world: World) -> None:
    line = "train.warmup=500: the warm-up has 500 steps, the training 2: the learning rate only rises"
    checked = world.graft("check", "train.warmup=500", "train.eval_every=50")
    assert f"no effect  {line}" in checked.out
    assert (
        "train.eval_every=50: the training has 2 steps: validation is scored once, after the last of them"
        in checked.out
    )
    assert line in world.graft("train", "train.warmup=500").err


def lines(total: int, **settings: Any) -> list[str]:
    train = TrainSection(**{"max_steps": total, **settings})
    return [line.split(":")[0] for line in without_effect(train, total, per_epoch=10)]


def test_settings_without_effect() -> None:
    assert lines(100) == []
    assert lines(100, warmup=99, eval_every=100, save_every=100) == []
    assert lines(100, warmup=100) == ["train.warmup=100"]
    assert lines(1, warmup=0.9) == []  # warm-up needs more than one step
    assert lines(100, eval_every=101) == ["train.eval_every=101"]
    assert lines(100, save_every=1000) == ["train.save_every=1000"]
    assert lines(100, early_stopping=10) == ["train.early_stopping=10"]  # ten evaluations, the last at the end
    assert lines(100, early_stopping=9) == ["train.early_stopping=9"]
    assert lines(100, early_stopping=8) == []


def test_a_recipe_has_no_rows_that_its_model_was_trained_on(world: World) -> None:
    """--allow-overlap has no effect there."""
    (world.tmp / "recipe.yaml").write_text(TEXTS)
    done = graft("evaluate", world.tmp / "recipe.yaml", "--data", world.photos, "--allow-overlap")
    refused(
        done,
        2,
        "--allow-overlap goes with --data and a run folder, model folder or hub id",
        "recipe.yaml is a recipe",
        "leave it out",
    )
