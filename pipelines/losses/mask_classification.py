"""The loss of models that find masks with queries (MaskFormer, Mask2Former, EoMT), as sums that add up.

Every mask of an image is matched with a query. The classes of all queries have a cross entropy, the masks of matched
queries a cross entropy by pixel (MaskFormer: focal) and a Dice loss. Mask2Former and EoMT compare masks at points that
are drawn, most of them where the query is unsure; MaskFormer compares all pixels.

The formulas are those of transformers' own losses, with three differences: sums are divided by the counts of the
complete step, the points of an image are drawn from a seed of its own, and pixels that the data ignore have no weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

ALPHA, GAMMA = 0.25, 2.0  # of MaskFormer's focal loss


def counts(masks: Sequence[int], queries: int, no_object: float) -> dict[str, float]:
    """What the loss is divided by: the masks of a batch, and the weights of its queries in the cross entropy.

    `masks` holds the number of masks of each image. Every mask is matched with a query of its own, as long as there
    are queries; a query without a mask has the weight `no_object`.
    """
    matched = sum(min(number, queries) for number in masks)
    others = len(masks) * queries - matched
    return {"masks": float(sum(masks)), "class_weight": matched + no_object * others}


@dataclass
class Step:
    """What the loss of one forward pass needs besides outputs and targets."""

    masks: float
    class_weight: float
    generators: Sequence[torch.Generator]  # one for each image
    ignored: Sequence[Tensor | None]  # of each image: bool [height, width], or None if every pixel counts


def install(model: Any) -> None:
    """Let a model of transformers compute this loss. Names of weights do not change."""
    criterion = model.criterion
    kind = type(criterion)
    own = ByPoints if hasattr(criterion, "num_points") else ByPixels
    criterion.__class__ = type(kind.__name__, (own, kind), {"__module__": kind.__module__})


class Criterion(nn.Module, ABC):
    """In the place of the library's criterion, which the model calls in its forward pass. `step` is set before it."""

    step: Step
    matcher: Any
    empty_weight: Tensor

    def forward(
        self,
        masks_queries_logits: Tensor,
        class_queries_logits: Tensor,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor],
        auxiliary_predictions: Sequence[dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """The three terms of the last decoder layer, and of the others with their number behind the name."""
        with torch.autocast(masks_queries_logits.device.type, enabled=False):
            found = self._of_layer(masks_queries_logits, class_queries_logits, mask_labels, class_labels)
            for place, one in enumerate(auxiliary_predictions or ()):
                more = self._of_layer(
                    one["masks_queries_logits"], one["class_queries_logits"], mask_labels, class_labels
                )
                found |= {f"{name}_{place}": value for name, value in more.items()}
        return found

    def _of_layer(
        self, masks: Tensor, logits: Tensor, targets: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        masks, logits, step = masks.float(), logits.float(), self.step
        known = logits.shape[-1] - 1
        wanted = torch.full(logits.shape[:2], known, dtype=torch.int64, device=logits.device)
        # an image without masks still takes part, so that every parameter has a gradient
        of_mask = of_dice = masks.sum() * 0.0
        for place, (target, classes) in enumerate(zip(targets, labels, strict=True)):
            if len(classes):
                queries, chosen = self._matched(place, masks[place], logits[place], target, classes)
                wanted[place, queries] = classes[chosen]
                entropy, dice = self._of_masks(place, masks[place][queries], target[chosen])
                of_mask, of_dice = of_mask + entropy, of_dice + dice
        entropy = f.cross_entropy(logits.transpose(1, 2), wanted, self.empty_weight.to(logits), reduction="sum")
        return {
            "loss_mask": of_mask / max(1.0, step.masks),
            "loss_dice": of_dice / max(1.0, step.masks),
            "loss_cross_entropy": entropy / step.class_weight,
        }

    @torch.no_grad()
    def _matched(
        self, place: int, masks: Tensor, logits: Tensor, target: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The queries that are matched, and the number of the mask of each."""
        from scipy.optimize import linear_sum_assignment

        of_mask, of_dice = self._costs(place, masks, target)
        cost = -self.matcher.cost_class * logits.softmax(-1)[:, classes]
        cost = cost + self.matcher.cost_mask * of_mask + self.matcher.cost_dice * of_dice
        most = torch.finfo(cost.dtype).max
        pairs = linear_sum_assignment(cost.nan_to_num(nan=most, posinf=most, neginf=most).cpu().numpy())
        queries, chosen = (torch.as_tensor(one, dtype=torch.int64, device=masks.device) for one in pairs)
        return queries, chosen

    @abstractmethod
    def _costs(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The cross entropy and the Dice loss of every query with every mask, [queries, masks]."""

    @abstractmethod
    def _of_masks(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of the two losses of masks, over pairs of the same number."""


class ByPoints(Criterion):
    """Masks are compared at points (Mask2Former, EoMT)."""

    num_points: int
    oversample_ratio: float
    importance_sample_ratio: float

    def _costs(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        points = self._drawn(place, 1, self.num_points)
        logits, truth = _at(masks[None], points)[0], _at(target[None].float(), points)[0]
        weight = self._weight(place, points)[0]
        total = weight.sum().clamp(min=1.0)
        entropy = (f.softplus(-logits) * weight / total) @ truth.T + (f.softplus(logits) * weight / total) @ (
            1 - truth
        ).T
        return entropy, _paired_dice(logits, truth, weight)

    def _of_masks(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            points = self._unsure(place, masks)
            truth = _at(target[:, None].float(), points)[:, 0]
            weight = self._weight(place, points)
        logits = _at(masks[:, None], points)[:, 0]
        entropy = f.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return _mean(entropy, weight).sum(), _dice(logits, truth, weight).sum()

    def _unsure(self, place: int, masks: Tensor) -> Tensor:
        """Points for each mask: most of them where its logit is the nearest to 0, of more that are drawn."""
        number = int(self.importance_sample_ratio * self.num_points)
        drawn = self._drawn(place, len(masks), int(self.num_points * self.oversample_ratio))
        best = (-_at(masks[:, None], drawn)[:, 0].abs()).topk(number, dim=1).indices
        chosen = drawn.gather(1, best[:, :, None].expand(-1, -1, 2))
        if number == self.num_points:
            return chosen
        return torch.cat([chosen, self._drawn(place, len(masks), self.num_points - number)], 1)

    def _drawn(self, place: int, masks: int, number: int) -> Tensor:
        generator = self.step.generators[place]
        return torch.rand(masks, number, 2, generator=generator, device=generator.device)

    def _weight(self, place: int, points: Tensor) -> Tensor:
        """0 for points on pixels that the data ignore, else 1."""
        ignored = self.step.ignored[place]
        if ignored is None:
            return torch.ones(points.shape[:2], device=points.device)
        inside = ignored[None, None].float().expand(len(points), -1, -1, -1)
        return 1 - f.grid_sample(inside, 2 * points[:, :, None] - 1, mode="nearest", align_corners=False)[:, 0, :, 0]


class ByPixels(Criterion):
    """Masks are compared at every pixel (MaskFormer)."""

    def _costs(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        small = f.interpolate(target[None].float(), masks.shape[-2:], mode="nearest")[0].flatten(1)
        logits, weight = masks.flatten(1), self._weight(place, masks.shape[-2:], masks)
        total, sure = weight.sum().clamp(min=1.0), logits.sigmoid()
        inside = ALPHA * (1 - sure) ** GAMMA * f.softplus(-logits) * weight / total
        outside = (1 - ALPHA) * sure**GAMMA * f.softplus(logits) * weight / total
        return inside @ small.T + outside @ (1 - small).T, _paired_dice(logits, small, weight)

    def _of_masks(self, place: int, masks: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        large = f.interpolate(masks[None], target.shape[-2:], mode="bilinear", align_corners=False)[0].flatten(1)
        truth, weight = target.flatten(1).float(), self._weight(place, target.shape[-2:], masks)
        sure = large.sigmoid()
        right = sure * truth + (1 - sure) * (1 - truth)
        entropy = f.binary_cross_entropy_with_logits(large, truth, reduction="none") * (1 - right) ** GAMMA
        focal = entropy * (ALPHA * truth + (1 - ALPHA) * (1 - truth))
        return _mean(focal, weight).sum(), _dice(large, truth, weight).sum()

    def _weight(self, place: int, shape: Sequence[int], like: Tensor) -> Tensor:
        ignored = self.step.ignored[place]
        if ignored is None:
            return torch.ones(shape[0] * shape[1], device=like.device)
        return 1 - f.interpolate(ignored[None, None].float(), tuple(shape), mode="nearest").flatten()


def _at(values: Tensor, points: Tensor) -> Tensor:
    """Values [n, channels, height, width] at points [n, number, 2] from 0 to 1, as [n, channels, number]."""
    return f.grid_sample(values, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(-1) / weight.sum(-1).clamp(min=1.0)


def _dice(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    sure, truth = logits.sigmoid() * weight, truth * weight
    return 1 - (2 * (sure * truth).sum(-1) + 1) / (sure.sum(-1) + truth.sum(-1) + 1)


def _paired_dice(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    sure, truth = logits.sigmoid() * weight, truth * weight
    return 1 - (2 * sure @ truth.T + 1) / (sure.sum(-1)[:, None] + truth.sum(-1)[None] + 1)
