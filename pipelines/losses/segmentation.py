"""Losses of label maps, as sums that add up over the micro-batches of a step.

placeholder
"""
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as f

LOSSES = (
    *("cross-entropy", "focal", "dice", "lovasz"),
    *("cross-entropy+dice", "cross-entropy+lovasz", "focal+dice"),
)


class Criterion:
    """A loss of this name, for these classes."""

    def __init__(self, name: str, labels: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        self.terms = name.split("+")
        self.weights = [float((weights or {}).get(label, 1.0)) for label in labels] if weights else None

    def counts(self, maps: Tensor) -> dict[str, float]:
        """The sum of the weights of all pixels that count, and the number of images with such a pixel."""
        valid = maps >= 0
        pixels = float(valid.sum())
        if self.weights is not None:
            each = torch.bincount(maps[valid].long(), minlength=len(self.weights)).double()
            pixels = float(each @ torch.tensor(self.weights, dtype=torch.float64, device=each.device))
        return {"pixels": pixels, "images": float(valid.flatten(1).any(1).sum())}

    def __call__(self, logits: Tensor, maps: Tensor, counts: Mapping[str, float]) -> Tensor:
        """This micro-batch's share of the loss: logits [n, classes, h, w] of any size, maps [n, height, width]."""
        with torch.autocast(logits.device.type, enabled=False):
            x = f.interpolate(logits.float(), size=maps.shape[-2:], mode="bilinear", align_corners=False)
            w = None if self.weights is None else torch.tensor(self.weights, device=x.device)
            return f.cross_entropy(x, maps.long(), w, ignore_index=-1, reduction="sum") / max(counts["pixels"], 1e-9)
