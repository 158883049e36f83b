"""Random changes of an image together with its boxes and masks: mirror, crop, colours, mosaic.

Every function gives a new example and draws all randomness from the given generator. Examples have `image` (PIL RGB),
`boxes` (x1, y1, x2, y2 in pixels), `classes`, `crowd`, `area`, `masks` (a list of arrays of the image's size, or None)
and `size` (height, width).
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Example = dict[str, Any]

VISIBLE = 0.3  # share of an object that must stay in a window; less of it is not taken for the object
TRIES = 10  # windows that are drawn before the image stays as it is
LARGER = 2.0  # how much larger than its quarter an image of a mosaic may be
GREY = (114, 114, 114)  # where a mosaic has no image; the value of YOLO's
STRENGTH = 0.3  # the largest change of brightness, contrast and colour


def flip(example: Mapping[str, Any]) -> Example:
    """The image and its objects, mirrored left to right."""
    import numpy as np
    from PIL import Image

    width = example["image"].width
    boxes = example["boxes"].copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    masks = example["masks"]
    return {
        **example,
        "image": example["image"].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "boxes": boxes,
        "masks": None if masks is None else [np.ascontiguousarray(mask[:, ::-1]) for mask in masks],
    }


def random_flip(example: Mapping[str, Any], rng: Random) -> Example:
    """`flip`, half of the time."""
    return flip(example) if rng.random() < 0.5 else dict(example)


def window(example: Mapping[str, Any], left: int, top: int, width: int, height: int) -> Example:
    """The part of an image that a window shows. Objects are cut at its edges.

    An object of which too little is visible is left out. A crowd stays wherever a part of it is visible.
    """
    import numpy as np

    image = example["image"].crop((left, top, left + width, top + height))
    before = example["boxes"]
    boxes = (before - np.array([left, top] * 2, np.float32)).clip(0, np.array([width, height] * 2, np.float32))
    sizes = (before[:, 2:] - before[:, :2]).prod(1)
    shares = (boxes[:, 2:] - boxes[:, :2]).prod(1) / np.maximum(sizes, 1e-6)
    masks = example["masks"]
    if masks is not None:
        cut = [mask[top : top + height, left : left + width] for mask in masks]
        shares = np.array(
            [part.sum() / max(1, mask.sum()) for part, mask in zip(cut, masks, strict=True)], np.float32
        ).reshape(-1)
        for place, part in enumerate(cut):
            if shares[place] < 1 and part.any():
                boxes[place] = around(part)
        masks = cut
    area = (example["area"] * shares).astype(np.float32)
    shown = {**example, "image": image, "size": (height, width), "boxes": boxes, "area": area, "masks": masks}
    return _only(shown, (shares > 0) & ((shares >= VISIBLE) | example["crowd"]))


def _only(example: Mapping[str, Any], kept: "np.ndarray") -> Example:
    """The example with some of its objects. Those without a pixel are left out too."""
    import numpy as np

    boxes, masks = example["boxes"], example["masks"]
    kept = kept & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    if masks is not None:
        kept = kept & np.array([mask.any() for mask in masks], dtype=bool)
        masks = [np.ascontiguousarray(masks[place]) for place in np.flatnonzero(kept)]
    parts = {name: example[name][kept] for name in ("boxes", "classes", "crowd", "area")}
    return {**example, **parts, "masks": masks}


def around(mask: "np.ndarray") -> list[float]:
    """The smallest box around a mask that is not empty."""
    import numpy as np

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def random_crop(example: Mapping[str, Any], rng: Random, least: float = 0.5) -> Example:
    """A random window with sides of at least `least` of the image's.

    An image with objects keeps at least one of them: if no such window is found, it stays as it is.
    """
    width, height = example["image"].size
    for _ in range(TRIES):
        wide, high = (max(1, round(side * rng.uniform(least, 1))) for side in (width, height))
        left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
        found = window(example, left, top, wide, high)
        if (~found["crowd"]).any() or not (~example["crowd"]).any():
            return found
    return dict(example)


def photometric(example: Mapping[str, Any], rng: Random) -> Example:
    """Random brightness, contrast and colour. Boxes and masks stay."""
    from PIL import Image

    brightness, contrast, colour = (rng.uniform(1 - STRENGTH, 1 + STRENGTH) for _ in range(3))
    image = example["image"]
    grey = image.convert("L")
    counts = grey.histogram()
    mean = sum(value * count for value, count in enumerate(counts)) / sum(counts) * brightness
    # brightness and contrast change every value by one table, which is faster than ImageEnhance's two images
    table = [min(255, max(0, round((value * brightness - mean) * contrast + mean))) for value in range(256)]
    plain = Image.merge(image.mode, [grey.point(table)] * len(image.getbands()))
    return {**example, "image": Image.blend(plain, image.point(table * len(image.getbands())), colour)}


def resized(example: Mapping[str, Any], width: int, height: int) -> Example:
    """The example at another size. Objects that are then smaller than a pixel are left out."""
    import numpy as np
    from PIL import Image

    wide, high = width / example["image"].width, height / example["image"].height
    masks = example["masks"]
    nearest = Image.Resampling.NEAREST
    boxes = (example["boxes"] * np.array([wide, high] * 2, np.float32)).clip(
        0, np.array([width, height] * 2, np.float32)
    )
    other = {
        **example,
        "image": example["image"].resize((width, height), Image.Resampling.BILINEAR),
        "size": (height, width),
        "boxes": boxes,
        "area": (example["area"] * (wide * high)).astype(np.float32),
        "masks": None
        if masks is None
        else [np.array(Image.fromarray(mask).resize((width, height), nearest)) for mask in masks],
    }
    return _only(other, np.ones(len(other["boxes"]), dtype=bool))


def mosaic(examples: Sequence[Mapping[str, Any]], rng: Random) -> Example:
    """Four images around a random point, as in YOLOv4. The result has the size and the id of the first one."""
    import numpy as np
    from PIL import Image

    first = examples[0]
    width, height = first["image"].size
    middle = (round(width * rng.uniform(0.3, 0.7)), round(height * rng.uniform(0.3, 0.7)))
    canvas = Image.new("RGB", (width, height), GREY)
    parts: list[Example] = []
    for place, example in enumerate(examples):
        left, right = (0, middle[0]) if place % 2 == 0 else (middle[0], width)
        top, bottom = (0, middle[1]) if place < 2 else (middle[1], height)
        wide, high = right - left, bottom - top
        if wide < 1 or high < 1:
            continue
        # a random part of the image fills its quarter: things get between a third and one and a half of their size
        own = example["image"].size
        scale = max(wide / own[0], high / own[1]) * rng.uniform(1, LARGER)
        across, down = (max(1, min(a, round(b / scale))) for a, b in zip(own, (wide, high), strict=True))
        seen = window(example, rng.randint(0, own[0] - across), rng.randint(0, own[1] - down), across, down)
        part = resized(seen, wide, high)
        canvas.paste(part["image"], (left, top))
        part["boxes"] = part["boxes"] + np.array([left, top] * 2, np.float32)
        if part["masks"] is not None:
            part["masks"] = [np.pad(m, ((top, height - bottom), (left, width - right))) for m in part["masks"]]
        parts.append(part)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("boxes", "classes", "crowd", "area")}
    masks = None if first["masks"] is None else [mask for part in parts for mask in part["masks"]]
    return {**first, **joined, "image": canvas, "size": (height, width), "masks": masks}
