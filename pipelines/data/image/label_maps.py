"""Label maps: the class of every pixel of an image."""

import base64
import zlib
from typing import Any

import numpy as np

IGNORE = -1  # a pixel that no loss and no score counts


def packed(label_map: np.ndarray) -> str:
    """A label map [height, width] of int16 as text for a record: compressed, in base64. See `unpacked`."""
    height, width = label_map.shape
    content = np.ascontiguousarray(label_map, dtype="<i2").tobytes()
    return f"{height}x{width}:{base64.b64encode(zlib.compress(content, 1)).decode('ascii')}"


def unpacked(text: str) -> np.ndarray:
    """The label map [height, width] of int16 that `packed` wrote."""
    size, _, content = text.partition(":")
    height, width = map(int, size.split("x"))
    return np.frombuffer(zlib.decompress(base64.b64decode(content)), "<i2").reshape(height, width).astype(np.int16)


COLUMNS = 256  # of a map that are looked at together, so that a large map needs no second copy


def run_lengths(label_map: np.ndarray) -> dict[int, dict[str, Any]]:
    """The mask of every class of a map as COCO's run lengths, by class number: {"size": [h, w], "counts": str}."""
    from pycocotools import mask as coco

    height, width = label_map.shape
    values, starts = [], []
    for left in range(0, width, COLUMNS):
        block = label_map[:, left : left + COLUMNS].T.ravel()  # COCO counts column by column
        changes = np.flatnonzero(np.diff(block)) + 1
        places = np.concatenate([[0], changes])
        values.append(block[places])
        starts.append(places + left * height)
    of, start = np.concatenate(values).astype(np.int64), np.concatenate(starts)
    end = np.append(start[1:], height * width)
    found = {}
    for number in np.unique(of[of != IGNORE]):
        mine = of == number
        edges = np.stack([start[mine], end[mine]], 1).ravel()  # inside, outside, inside, ...
        counts = np.diff(np.concatenate([[0], edges, [height * width]]))
        packed_counts = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)["counts"]
        found[int(number)] = {"size": [height, width], "counts": packed_counts.decode("ascii")}
    return found
