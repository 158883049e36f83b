"""Pipelines, images and texts that text-to-image cannot use.

Each is refused or skipped, with the reason and what to do.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from pipelines.config.recipe import validate
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, GraftError, ModelError, RunError
from pipelines.generation import sampling
from pipelines.inference.loading import load
from pipelines.models import stable_diffusion
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.tasks.text_to_image import TextToImage
from pipelines.training.run import train
from tests.support import tiny, tiny_diffusion, tiny_pictures
from tests.support.tiny_diffusion import stable, stable3
from tests.tasks.test_text_to_image import tiny_recipe

UNET = "unet/diffusion_pytorch_model.safetensors"


def unconditional(folder: Path) -> Path:
    blocks = {
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "block_out_channels": (8,),
        "norm_num_groups": 4,
    }
    DDPMPipeline(UNet2DModel(sample_size=8, **blocks), DDPMScheduler()).save_pretrained(folder)  # type: ignore[arg-type]
    return folder


def without(folder: Path, part: str) -> Path:
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def cut(folder: Path, file: str) -> Path:
    (folder / file).write_bytes((folder / file).read_bytes()[:-100])
    return folder


def edited(folder: Path, file: str, **fields: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def lacking(folder: Path, file: str) -> Path:
    """A file of weights without its first tensor."""
    values = load_file(folder / file)
    save_file(dict(list(values.items())[1:]), folder / file, {"format": "pt"})
    return folder


INDEX, PLAN = "model_index.json", "scheduler/scheduler_config.json"
WRONG: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "a model of transformers": (lambda t: tiny.vit(t), {}, r"no diffusers pipeline here \(model_index\.json\)"),
    "an unconditional pipeline": (
        unconditional,
        {},
        "a DDPMPipeline is not supported; choose a StableDiffusionPipeline or",
    ),
    "another class": (
        lambda t: edited(stable(t), INDEX, _class_name="StableDiffusionXLPipeline"),
        {},
        "a StableDiffusionXLPipeline is not",
    ),
    "code of its own": (
        lambda t: edited(stable(t), INDEX, unet=["my_code", "UNet2DConditionModel"]),
        {},
        "never runs a model's code",
    ),
    "another model": (
        lambda t: edited(stable(t), INDEX, unet=["diffusers", "UNet2DModel"]),
        {},
        "no UNet2DConditionModel as unet",
    ),
    "no text encoder": (
        lambda t: without(stable(t), "text_encoder"),
        {},
        r"a text_encoder, but there is no folder text_encoder/",
    ),
    "no safety checker": (
        lambda t: without(stable(t, safety=True), "safety_checker"),
        {},
        "there is no folder safety_checker/",
    ),
    "no VAE named": (
        lambda t: edited(stable(t), INDEX, vae=[None, None]),
        {},
        "a pipeline without vae cannot be trained",
    ),
    "no second encoder": (
        lambda t: edited(stable3(t), INDEX, text_encoder_2=[None, None]),
        {},
        "a pipeline without text_encoder_2 cannot",
    ),
    "no weights": (lambda t: without(stable(t), UNET), {}, "its unet cannot be loaded"),
    "a damaged U-Net": (lambda t: cut(stable(t), UNET), {}, "its unet cannot be loaded"),
    "a damaged VAE": (
        lambda t: cut(stable(t), "vae/diffusion_pytorch_model.safetensors"),
        {},
        "its vae cannot be loaded",
    ),
    "a damaged encoder": (
        lambda t: cut(stable3(t), "text_encoder_2/model.safetensors"),
        {},
        "its text_encoder_2 cannot",
    ),
    "a damaged checker": (
        lambda t: cut(stable(t, safety=True), "safety_checker/model.safetensors"),
        {},
        "pipeline cannot be",
    ),
    "half a U-Net": (
        lambda t: lacking(stable(t), UNET),
        {},
        r"weights of its unet are missing or of another shape: .*1 in all",
    ),
    "half an encoder": (
        lambda t: lacking(stable(t), "text_encoder/model.safetensors"),
        {},
        "weights of its text_encoder are",
    ),
    "no tokens": (
        lambda t: without(without(stable(t), "tokenizer/tokenizer.json"), "tokenizer/vocab.json"),
        {},
        "cannot be loaded",
    ),
    "inpainting": (
        lambda t: stable(t, unet={"in_channels": 9}),
        {},
        "9 channels in and 4 out, as those have that fill in",
    ),
    "other latents": (
        lambda t: stable(t, unet={"in_channels": 16, "out_channels": 16}),
        {},
        "latents of 4 channels, the .*takes 16",
    ),
    "other texts": (
        lambda t: stable(t, unet={"cross_attention_dim": 24}),
        {},
        "text encoders give 16 numbers, the .* takes 24",
    ),
    "an odd size": (stable, {"image_size": 20}, "latent size mismatch: 20 pixels.*multiples of 8: set 16 or 24"),
    "an odd size for patches": (stable3, {"image_size": 18}, "multiples of 4: set 16 or 20"),
    "too large": (stable3, {"image_size": 64}, "64 pixels, but .* has positions for 32 at most"),
    "an unknown scheduler": (
        lambda t: edited(stable(t), INDEX, scheduler=["diffusers", "NoScheduler"]),
        {},
        "knows no scheduler NoScheduler",
    ),
    "a scheduler of flows": (
        lambda t: stable(t, scheduler=FlowMatchEulerDiscreteScheduler()),
        {},
        r"by a schedule of noise, .* \(FlowMatchEuler",
    ),
    "no schedule": (lambda t: without(stable(t), PLAN), {}, "scheduler"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_pipelines(case: str, tmp_path: Path) -> None:
    make, options, words = WRONG[case]
    folder = make(tmp_path / "model")
    with pytest.raises(ModelError, match=words) as error:
        stable_diffusion.read_pipe(folder, size=options.get("image_size"))
    assert len(str(error.value).splitlines()) <= 2


def build_of(raw: dict[str, Any]) -> Any:
    recipe = validate(raw)
    task = TextToImage(recipe.options)
    splits = load_splits(recipe.data, task.data)
    return task, build(recipe, task, resolve(recipe.model), splits), splits


def test_wrong_recipes(tmp_path: Path) -> None:
    model = tiny_diffusion.stable(tmp_path / "sd")
    cases: dict[str, tuple[dict[str, Any], type[GraftError], str]] = {
        "targets": (
            {"model": {"adapter": {"kind": "lora", "targets": ["to_x"]}}},
            ModelError,
            r"no Linear or Conv2d of the trunk is called 'to_x' \(there are:.*to_q",
        ),
        "from scratch": ({"model": {"id": None, "config": {"model_type": "x"}}}, ModelError, "give model.id"),
        "local base": (
            {"model": {"adapter": {"kind": "lora"}}, "hub": {"adapter": True}},
            ModelError,
            "hub.adapter: .* sd is none",
        ),
    }
    for sections, kind, words in cases.values():
        with pytest.raises(kind, match=words):
            build_of(tiny_recipe(tmp_path, model, **sections))


def test_what_is_no_clip_model_is_said_before_the_first_step(tmp_path: Path) -> None:
    model, vit = tiny_diffusion.stable(tmp_path / "sd"), tiny.vit(tmp_path / "vit")
    with pytest.raises(ModelError, match=r"options\.clip: .*vit is a vit model: choose a CLIP model"):
        train(validate(tiny_recipe(tmp_path, model, options={"clip": str(vit)})), tmp_path / "run")
    with pytest.raises(ModelError, match="no such folder"):
        train(validate(tiny_recipe(tmp_path, model, options={"clip": "./no/where"})), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists() or not (tmp_path / "run" / "log.jsonl").read_text()


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    """A row without a caption is skipped and counted; so is a row whose image is too small, if it is not enlarged."""
    task = TextToImage()
    for text in (None, "", "  ", "\0"):
        with pytest.raises(DataError, match="no caption: text is empty"):
            task.data.clean({"image": None, "text": text})
    with pytest.raises(DataError, match="text holds int"):
        task.data.clean({"image": None, "text": 3})
    raw = tiny_recipe(tmp_path, tiny_diffusion.stable(tmp_path / "sd"), options={"image_size": 24})
    (tmp_path / "shapes" / "003.txt").write_text("")
    small, _, splits = build_of(raw)
    assert next(iter(splits.skipped["train"]))[0] == "003.png"
    with pytest.raises(DataError, match="16 x 16 pixels, smaller than the 24 x 24 wanted"):
        small.encode(splits.train)[0]
    raw["options"]["upscale"] = True
    large, _, _ = build_of(raw)
    assert large.encode(splits.train)[0]["pixels"].shape == (3, 24, 24)


def test_long_captions_are_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = tiny_recipe(tmp_path, tiny_diffusion.stable(tmp_path / "sd"))
    for number in (1, 2):
        (tmp_path / "shapes" / f"{number:03}.txt").write_text("a disc " * 9)
    task, _, splits = build_of({**raw, "data": {**raw["data"], "holdout": 0.05}})
    with caplog.at_level(logging.WARNING):
        encoded = [task.encode(splits[name]) for name in ("train", "validation", "test")]
        task.frozen["text"]([encoded[0][i]["text"] for i in range(len(encoded[0]))])
    messages = [record.getMessage() for record in caplog.records]
    assert sum(int(line.split()[0]) for line in messages) == 2
    assert all(line.endswith("captions are longer than 24 tokens: the text encoder reads no more") for line in messages)


def test_questions_without_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load(tiny_diffusion.stable(tmp_path / "sd"), device="cpu")
    for text in ("", " \n", None):
        with pytest.raises(DataError, match="no text: write what the image is to show"):
            loaded.infer(text)
    with pytest.raises(DataError, match="no seed"):
        loaded.infer("a red disc", "x")
    for steps in (0, 501):
        with pytest.raises(DataError, match="give a number from 1 to 500"):
            loaded.infer("a red disc", steps=steps)
    with caplog.at_level(logging.WARNING):
        loaded.infer("a red disc " * 5, steps=1)
    assert [record.getMessage() for record in caplog.records] == [
        "the text is longer than 24 tokens: the text encoder reads no more of it"
    ]


def test_out_of_memory_while_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(tiny_diffusion.stable(tmp_path / "sd"), device="cpu")

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stable_diffusion.Pipe, "around", full)
    requests = [{"text": text, "seed": 0} for text in tiny_pictures.CAPTIONS]
    with pytest.raises(RunError, match=r"out of memory while making 4 images at a time: set train\.eval_batch_size=2"):
        sampling.generate(loaded.task.generation, loaded.model, requests, size=4)
