"""Losses of label maps, as sums that add up over the micro-batches of a step.

Logits are enlarged to the size of the map one image at a time, and the gradient is computed with the loss. So no tensor
holds the classes of all pixels of a batch: with 150 classes, 512 x 512 pixels and 8 images, each one would take 1.3 GB.
On a CPU, cross entropy and focal loss take some rows of the image at a time, which stay in the processor's cache. For
150 classes at a quarter of 512 x 512 pixels, an image takes 0.19 s on one core; torch's own functions take 0.49 s.

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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

from pipelines.errors import RecipeError
from pipelines.utils.formatting import short

LOSSES = (
    *("cross-entropy", "focal", "dice", "lovasz"),
    *("cross-entropy+dice", "cross-entropy+lovasz", "focal+dice"),
)
CACHED = 2**18  # numbers that a part of an image has: 1 MB in float32
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
        gradients = []
        total = logits.new_zeros(())
        of_regions = "dice" in terms or "lovasz" in terms
        for one, label_map in zip(logits, maps, strict=True):
            if logits.device.type == "cpu" and not of_regions:
                value, gradient = _in_parts(one, label_map.long(), terms, weights * pixels, wanted)
            else:
                value, gradient = _at_once(one, label_map.long(), terms, weights, pixels, images, wanted)
            total += value
            gradients.append(gradient)
        ctx.save_for_backward(torch.stack(gradients) if wanted else None)
        return total

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return given * gradient, None, None, None, None, None


def _in_parts(
    one: Tensor, label_map: Tensor, terms: Sequence[str], weights: Tensor, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Cross entropy or focal loss of one image, and the gradient of its logits [classes, h, w].

    The logits are enlarged in width first; then some rows at a time are enlarged in height.
    """
    classes, height, width = len(one), *label_map.shape
    wide = _enlarged(one, (one.shape[1], width))
    same = one.shape[1] == height
    gradient = torch.zeros_like(wide, memory_format=torch.contiguous_format) if wanted else wide
    value = one.new_zeros(())
    above, below, share = _rows(one.shape[1], height)
    step = max(1, CACHED // (classes * width))
    for start in range(0, height, step):
        place = slice(start, start + step)
        if same:
            logits = wide[:, place]
        else:
            upper, lower = wide.index_select(1, above[place]), wide.index_select(1, below[place])
            logits = torch.lerp(upper, lower, share[place, None])
        flat = label_map[place].flatten()
        true = flat.clamp(min=0)[None]
        p = logits.reshape(classes, -1).log_softmax(0)
        log_true = p.gather(0, true)[0]
        found, own = _of_pixels(log_true, weights[true[0]] * (flat >= 0), terms)
        value += found
        if not wanted:
            continue
        part = p.exp_().mul_(-own).scatter_add_(0, true, own[None]).view(logits.shape)
        if same:
            gradient[:, place] = part
        else:
            gradient.index_add_(1, above[place], part * (1 - share[place, None]))
            gradient.index_add_(1, below[place], part.mul_(share[place, None]))
    return value, _reduced(gradient, one) if wanted else gradient


def _rows(few: int, many: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `many` rows, the two of `few` rows between which it lies, and the share of the second (bilinear)."""
    place = ((torch.arange(many) + 0.5) * few / many - 0.5).clamp(min=0)
    above = place.floor().long()
    return above, (above + 1).clamp(max=few - 1), place - above


def _of_pixels(log_true: Tensor, shares: Tensor, terms: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The terms that are sums over pixels, and for each pixel their gradient by p_true, times p_true."""
    value, slope = log_true.new_zeros(()), torch.zeros_like(log_true)
    if "cross-entropy" in terms:
        value = value - log_true @ shares
        slope = slope - shares
    if "focal" in terms:
        p_true = log_true.exp()
        rest = 1 - p_true
        value = value - (rest**GAMMA * log_true) @ shares
        slope = slope + (GAMMA * rest ** (GAMMA - 1) * p_true * log_true - rest**GAMMA) * shares
    return value, slope


def _at_once(
    one: Tensor,
    label_map: Tensor,
    terms: Sequence[str],
    weights: Tensor,
    pixels: float,
    images: float,
    wanted: bool,
) -> tuple[Tensor, Tensor]:
    """The loss of one image, and the gradient of its logits [classes, h, w].

    With p the probabilities of a pixel's classes and g the gradient by p, that by the logits is p (g - sum(p g)).
    """
    classes = len(one)
    flat = label_map.flatten()
    valid = flat >= 0
    some = not bool(valid.all())
    logits = _enlarged(one, label_map.shape).reshape(classes, -1)
    true = (flat[valid] if some else flat)[None]
    p = (logits[:, valid] if some else logits).log_softmax(0)
    log_true = p.gather(0, true)[0]
    p.exp_()
    # `own` is the part of g for the true class alone, times p_true; sum(p g) is `common`
    value, own = _of_pixels(log_true, weights[true[0]] * pixels, terms)
    common = own
    number = torch.bincount(true[0], minlength=classes).to(p.dtype)
    of_class = weights * (number > 0)
    of_class = of_class / of_class.sum().clamp(min=1e-12) * images
    g: Tensor | None = None
    if "dice" in terms:
        p_true = log_true.exp()
        both = number.new_zeros(classes).index_add_(0, true[0], p_true)
        summed = (p.sum(1) + number).clamp(min=1e-12)
        ratio = 2 * both / summed
        value = value + of_class @ (1 - ratio)
        g = (of_class * ratio / summed)[:, None]
        own = own - (2 * of_class / summed)[true[0]] * p_true
        common = own + g[:, 0] @ p
    if "lovasz" in terms:
        g = torch.zeros_like(p)
        for index in number.nonzero().flatten().tolist():
            found, slope = _lovasz(p[index], true[0] == index)
            value = value + of_class[index] * found
            g[index] = of_class[index] * slope
        common = own + torch.einsum("cp,cp->p", g, p)
    if not wanted:
        return value, p
    p.mul_(-common if g is None else g - common).scatter_add_(0, true, own[None])
    if some:
        gradient = torch.zeros_like(logits)
        gradient[:, valid] = p
        p = gradient
    return value, _reduced(p.view(classes, *label_map.shape), one)


def _lovasz(p: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """The Lovasz loss of one class, and its gradient by the class's probabilities p [pixels]."""
    errors = torch.where(there, 1 - p, p)
    # numpy sorts 250,000 numbers in 3 ms, torch in 20 ms
    on_cpu = p.device.type == "cpu"
    order = torch.from_numpy(np.argsort(-errors.numpy())) if on_cpu else errors.argsort(descending=True)
    positive = there[order].to(p.dtype)
    total, covered = positive.sum(), positive.cumsum(0)
    others = torch.arange(1, len(p) + 1, dtype=p.dtype, device=p.device) - covered
    jaccard = 1 - (total - covered) / (total + others)
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    slope = torch.empty_like(p)
    slope[order] = steps * (1 - 2 * positive)
    return errors[order] @ steps, slope


def _enlarged(one: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [classes, h, w] at another size."""
    if one.shape[1:] == tuple(size):
        return one
    return f.interpolate(one[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def _reduced(gradient: Tensor, one: Tensor) -> Tensor:
    """The gradient of `one`, from that of what `_enlarged` gave."""
    if gradient.shape == one.shape:
        return gradient
    back = torch.ops.aten.upsample_bilinear2d_backward
    found: Tensor = back(gradient[None], list(gradient.shape[1:]), [1, *one.shape], False, None, None)[0]
    return found
