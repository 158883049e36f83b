"""Classifiers of videos: the one door to all families.

`build` and `load` give a network and its `Family`, which knows how the network reads a clip (or features of a video),
what it answers, and how it is saved. Families: models of transformers, torchvision's video models, and networks of
Graft that read features (`video-features/...`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.errors import ModelError
from pipelines.models import folders

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class Family(Protocol):
    """How one kind of network reads videos. It holds no weights."""

    library: str
    """The hub's library_name."""
    reads: str
    """`frames` or `features`."""
    labels: list[str]
    multi_label: bool
    frames: int
    """Frames of a clip."""
    rate: float
    """Frames per second of a clip."""
    size: tuple[int, int]
    """Height and width of a frame in pixels, as the network reads it."""

    def pixels(self, frames: "np.ndarray") -> "Tensor":
        """uint8 [T, H, W, 3] as float32 [T, 3, height, width]: resized, cut at the middle, normalised.

        Nothing in it is random.
        """

    def scaled(self, frames: "np.ndarray") -> "Tensor":
        """The same for a part of each frame: resized to the network's size in the same way, without a cut."""

    def logits(self, model: "nn.Module", batch: dict[str, Any]) -> "Tensor":
        """[B, classes] float32 for a batch with `pixel_values` [B, T, 3, height, width], or with features."""

    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output; the head is the last one."""

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write config.json, model.safetensors and the preprocessing, without pickle."""


FEATURES = "video_features"  # the model_type of networks that read features


def build(
    source: Any,
    labels: Sequence[str],
    multi_label: bool = False,
    frames: int | None = None,
    rate: float | None = None,
    image_size: int | None = None,
    sizes: Mapping[str, int] | None = None,
) -> "tuple[nn.Module, Family]":
    """A model of `source` (pipelines.models.source.Weights) for these classes.

    `frames` of a clip, `rate` in frames per second, and `image_size` in pixels: None takes the model's own. `sizes` are
    those of the features of a video; only a network that reads features takes them. Raises ModelError.
    """
    kind = folders.kind_of(source.folder, folders.stated(source.folder, source.config), "model")
    if kind == FEATURES:
        if sizes is None:
            raise ModelError(f"{source.title}: it reads features of videos: set options.input=features")
        module: Any = _module(kind)
        found: tuple[nn.Module, Family] = module.build(source, list(labels), multi_label, sizes)
        return found
    if sizes is not None:
        raise ModelError(
            f"{source.title}: it reads frames of videos: leave out options.input=features, or take a network that "
            "reads features (video-features/moe)"
        )
    module = _module(kind)
    built: tuple[nn.Module, Family] = module.build(source, list(labels), multi_label, frames, rate, image_size)
    return built


def load(folder: Path) -> "tuple[nn.Module, Family]":
    """Load a model folder of any of the families, in eval mode. Raises ModelError."""
    kind = folders.kind_of(folder, folders.stated(folder, None), "model")
    loaded: tuple[nn.Module, Family] = _module(kind).load(folder)
    return loaded


def _module(kind: str) -> Any:
    """The module of the family that has this kind of model."""
    if kind == FEATURES:
        from pipelines.models import video_features

        return video_features
    if kind == "torchvision":
        from pipelines.models import video_torchvision

        return video_torchvision
    from pipelines.models import video_transformers

    return video_transformers
