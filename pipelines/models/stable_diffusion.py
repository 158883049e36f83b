"""diffusers' text-to-image pipelines: the part that trains by itself, and around it what only runs forward (read by pipefiles).

Stable Diffusion (a U-Net that sees the text) and Stable Diffusion 3 (a transformer, flow matching). All of it in float32.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines import diffusion

if TYPE_CHECKING:
    from torch import Tensor

TRAINS = {  # class in model_index.json -> the part that trains, and its class
    "StableDiffusionPipeline": ("unet", "UNet2DConditionModel"),
    "StableDiffusion3Pipeline": ("transformer", "SD3Transformer2DModel"),
}
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
T5_TOKENS = 256  # what the pipeline of Stable Diffusion 3 gives its third text encoder to read


class Pipe:
    """A pipeline without the part that trains; `around` puts one in."""

    def __init__(self, kind: Any, parts: dict[str, Any], settings: dict[str, Any]) -> None:
        self.kind, self.parts, self.settings = kind, parts, settings
        self.trains = TRAINS[kind.__name__][0]

    @property
    def flow(self) -> bool:
        return self.trains == "transformer"

    @property
    def guidance(self) -> float:
        """How strictly images follow the text where nothing else is said, as the pipeline has it."""
        return 7.0 if self.flow else 7.5

    @property
    def factor(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.parts["vae"].config.block_out_channels) - 1)

    def around(self, model: Any) -> Any:
        """The whole pipeline, with a scheduler of its own: a scheduler remembers where it is."""
        scheduler = self.parts["scheduler"]
        with quiet():
            made = self.kind(
                **{**self.parts, "scheduler": type(scheduler).from_config(scheduler.config), self.trains: model}, **self.settings
            )
        made.set_progress_bar_config(disable=True)
        return made


class _Described:
    """Stands for a model that is asked for its configuration alone."""

    def __init__(self, config: Any) -> None:
        self.config = config


class Latents(nn.Module):
    """The VAE: pixels -> mean and log-variance of their latents, of which `sample` draws."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: "Tensor") -> "Tensor":
        with torch.autocast(pixels.device.type, enabled=False):
            # in the order in which they are kept, or sums round otherwise
            return self.vae.encode(pixels.float()).latent_dist.parameters.contiguous()

    def sample(self, parameters: "Tensor", seeds: Sequence[int]) -> "Tensor":
        """Latents as the model sees them, each with noise of its own seed."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        spread = DiagonalGaussianDistribution(parameters)
        latents = spread.mean + spread.std * diffusion.noise(seeds, spread.mean.shape[1:], parameters.device)
        return (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor


class Prompts(nn.Module):
    """The text encoders: texts -> what the model sees of them, tensors with one row per text."""

    def __init__(self, pipe: Pipe, model: Any) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: pipe.parts[name] for name in ENCODERS if pipe.parts.get(name) is not None})
        # without T5 the pipeline asks the transformer's configuration how wide its zeros are to be
        self.pipeline = pipe.around(_Described(model.config) if pipe.flow else None)
        self.flow = pipe.flow

    def forward(self, texts: Sequence[str]) -> "tuple[Tensor, ...]":
        device = next(self.parameters()).device
        with quiet(), torch.autocast(device.type, enabled=False):
            if self.flow:
                words, _, pooled, _ = self.pipeline.encode_prompt(list(texts), None, None, device, do_classifier_free_guidance=False)
                return words, pooled
            return (self.pipeline.encode_prompt(list(texts), device, 1, do_classifier_free_guidance=False)[0],)

    @property
    def longest(self) -> int:
        """Tokens that are read of a text, the special ones included."""
        return T5_TOKENS if "text_encoder_3" in self.encoders else self.pipeline.tokenizer.model_max_length

    def too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts are not read to their end."""
        tokenizer = self.pipeline.tokenizer_3 if "text_encoder_3" in self.encoders else self.pipeline.tokenizer
        with quiet():
            return sum(len(ids) > self.longest for ids in tokenizer(list(texts)).input_ids) if len(texts) else 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """diffusers tells every caption that it cuts, and transformers every one that is long: Graft says how many, once."""
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
    """Height and width of its images in pixels."""
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * pipe.factor, width * pipe.factor


# ---- images ----


def painted(
    pipe: Pipe, model: Any, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float | None, **more: Any
) -> list[Any]:
    """An image (PIL) of each text, as the library's pipeline makes it from `torch.Generator().manual_seed(seed)`.

    What the model's safety checker blackened is `flagged` in its `info`. Mixed precision, where it is on, is the model's alone.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    whole = pipe.around(model)
    with quiet(), _mixed_alone(model):
        found = whole(
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
    """Without autocast but in the model, where it is on: VAE and text encoders make images in the precision in which they train."""
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
    """Nobody waits for the image any more."""


def painting(pipe: Pipe, model: Any, text: str, seed: int, steps: int, guidance: float | None, every: int) -> Iterator[Any]:
    """The same image of one text; before it, after every so many steps, what its latents look like.

    The library's pipeline hands out no image before its last, so it runs in a thread. What goes wrong there is raised here, and it
    ends where the iterator is closed. Previews are shown to the safety checker as well, or they would be a way around it.
    """
    import queue
    import threading

    found: queue.Queue[Any] = queue.Queue()
    closed = threading.Event()

    def look(whole: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if closed.is_set():
            raise _Closed
        if step % every == every - 1 and step + 1 < whole.num_timesteps:
            found.put((False, shown(whole, given["latents"])))
        return given

    def work() -> None:
        try:
            found.put((True, painted(pipe, model, [text], [seed], steps, guidance, callback_on_step_end=look)[0]))
        except BaseException as error:  # raised again where the image is waited for
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


def shown(whole: Any, latents: "Tensor") -> Any:
    """The image of one example's latents, as the end of the library's pipeline makes it."""
    vae = whole.vae
    pixels = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0), return_dict=False)[0]
    checked = [False]
    if getattr(whole, "safety_checker", None) is not None:
        pixels, checked = whole.run_safety_checker(pixels, pixels.device, pixels.dtype)
    return whole.image_processor.postprocess(pixels, output_type="pil", do_denormalize=[not flagged for flagged in checked])[0]
