"""Load image models from transformers and timm through one door, and prepare their input.

Only the head may be missing or of another shape; position embeddings are resized in the weights.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.complaints import suggest
from pipelines.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graft")


def read_config(folder: Path | None, config: dict | None) -> Any:
    """The configuration of a model folder, or one made from a recipe's `model.config`. Raises ModelError."""
    from transformers import AutoConfig

    try:
        if folder is None:
            return _made(dict(config or {}))
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # the library's own checks raise many kinds
        what = _called(folder)
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ModelError(f"{what}: this model needs code of its own; Graft never runs a model's code: choose another model") from error
        raise ModelError(f"{what}: not a model that transformers knows: {_first(error)}") from error


def _made(fields: dict[str, Any]) -> Any:
    """A configuration of the recipe's own. The library takes any field, so a misspelled one would do nothing."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = fields.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"model.config.model_type: transformers knows no {kind!r}{suggest(str(kind), list(CONFIG_MAPPING))}")
    made = AutoConfig.for_model(kind, **fields)
    known = AutoConfig.for_model(kind).to_dict()
    strange = [name for name in fields if name not in known and name not in made.attribute_map]
    if strange:
        raise ModelError(f"model.config: {kind} has no field {strange[0]!r}{suggest(strange[0], list(known))}")
    return made


def check_classifies(folder: Path | None, config: Any) -> None:
    """Raises ModelError for a configuration of another kind of model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise ModelError(
            f"{_called(folder)}: a {config.model_type} model does not classify images; choose a model for image classification"
        )
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise ModelError(f"{_called(folder)}: the model takes images of {channels} channels; images are read in RGB: choose another model")


def image_classifier(folder: Path | None, config: Any, *, random: bool = False) -> "nn.Module":
    """An AutoModelForImageClassification with `config`'s labels, float32, in fresh memory.

    Raises ModelError when the folder holds a model of another task, a pickle that torch will not read safely, or weights
    that do not fit anywhere but in the head.
    """
    import torch
    from transformers import AutoModelForImageClassification

    try:
        if folder is None or random:
            config.architectures = config.architectures or []  # the auto class walks it
            return laid_out(AutoModelForImageClassification.from_config(config, trust_remote_code=False))
        model, info = AutoModelForImageClassification.from_pretrained(
            folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged or strange file brings about: SafetensorError, UnpicklingError, KeyError, ...
        raise ModelError(_why(folder, error)) from error
    if not any(folder.glob("*.safetensors")):
        log.warning("%s has no safetensors: its weights were read from a pickle, tensors only (nothing in it was run)", _called(folder))
    _check(model, folder, info)
    with torch.no_grad():  # files are mapped at odd offsets, and convolutions then differ in the last bit
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = tensor.data.clone()
    return laid_out(model)


def laid_out(model: Any) -> "nn.Module":
    """A convolutional model in channels-last memory, where convolutions are faster (MobileNetV2 on a CPU: 1.2 to 1.4 times).

    transformers' MobileNets also hand TensorFlow's decay of 0.997 to BatchNorm as its momentum, so that the running statistics
    become those of the last batch (cats and dogs, all trained: accuracy on validation swings from 0.90 to 0.64). PyTorch's 0.1 then.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None and module.momentum > 0.5:
            module.momentum = 0.1
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    convolutional = weights > 0.5 * sum(p.numel() for p in trunk(model).parameters())
    return model.to(memory_format=torch.channels_last) if convolutional else model


def head(model: Any) -> "nn.Module":
    """The classifier: timm's own, else what stands beside the base model."""
    from torch import nn

    if hasattr(model, "timm_model"):
        return model.timm_model.get_classifier()
    parts = [m for name, m in model.named_children() if name != model.base_model_prefix and any(True for _ in m.parameters())]
    return parts[0] if len(parts) == 1 else nn.ModuleList(parts)


def trunk(model: Any) -> "nn.Module":
    return model.timm_model if hasattr(model, "timm_model") else getattr(model, model.base_model_prefix)


def _why(folder: Path | None, error: Exception) -> str:
    from pickle import UnpicklingError

    if folder is not None and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return f"{_called(folder)}: no weights here (model.safetensors)"
    if isinstance(error, UnpicklingError):
        return f"{_called(folder)}: its weights are a pickle that holds more than tensors, and is not run: choose a model with safetensors"
    return f"{_called(folder)}: the model cannot be loaded: {_first(error)}"


def _first(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).strip().splitlines()[:2])[:300] or type(error).__name__


def _called(folder: Path | None) -> str:
    """What a user calls a model folder: one in the hub's cache (models--OWNER--NAME/snapshots/COMMIT) by its id."""
    if folder is None:
        return "model.config"
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent.name.removeprefix("models--").replace("--", "/") if cached else str(folder)


def try_size(model: Any, height: int, width: int) -> None:
    """One forward at the size that options.image_size asks for: windows and pyramids take some sizes only. Raises ModelError."""
    import torch

    try:
        with torch.no_grad():
            model.eval()(pixel_values=torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"options.image_size: this model cannot take {height} x {width} pixels: {_first(error)}") from error


def fixes_size(config: Any) -> bool:
    """Whether a timm architecture is built for one image size (ViT, Swin, Mixer) and must be told of another."""
    import timm

    known = timm.get_pretrained_cfg(config.architecture)
    return known is not None and known.fixed_input_size


def _check(model: Any, folder: Path, info: dict) -> None:
    import torch

    own = {id(p) for p in head(model).parameters()}
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    mismatched = {key: tuple(saved) for key, saved, _ in info["mismatched_keys"]}
    wrong = [key for key in [*info["missing_keys"], *mismatched] if key in named and id(named[key]) not in own]
    for key in [k for k in wrong if k in mismatched and "pos" in k and len(mismatched[k]) == 3]:
        saved = _read_tensor(folder, key)
        with torch.no_grad():
            named[key].copy_(resize_positions(saved.float(), named[key].shape[1]))
        wrong.remove(key)
    if wrong:
        kind = "have another shape" if wrong[0] in mismatched else "are missing"
        raise ModelError(
            f"{_called(folder)}: weights beyond the classifier {kind}: {', '.join(sorted(wrong)[:3])}{' ...' if len(wrong) > 3 else ''} "
            f"({len(wrong)} in all); is it a model for image classification, and does options.image_size fit it?"
        )


def _read_tensor(folder: Path, key: str) -> Any:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in (key, key.removeprefix("timm_model.")):
                if name in weights.keys():  # noqa: SIM118 (safe_open is no mapping)
                    return weights.get_tensor(name)
    raise ModelError(f"{_called(folder)}: {key} must be resized, which needs weights in safetensors")


def resize_positions(positions: Any, length: int) -> Any:
    """Bicubic resize of learned position embeddings [1, extra + n * n, dim] to [1, length, dim]; extra tokens are kept.

    As in Dosovitskiy et al. 2021, section 3.2. Grids are square.
    """
    import math

    from torch.nn import functional as f

    if length < 2:
        raise ModelError("options.image_size: less than one patch of this model: give more pixels")
    extra = next(e for e in range(positions.shape[1] + 1) if math.isqrt(positions.shape[1] - e) ** 2 == positions.shape[1] - e)
    old, new = math.isqrt(positions.shape[1] - extra), math.isqrt(length - extra)
    grid = positions[:, extra:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = f.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    import torch

    return torch.cat([positions[:, :extra], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)


# ---- input ----


def image_processor(folder: Path | None, config: Any, image_size: int | None) -> Any:
    """The model's own image processor at `image_size`; for a model made from a configuration, a plain one (0.5 / 0.5)."""
    from transformers import AutoImageProcessor, TimmWrapperImageProcessor, ViTImageProcessor

    own = getattr(config, "image_size", None)
    if folder is None:
        side = image_size or (own if isinstance(own, int) else 224)
        return ViTImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    if config.model_type == "timm_wrapper":
        pretrained = dict(config.pretrained_cfg or {})
        if image_size is not None:
            pretrained["input_size"] = [3, image_size, image_size]
            config.pretrained_cfg = pretrained
        return TimmWrapperImageProcessor(pretrained_cfg=pretrained, architecture=config.architecture)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(f"{_called(folder)}: no preprocessor_config.json (how images are scaled): copy the one that the model came with")
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as for the weights
        raise ModelError(f"{_called(folder)}: its image processor cannot be read (preprocessor_config.json): {_first(error)}") from error
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
    """Height and width in pixels of what the model sees."""
    if hasattr(processor, "data_config"):
        return tuple(processor.data_config["input_size"][1:])
    crop = getattr(processor, "crop_size", None)
    box = crop if crop and getattr(processor, "do_center_crop", False) and crop.get("height") else processor.size
    side = box.get("shortest_edge")
    return (box.get("height") or side, box.get("width") or side)


def mean_and_std(processor: Any) -> tuple[list[float], list[float]]:
    """Of the normalisation, per channel, for pixels in 0-1."""
    if hasattr(processor, "data_config"):
        return list(processor.data_config["mean"]), list(processor.data_config["std"])
    if not getattr(processor, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(processor.image_mean), list(processor.image_std)
