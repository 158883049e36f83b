"""Load image models of transformers and timm, and prepare their input.

Only the head may be missing or have another shape. Position embeddings are resized in the weights.
"""

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.models import pretrained
from pipelines.models.classic_kinds import KINDS
from pipelines.models.pretrained import called, first_line, load_model, read_tensor
from pipelines.utils import shares

if TYPE_CHECKING:
    from torch import nn

LONGEST = 2**16  # pixels: no limit


def check_classifies(folder: Path | None, config: Any) -> None:
    """Raise ModelError if the configuration is not of an image classification model with RGB input."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and config.model_type not in KINDS:
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model does not classify images; "
            "choose a model for image classification"
        )
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise ModelError(
            f"{called(folder)}: the model takes images of {channels} channels; images are read in RGB: "
            "choose another model"
        )


def image_classifier(
    folder: Path | None, config: Any, labels: list[str] | None = None, *, random: bool = False
) -> "nn.Module":
    """An AutoModelForImageClassification, float32, in its own memory. Raises ModelError.

    It has the classes `labels`, or by default those of `config`. A head that knows all of them by name is kept. The
    last layer of any other head starts from random weights.
    """
    from transformers import AutoModelForImageClassification

    hint = "is it a model for image classification, and does options.image_size fit it?"

    def load(renew: bool) -> "nn.Module":
        return load_model(
            AutoModelForImageClassification, folder, config, head, random=random, mend=_resize, hint=hint, renew=renew
        )

    if labels is None:
        return laid_out(load(False))
    return laid_out(pretrained.with_classes(config, labels, load, head, fresh=folder is None or random))


def laid_out(model: Any) -> "nn.Module":
    """Put a convolutional model in channels-last memory, where convolutions are faster.

    MobileNetV2 on a CPU is 1.2 to 1.4 times as fast. It also corrects two settings of transformers' MobileNets, which
    come from TensorFlow: see `_from_tensorflow`.
    """
    import torch

    _from_tensorflow(model)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    convolutional = weights > 0.5 * sum(p.numel() for p in trunk(model).parameters())
    if not convolutional or shares.any_in(model):  # FSDP does not accept this memory
        return model  # type: ignore[no-any-return]
    placed: nn.Module = model.to(memory_format=torch.channels_last)
    return placed


def _from_tensorflow(model: "nn.Module") -> None:
    """Correct two settings that MobileNets took over from TensorFlow.

    First, TensorFlow's decay of 0.997 became PyTorch's BatchNorm momentum, so the running statistics are almost those
    of the last batch (cats and dogs, all layers trained: validation accuracy varies between 0.90 and 0.64). PyTorch's
    default of 0.1 is set.

    Second, the TensorFlow padding copies the input of every convolution. With stride 1 it pads both sides equally,
    which the convolution itself does without a copy. ReLU6 can work in place too. A step takes 10 % less, with equal
    results.
    """
    from torch import nn

    module: Any
    for module in model.modules():
        if (
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            and module.momentum is not None
            and module.momentum > 0.5
        ):
            module.momentum = 0.1
        if type(module).__name__ in ("MobileNetV1ConvLayer", "MobileNetV2ConvLayer"):
            convolution = module.convolution
            if module.config.tf_padding and convolution.stride == (1, 1):
                convolution.padding = tuple(
                    d * (k - 1) // 2 for k, d in zip(convolution.kernel_size, convolution.dilation, strict=True)
                )
                module.config = copy(
                    module.config
                )  # a copy for this layer: the model's configuration is saved unchanged
                module.config.tf_padding = False
            if isinstance(module.activation, nn.ReLU6):
                module.activation.inplace = True


def head(model: Any) -> "nn.Module":
    """The classifier: timm's own, or else what `pretrained.head` finds. Raises ModelError if there is none."""
    return model.timm_model.get_classifier() if hasattr(model, "timm_model") else pretrained.head(model)


def trunk(model: Any) -> "nn.Module":
    """The part before the classifier; for a timm model all of it, the classifier included."""
    return model.timm_model if hasattr(model, "timm_model") else pretrained.trunk(model)


def try_size(model: Any, height: int, width: int) -> None:
    """Run one forward pass at the size of options.image_size. Raises ModelError if the model does not accept it.

    Models with windows or feature pyramids accept certain sizes only.
    """
    import torch

    try:
        with torch.no_grad():
            model.eval()(pixel_values=torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise ModelError(
            f"options.image_size: this model cannot take {height} x {width} pixels: {first_line(error)}"
        ) from error


def fixes_size(config: Any) -> bool:
    """Whether a timm architecture is built for one image size (ViT, Swin, Mixer): another size must be passed to it."""
    import timm

    known = timm.get_pretrained_cfg(config.architecture)
    return known is not None and known.fixed_input_size


def _resize(model: Any, folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Resize position embeddings to another image size, in the model's weights. Returns their names."""
    import torch

    found = [key for key, shape in shapes.items() if "pos" in key and len(shape) == 3]
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    for key in found:
        saved = read_tensor(folder, key, key.removeprefix("timm_model."))
        with torch.no_grad():
            named[key].copy_(resize_positions(saved.float(), named[key].shape[1]))
    return found


def resize_positions(positions: Any, length: int) -> Any:
    """Bicubic resize of learned position embeddings: [1, extra + n * n, dim] -> [1, length, dim].

    Extra tokens are kept.

    As in Dosovitskiy et al. 2021, section 3.2. Grids are square.
    """
    import math

    from torch.nn import functional as f

    if length < 2:
        raise ModelError("options.image_size: less than one patch of this model: give more pixels")
    extra = next(
        e for e in range(positions.shape[1] + 1) if math.isqrt(positions.shape[1] - e) ** 2 == positions.shape[1] - e
    )
    old, new = math.isqrt(positions.shape[1] - extra), math.isqrt(length - extra)
    grid = positions[:, extra:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = f.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    import torch

    return torch.cat([positions[:, :extra], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)


# ---- input ----


def image_processor(folder: Path | None, config: Any, image_size: int | None) -> Any:
    """The model's own image processor at `image_size`.

    A model from a configuration gets one with mean and deviation 0.5.

    Raises ModelError.
    """
    from transformers import AutoImageProcessor, ViTImageProcessor

    own = getattr(config, "image_size", None)
    if folder is None:
        side = image_size or (own if isinstance(own, int) else 224)
        return ViTImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    if config.model_type == "timm_wrapper":
        from transformers import TimmWrapperImageProcessor  # imports timm, which only its models need

        pretrained = dict(config.pretrained_cfg or {})
        if image_size is not None:
            pretrained["input_size"] = [3, image_size, image_size]
            config.pretrained_cfg = pretrained
        return TimmWrapperImageProcessor(pretrained_cfg=pretrained, architecture=config.architecture)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(
            f"{called(folder)}: no preprocessor_config.json (how images are scaled): "
            "copy the one that the model came with"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as for the weights
        raise ModelError(
            f"{called(folder)}: its image processor cannot be read (preprocessor_config.json): {first_line(error)}"
        ) from error
    if image_size is not None:
        _set_size(processor, image_size)
    return processor


def _set_size(processor: Any, side: int) -> None:
    size = {k: v for k, v in dict(processor.size).items() if v is not None}
    crop = {k: v for k, v in dict(getattr(processor, "crop_size", None) or {}).items() if v is not None}
    if "shortest_edge" in size:
        old = crop.get("height", size["shortest_edge"])
        processor.size = type(processor.size)(shortest_edge=round(side * size["shortest_edge"] / old))
    else:
        processor.size = type(processor.size)(height=side, width=side)
    if crop:
        processor.crop_size = type(processor.crop_size)(height=side, width=side)


def input_size(processor: Any) -> tuple[int, int]:
    """Height and width of the model's input in pixels."""
    if hasattr(processor, "data_config"):
        return tuple(processor.data_config["input_size"][1:])
    crop = getattr(processor, "crop_size", None)
    box = crop if crop and getattr(processor, "do_center_crop", False) and crop.get("height") else processor.size
    side = box.get("shortest_edge")
    return (box.get("height") or side, box.get("width") or side)


def scaled(processor: Any, image: Any) -> Any:
    """A PIL image of the right size -> float32 [3, H, W], scaled for the model.

    The model's own processor does it, because some do more than shift and scale: MobileViT's swaps channels,
    EfficientNet's scales twice.
    """
    import torch
    from torchvision.transforms.v2 import functional as f

    if not hasattr(processor, "data_config"):
        return processor(image, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"][0]
    pixels = f.to_dtype(f.pil_to_tensor(image), torch.float32, scale=True)
    return f.normalize(pixels, list(processor.data_config["mean"]), list(processor.data_config["std"]))


def set_resizing(processor: Any, side: int, resize: str) -> None:
    """Let an image processor of transformers resize as the images of the training were.

    `square` stretches, `shorter` makes the shorter side that long, `none` keeps the pixels.
    """
    from PIL import Image

    of_side: dict[str, int] = {"height": side, "width": side}
    if resize == "shorter":
        of_side = {"shortest_edge": side}
        if hasattr(processor, "pad_size"):  # those of Mask2Former and MaskFormer need both
            of_side["longest_edge"] = LONGEST
    processor.size, processor.do_resize = of_side, resize != "none"
    processor.resample = Image.Resampling.BILINEAR
    if hasattr(processor, "keep_aspect_ratio"):
        processor.keep_aspect_ratio = False
