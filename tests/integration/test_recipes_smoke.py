"""Every shipped recipe is run for two steps, as its header says, with tiny models and data under its real hub ids.

The task's own test gives the tiny models and data: `served(recipe, hub, folder)` in tests/tasks/test_<task>.py.
"""

import contextlib
import importlib
import json
from pathlib import Path

import pytest

from pipelines.config.catalog import recipe_paths
from pipelines.config.recipe import load_recipe, task_names
from pipelines.models.source import DESCRIBED
from pipelines.training.run import train
from pipelines.utils.files import to_json
from tests.support.hub import HubServer, hub  # noqa: F401 (a fixture)
from tests.support.runs import without_pictures

RECIPES = recipe_paths()
# One recipe per task has its figures and report drawn, and belongs to `make test`.
DRAWN = list({path.parent: name for name, path in sorted(RECIPES.items())}.values())
OTHERS = [name for name in RECIPES if name not in DRAWN]
RAN: list[str] = []


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.quick) for name in DRAWN), *OTHERS])
def test_a_recipe_runs(name: str, hub: HubServer, tmp_path: Path) -> None:
    shipped = load_recipe(name)
    task = importlib.import_module(f"tests.tasks.test_{shipped.task.replace('-', '_')}")
    served = task.served(shipped, hub, tmp_path)
    # models and data are tiny, and so are the sizes that the task's test names; every other setting is the recipe's own
    quick = ["train.max_steps=2", "train.head_epochs=0", "train.precision=fp32", *served.changes]
    recipe = load_recipe(name, quick, data=served.data, model=served.model)
    with contextlib.nullcontext() if name in DRAWN else without_pictures():
        results = train(recipe, tmp_path / "run", name=name, smoke=True)
    assert results
    assert results["train"]["steps"] == 2
    assert results["test"]["n"] > 0
    assert any((tmp_path / "run" / "model" / name).is_file() for name in DESCRIBED)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert str(tmp_path) not in card
    # an undefined score is null in the file
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == json.loads(to_json(results))
    RAN.append(name)


@pytest.mark.parametrize(
    "part", [pytest.param(DRAWN, id="drawn", marks=pytest.mark.quick), pytest.param(OTHERS, id="others")]
)
def test_all_of_them_were_run(part: list[str], request: pytest.FixtureRequest) -> None:
    files = [p for p in (Path(__file__).parents[2] / "recipes").glob("*/*.yaml") if p.parent.name != "launch"]
    assert len(RECIPES) == len(files) >= 15
    assert sorted(DRAWN + OTHERS) == sorted(RECIPES)
    assert len(DRAWN) == len(task_names())
    chosen = {name for name in RECIPES for item in request.session.items if item.name == f"test_a_recipe_runs[{name}]"}
    assert set(RAN) & set(part) == chosen & set(part)
    if not request.config.option.keyword and "::" not in " ".join(
        request.config.args
    ):  # skip this check if only some of the recipes were selected
        assert chosen >= set(part)
