"""Instance segmentation: the mask of each thing in an image, with its class and its box.

Mask R-CNN of torchvision, and RF-DETR's segmentation models. Objects without a mask are counted and skipped.
"""

from pipelines.data.schema import DataSpec
from pipelines.task import HubSpec
from pipelines.tasks.object_detection import ObjectDetection, Options


class InstanceSegmentation(ObjectDetection):
    name = "instance-segmentation"
    hub = HubSpec("image-segmentation", "torchvision", ("ForInstanceSegmentation",))
    Options = Options
    masks = True

    @property
    def data(self) -> DataSpec:
        from dataclasses import replace

        return replace(super().data, clean=_with_masks)


def _with_masks(row: dict[str, object]) -> dict[str, object]:
    """The row without the objects that have no mask."""
    objects = row["objects"]
    kept = [one for one in objects if one["mask"]] if isinstance(objects, list) else []
    return {**row, "objects": kept}
