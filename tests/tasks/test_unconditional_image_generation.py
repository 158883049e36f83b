"""Unconditional image generation: the contract, noise, targets, samples, pipelines of diffusers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from PIL import Image

from pipelines.config.recipe import Recipe, load_recipe, validate
from pipelines.data.image.pixels import to_image
from pipelines.inference.loading import load
from pipelines.models import unet
from pipelines.models.diffusion import read_scheduler
from pipelines.training.run import train
from pipelines.training.run_folder import claim
from tests.support import tiny, tiny_pictures
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, gradio_page, hub  # noqa: F401 (fixtures)

CONFIG: dict[str, Any] = {
    "model_type": "UNet2DModel",
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
}


def small(channels: int = 3, **fields: Any) -> dict[str, Any]:
    return {**CONFIG, "in_channels": channels, "out_channels": channels, **fields}


def pipeline(folder: Path, channels: int = 3, kind: Any = DDPMPipeline, **fields: Any) -> Path:
    """A tiny pretrained pipeline."""
    torch.manual_seed(1)
    config = {key: value for key, value in small(channels, **fields).items() if key != "model_type"}
    kind(UNet2DModel(**config), DDPMScheduler(num_train_timesteps=100)).save_pretrained(folder)
    return folder


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        data = tiny_pictures.shapes(folder / "shapes", n=30, size=10)
        return {
            "task": "unconditional-image-generation",
            "model": {"config": small()},
            "data": {"id": str(data), "workers": 0},
            "options": {"flip": True, "steps": 3, "samples": 4, "grid": 2, "snr_gamma": 5.0},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "save_every": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": id_, "loss": 0.0, "levels": [0.0] * 4} for id_ in rows["id"]]

    def question(self, run: Path) -> tuple[Any, ...]:
        return (0,)

    def same(self, printed: str, answer: Any) -> bool:
        with Image.open(self.cwd / "sample.png") as image:
            return str(image.size) in printed and np.array_equal(np.asarray(image), np.asarray(answer))


@pytest.mark.integration
class TestContractOfClasses(TestContract):
    """The same pipeline with a model that learns classes."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        raw = super().recipe(folder)
        raw["data"]["id"] = str(tiny_pictures.shape_classes(folder / "kinds", n=30, size=10))
        return raw | {"options": {**raw["options"], "class_conditional": True, "sampler": "ddpm"}}


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    size = (recipe.model.config or {}).get("sample_size", 28 if recipe.data.format == "mnist" else 32)
    changes = ["options.steps=2", "options.samples=2", "options.grid=2"]
    changes += ["options.extractor=null"] if recipe.options.extractor else []  # type: ignore[attr-defined]
    model, data = None, None
    if recipe.model.config is not None:  # the recipe's own channels and blocks would take minutes
        unet_config = {
            **recipe.model.config,
            "block_out_channels": [8 * (i + 1) for i in range(len(recipe.model.config["block_out_channels"]))],
        }
        changes += [f"model.config={json.dumps({**unet_config, 'norm_num_groups': 4, 'attention_head_dim': 8})}"]
    elif recipe.model.id is not None:
        channels = 1 if recipe.data.format == "mnist" else 3
        made_ = pipeline(folder / "pretrained", channels, sample_size=size)
        if recipe.model.id.startswith("runs/"):
            model = str(made_)
        else:
            hub.add_model(recipe.model.id, made_)
    if recipe.data.format == "mnist":
        data = str(tiny_pictures.idx(folder / "mnist", n=60))
    elif "/" in recipe.data.id:
        hub.add_dataset(
            recipe.data.id,
            tiny.dataset_repo(folder / "data", ("a", "b"), n=12, splits=["train", "test"], columns=recipe.data.columns),
        )
        changes += ["options.upscale=true"]
    else:
        data = str(tiny_pictures.shapes(folder / "photos", n=30, size=size))
    return Served(data, model, tuple(changes))


# ---- pipelines ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusion")
    raw = TestContract().recipe(folder)
    raw |= {"model": {"id": str(pipeline(folder / "base"))}, "options": {**raw["options"], "sampler": "ddpm"}}
    del raw["options"]["steps"]
    raw["data"]["id"] = str(tiny_pictures.shapes(folder / "more", n=50, size=10))
    classifier = tiny.vit(folder / "judge", size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(classifier.parent)
        raw["options"] |= {"extractor": classifier.name, "samples": 5, "grid": 2}
        assert train(validate(raw), folder / "grown")
    return folder / "grown"


def test_plain_diffusers_makes_the_same_image(run: Path) -> None:
    plain = DiffusionPipeline.from_pretrained(run / "model")
    assert type(plain).__name__ == "DDPMPipeline"
    image = plain(generator=torch.Generator().manual_seed(5), num_inference_steps=20).images[0]
    assert np.array_equal(np.asarray(load(run, device="cpu").infer(5, steps=20)), np.asarray(image))


def test_the_run_keeps_its_samples(run: Path) -> None:
    """Each sample is the image of its seed, with its settings. Scores of samples carry the name of their extractor."""
    loaded = load(run, device="cpu")
    files = sorted((run / "samples").glob("*.png"))
    assert [file.name for file in files] == [f"{i:05}.png" for i in range(5)]
    with Image.open(files[3]) as image:
        assert json.loads(image.text["parameters"]) == {"model": "grown", "steps": 100, "seed": 3}  # type: ignore[attr-defined]
        difference = np.asarray(image).astype(int) - np.asarray(loaded.infer(3)).astype(int)
        assert np.abs(difference).max() <= 2  # generated in another batch
    results = json.loads((run / "results.json").read_text())
    metrics = results["test"]["metrics"]
    named = {name for name in metrics if name.endswith("(judge)")}
    assert named == {f"{name} (judge)" for name in ("frechet_distance", "kernel_distance", "precision", "recall")}
    assert not {"fid", "kid"} & set(metrics)
    assert results["samples"]["n"] == 5
    assert {row["set"] for row in results["test"]["tables"]["samples and real images"]} == {"samples", "real"}
    assert {"samples", "nearest_training_images", "over_training", "loss_by_time"} <= {
        p.stem for p in (run / "figures").glob("*.png")
    }
    # this gallery shows rows of the data
    assert not (run / "model" / "figures" / "nearest_training_images.png").exists()


def test_ddpm_takes_every_step_unless_told(run: Path, tmp_path: Path) -> None:
    kept_steps = [load_recipe(run / name / "recipe.yaml").options.steps for name in ("", "model")]  # type: ignore[attr-defined]
    assert kept_steps == [100, 100]
    own = load_recipe(run / "recipe.yaml")
    assert (
        claim(run, own.model_copy(update={"options": own.options.model_copy(update={"steps": None})})) is not None
    )  # the same run
    assert "num_inference_steps=100)" in (run / "model" / "README.md").read_text()
    for kind, steps in ((DDPMPipeline, 100), (DDIMPipeline, 50)):
        assert load(pipeline(tmp_path / kind.__name__, kind=kind), device="cpu").task.options.steps == steps


def test_what_measures_is_found_from_any_folder_and_published_by_its_name(run: Path) -> None:
    own, public = (load_recipe(run / name / "recipe.yaml").options.extractor for name in ("", "model"))  # type: ignore[attr-defined]
    assert Path(own).is_absolute()
    assert Path(own).is_dir()
    assert public == "judge"


def test_a_grid_is_made_at_every_evaluation(run: Path) -> None:
    names = [p.name for p in sorted((run / "samples" / "grids").glob("*.png"))]
    steps = [
        json.loads(line)["step"]
        for line in (run / "log.jsonl").read_text().splitlines()
        if "validation" in json.loads(line)
    ]
    assert names == [f"step_{step:06}.png" for step in [0, *steps]]
    assert len(names) > 2


def test_the_average_of_the_weights_is_what_is_exported(run: Path) -> None:
    from safetensors.torch import load_file

    best = run / "checkpoints" / (run / "checkpoints" / "best").read_text().strip()
    averaged, own = load_file(best / "ema.safetensors"), load_file(best / "model.safetensors")
    exported = load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    assert any(not torch.equal(exported[name], own[name]) for name in averaged)


def test_ema_can_be_switched_off(tmp_path: Path) -> None:
    raw = TestContract().recipe(tmp_path)
    raw["train"] |= {"ema": None, "epochs": 1}
    raw["options"] |= {"samples": 0, "grid": 0}
    results = train(validate(raw), tmp_path / "run", name="plain")
    assert results
    assert "samples" not in results
    assert not list((tmp_path / "run").rglob("ema.safetensors"))
    assert not (tmp_path / "run" / "samples").exists()


def test_the_first_layout_of_diffusers_is_read(tmp_path: Path) -> None:
    """google/ddpm-cifar10-32 has weights and schedule in the folder of model_index.json, not in folders below it."""
    folder = pipeline(tmp_path / "old")
    for name in ("unet", "scheduler"):
        for file in (folder / name).iterdir():
            file.rename(folder / file.name)
        (folder / name).rmdir()
    model = unet.read_unet(folder, None, size=None)
    assert unet.image_size(model) == (8, 8)
    assert read_scheduler(folder).config.num_train_timesteps == 100


def test_another_size_and_grey_images(tmp_path: Path) -> None:
    model = unet.read_unet(pipeline(tmp_path / "grey", channels=1), None, size=12)
    images = list(unet.denoised(model, DDIMScheduler(), [1, 2], 3))[-1]
    assert [(image.mode, image.size) for image in images] == [("L", (12, 12))] * 2
    assert model.config.sample_size == 12


def test_previews_come_before_the_image(run: Path) -> None:
    loaded = load(run, device="cpu")
    *previews, last = loaded.task.infer(loaded.model, 1, steps=20)
    assert len(previews) >= 5
    assert np.array_equal(np.asarray(last), np.asarray(loaded.infer("1", steps=20)))
    assert to_image(torch.zeros(3, 8, 8)).size == last.size
