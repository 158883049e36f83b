"""Unconditional image generation: generate images like those of a data set from noise (DDPM, Ho et al. 2020).

It trains a `UNet2DModel` of diffusers, from a pretrained pipeline or from a configuration. Rows hold `image`, and
`label` if classes are learned (`options.class_conditional`); images of a class can then be requested. The score is the
denoising error on held-out images, with the same noise every time. Images are generated and measured after training.
"""

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
from pipelines.models.source import read_json_object
from pipelines.task import Augmentation, Batch, Example, HubSpec, Phase, Record, Task
from pipelines.utils.settings import Setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import MistakeSpec

STEPS, MOST_STEPS = 50, 1000  # steps of DDIM, and the largest number of any sampler


class Options(Sampling):
    of_the_model: ClassVar[tuple[str, ...]] = ("class_conditional", "prediction", "schedule")

    steps: Annotated[Int, Field(ge=1, le=MOST_STEPS)] | None = None  # type: ignore[assignment]
    """Number of denoising steps per image.

    Left out: 50; for DDPM the length of the schedule, as in published scores.
    """
    image_size: Annotated[Int, Field(ge=4, le=2048)] | None = None
    """Pixels a side. Left out: the model's own. Images are cropped to a square at their centre."""
    upscale: bool = False
    """Enlarge images that are smaller than `image_size`; else they are skipped and counted."""
    flip: bool = False
    """Mirror half of the training images. Not suitable for digits or text."""
    class_conditional: bool = False
    """Also learn the class of every image (its `label` or folder), and generate images of a class.

    They are clearer if classes differ. The saved pipeline is diffusers' ConsistencyModelPipeline, which passes a class
    to a U-Net, with the sampler below.
    """
    prediction: Literal["epsilon", "v_prediction", "sample"] | None = None
    """What the model predicts: the noise, the velocity (Salimans and Ho 2022) or the clean image.

    Left out: as pretrained, else epsilon.
    """
    schedule: Literal["linear", "squaredcos_cap_v2"] | None = None
    """How the noise grows: linear or with a cosine (Nichol and Dhariwal 2021). Left out: as pretrained, else linear."""
    variance: Literal["fixed_small", "fixed_large"] | None = None
    """Variance of the noise that a step of the ddpm sampler adds (Ho et al. 2020, section 3.2).

    Left out: as pretrained, else fixed_small.
    """
    snr_gamma: Annotated[Float, Field(gt=0, le=1_000_000)] | None = None
    """Min-SNR weighting of the loss (Hang et al. 2023); the paper has 5. Left out: all noise levels weigh the same."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """Sampler, which also decides the saved pipeline: DDIM with few steps, or DDPM with as many as the schedule has."""
    reference: Literal["test", "train"] = "test"
    """The split whose images samples are compared with; published FID uses the training images."""


class UnconditionalImageGeneration(Task):
    name = "unconditional-image-generation"
    hub = HubSpec(
        "unconditional-image-generation", "diffusers", ("DDPMPipeline", "DDIMPipeline", "ConsistencyModelPipeline")
    )
    Options = Options
    size: tuple[int, int] = (64, 64)  # height and width, after `build` or `load`
    scheduler: Any = None

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []  # the classes that the model knows

    @property
    def data(self) -> DataSpec:
        learned = self.options.class_conditional
        return DataSpec(
            columns={"image": "image", **({"label": "label"} if learned else {})},
            optional_columns={} if learned else {"label": "label"},  # not learned, but used to stratify the splits
            input_columns=("seed",),
            optional_inputs=("label",) if self.labels else (),
            from_model=self._read_inputs,
            labels=tuple(self.labels),
            example=lambda row: {"image": row["image"]},
        )

    @property
    def generation(self) -> GenerationSpec:
        levels = self.scheduler.config.num_train_timesteps if self.scheduler is not None else MOST_STEPS
        return image_generation(
            self.options,
            self.size,
            generate=self._generate,
            requests=self._requests,
            defaults=lambda seed: {
                "steps": self.options.steps,
                **({"label": self.labels[seed % len(self.labels)]} if self.labels else {}),
            },
            settings={"steps": Setting(int, 1, min(MOST_STEPS, levels))},
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(ema=0.9999, new_head=self.options.class_conditional),)  # the class embedding

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import denoising

        return denoising.DIRECTIONS

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from diffusers import DDPMScheduler

        from pipelines.data.image.reading import warn_if_dark
        from pipelines.models import diffusion, unet

        self.labels = self._classes(splits) if self.options.class_conditional else []
        warn_if_dark(splits.train)
        if source.folder is not None:
            unet.sampler_of(source.folder)  # raises ModelError for a model of another kind
        model = unet.read_unet(
            source.folder, source.config, size=self.options.image_size, random=source.random, labels=self.labels
        )
        scheduler = DDPMScheduler() if source.folder is None else diffusion.read_scheduler(source.folder)
        if not isinstance(scheduler, DDPMScheduler):
            raise ModelError(
                f"{source.name}: its noise follows no schedule of betas ({type(scheduler).__name__}): choose another "
                "model"
            )
        changes = {
            "prediction_type": self.options.prediction,
            "beta_schedule": self.options.schedule,
            "variance_type": self.options.variance,
        }
        own: Any = scheduler.config  # type: ignore[attr-defined]
        given = {key: value for key, value in changes.items() if value is not None}
        given |= (
            {"trained_betas": None} if self.options.schedule else {}
        )  # a pretrained model may have this setting, and would use it
        self.scheduler = DDPMScheduler.from_config(own, **given)
        levels = self.scheduler.config.num_train_timesteps
        if self.options.steps is not None and self.options.steps > levels:
            raise ModelError(f"options.steps: the noise has {levels} levels, you ask for {self.options.steps}")
        self._know(model)
        return model

    def _classes(self, splits: Any) -> list[str]:
        labels = splits.labels or []
        if any(isinstance(label, list) for label in splits.train[:1]["label"]):
            raise DataError(
                f"{splits.name}: the label column holds lists: an image is of one class, so give one label per row"
            )
        if len(labels) < 2:
            found = f"{len(labels)} class found ({', '.join(labels)})"
            raise DataError(
                f"{splits.name}: {found}: there is nothing to tell apart; leave out options.class_conditional"
            )
        return list(labels)

    def _know(self, model: Any) -> None:
        from pipelines.models import unet
        from pipelines.models.diffusion import Diffusion

        if self.options.steps is None:
            levels = self.scheduler.config.num_train_timesteps
            self.options = self.options.model_copy(
                update={"steps": levels if self.options.sampler == "ddpm" else min(STEPS, levels)}
            )
        self.size, self.channels = unet.image_size(model), model.config.in_channels
        self.diffusion = Diffusion(self.scheduler, self.options.snr_gamma)

    def layers(self, model: Any) -> "list[nn.Module]":
        from torch import nn

        stem = nn.ModuleList([model.conv_in, model.time_embedding])
        middle = [model.mid_block] if model.mid_block is not None else []
        # listed as the head, so it always trains, although it is an input layer
        new = [model.class_embedding] if self.labels else []
        return [
            stem,
            *model.down_blocks,
            *middle,
            *model.up_blocks,
            nn.ModuleList([*new, model.conv_norm_out, model.conv_out]),
        ]

    def encode(self, rows: Any) -> Any:
        from pipelines.data.image.pixels import Pictures

        return Pictures(rows, self.size, self.channels, labels=self.labels, upscale=self.options.upscale)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(bool(self.options.flip), switch="options.flip=false")

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        return (
            {**example, "pixels": example["pixels"].flip(-1)} if self.options.flip and rng.random() < 0.5 else example
        )

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        from pipelines.models.diffusion import noise_inputs

        return noise_inputs(rng, (self.channels, *self.size))

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        return {
            "id": [e["id"] for e in examples],
            "row": [e["row"] for e in examples],
            "pixels": torch.stack([e["pixels"] for e in examples]).contiguous(memory_format=torch.channels_last),
            **({"class": torch.tensor([int(e["class"]) for e in examples])} if self.labels else {}),
        }

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"images": float(len(batch["id"]))}

    def loss(self, model: Any, batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        import torch

        from pipelines.models.diffusion import squared_error

        positions = torch.tensor(batch["position"], device=batch["pixels"].device)
        noisy = self.diffusion.mix(batch["pixels"], batch["noise"], positions)
        errors = squared_error(model(noisy.inputs, noisy.timesteps, batch.get("class")).sample, noisy)
        return (errors * noisy.weights).sum() / counts["images"]

    # ---- after training ----

    def predict(self, model: Any, batch: Batch) -> list[Record]:
        import torch

        from pipelines.metrics import denoising
        from pipelines.models.diffusion import squared_error, strata

        pixels, noise = batch["pixels"], batch["noise"]
        mixed = [
            self.diffusion.mix(pixels, noise, positions.to(pixels.device)) for positions in strata(batch["position"])
        ]
        errors = [
            squared_error(model(noisy.inputs, noisy.timesteps, batch.get("class")).sample, noisy) for noisy in mixed
        ]
        levels = torch.stack(errors, dim=1).detach().cpu().tolist()
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
        from pipelines.models import unet

        self._pipeline(model).save_pretrained(folder)
        if self.labels:
            unet.write_labels(folder, self.labels)

    def _pipeline(self, model: Any) -> Any:
        from diffusers import ConsistencyModelPipeline, DDIMPipeline, DDPMPipeline

        from pipelines.models.diffusion import sampler

        kind: Any = (
            ConsistencyModelPipeline
            if self.labels
            else DDIMPipeline
            if self.options.sampler == "ddim"
            else DDPMPipeline
        )
        pipeline: Any = kind(model, sampler(self.scheduler, self.options.sampler))
        pipeline.scheduler = sampler(
            self.scheduler, self.options.sampler
        )  # DDIMPipeline creates its own scheduler with another spacing
        return pipeline

    def _read_inputs(self, folder: Path) -> None:
        from pipelines.models import unet

        place = folder / "unet" if (folder / "unet").is_dir() else folder
        classes = (read_json_object(place / "config.json") or {}).get("num_class_embeds")
        self.labels = unet.read_labels(folder, classes if isinstance(classes, int) else None)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import diffusion, unet

        model: Any = unet.read_unet(folder, None, size=None)
        self.labels = unet.read_labels(folder, model.config.num_class_embeds)
        sampler = unet.sampler_of(folder)
        self.scheduler = diffusion.read_scheduler(folder)
        self.options = self.options.model_copy(update={"sampler": sampler, "class_conditional": bool(self.labels)})
        self._know(model)
        ready: nn.Module = model.eval()
        return ready

    # ---- images ----

    def _requests(self, rows: Any, count: int) -> list[dict[str, Any]]:
        from pipelines.data.labels import labels_in_proportion

        if not self.labels:
            return [{"seed": seed} for seed in range(count)]
        return [{"seed": seed, "label": label} for seed, label in enumerate(labels_in_proportion(rows["label"], count))]

    def _generate(self, model: Any, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        from pipelines.models import diffusion, unet

        scheduler = diffusion.sampler(self.scheduler, self.options.sampler)
        seeds, classes = zip(
            *((request["seed"], self._number(request["seed"], request.get("label"))) for request in requests),
            strict=True,
        )
        *_, images = unet.denoised(model, scheduler, seeds, self.options.steps, classes=classes)
        return images

    def _number(self, seed: int, label: Any) -> int:
        """Number of a class; without a label, each seed has the next class. Raises DataError."""
        from pipelines.config.validation_errors import suggest
        from pipelines.utils.formatting import short

        if label is None:
            return seed % max(1, len(self.labels))
        if not self.labels:
            raise DataError(f"label={label}: this model knows no classes: leave it out")
        if str(label) not in self.labels:
            raise DataError(
                f"label={label}: this model knows "
                f"{short(', '.join(self.labels), 200)}{suggest(str(label), self.labels)}"
            )
        return self.labels.index(str(label))

    def infer(self, model: Any, seed: Any = 0, steps: int | None = None, label: str | None = None) -> Iterator[Any]:
        """Yield the image (PIL) of one seed after `steps` denoising steps; intermediate predictions come first.

        `label` is the class to show, if the model knows classes; without it, the seeds take the classes in turn.
        """
        from pipelines.generation import requests
        from pipelines.models import diffusion, unet

        steps = diffusion.check_steps(self.options.steps if steps is None else steps, self.scheduler)
        scheduler = diffusion.sampler(self.scheduler, self.options.sampler)
        seed = requests.check_seed(seed)
        number = self._number(seed, label)
        for images in unet.denoised(
            model, scheduler, [seed], steps, every=diffusion.preview_every(steps), classes=[number]
        ):
            yield images[0]
