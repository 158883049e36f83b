"""Instance segmentation: the mask of each thing in an image, with its class and its box.

Mask R-CNN of torchvision, and RF-DETR's segmentation models. Objects without a mask are counted and skipped.
"""

from dataclasses import replace

from pipelines.data.schema import DataSpec
from pipelines.detection.base import DetectionOptions, DetectionTask
from pipelines.task import HubSpec


class Options(DetectionOptions):
    pass


class InstanceSegmentation(DetectionTask):
    name = "instance-segmentation"
    hub = HubSpec("image-segmentation", "torchvision", ("ForInstanceSegmentation",))
    Options = Options
    masks = True

    @property
    def data(self) -> DataSpec:
        return replace(super().data, clean=_with_masks)


def _with_masks(row: dict[str, object]) -> dict[str, object]:
    """The row without the objects that have no mask."""
    objects = row["objects"]
    kept = [one for one in objects if one["mask"]] if isinstance(objects, list) else []
    return {**row, "objects": kept}
