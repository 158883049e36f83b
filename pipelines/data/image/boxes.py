"""Boxes and masks of things in images: what is wrong with them, masks as arrays, and rows as examples."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.encoding import Encoding
from pipelines.data.image.reading import image_of, warn_of_pages
from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import numpy as np

SLACK = 1.0  # pixels by which a box may leave its image: many tools round, or count pixels from 1
FEW = 3  # with fewer boxes nothing is said about the order of their numbers

EMPTY = "boxes without an area"
REVERSED = "boxes that are upside down (width or height below zero)"
NUMBERS = "boxes without four finite numbers"
OUTSIDE = "boxes outside of their image"
CLIPPED = "boxes that left their image, clipped at its edge"
NO_CLASS = "boxes of an unknown class"
NO_IMAGE = "boxes of an image that the file does not list"
NO_MASK = "masks that cannot be read"
OTHER_MASK = "masks that lie outside of their box"

FAR = 1 << 17  # pixels: no image is that wide
LONG = 1 << 25  # pixels of an outline, at most
MASK_BYTES = 1 << 28  # of all masks of an image: if they would take more, the image is read smaller

CORNERS = "the boxes seem to be corners (x1, y1, x2, y2), not x, y, width and height"


def numbers(values: Any) -> list[float] | None:
    """Four finite numbers as floats; None if the values are anything else."""
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        return None
    try:
        found = [float(value) for value in values if not isinstance(value, bool)]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == 4 and all(map(math.isfinite, found)) else None


def checked(box: Sequence[float], width: int, height: int) -> tuple[list[float] | None, str]:
    """A box [x, y, width, height] inside of its image, or None; and what was wrong with it ("" if nothing)."""
    x, y, w, h = box
    if w < 0 or h < 0:
        return None, REVERSED
    if w == 0 or h == 0:
        return None, EMPTY
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return None, OUTSIDE
    if x >= -SLACK and y >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK:
        return list(box), ""
    left, top = max(x, 0.0), max(y, 0.0)
    return [left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top], CLIPPED


class Order:
    """Counts how the boxes of a data set fit into their images if their four numbers mean something else."""

    def __init__(self) -> None:
        self.boxes = self.wrong = self.relative = self.corners = self.exchanged = self.outside = self.pixels = 0
        self.reversed = 0

    def add(self, box: Sequence[float], width: int, height: int) -> None:
        """Count one box, as it is in the file, with the size of its image."""
        a, b, c, d = box
        self.boxes += 1
        fits = a >= -SLACK and b >= -SLACK and c > 0 and d > 0
        self.relative += 0 <= a <= 1 and 0 <= b <= 1 and 0 < c <= 1 and 0 < d <= 1 and min(width, height) > 4
        if not (fits and a + c <= width + SLACK and b + d <= height + SLACK):
            self.wrong += 1
            self.reversed += c < 0 or d < 0
            self.outside += a >= width or b >= height or a + c <= 0 or b + d <= 0
        self.corners += fits and a < c <= width + SLACK and b < d <= height + SLACK
        self.exchanged += fits and a + c <= height + SLACK and b + d <= width + SLACK

    def add_share(self, box: Sequence[float]) -> None:
        """Count one box of a format that gives shares of the image."""
        self.pixels += max(map(abs, box)) > 2

    def mistake(self) -> str:
        """What the four numbers seem to be, if they are not x, y, width and height; "" if they seem to be these."""
        if self.boxes < FEW:
            return ""
        if self.pixels * 2 > self.boxes:
            return "the numbers of the boxes are far above 1: they are pixels, and this layout has shares of the image"
        if self.relative > 0.9 * self.boxes:
            return "all numbers of the boxes are between 0 and 1: they are shares of the image, not pixels"
        if self.wrong * 10 < self.boxes:
            return ""
        if self.corners > 0.98 * self.boxes:
            return CORNERS
        if self.exchanged > 0.98 * self.boxes:
            return "x and y of the boxes seem to be exchanged (y, x, height, width)"
        if self.reversed * 2 > self.boxes:
            return (
                f"{self.reversed} of {self.boxes} boxes are upside down: their corners are in another order, or the "
                "numbers are sizes where corners are wanted"
            )
        if self.outside * 2 > self.boxes:
            return (
                f"{self.outside} of {self.boxes} boxes lie outside of their images: they are of images of another size"
            )
        return ""


# ---- masks ----


def polygons(found: Any) -> list[list[float]] | None:
    """COCO's polygons (flat lists of x and y, at least three points each); None if they are not.

    The C code that fills them takes memory for every pixel of their outline, and does not ask whether it got it.
    """
    if not isinstance(found, list) or not found:
        return None
    for polygon in found:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        try:
            most = max(map(abs, polygon))
            if not math.isfinite(math.fsum(polygon)) or most > FAR:
                return None
            if most * len(polygon) > LONG and _outline(polygon) > LONG:
                return None
        except (TypeError, ValueError, OverflowError):
            return None
    return found


def _outline(polygon: list[float]) -> float:
    """The pixels along the outline of a polygon, about."""
    xs, ys = polygon[::2], polygon[1::2]
    ends = zip(xs, xs[1:] + xs[:1], ys, ys[1:] + ys[:1], strict=True)
    return math.fsum(max(abs(a - b), abs(c - d)) for a, b, c, d in ends)


def run_lengths(found: Any) -> dict[str, Any] | None:
    """COCO's run lengths with `counts` as a string; None if they are broken.

    They are checked because the C code that decodes them does not look at the end of its arrays.
    """
    if not isinstance(found, Mapping) or not isinstance(found.get("size"), list) or len(found["size"]) != 2:
        return None
    size, counts = found["size"], found.get("counts")
    if not all(type(side) is int and 0 < side <= 1 << 16 for side in size):
        return None
    if isinstance(counts, str):
        from pipelines.data.image.run_lengths import counts as unpacked

        lengths = unpacked(counts)
        filled = lengths is not None and lengths.sum() == size[0] * size[1]
        return {"size": size, "counts": counts} if filled else None
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return None
    if sum(counts) != size[0] * size[1]:
        return None
    from pycocotools import mask

    packed = mask.frPyObjects({"size": size, "counts": counts}, *size)
    return {"size": size, "counts": packed["counts"].decode("ascii")}


def decoded(mask: str, height: int, width: int) -> "np.ndarray":
    """The mask of a row's object as uint8 [height, width] of 0 and 1. Raises DataError for one of another size."""
    import numpy as np
    from pycocotools import mask as coco

    found = json.loads(mask)
    if isinstance(found, list):
        found = coco.merge(coco.frPyObjects(found, height, width))
    elif found["size"] != [height, width]:
        raise DataError(f"a mask of {found['size'][1]} x {found['size'][0]} pixels in an image of {width} x {height}")
    array: np.ndarray = np.ascontiguousarray(coco.decode(found))
    return array


class LabelledBoxes(Encoding):
    """Rows as examples with the image and its objects: boxes as corners in pixels, class numbers by `labels`.

    An image is decoded when it is indexed, in a worker. Objects of classes that are not in `labels` are left out. With
    `masks`, objects have masks, and those without one are left out.
    """

    def __init__(self, rows: Any, labels: Sequence[str], masks: bool = False, white: int | None = None) -> None:
        warn_of_pages(rows)
        self.rows, self.masks, self.white = rows, masks, white
        self.number_of = {label: number for number, label in enumerate(labels)}

    @property
    def cache_key(self) -> str:
        return f"{list(self.number_of)} masks={self.masks}" + ("" if self.white is None else f" white={self.white}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        import numpy as np

        row = self.rows[number]
        image = image_of(row, self.white)
        objects = [one for one in row["objects"] or [] if one["label"] in self.number_of]
        if self.masks:
            objects = [one for one in objects if one["mask"]]
        boxes = np.array([one["box"] for one in objects], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # a large JPEG may be decoded at a half of its size (read_image)
        width, height = row.get("width") or image.width, row.get("height") or image.height
        if self.masks:
            image = _shrunk(image, len(objects))
        try:
            masks = [_mask(one["mask"], (width, height), image.size) for one in objects] if self.masks else None
        except DataError as error:
            raise DataError(f"{row['id']}: {short(str(error), 200)}") from None
        area = np.array([one["area"] for one in objects], dtype=np.float32)
        if image.size != (width, height):
            wide, high = image.width / width, image.height / height
            boxes *= np.array([wide, high] * 2, dtype=np.float32)
            area *= wide * high
        return {
            "id": row["id"],
            "row": number,
            "image": image,
            "boxes": boxes,
            "classes": np.array([self.number_of[one["label"]] for one in objects], dtype=np.int64),
            "crowd": np.array([bool(one["crowd"]) for one in objects], dtype=bool),
            "area": area,
            "masks": masks,
            "size": (image.height, image.width),
        }


def _shrunk(image: Any, masks: int) -> Any:
    """The image, smaller if so many masks of its size would take more than MASK_BYTES."""
    from PIL import Image

    size = masks * image.width * image.height
    if size <= MASK_BYTES:
        return image
    share = math.sqrt(MASK_BYTES / size)
    return image.resize([max(1, int(side * share)) for side in image.size], Image.Resampling.BILINEAR)


def _mask(text: str, size: tuple[int, int], wanted: tuple[int, int]) -> "np.ndarray":
    """A mask of an image of `size` (width, height), at the size of the image that was read."""
    import numpy as np
    from PIL import Image

    mask = decoded(text, size[1], size[0])
    if wanted == size:
        return mask
    return np.array(Image.fromarray(mask).resize(wanted, Image.Resampling.NEAREST))
