"""Classes that a pretrained U-Net learns: it starts unchanged, and class embeddings train whatever is frozen.

Other data and older runs work too.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.recipe import load_recipe, validate
from pipelines.errors import DataError
from pipelines.evaluation.evaluate import evaluate
from pipelines.inference.loading import load
from pipelines.models import unet
from pipelines.publishing.card import write_card
from pipelines.training.run import train
from pipelines.training.run_folder import claim
from tests.integration.test_class_conditional import COLOURS, classes
from tests.support import tiny_pictures
from tests.tasks import (
    test_unconditional_image_generation as contract,
)  # import the module and not its classes: pytest would collect them here too
from tests.tasks.test_unconditional_image_generation import pipeline


def read(folder: Path, labels: list[str]) -> Any:
    return unet.read_unet(folder, None, size=None, labels=labels).eval()


def test_a_model_without_classes_begins_as_it_was(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "base")
    plain, new = unet.read_unet(folder, None, size=None), read(folder, COLOURS)
    assert new.config.num_class_embeds == 3
    images, times = torch.randn(3, 3, 8, 8), torch.tensor([0, 5, 90])
    with torch.no_grad():
        assert torch.equal(new(images, times, torch.arange(3)).sample, plain(images, times).sample)
    assert new.class_embedding.weight.requires_grad


def test_known_classes_keep_what_they_learned(tmp_path: Path) -> None:
    folder = classes(tmp_path / "base", ["dog", "cat"])
    own = unet.read_unet(folder, None, size=None).class_embedding.weight
    new = read(folder, ["ant", "cat", "dog"]).class_embedding.weight
    torch.testing.assert_close(new, torch.stack([own.mean(0), own[1], own[0]]))


@pytest.mark.parametrize("how", [{"adapter": {"kind": "lora", "rank": 2}}, {"freeze": "backbone"}, {"freeze": 1}])
def test_the_classes_train_whatever_is_frozen(how: dict[str, Any], tmp_path: Path) -> None:
    raw = contract.TestContractOfClasses().recipe(tmp_path)
    raw["model"] = {"id": str(pipeline(tmp_path / "base")), **how}
    raw["options"] |= {"samples": 0, "grid": 0}
    raw["train"] |= {"epochs": 1, "ema": None, "learning_rate": 1e-2}
    assert train(validate(raw), tmp_path / "run", name="x")
    model = load(tmp_path / "run", device="cpu")
    assert (model.model.class_embedding.weight.std(0) > 0).any()  # type: ignore[operator, union-attr]


def test_scored_on_other_data_where_nothing_was_trained_here(tmp_path: Path) -> None:
    """The labels are then columns that it needs."""
    folder = classes(tmp_path / "elsewhere", ["red", "green"])
    task = load(folder, device="cpu").task
    assert (tuple(task.data.columns), task.data.optional_columns) == (("image", "label"), {})
    data = tiny_pictures.shape_classes(tmp_path / "data", n=12, size=10)
    with pytest.raises(DataError, match=r"label 'blue' is none that this model knows \(red, green\)"):
        evaluate(folder, data=str(data), device="cpu")
    shutil.rmtree(data / "blue")
    assert evaluate(folder, data=str(data), device="cpu")["n"] == 8


def test_a_run_older_than_the_option_goes_on(tmp_path: Path) -> None:
    raw = contract.TestContractOfClasses().recipe(tmp_path)
    del raw["options"]["class_conditional"]
    raw["options"] |= {"samples": 0, "grid": 0}
    raw["train"] |= {"epochs": 1}
    assert train(validate(raw), tmp_path / "run", name="x")
    path = tmp_path / "run" / "recipe.yaml"
    lines = [line for line in path.read_text().splitlines() if "class_conditional" not in line]
    path.write_text("\n".join(lines) + "\n")
    recipe = load_recipe(path)
    assert claim(tmp_path / "run", recipe) is not None
    write_card(tmp_path / "run")
