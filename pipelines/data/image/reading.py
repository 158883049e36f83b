"""Read images of all common modes and formats, upright and in RGB."""

import io
import logging
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.data.encoding import Encoding
from pipelines.data.files import begins
from pipelines.data.labels import check_known, several
from pipelines.data.media import IMAGES, paths
from pipelines.errors import DataError

log = logging.getLogger("graft")

PAGES_LOOKED_AT = 100  # TIFF files of a split that are checked for several pages
MAX_PIXELS = 128_000_000  # allows a 100-megapixel camera, but not a decompression bomb
MAX_RATIO = 250  # of the sides: resizing the short side of a very narrow image would give a huge one
STRIP = 4_000_000  # pixels that are converted to RGB at a time, because a conversion holds several copies of them

PNG = b"\x89PNG\r\n\x1a\n"
# PNG chunks that hold texts or a colour profile; the last three may be compressed
NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Bytes of one such chunk and of all, uncompressed. Pillow refuses a file with a longer one.
MAX_NOTE, MAX_NOTES = 1 << 20, 16 << 20


def read_image(value: Any, most: int = MAX_PIXELS, formats: tuple[str, ...] | None = None) -> Any:
    """An image as PIL RGB, turned upright by its EXIF tag; of an animation the first frame.

    `value` is a path, bytes, an open PIL image, or datasets' {"path", "bytes"}. Transparent images are put on white,
    16-bit grey is scaled to 8 bits. Long texts of a PNG are ignored. At most `most` pixels are decoded: a larger JPEG
    is decoded at a half, a quarter or an eighth of its size. `formats` limits the formats that are read, by Pillow's
    names. Raises DataError naming the file if the complete image cannot be read.
    """
    from PIL import ExifTags, Image, ImageOps

    name = _name(value)

    def decode(image: Any) -> Any:
        _check_size(name, image.width, image.height, MAX_PIXELS if _shrinks(image) else most)
        if _shrinks(image) and image.width * image.height > most:
            times = next(n for n in (2, 4, 8) if image.width * image.height <= most * n * n or n == 8)
            image.draft(None, (image.width // times, image.height // times))
        image.load()
        # a copy, unless the image is already upright RGB: the opened file itself is never returned
        turned = image.mode == "RGB" or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return _to_rgb(ImageOps.exif_transpose(image) if turned else image, Image)

    return _reading(name, value, decode, formats)


def read_notes(value: Any, name: str, formats: tuple[str, ...] | None = None) -> dict[Any, Any]:
    """The metadata of an image file (Pillow's `info`), without decoding the pixels.

    Raises DataError naming the file.
    """
    found: dict[Any, Any] = _reading(name, value, lambda image: dict(image.info), formats)
    return found


def _reading(name: str, value: Any, use: Callable[[Any], Any], formats: tuple[str, ...] | None) -> Any:
    """Call `use` with the opened image. Any error of a decoder becomes a DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # PIL warns of large images and unusual EXIF; the size is checked separately
            try:
                with _open(name, value, formats) as image:
                    return use(image)
            except ValueError:  # Pillow's error for a text that is too long
                shorter = _without_long_notes(value)
                if shorter is None:
                    raise
                with _open(name, shorter, formats) as image:
                    return use(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (
        Exception
    ) as error:  # decoders raise many kinds: OSError, SyntaxError, struct.error, RuntimeError (AVIF), ...
        raise DataError(f"{name}: not a readable image: {_foreign(value) or _why(error, name)}") from None


def check_header(value: Any) -> None:
    """Read only the first bytes of an image. Raises DataError if it is not one."""
    _reading(_name(value), value, lambda image: None, None)


def warn_of_pages(rows: Any) -> None:
    """Warn of TIFF files with several pages, of which only the first is read.

    The headers of up to a hundred files are checked.
    """
    from PIL import Image

    files = (
        [path for path in paths(rows) if path and path.lower().endswith((".tif", ".tiff"))]
        if hasattr(rows, "flatten")
        else []
    )
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
        except Exception:  # it has one page, or it cannot be read, which is reported later
            continue
    if found:
        some = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if found[3:] else "")
        log.warning(
            "%d of %d TIFF files looked at have several pages; only the first is read: %s", len(found), len(files), some
        )


def advice(suffix: str) -> str:
    """Why images with this suffix cannot be read, and what to do."""
    kind = suffix.lstrip(".").upper()
    return f"{kind} images cannot be read: convert them to JPEG or PNG, as with `magick mogrify -format jpg *{suffix}`"


def _foreign(value: Any) -> str:
    """What to do about an image of a known format that is not read, from its first bytes or its name.

    The text is empty for any other format.
    """
    start, suffix = begins(value)
    if start[4:8] == b"ftyp" and start[8:12] in (
        b"heic",
        b"heix",
        b"hevc",
        b"hevx",
        b"heim",
        b"heis",
        b"mif1",
        b"msf1",
    ):
        return advice(".heic")
    return advice(suffix) if suffix in IMAGES.unread else ""


def save_example(value: Any, folder: Path, name: str) -> str:
    """Write a small copy of an image as the sample `name` of a card. Returns the file's name. Raises DataError."""
    image = read_image(value)
    image.thumbnail((640, 640))
    image.info.clear()  # otherwise comments of the file would be written to the copy
    image.save(folder / f"{name}.jpg", quality=90)
    return f"{name}.jpg"


def thumbnail(value: Any, side: int = 160) -> bytes | None:
    """A small JPEG of an image, without metadata; None if the image cannot be read. Tiny images are enlarged."""
    from PIL import Image

    try:
        image = read_image(value)
    except DataError:
        return None
    image.thumbnail((side, side))
    times = max(1, side // (2 * max(image.size)))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def _check_size(name: str, width: int, height: int, most: int) -> None:
    if width * height > most:
        raise DataError(f"{name}: {width} x {height} pixels, at most {most:,} in all are read")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"{name}: {width} x {height} pixels, one side may be at most {MAX_RATIO} times the other")


def _shrinks(image: Any) -> bool:
    """Whether the decoder can give a smaller image without decoding all of it; not for a progressive JPEG."""
    return image.format in ("JPEG", "MPO") and not image.info.get("progressive")


def _open(name: str, value: Any, formats: tuple[str, ...] | None) -> Any:
    from PIL import Image

    value = _source(value)
    if value is None:
        raise DataError(f"{name}: no image here")
    if isinstance(value, (bytes, bytearray)):
        value = io.BytesIO(value)
    elif not isinstance(value, (str, Path)):
        return value.copy()
    image = Image.open(value, formats=formats)
    if image.format == "EPS":  # a program, which Pillow would run with Ghostscript
        image.close()
        raise DataError(f"{name}: PostScript is not read: save it as PNG or JPEG")
    return image


def _source(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    return value


def _without_long_notes(value: Any) -> bytes | None:
    """The bytes of a PNG without the texts and profiles that are longer than Pillow allows; None if there are none."""
    source = _source(value)
    if not isinstance(source, (bytes, bytearray, str, Path)):
        return None
    data = Path(source).read_bytes() if isinstance(source, (str, Path)) else bytes(source)
    if not data.startswith(PNG):
        return None
    kept, at, room = [PNG], len(PNG), MAX_NOTES
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in NOTES and room > 0:
            size = _unpacked(data[at + 4 : at + 8], data[at + 8 : end - 4])
            room -= size
            kept += [data[at:end]] if size <= MAX_NOTE else []
        elif data[at + 4 : at + 8] not in NOTES:
            kept.append(data[at:end])
        at = end
    shorter = b"".join(kept)
    return shorter if len(shorter) < len(data) else None


def _unpacked(kind: bytes, chunk: bytes) -> int:
    """The uncompressed length of a chunk. No more is decompressed than is needed to know that it is too long."""
    packed = chunk.partition(b"\0")[2]  # a keyword comes first
    if kind == b"iTXt":
        packed = packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    elif kind == b"tEXt":
        packed = b""
    try:
        return (
            len(zlib.decompressobj().decompress(packed if kind == b"iTXt" else packed[1:], MAX_NOTE + 1))
            if packed
            else len(chunk)
        )
    except zlib.error:
        return len(chunk)


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("path") or "image bytes")
    if isinstance(value, (str, Path)):
        return str(value)
    return str(getattr(value, "filename", "") or "image")


def _why(error: Exception, name: str) -> str:
    """The decoder's message without the file's name, which comes before it, and without addresses of objects."""
    return str(error).split(" <")[0].replace(repr(name), "").strip(" :") or type(error).__name__


def _to_rgb(image: Any, image_module: Any) -> Any:
    """Convert an image to RGB; a large one strip by strip, which limits the memory of intermediate copies."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    top, rows = _full_scale(image), max(1, STRIP // image.width)
    if image.height <= rows:
        return _strip_to_rgb(image, top, image_module)
    converted = image_module.new("RGB", image.size)
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(start + rows, image.height)))
        converted.paste(_strip_to_rgb(strip, top, image_module), (0, start))
    return converted


def _full_scale(image: Any) -> float | None:
    """The value of white if pixels have more than 8 bits, else None.

    Pillow would turn all values above 255 to white. A 16-bit file has a fixed range, so that one dark photo does not
    become brighter than others; for other modes the range is inferred from the values.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    most = np.nan_to_num(np.asarray(image, dtype=np.float32)).max(initial=0)
    return 65535.0 if most > 255 else 1.0 if image.mode == "F" and most <= 1 else 255.0


def _strip_to_rgb(image: Any, top: float | None, image_module: Any) -> Any:
    if top is not None:
        import numpy as np

        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        return image_module.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = image_module.new("RGBA", image.size, "white")
        return image_module.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


DARK = 8  # of 255; a photo taken at night has brighter pixels
LOOKED_AT = 8  # number of images that are checked


def warn_if_dark(rows: Any) -> None:
    """Warn if images are nearly black: detectors write 10 to 14 bits into 16-bit files, in which white is 65,535."""
    places = sorted({number * len(rows) // LOOKED_AT for number in range(LOOKED_AT)})
    brightest = []
    for place in places:
        try:
            brightest.append(max(high for _, high in read_image(rows[place]["image"]).getextrema()))
        except DataError:  # reported when the row is read for training
            continue
    if brightest and max(brightest) <= DARK:
        log.warning(
            "images arrive nearly black: of %d looked at, the brightest pixel is %d of 255. In files of 16 bits "
            "65,535 is white: stretch their values to that range before training",
            len(brightest),
            max(brightest),
        )


class LabelledImages(Encoding):
    """Rows as examples with `image` (PIL) and `target` float32 [classes].

    An image is decoded when it is indexed, in a worker.

    It warns of labels that the model does not know. Raises DataError if it knows none of them.
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
