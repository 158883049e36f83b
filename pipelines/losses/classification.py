"""Classes of rows: their names, what they weigh in the loss, and the records of what was predicted; for every task that classifies."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# ---- the loss ----


def counts(target: "Tensor", weights: "Tensor | None", multi_label: bool) -> dict[str, float]:
    """What `loss` averages over: decisions, rows, or what the rows' classes weigh."""
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
    """Cross-entropy of logits and targets (probabilities), both [batch, classes]; with several labels per row that of each."""
    from torch.nn import functional as f

    if multi_label:
        return f.binary_cross_entropy_with_logits(logits, target, reduction="sum") / counted["targets"]
    # with probabilities as targets, cross_entropy weighs each class's term: the same as by label, and right for mixtures
    total = f.cross_entropy(logits, target, weight=weights, reduction="sum", label_smoothing=smoothing)
    return total / counted["weight" if weights is not None else "examples"]


def weights_of(weights: Mapping[str, float], classes: Sequence[str], device: Any) -> "Tensor | None":
    """As a tensor in the order of the classes; None where every class weighs the same."""
    import torch

    return torch.tensor([weights[label] for label in classes], device=device) if weights else None


# ---- records ----
