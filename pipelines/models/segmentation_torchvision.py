"""DeepLabV3, FCN and LR-ASPP of torchvision.

A folder holds config.json (`"model_type": "torchvision"`, `"architecture": "deeplabv3_resnet50"`, `id2label`) and
model.safetensors. torchvision's own .pth files are not read, because they are pickles. Its weights become a folder with
a config.json of one's own and

    save_file(torch.load("downloaded.pth", weights_only=True), "model.safetensors")  # of safetensors.torch

Their classes are those of `Weights.meta["categories"]`, with `__background__` as the first.

Other keys of a configuration: `image_size` (the side of an input, 520), `auxiliary` (whether DeepLabV3 and FCN have a
second head in training; usually true), and `backbone_weights` (a folder or hub repo of a timm ResNet, read once).

In training mode the batch norm of DeepLabV3's image pooling compares images only, so it needs two or more of them: the
trainer never gives fewer to a model with a live batch norm.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation as models

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models import batch_norm, folders, segmentation_dense, timm_weights
from pipelines.models import layers as model_layers
from pipelines.models.segmentation_dense import Dense
from pipelines.utils.formatting import short

ARCHITECTURES = (
    *("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large"),
    *("fcn_resnet50", "fcn_resnet101", "lraspp_mobilenet_v3_large"),
)
DETECTORS = ("fasterrcnn", "retinanet", "fcos", "ssd", "maskrcnn", "keypointrcnn")  # begin the names of others
SIDE = 520  # what torchvision's models were trained with
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Torchvision(Dense):
    """The family of torchvision's models for semantic segmentation (see pipelines.models.segmentation.Family)."""

    library = "torchvision"
    stride = 16

    def __init__(
        self, config: Mapping[str, Any], labels: Sequence[str], loss: str, weights: Mapping[str, float] | None
    ) -> None:
        super().__init__(labels, loss, weights, config.get("image_size") or SIDE)
        self.config = dict(config)
        self.mean, self.spread = MEAN, SPREAD

    def outputs(self, model: nn.Module, pixels: Tensor, auxiliary: bool) -> tuple[Tensor, list[Tensor]]:
        found = model(pixels)
        return found["out"], [found["aux"]] if auxiliary and "aux" in found else []

    def layers(self, model: nn.Module) -> list[nn.Module]:
        network: Any = model
        heads = [part for name in ("classifier", "aux_classifier") if (part := getattr(network, name, None))]
        return [*model_layers.blocks(network.backbone), nn.ModuleList(heads)]

    def save(self, model: nn.Module, folder: Path) -> None:
        named = {str(index): label for index, label in enumerate(self.labels)}
        segmentation_dense.save(model, {**self.config, "model_type": "torchvision", "id2label": named}, folder)


class _DeepLab(nn.Module):
    """DeepLabV3 and FCN without their last step, which enlarges the logits: the loss and the scores do that."""

    backbone: nn.Module
    classifier: nn.Module
    aux_classifier: nn.Module | None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        found: dict[str, Tensor] = {"out": self.classifier(features["out"])}
        if self.aux_classifier is not None and self.training:
            found["aux"] = self.aux_classifier(features["aux"])
        return found


class _LRASPP(nn.Module):
    """The same for LR-ASPP."""

    backbone: nn.Module
    classifier: nn.Module

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.backbone(x))}


def build(
    source: Any, labels: list[str], loss: str, weights: Mapping[str, float] | None, image_size: int | None
) -> tuple[nn.Module, Torchvision]:
    """A model for these classes. Raises ModelError."""
    tensors: dict[str, Tensor] | None = None
    if source.folder is not None:
        config, tensors = folders.read_folder(source.folder)
    else:
        config = dict(source.config)
    known = folders.named_classes(config)
    if image_size is not None:
        config["image_size"] = image_size
    config = _checked(config, source.folder is None)
    place = config.pop("backbone_weights", None)
    if tensors is not None and not source.random:
        config.setdefault("auxiliary", any(name.startswith("aux_classifier.") for name in tensors))
        model = _network(config, len(known))
        segmentation_dense.fill(model, tensors, source.folder)
        segmentation_dense.take(model, lambda count: _network(config, count), known, labels)
        batch_norm.keep_folded(model)
    else:
        model = _network(config, len(labels))
        if place is not None and source.folder is None:
            timm_weights.read_into(model.backbone, str(place), "backbone_weights")
            batch_norm.keep_folded(model)
    return segmentation_dense.laid_out(model), Torchvision(config, labels, loss, weights)


def load(folder: Path, loss: str, weights: Mapping[str, float] | None) -> tuple[nn.Module, Torchvision]:
    """A saved model, in eval mode. Raises ModelError."""
    config, tensors = folders.read_folder(folder)
    labels = folders.named_classes(config)
    config = _checked(config, False)
    config.setdefault("auxiliary", any(name.startswith("aux_classifier.") for name in tensors))
    model = _network(config, len(labels))
    segmentation_dense.fill(model, tensors, folder)
    return segmentation_dense.laid_out(model).eval(), Torchvision(config, labels, loss, weights)


def _network(config: Mapping[str, Any], classes: int) -> Any:
    kind = str(config["architecture"])
    options: dict[str, Any] = {} if kind.startswith("lraspp") else {"aux_loss": config.get("auxiliary", True)}
    model: Any = getattr(models, kind)(weights=None, weights_backbone=None, num_classes=classes, **options)
    model.__class__ = _LRASPP if kind.startswith("lraspp") else _DeepLab
    return model


def _checked(given: Mapping[str, Any], own: bool) -> dict[str, Any]:
    """The configuration without empty keys. One's `own`, of a recipe, has no key without an effect. Raises ModelError.

    A configuration of the hub comes from a stranger. It may have keys of other programs.
    """
    config = {key: value for key, value in given.items() if value is not None}
    kind = config.get("architecture")
    if isinstance(kind, str) and kind.startswith(DETECTORS):
        raise ModelError(
            f"torchvision/{short(kind, 60)} finds objects: the tasks object-detection and instance-segmentation train "
            f"it. For a class of every pixel choose one of {', '.join(ARCHITECTURES)}"
        )
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        near = suggest(kind, ARCHITECTURES) if isinstance(kind, str) else ""
        raise ModelError(f"architecture: got {short(repr(kind), 60)}{near}; torchvision has {', '.join(ARCHITECTURES)}")
    side = config.get("image_size", SIDE)
    segmentation_dense.check_side(side)
    if type(config.get("auxiliary", True)) is not bool:
        raise ModelError(f"auxiliary: got {short(repr(config['auxiliary']))}, must be true or false")
    takes = {"model_type", "architecture", "image_size", "id2label"}
    takes |= set() if kind.startswith("lraspp") else {"auxiliary"}
    takes |= {"backbone_weights"} if "resnet" in kind else set()
    unknown = [key for key in config if key not in takes]
    if own and unknown:
        allowed = ", ".join(sorted(takes - {"model_type", "id2label"}))
        name = short(str(unknown[0]))
        raise ModelError(f"model.config: {kind} takes no {name}{suggest(name, takes)}. It takes {allowed}")
    return config
