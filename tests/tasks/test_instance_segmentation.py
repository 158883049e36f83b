"""Instance segmentation: the contract, with a tiny Mask R-CNN of torchvision and a tiny Mask2Former."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.config.recipe import Recipe, validate
from pipelines.models import mask_classification
from pipelines.training.run import train
from tests.support import tiny_boxes, tiny_instances, tiny_queries
from tests.support.hub import HubServer
from tests.support.runs import without_pictures
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    may_be_undefined = tiny_boxes.UNDEFINED
    inexact = 0.1  # the region heads of Mask R-CNN average over the sampled proposals of a micro-batch

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "instance-segmentation",
            "model": {"config": tiny_boxes.config("maskrcnn")},
            "data": {"id": str(tiny_boxes.shapes(folder / "shapes", n=24)), "workers": 0},
            "options": {"augment": "mosaic"},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return tiny_boxes.perfect(rows, masks=True)

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.jpg",)

    def surer(self, run: Path, folder: Path) -> Path:
        return tiny_boxes.surer(run, folder)

    def same(self, printed: str, answer: Any) -> bool:
        return tiny_boxes.as_printed(printed, answer)


class TestQueriesContract(TestContract):
    """Mask2Former, which finds masks with queries. Its points are drawn from seeds of images, so its sums are exact."""

    name = "queries"
    inexact = 1e-5
    spine = False
    # these do not depend on the family of the model
    test_the_app_builds = test_published_and_loaded_is_the_same = None  # type: ignore[assignment]
    test_training_rows_stay_training_rows = test_its_mistakes_can_be_looked_at = None  # type: ignore[assignment]

    def recipe(self, folder: Path) -> dict[str, Any]:
        recipe = super().recipe(folder)
        train = {**recipe["train"], "learning_rate": 1e-4}  # faster ones leave every mask empty at first
        of_queries = {"model": {"config": tiny_queries.CONFIGS["mask2former"]}, "options": {"image_size": 64}}
        return {**recipe, **of_queries, "train": train}

    def surer(self, run: Path, folder: Path) -> Path:
        copied = tiny_boxes.surer(run, folder)
        config = json.loads((copied / "model" / "config.json").read_text())
        (copied / "model" / "config.json").write_text(json.dumps(config | {"detection_threshold": 0.01}))
        return copied


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    if "mask2former" in str(recipe.model.id):
        hub.add_model(recipe.model.id, tiny_queries.segmenter(folder / "model", "mask2former", ["person", "car"]))
        hub.add_dataset(recipe.data.id, tiny_instances.instance_maps(folder / "data"))
        return Served(changes=("options.image_size=64",))
    model = tiny_boxes.model(folder / "model", "maskrcnn")
    if recipe.model.id is not None and not recipe.model.id.startswith("torchvision/"):
        hub.add_model(recipe.model.id, model)
        return Served(str(tiny_boxes.shapes(folder / "shapes")))
    return Served(str(tiny_boxes.shapes(folder / "shapes")), str(model))


def test_the_masked_attention_of_eomt_follows_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head stage is before the schedule. Scores and the saved model are without masked attention."""
    seen: list[float] = []
    real = mask_classification.annealed

    def annealed(progress: float, blocks: int) -> list[float]:
        seen.append(progress)
        return real(progress, blocks)

    monkeypatch.setattr(mask_classification, "annealed", annealed)
    data = {"id": str(tiny_boxes.shapes(tmp_path / "shapes", n=24)), "workers": 0}
    settings = {"max_steps": 4, "head_epochs": 1, "batch_size": 10, "precision": "fp32", "baseline": False}
    model = {"config": tiny_queries.CONFIGS["eomt"]}
    recipe = validate({"task": "instance-segmentation", "model": model, "data": data, "train": settings})
    with without_pictures():
        assert train(recipe, tmp_path / "run", name="eomt")
    steps = seen[-4:]
    assert steps == [0, 0.25, 0.5, 0.75]
    assert set(seen[:-4]) == {0.0}
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert weights["attn_mask_probs"].tolist() == [0, 0]
