"""Load diffusers' UNet2DModel, and generate images with it as DDPMPipeline and DDIMPipeline do."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models.diffusion import read_index, scheduler_config
from pipelines.models.layers import in_own_memory
from pipelines.models.pretrained import called, first_line

if TYPE_CHECKING:
    from torch import nn

# Classes in model_index.json. The last one is the only one of diffusers that passes classes to a U-Net; it
# takes any sampler.
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "ConsistencyModelPipeline")
LABELS = "id2label.json"  # in the folder of model_index.json: the number of each class -> its name


def read_unet(
    folder: Path | None,
    config: dict[str, Any] | None,
    *,
    size: int | None,
    random: bool = False,
    labels: Sequence[str] | None = None,
) -> "nn.Module":
    """A UNet2DModel in float32, from a pipeline's folder, or from a configuration with random weights.

    Raises ModelError.

    `size` is the side of its images in pixels; None keeps the model's own. `labels` are the classes that it is trained
    on, none if empty; None keeps the model's own.
    """
    from diffusers import UNet2DModel

    wanted: dict[str, Any] = ({"sample_size": size} if size else {}) | (
        {"num_class_embeds": len(labels)} if labels else {}
    )
    if folder is None:
        return _checked_model(
            _built(UNet2DModel, _checked(dict(config or {}), UNet2DModel) | wanted), "model.config", labels
        )
    kind = read_index(folder)["_class_name"]
    if kind not in PIPELINES:
        raise ModelError(f"{called(folder)}: a {kind} is no unconditional one; choose a {' or a '.join(PIPELINES[:2])}")
    # the first diffusers models on the hub have all files in one folder
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    try:
        settings = UNet2DModel.load_config(place, local_files_only=True)
        settings = {
            key: value
            for key, value in settings.items()
            if key not in ("_class_name", "_diffusers_version", "_name_or_path")
        }
        if random:
            return _checked_model(_built(UNet2DModel, settings | wanted), called(folder), labels)
        model, info = UNet2DModel.from_pretrained(
            place, output_loading_info=True, low_cpu_mem_usage=False, local_files_only=True
        )
    except ModelError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its U-Net cannot be loaded: {first_line(error)}") from error
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelError(
            f"{called(folder)}: weights of its U-Net are missing or of another shape: {lacking[0]} "
            f"({len(lacking)} in all)"
        )
    if labels:
        _set_classes(model, read_labels(folder, model.config.num_class_embeds), labels)
    model.register_to_config(**settings | wanted)
    return _checked_model(in_own_memory(model.float()), called(folder), labels)


def read_labels(folder: Path, classes: int | None) -> list[str]:
    """The names of the model's classes in order; their numbers if the folder has no names. Raises ModelError."""
    count = classes or 0
    path = folder / LABELS
    if not count or not path.is_file():
        return [str(number) for number in range(count)]
    try:
        named = {int(number): str(label) for number, label in json.loads(path.read_text(encoding="utf-8")).items()}
        return [named[number] for number in range(count)]
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{path}: no names of {count} classes ({type(error).__name__}): correct it, or delete it"
        ) from None


def write_labels(folder: Path, labels: Sequence[str]) -> None:
    """Write the names of the classes to id2label.json, for `read_labels` and for users of the pipeline."""
    text = json.dumps({str(number): label for number, label in enumerate(labels)}, indent=2, ensure_ascii=False)
    (folder / LABELS).write_text(text + "\n", encoding="utf-8")


def _set_classes(model: Any, known: Sequence[str], labels: Sequence[str]) -> None:
    """Give a pretrained model an embedding for each of `labels`.

    A class that the model knows by name keeps its embedding. Any other gets the mean of the known ones, or zeros if
    there are none.
    """
    import torch
    from torch import nn

    own = model.class_embedding.weight if known else torch.zeros(1, model.time_embedding.linear_2.out_features)
    rows = [own[known.index(label)] if label in known else own.mean(0) for label in labels]
    model.class_embedding = nn.Embedding.from_pretrained(torch.stack(rows).detach().clone(), freeze=False)


def sampler_of(folder: Path) -> Literal["ddpm", "ddim"]:
    """The sampler of a pipeline's folder. Raises ModelError if it is neither DDPM nor DDIM."""
    kind = str(read_index(folder)["_class_name"])
    if kind == PIPELINES[-1]:
        kind = str(scheduler_config(folder).get("_class_name"))
    for name in ("ddpm", "ddim"):
        if kind.lower().startswith(name):
            return name
    raise ModelError(f"{called(folder)}: images by a {kind}, which is no sampler of DDPM or DDIM: choose another model")


def _checked(fields: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Check the fields of a recipe's `model.config`. Raises ModelError.

    The library accepts any field, so a misspelled one would have no effect.
    """
    import inspect

    named = fields.pop("model_type")
    if named != "UNet2DModel":
        raise ModelError(f"model.config.model_type: this task trains a UNet2DModel of diffusers, got {named!r}")
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ModelError(f"model.config: UNet2DModel has no field {unknown[0]!r}{suggest(unknown[0], known)}")
    return fields


def _built(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except Exception as error:  # blocks, channels and groups that do not fit each other
        raise ModelError(f"model.config: no UNet2DModel can be made of it: {first_line(error)}") from error


def _checked_model(model: Any, name: str, labels: Sequence[str] | None) -> "nn.Module":
    """Check channels, classes and size with one forward pass.

    Returns the model in channels-last memory, where convolutions are faster.

    Raises ModelError.
    """
    import torch

    config = model.config
    if config.in_channels not in (1, 3) or config.out_channels != config.in_channels:
        raise ModelError(
            f"{name}: {config.in_channels} channels in and {config.out_channels} out; "
            "images have 3 (RGB) or 1 (grey), in and out alike"
        )
    if config.class_embed_type:
        raise ModelError(
            f"{name}: class_embed_type {config.class_embed_type!r} takes no classes by number: choose another model"
        )
    if config.num_class_embeds and labels is not None and not labels:
        raise ModelError(f"{name}: this U-Net wants a class for every image: set options.class_conditional=true")
    if config.sample_size is None:
        raise ModelError(f"{name}: no sample_size (pixels a side): set options.image_size")
    sides = [config.sample_size] * 2 if isinstance(config.sample_size, int) else config.sample_size
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or not all(isinstance(side, int) and side >= 1 for side in sides)
    ):
        raise ModelError(
            f"{name}: sample_size {config.sample_size!r} is no size: give the pixels a side, or height and width"
        )
    height, width = image_size(model)
    if config.num_class_embeds and height != width:
        raise ModelError(
            f"{name}: {height} x {width} pixels: images of a class are square in diffusers: set options.image_size"
        )
    if config.num_class_embeds:
        model.register_to_config(sample_size=height)  # the pipeline cannot generate images from a pair
    try:
        with torch.no_grad():
            model.eval()(
                torch.zeros(1, config.in_channels, height, width),
                torch.zeros(1, dtype=torch.long),
                _numbers([0], model),
            )
    except Exception as error:  # a damaged configuration raises many kinds
        halvings = 2 ** (len(config.block_out_channels) - 1)
        raise ModelError(
            f"{name}: this U-Net cannot take {height} x {width} pixels (it halves them "
            f"{len(config.block_out_channels) - 1} times, so multiples of {halvings} fit): {first_line(error)}"
        ) from error
    placed: nn.Module = model.to(memory_format=torch.channels_last)
    return placed


def image_size(model: Any) -> tuple[int, int]:
    """Height and width of the model's images in pixels."""
    size = model.config.sample_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _numbers(classes: Sequence[int] | None, model: Any) -> Any:
    """The class numbers as a tensor [len(classes)] on the model's device; None if the model has no classes."""
    import torch

    return (
        torch.tensor(classes, device=next(model.parameters()).device)
        if model.config.num_class_embeds and classes is not None
        else None
    )


def denoised(
    model: Any,
    scheduler: Any,
    seeds: Sequence[int],
    steps: int,
    every: int | None = None,
    classes: Sequence[int] | None = None,
) -> "Iterator[list[Any]]":
    """Generate images from seeds, as diffusers' pipelines do with `torch.Generator().manual_seed(seed)` for each.

    `classes` are the numbers of the classes to show, if the model has classes. The last list that is yielded holds the
    finished images. With `every`, previews come before it: after every so many steps, the model's estimate of the clean
    images. An image does not depend on the rest of its batch, except for rounding.
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    from pipelines.data.image.pixels import to_image

    device = next(model.parameters()).device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (len(generators), model.config.in_channels, *image_size(model))
    image = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)
    numbers = _numbers(classes, model)
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for place, time in enumerate(scheduler.timesteps):
            taken = scheduler.step(model(image, time, numbers).sample.float(), time, image, generator=generators)
            image = taken.prev_sample
            if every and place % every == every - 1 and place + 1 < len(scheduler.timesteps):
                yield [to_image(one) for one in taken.pred_original_sample.float().cpu()]
    yield [to_image(one) for one in image.float().cpu()]
