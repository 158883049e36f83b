"""Models that give every pixel its class, of several libraries, with one interface for all.

`build` and `load` return a module and its `Family`, which knows what input the library takes, what its loss is, and how
its outputs become the probabilities of every pixel.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.models import folders

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = dict[str, Any]
QUERIES = (  # their masks are answers to queries, each of which has one class
    *("mask2former", "maskformer", "oneformer", "eomt", "eomt_dinov3"),
    *("videomt", "detr", "rf_detr"),
)


class Family(Protocol):
    """How one library's models take images and label maps, and what they give. It holds no weights."""

    library: str
    """The hub's library_name."""
    labels: list[str]
    side: int
    """Pixels a side that the model's configuration asks for."""
    fixed: bool
    """Whether the model takes only inputs of side x side."""
    stride: int
    """The sides of an input must be divisible by it."""
    padded: bool
    """Whether an image keeps its shape: its longest side becomes `side`, and black pixels at the right and below fill
    the square. Else it may be stretched."""
    resize: str
    """How images are resized (options.resize of the task): the image processor that is saved does the same."""
    things: list[str] | None
    """For a panoptic model, which also has a method `panoptic`: the labels whose objects are told apart. Else None."""

    def pixels(self, image: Any) -> "Tensor":
        """A PIL image in RGB -> [3, height, width] float32, normalised. The size stays."""

    def counts(self, batch: Batch) -> dict[str, float]:
        """What the loss is divided by, known before the forward pass."""

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], step: int) -> "Tensor":
        """The part of the step's loss that this batch gives.

        A batch has `pixel_values` [n, 3, height, width] and `map` [n, height, width] int16, with IGNORE where no pixel
        counts. Batches of panoptic data also have `segments` and `kinds`.
        """

    def probabilities(self, model: "nn.Module", pixels: "Tensor") -> "Iterator[Tensor]":
        """What `scores` gives, image by image: [classes, height, width], after one forward pass for all."""

    def scores(self, model: "nn.Module", pixels: "Tensor") -> "Tensor":
        """[n, 3, height, width] -> [n, classes, height, width] float32: the probabilities of each pixel's classes."""

    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output; the head is the last one."""

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write config.json, model.safetensors and what the library needs to read images."""


def build(
    source: Any,
    labels: Sequence[str],
    loss: str = "cross-entropy",
    weights: Mapping[str, float] | None = None,
    image_size: int | None = None,
    resize: str = "square",
) -> "tuple[nn.Module, Family]":
    """A model of `source` (pipelines.models.source.Weights) for these classes.

    The head keeps the rows of classes that the model knows by name; other rows start from random weights. `loss` is one
    of pipelines.losses.segmentation.LOSSES, `weights` are those of classes in it (1 for the others). A model with
    queries has a loss of its own. `resize` is square, shorter or none. Raises ModelError.
    """
    family = _module(folders.stated(source.folder, source.config), source.folder)
    model, found = family.build(source, list(labels), loss, weights, image_size)
    found.resize = resize
    return model, found


def load(
    folder: Path,
    loss: str = "cross-entropy",
    weights: Mapping[str, float] | None = None,
    resize: str = "square",
) -> "tuple[nn.Module, Family]":
    """Load a model folder of any of the families, in eval mode. Raises ModelError."""
    model, found = _module(folders.stated(folder, None), folder).load(folder, loss, weights)
    found.resize = resize
    return model, found


def _module(config: Mapping[str, Any], folder: Path | None) -> Any:
    """The module of the family that has this kind of model."""
    # segmentation-models-pytorch writes the name of its class
    kind = "smp" if "_model_class" in config else folders.kind_of(folder, config, "model")
    if kind == "smp":
        from pipelines.models import segmentation_smp

        return segmentation_smp
    if kind == "torchvision":
        from pipelines.models import segmentation_torchvision

        return segmentation_torchvision
    if kind in QUERIES:
        from pipelines.models import segmentation_queries

        return segmentation_queries
    from pipelines.models import segmentation_transformers

    return segmentation_transformers
