"""Video classifiers of torchvision: R3D, MC3, R(2+1)D, S3D, MViT and Video Swin.

A folder holds config.json (`"model_type": "torchvision"`, `"architecture": "r2plus1d_18"`, `id2label`) and
model.safetensors. torchvision's own .pth files are not read, because they are pickles. Its weights become a folder with
a config.json of one's own and

    save_file(torch.load("downloaded.pth", weights_only=True), "model.safetensors")  # of safetensors.torch

Their classes are those of `Weights.meta["categories"]`.

Other keys of a configuration: `frames` of a clip, `rate` in frames per second, `resize_size`, `crop_size`, `mean` and
`std` (of torchvision's VideoClassification preset); left out, they are those of torchvision's Kinetics-400 weights. The
three residual networks also take `layers` (blocks of each of the four stages) and `width` (channels of the first one,
64): `layers: [1, 1, 1, 1]` and `width: 16` train on a laptop.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import video as models
from torchvision.models.video import resnet
from torchvision.models.video.s3d import SepInceptionBlock3D
from torchvision.transforms._presets import VideoClassification

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models import batch_norm, folders, segmentation_dense
from pipelines.models import layers as model_layers
from pipelines.utils import shares
from pipelines.utils.formatting import short

# Frames of a clip and frames per second with which the authors scored the weights (`Weights.meta["_docs"]`).
RESNETS = {"r3d_18": (16, 15.0), "mc3_18": (16, 15.0), "r2plus1d_18": (16, 15.0)}
CLIPS = {
    **RESNETS,
    "s3d": (128, 15.0),
    **{"mvit_v1_b": (16, 7.5), "mvit_v2_s": (16, 7.5)},
    **{"swin3d_t": (32, 15.0), "swin3d_s": (32, 15.0), "swin3d_b": (32, 15.0)},
}
MVIT = (16, 224)  # frames and pixels a side: torchvision's MViT has tables of positions for these
WIDTH = 64
PRESET = ("resize_size", "crop_size", "mean", "std")


class Torchvision:
    """The family of torchvision's video classifiers (see pipelines.models.video.Family)."""

    library, reads = "torchvision", "frames"

    def __init__(self, config: Mapping[str, Any], labels: Sequence[str]) -> None:
        self.config = dict(config)
        self.labels = list(labels)
        self.multi_label = config.get("problem_type") == "multi_label_classification"
        self.frames, self.rate = config["frames"], float(config["rate"])
        self.size = (config["crop_size"][0], config["crop_size"][1])
        self.preset = VideoClassification(**{name: tuple(config[name]) for name in PRESET})

    def pixels(self, frames: np.ndarray) -> Tensor:
        found: Tensor = self.preset(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
        return found.transpose(0, 1).contiguous()

    def scaled(self, frames: np.ndarray) -> Tensor:
        from torchvision.transforms import functional as f

        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        if frames.shape[1:3] != self.size:  # as the preset does; smooth frames would be another kind of input
            pixels = f.resize(pixels, list(self.size), self.preset.interpolation, antialias=False)
        found: Tensor = f.normalize(f.convert_image_dtype(pixels, torch.float), self.preset.mean, self.preset.std)
        return found

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        found: Tensor = model(batch["pixel_values"].transpose(1, 2))
        return found.float()

    def layers(self, model: nn.Module) -> list[nn.Module]:
        network: Any = model
        if self.config["architecture"] in RESNETS:
            stages = (network.layer1, network.layer2, network.layer3, network.layer4)
            return [network.stem, *(block for stage in stages for block in stage), network.fc]
        if self.config["architecture"] == "s3d":
            parts = [part for part in network.features if next(part.parameters(), None) is not None]
            stem = [part for part in parts if not isinstance(part, SepInceptionBlock3D)]
            return [nn.ModuleList(stem), *parts[len(stem) :], network.classifier]
        return [*model_layers.blocks(network), network.head]

    def save(self, model: nn.Module, folder: Path) -> None:
        named = {str(index): label for index, label in enumerate(self.labels)}
        segmentation_dense.save(model, {**self.config, "model_type": "torchvision", "id2label": named}, folder)


def build(
    source: Any, labels: list[str], multi_label: bool, frames: int | None, rate: float | None, image_size: int | None
) -> tuple[nn.Module, Torchvision]:
    """A model for these classes. Raises ModelError."""
    tensors: dict[str, Tensor] | None = None
    if source.folder is not None:
        given, tensors = folders.stated(source.folder, None), folders.read_folder(source.folder)[1]
    else:
        given = dict(source.config)
    known = folders.named_classes(given)
    config = _checked(given, source.folder, frames, rate, image_size)
    config["problem_type"] = "multi_label_classification" if multi_label else "single_label_classification"
    if tensors is not None and not source.random:
        model = network(config, len(known))
        segmentation_dense.fill(model, tensors, source.folder)
        segmentation_dense.take(model, lambda count: network(config, count), known, labels)
        batch_norm.keep_folded(model)
    else:
        model = network(config, len(labels))
    _check_size(config)
    return laid_out(model, config), Torchvision(config, labels)


def load(folder: Path) -> tuple[nn.Module, Torchvision]:
    """A saved model, in eval mode. Raises ModelError."""
    given, tensors = folders.stated(folder, None), folders.read_folder(folder)[1]
    labels = folders.named_classes(given)
    config = _checked(given, folder)
    config["problem_type"] = given.get("problem_type") or "single_label_classification"
    model = network(config, len(labels))
    segmentation_dense.fill(model, tensors, folder)
    return laid_out(model, config).eval(), Torchvision(config, labels)


def laid_out(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """Put a convolutional network in channels-last memory; FSDP does not accept it.

    Forward and backward of R(2+1)D on a CPU take 0.75 to 0.9 of the time.
    """
    if str(config["architecture"]).startswith(("mvit", "swin")) or shares.asked():
        return model
    for part in model.modules():
        if isinstance(part, nn.Conv3d):
            part.to(memory_format=torch.channels_last_3d)
    return model


# ---- the network ----


def network(config: Mapping[str, Any], classes: int) -> Any:
    kind = str(config["architecture"])
    if kind in RESNETS and {"layers", "width"} & config.keys():
        return _small(kind, config.get("layers", [2, 2, 2, 2]), config.get("width", WIDTH), classes)
    model: Any = getattr(models, kind)(weights=None, num_classes=classes)
    if kind == "s3d":
        # torchvision's momentum of 0.001 is for long trainings with large batches; after a short one the statistics
        # would still be those of the first weights. 0.1 is torch's default.
        for part in model.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.momentum = 0.1
    return model


class Small(resnet.VideoResNet):
    """A residual network of torchvision with another number of channels."""

    width: int

    def _make_layer(self, block: Any, conv_builder: Any, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
        if planes == WIDTH:
            self.inplanes = self.width  # of the stem
        stage: nn.Sequential = super()._make_layer(block, conv_builder, planes * self.width // WIDTH, blocks, stride)
        return stage


def _small(kind: str, blocks: list[int], channels: int, classes: int) -> nn.Module:
    """r3d_18, mc3_18 or r2plus1d_18 with other sizes."""
    first: Any = resnet.Conv3DSimple
    later = {"mc3_18": resnet.Conv3DNoTemporal, "r2plus1d_18": resnet.Conv2Plus1D}.get(kind, first)
    if kind == "r2plus1d_18":
        first = later

    def stem() -> nn.Sequential:
        part: Any = resnet.R2Plus1dStem() if kind == "r2plus1d_18" else resnet.BasicStem()
        last: Any = part[-3]
        part[-3] = nn.Conv3d(last.in_channels, channels, last.kernel_size, last.stride, last.padding, bias=False)
        part[-2] = nn.BatchNorm3d(channels)
        made: nn.Sequential = part
        return made

    shape: Any = type("Small", (Small,), {"width": channels})
    model: nn.Module = shape(resnet.BasicBlock, [first, later, later, later], blocks, stem, num_classes=classes)
    model.fc = nn.Linear(8 * channels, classes)
    nn.init.normal_(model.fc.weight, 0, 0.01)
    nn.init.zeros_(model.fc.bias)
    return model


def _check_size(config: Mapping[str, Any]) -> None:
    """Raise ModelError if the network cannot take clips of this size. Nothing is computed."""
    shape = (1, 3, config["frames"], *config["crop_size"])
    try:
        with torch.device("meta"):
            network(config, 2).eval()(torch.empty(shape))
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(
            f"options.frames, options.image_size: torchvision's {config['architecture']} cannot take {shape[2]} frames "
            f"of {shape[3]} x {shape[4]} pixels: give more ({str(error).splitlines()[0][:120]})"
        ) from error


# ---- the configuration ----


def _checked(
    given: Mapping[str, Any],
    folder: Path | None,
    frames: int | None = None,
    rate: float | None = None,
    image_size: int | None = None,
) -> dict[str, Any]:
    """The complete configuration. One of a recipe, without a folder, has no key without an effect. Raises ModelError.

    A configuration of the hub comes from a stranger. It may have keys of other programs.
    """
    where = "model.config" if folder is None else f"{folder / 'config.json'}"
    kind = given.get("architecture")
    if not isinstance(kind, str) or kind not in CLIPS:
        near = suggest(kind, list(CLIPS)) if isinstance(kind, str) else ""
        known = f"{' For' if near else '; for'} videos torchvision has {', '.join(CLIPS)}"
        raise ModelError(f"{where}: architecture: got {short(repr(kind), 60)}{near}{known}")
    takes = {"frames", "rate", *PRESET, *(("layers", "width") if kind in RESNETS else ())}
    unknown = [key for key in given if key not in takes | {"model_type", "architecture", "id2label"}]
    if folder is None and unknown:
        name = short(str(unknown[0]))
        near = suggest(name, takes) or "."
        raise ModelError(f"{where}: {kind} takes no {name}{near} It takes {', '.join(sorted(takes))}")
    preset = _weights(kind).transforms()
    config: dict[str, Any] = {"model_type": "torchvision", "architecture": kind}
    config |= dict(zip(("frames", "rate"), CLIPS[kind], strict=True))
    config |= {name: list(getattr(preset, name)) for name in PRESET}
    config |= {key: value for key, value in given.items() if key in takes and value is not None}
    _check_values(where, config)
    if frames is not None:
        config["frames"] = frames
    if rate is not None:
        config["rate"] = rate
    if image_size is not None:
        old = config["crop_size"][0]
        config["resize_size"] = [max(1, round(side * image_size / old)) for side in config["resize_size"]]
        config["crop_size"] = [image_size, image_size]
    if kind.startswith("mvit") and (config["frames"], *config["crop_size"]) != (MVIT[0], MVIT[1], MVIT[1]):
        raise ModelError(
            f"options.frames, options.image_size: torchvision's {kind} takes {MVIT[0]} frames of {MVIT[1]} x {MVIT[1]} "
            f"pixels only, got {config['frames']} of {' x '.join(map(str, config['crop_size']))}"
        )
    return config


def _weights(kind: str) -> Any:
    """torchvision's description of the Kinetics-400 weights; nothing is downloaded."""
    from torchvision.models import get_model_weights

    found: Any = get_model_weights(kind)
    return found.DEFAULT


def _check_values(where: str, config: Mapping[str, Any]) -> None:
    def whole(value: Any, most: int) -> bool:
        return type(value) is int and 1 <= value <= most

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(number(one) for one in value)

    def number(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value)

    right = {
        "frames": whole(config["frames"], 4096),
        "rate": number(config["rate"]) and 0 < config["rate"] <= 1000,
        "resize_size": isinstance(config["resize_size"], list)
        and len(config["resize_size"]) in (1, 2)
        and all(whole(side, 4096) for side in config["resize_size"]),
        "crop_size": isinstance(config["crop_size"], list)
        and len(config["crop_size"]) == 2
        and all(whole(side, 4096) for side in config["crop_size"]),
        "mean": numbers(config["mean"]),
        "std": numbers(config["std"]) and all(one > 0 for one in config["std"]),
        "layers": "layers" not in config
        or (
            isinstance(config["layers"], list)
            and len(config["layers"]) == 4
            and all(whole(count, 64) for count in config["layers"])
        ),
        "width": "width" not in config or (whole(config["width"], 1024) and config["width"] % 4 == 0),
    }
    form = {
        "frames": "a number of frames from 1 to 4,096",
        "rate": "a positive number of frames per second, at most 1,000",
        "resize_size": "[shorter side] or [height, width] in pixels, each from 1 to 4,096",
        "crop_size": "[height, width] in pixels, each from 1 to 4,096",
        "mean": "three numbers",
        "std": "three positive numbers",
        "layers": "four numbers of blocks, each from 1 to 64",
        "width": "a number of channels, divisible by 4, at most 1,024",
    }
    for name, fits in right.items():
        if not fits:
            raise ModelError(f"{where}: {name}: got {short(repr(config[name]), 80)}, must be {form[name]}")
    resized, crop = config["resize_size"], config["crop_size"]
    if any(side < cut for side, cut in zip(resized * (3 - len(resized)), crop, strict=True)):
        raise ModelError(
            f"{where}: resize_size: {resized} is smaller than crop_size {crop}, so frames would get black borders: "
            "make it as large"
        )
