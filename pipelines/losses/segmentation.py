"""Losses of label maps, as sums that add up over the micro-batches of a step.

Logits are enlarged to the size of the map one image at a time, and the gradient is computed with the loss. So no tensor
holds the classes of all pixels of a batch: with 150 classes, 512 x 512 pixels and 8 images, each one would take 1.3 GB.

- Cross entropy: the mean over the pixels of the step, weighted with the weights of their classes.
- Focal (Lin et al. 2017), with gamma 2: -(1 - p)^2 log p, the mean over the same pixels.
- Dice (Milletari et al. 2016): for each class of an image, 1 - 2 sum(p y) / (sum(p) + sum(y)). The mean over the
  classes that the image has, weighted with their weights, and then over images.
- Lovasz-softmax (Berman et al. 2018): a bound of 1 - IoU, averaged in the same way.

Pixels with IGNORE (-1) count nowhere. If all pixels are ignored, loss and gradients are 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f

from pipelines.errors import RecipeError
from pipelines.utils.formatting import short

LOSSES = (
    *("cross-entropy", "focal", "dice", "lovasz"),
    *("cross-entropy+dice", "cross-entropy+lovasz", "focal+dice"),
)
GAMMA = 2.0  # of the focal loss: what Lin et al. recommend


class Criterion:
    """The loss of this name for these classes. Raises RecipeError for an unknown name, class or weight."""

    def __init__(self, name: str, labels: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        if name not in LOSSES:
            raise RecipeError(f"loss: got {short(repr(name), 60)}, must be one of {', '.join(LOSSES)}")
        for label, weight in (weights or {}).items():
            if label not in labels:
                known = short(", ".join(labels), 200)
                raise RecipeError(f"class_weights: the data have no class {short(repr(label), 60)}; they have {known}")
            if not (math.isfinite(weight) and weight >= 0):
                raise RecipeError(f"class_weights: {short(label, 60)} has {weight}, must be a number from 0 on")
        self.terms = tuple(name.split("+"))
        self.weights = torch.tensor([float((weights or {}).get(label, 1.0)) for label in labels])
        self.weighted = bool(weights)

    def counts(self, maps: Tensor) -> dict[str, float]:
        """The number of pixels that count, as the sum of their classes' weights, and of images with such pixels."""
        valid = maps >= 0
        if self.weighted:
            each = torch.bincount(maps[valid].long(), minlength=len(self.weights)).double()
            pixels = float(each @ self.weights.to(each))
        else:
            pixels = float(valid.sum())
        return {"pixels": pixels, "images": float(valid.flatten(1).any(1).sum())}

    def __call__(self, logits: Tensor, maps: Tensor, counts: Mapping[str, float]) -> Tensor:
        """The part of the step's loss that a batch gives. `counts` are sums over the step.

        `logits` [n, classes, h, w] may have another size than `maps` [n, height, width].
        """
        with torch.autocast(logits.device.type, enabled=False):
            weights = self.weights.to(logits.device)
            shares = [1 / counts[name] if counts[name] > 0 else 0.0 for name in ("pixels", "images")]
            total: Tensor = _Loss.apply(logits.float(), maps, self.terms, weights, *shares)
        return total


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, maps: Tensor, terms: tuple[str, ...], weights: Tensor, pixels: float, images: float
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format) if wanted else None
        total = logits.new_zeros(())
        for place, (one, label_map) in enumerate(zip(logits, maps, strict=True)):
            value, of_image = _image(_enlarged(one, label_map.shape), label_map, terms, weights, pixels, images, wanted)
            total += value
            if gradient is not None and of_image is not None:
                gradient[place] = _reduced(of_image, one)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return given * gradient, None, None, None, None, None


def _enlarged(one: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [classes, h, w] at the size of the map."""
    if one.shape[1:] == size:
        return one
    return f.interpolate(one[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def _reduced(gradient: Tensor, one: Tensor) -> Tensor:
    """The gradient of `one`, from that of what `_enlarged` gave."""
    if gradient.shape == one.shape:
        return gradient
    back = torch.ops.aten.upsample_bilinear2d_backward
    found: Tensor = back(gradient[None], list(gradient.shape[1:]), [1, *one.shape], False, None, None)[0]
    return found


def _image(
    logits: Tensor,
    label_map: Tensor,
    terms: Sequence[str],
    weights: Tensor,
    pixels: float,
    images: float,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of one image, and its gradient if it is wanted.

    With p the probabilities of the classes and t the true class, a pixel's gradient is p (g - sum(p g)), where g is the
    gradient of p. For cross entropy and focal loss only p_t has one, and a = g_t p_t is the same for all classes.
    """
    classes, height, width = logits.shape
    flat = label_map.flatten().long()
    valid = flat >= 0
    true = flat.clamp(min=0)[None]
    log_p = logits.reshape(classes, -1).log_softmax(0)
    log_true = log_p.gather(0, true)[0]
    p = log_p.exp_()
    p_true = log_true.exp()
    value = logits.new_zeros(())
    own = logits.new_zeros(flat.shape)  # what the true class gets: a
    common = logits.new_zeros(flat.shape)  # what p is multiplied with, for all classes
    share = weights[true[0]] * valid * pixels
    if "cross-entropy" in terms:
        value = value - (log_true * share).sum()
        own, common = own - share, common + share
    if "focal" in terms:
        rest = 1 - p_true
        value = value - (rest**GAMMA * log_true * share).sum()
        slope = (GAMMA * rest ** (GAMMA - 1) * p_true * log_true - rest**GAMMA) * share
        own, common = own + slope, common - slope
    if "dice" not in terms and "lovasz" not in terms:
        if not wanted:
            return value, None
        gradient = p.mul_(common)
        return value, gradient.scatter_add_(0, true, own[None]).view(classes, height, width)
    number = torch.zeros(classes, device=p.device).index_add_(0, true[0], valid.float())
    of_class = weights * (number > 0)
    of_class = of_class / of_class.sum().clamp(min=1e-12) * images
    if "dice" in terms:
        both = torch.zeros_like(number).index_add_(0, true[0], p_true * valid)
        summed = p @ valid.float() + number
        ratio = 2 * both / summed.clamp(min=1e-12)
        value = value + (of_class * (1 - ratio)).sum()
        # the gradient of all p of a class, and that of p_true, times p_true
        of_all = of_class * ratio / summed.clamp(min=1e-12)
        of_true = (-2 * of_class / summed.clamp(min=1e-12))[true[0]] * p_true * valid
        own, common = own + of_true, common - of_true
        common = common - (of_all @ p) * valid
        slopes = of_all[:, None] * valid
    else:
        slopes = torch.zeros_like(p)
        for index in number.nonzero().flatten().tolist():
            found, slope = _lovasz(p[index], (true[0] == index) & valid, valid)
            value = value + of_class[index] * found
            slopes[index] = of_class[index] * slope
        common = common - (slopes * p).sum(0)
    if not wanted:
        return value, None
    gradient = p.mul_(common + slopes)
    return value, gradient.scatter_add_(0, true, own[None]).view(classes, height, width)


def _lovasz(p: Tensor, there: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The Lovasz loss of one class, and its gradient by the class's probabilities p [pixels]."""
    errors = torch.where(there, 1 - p, p).masked_fill(~valid, -1.0)  # ignored pixels come last
    errors, order = errors.sort(descending=True)
    positive, counted = there[order].float(), valid[order].float()
    total = positive.sum()
    jaccard = 1 - (total - positive.cumsum(0)) / (total + (counted - positive).cumsum(0))
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1)) * counted
    slope = torch.empty_like(p)
    slope[order] = steps * (1 - 2 * positive)
    return (errors * steps).sum(), slope
