"""Text-to-image beyond its contract: cached features, dropped captions, adapters in diffusers' format, CLIP score."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from pipelines.config.recipe import validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.generation.feature_extractors import clip
from pipelines.inference.loading import load
from pipelines.models import stable_diffusion
from pipelines.models.build import build
from pipelines.models.source import resolve
from pipelines.tasks.text_to_image import Options, TextToImage
from pipelines.training import finalize
from pipelines.training.run import train
from tests.support import tiny_diffusion, tiny_pictures
from tests.support.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.tasks.test_text_to_image import tiny_recipe

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line] + [
        line["validation"]["denoising_loss"] for line in lines if "validation" in line
    ]


# ---- cached features ----

KINDS: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "LoRA": (tiny_diffusion.stable, {"model": {"adapter": {"kind": "lora", "rank": 2}}}),
    "whole, some captions dropped": (tiny_diffusion.stable, {"options": {"caption_dropout": 0.5}}),
    "every caption dropped": (tiny_diffusion.stable, {"options": {"caption_dropout": 1.0}}),
    "flow matching": (tiny_diffusion.stable3, {"options": {"caption_dropout": 0.5}}),
}


TRIED = 2 * (4 + 3)  # images that the planner reads, of train and validation, under two seeds


def encoded(raw: dict[str, Any], run: Path) -> "list[torch.Tensor]":
    """The images that the VAE encodes in the training of a run without samples, in order."""
    seen: list[torch.Tensor] = []
    own = stable_diffusion.Latents.forward

    def noted(self: Any, pixels: Any) -> Any:
        seen.extend(pixels)
        return own(self, pixels)

    raw["options"] |= {"samples": 0, "grid": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipelines.training.finalize.finish", lambda trainer, state: {"steps": state.step}
        )  # the rest of the run does not matter here
        patch.setattr(stable_diffusion.Latents, "forward", noted)
        assert train(validate(raw), run, name="x")
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_cached_is_uncached(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same losses to the last bit over two epochs. The VAE encodes every training and validation image once."""
    make, sections = KINDS[kind]
    model, found, seen = make(tmp_path / "model"), {}, {}
    for name, room in (("cached", 10.0), ("uncached", 0.0)):
        raw = tiny_recipe(tmp_path, model, **sections)
        raw["data"]["cache_gb"] = room
        raw["train"] |= {"log_every": 1}
        seen[name] = len(encoded(raw, tmp_path / name))
        found[name] = losses(tmp_path / name)
    assert len(found["cached"]) == 6 + 2
    assert found["cached"] == found["uncached"]
    assert seen == {
        "cached": 24 + 3 + 3 + TRIED,
        "uncached": 2 * (24 + 3) + 3,
    }  # the last three are those of test, before the first step
    assert (kind == "every caption dropped") or len(set(found["cached"])) == 8


def made(
    folder: Path, make: Callable[..., Path] = tiny_diffusion.stable, **options: Any
) -> tuple[TextToImage, Any, Examples]:
    recipe = validate(tiny_recipe(folder, make(folder / "model"), options=options))
    task = TextToImage(recipe.options)
    splits = load_splits(recipe.data, task.data)
    return task, build(recipe, task, resolve(recipe.model), splits), Examples(task, task.encode(splits.train), 1)


@pytest.mark.parametrize("make", [tiny_diffusion.stable, tiny_diffusion.stable3])
def test_a_dropped_caption_is_the_empty_one(make: Any, tmp_path: Path) -> None:
    """Captions are dropped in training only: a scored row has its caption."""
    task, model, examples = made(tmp_path, make, caption_dropout=1.0)
    batch = examples[[(0, 0), (0, 1)]].batch
    assert batch["dropped"] == [True, True]
    empty = {**batch, "text": ["", ""], "dropped": [False, False]}
    with torch.no_grad():
        assert torch.equal(
            task.loss(model, batch, {"images": 2.0}, "main", 0), task.loss(model, empty, {"images": 2.0}, "main", 0)
        )
        assert not torch.equal(
            task.loss(model, batch, {"images": 2.0}, "main", 0),
            task.loss(model, {**batch, "dropped": [False] * 2}, {"images": 2.0}, "main", 0),
        )
        assert task.predict(model, batch) != task.predict(model, empty)


def test_latents_are_those_of_the_library(tmp_path: Path) -> None:
    """Latents are drawn from the VAE's distribution with the example's own seed.

    They are scaled to what the pipeline decodes.
    """
    task, _, examples = made(tmp_path)
    batch = examples[[(0, 0), (0, 1)]].batch
    latents, _, _ = task._seen(batch)
    vae: Any = task.pipe.parts["vae"]
    spread = vae.encode(batch["pixels"]).latent_dist
    for row, noise in enumerate(batch["latent"]):
        assert noise.shape == latents.shape[1:]
        assert torch.allclose(
            latents[row], (spread.mean[row] + spread.std[row] * noise) * vae.config.scaling_factor, atol=1e-6
        )
    again, _, _ = task._seen(examples[[(1, 0), (1, 1)]].batch)
    assert not torch.allclose(latents, again)


def test_files_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    DiffusionPipeline.from_pretrained(
        tiny_diffusion.stable(tmp_path / "full", safety=True), dtype=torch.float16
    ).save_pretrained(tmp_path / "half")
    pipe, model = stable_diffusion.read_pipe(tmp_path / "half")
    modules = [model, *(part for part in pipe.parts.values() if isinstance(part, torch.nn.Module))]
    assert len(modules) == 4
    assert {parameter.dtype for module in modules for parameter in module.parameters()} == {torch.float32}
    assert load(tmp_path / "half", device="cpu").infer("a red disc", steps=1).size == (16, 16)


def test_flips_come_before_the_vae_and_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every epoch, the VAE encodes about half of the training images mirrored, but never the scored ones."""
    messages: list[str] = []
    monkeypatch.setattr("pipelines.utils.progress.Progress.say", lambda self, text: messages.append(text))
    task, _, examples = made(tmp_path, flip=True)
    assert task.augmentation.enabled
    assert not TextToImage(Options()).augmentation.enabled
    seen = encoded(tiny_recipe(tmp_path, tmp_path / "model", options={"flip": True}), tmp_path / "run")
    assert len(seen) == 2 * (24 + 3) + 3
    plain = [
        task.encode(load_splits(validate(tiny_recipe(tmp_path, tmp_path / "model")).data, task.data).train)[i]
        for i in range(24)
    ]
    pixels = [example["pixels"] for example in plain]
    mirrored = sum(
        any(torch.equal(image, own.flip(-1)) and not torch.equal(image, own) for own in pixels) for image in seen
    )
    assert 12 <= mirrored <= 36
    assert len(examples) == 24
    assert any(
        "augmentation is on" in text and text.endswith("options.flip=false caches its features") for text in messages
    )


@pytest.mark.parametrize("make", [tiny_diffusion.stable, tiny_diffusion.stable3])
def test_mixed_precision_is_the_models_alone(make: Any, tmp_path: Path) -> None:
    """VAE and text encoders run in float32: in training, for the cache, for scores and for samples."""
    task, model, examples = made(tmp_path, make)
    batch = examples[[(None, 0), (None, 1)]].batch
    mixed: dict[str, set[bool]] = {"model": set(), "encoder": set(), "vae": set()}

    def watch(name: str, own: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            mixed[name].add(torch.is_autocast_enabled("cpu"))
            return own(*args, **kwargs)

        return run

    vae, encoder = task.pipe.parts["vae"], task.pipe.parts["text_encoder"]
    watched = (
        ("model", model, "forward"),
        ("encoder", encoder, "forward"),
        ("vae", vae, "encode"),
        ("vae", vae, "decode"),
    )
    for name, module, method in watched:
        setattr(module, method, watch(name, getattr(module, method)))
    plain = task._seen(batch)
    before = model.forward
    for kinds in mixed.values():
        kinds.clear()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        under = task._seen(batch)
        assert task.predict(model, batch)
        (image,) = task.generation.generate(model, [{"text": "a red disc", "seed": 1}])
    assert mixed == {"model": {True}, "encoder": {False}, "vae": {False}}
    assert model.forward is before
    assert torch.equal(plain[0], under[0])
    assert all(torch.equal(one, other) for one, other in zip(plain[2], under[2], strict=True))
    assert image.size == (16, 16)


def test_what_the_safety_checker_blackened_is_marked(tmp_path: Path) -> None:
    for flags in (True, False):
        loaded = load(tiny_diffusion.stable(tmp_path / str(flags), safety=True, flags=flags), device="cpu")
        images = loaded.task.generation.generate(
            loaded.model, [{"text": "a red disc", "seed": seed} for seed in range(2)]
        )
        assert [image.info.get("flagged", False) for image in images] == [flags, flags]


def test_at_the_end_one_pipeline_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the exported model is loaded, the models of training and of export are no longer in memory."""
    held: list[Any] = []
    alive: list[int] = []
    own, back = stable_diffusion.read_pipe, finalize.load

    def read(*args: Any, **kwargs: Any) -> Any:
        pipe, model = own(*args, **kwargs)
        held.extend(weakref.ref(part) for part in (model, pipe.parts["vae"], pipe.parts["text_encoder"]))
        return pipe, model

    def loading(*args: Any, **kwargs: Any) -> Any:
        alive.append(sum(part() is not None for part in held))
        return back(*args, **kwargs)

    monkeypatch.setattr(stable_diffusion, "read_pipe", read)
    monkeypatch.setattr(finalize, "load", loading)
    raw = tiny_recipe(tmp_path, tiny_diffusion.stable(tmp_path / "model"), options={"samples": 0, "grid": 0})
    raw["train"] |= {"epochs": None, "max_steps": 1}
    assert train(validate(raw), tmp_path / "run", name="x")
    assert len(held) == 9
    assert alive == [0]


# ---- CLIP score ----


def test_clip_score_is_a_hundred_cosines(tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = tiny_diffusion.clip(tmp_path / "clip")
    images = [tiny_pictures.shape(i, 16) for i in range(5)]
    found = clip(folder, "cpu")(images, tiny_pictures.CAPTIONS[:5])
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    for image, text, score in zip(images, tiny_pictures.CAPTIONS, found, strict=False):
        with torch.no_grad():
            seen = model.get_image_features(**processor(images=image, return_tensors="pt")).pooler_output[0]
            read = model.get_text_features(**processor(text=text, return_tensors="pt")).pooler_output[0]
        assert score == pytest.approx(
            max(0.0, 100 * float(seen @ read / seen.norm() / read.norm())), rel=1e-4, abs=1e-4
        )
    assert found.max() > 0


def test_a_run_tells_its_clip_score(tmp_path: Path) -> None:
    folder = tiny_diffusion.clip(tmp_path / "clip")
    raw = tiny_recipe(
        tmp_path, tiny_diffusion.stable(tmp_path / "model"), options={"clip": str(folder), "samples": 3, "grid": 0}
    )
    raw["train"] |= {"epochs": None, "max_steps": 1}
    results = train(validate(raw), tmp_path / "run", name="x")
    assert results
    rows = {row["set"]: row["clip_score"] for row in results["test"]["tables"]["samples and real images"]}
    assert set(rows) == {"samples", "real"}
    assert results["test"]["metrics"]["clip_score"] == rows["samples"] > 0
    assert "CLIP score" in (tmp_path / "run" / "model" / "README.md").read_text()
