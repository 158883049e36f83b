"""What object detection and instance segmentation share: their options, and everything but their names.

Rows hold `image` and `objects`; classes are matched by name, never by number.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.image.boxes import LabelledBoxes
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from pipelines.task import Augmentation, Batch, Example, Record, Task, answer_one
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.models.detection import Detections
    from pipelines.reporting.mistakes import MistakeSpec

LIBRARIES = ("torchvision", "libreyolo")  # a model_type of config.json that is itself the name of its library
THRESHOLD = 0.5  # of a model that has none of its own in its configuration


class DetectionOptions(Strict):
    image_size: Annotated[Int, Field(ge=32, le=4096)] | None = None
    """Pixels a side (for R-CNN: of the shorter side). Left out: the model's own."""
    augment: Literal["none", "flip", "flip-crop", "mosaic"] = "none"
    """`flip`: mirrored half of the time. `flip-crop`: also a random part, and random changes of colour.

    `mosaic`: also four images in one, as in YOLOX, until the last part of the training.
    """
    mosaic_until: Annotated[Float, Field(ge=0, le=1)] = 0.9
    """The share of the training after which no mosaics are made, so that it ends with plain images."""
    white: Annotated[Int, Field(ge=1, le=65535)] | None = None
    """The value of white in images of 16 bits. Left out: 65,535."""


class DetectionTask(Task):
    Options = DetectionOptions
    masks: ClassVar[bool] = False
    """Whether objects have masks."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.family: Any = None
        self.threshold = THRESHOLD

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"image": "image", "objects": "boxes"},
            input_columns=("image",),
            label_kind=None,
            labels=tuple(self.labels),
            classes_of=lambda row: sorted({one["label"] for one in row["objects"] or []}),
            record_fields=(),
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import detection

        return detection.METRICS

    @classmethod
    def library(cls, config: Mapping[str, Any]) -> str:
        return str(config["model_type"]) if config.get("model_type") in LIBRARIES else "transformers"

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import detection

        self.labels = list(splits.labels) if splits.labels else _named(splits.train)
        if not self.labels:
            raise DataError(f"{splits.name}: no object of any class in train: a detector needs boxes to learn from")
        model, self.family = detection.build(source, self.labels, self.options.image_size, masks=self.masks)
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        layers: list[nn.Module] = self.family.layers(model)
        return layers

    def encode(self, rows: Any) -> LabelledBoxes:
        return LabelledBoxes(rows, self.labels, self.masks, self.options.white)

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.options.augment != "none", 3 if self.options.augment == "mosaic" else 0)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.image import box_augment

        if self.options.augment == "none":
            return example
        changed = box_augment.random_flip(example, rng)
        if self.options.augment != "flip":
            changed = box_augment.photometric(box_augment.random_crop(changed, rng), rng)
        return {**changed, "progress": progress}  # `mix` reads it

    def mix(self, examples: Sequence[Example], rng: Random) -> Example:
        from pipelines.data.image import box_augment

        if examples[0]["progress"] >= self.options.mosaic_until:
            return examples[0]
        return box_augment.mosaic(examples, rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        names = ("id", "row", "boxes", "classes", "crowd", "area", "masks", "size")
        plain = {name: [example[name] for example in examples] for name in ("id", "row")}
        true = [{name: example[name] for name in names[2:]} for example in examples]
        return {**plain, "true": [_truth(one) for one in true], **self._inputs(examples)}

    def _inputs(self, examples: Sequence[Example]) -> Batch:
        batch: Batch = self.family.collate([self.family.example(example) for example in examples])
        return batch

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        counts: dict[str, float] = self.family.counts(batch)
        return counts

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        loss: Tensor = self.family.loss(model, batch, counts)
        return loss

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        found = self.family.detect(model, batch)
        lines = zip(batch["id"], batch["true"], found, strict=True)
        return [
            {"id": id_, "size": true["size"], **_plain(one), "true": {k: v for k, v in true.items() if k != "size"}}
            for id_, true, one in lines
        ]

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import detection

        return detection.statistics(records, self.labels, self.masks, self.threshold)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import detection

        return detection.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import detection

        return {"per class": detection.per_class(records, self.labels, self.masks)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import detection as detection_plots

        return detection_plots.figures(records, self.labels, self.masks, self.threshold)

    def calibrate(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        """The threshold of the scores with the best F1."""
        from pipelines.metrics import detection

        self.threshold = float(detection.best_threshold(records, self.labels, self.masks))
        return {"detection_threshold": self.threshold}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_boxes

        return wrong_boxes(self.labels, self.masks, self.threshold, self.options.white)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        self.family.save(model, folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import detection

        model, self.family = detection.load(folder, masks=self.masks)
        self.labels = list(self.family.labels)
        threshold = json.loads((folder / "config.json").read_text()).get("detection_threshold")
        if isinstance(threshold, (int, float)) and 0 <= threshold <= 1:
            self.threshold = float(threshold)
        return model

    def infer(self, model: Any, image: Any, threshold: float | None = None) -> Iterator[list[dict[str, Any]]]:
        """The objects of one image (path, bytes or PIL), best first: [{"label", "score", "box"}]."""
        yield answer_one(self, model, image=image, threshold=threshold)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        from pipelines.data.image.reading import read_image

        def one(question: Mapping[str, Any]) -> Example:
            image = read_image(question["image"], white=self.options.white)
            threshold = question.get("threshold")
            least = self.threshold if threshold is None else float(threshold)
            inputs = self.family.example({"image": image, "size": (image.height, image.width)})
            return {"inputs": inputs, "threshold": least, "like": image.size}

        return each(one, asked, cores())

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        batch = self.family.collate([example["inputs"] for example in examples])
        with torch.inference_mode():
            found = self.family.detect(model, batch)
        return [_answer(one, self.labels, example["threshold"]) for one, example in zip(found, examples, strict=True)]


def _named(rows: Any) -> list[str]:
    """The classes of the objects of some rows, sorted."""
    return sorted({one["label"] for objects in rows["objects"] for one in objects or []})


def _truth(example: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of an example as plain values."""
    true = {
        "size": [int(side) for side in example["size"]],
        "boxes": [[round(float(value), 3) for value in box] for box in example["boxes"]],
        "classes": [int(number) for number in example["classes"]],
        "crowd": [bool(one) for one in example["crowd"]],
        "area": [round(float(area), 3) for area in example["area"]],
    }
    if example["masks"] is not None:
        true["masks"] = [packed(mask) for mask in example["masks"]]
    return true


def packed(mask: "np.ndarray") -> dict[str, Any]:
    """A mask as COCO's run lengths."""
    import numpy as np
    from pycocotools import mask as coco

    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def _plain(found: "Detections") -> dict[str, Any]:
    """Detections as plain values."""
    record: dict[str, Any] = {
        "boxes": [[round(float(value), 3) for value in box] for box in found.boxes],
        "scores": [round(float(score), 6) for score in found.scores],
        "classes": [int(number) for number in found.classes],
    }
    return record if found.masks is None else {**record, "masks": found.masks}


def _answer(found: "Detections", labels: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for place, (box, score, number) in enumerate(zip(found.boxes, found.scores, found.classes, strict=True)):
        if score < threshold:
            continue
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, box), strict=True))
        answers.append({"label": labels[int(number)], "score": float(score), "box": corners})
        if found.masks is not None:
            answers[-1]["mask"] = found.masks[place]
    return answers
