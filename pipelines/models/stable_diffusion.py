"""Text-to-image pipelines of diffusers: load, run and save them. One part trains, the others only run forward.

Stable Diffusion (a U-Net with cross-attention to the text) and Stable Diffusion 3 (a transformer, flow matching), all
in float32.
"""

import contextlib
import importlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines.errors import ModelError
from pipelines.models import diffusion
from pipelines.models.layers import in_own_memory
from pipelines.models.pretrained import LORA, called, first_line

if TYPE_CHECKING:
    from torch import Tensor

TRAINS = {  # class in model_index.json -> the part that trains, and its class
    "StableDiffusionPipeline": ("unet", "UNet2DConditionModel"),
    "StableDiffusion3Pipeline": ("transformer", "SD3Transformer2DModel"),
}
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
T5_TOKENS = 256  # tokens of a text that the Stable Diffusion 3 pipeline passes to its third text encoder


class Pipe:
    """A pipeline without the part that trains; `around(model)` gives the complete pipeline."""

    def __init__(self, kind: Any, parts: dict[str, Any], settings: dict[str, Any]) -> None:
        self.kind, self.parts, self.settings = kind, parts, settings
        self.trains = TRAINS[kind.__name__][0]

    @property
    def flow(self) -> bool:
        """Whether the model is trained with flow matching."""
        return self.trains == "transformer"

    @property
    def guidance(self) -> float:
        """The pipeline's default guidance scale."""
        return 7.0 if self.flow else 7.5

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return int(2 ** (len(self.parts["vae"].config.block_out_channels) - 1))

    def around(self, model: Any) -> Any:
        """The complete pipeline with this model. It gets its own scheduler, because a scheduler has state."""
        scheduler = self.parts["scheduler"]
        if self.parts.get("safety_checker") is not None and isinstance(model, nn.Module):  # `_Described` has no weights
            self.parts["safety_checker"].to(next(model.parameters()).device)
        with quiet():
            pipeline = self.kind(
                **{**self.parts, "scheduler": type(scheduler).from_config(scheduler.config), self.trains: model},
                **self.settings,
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class _Described:
    """Stands for a model of which only the configuration is read."""

    def __init__(self, config: Any) -> None:
        self.config = config


class Latents(nn.Module):
    """The VAE encoder: pixels -> mean and log-variance of the latents; `sample` draws latents from them."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.ordered = False

    def forward(self, pixels: "Tensor") -> "Tensor":
        # twice as fast; the decoder keeps its layout, because the rounding of its images would change
        if pixels.device.type == "cpu" and not self.ordered:
            self.vae.encoder.to(memory_format=torch.channels_last)
            self.ordered = True
        with torch.autocast(pixels.device.type, enabled=False):
            # contiguous, as it is stored in the cache: sums in another order would round differently
            parameters: Tensor = self.vae.encode(pixels.float()).latent_dist.parameters.contiguous()
            return parameters

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """The shape of the latent of an image: channels, height and width."""
        shrinks = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.vae.config.latent_channels, size[0] // shrinks, size[1] // shrinks

    def sample(self, parameters: "Tensor", noise: "Tensor") -> "Tensor":
        """Scaled latents for the model, each with its own noise."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        spread = DiagonalGaussianDistribution(parameters)
        latents = spread.mean + spread.std * noise
        scaled: Tensor = (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor
        return scaled


class Prompts(nn.Module):
    """The text encoders: texts -> the embeddings for the model, tensors with one row per text."""

    def __init__(self, pipe: Pipe, model: Any) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: pipe.parts[name] for name in ENCODERS if pipe.parts.get(name) is not None})
        # without T5, the pipeline reads the width of its zero embeddings from the transformer's configuration
        self.pipeline = pipe.around(_Described(model.config) if pipe.flow else None)
        self.flow = pipe.flow

    def forward(self, texts: Sequence[str]) -> "tuple[Tensor, ...]":
        device = next(self.parameters()).device
        with quiet(), torch.autocast(device.type, enabled=False):
            if self.flow:
                words, _, pooled, _ = self.pipeline.encode_prompt(
                    list(texts), None, None, device, do_classifier_free_guidance=False
                )
                return words, pooled
            return (self.pipeline.encode_prompt(list(texts), device, 1, do_classifier_free_guidance=False)[0],)

    @property
    def longest(self) -> int:
        """The number of tokens that are read of a text, special tokens included."""
        return T5_TOKENS if "text_encoder_3" in self.encoders else self.pipeline.tokenizer.model_max_length

    def too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts have more tokens than are read."""
        tokenizer = self.pipeline.tokenizer_3 if "text_encoder_3" in self.encoders else self.pipeline.tokenizer
        with quiet():
            return sum(len(ids) > self.longest for ids in tokenizer(list(texts)).input_ids) if len(texts) else 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings about long texts: both libraries warn for every text, Graft reports the count once."""
    names = ("diffusers", "transformers")
    levels = [logging.getLogger(name).level for name in names]
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)


def image_size(pipe: Pipe, model: Any) -> tuple[int, int]:
    """Height and width of the model's images in pixels."""
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * pipe.factor, width * pipe.factor


# ---- images ----


def painted(
    pipe: Pipe, model: Any, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float | None, **more: Any
) -> list[Any]:
    """One PIL image per text, generated by the library's pipeline with `torch.Generator().manual_seed(seed)`.

    An image that the model's safety checker replaced by black has `flagged` in its `info`. Autocast, if it is on,
    applies to the model only.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pipeline = pipe.around(model)
    with quiet(), _mixed_alone(model):
        found = pipeline(
            list(texts),
            generator=generators,
            num_inference_steps=steps,
            guidance_scale=pipe.guidance if guidance is None else guidance,
            **more,
        )
    for image, flagged in zip(found.images, getattr(found, "nsfw_content_detected", None) or [], strict=False):
        if flagged:
            image.info["flagged"] = True
    return list(found.images)


@contextlib.contextmanager
def _mixed_alone(model: Any) -> Iterator[None]:
    """Restrict autocast to the model, if it is on: VAE and text encoders run in the same precision as in training."""
    from accelerate.utils import convert_to_fp32

    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    own, had, kind = model.forward, vars(model).get("forward"), torch.get_autocast_dtype(device)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, kind):
            return convert_to_fp32(own(*args, **kwargs))

    model.forward = forward
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        del model.forward
        if had is not None:
            model.forward = had


class _Closed(Exception):
    """Raised in the worker thread when the iterator was closed."""


def painting(
    pipe: Pipe, model: Any, text: str, seed: int, steps: int, guidance: float | None, every: int
) -> Iterator[Any]:
    """Yield previews of one image while it is generated, and then the image itself (see `painted`).

    A preview is decoded from the latents after every `every` steps. The library's pipeline returns only the final
    image, so it runs in a thread. An error there is raised here. Closing the iterator ends the thread. The safety
    checker checks the previews too; otherwise they would be a way around it.
    """
    import queue
    import threading

    found: queue.Queue[Any] = queue.Queue()
    closed = threading.Event()

    def look(pipeline: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if closed.is_set():
            raise _Closed
        if step % every == every - 1 and step + 1 < pipeline.num_timesteps:
            found.put((False, shown(pipeline, given["latents"])))
        return given

    def work() -> None:
        try:
            found.put((True, painted(pipe, model, [text], [seed], steps, guidance, callback_on_step_end=look)[0]))
        except BaseException as error:  # raised again in the thread that consumes the iterator
            found.put((True, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        last = False
        while not last:
            last, image = found.get()
            if isinstance(image, BaseException):
                raise image
            yield image
    finally:
        closed.set()
        thread.join()


def shown(pipeline: Any, latents: "Tensor") -> Any:
    """Decode the latents of one example to an image, as the library's pipeline does at its end."""
    vae = pipeline.vae
    pixels = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0), return_dict=False)[0]
    checked = [False]
    if getattr(pipeline, "safety_checker", None) is not None:
        pixels, checked = pipeline.run_safety_checker(pixels, pixels.device, pixels.dtype)
    return pipeline.image_processor.postprocess(
        pixels, output_type="pil", do_denormalize=[not flagged for flagged in checked]
    )[0]


# ---- reading ----


def read_pipe(folder: Path, *, size: int | None = None, random: bool = False) -> tuple[Pipe, Any]:
    """Read a folder's pipeline and the model that trains. Raises ModelError.

    The model will generate images of `size` x `size` pixels; without `size`, of its own size.
    """
    import diffusers
    import torch

    index = diffusion.read_index(folder)
    name = index["_class_name"]
    if name not in TRAINS:
        raise ModelError(f"{called(folder)}: a {name} is not supported; choose a {' or a '.join(TRAINS)}")
    trains, expected = TRAINS[name]
    _check_index(folder, index)
    if (index.get(trains) or [None, None])[1] != expected:
        raise ModelError(f"{called(folder)}: model_index.json names no {expected} as {trains}")
    kind = getattr(diffusers, name)
    model = _read_part(folder, trains, index, random=random)
    absent = {part: None for part, value in index.items() if isinstance(value, list) and value[0] is None}
    models = {
        part: _read_part(folder, part, index) for part in ("vae", *ENCODERS) if part in index and part not in absent
    }
    try:
        with quiet(), _no_bars():
            pipeline = kind.from_pretrained(
                folder,
                **{**absent, **models, trains: None},
                local_files_only=True,
                dtype=torch.float32,
                low_cpu_mem_usage=False,
            )
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: the pipeline cannot be loaded: {first_line(error)}") from error
    parts = {part: value for part, value in pipeline.components.items() if part != trains}
    for value in parts.values():
        if isinstance(value, nn.Module):
            value.eval()
    settings = {"requires_safety_checker": pipeline.config.requires_safety_checker} if trains == "unet" else {}
    pipe = Pipe(kind, parts, settings)
    _check_fit(folder, pipe, model)
    _set_size(folder, pipe, model, size)
    return pipe, model


def _check_index(folder: Path, index: dict[str, Any]) -> None:
    """Raise ModelError if a part is missing or belongs to a library that is not supported."""
    parts = {
        key: value
        for key, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None
    }
    for part, (library, kind) in parts.items():
        if library not in ("diffusers", "transformers", "stable_diffusion"):
            raise ModelError(
                f"{called(folder)}: {part} needs code of its own ({library}.{kind}); Graft never runs a model's code"
            )
        if not (folder / part).is_dir():
            raise ModelError(
                f"{called(folder)}: model_index.json names a {part}, but there is no folder {part}/: "
                "download the model again"
            )
    lacking = [part for part in ("vae", "text_encoder", "tokenizer", "scheduler") if part not in parts]
    if lacking:
        raise ModelError(f"{called(folder)}: a pipeline without {lacking[0]} cannot be trained; choose a complete one")
    _check_scheduler(folder, parts["scheduler"][1], index["_class_name"] == "StableDiffusion3Pipeline")


def _check_scheduler(folder: Path, kind: str, flow: bool) -> None:
    import diffusers

    if not hasattr(diffusers, kind):
        raise ModelError(f"{called(folder)}: diffusers {diffusers.__version__} knows no scheduler {kind}")
    if kind.startswith("FlowMatch") != flow:
        what = (
            "flow matching, but this pipeline has a schedule of noise"
            if flow
            else "a schedule of noise, but this pipeline has flow matching"
        )
        raise ModelError(f"{called(folder)}: its model learns by {what} ({kind})")


def _read_part(folder: Path, part: str, index: dict[str, Any], *, random: bool = False) -> Any:
    """One model of a pipeline, float32, in its own memory. Raises ModelError."""
    import torch

    library, name = index[part]
    try:
        kind = getattr(importlib.import_module(library), name)
        with quiet(), _no_bars():
            if random:
                return kind.from_config(kind.load_config(folder / part, local_files_only=True))
            # with low memory use, diffusers would leave missing weights empty instead of drawing them at random
            options = {"low_cpu_mem_usage": False} if library == "diffusers" else {}
            model, info = kind.from_pretrained(
                folder / part, output_loading_info=True, local_files_only=True, dtype=torch.float32, **options
            )
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its {part} cannot be loaded: {first_line(error)}") from error
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelError(
            f"{called(folder)}: weights of its {part} are missing or of another shape: {lacking[0]} "
            f"({len(lacking)} in all)"
        )
    return in_own_memory(model.float()).eval()


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Turn off the libraries' progress bars for loading and saving a pipeline's parts."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    shown = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    try:
        ours.disable_progress_bar()
        theirs.disable_progress_bar()
        yield
    finally:
        for library, was in zip((ours, theirs), shown, strict=True):
            if was:
                library.enable_progress_bar()


def _check_fit(folder: Path, pipe: Pipe, model: Any) -> None:
    """Raise ModelError unless VAE, text encoders and model fit each other."""
    config, channels = model.config, pipe.parts["vae"].config.latent_channels
    name, out = type(model).__name__, config.out_channels or config.in_channels
    if config.in_channels != out:
        raise ModelError(
            f"{called(folder)}: this {name} has {config.in_channels} channels in and {out} out, "
            "as those have that fill in parts of an image; choose one that makes whole images of text"
        )
    if config.in_channels != channels:
        raise ModelError(
            f"{called(folder)}: the VAE makes latents of {channels} channels, the {name} takes {config.in_channels}"
        )
    widths = [pipe.parts[part].config for part in ENCODERS if pipe.parts.get(part) is not None]
    if not pipe.flow:
        given, taken = widths[0].hidden_size, config.cross_attention_dim
    elif pipe.parts.get("text_encoder_2") is None:
        raise ModelError(
            f"{called(folder)}: a pipeline without text_encoder_2 cannot be trained; choose a complete one"
        )
    else:
        given, taken = sum(one.projection_dim for one in widths[:2]), config.pooled_projection_dim
    if given != taken:
        raise ModelError(f"{called(folder)}: the text encoders give {given} numbers, the {name} takes {taken}")


def _set_size(folder: Path, pipe: Pipe, model: Any, size: int | None) -> None:
    """Set the side of the model's images. Raises ModelError for a size that it cannot generate."""
    step = pipe.factor * model.config.patch_size if pipe.flow else max(8, pipe.factor)
    if size is not None and size % step:
        near = f"{size - size % step} or {size - size % step + step}" if size > step else str(step)
        raise ModelError(
            f"options.image_size: latent size mismatch: {size} pixels, but the VAE and {type(model).__name__} of "
            f"{called(folder)} take multiples of {step}: set {near}"
        )
    if size is not None:
        model.register_to_config(sample_size=size // pipe.factor)
    if model.config.sample_size is None:
        raise ModelError(f"{called(folder)}: its model says no sample_size: set options.image_size")
    height, width = image_size(pipe, model)
    most = pipe.factor * model.config.patch_size * model.config.pos_embed_max_size if pipe.flow else None
    if most is not None and max(height, width) > most:
        raise ModelError(
            f"options.image_size: {max(height, width)} pixels, but {called(folder)} has positions for {most} at most"
        )


# ---- writing ----


def save_pipe(pipe: Pipe, model: Any, folder: Path) -> None:
    """Save the complete pipeline in diffusers' format, without the local paths that its parts were loaded from."""
    pipeline = pipe.around(model)
    with quiet(), _no_bars():
        pipeline.save_pretrained(folder)
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"_name_or_path", "name_or_path"} & found.keys():
            kept = {key: value for key, value in found.items() if key not in ("_name_or_path", "name_or_path")}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def save_lora(pipe: Pipe, model: Any, folder: Path, base: str, revision: str | None) -> None:
    """Save the LoRA weights only, in diffusers' format, with the adapter's configuration.

    Without the configuration, an alpha that differs from the rank would be lost.
    """
    from peft import get_peft_model_state_dict

    values = {
        name.removeprefix("base_model.model."): value.detach().cpu()
        for name, value in get_peft_model_state_dict(model).items()
    }
    config = {**model.peft_config["default"].to_dict(), "base_model_name_or_path": base, "revision": revision}
    given = {f"{pipe.trains}_lora_layers": values, f"{pipe.trains}_lora_adapter_metadata": config}
    pipe.kind.save_lora_weights(folder, weight_name=LORA, **given)


def load_lora(pipe: Pipe, model: Any, folder: Path) -> Any:
    """Add the LoRA layers of a folder to the model, in diffusers' format; they are not merged. Raises ModelError."""
    try:
        with quiet():
            pipe.around(model).load_lora_weights(str(folder), weight_name=LORA)
    except Exception as error:  # damaged files, or a base model of another shape
        raise ModelError(f"{called(folder)}: {LORA} does not fit its base model: {first_line(error)}") from error
    return model
