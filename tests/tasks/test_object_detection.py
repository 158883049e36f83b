"""Object detection: the contract, with RetinaNet of torchvision, whose loss adds up."""

from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe
from tests.support import tiny_boxes, tiny_detectors
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    may_be_undefined = tiny_boxes.UNDEFINED

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "object-detection",
            "model": {"config": tiny_boxes.config("retinanet")},
            "data": {"id": str(tiny_boxes.shapes(folder / "shapes", n=24)), "workers": 0},
            "options": {"augment": "mosaic"},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return tiny_boxes.perfect(rows, masks=False)

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.jpg",)

    def surer(self, run: Path, folder: Path) -> Path:
        return tiny_boxes.surer(run, folder)

    def same(self, printed: str, answer: Any) -> bool:
        return tiny_boxes.as_printed(printed, answer)


# kinds of transformers' detectors that the recipes fine-tune, and classes of which they know one of three
KINDS = {
    "facebook/detr-resnet-50": "detr",
    "hustvl/yolos-tiny": "yolos",
    "PekingU/rtdetr_v2_r18vd": "rt_detr_v2",
    "ustc-community/dfine-small-coco": "d_fine",
}
CLASSES = ("N/A", "square", "cat", "N/A")  # the published DETR has several classes "N/A", too


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    data = str(tiny_boxes.shapes(folder / "shapes"))
    if recipe.model.id is None or recipe.model.id.startswith(("torchvision/", "libreyolo/")):
        return Served(data, str(tiny_boxes.model(folder / "model", "ssdlite320_mobilenet_v3_large")))
    hub.add_model(recipe.model.id, tiny_detectors.detector(folder / "model", KINDS[recipe.model.id], CLASSES))
    return Served(data)
