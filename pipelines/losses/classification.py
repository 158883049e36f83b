"""Classes of rows: their names, what they weigh in the loss, and the records of what was predicted; for every task that classifies."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.labels import several
from pipelines.errors import DataError, RunError
from pipelines.task import Batch, Record

if TYPE_CHECKING:
    from torch import Tensor


def names(splits: Any, multi_label: bool) -> list[str]:
    """The classes of a data set, at least two. Raises DataError."""
    if not multi_label and any(isinstance(label, list) for label in splits.train[:1]["label"]):
        raise DataError(f"{splits.name}: the label column holds lists: set options.multi_label=true, or give one label per row")
    labels = splits.labels
    if multi_label:
        labels = sorted({part for name in ("train", "validation", "test") for label in splits[name]["label"] for part in several(label)})
    if len(labels) < 2:
        raise DataError(f"{splits.name}: {len(labels)} class found ({', '.join(labels)}): classification needs at least two")
    return labels


def balanced(labels: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """What each class weighs if all are to count the same: n / (classes * n of the class)."""
    n = dict.fromkeys(classes, 0)
    for label in labels:
        n[label] += 1
    return {label: len(labels) / (len(n) * max(count, 1)) for label, count in n.items()}


def shares(labels: Sequence[str], count: int) -> list[str]:
    """`count` labels in the proportions of `labels`, the most frequent first and each in its turn (Sainte-Lague's method)."""
    given = dict.fromkeys(sorted(set(labels)), 0)
    there = Counter(labels)
    found = []
    for _ in range(count):
        found.append(max(given, key=lambda label: there[label] / (2 * given[label] + 1)))
        given[found[-1]] += 1
    return found


# ---- the loss ----


def counts(target: "Tensor", weights: "Tensor | None", multi_label: bool) -> dict[str, float]:
    """What `loss` averages over: decisions, rows, or what the rows' classes weigh."""
    if multi_label:
        return {"targets": float(target.numel())}
    if weights is None:
        return {"examples": float(len(target))}
    return {"weight": float((target.cpu() @ weights).sum())}


def loss(
    logits: "Tensor", target: "Tensor", counted: Mapping[str, float], weights: "Tensor | None", multi_label: bool, smoothing: float
) -> "Tensor":  # fmt: skip
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


def check_finite(batch: Batch, logits: "Tensor") -> None:
    """Raises RunError naming a row, or a diverged model would pass for one that always says the first class."""
    if not logits.isfinite().all():
        row = batch["id"][int((~logits.isfinite()).any(-1).nonzero()[0])]
        raise RunError(f"the model's answer to {row} is not a number: bad weights, or training diverged (lower train.learning_rate)")


def records(batch: Batch, logits: "Tensor", classes: Sequence[str], multi_label: bool) -> list[Record]:
    """One per row, as metrics.classification wants them. `batch` has `id` and `true`; logits [batch, classes], on the CPU."""
    check_finite(batch, logits)
    if multi_label:
        return [_several(*one, classes) for one in zip(batch["id"], batch["true"], logits.sigmoid().tolist(), strict=True)]
    probabilities = logits.softmax(-1)
    top = probabilities.topk(min(5, len(classes))).indices.tolist()
    truth = [classes.index(true) if true in classes else -1 for true in batch["true"]]
    ranks = [int((row > row[t]).sum()) if t >= 0 else len(classes) for row, t in zip(probabilities, truth, strict=True)]
    found = []
    for i, best in enumerate(top):
        scores = {classes[k]: float(probabilities[i, k]) for k in best}
        record = {"id": batch["id"][i], "true": batch["true"][i], "predicted": classes[best[0]]}
        found.append({**record, "confidence": float(probabilities[i, best[0]]), "rank": ranks[i], "scores": scores})
    return found


def _several(id_: str, true: list[str], scores: list[float], classes: Sequence[str]) -> Record:
    found = dict(zip(classes, scores, strict=True))
    return {"id": id_, "true": true, "predicted": [label for label, p in found.items() if p > 0.5], "scores": found}


def ranked(logits: "Tensor", classes: Sequence[str], multi_label: bool, top_k: int) -> list[dict[str, Any]]:
    """The `top_k` classes of one row of logits, best first: [{"label", "score"}]."""
    scores = logits.sigmoid() if multi_label else logits.softmax(-1)
    best = scores.topk(min(top_k, len(classes)))
    return [{"label": classes[i], "score": p} for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
