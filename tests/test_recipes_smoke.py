"""Every shipped recipe is run for two steps, as its header says, with tiny models and data under its real hub ids."""

import json
from pathlib import Path

import pytest

from pipelines.catalog import recipe_paths
from pipelines.recipe import Recipe, load_recipe
from pipelines.run import train
from tests import tiny
from tests.hub import HubServer, hub  # noqa: F401 (a fixture)

RECIPES = recipe_paths()
CLASSES = ("cat", "dog", "fox")


def serve(recipe: Recipe, hub: HubServer, folder: Path) -> tuple[str | None, str | None]:  # noqa: F811
    """Put a tiny model and a tiny data set under the recipe's ids; returns --data and --model where an id is a place on disk."""
    data, model = None, None
    if recipe.model.id is not None and recipe.model.id.startswith("runs/"):
        model = str(tiny.vit(folder / "vit", size=8))
    elif recipe.model.id is not None:
        kind = "timm_model" if recipe.model.id.startswith("timm/") else "resnet" if "resnet" in recipe.model.id else "vit"
        hub.add_model(recipe.model.id, getattr(tiny, kind)(folder / "model"))
    if recipe.data.format is None and "/" in recipe.data.id:
        splits = [name for name in ("train", "validation", "test") if name in (recipe.data.test, "train")]
        hub.add_dataset(recipe.data.id, tiny.dataset_repo(folder / "data", CLASSES, n=20, splits=splits, columns=recipe.data.columns))
    elif recipe.data.format is None:
        data = str(tiny.photos(folder / "photos", CLASSES, n=12))
    return data, model


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name: str, hub: HubServer, tmp_path: Path) -> None:  # noqa: F811
    shipped = load_recipe(name)
    data, model = serve(shipped, hub, tmp_path)
    # the pictures and models are tiny, so is what they are resized to; every other setting is the recipe's own
    small = ["options.image_size=32"] if shipped.options.image_size else []
    recipe = load_recipe(name, ["train.max_steps=2", "train.head_epochs=0", "train.precision=fp32", *small], data=data, model=model)
    results = train(recipe, tmp_path / "run", name=name, smoke=True)
    assert results
    assert results["train"]["steps"] == 2
    assert results["test"]["n"] > 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert str(tmp_path) not in card
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results


def test_all_of_them_were_run() -> None:
    assert len(RECIPES) == 11
