"""Images of a class: a U-Net that learns classes, its pipeline in plain diffusers, its classes by name."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    UNet2DModel,
)
from PIL import Image

from pipelines.apps import gallery
from pipelines.config.recipe import validate
from pipelines.data.labels import labels_in_proportion
from pipelines.errors import DataError, ModelError
from pipelines.generation import comparison
from pipelines.generation.feature_extractors import Extractor
from pipelines.inference.loading import Loaded, load
from pipelines.inference.predict import predict
from pipelines.models import unet
from pipelines.tasks.unconditional_image_generation import Options, UnconditionalImageGeneration
from pipelines.training.run import train
from tests.support import tiny_pictures
from tests.support.pages import gradio_page  # noqa: F401 (a fixture)
from tests.tasks import (
    test_unconditional_image_generation as contract,
)  # import the module and not its classes: pytest would collect them here too
from tests.tasks.test_unconditional_image_generation import pipeline, small

COLOURS = ["blue", "green", "red"]


def classes(folder: Path, labels: list[str] | None = None, **fields: Any) -> Path:
    """A tiny pretrained pipeline of two classes."""
    torch.manual_seed(2)
    config = {key: value for key, value in small(num_class_embeds=2, **fields).items() if key != "model_type"}
    ConsistencyModelPipeline(UNet2DModel(**config), DDPMScheduler(num_train_timesteps=100)).save_pretrained(folder)
    if labels is not None:
        unet.write_labels(folder, labels)
    return folder


SIZE = "8 x 8, enlarged 32 times"


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train from a model that knew no classes."""
    folder = tmp_path_factory.mktemp("classes")
    raw = contract.TestContractOfClasses().recipe(folder)
    raw["model"] = {"id": str(pipeline(folder / "base"))}
    raw["train"] |= {"epochs": 2, "learning_rate": 1e-2, "ema": None}
    assert train(validate(raw), folder / "colours")
    return folder / "colours"


@pytest.fixture(scope="module")
def model(run: Path) -> Loaded:
    return load(run, device="cpu")


# ---- the saved pipeline ----


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_plain_diffusers_makes_the_same_images(sampler: str, model: Loaded, tmp_path: Path) -> None:
    task = model.task
    other = UnconditionalImageGeneration(task.options.model_copy(update={"sampler": sampler}))
    other.labels, other.scheduler = COLOURS, task.scheduler
    other.save(model.model, tmp_path)
    model = load(tmp_path, device="cpu")
    assert model.task.options.sampler == sampler
    plain = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(plain) is ConsistencyModelPipeline
    assert type(plain.scheduler) is (DDPMScheduler if sampler == "ddpm" else DDIMScheduler)
    by_diffusers = plain(
        batch_size=3,
        class_labels=[0, 1, 2],
        num_inference_steps=5,
        generator=[torch.Generator().manual_seed(4) for _ in range(3)],
    ).images
    own = [model.infer(4, steps=5, label=label) for label in COLOURS]
    for one, other in zip(by_diffusers, own, strict=True):
        assert np.array_equal(pixels(one), pixels(other))
    assert len({image.tobytes() for image in own}) == 3  # one seed, three classes


def test_classes_are_known_by_their_names(run: Path, model: Loaded) -> None:
    assert model.task.labels == COLOURS
    assert json.loads((run / "model" / "id2label.json").read_text()) == {"0": "blue", "1": "green", "2": "red"}
    results = json.loads((run / "results.json").read_text())
    assert results["labels"] == COLOURS
    assert results["samples"]["classes"] == 3
    card = (run / "model" / "README.md").read_text()
    assert "class_labels=[0], " in card
    assert "0 blue, 1 green, 2 red." in card
    assert "of 3 classes in the proportions of the test split" in card


def test_a_pair_of_sides_becomes_one_number(tmp_path: Path) -> None:
    """diffusers' pipeline cannot use the value [8, 8]."""
    model = load(classes(tmp_path / "pair", sample_size=[8, 8]), device="cpu")
    model.task.save(model.model, tmp_path / "saved")
    plain = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert plain(class_labels=[1], num_inference_steps=2).images[0].size == (8, 8)


def test_samples_have_the_proportions_of_the_data() -> None:
    labels = ["a"] * 6 + ["c"] * 3 + ["b"] * 3
    assert labels_in_proportion(labels, 4) == ["a", "b", "c", "a"]
    assert Counter(labels_in_proportion(labels, 400)) == {"a": 200, "b": 100, "c": 100}
    assert labels_in_proportion(labels[::-1], 50) == labels_in_proportion(labels, 50)
    assert labels_in_proportion(["a", "b", "c"] * 7, 6) == ["a", "b", "c"] * 2


def test_an_image_is_the_same_in_any_batch_and_seeds_take_classes_in_turn(model: Loaded) -> None:
    asked = [{"seed": seed, "label": COLOURS[seed % 3]} for seed in range(5)]
    alone = [model.infer(one["seed"], steps=3, label=one["label"]) for one in asked]
    assert model.task.options.steps == 3
    together = model.task.generation.generate(model.model, asked)
    for one, other, request in zip(alone, together, asked, strict=True):
        assert np.abs(pixels(one).astype(int) - pixels(other)).max() <= 1  # equal except for rounding
        assert np.array_equal(pixels(one), pixels(model.infer(request["seed"], steps=3)))


def test_names_of_classes_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    folder = classes(tmp_path / "plain")
    assert load(folder, device="cpu").task.labels == ["0", "1"]
    assert load(classes(tmp_path / "named", ["cat", "dog"]), device="cpu").task.labels == ["cat", "dog"]
    for text in ("{", '{"0": "cat"}', '["cat", "dog"]'):
        (folder / "id2label.json").write_text(text)
        with pytest.raises(ModelError, match=r"id2label\.json: no names of 2 classes"):
            load(folder, device="cpu")


# ---- what is refused ----


def test_what_is_not_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"wants a class for every image: set options\.class_conditional=true"):
        unet.read_unet(classes(tmp_path / "base"), None, size=None, labels=[])
    with pytest.raises(ModelError, match="class_embed_type 'timestep'"):
        unet.read_unet(None, small(class_embed_type="timestep"), size=None, labels=COLOURS)
    with pytest.raises(ModelError, match=r"8 x 16 pixels: images of a class are square"):
        unet.read_unet(None, small(sample_size=[8, 16]), size=None, labels=COLOURS)
    folder = classes(tmp_path / "consistency")
    CMStochasticIterativeScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(ModelError, match="a CMStochasticIterativeScheduler, which is no sampler of DDPM or DDIM"):
        load(folder, device="cpu")
    raw = contract.TestContractOfClasses().recipe(tmp_path) | {"model": {"id": str(folder)}}
    with pytest.raises(ModelError, match="a CMStochasticIterativeScheduler"):
        train(validate(raw), tmp_path / "run", name="x")
    for text in (None, "{", "[]"):
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(text) if text else path.unlink()
        with pytest.raises(ModelError, match="no noise schedule that can be read"):
            load(folder, device="cpu")


@pytest.mark.parametrize(
    ("names", "says"), [((), "label"), (("red",), r"1 class found \(red\).*leave out options\.class_conditional")]
)
def test_images_without_classes_are_refused(names: tuple[str, ...], says: str, tmp_path: Path) -> None:
    data = tiny_pictures.shapes(tmp_path / "photos" / "/".join(names), n=20, size=10)
    data = data.parent if names else data
    raw = contract.TestContractOfClasses().recipe(tmp_path) | {"data": {"id": str(data), "workers": 0}}
    with pytest.raises(DataError, match=says):
        train(validate(raw), tmp_path / "run", name="x")
    assert not (tmp_path / "run" / "model").exists()


def test_a_class_that_is_none(model: Loaded, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label=rde: this model knows blue, green, red: did you mean 'red'"):
        model.infer(0, label="rde")
    plain = load(pipeline(tmp_path / "base"), device="cpu")
    with pytest.raises(DataError, match="label=red: this model knows no classes"):
        plain.infer(0, label="red")


def test_a_row_of_another_class_is_skipped(model: Loaded) -> None:
    image = {"path": None, "bytes": png()}
    rows = [{"id": "a", "image": image, "label": "red"}, {"id": "b", "image": image, "label": "pink"}]
    task = UnconditionalImageGeneration(Options(class_conditional=True))
    task.labels, task.size, task.channels = COLOURS, (8, 8), 3
    examples = task.encode(rows)
    assert examples[0]["class"] == 2
    with pytest.raises(DataError, match="b: label 'pink' is none that this model knows"):
        examples[1]


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (10, 10)).save(data, format="PNG")
    return data.getvalue()


# ---- what is measured ----


def test_samples_are_recognised_as_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    """The colour of each image decides what the classifier predicts, and how confident it is."""

    def see(images: list[Any]) -> Any:
        values = torch.tensor(np.stack([pixels(image)[0, 0] for image in images])).float()
        return values, values / values.sum(1, keepdim=True)

    judge = Extractor("judge", False, ["red", "green", "blue"], see)
    colours = [(255, 0, 0), (0, 255, 0), (0, 255, 0), (90, 80, 85), (0, 0, 255)]
    images = [Image.new("RGB", (4, 4), colour) for colour in colours]
    asked, real = ["red", "green", "blue", "red", "blue"], ["red", "green", "green", "red", "blue"]
    found = comparison.measure(images, images, judge, classes=(asked, real))
    assert found["metrics"]["recognised"] == pytest.approx(4 / 5)
    assert found["metrics"]["class_accuracy"] == pytest.approx(4 / 5)
    assert [row["class_accuracy"] for row in found["tables"]["samples and real images"]] == [pytest.approx(4 / 5), 1]
    assert "class_accuracy" not in comparison.measure(images, images, judge)["metrics"]
    with caplog.at_level("WARNING", logger="graft"):
        found = comparison.measure(images, images, judge, classes=([*asked[:4], "pink"], real))
    assert "judge does not know the class pink" in caplog.text
    assert "class_accuracy" not in found["metrics"]


# ---- what is requested ----


def test_predict_by_name(run: Path, model: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = predict(run, ["label=red", "steps=3", "7", "8"], device="cpu")
    assert [answer["output"] for answer in answers] == [
        {"image": f"colours-red-seed-{seed}.png", "label": "red", "seed": seed, "steps": 3, "pixels": SIZE}
        for seed in (7, 8)
    ]
    with Image.open("colours-red-seed-7.png") as image:
        settings = {"model": "colours", "label": "red", "seed": 7, "steps": 3, "pixels": SIZE}
        assert json.loads(image.info["parameters"]) == settings
        made = model.infer(7, steps=3, label="red")
        times = image.width // made.width
        assert np.array_equal(pixels(image)[::times, ::times], pixels(made))
    (left_out,) = predict(run, ["steps=3", "7"], device="cpu")
    assert left_out["output"]["label"] == "green"
    Path("asked.csv").write_text("seed,label\n7,red\n7,blue\n")
    listed = predict(run, ["asked.csv", "steps=3"], device="cpu")
    assert [answer["output"]["label"] for answer in listed] == ["red", "blue"]


@pytest.mark.usefixtures("gradio_page")
def test_the_demo_makes_what_is_asked_beside_the_model_before(run: Path, model: Loaded) -> None:
    """The base model knew no classes."""
    requests = [{"seed": 3, "steps": 3, "label": "red"}]
    *_, (after, before, note) = gallery.make(model, requests, gallery.base_of(model))
    assert note.startswith("1 image.")
    assert [caption for _, caption in (*after, *before)] == ["red, seed 3", "seed 3"]
    with Image.open(after[0][0]) as image:
        assert json.loads(image.info["parameters"])["label"] == "red"
    with Image.open(before[0][0]) as image:
        assert "label" not in json.loads(image.info["parameters"])


@pytest.mark.usefixtures("gradio_page")
def test_a_model_before_of_other_classes_says_what_it_shows(model: Loaded, tmp_path: Path) -> None:
    base = gallery.Base(model, str(classes(tmp_path / "pets", ["cat", "dog"])), None)
    *_, (_, before, _) = gallery.make(model, [{"seed": 3, "steps": 3, "label": "red"}], base)
    assert [caption for _, caption in before] == ["dog, seed 3"]
    with Image.open(before[0][0]) as image:
        assert json.loads(image.info["parameters"])["label"] == "dog"


@pytest.mark.parametrize(
    ("asked", "shown"), [("red", ["red, seed 4", "red, seed 5"]), ("", ["green, seed 4", "red, seed 5"])]
)
@pytest.mark.usefixtures("gradio_page")
def test_the_page_offers_the_classes(
    asked: str, shown: list[str], model: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gr.Blocks():
        fields = gallery.input_fields(model.task, 16, False, None)
    assert fields["label"].choices == [("each in turn", ""), *((colour, colour) for colour in COLOURS)]
    values = {"label": asked, "count": 2, "seed": "4", "steps": 3}
    captions: list[list[str]] = []
    monkeypatch.setattr(gallery, "_shown", lambda items, *_, **__: captions.append([caption for _, caption in items]))
    for _ in gallery.drawing_handler(model, list(fields), None, 16)(*(values[name] for name in fields)):
        pass
    assert captions[-1] == shown
