"""Read images of every common mode and format, upright and in RGB."""

import io
import warnings
from pathlib import Path
from typing import Any

from pipelines.errors import DataError

MAX_PIXELS = 128_000_000  # a 100-megapixel camera passes, a decompression bomb does not


def read_image(value: Any) -> Any:
    """An image as PIL RGB, turned upright by its EXIF tag.

    `value` is a path, bytes, an open PIL image, or datasets' {"path", "bytes"}. Transparency is laid on white, 16-bit
    grey is scaled to 8 bits. Raises DataError naming the file for anything that cannot be read whole.
    """
    from PIL import Image, ImageOps

    name = _name(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about bombs and odd EXIF; size is checked below
            image = _open(value, Image)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name}: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} in all are read")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image), Image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable image: {str(error).split(': <')[0] or type(error).__name__}") from None


def _open(value: Any, image_module: Any) -> Any:
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, (bytes, bytearray)):
        return image_module.open(io.BytesIO(value))
    if isinstance(value, (str, Path)):
        return image_module.open(value)
    return value.copy()


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("path") or "image bytes")
    if isinstance(value, (str, Path)):
        return str(value)
    return str(getattr(value, "filename", "") or "image")


def _to_rgb(image: Any, image_module: Any) -> Any:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16-bit files open as I;16 or I: scale to 8 bits, or everything above 255 would be white
        import numpy as np

        values = np.asarray(image, dtype=np.float32)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return image_module.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = image_module.new("RGBA", image.size, "white")
        return image_module.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image
