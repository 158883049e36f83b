"""Load diffusers' UNet2DModel, and make images with it as DDPMPipeline and DDIMPipeline do."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.complaints import suggest
from pipelines.diffusion import fresh, read_index
from pipelines.errors import ModelError
from pipelines.pretrained import called, first_line

if TYPE_CHECKING:
    from torch import nn

PIPELINES = {"DDPMPipeline": "ddpm", "DDIMPipeline": "ddim"}  # class in model_index.json -> how it samples


def read_unet(folder: Path | None, config: dict[str, Any] | None, *, size: int | None, random: bool = False) -> "nn.Module":
    """A UNet2DModel in float32, of a pipeline's folder or from a configuration with random weights. Raises ModelError.

    `size` is the side of its images in pixels; left out, the model's own.
    """
    from diffusers import UNet2DModel

    if folder is None:
        fields = _checked(dict(config or {}), UNet2DModel)
        return _checked_model(_made(UNet2DModel, fields | ({"sample_size": size} if size else {})), "model.config")
    kind = read_index(folder)["_class_name"]
    if kind not in PIPELINES:
        raise ModelError(f"{called(folder)}: a {kind} is no unconditional one; choose a {' or a '.join(PIPELINES)}")
    place = folder / "unet" if (folder / "unet").is_dir() else folder  # the first repos of diffusers have all in one folder
    try:
        settings = UNet2DModel.load_config(place, local_files_only=True)
        settings = {key: value for key, value in settings.items() if key not in ("_class_name", "_diffusers_version", "_name_or_path")}
        settings |= {"sample_size": size} if size else {}
        if random:
            return _checked_model(_made(UNet2DModel, settings), called(folder))
        model, info = UNet2DModel.from_pretrained(place, output_loading_info=True, low_cpu_mem_usage=False, local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged or strange file brings about
        raise ModelError(f"{called(folder)}: its U-Net cannot be loaded: {first_line(error)}") from error
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelError(f"{called(folder)}: weights of its U-Net are missing or of another shape: {lacking[0]} ({len(lacking)} in all)")
    model.register_to_config(**settings)
    return _checked_model(fresh(model), called(folder))


def _checked(fields: dict[str, Any], kind: Any) -> dict[str, Any]:
    """A recipe's `model.config`: the library takes any field, so a misspelled one would do nothing."""
    import inspect

    named = fields.pop("model_type")
    if named != "UNet2DModel":
        raise ModelError(f"model.config.model_type: this task trains a UNet2DModel of diffusers, got {named!r}")
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    strange = [name for name in fields if name not in known]
    if strange:
        raise ModelError(f"model.config: UNet2DModel has no field {strange[0]!r}{suggest(strange[0], known)}")
    return fields


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except Exception as error:  # blocks, channels and groups that do not fit each other
        raise ModelError(f"model.config: no UNet2DModel can be made of it: {first_line(error)}") from error


def _checked_model(model: Any, name: str) -> "nn.Module":
    """Channels and size fit, and one forward runs. In channels-last memory, where convolutions are faster. Raises ModelError."""
    import torch

    config = model.config
    if config.in_channels not in (1, 3) or config.out_channels != config.in_channels:
        raise ModelError(
            f"{name}: {config.in_channels} channels in and {config.out_channels} out; images have 3 (RGB) or 1 (grey), in and out alike"
        )
    if config.num_class_embeds or config.class_embed_type:
        raise ModelError(f"{name}: this U-Net wants a class for every image; choose an unconditional one")
    if config.sample_size is None:
        raise ModelError(f"{name}: no sample_size (pixels a side): set options.image_size")
    height, width = image_size(model)
    if height < 1:
        raise ModelError(f"{name}: sample_size {config.sample_size} is no size")
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, config.in_channels, height, width), torch.zeros(1, dtype=torch.long))
    except (RuntimeError, ValueError) as error:
        halvings = 2 ** (len(config.block_out_channels) - 1)
        raise ModelError(
            f"{name}: this U-Net cannot take {height} x {width} pixels (it halves them {len(config.block_out_channels) - 1} times, so "
            f"multiples of {halvings} fit): {first_line(error)}"
        ) from error
    return model.to(memory_format=torch.channels_last)


def image_size(model: Any) -> tuple[int, int]:
    """Height and width of its images."""
    size = model.config.sample_size
    return (size, size) if isinstance(size, int) else tuple(size)


def denoised(model: Any, scheduler: Any, seeds: Sequence[int], steps: int, every: int | None = None) -> "Iterator[list[Any]]":
    """Images of these seeds, as the pipelines of diffusers make them from `torch.Generator().manual_seed(seed)` each.

    Yields the finished ones last; before them, where `every` is given, after so many steps what the model takes the clean
    images to be. Each image is the same whatever else is in the batch, but for rounding.
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    from pipelines.data.pictures import to_image

    device = next(model.parameters()).device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (len(generators), model.config.in_channels, *image_size(model))
    image = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for place, time in enumerate(scheduler.timesteps):
            taken = scheduler.step(model(image, time).sample.float(), time, image, generator=generators)
            image = taken.prev_sample
            if every and place % every == every - 1 and place + 1 < len(scheduler.timesteps):
                yield [to_image(one) for one in taken.pred_original_sample.float().cpu()]
    yield [to_image(one) for one in image.float().cpu()]
