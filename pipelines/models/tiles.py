"""Label maps of images of any size: large ones in overlapping tiles, whose probabilities are blended.

Tiles overlap by at least `overlap` pixels. Their probabilities are blended over a strip of half of that in the middle
of each overlap, so that no pixel near the edge of a tile counts, and there is no seam. Only these strips are kept
between tiles: the memory depends on the tile and on the width of the image times the overlap, not on its area.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch import nn

    from pipelines.models.segmentation import Family

BAND = 2**22  # probabilities that are enlarged at a time, 16 MB


class Segmented(NamedTuple):
    """The classes of an image's pixels."""

    map: np.ndarray
    """Class numbers [height, width]: uint8, or int16 for more than 255 classes."""
    sure: np.ndarray
    """float64 [classes]: the sum of the probabilities of the pixels that were given each class."""
    pixels: np.ndarray
    """int64 [classes]: their number."""


class _Map:
    """A label map that is filled part by part."""

    def __init__(self, height: int, width: int, classes: int) -> None:
        self.map = np.zeros((height, width), np.uint8 if classes <= 255 else np.int16)
        self.sure, self.pixels = np.zeros(classes), np.zeros(classes, np.int64)

    def put(self, top: int, left: int, scores: Tensor) -> None:
        """Decide the pixels of one part from their probabilities [classes, height, width]."""
        best, classes = scores.max(0)
        height, width = classes.shape
        self.map[top : top + height, left : left + width] = classes.cpu().numpy()
        flat, weights = classes.flatten(), best.flatten().double()
        self.sure += torch.bincount(flat, weights, minlength=len(self.sure)).cpu().numpy()
        self.pixels += torch.bincount(flat, minlength=len(self.sure)).cpu().numpy()

    def done(self) -> Segmented:
        return Segmented(self.map, self.sure, self.pixels)


def segment(
    model: "nn.Module", family: "Family", image: Any, size: tuple[int, int], tile: int, overlap: int
) -> Segmented:
    """The label map of one image (PIL RGB, at the size that the model sees) for the original `size` (height, width)."""
    height, width = image.height, image.width
    if height <= tile and width <= tile:
        return segment_equal(model, family, family.pixels(image)[None], [(height, width)], [size])[0]
    if size == (height, width):
        found = _Map(height, width, len(family.labels))
        for top, left, scores in tiles(model, family, image, tile, overlap):
            found.put(top, left, scores)
        return found.done()
    whole = torch.empty(len(family.labels), height, width)
    for top, left, scores in tiles(model, family, image, tile, overlap):
        whole[:, top : top + scores.shape[1], left : left + scores.shape[2]] = scores
    return enlarged(whole, size)


def segment_equal(
    model: "nn.Module",
    family: "Family",
    pixels: Tensor,
    inner: Sequence[tuple[int, int]],
    sizes: Sequence[tuple[int, int]],
) -> list[Segmented]:
    """The label maps of several images of one size, [n, 3, H, W], in one forward pass.

    `inner` are the height and width of what is no padding; `sizes` are the original ones.
    """
    found = zip(_scores(model, family, pixels), inner, sizes, strict=True)
    return [enlarged(scores[:, :height, :width], size) for scores, (height, width), size in found]


def _scores(model: "nn.Module", family: "Family", pixels: Tensor) -> Iterator[Tensor]:
    """Probabilities [classes, H, W] of each image [n, 3, H, W], padded as the model needs it.

    One image after the other is enlarged, because those of many classes of a batch may not fit the memory. A model of
    one size gets zeros, as its authors give it; another gets the edge, repeated.
    """
    height, width = pixels.shape[-2:]
    high, wide = padded_size(family, height, width)
    device = next(model.parameters()).device
    mode = "constant" if family.fixed else "replicate"
    pixels = torch.nn.functional.pad(pixels.to(device), (0, wide - width, 0, high - height), mode=mode)
    for scores in family.probabilities(model, pixels):
        yield scores[:, :height, :width].float()


def padded_size(family: "Family", height: int, width: int) -> tuple[int, int]:
    """The height and width to which an image is padded before the model takes it."""
    if family.fixed:
        return max(height, family.side), max(width, family.side)
    return -(-height // family.stride) * family.stride, -(-width // family.stride) * family.stride


def enlarged(scores: Tensor, size: tuple[int, int]) -> Segmented:
    """The label map at another size (height, width): probabilities are interpolated (bilinear), then the best is taken.

    Bands of rows are interpolated one after the other, because all classes at the original size may not fit the memory.
    """
    height, width = size
    classes, high, wide = scores.shape
    found = _Map(height, width, classes)
    if (high, wide) == (height, width):
        found.put(0, 0, scores)
        return found.done()
    step = max(1, BAND // (classes * width))
    for top in range(0, height, step):
        rows = torch.arange(top, min(top + step, height), device=scores.device)
        place = ((rows + 0.5) * (high / height) - 0.5).clamp(0, high - 1)
        above = place.long()
        below, share = (above + 1).clamp(max=high - 1), (place - above)[:, None]
        band = scores[:, above] * (1 - share) + scores[:, below] * share
        band = torch.nn.functional.interpolate(band[None], (len(rows), width), mode="bilinear", align_corners=False)[0]
        found.put(top, 0, band)
    return found.done()


# ---- tiles ----


class Axis(NamedTuple):
    """How one side is cut: where tiles start and end, and strips [start, end) in which neighbours are blended."""

    starts: list[int]
    ends: list[int]
    strips: list[tuple[int, int]]


def axis(length: int, tile: int, overlap: int, stride: int = 1) -> Axis:
    """Cut a side into the fewest tiles that overlap by `overlap` or more.

    Tiles start at multiples of `stride`, where the model would halve the complete image, too.
    """
    if length <= tile:
        return Axis([0], [length], [])
    last = -(-length // stride) - tile // stride  # the start of the last tile, in strides
    farthest = max(1, (tile - overlap) // stride)
    count = -(-last // farthest) + 1
    starts = [round(number * last / (count - 1)) * stride for number in range(count)]
    ends = [min(start + tile, length) for start in starts]
    blend = max(1, overlap // 2)
    strips = []
    for end, after in zip(ends, starts[1:], strict=False):
        middle = (after + end) // 2
        strips.append((middle - blend // 2, middle - blend // 2 + blend))
    return Axis(starts, ends, strips)


def tiles(
    model: "nn.Module", family: "Family", image: Any, tile: int, overlap: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the finished parts of an image: top, left, and blended probabilities [classes, height, width].

    The parts do not overlap, and together they cover the image.
    """
    down, across = (axis(side, tile, overlap, family.stride) for side in (image.height, image.width))
    above: list[Tensor | None] = [None] * len(across.starts)  # of each column: the strip that the row above left
    for line, top in enumerate(down.starts):
        beside: Tensor | None = None
        for column, left in enumerate(across.starts):
            window = image.crop((left, top, across.ends[column], down.ends[line]))
            (scores,) = _scores(model, family, family.pixels(window)[None])
            part, x, beside = _blended(scores, across, column, beside, -1)
            part, y, above[column] = _blended(part, down, line, above[column], -2)
            yield y, x, part


def _blended(
    scores: Tensor, axis: Axis, number: int, carried: Tensor | None, dim: int
) -> tuple[Tensor, int, Tensor | None]:
    """What tile `number` of an axis finishes: its probabilities, where they start, and the strip for the next tile."""
    start, last = axis.starts[number], axis.ends[number]
    first = axis.strips[number - 1][0] if number else 0
    rest = None
    if number < len(axis.strips):
        last, end = axis.strips[number]
        strip = scores.narrow(dim, last - start, end - last)
        rest = strip * _ramp(end - last, dim, scores.device).flip(dim)
    part = scores.narrow(dim, first - start, last - first)
    if carried is not None:
        wide = carried.shape[dim]
        part = part.clone()
        head = part.narrow(dim, 0, wide)
        head.copy_(head * _ramp(wide, dim, scores.device) + carried)
    return part, first, rest


def _ramp(length: int, dim: int, device: Any) -> Tensor:
    """Weights that rise from 0 to 1 along a strip; a ramp and its mirror image add up to 1."""
    ramp = (torch.arange(length, device=device) + 0.5) / length
    return ramp if dim == -1 else ramp[:, None]
