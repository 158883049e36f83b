"""Read images of every common mode and format, upright and in RGB."""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data.apart import paths
from pipelines.data.labels import check_known, several
from pipelines.errors import DataError

log = logging.getLogger("graft")

UNREAD = frozenset((".heic", ".heif", ".hif", ".jxl", ".psd", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"))
PAGES_LOOKED_AT = 100  # TIFF files of some rows that are opened to see whether they have more than one page
MAX_PIXELS = 128_000_000  # a 100-megapixel camera passes, a decompression bomb does not
MAX_RATIO = 250  # of the sides: a processor that resizes the short side would make a bomb of a hair


def read_image(value: Any) -> Any:
    """An image as PIL RGB, turned upright by its EXIF tag; of an animation the first picture.

    `value` is a path, bytes, an open PIL image, or datasets' {"path", "bytes"}. Transparency is laid on white, 16-bit
    grey is scaled to 8 bits. Raises DataError naming the file for anything that cannot be read whole.
    """
    from PIL import Image, ImageOps

    name = _name(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about bombs and odd EXIF; size is checked below
            with _open(name, value, Image) as image:
                _check_size(name, *image.size)
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image), Image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except Exception as error:  # decoders raise nearly everything: OSError, SyntaxError, struct.error, RuntimeError (AVIF), ...
        raise DataError(f"{name}: not a readable image: {_foreign(value) or _why(error, name)}") from None


def check_header(value: Any) -> None:
    """Look at the first bytes of an image only. Raises DataError where it is none."""
    from PIL import Image

    name = _name(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(name, value, Image):
                return
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except Exception as error:
        raise DataError(f"{name}: not a readable image: {_foreign(value) or _why(error, name)}") from None


def warn_of_pages(rows: Any) -> None:
    """Say how many TIFF files have more pages than the one that is read. A hundred are looked at, their headers only."""
    from PIL import Image

    files = [path for path in paths(rows) if path and path.lower().endswith((".tif", ".tiff"))] if hasattr(rows, "flatten") else []
    files = files[:: max(1, -(-len(files) // PAGES_LOOKED_AT))]
    found = []
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path) as image:
                    if image.format == "TIFF":
                        image.seek(1)
                        found.append(Path(path).name)
        except Exception:  # one page; or it cannot be read, which is told when it is
            continue
    if found:
        some = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if found[3:] else "")
        log.warning("%d of %d TIFF files looked at have several pages; only the first is read: %s", len(found), len(files), some)


def advice(suffix: str) -> str:
    """Why images whose names end so cannot be read, and what to do."""
    kind = suffix.lstrip(".").upper()
    return f"{kind} images cannot be read: convert them to JPEG or PNG, as with `magick mogrify -format jpg *{suffix}`"


def _foreign(value: Any) -> str:
    """What to do about an image of a kind that is known and not read, by its first bytes or its name; "" for any other."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    start, suffix = b"", ""
    if isinstance(value, (bytes, bytearray)):
        start = bytes(value[:12])
    elif isinstance(value, (str, Path)):
        suffix = Path(value).suffix.lower()
        try:
            with open(value, "rb") as file:
                start = file.read(12)
        except (OSError, ValueError):
            return ""
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
        return advice(".heic")
    return advice(suffix) if suffix in UNREAD else ""


def save_example(value: Any, folder: Path, name: str) -> str:
    """Write an image, made small, as the example `name` of a card. Returns the file's name. Raises DataError."""
    image = read_image(value)
    image.thumbnail((640, 640))
    image.info.clear()  # a comment in the file would be written again
    image.save(folder / f"{name}.jpg", quality=90)
    return f"{name}.jpg"


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: {width} x {height} pixels, at most {MAX_PIXELS:,} in all are read")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"{name}: {width} x {height} pixels, one side may be at most {MAX_RATIO} times the other")


def _open(name: str, value: Any, image_module: Any) -> Any:
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise DataError(f"{name}: no image here")
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


def _why(error: Exception, name: str) -> str:
    """The decoder's own words, without the file's name (it stands before them) or the address of an object in memory."""
    return str(error).split(": <")[0].replace(repr(name), "").strip() or type(error).__name__


def _to_rgb(image: Any, image_module: Any) -> Any:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow would cut everything above 255 to white. A 16-bit file has a fixed range, so that one dark photo does not
        # become brighter than its neighbours; of the others only the values can tell
        import numpy as np

        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        most = values.max(initial=0)
        top = 65535.0 if image.mode.startswith("I;16") or most > 255 else 1.0 if image.mode == "F" and most <= 1 else 255.0
        return image_module.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = image_module.new("RGBA", image.size, "white")
        return image_module.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image


DARK = 8  # of 255: a photo by night has brighter pixels
LOOKED_AT = 8  # images


def warn_if_dark(rows: Any) -> None:
    """Warn where images arrive nearly black: detectors write 10 to 14 bits into files of 16, of which 65,535 is white."""
    places = sorted({number * len(rows) // LOOKED_AT for number in range(LOOKED_AT)})
    brightest = []
    for place in places:
        try:
            brightest.append(max(high for _, high in read_image(rows[place]["image"]).getextrema()))
        except DataError:  # it is skipped and counted where it is read for training
            continue
    if brightest and max(brightest) <= DARK:
        log.warning(
            "images arrive nearly black: of %d looked at, the brightest pixel is %d of 255. In files of 16 bits "
            "65,535 is white: stretch their values to that range before training",
            len(brightest), max(brightest),
        )  # fmt: skip


class LabelledImages(Sequence):
    """Rows as examples; an image is decoded when it is asked for, in a worker.

    Labels that the model does not know are said. Raises DataError where it knows none.
    """

    def __init__(self, rows: Any, labels: list[str], multi_label: bool) -> None:
        self.rows, self.multi_label = rows, multi_label
        warn_of_pages(rows)
        self.number_of = {label: i for i, label in enumerate(labels)}
        found = {part for label in rows["label"] for part in (several(label) if multi_label else [str(label)])}
        check_known(found, labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        import torch

        row = self.rows[number]
        target = torch.zeros(len(self.number_of))
        true = several(row["label"]) if self.multi_label else row["label"]
        for label in true if self.multi_label else [true]:
            if label in self.number_of:  # a label that the model does not know counts as an error when scored
                target[self.number_of[label]] = 1.0
        return {"id": row["id"], "row": number, "image": read_image(row["image"]), "target": target, "true": true}
