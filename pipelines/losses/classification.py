"""The loss of classification tasks: cross-entropy with class weights, label smoothing and several labels per row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# ---- the loss ----


def counts(target: "Tensor", weights: "Tensor | None", multi_label: bool) -> dict[str, float]:
    """What `loss` divides by: the number of decisions or of rows, or the sum of the class weights of the rows."""
    if multi_label:
        return {"targets": float(target.numel())}
    if weights is None:
        return {"examples": float(len(target))}
    return {"weight": float((target.cpu() @ weights).sum())}


def loss(
    logits: "Tensor",
    target: "Tensor",
    counted: Mapping[str, float],
    weights: "Tensor | None",
    multi_label: bool,
    smoothing: float,
) -> "Tensor":
    """Cross-entropy of logits and targets (probabilities), both [batch, classes], divided by `counted` (see `counts`).

    With several labels per row, the binary cross-entropy of each label.
    """
    from torch.nn import functional as f

    if multi_label:
        return f.binary_cross_entropy_with_logits(logits, target, reduction="sum") / counted["targets"]
    # With probabilities as targets, cross_entropy weights each class's term. For single labels it is the usual
    # weighting, and it is right for mixtures too.
    total = f.cross_entropy(logits, target, weight=weights, reduction="sum", label_smoothing=smoothing)
    return total / counted["weight" if weights is not None else "examples"]


def weights_of(weights: Mapping[str, float], classes: Sequence[str], device: Any) -> "Tensor | None":
    """The class weights as a tensor [classes]; None if all classes weigh the same."""
    import torch

    return torch.tensor([weights[label] for label in classes], device=device) if weights else None


# ---- records ----
