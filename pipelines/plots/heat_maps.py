"""Pictures of heat maps: colours over an image. Orange supports the answer, blue speaks against it."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SUPPORTS, AGAINST = (217, 100, 30), (43, 108, 196)
STRONGEST = 0.75  # opacity of the strongest part


def over(picture: "Image", values: np.ndarray, side: int = 224) -> "Image":
    """The picture in grey with the map [rows, columns] over it, RGB; its longest side is at least `side` pixels.

    A part is as opaque as it is strong, compared with the strongest part of the map.
    """
    from PIL import Image

    picture = picture.convert("RGB")
    scale = max(1.0, side / max(picture.size))
    size = (round(picture.width * scale), round(picture.height * scale))
    grey = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).convert("L"), dtype=np.float32)[..., None]
    share = _share(values)
    way = Image.Resampling.BICUBIC if min(share.shape) > 1 else Image.Resampling.NEAREST
    smooth = Image.fromarray(share).resize(size, way)
    level = np.clip(np.asarray(smooth), -1, 1)[..., None]
    colour = np.where(level > 0, np.array(SUPPORTS), np.array(AGAINST))
    opacity = STRONGEST * np.abs(level)
    return Image.fromarray((grey * (1 - opacity) + colour * opacity).clip(0, 255).astype(np.uint8))


def _share(values: np.ndarray) -> np.ndarray:
    """float32 from -1 to 1: the values divided by the largest one; 0 if there is none."""
    values = np.nan_to_num(np.atleast_2d(values)).astype(np.float32)
    largest = float(np.abs(values).max(initial=0.0))
    return values / largest if largest > 0 else values


def strip(frames: Sequence["Image"], values: np.ndarray, side: int = 120) -> "Image":
    """Frames of one size next to each other; each has the colour of its own value, [frames]."""
    from PIL import Image

    small = [frame.convert("RGB") for frame in frames]
    for one in small:
        one.thumbnail((side, side))
    width, height = small[0].size
    whole = Image.new("RGB", (len(small) * width, height))
    for place, one in enumerate(small):
        whole.paste(one, (place * width, 0))
    return over(whole, values[None])


def jpeg(picture: "Image") -> bytes:
    """A JPEG of a picture, without metadata."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()
