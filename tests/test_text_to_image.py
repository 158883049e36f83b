"""Text-to-image beyond its contract: cached features, dropped captions, adapters in diffusers' format, CLIP score."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from pipelines import pipefiles, pipes
from pipelines.batching import Examples
from pipelines.data import load_splits, needs_of
from pipelines.errors import ModelError
from pipelines.extractors import clip
from pipelines.hub import publish
from pipelines.layers import add_adapter
from pipelines.recipe import Adapter, validate
from pipelines.run import train
from pipelines.stages import build
from pipelines.tasks.text_to_image import Options, TextToImage
from pipelines.weights import load, resolve
from tests import tiny_diffusion, tiny_pictures
from tests.hub import USER, HubServer, hub  # noqa: F401 (a fixture)
from tests.tasks.test_text_to_image import alike, tiny_recipe

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


@pytest.mark.parametrize("kind", KINDS)
def test_cached_is_uncached(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same losses to the last bit over two epochs, and the VAE sees every image once."""
    make, sections = KINDS[kind]
    model, found, seen = make(tmp_path / "model"), {}, {}
    for name, room in (("cached", 10.0), ("uncached", 0.0)):
        raw = tiny_recipe(tmp_path, model, **sections)
        raw["data"]["cache_gb"] = room
        raw["options"] |= {"samples": 0, "grid": 0}
        raw["train"] |= {"log_every": 1}
        count = [0]

        def counted(self: Any, pixels: Any, own: Any = pipes.Latents.forward, count: list[int] = count) -> Any:
            count[0] += len(pixels)
            return own(self, pixels)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.finish.finish", lambda job, state: {"steps": state.step})  # what follows does not matter here
            patch.setattr(pipes.Latents, "forward", counted)
            assert train(validate(raw), tmp_path / name, name="x")
        found[name], seen[name] = losses(tmp_path / name), count[0]
    assert len(found["cached"]) == 6 + 2
    assert found["cached"] == found["uncached"]
    assert seen["cached"] < seen["uncached"]
    assert (kind == "every caption dropped") or len(set(found["cached"])) == 8


def made(folder: Path, make: Callable[..., Path] = tiny_diffusion.stable, **options: Any) -> tuple[TextToImage, Any, Examples]:
    recipe = validate(tiny_recipe(folder, make(folder / "model"), options=options))
    task = TextToImage(recipe.options)
    splits = load_splits(recipe.data, needs_of(task))
    return task, build(recipe, task, resolve(recipe.model), splits), Examples(task, task.encode(splits.train), 1)


@pytest.mark.parametrize("make", [tiny_diffusion.stable, tiny_diffusion.stable3])
def test_a_dropped_caption_is_the_empty_one(make: Any, tmp_path: Path) -> None:
    """In training only: what is scored has its caption."""
    task, model, examples = made(tmp_path, make, caption_dropout=1.0)
    batch = examples[[(0, 0), (0, 1)]].batch
    assert batch["dropped"] == [True, True]
    empty = {**batch, "text": ["", ""], "dropped": [False, False]}
    with torch.no_grad():
        assert torch.equal(task.loss(model, batch, {"images": 2.0}), task.loss(model, empty, {"images": 2.0}))
        assert not torch.equal(
            task.loss(model, batch, {"images": 2.0}), task.loss(model, {**batch, "dropped": [False] * 2}, {"images": 2.0})
        )
        assert task.predict(model, batch) != task.predict(model, empty)


def test_latents_are_those_of_the_library(tmp_path: Path) -> None:
    """Drawn from the VAE's distribution by noise of the example's own seed, and scaled back to what the pipeline decodes."""
    task, _, examples = made(tmp_path)
    batch = examples[[(0, 0), (0, 1)]].batch
    latents, _, _ = task._seen(batch)
    vae: Any = task.pipe.parts["vae"]
    spread = vae.encode(batch["pixels"]).latent_dist
    for row, seed in enumerate(batch["latent"]):
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(latents[row], (spread.mean[row] + spread.std[row] * noise) * vae.config.scaling_factor, atol=1e-6)
    again, _, _ = task._seen(examples[[(1, 0), (1, 1)]].batch)
    assert not torch.allclose(latents, again)


def test_files_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    DiffusionPipeline.from_pretrained(tiny_diffusion.stable(tmp_path / "full", safety=True), dtype=torch.float16).save_pretrained(
        tmp_path / "half"
    )
    pipe, model = pipefiles.read_pipe(tmp_path / "half")
    modules = [model, *(part for part in pipe.parts.values() if isinstance(part, torch.nn.Module))]
    assert len(modules) == 4
    assert {parameter.dtype for module in modules for parameter in module.parameters()} == {torch.float32}
    assert load(tmp_path / "half", device="cpu").infer("a red disc", steps=1).size == (16, 16)


def test_flips_come_before_the_vae_and_are_said(tmp_path: Path) -> None:
    task, _, _ = made(tmp_path, flip=True)
    assert task.augments()
    assert not TextToImage(Options()).augments()


# ---- adapters ----


def test_an_adapter_alone_is_diffusers_own(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Trained, published, used by plain diffusers: its images are Graft's, though alpha is not the rank."""
    hub.add_model(BASE, tiny_diffusion.stable(tmp_path / "base", safety=True))
    adapter = {"kind": "lora", "rank": 4, "alpha": 1.0, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
    raw = tiny_recipe(
        tmp_path, Path(BASE), model={"id": BASE, "adapter": adapter}, hub={"adapter": True, "license": "creativeml-openrail-m"}
    )
    raw["train"] |= {"learning_rate": 0.05, "ema": None}
    run = tmp_path / "run"
    assert train(validate(raw), run, name="shapes")
    assert {path.name for path in (run / "model").iterdir() if path.suffix == ".safetensors"} == {"pytorch_lora_weights.safetensors"}
    publish(run, f"{USER}/adapter", say=str)
    loaded = load(f"{USER}/adapter", device="cpu")
    image = loaded.infer("a red disc", 3)
    assert alike(image, load(run, device="cpu").infer("a red disc", 3))
    plain = DiffusionPipeline.from_pretrained(tmp_path / "base")
    before = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    plain.load_lora_weights(run / "model")
    after = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    assert alike(image, after)
    assert not alike(before, after)
    card = (run / "model" / "README.md").read_text()
    assert "library_name: diffusers" in card
    assert "base_model_relation: adapter" in card
    assert f"- {BASE}" in card or f"base_model: {BASE}" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.S)
    assert snippet
    monkeypatch.chdir(tmp_path)
    exec(snippet[1], {})
    with Image.open("sample.png") as sample:
        assert alike(sample, loaded.infer("a lighthouse at dusk"))


@pytest.mark.parametrize("make", [tiny_diffusion.stable, tiny_diffusion.stable3])
@pytest.mark.parametrize(("rank", "alpha"), [(2, 2.0), (2, None), (4, 1.0)])
def test_lora_in_training_is_lora_in_diffusers(make: Any, rank: int, alpha: float | None, tmp_path: Path) -> None:
    base = make(tmp_path / "base", **({"t5": True} if make is tiny_diffusion.stable3 else {}))
    pipe, model = pipefiles.read_pipe(base)
    adapted = add_adapter(model, None, Adapter(kind="lora", rank=rank, alpha=alpha))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    (image,) = pipes.painted(pipe, adapted.eval(), ["a red disc"], [3], 2, None)
    pipefiles.save_lora(pipe, adapted, tmp_path / "lora", BASE, None)
    plain = DiffusionPipeline.from_pretrained(base)
    before = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    plain.load_lora_weights(tmp_path / "lora")
    after = plain("a red disc", generator=torch.Generator().manual_seed(3), num_inference_steps=2).images[0]
    assert alike(image, after)
    assert not alike(before, after)


def test_an_adapter_on_another_base_is_refused(hub: HubServer, tmp_path: Path) -> None:  # noqa: F811
    base = tiny_diffusion.stable(tmp_path / "base")
    pipe, model = pipefiles.read_pipe(base)
    adapted = add_adapter(model, None, Adapter(kind="lora", rank=2))
    pipefiles.save_lora(pipe, adapted, tmp_path / "lora", BASE, None)
    hub.add_model(BASE, tiny_diffusion.stable(tmp_path / "wider", unet={"block_out_channels": (16, 32)}))
    (tmp_path / "lora" / "README.md").write_text("---\npipeline_tag: text-to-image\n---\n")
    with pytest.raises(ModelError, match="does not fit its base model"):
        load(tmp_path / "lora", device="cpu")
    pipefiles.save_lora(pipe, adapted, tmp_path / "lora", "", None)
    with pytest.raises(ModelError, match="names no base model"):
        load(tmp_path / "lora", device="cpu")
    with pytest.raises(ModelError, match="no diffusers pipeline here"):
        TextToImage().build(resolve(validate(tiny_recipe(tmp_path, tmp_path / "lora")).model), None)


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
        assert score == pytest.approx(max(0.0, 100 * float(seen @ read / seen.norm() / read.norm())), rel=1e-4, abs=1e-4)
    assert found.max() > 0


def test_a_run_tells_its_clip_score(tmp_path: Path) -> None:
    folder = tiny_diffusion.clip(tmp_path / "clip")
    raw = tiny_recipe(tmp_path, tiny_diffusion.stable(tmp_path / "model"), options={"clip": str(folder), "samples": 3, "grid": 0})
    raw["train"] |= {"epochs": None, "max_steps": 1}
    results = train(validate(raw), tmp_path / "run", name="x")
    assert results
    rows = {row["set"]: row["clip_score"] for row in results["test"]["tables"]["samples and real images"]}
    assert set(rows) == {"samples", "real"}
    assert results["test"]["metrics"]["clip_score"] == rows["samples"] > 0
    assert "CLIP score" in (tmp_path / "run" / "model" / "README.md").read_text()
