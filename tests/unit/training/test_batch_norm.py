"""A model with BatchNorm compares the rows of a batch, so it never trains on one row alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.batching import Examples
from pipelines.errors import DataError, RecipeError
from pipelines.models.layers import freeze
from pipelines.task import Augmentation
from pipelines.training.run import train
from pipelines.training.trainer import least_examples
from tests.support import tiny
from tests.support.command import RECIPE, graft, refused
from tests.support.runs import (
    losses,
    one_thread,  # noqa: F401 (a fixture)
    results,
    small,
    without_pictures,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its last feature maps have one pixel, so a batch of one row has nothing to compare there."""
    return tiny.mobilenet(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine training rows: in steps of 4, one row is left for the last."""
    return tiny.photos(
        tmp_path_factory.mktemp("data"), ("cat", "dog", "eel"), n={"train": 3, "validation": 2, "test": 2}, size=32
    )


@pytest.fixture
def start(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))

    def run(name: str, **changes: Any) -> Path:
        base = {"train__batch_size": 4, "train__max_steps": 6, "train__eval_every": "epoch", "train__log_every": 1}
        with without_pictures():
            train(small(model, data, **{**base, **changes}), tmp_path / name, name="small")
        return tmp_path / name

    return run


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "steps"), [(4, "auto", 3), (8, "auto", 2), (8, 1, 2), (2, "auto", 4)], ids=str
)
def test_the_last_row_of_an_epoch_is_not_alone(
    start: Callable[..., Path], batch_size: int, micro_batch: Any, steps: int
) -> None:
    run = start("run", train__batch_size=batch_size, train__micro_batch=micro_batch)
    assert len(losses(run)) == 6
    assert results(run)["train"]["epochs"] == pytest.approx(6 / steps, abs=1e-4)


def test_a_part_that_is_frozen_is_left_to_its_step(start: Callable[..., Path], model: Path, data: Path) -> None:
    """Only the head trains, and it compares no rows: an epoch has the usual number of steps."""
    run = start("run", model__freeze="backbone", train__batch_size=2)
    assert results(run)["train"]["epochs"] == pytest.approx(6 / 5, abs=1e-4)


def test_check_looks_at_the_last_step_too(model: Path, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    asked = [recipe, "--data", data, "--model", model, "options.augment=none"]
    done = graft("check", *asked, "train.batch_size=2", "train.max_steps=null", "train.epochs=3")
    assert done.code == 0, done.err
    assert "training   12 steps of 2" in done.out
    for verb, more in (("check", []), ("train", ["--run", tmp_path / "run"])):
        refused(
            graft(verb, *asked, "train.batch_size=1", *more), 2, "train.batch_size=1", "BatchNorm", "train.batch_size=2"
        )


def test_check_counts_the_steps_of_a_head_with_batch_norm(data: Path, tmp_path: Path) -> None:
    """Nine rows in steps of two: the last row shares a step with two others, also when only the head trains."""
    import transformers

    model, recipe = tiny.resnet(tmp_path / "model"), tmp_path / "recipe.yaml"
    shape: dict[str, Any] = {
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [4, 4, 4],
    }
    downs = [["Subsample", 4, 4, 4, 2, 2], ["Subsample", 4, 4, 4, 2, 2]]
    levit = transformers.LevitConfig(image_size=32, num_labels=3, **shape)
    levit.down_ops = [*downs, [""]]
    transformers.LevitForImageClassification(levit).save_pretrained(model)
    recipe.write_text(RECIPE)
    asked = [
        recipe,
        "--data",
        data,
        "--model",
        model,
        "options.augment=none",
        "train.batch_size=2",
        "train.head_epochs=1",
    ]
    done = graft("check", *asked, "train.max_steps=3")
    assert done.code == 0, done.err
    assert "training   7 steps of 2" in done.out
    with without_pictures():
        done = graft("train", *asked, "train.max_steps=3", "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert results(tmp_path / "run")["train"]["steps"] == 7


def test_one_training_row_is_an_error(model: Path) -> None:
    import transformers

    net = transformers.AutoModelForImageClassification.from_pretrained(model)
    with pytest.raises(
        DataError, match="the train split has one row, and BatchNorm in this model needs two or more: add rows"
    ):
        least_examples(net, 1, 8)
    with pytest.raises(RecipeError, match=r"train\.batch_size=1: BatchNorm"):
        least_examples(net, 9, 1)
    assert least_examples(net, 9, 8) == 2
    freeze(net, [net.mobilenet_v2, net.classifier], "backbone")
    assert least_examples(net, 1, 1) == 1


class Rows(list):
    """Examples, some of which cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if found is None:
            raise DataError(f"row {index} cannot be read")
        return {"id": found}


class Gathers:
    """The parts of a task that Examples needs."""

    augmentation = Augmentation()

    def collate(self, examples: Any) -> dict[str, Any]:
        return {"id": [example["id"] for example in examples]}

    def random_inputs(self, rng: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("rows", "keys", "least", "wanted", "real"),
    [
        (["a", None, "c", "d"], [0, 1], 2, ["a", "c"], True),  # the row after the requested ones
        (["a", None, "c", "d"], [0, 1], 1, ["a"], True),
        (["a", None, "c", "d"], [], 2, ["a", "c"], False),  # the rows that a process without rows runs instead
        ([None, None, "c"], [0, 1], 2, ["c", "c"], False),
        (["a", "b", None], [0, 1], 2, ["a", "b"], True),
    ],
)
def test_rows_that_cannot_be_read_leave_no_other_alone(
    rows: list, keys: list[int], least: int, wanted: list[str], real: bool
) -> None:
    examples = Examples(Gathers(), Rows(rows), least=least)  # type: ignore[arg-type]
    micro = examples[[(0, key) for key in keys]]
    assert (micro.batch["id"], micro.real) == (wanted, real)
    assert [index for index, _ in micro.skipped] == [key for key in keys if rows[key] is None]
