"""COCO's run lengths: {"size": [height, width], "counts": text}. They count pixels down the columns.

The counts are pixels outside, inside, outside and so on. An edge is the place of a pixel, counted down the columns, at
which a run inside begins or ends.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

MOST_SIGNS = 7  # of a number in the text: 35 bits


def counts(text: str) -> np.ndarray | None:
    """The numbers in COCO's compressed text, int64; None if it is no such text, or a number is below zero.

    A noisy map has millions of runs, so no loop goes over them.
    """
    try:
        signs = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if not len(signs):
        return signs
    last = signs & 32 == 0  # of the signs of a number: no more bits follow
    if signs.min() < 0 or signs.max() > 63 or not last[-1]:
        return None
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > MOST_SIGNS - 1:
        return None
    place = np.arange(len(signs)) - np.repeat(starts, ends - starts + 1)
    values: np.ndarray = np.add.reduceat((signs & 31) << (5 * place), starts)
    values -= np.where(signs[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    # from the fourth on, only the difference to the one before the last is written
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values if values.min() >= 0 else None


def packed(edges: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """The run lengths of a mask by its edges, which grow. A run may begin where another one ends."""
    from pycocotools import mask as coco

    again = edges[1:] == edges[:-1]
    keep = np.ones(len(edges), dtype=bool)
    keep[1:] &= ~again
    keep[:-1] &= ~again
    edges = edges[keep]
    places = np.concatenate([[0], edges, [height * width]])
    lengths = np.diff(places[:-1] if len(edges) and edges[-1] == height * width else places)
    found = coco.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}


def edges_of_columns(columns: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """The edges of a part of a mask, which is bool [columns, rows]; `height` is that of the image."""
    bordered = np.zeros((len(columns), columns.shape[1] + 2), dtype=bool)
    bordered[:, 1:-1] = columns
    column, row = np.divmod(np.flatnonzero(bordered[:, 1:] != bordered[:, :-1]), columns.shape[1] + 1)
    found: np.ndarray = (left + column) * height + top + row
    return found


def of_box(pixels: np.ndarray, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """The run lengths of a mask of an image. The box `pixels`, bool [rows, columns], holds all that is inside."""
    return packed(edges_of_columns(np.ascontiguousarray(pixels.T), left, top, height), height, width)


def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The edges of parts from left to right."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def around(edges: np.ndarray, height: int) -> tuple[int, int, int, int]:
    """The box of a mask that is not empty, by edges within its columns: left, top, right and bottom, exclusive."""
    starts, ends = edges[::2], edges[1::2] - 1
    top, bottom = int((starts % height).min()), int((ends % height).max())
    return int(starts[0] // height), top, int(ends[-1] // height) + 1, bottom + 1
