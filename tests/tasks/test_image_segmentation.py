"""Image segmentation: the contract, with a tiny U-Net without batch norm, so that its loss adds up."""

import re
from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe
from pipelines.data.image.label_maps import packed, read_map
from pipelines.metrics import segmentation
from pipelines.models import segmentation as models
from pipelines.models.source import Weights
from tests.support import mask_layouts, tiny, tiny_masks, tiny_queries, tiny_segmenters
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)

LABELS = ("background", "square", "disc")


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "image-segmentation",
            "model": {"config": tiny_segmenters.PLAIN_UNET},
            "data": {"id": str(tiny_masks.shapes(folder / "shapes", n=24, classes=LABELS)), "workers": 0},
            "options": {"image_size": 64, "augment": "photo", "loss": "cross-entropy+dice"},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        maps = [read_map(row, LABELS) for row in rows]
        return [
            {"id": row["id"], "size": list(of.shape), **segmentation.record(of, of, len(LABELS)), "map": packed(of)}
            for row, of in zip(rows, maps, strict=True)
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.jpg",)

    def same(self, printed: str, answer: Any) -> bool:
        found = {label: float(share) for share, label in re.findall(r"(?m)^(\d\.\d+)  (.+)$", printed)}
        return found.keys() == {one["label"] for one in answer} and all(
            abs(found[one["label"]] - one["share"]) < 2e-3 for one in answer
        )


def test_panoptic_data_teach_a_panoptic_model(tmp_path: Path) -> None:
    """Scores, the saved model and its answers know segments, and two evaluations give the same numbers."""
    from pipelines.config.recipe import validate
    from pipelines.evaluation.evaluate import evaluate
    from pipelines.inference.loading import load
    from pipelines.training.run import train

    recipe = validate(
        {
            "task": "image-segmentation",
            "model": {"config": tiny_queries.CONFIGS["mask2former"]},
            "data": {"id": str(mask_layouts.panoptic(tmp_path / "coco")), "workers": 0, "holdout": 0.3},
            "options": {"image_size": 64, "augment": "flip"},
            "train": {"epochs": 1, "batch_size": 2, "precision": "fp32", "metric": "panoptic_quality"},
        }
    )
    results = train(recipe, tmp_path / "run")
    assert results
    metrics = results["test"]["metrics"]
    assert 0 <= metrics["panoptic_quality"] <= 1
    assert {"panoptic_quality_things", "panoptic_quality_stuff", "mean_iou"} <= metrics.keys()
    assert evaluate(tmp_path / "run", split="test")["metrics"] == metrics
    loaded = load(tmp_path / "run", device="cpu")
    assert loaded.task.family.things == ["disc", "square"]
    (image, *_) = sorted((tmp_path / "coco").rglob("*.png"))
    for one in loaded.infer(image):
        assert one.keys() == {"label", "score", "share", "mask"}


ENCODER = "mobilenetv3_small_050"  # takes the place of the encoder in recipes


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    changes = ["options.crop=64"] if recipe.options.crop is not None else []
    changes += ["options.image_size=64"] if recipe.options.resize != "none" else []
    changes += ["options.tile=64", "options.overlap=16"] if recipe.options.tile is not None else []
    if recipe.data.mask_classes:
        changes += ["data.mask_classes=null"]
    if recipe.train.metric is not None:  # tiny data have three classes, and no segments
        changes += ["train.metric=null"]
    data = str(tiny_masks.shapes(folder / "shapes", side=96, classes=LABELS))
    config = recipe.model.config or {}
    if config.get("model_type") == "smp":  # the recipe's own model, on a smaller encoder
        made = tiny.timm_model(folder / "encoder", ENCODER)
        hub.add_model(config["encoder_weights"], made)
        return Served(data, changes=(f"model.config.encoder={ENCODER}", *changes))
    if config.get("model_type") == "torchvision":
        model = tiny_segmenters.tiny_folder("deeplabv3", folder / "model", list(LABELS))
        return Served(data, str(model), tuple(changes))
    kind = "upernet" if "upernet" in str(recipe.model.id) else "segformer"
    if "eomt" in str(recipe.model.id):
        model = folder / "model"
        built, family = models.build(Weights(None, tiny_queries.CONFIGS["eomt"], True), list(LABELS))
        model.mkdir()
        family.save(built, model)
    elif recipe.model.id == "nvidia/mit-b0":  # a classifier of images
        model = tiny_segmenters.classifier_folder("segformer", folder / "model", ["tench", *LABELS])
    else:
        model = tiny_segmenters.tiny_folder(kind, folder / "model", list(LABELS))
    hub.add_model(str(recipe.model.id), model)
    return Served(data, changes=tuple(changes))
