"""Text-to-image: a pretrained model learns a subject or a style from images with captions.

It trains Stable Diffusion's U-Net or the transformer of Stable Diffusion 3 (Esser et al. 2024), all weights or through
LoRA. VAE and text encoders do not train; without augmentation they run once over the data, always in float32. The score
is the denoising error on held-out images, with the same noise every time.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipelines.config.recipe import Float, Int
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, ModelError
from pipelines.generation.base import Sampling, image_generation
from pipelines.generation.spec import GenerationSpec
from pipelines.task import Augmentation, Batch, Example, HubSpec, Phase, Record, Task
from pipelines.utils.settings import Setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import MistakeSpec

log = logging.getLogger("graft")

MOST_STEPS = 500


class Options(Sampling):
    models: ClassVar[tuple[str, ...]] = ("extractor", "clip")

    image_size: Annotated[Int, Field(ge=8, le=2048)] | None = None
    """Pixels a side. Left out: the model's own. Images are cropped to a square at their centre."""
    upscale: bool = False
    """Enlarge images that are smaller than `image_size`; else they are skipped and counted."""
    flip: bool = False
    """Mirror half of the training images. VAE and text encoders then run in every epoch, else once over the data."""
    caption_dropout: Annotated[Float, Field(ge=0, le=1)] = 0.0
    """Fraction of captions that are emptied in training, for guidance (Ho and Salimans 2022): 0.1 if all weights train.
    """
    snr_gamma: Annotated[Float, Field(gt=0, le=1_000_000)] | None = None
    """Min-SNR weighting of the loss (Hang et al. 2023); the paper has 5. Not for Stable Diffusion 3."""
    steps: Annotated[Int, Field(ge=1, le=MOST_STEPS)] = 30
    """Number of denoising steps per image."""
    guidance: Annotated[Float, Field(ge=0, le=100)] | None = None
    """How strictly images follow the text. Left out: the default of diffusers, 7.5, or 7 for Stable Diffusion 3."""
    clip: str | None = None
    """A CLIP model (folder, hub id) that scores how well samples fit their captions: clip_score (Hessel et al. 2021).
    """
    reference: Literal["test", "train"] = "test"
    """The split whose images samples are compared with."""


class TextToImage(Task):
    name = "text-to-image"
    hub = HubSpec(
        "text-to-image",
        "diffusers",
        ("StableDiffusionPipeline", "StableDiffusion3Pipeline"),
        adapter_format="diffusers",
    )
    phases = (Phase(ema=0.9999, new_head=False),)
    Options = Options
    size: tuple[int, int] = (512, 512)  # height and width, after `build` or `load`
    diffusion: Any = None

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"image": "image", "text": "text"},
            input_columns=("text",),
            optional_inputs=("seed",),
            clean=self._clean,
        )

    @property
    def generation(self) -> GenerationSpec:
        levels = self.diffusion.scheduler.config.num_train_timesteps if self.diffusion is not None else MOST_STEPS
        return image_generation(
            self.options,
            self.size,
            generate=self._generate,
            requests=lambda rows, count: [
                {"text": rows[seed % len(rows)]["text"], "seed": seed} for seed in range(count)
            ],
            defaults=lambda seed: {
                "steps": self.options.steps,
                "guidance": self.pipe.guidance if self.options.guidance is None else self.options.guidance,
            },
            settings={"steps": Setting(int, 1, min(MOST_STEPS, levels)), "guidance": Setting(float, 0, 100)},
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import denoising

        return denoising.DIRECTIONS

    # ---- before training ----

    def _clean(self, row: dict[str, Any]) -> dict[str, Any]:
        from pipelines.data.image.pixels import caption

        return {**row, "text": caption(row)}

    def build(self, source: Any, splits: Any) -> "nn.Module":
        import torch

        if source.folder is None:
            raise ModelError(
                "model.config: this task fine-tunes a pipeline, whose text encoders must know something: give model.id"
            )
        model = self._read(source.folder, size=self.options.image_size, random=source.random)
        from pipelines.data.image.reading import warn_if_dark

        self.says = True
        warn_if_dark(splits.train)
        if self.pipe.flow and self.options.snr_gamma is not None:
            log.warning("options.snr_gamma changes nothing: flow matching has no schedule of noise to weigh by")
        return model.to(memory_format=torch.channels_last)

    def _read(self, folder: Path, *, size: int | None, random: bool = False) -> "nn.Module":
        import torch

        from pipelines.models import diffusion, stable_diffusion

        self.pipe, model = stable_diffusion.read_pipe(folder, size=size, random=random)
        self.size = stable_diffusion.image_size(self.pipe, model)
        scheduler = diffusion.read_scheduler(folder)
        self.diffusion = (
            diffusion.Flow(scheduler) if self.pipe.flow else diffusion.Diffusion(scheduler, self.options.snr_gamma)
        )
        self.frozen = {
            "vae": stable_diffusion.Latents(self.pipe.parts["vae"]),
            "text": stable_diffusion.Prompts(self.pipe, model),
        }
        with torch.no_grad():
            self.nothing = tuple(part.float() for part in self.frozen["text"]([""]))  # the encoding of an empty caption
        self.says = False
        trained: nn.Module = model
        return trained

    def layers(self, model: Any) -> "list[nn.Module]":
        from torch import nn

        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        parts = dict(model.named_children())
        if "transformer_blocks" in parts:
            blocks, end = list(model.transformer_blocks), ("norm_out", "proj_out")
        else:
            middle = [model.mid_block] if model.mid_block is not None else []
            blocks, end = [*model.down_blocks, *middle, *model.up_blocks], ("conv_norm_out", "conv_out")
        inner = ("transformer_blocks", "down_blocks", "mid_block", "up_blocks", *end)
        stem = nn.ModuleList([part for name, part in parts.items() if name not in inner])
        return [stem, *blocks, nn.ModuleList([parts[name] for name in end if parts.get(name) is not None])]

    def encode(self, rows: Any) -> Any:
        from pipelines.data.image.pixels import Pictures

        if self.says:
            prompts = self.frozen["text"]
            count = prompts.too_long(rows["text"][:])  # type: ignore[operator]
            if count:
                log.warning(
                    "%s of %s captions are longer than %s tokens: the text encoder reads no more",
                    count,
                    len(rows),
                    prompts.longest,
                )
        return Pictures(rows, self.size, text=True, upscale=self.options.upscale)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(bool(self.options.flip), switch="options.flip=false")

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        return (
            {**example, "pixels": example["pixels"].flip(-1)} if self.options.flip and rng.random() < 0.5 else example
        )

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        from pipelines.models.diffusion import noise, noise_inputs

        shape = self.frozen["vae"].shape(self.size)  # type: ignore[operator]
        return {
            **noise_inputs(rng, shape),
            "latent": noise(rng.getrandbits(62), shape),
            "dropped": rng.random() < self.options.caption_dropout,
        }

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        plain = {key: [e[key] for e in examples] for key in ("id", "row", "text")}
        return {**plain, "pixels": torch.stack([e["pixels"] for e in examples])}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"images": float(len(batch["id"]))}

    def _seen(self, batch: Batch) -> "tuple[Tensor, Tensor, tuple[Tensor, ...]]":
        """Clean latents, their noise, and the encoded texts, without gradient."""
        import torch

        vae: Any = self.frozen["vae"]
        with torch.no_grad():
            latents = vae.sample(vae(batch["pixels"]).float(), batch["latent"])
            texts = tuple(part.float() for part in self.frozen["text"](batch["text"]))
        return latents, batch["noise"], texts

    def _without(self, texts: "tuple[Tensor, ...]", dropped: Sequence[bool]) -> "tuple[Tensor, ...]":
        """Replace dropped texts by the empty caption."""
        import torch

        found = []
        for text, nothing in zip(texts, self.nothing, strict=True):
            share = torch.tensor(dropped, dtype=text.dtype, device=text.device).view(-1, *[1] * (text.ndim - 1))
            # Multiply instead of choosing: if all texts of the probe batch were dropped, their features would look
            # unused.
            found.append((1 - share) * text + share * nothing.to(text.device))
        return tuple(found)

    def _errors(self, model: Any, noisy: Any, texts: "tuple[Tensor, ...]") -> "Tensor":
        from pipelines.models.diffusion import squared_error

        names = ("encoder_hidden_states", "pooled_projections")
        given = dict(zip(names, texts, strict=False))
        if self.pipe.flow:
            return squared_error(model(hidden_states=noisy.inputs, timestep=noisy.timesteps, **given).sample, noisy)
        return squared_error(model(noisy.inputs, noisy.timesteps, **given).sample, noisy)

    def loss(self, model: Any, batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        import torch

        latents, noise, texts = self._seen(batch)
        noisy = self.diffusion.mix(latents, noise, torch.tensor(batch["position"], device=latents.device))
        loss: Tensor = (
            self._errors(model, noisy, self._without(texts, batch["dropped"])) * noisy.weights
        ).sum() / counts["images"]
        return loss

    # ---- after training ----

    def predict(self, model: Any, batch: Batch) -> list[Record]:
        import torch

        from pipelines.metrics import denoising
        from pipelines.models.diffusion import strata

        latents, noise, texts = self._seen(batch)
        even = {"even": True} if self.pipe.flow else {}
        mixed = [
            self.diffusion.mix(latents, noise, positions.to(latents.device), **even)
            for positions in strata(batch["position"])
        ]
        levels = torch.stack([self._errors(model, noisy, texts) for noisy in mixed], dim=1).detach().cpu().tolist()
        return [denoising.record(id_, own) for id_, own in zip(batch["id"], levels, strict=True)]

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import denoising

        return denoising.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import denoising

        return denoising.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import denoising

        return {"by noise level": denoising.by_level(records)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import denoising as denoising_plots

        return denoising_plots.figures(records)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import hardest_images

        return hardest_images()

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from pipelines.models import stable_diffusion

        stable_diffusion.save_pipe(self.pipe, model, folder)

    def load(self, folder: Path) -> "nn.Module":
        return self._read(folder, size=self.options.image_size).eval()

    # ---- images ----

    def _generate(self, model: Any, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        from pipelines.models import stable_diffusion

        texts, seeds = [request["text"] for request in requests], [request["seed"] for request in requests]
        return stable_diffusion.painted(self.pipe, model, texts, seeds, self.options.steps, self.options.guidance)

    def infer(
        self, model: Any, text: str, seed: Any = 0, steps: int | None = None, guidance: float | None = None
    ) -> Iterator[Any]:
        """Yield the image (PIL) for a text and a seed; intermediate images come first."""
        from pipelines.data.image.pixels import caption
        from pipelines.generation import requests
        from pipelines.models import diffusion, stable_diffusion

        try:
            text = caption({"text": text})
        except DataError:
            raise DataError("no text: write what the image is to show") from None
        prompts: Any = self.frozen["text"]
        if prompts.too_long([text]):
            log.warning("the text is longer than %s tokens: the text encoder reads no more of it", prompts.longest)
        steps = self.options.steps if steps is None else steps
        if not 1 <= steps <= MOST_STEPS:
            raise DataError(f"{steps} steps: give a number from 1 to {MOST_STEPS}")
        guidance = self.options.guidance if guidance is None else guidance
        yield from stable_diffusion.painting(
            self.pipe, model, text, requests.check_seed(seed), steps, guidance, diffusion.preview_every(steps)
        )
