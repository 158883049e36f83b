"""Object detectors and instance segmenters of several libraries, with one interface for all.

`build` and `load` return a module and its `Family`, which knows how the library takes images and boxes, what its loss
is, and how its answers become boxes of the original image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipelines.models import folders

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
    kind = folders.kind_of(source.folder, source.config, "detector")
    found: tuple[nn.Module, Family] = _module(kind).build(source, list(labels), image_size, masks)
    return found


def load(folder: Path, masks: bool = False) -> "tuple[nn.Module, Family]":
    """Load a model folder of any of the families, in eval mode. Raises ModelError."""
    found: tuple[nn.Module, Family] = _module(folders.kind_of(folder, None, "detector")).load(folder, masks)
    return found


def in_float32(value: Any) -> Any:
    """Numbers with a fraction in float32, in lists, tuples and dicts; other values as they are.

    Libraries give boxes the dtype of what a head computes. In bfloat16 the coordinates around 700 are 4 apart.
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: in_float32(one) for name, one in value.items()}
    return type(value)(map(in_float32, value)) if isinstance(value, (list, tuple)) else value


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
