"""Label maps: the class of every pixel of an image."""

import base64
import zlib

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
