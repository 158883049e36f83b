"""Classifiers of videos: the one door to all families.

`build` and `load` give a network and its `Family`, which knows how the network reads a clip (or features of a video),
what it answers, and how it is saved. Families: models of transformers, torchvision's video models, and networks of
Graft that read features (`video-features/...`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
        """The same for frames that have the network's own size already: only normalised."""

    def logits(self, model: "nn.Module", batch: dict[str, Any]) -> "Tensor":
        """[B, classes] float32 for a batch with `pixel_values` [B, T, 3, height, width], or with features."""

    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output; the head is the last one."""

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write config.json, model.safetensors and the preprocessing, without pickle."""
