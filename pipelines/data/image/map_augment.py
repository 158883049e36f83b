"""Random changes of an image together with its label map: part, mirror, turn, colours, elastic deformation.

Every function gives a new example and draws all randomness from the given generator. Examples have `image` (PIL RGB)
and `map` (int16 [height, width]), and with segments also `segments` (int32 [height, width]). Maps are only ever resized
by taking the nearest pixel.
"""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.data.image.label_maps import IGNORE

if TYPE_CHECKING:
    import numpy as np

Example = dict[str, Any]

GREY = (124, 116, 104)  # where a part has no image: the mean of ImageNet
MAPS = {"map": IGNORE, "segments": 0}  # the maps of an example, and their value where there is no image
CELL = 64  # pixels between the points that an elastic deformation moves
SHIFT = 8.0  # the standard deviation of their movements, in pixels
STRENGTH = 0.3  # the largest change of brightness and contrast


def nearest(label_map: "np.ndarray", box: tuple[float, float, float, float], size: tuple[int, int]) -> "np.ndarray":
    """The part `box` (left, top, right, bottom) of a map at another size (width, height): the nearest pixels."""
    import numpy as np

    left, top, right, bottom = box
    width, height = size
    columns = left + (np.arange(width) + 0.5) * (right - left) / width
    rows = top + (np.arange(height) + 0.5) * (bottom - top) / height
    rows = np.minimum(rows.astype(np.int64), label_map.shape[0] - 1)
    columns = np.minimum(columns.astype(np.int64), label_map.shape[1] - 1)
    return np.asarray(label_map[rows[:, None], columns[None, :]])


def part(example: Mapping[str, Any], box: tuple[float, float, float, float], size: tuple[int, int]) -> Example:
    """The part `box` of the image and its maps at another size (width, height)."""
    from PIL import Image

    image = example["image"].resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return {**example, "image": image, **{name: nearest(example[name], box, size) for name in MAPS if name in example}}


def resized(example: Mapping[str, Any], size: tuple[int, int]) -> Example:
    """The image and its maps at another size (width, height)."""
    width, height = example["image"].size
    return dict(example) if size == (width, height) else part(example, (0, 0, width, height), size)


def random_part(
    example: Mapping[str, Any], base: tuple[int, int], side: int, scale: tuple[float, float], rng: Random
) -> Example:
    """A random part of `side` x `side` pixels of the image at a random scale.

    `base` is the size (width, height) at scale 1; a factor of `scale` (smallest, largest) is drawn on a logarithmic
    scale. A smaller image is padded with ignored pixels, at a random place.
    """
    import math

    import numpy as np
    from PIL import Image

    factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    own = example["image"].size
    across = [factor * one / of for one, of in zip(base, own, strict=True)]  # new pixels for one of the image
    lengths = [min(of, side / by) for of, by in zip(own, across, strict=True)]
    starts = [rng.uniform(0, of - length) for of, length in zip(own, lengths, strict=True)]
    if scale[0] == scale[1] == 1 and tuple(base) == own:  # no pixel is resampled
        lengths, starts = [float(min(of, side)) for of in own], [float(round(start)) for start in starts]
        starts = [min(start, of - length) for start, of, length in zip(starts, own, lengths, strict=True)]
    width, height = (max(1, min(side, round(length * by))) for length, by in zip(lengths, across, strict=True))
    left, top = starts
    found = part(example, (left, top, left + lengths[0], top + lengths[1]), (width, height))
    if (width, height) == (side, side):
        return found
    x, y = rng.randint(0, side - width), rng.randint(0, side - height)
    canvas = Image.new("RGB", (side, side), GREY)
    canvas.paste(found["image"], (x, y))
    for name, blank in MAPS.items():
        if name in found:
            padded = np.full((side, side), blank, found[name].dtype)
            padded[y : y + height, x : x + width] = found[name]
            found[name] = padded
    return {**found, "image": canvas}


def middle(example: Mapping[str, Any], side: int) -> Example:
    """The middle of an image and its maps, of at most `side` x `side` pixels."""
    width, height = example["image"].size
    wide, high = min(width, side), min(height, side)
    left, top = (width - wide) // 2, (height - high) // 2
    return part(example, (left, top, left + wide, top + high), (wide, high))


def turned(example: Mapping[str, Any], quarters: int, mirrored: bool) -> Example:
    """The image and its maps, mirrored left to right if asked for, and then turned by quarters to the left."""
    import numpy as np
    from PIL import Image

    image = example["image"]
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    if quarters:
        image = image.transpose(turns[quarters])
    maps = {}
    for name in MAPS:
        if name in example:
            found = example[name][:, ::-1] if mirrored else example[name]
            maps[name] = np.ascontiguousarray(np.rot90(found, quarters))
    return {**example, "image": image, **maps}


def random_mirror(example: Mapping[str, Any], rng: Random) -> Example:
    """Mirrored left to right, half of the time."""
    return turned(example, 0, True) if rng.random() < 0.5 else dict(example)


def random_turn(example: Mapping[str, Any], rng: Random) -> Example:
    """One of the eight ways to turn and mirror a square image; one of four that keep the shape of another."""
    quarters = rng.choice((0, 1, 2, 3) if example["image"].width == example["image"].height else (0, 2))
    return turned(example, quarters, rng.random() < 0.5)


def light(example: Mapping[str, Any], rng: Random) -> Example:
    """Random brightness and contrast, equal for all channels."""
    image = example["image"]
    brightness, contrast = (rng.uniform(1 - STRENGTH, 1 + STRENGTH) for _ in range(2))
    counts = image.convert("L").histogram()
    mean = sum(value * count for value, count in enumerate(counts)) / sum(counts)
    table = [min(255, max(0, round((value - mean) * contrast + mean * brightness))) for value in range(256)]
    return {**example, "image": image.point(table * 3)}


def elastic(example: Mapping[str, Any], rng: Random) -> Example:
    """A smooth random deformation (Simard et al. 2003), as for the U-Net (Ronneberger et al. 2015).

    The points of a coarse grid are moved at random, and all pixels between them follow.
    """
    import numpy as np
    from PIL import Image
    from scipy.ndimage import map_coordinates

    width, height = example["image"].size
    across, down = 2 + width // CELL, 2 + height // CELL
    draw = np.random.default_rng(rng.getrandbits(63)).normal(0, SHIFT, (2, down, across)).astype(np.float32)
    smooth = [np.asarray(Image.fromarray(shift).resize((width, height), Image.Resampling.BICUBIC)) for shift in draw]
    rows, columns = np.mgrid[:height, :width].astype(np.float32) + np.stack(smooth)
    places = np.stack([rows, columns])
    pixels = np.asarray(example["image"])
    moved = [map_coordinates(pixels[..., band], places, order=1, mode="mirror") for band in range(3)]
    # the place of the nearest pixel, mirrored at the edges as the image is
    near = [_mirrored(np.rint(at).astype(np.int64), of) for at, of in ((rows, height), (columns, width))]
    maps = {name: example[name][near[0], near[1]] for name in MAPS if name in example}
    return {**example, "image": Image.fromarray(np.stack(moved, -1)), **maps}


def _mirrored(places: "np.ndarray", length: int) -> "np.ndarray":
    """Places outside of 0 to length - 1, mirrored back at the edges."""
    import numpy as np

    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    places = np.abs(places) % period
    return np.asarray(np.minimum(places, period - places))
