"""Examples of the tasks that find objects: from rows of a data set, and from what a user asks.

An example has `image` (PIL RGB), `boxes` (x1, y1, x2, y2 in pixels), `classes` (numbers of labels), `crowd`, `area`,
`masks` (a list of arrays, or None) and `size` (height, width of the original).
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from pipelines.task import Augmentation, Batch, Example
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np

    from pipelines.detection.options import Finding
    from pipelines.models.detection import Family


def spec(labels: Sequence[str], clean: Any = None) -> DataSpec:
    """What these tasks ask of a row: an image and its objects."""
    return DataSpec(
        columns={"image": "image", "objects": "boxes"},
        input_columns=("image",),
        label_kind=None,
        labels=tuple(labels),
        classes_of=lambda row: sorted({one["label"] for one in row["objects"] or []}),
        record_fields=(),
        clean=clean,
    )


def classes(splits: Any) -> list[str]:
    """The classes in the order of the data set, or else sorted. Raises DataError if there are none."""
    found = list(splits.labels or sorted({one["label"] for row in splits.train["objects"] for one in row or []}))
    if not found:
        raise DataError(f"{splits.name}: no object of any class in train: a detector needs boxes to learn from")
    return found


# ---- augmentation ----


def augmentation(options: "Finding") -> Augmentation:
    return Augmentation(options.augment != "none", 3 if options.augment == "mosaic" else 0)


def augmented(example: Example, options: "Finding", rng: Random, progress: float) -> Example:
    """The example changed as `options.augment` says; `progress` (0 to 1) is kept for `mixed`."""
    from pipelines.data.image import box_augment

    if options.augment == "none":
        return example
    changed = box_augment.random_flip(example, rng)
    if options.augment != "flip":
        changed = box_augment.photometric(box_augment.random_crop(changed, rng), rng)
    return {**changed, "progress": progress}


def mixed(examples: Sequence[Example], options: "Finding", rng: Random) -> Example:
    """A mosaic of four examples, or the first one near the end of the training."""
    from pipelines.data.image import box_augment

    if examples[0]["progress"] >= options.mosaic_until:
        return examples[0]
    return box_augment.mosaic(examples, rng)


# ---- batches ----


def batch(examples: Sequence[Example], family: "Family") -> Batch:
    """The family's tensors, and under `true` the objects as plain values, which the records need.

    Examples that were augmented are never scored.
    """
    plain = {name: [example[name] for example in examples] for name in ("id", "row")}
    if "progress" not in examples[0]:
        plain["true"] = [truth(example) for example in examples]
    return {**plain, **family.collate([family.example(example) for example in examples])}


def truth(example: Mapping[str, Any]) -> dict[str, Any]:
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


# ---- questions of users ----


def prepared(
    asked: Sequence[Mapping[str, Any]], family: "Family", threshold: float, white: int | None
) -> list[Example | DataError]:
    """The images that users ask about (`image`, and `threshold` if they give one), read and resized."""
    from pipelines.data.image.reading import read_image

    def one(question: Mapping[str, Any]) -> Example:
        image = read_image(question["image"], white=white)
        own = question.get("threshold")
        inputs = family.example({"image": image, "size": (image.height, image.width)})
        return {"inputs": inputs, "threshold": threshold if own is None else float(own), "like": image.size}

    return each(one, asked, cores())
