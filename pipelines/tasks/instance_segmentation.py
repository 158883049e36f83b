"""Instance segmentation: the mask of each thing in an image, with its class and its box.

Mask R-CNN of torchvision; Mask2Former, MaskFormer, EoMT and RF-DETR's segmentation models of transformers. Objects
without a mask are counted and skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.data.image.boxes import LabelledBoxes
from pipelines.data.schema import DataSpec
from pipelines.detection import examples as boxes
from pipelines.detection import found
from pipelines.detection.options import Finding
from pipelines.errors import DataError
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task, answer_one

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import MistakeSpec


class Options(Finding):
    pass


class InstanceSegmentation(Task):
    name = "instance-segmentation"
    hub = HubSpec("image-segmentation", "transformers", ("ForInstanceSegmentation", "ForUniversalSegmentation"))
    Options = Options

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.family: Any = None
        self.threshold = found.THRESHOLD

    @property
    def data(self) -> DataSpec:
        return boxes.spec(self.labels, _with_masks)

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import detection

        return detection.METRICS

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import detection

        self.labels = boxes.classes(splits)
        model, self.family = detection.build(source, self.labels, self.options.image_size, masks=True)
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        layers: list[nn.Module] = self.family.layers(model)
        return layers

    def encode(self, rows: Any) -> LabelledBoxes:
        return LabelledBoxes(rows, self.labels, True, self.options.white)

    @property
    def augmentation(self) -> Augmentation:
        return boxes.augmentation(self.options)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        return boxes.augmented(example, self.options, rng, progress)

    def mix(self, examples: Sequence[Example], rng: Random) -> Example:
        return boxes.mixed(examples, self.options, rng)

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        """The seed of the points at which Mask2Former and EoMT compare masks."""
        return {"seed": rng.getrandbits(62)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        return boxes.batch(examples, self.family)

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        counts: dict[str, float] = self.family.counts(batch)
        return counts

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        loss: Tensor = self.family.loss(model, batch, counts)
        return loss

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        return found.records(model, batch, self.family)

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import detection

        return detection.statistics(records, self.labels, masks=True, threshold=self.threshold)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import detection

        return detection.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import detection

        return {"per class": detection.per_class(records, self.labels, masks=True, threshold=self.threshold)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import detection

        return detection.figures(records, self.labels, masks=True, threshold=self.threshold)

    def calibrate(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        """The threshold of the scores with the best F1."""
        from pipelines.metrics import detection

        self.threshold = detection.best_threshold(records, self.labels, masks=True)
        return {"detection_threshold": self.threshold}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_boxes

        return wrong_boxes(self.labels, masks=True, threshold=self.threshold, white=self.options.white)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        self.family.save(model, folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import detection

        model, self.family = detection.load(folder, masks=True)
        self.labels, self.threshold = list(self.family.labels), found.threshold_of(folder)
        return model

    def infer(self, model: Any, image: Any, threshold: float | None = None) -> Iterator[list[dict[str, Any]]]:
        """The objects of one image (path, bytes or PIL), best first: [{"label", "score", "box", "mask"}].

        `threshold` is the lowest score; left out, the one that validation chose.
        """
        yield answer_one(self, model, image=image, threshold=threshold)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return boxes.prepared(asked, self.family, self.threshold, self.options.white)

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        return found.answers(model, examples, self.family)


def _with_masks(row: dict[str, object]) -> dict[str, object]:
    """The row without the objects that have no mask."""
    objects = row["objects"]
    kept = [one for one in objects if one["mask"]] if isinstance(objects, list) else []
    return {**row, "objects": kept}
