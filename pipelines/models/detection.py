"""Object detectors and instance segmenters of several libraries, with one interface for all.

`build` and `load` return a module and its `Family`, which knows how the library takes images and boxes, what its loss
is, and how its answers become boxes of the original image.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipelines.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Batch = dict[str, Any]
MASK_CLASSIFICATION = ("mask2former", "maskformer", "oneformer", "eomt", "eomt_dinov3")  # they find masks with queries
MOST = 100  # detections of one image; a family may keep more, of which COCO's rules count 100 a class


class Detections(NamedTuple):
    """What a model finds in one image, the best first. Boxes are in pixels of the original image."""

    boxes: "np.ndarray"
    """[n, 4] float32: x1, y1, x2, y2."""
    scores: "np.ndarray"
    """[n] float32."""
    classes: "np.ndarray"
    """[n] int64."""
    masks: list[dict[str, Any]] | None = None
    """COCO's run lengths at the size of the original image: {"size": [height, width], "counts": str}."""


class Family(Protocol):
    """How one library's detectors take examples, and what they give. It holds no weights."""

    library: str
    """The hub's library_name."""
    labels: list[str]

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors of one example (pixels and targets), resized, without randomness."""

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """Several results of `example` as one batch: tensors, and lists of tensors for targets."""

    def counts(self, batch: Batch) -> dict[str, float]:
        """What the loss is divided by, known before the forward pass."""

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float]) -> "Tensor":
        """The part of the step's loss that this batch gives."""

    def detect(self, model: "nn.Module", batch: Batch) -> list[Detections]:
        """The detections of each image of a batch."""

    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output; the head is the last one."""

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write config.json, model.safetensors and what the library needs to read images."""


def build(
    source: Any, labels: Sequence[str], image_size: int | None = None, masks: bool = False
) -> "tuple[nn.Module, Family]":
    """A detector of `source` (pipelines.models.source.Weights) for these classes.

    The head keeps the rows of classes that the model knows by name; other rows start from random weights. `masks` asks
    for instance segmentation. Raises ModelError.
    """
    found: tuple[nn.Module, Family]
    found = _module(_kind(source.folder, source.config)).build(source, list(labels), image_size, masks)
    return found


def load(folder: Path, masks: bool = False) -> "tuple[nn.Module, Family]":
    """Load a model folder of any of the families, in eval mode. Raises ModelError."""
    found: tuple[nn.Module, Family] = _module(_kind(folder, None)).load(folder, masks)
    return found


def _kind(folder: Path | None, config: Any) -> str:
    """The `model_type` of a configuration."""
    if folder is not None and (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_text())
        except ValueError:
            raise ModelError(f"{folder / 'config.json'}: not JSON") from None
    kind = config.get("model_type") if isinstance(config, Mapping) else getattr(config, "model_type", None)
    if not isinstance(kind, str):
        raise ModelError(f"{folder}: its config.json names no model_type, so the kind of detector is unknown")
    return kind


def _module(kind: str) -> Any:
    """The module of the family that has this kind of model."""
    if kind == "torchvision":
        from pipelines.models import detection_torchvision

        return detection_torchvision
    if kind == "libreyolo":
        from pipelines.models import detection_yolo

        return detection_yolo
    if kind in MASK_CLASSIFICATION:
        from pipelines.models import detection_queries

        return detection_queries
    from pipelines.models import detection_transformers

    return detection_transformers


def named_classes(config: Mapping[str, Any]) -> list[str]:
    """The classes of a configuration in their order; none if it names none. Raises ModelError."""
    named = config.get("id2label") or {}
    if not isinstance(named, dict) or sorted(named, key=str) != sorted(map(str, range(len(named)))):
        raise ModelError("config.json: id2label must name the classes 0, 1, 2, ...")
    return [str(named[str(index)]) for index in range(len(named))]


def read_folder(folder: Path) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """The configuration and the weights of a folder that is not of transformers. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from pipelines.models.source import read_json_object

    config = read_json_object(folder / "config.json") or {}
    try:
        return config, load_file(folder / "model.safetensors")
    except FileNotFoundError:
        raise ModelError(f"{folder}: no model.safetensors; a .pth is not read: save its tensors as one") from None
    except SafetensorError as error:
        raise ModelError(f"{folder / 'model.safetensors'}: damaged: {error}") from None
