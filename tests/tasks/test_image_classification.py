"""Image classification: the contract, families of models, image size, labels, mixing, class weights."""

import copy
import re
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.image.augment import distort
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.evaluation import scoring
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.models.vision import resize_positions, scaled
from pipelines.tasks.image_classification import ImageClassification, Options
from tests.support import tiny, tiny_imagenet, tiny_pictures
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)

LABELS = ("cat", "dog")


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        model, data = tiny.vit(folder / "vit"), tiny.photos(folder / "photos", n=12)
        return {
            "task": "image-classification",
            "model": {"id": str(model)},
            "data": {"id": str(data), "workers": 0},
            "options": {"augment": "crop-flip"},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        sure = {"confidence": 1.0, "rank": 0}
        return [
            {"id": r["id"], "true": r["label"], "predicted": r["label"], "scores": {r["label"]: 1.0}, **sure}
            for r in rows
        ]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (run / "model" / "examples" / "0.jpg",)

    def same(self, printed: str, answer: Any) -> bool:
        found = {label: float(score) for score, label in re.findall(r"^([\d.]+)\s+(\S+)$", printed, re.M)}
        return found == pytest.approx({a["label"]: a["score"] for a in answer}, abs=6e-4)


@pytest.mark.integration
class TestClassic(TestContract):
    """A network that transformers has no class for: its card carries the code."""

    spine = False

    def recipe(self, folder: Path) -> dict[str, Any]:
        return {**super().recipe(folder), "model": {"config": {"model_type": "lenet", "grayscale": False}}}


class PretrainedContract(TestContract):
    """Layers that are pretrained in half of the steps: tests/integration takes it, the quick suite does not.

    `corruption` is 0, because what it draws depends on the micro-batch, as dropout does.
    """

    def recipe(self, folder: Path) -> dict[str, Any]:
        stack = {"model_type": "autoencoder", "image_size": 8, "hidden_size": 16, "corruption": 0.0}
        options = {"image_size": 8, "augment": "crop-flip", "pretrain": 0.5}
        return {**super().recipe(folder), "model": {"config": stack}, "options": options}


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    classes, data, model = ("cat", "dog", "fox"), None, None
    if recipe.model.id is not None and recipe.model.id.startswith("runs/"):
        model = str(tiny.vit(folder / "vit", size=8))
    elif recipe.model.id is not None:
        kind = (
            "timm_model" if recipe.model.id.startswith("timm/") else "resnet" if "resnet" in recipe.model.id else "vit"
        )
        hub.add_model(recipe.model.id, getattr(tiny, kind)(folder / "model"))
    if recipe.data.format is None and "/" in recipe.data.id:
        splits = [name for name in ("train", "validation", "test") if name in (recipe.data.test, "train")]
        hub.add_dataset(
            recipe.data.id,
            tiny.dataset_repo(folder / "data", classes, n=20, splits=splits, columns=recipe.data.columns),
        )
    elif recipe.data.format == "imagenet":
        data = str(tiny_imagenet.tree(folder / "imagenet", "kaggle"))
    elif recipe.data.format == "mnist":
        data = str(tiny_pictures.idx(folder / "mnist", n=200))
    elif recipe.data.format is None:
        data = str(tiny.photos(folder / "photos", classes, n=12))
    return Served(data, model, ("options.image_size=32",) if recipe.options.image_size else ())  # type: ignore[attr-defined]


# ---- every family works the same way ----

FAMILIES = ("vit", "clip", "resnet", "mobilenet", "convnext", "swin", "timm_model", "timm_wrapper")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_splits(
        DataSection(id=str(tiny.photos(tmp_path_factory.mktemp("photos")))), DataSpec(("image", "label"))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_builds_freezes_saves_and_loads(family: str, photos: Any, tmp_path: Path) -> None:
    folder = getattr(tiny, family)(tmp_path / "model")
    recipe = validate(
        {
            "task": "image-classification",
            "model": {"id": str(folder), "freeze": "backbone"},
            "data": {"id": "x"},
            "train": {"epochs": 1},
        }
    )
    task = ImageClassification(Options())
    model = build(recipe, task, resolve(recipe.model), photos)
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trains
    assert all("class" in n or "head" in n or "fc" in n for n in trains)
    task.save(model, tmp_path / "saved")
    again = ImageClassification()
    loaded = again.load(tmp_path / "saved")
    assert again.labels == ["cat", "dog"]
    batch = Examples(task, task.encode(photos.test))[[(None, 0), (None, 1)]].batch
    with torch.no_grad():
        one, two = (m.eval()(pixel_values=batch["pixel_values"]).logits for m in (model, loaded))
    assert torch.equal(one, two)
    assert again.predict(loaded, batch)[0]["id"] == photos.test[0]["id"]


def test_only_the_head_is_new(photos: Any, tmp_path: Path) -> None:
    """The trunk's weights equal those of the file, in float32, whatever the type in the file."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForImageClassification

    folder = tiny.vit(tmp_path / "half")
    weights = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = ImageClassification().build(resolve(ModelSection(id=str(folder))), photos)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier")}
    plain = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float16).state_dict()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert len(own) > 10
    assert all(torch.equal(own[k], plain[k].float()) for k in own)
    assert model.classifier.weight.shape[0] == 2


# ---- image size ----


@pytest.mark.parametrize(("family", "size"), [("vit", 48), ("resnet", 48), ("timm_wrapper", 64)])
def test_image_size_is_kept_by_the_saved_model(family: str, size: int, photos: Any, tmp_path: Path) -> None:
    folder = getattr(tiny, family)(tmp_path / "model")
    task = ImageClassification(Options(image_size=size))
    model = task.build(resolve(ModelSection(id=str(folder))), photos)
    batch = Examples(task, task.encode(photos.test))[[(None, 0)]].batch
    assert batch["pixel_values"].shape == (1, 3, size, size)
    task.save(model, tmp_path / "saved")
    again = ImageClassification()
    loaded = again.load(tmp_path / "saved")
    batch = Examples(again, again.encode(photos.test))[[(None, 0)]].batch
    assert batch["pixel_values"].shape == (1, 3, size, size)
    assert loaded(pixel_values=batch["pixel_values"]).logits.shape == (1, 2)


def test_positions_resize_to_themselves() -> None:
    positions = torch.randn(1, 1 + 16, 8)
    assert torch.allclose(resize_positions(positions, 17), positions, atol=1e-6)
    bigger = resize_positions(positions, 1 + 64)
    assert bigger.shape == (1, 65, 8)
    assert torch.equal(bigger[:, 0], positions[:, 0])


# ---- options ----


def test_mixing_keeps_targets_whole(photos: Any, tmp_path: Path) -> None:
    task = ImageClassification(Options(mixup=0.4, cutmix=1.0, augment="crop-flip"))
    task.build(resolve(ModelSection(id=str(tiny.vit(tmp_path / "m")))), photos)
    examples = Examples(task, task.encode(photos.train), seed=0, augmented=True)
    batches = [examples[[(epoch, i) for i in range(8)]].batch for epoch in range(6)]
    targets = torch.cat([b["target"] for b in batches])
    assert torch.allclose(targets.sum(1), torch.ones(len(targets)))
    assert ((targets > 0).sum(1) == 2).any()
    assert not torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])


def test_distorted_images_are_not_mirrored_and_keep_their_ground() -> None:
    """A bar on the left of a grey page stays on the left, and no black or white comes into view."""
    pixels = np.full((30, 40, 3), 90, np.uint8)
    pixels[5:25, 5:12] = 200
    image = Image.fromarray(pixels)
    made = [np.asarray(distort(image, (24, 32), Random(seed))) for seed in range(50)]
    assert all(one.shape == (24, 32, 3) and one.min() >= 85 and one.max() <= 200 for one in made)
    assert all(one[:, :16].mean() > one[:, 16:].mean() for one in made)
    assert len({one.tobytes() for one in made}) == 50
    assert np.array_equal(made[7], np.asarray(distort(image, (24, 32), Random(7))))


def test_randaugment_is_a_function_of_its_seed(photos: Any, tmp_path: Path) -> None:
    task = ImageClassification(Options(augment="randaugment"))
    task.build(resolve(ModelSection(id=str(tiny.vit(tmp_path / "m")))), photos)
    example = task.encode(photos.train)[0]
    torch.manual_seed(1)
    one = task.augment(example, Random(5), 0.0)["pixels"]
    torch.manual_seed(2)
    assert torch.equal(one, task.augment(example, Random(5), 0.0)["pixels"])
    assert not torch.equal(one, task.augment(example, Random(6), 0.0)["pixels"])


def test_balanced_weights_make_classes_count_the_same(tmp_path: Path) -> None:
    rows = load_splits(DataSection(id=str(tiny.photos(tmp_path / "p", n=10, splits=()))), DataSpec(("image", "label")))
    rows.train = rows.train.select([i for i, label in enumerate(rows.train["label"]) if label == "cat" or i % 4 == 0])
    task = ImageClassification(Options(class_weights="balanced"))
    model = task.build(resolve(ModelSection(id=str(tiny.vit(tmp_path / "m")))), rows)
    by_label = {label: rows.train["label"].count(label) * task.weights[label] for label in LABELS}
    assert by_label["cat"] == pytest.approx(by_label["dog"])
    batch = Examples(task, task.encode(rows.train))[[(None, i) for i in range(len(rows.train))]].batch
    logits = model.eval()(pixel_values=batch["pixel_values"]).logits
    classes = torch.tensor([LABELS.index(t) for t in batch["true"]])
    weight = torch.tensor([task.weights[label] for label in LABELS])
    expected = torch.nn.functional.cross_entropy(logits, classes, weight=weight)  # torch's own weighted mean
    assert float(task.loss(model, batch, task.counts(batch), "main", 0).detach()) == pytest.approx(
        float(expected.detach()), rel=1e-5
    )


def test_several_labels(tmp_path: Path) -> None:
    """csv with `a|b`: every label has a sigmoid score, and perfect records score 1."""
    folder = tiny.photos(tmp_path / "p", n=12, splits=())
    files = sorted(folder.rglob("*.jpg"))
    lines = [f"{f.relative_to(folder)},{'cat|pet' if 'cat' in f.parent.name else 'dog|pet|big'}" for f in files]
    (folder / "all.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    rows = load_splits(DataSection(id=str(folder / "all.csv")), DataSpec(("image", "label")))
    task = ImageClassification(Options(multi_label=True))
    model = task.build(resolve(ModelSection(id=str(tiny.vit(tmp_path / "m")))), rows)
    assert task.labels == ["big", "cat", "dog", "pet"]
    batch = Examples(task, task.encode(rows.train))[[(None, 0), (None, 1)]].batch
    assert set(batch["target"].unique().tolist()) == {0.0, 1.0}
    record = task.predict(model.eval(), batch)[0]
    assert set(record["scores"]) == set(task.labels)
    truth = {r["id"]: r["label"].split("|") for r in rows.train}
    perfect = [
        {"id": i, "true": t, "predicted": t, "scores": {n: float(n in t) for n in task.labels}}
        for i, t in truth.items()
    ]
    assert set(scoring.scores(task, perfect, None).values()) == {1.0}


def test_a_configuration_that_drops_too_much_is_corrected(
    photos: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.mobilenet(tmp_path / "m")
    built = SimpleNamespace(auto=ImageClassification(), told=ImageClassification(Options(dropout=0.5)))
    assert built.auto.build(resolve(ModelSection(id=str(folder))), photos).dropout.p == 0.2
    assert built.told.build(resolve(ModelSection(id=str(folder))), photos).dropout.p == 0.5
    assert "0.8" in caplog.text


def test_running_statistics_outlive_a_batch(photos: Any, tmp_path: Path) -> None:
    """transformers' MobileNets have a BatchNorm momentum of 0.997: one batch would replace the statistics."""
    model = ImageClassification().build(resolve(ModelSection(id=str(tiny.mobilenet(tmp_path / "m")))), photos)
    found = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert found == {0.1}


@pytest.mark.parametrize("kind", ["V1", "V2"])
def test_a_mobilenet_answers_as_plain_transformers_does(kind: str) -> None:
    """The convolution pads by itself and ReLU6 works in place: results equal the library's, for even and odd sizes."""
    import transformers

    from pipelines.models.vision import laid_out

    config = getattr(transformers, f"MobileNet{kind}Config")(depth_multiplier=0.25, num_labels=3)
    torch.manual_seed(0)
    plain = getattr(transformers, f"MobileNet{kind}ForImageClassification")(config).eval()
    ours = laid_out(copy.deepcopy(plain))
    assert {layer.config.tf_padding for layer in ours.modules() if type(layer).__name__.endswith("ConvLayer")} == {
        True,
        False,
    }
    for size in (32, 45):
        pixels = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.allclose(
                ours(pixel_values=pixels).logits, plain(pixel_values=pixels).logits, rtol=1e-4, atol=1e-6
            )
    assert ours.config.tf_padding


@pytest.mark.parametrize(
    "name", ["MobileViTImageProcessor", "EfficientNetImageProcessor", "ViTImageProcessor", "ConvNextImageProcessor"]
)
def test_augmented_pixels_are_on_the_scale_of_the_model(name: str) -> None:
    """What a processor does beyond mean and deviation (swap channels, scale twice) also applies to augmented images."""
    import transformers

    task = ImageClassification(Options(augment="crop-flip"))
    edge = "shortest_edge" in str(getattr(transformers, name)().size)
    size = (
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        if edge
        else {"size": {"height": 32, "width": 32}}
    )
    task.processor = getattr(transformers, name)(**size)
    image = tiny.picture(0, 2, 32, np.random.default_rng(0))
    by_processor = task.processor(image, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(scaled(task.processor, image), by_processor)
    channels = task.processor(image, return_tensors="pt")["pixel_values"][0].mean((1, 2))
    assert torch.allclose(by_processor.mean((1, 2)), channels, atol=0.05)
