"""Image segmentation: the contract, with a tiny U-Net without batch norm, so that its loss adds up."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import Recipe, validate
from pipelines.data.image.label_maps import packed, read_map
from pipelines.errors import RecipeError
from pipelines.evaluation.evaluate import evaluate
from pipelines.inference.loading import load
from pipelines.metrics import segmentation
from pipelines.models import segmentation as models
from pipelines.models import segmentation_dense
from pipelines.models.source import Weights
from pipelines.tasks import image_segmentation
from pipelines.tasks.image_segmentation import ImageSegmentation
from pipelines.training.run import train
from tests.support import mask_layouts, tiny, tiny_masks, tiny_queries, tiny_segmenters
from tests.support.hub import HubServer
from tests.support.runs import without_pictures
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


# ---- sizes ----


def run_of(folder: Path, model: dict[str, Any], options: dict[str, Any], **train_keys: Any) -> Any:
    """Two steps on images of two sizes; the results, or the error."""
    data = folder / "shapes"
    if not data.exists():
        tiny_masks.shapes(data, n=12, classes=LABELS)
        tiny_masks.shapes(folder / "large", n=6, side=150, classes=LABELS)
        for path in (folder / "large" / "images").rglob("*.png"):
            for kind in ("images", "masks"):
                inner = path.relative_to(folder / "large" / "images")
                target = data / kind / inner.parent / f"large_{inner.name}"
                (folder / "large" / kind / inner).rename(target)
    raw = {
        "task": "image-segmentation",
        "model": {"config": model},
        "data": {"id": str(data), "workers": 0, "group": "none"},
        "options": options,
        "train": {"max_steps": 2, "batch_size": 4, "precision": "fp32", "baseline": False, **train_keys},
    }
    with without_pictures():
        return train(validate(raw), folder / f"run{len(list(folder.iterdir()))}")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("unet", {"resize": "none", "tile": 64, "overlap": 16}),
        ("unet", {"resize": "none", "crop": 96, "tile": 96, "augment": "micrograph"}),
        ("unet", {"resize": "shorter", "image_size": 80}),
        ("unet", {"image_size": 64, "scale": [0.5, 1.5]}),
        ("eomt", {"resize": "none", "crop": 64, "augment": "photo"}),
        ("eomt", {"resize": "shorter", "crop": 64}),
        ("eomt", {"crop": 48}),
        ("eomt", {}),
        ("dpt", {"resize": "shorter", "crop": 64}),
    ],
)
def test_images_of_two_sizes_are_trained_and_scored(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    known = {"unet": tiny_segmenters.UNET, "eomt": tiny_queries.CONFIGS["eomt"], "dpt": tiny_segmenters.DPT}
    results = run_of(tmp_path, known[kind], options)
    assert results
    assert results["test"]["n"] == 3
    assert 0 < results["test"]["metrics"]["pixel_accuracy"] <= 1


@pytest.mark.parametrize("options", [{"resize": "shorter"}, {"resize": "none", "crop": 64}])
def test_a_head_is_trained_first_at_these_sizes_too(options: dict[str, Any], tmp_path: Path) -> None:
    sizes = []

    def seen(self: Any, model: Any, batch: Any, *args: Any) -> Any:
        sizes.append(tuple(batch["pixel_values"].shape[-2:]))
        return loss(self, model, batch, *args)

    loss = segmentation_dense.Dense.loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation_dense.Dense, "loss", seen)
        assert run_of(tmp_path, tiny_segmenters.UNET, options, head_epochs=1)
    if "crop" in options:
        assert set(sizes) == {(64, 64)}


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("eomt", {"resize": "none"}, "options.crop: this model takes images of 64 x 64"),
        ("eomt", {"resize": "shorter", "crop": 96}, "options.crop: this model takes images of 64 x 64"),
        ("eomt", {"crop": 96}, "at most 64"),
        ("dpt", {"resize": "shorter"}, "options.crop: this model takes images of"),
        ("eomt", {"overlap": 48}, "options.overlap: at most half of the tile, 32"),
        ("unet", {"tile": 32, "resize": "none"}, "options.tile: this model divides its input by 32"),
        ("unet", {"tile": 64, "overlap": 40, "resize": "none"}, "options.overlap: at most half of the tile, 32"),
    ],
)
def test_sizes_that_do_not_fit_the_model_are_refused_before_the_training(
    kind: str, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    known = {"unet": tiny_segmenters.UNET, "eomt": tiny_queries.CONFIGS["eomt"], "dpt": tiny_segmenters.DPT}
    with pytest.raises(RecipeError, match=re.escape(says)):
        run_of(tmp_path, known[kind], options)


@pytest.mark.parametrize("metric", ["panoptic_quality", "foreground_dice"])
def test_a_score_that_these_data_cannot_give_is_refused_before_the_training(metric: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"train.metric: image-segmentation gives no score '{metric}'"):
        run_of(tmp_path, tiny_segmenters.UNET, {}, metric=metric)


def test_a_model_that_answered_can_train(tmp_path: Path) -> None:
    """transformers' BEiT keeps a tensor of its first forward pass."""
    task = ImageSegmentation()
    model, task.family = tiny_segmenters.tiny("beit")
    task.labels = list(task.family.labels)
    list(task.infer(model.eval(), Image.new("RGB", (64, 64))))
    batch = tiny_segmenters.made_up()
    task.loss(model, batch, task.counts(batch), "main", 0).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_with_fsdp_images_need_one_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The processes would run the model a different number of times."""
    monkeypatch.setattr(image_segmentation, "shares", SimpleNamespace(asked=lambda: True))
    with pytest.raises(RecipeError, match=r"options\.resize: with FSDP every process"):
        run_of(tmp_path, tiny_segmenters.UNET, {"resize": "shorter"})


def test_a_panoptic_eomt_sees_what_its_processor_gives(tmp_path: Path) -> None:
    """The longest side has the model's size, and the rest is black."""
    from transformers import AutoImageProcessor

    task = ImageSegmentation()
    model, task.family = models.build(Weights(None, tiny_queries.CONFIGS["eomt"], True), list(LABELS))
    task.labels, task.family.things = list(LABELS), ["disc"]
    task.family.save(model, tmp_path)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8))
    example = {"id": "a", "row": 0, "image": photo, "map": np.zeros((50, 100), np.int16), "size": (50, 100)}
    batch = task.collate([example])
    expected = AutoImageProcessor.from_pretrained(tmp_path)(photo, return_tensors="pt").pixel_values
    assert batch["pixel_values"].shape == expected.shape == (1, 3, 64, 64)
    assert batch["inner"] == [(32, 64)]
    assert (batch["pixel_values"] - expected).abs().max() < 0.1  # Pillow and torchvision round differently
    assert (batch["map"][0, 32:] == -1).all()


def test_a_panoptic_model_answers_about_the_complete_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it was trained on parts."""
    task = ImageSegmentation(image_segmentation.Options(image_size=64, crop=32))
    model, task.family = models.build(Weights(None, tiny_queries.CONFIGS["mask2former"], True), list(LABELS))
    task.labels, task.family.things = list(LABELS), ["disc"]
    shapes = []
    panoptic = task.family.panoptic
    monkeypatch.setattr(
        task.family,
        "panoptic",
        lambda model, pixels, *given: shapes.append(pixels.shape) or panoptic(model, pixels, *given),
    )
    list(task.infer(model.eval(), Image.new("RGB", (90, 70))))
    assert shapes == [(1, 3, 64, 64)]
