"""What a detector found: as records that the scores are computed from, and as answers for users."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.models.source import read_json_object
from pipelines.task import Batch, Example, Record

if TYPE_CHECKING:
    from torch import nn

    from pipelines.models.detection import Detections, Family

THRESHOLD = 0.5  # of a model that has none of its own in its configuration


def records(model: "nn.Module", batch: Batch, family: "Family") -> list[Record]:
    """The records of a batch: id, size, boxes, scores, classes, masks, and the objects under `true`."""
    found = family.detect(model, batch)
    lines = zip(batch["id"], batch["true"], found, strict=True)
    return [
        {"id": id_, "size": true["size"], **_plain(one), "true": {k: v for k, v in true.items() if k != "size"}}
        for id_, true, one in lines
    ]


def _plain(found: "Detections") -> dict[str, Any]:
    """Detections as plain values."""
    record: dict[str, Any] = {
        "boxes": [[round(float(value), 3) for value in box] for box in found.boxes],
        "scores": [round(float(score), 6) for score in found.scores],
        "classes": [int(number) for number in found.classes],
    }
    return record if found.masks is None else {**record, "masks": found.masks}


def answers(model: Any, examples: Sequence[Example], family: "Family") -> list[list[dict[str, Any]]]:
    """The objects in each of several images, from the threshold of its example on."""
    import torch

    batch = family.collate([example["inputs"] for example in examples])
    with torch.inference_mode():
        found = family.detect(model, batch)
    return [_answer(one, family.labels, example["threshold"]) for one, example in zip(found, examples, strict=True)]


def _answer(found: "Detections", labels: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = []
    for place, (box, score, number) in enumerate(zip(found.boxes, found.scores, found.classes, strict=True)):
        if score < threshold:
            continue
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, box), strict=True))
        answer.append({"label": labels[int(number)], "score": float(score), "box": corners})
        if found.masks is not None:
            answer[-1]["mask"] = found.masks[place]
    return answer


def threshold_of(folder: Path) -> float:
    """The threshold that validation chose for a model folder, or the default."""
    threshold = (read_json_object(folder / "config.json") or {}).get("detection_threshold")
    if isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 <= threshold <= 1:
        return float(threshold)
    return THRESHOLD
