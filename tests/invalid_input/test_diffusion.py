"""Bad input of unconditional image generation: configurations, folders, seeds, images, memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.config.recipe import validate
from pipelines.errors import DataError, ModelError
from pipelines.inference.loading import Loaded, load
from pipelines.models import unet
from pipelines.models.diffusion import read_scheduler
from pipelines.tasks.unconditional_image_generation import UnconditionalImageGeneration
from pipelines.training.run import train
from tests.support import tiny, tiny_pictures
from tests.tasks import (
    test_unconditional_image_generation as contract,
)  # import the module and not its classes: pytest would collect them here too
from tests.tasks.test_unconditional_image_generation import pipeline, small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(pipeline(tmp_path_factory.mktemp("pipe")), device="cpu")


WRONG_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelled": ({"sampl_size": 8}, "sample_size"),
    "another class": ({"model_type": "UNet2DConditionModel"}, "UNet2DModel"),
    "channels": ({"in_channels": 4, "out_channels": 4}, "4 channels in"),
    "learned variance": ({"out_channels": 6}, "6 out"),
    "groups": ({"norm_num_groups": 5}, "no UNet2DModel can be made"),
    "classes": ({"num_class_embeds": 10}, r"options\.class_conditional=true"),
    "no size": ({"sample_size": None}, "options.image_size"),
    "a word for a size": ({"sample_size": "big"}, "sample_size 'big' is no size"),
    "one side": ({"sample_size": [16]}, r"sample_size \[16\] is no size"),
    "no width": ({"sample_size": [8, 0]}, r"sample_size \[8, 0\] is no size"),
    "a word for a number": ({"norm_eps": "small"}, "this U-Net cannot take 8 x 8 pixels .* must be float, not str"),
    "odd size": ({"sample_size": 9}, "multiples of 2"),
}


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_wrong_configurations(case: str) -> None:
    fields, says = WRONG_MODELS[case]
    with pytest.raises(ModelError, match=says):
        unet.read_unet(None, small() | fields, size=None, labels=[])


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no diffusers pipeline here \(model_index.json\)"):
        unet.read_unet(tiny.vit(tmp_path / "vit"), None, size=None)
    folder = pipeline(tmp_path / "pipe")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelError, match="a StableDiffusionPipeline is no unconditional one"):
        unet.read_unet(folder, None, size=None)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        unet.read_unet(folder, None, size=None)
    (folder / "model_index.json").write_text(json.dumps(index))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        unet.read_unet(folder, None, size=None)
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        unet.read_unet(folder, None, size=None)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match="no noise schedule"):
        read_scheduler(folder)


@pytest.mark.parametrize("seed", ["one", "1.5", "", "-1", str(2**63)])
def test_no_seed(model: Loaded, seed: str) -> None:
    with pytest.raises(DataError, match="seed"):
        model.infer(seed)


@pytest.mark.parametrize("steps", [0, 101])
def test_no_such_number_of_steps(model: Loaded, steps: int) -> None:
    with pytest.raises(DataError, match="give a number from 1 to 100"):
        model.infer(0, steps=steps)


def test_small_images_are_skipped_counted_and_in_no_comparison(tmp_path: Path) -> None:
    data = tiny_pictures.shapes(tmp_path / "shapes", n=40, size=10)
    for number in (1, 2):
        with Image.open(data / f"{number:03d}.png") as image:
            image.resize((6, 6)).save(data / f"{number:03d}.png")
    raw = contract.TestContract().recipe(tmp_path / "x")
    raw["data"] |= {"id": str(data)}
    raw["train"] |= {"epochs": 1}
    raw["options"] |= {"grid": 0, "samples": 4}
    results = train(validate(raw), tmp_path / "run", name="small")
    assert results
    assert sum(results["data"][split]["skipped"] for split in ("train", "validation", "test")) == 2


def test_out_of_memory_while_making_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.errors import RunError
    from pipelines.generation import sampling

    task = UnconditionalImageGeneration()
    monkeypatch.setattr(task, "_generate", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(RunError, match=r"out of memory while making 4 images at a time: set train\.eval_batch_size=2"):
        sampling.generate(task.generation, None, [{"seed": i} for i in range(6)], size=4)
