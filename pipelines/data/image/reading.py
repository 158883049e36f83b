"""Read images of all common modes and formats, upright and in RGB."""

import functools
import io
import logging
import os
import warnings
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from pipelines.data.encoding import Encoding
from pipelines.data.files import begins
from pipelines.data.labels import check_known, several
from pipelines.data.media import HEIC, IMAGES, READS_HEIC, paths
from pipelines.errors import DataError
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("graft")

PAGES_LOOKED_AT = 100  # TIFF files of a split that are checked for several pages
MAX_PIXELS = 128_000_000  # allows a 100-megapixel camera, but not a decompression bomb
MAX_RATIO = 250  # of the sides: resizing the short side of a very narrow image would give a huge one
STRIP = 4_000_000  # pixels that are converted to RGB at a time, because a conversion holds several copies of them

PAGES_KEPT = 1 << 16  # of a TIFF, whose places are kept

FULL = 65535  # white in a file of 16 bits

PNG = b"\x89PNG\r\n\x1a\n"
# PNG chunks that hold texts or a colour profile; the last three may be compressed
NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Bytes of one such chunk and of all, uncompressed. Pillow refuses a file with a longer one.
MAX_NOTE, MAX_NOTES = 1 << 20, 16 << 20


def read_image(
    value: Any, most: int = MAX_PIXELS, formats: tuple[str, ...] | None = None, white: int | None = None
) -> Any:
    """An image as PIL RGB, turned upright by its EXIF tag; of an animation the first frame.

    `value` is a path, bytes, an open PIL image, or datasets' {"path", "bytes"}, which may name a `page` of a TIFF, from
    0. Transparent images are put on white, 16-bit grey is scaled to 8 bits. Long texts of a PNG are ignored. At most
    `most` pixels are decoded: a larger JPEG is decoded at a half, a quarter or an eighth of its size. `formats` limits
    the formats that are read, by Pillow's names. `white` is the value of white in images of more than 8 bits; by
    default 65,535 in files of 16 bits. Raises DataError naming the file if the complete image cannot be read.
    """
    from PIL import ExifTags, Image, ImageOps

    name = _name(value)

    def decode(image: Any) -> Any:
        _draft(name, image, most)
        image.load()
        # a copy, unless the image is already upright RGB: the opened file itself is never returned
        turned = image.mode == "RGB" or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return _to_rgb(ImageOps.exif_transpose(image) if turned else image, Image, white)

    return _reading(name, value, decode, formats)


def upright_size(value: Any) -> tuple[int, int]:
    """Width and height of the image that `read_image` gives for a file, from its header.

    Raises DataError naming the file.
    """
    from PIL import ExifTags

    name = _name(value)

    def measure(image: Any) -> tuple[int, int]:
        _draft(name, image, MAX_PIXELS)
        # Pillow states the size of a TIFF as it is after turning
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)

    size: tuple[int, int] = _reading(name, value, measure, None)
    return size


def image_of(row: Any, white: int | None = None) -> Any:
    """The image of a row, as `read_image` gives it. Raises DataError naming the row."""
    try:
        return read_image(row["image"], white=white)
    except DataError as error:
        raise error if row["id"] in str(error) else DataError(f"{row['id']}: {error}") from None


def read_size(value: Any) -> tuple[int, int, int]:
    """Width and height of an image as its file stores it, and its EXIF orientation (1 to 8), from the file's head.

    Raises DataError naming the file.
    """
    from PIL import ExifTags

    def look(image: Any) -> tuple[int, int, int]:
        # Pillow would decode a PNG without these notes to look for some at its end
        bare = image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys()
        turned = 1 if bare else image.getexif().get(ExifTags.Base.Orientation, 1)
        return image.width, image.height, turned if turned in range(1, 9) else 1

    found: tuple[int, int, int] = _reading(_name(value), value, look, None)
    return found


class Mask(NamedTuple):
    """A label map as its file stores it, upright by its own EXIF tag."""

    values: "np.ndarray"  # [height, width] of whole numbers, or [height, width, 3] of colours
    palette: "np.ndarray | None"  # [colours, 3] if the values are the indices of a palette
    format: str  # Pillow's name


def read_mask(value: Any) -> Mask:
    """A label map: the numbers of its pixels, never converted through RGB. An index of a palette stays an index.

    Transparency is left out. Raises DataError naming the file.
    """
    from PIL import ExifTags, ImageOps

    name = _name(value)

    def decode(image: Any) -> Mask:
        _check_size(name, image.width, image.height, MAX_PIXELS)
        kind = str(image.format or "")
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _mask_of(name, image, kind)

    found: Mask = _reading(name, value, decode, None)
    return found


def _mask_of(name: str, image: Any, kind: str) -> Mask:
    import numpy as np

    if image.mode in ("LA", "La", "PA"):
        alone = image.getchannel(0)
        palette = image.palette if image.mode == "PA" else None
    else:
        alone, palette = image, image.palette if image.mode == "P" else None
    if image.mode in ("RGBA", "RGBa"):
        return Mask(np.asarray(image)[..., :3], None, kind)
    values = np.asarray(alone)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        whole = np.nan_to_num(values, nan=-1.0, posinf=-1.0, neginf=-1.0)
        if (whole != np.round(whole)).any() or np.abs(whole).max(initial=0) >= 1 << 31:
            raise DataError(f"{name}: a mask holds whole numbers, and this file has fractions: save class numbers")
        values = whole.astype(np.int32)
    if values.dtype.kind not in "iu" or not (values.ndim == 2 or (values.ndim == 3 and image.mode == "RGB")):
        raise DataError(
            f"{name}: a mask is grey, has a palette or is RGB, and this one is {image.mode}: save it as PNG"
        )
    table = None
    if palette is not None:
        mode, raw = palette.mode, bytes(palette.tobytes())
        size = len(mode)
        if mode in ("RGB", "RGBA") and len(raw) >= size:
            table = np.frombuffer(raw[: len(raw) // size * size], np.uint8).reshape(-1, size)[:, :3]
    return Mask(values, table, kind)


def pages_of(value: Any, most: int | None = None) -> int:
    """The number of pages of a TIFF file; 1 for any other file. Raises DataError naming the file.

    With `most`, no more are counted: a file can hold a million tiny pages.
    """
    if begins(value)[0][:4] not in _TIFF:
        return 1
    if most is not None and most <= PAGES_KEPT:
        check_header(value)
        starts = page_starts(value)
        if starts is not None:
            return min(len(starts), most)

    def count(image: Any) -> int:
        return int(getattr(image, "n_frames", 1)) if most is None else _pages(image, most)

    found: int = _reading(_name(value), value, count, None)
    return found


def _pages(image: Any, most: int) -> int:
    """The number of pages, at most `most`. After a page that is not there, Pillow's own `n_frames` is wrong."""
    image.seek(0)
    for number in range(1, most):
        try:
            image.seek(number)
        except EOFError:
            return number
    return most


def page_starts(value: Any) -> Sequence[int] | None:
    """Where the pages of a TIFF file start, at most PAGES_KEPT; None if the value is no file and no bytes.

    Pillow reads all pages up to the one that is asked for, so reading a stack page by page took quadratic time.
    """
    source = _source(value)
    if isinstance(source, (bytes, bytearray)):
        return _chain(io.BytesIO(source))
    if not isinstance(source, (str, Path)):
        return None
    status = os.stat(source)
    return _starts_of_file(os.fspath(source), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _starts_of_file(path: str, size: int, changed: int) -> Sequence[int]:
    with open(path, "rb") as file:
        return _chain(file)


def _chain(file: BinaryIO) -> Sequence[int]:
    """Follow the pages of a TIFF file: each one ends with the place of the next. A cut or a circle is the end."""
    head = file.read(16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    large = head[2:4] in (b"+\0", b"\0+")  # BigTIFF
    counter, pointer, entry = (8, 8, 20) if large else (2, 4, 12)  # bytes
    at = int.from_bytes(head[8:16] if large else head[4:8], order)
    found, seen = array("Q"), set[int]()
    while 0 < at < 1 << 62 and at not in seen and len(found) < PAGES_KEPT:
        found.append(at)
        seen.add(at)
        file.seek(at)
        entries = int.from_bytes(file.read(counter), order)
        file.seek(at + counter + min(entries, 1 << 32) * entry)
        following = file.read(pointer)
        at = int.from_bytes(following, order) if len(following) == pointer else 0
    return found


def _seek(image: Any, value: Any, page: int) -> None:
    """Go to a page, in a TIFF file without reading those before it. Raises EOFError if it is not there."""
    if image.format == "TIFF" and len(getattr(image, "_frame_pos", ())) == 1 and 0 < page < PAGES_KEPT:
        starts = page_starts(value)
        if starts is not None:
            if page >= len(starts):
                raise EOFError
            image._frame_pos = list(starts[: page + 1])  # Pillow's list of the pages that it knows
    image.seek(page)


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
    """Warn once in a run of TIFF files with several pages, of which only the first is read.

    The headers of up to a hundred files are checked.
    """
    if not hasattr(rows, "column_names") or "page" in rows.column_names:  # each page has a row of its own
        return
    listed = paths(rows)
    tiffs = [place for place, path in enumerate(listed) if path is None or path.lower().endswith((".tif", ".tiff"))]
    tiffs = tiffs[:: max(1, -(-len(tiffs) // PAGES_LOOKED_AT))]
    looked, more, found = 0, 0, []
    for place in tiffs:
        path = listed[place]
        row = rows[place] if path is None else {"id": Path(path).name, "image": path}
        id_, value = str(row["id"]), row["image"]
        if begins(value)[0][:4] not in _TIFF:
            continue
        looked += 1
        try:
            pages = pages_of(value, PAGES_KEPT)
        except DataError:  # it is reported when the row is read for training
            continue
        if pages > 1:
            found.append(id_)
            more += pages - 1
    if found:
        some = ", ".join(map(short, found[:3])) + (f" and {len(found) - 3} more" if found[3:] else "")
        log.warning(
            "%d of %d TIFF files looked at have several pages; only the first is read, and %d pages are not: %s",
            len(found),
            looked,
            more,
            some,
            extra={"once": True},
        )


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes


def advice(suffix: str) -> str:
    """Why images with this suffix cannot be read, and what to do."""
    kind = suffix.lstrip(".").upper()
    how = f"convert them to JPEG or PNG, as with `magick mogrify -format jpg *{suffix}`"
    if suffix in HEIC:
        return f"{kind} images cannot be read without pillow-heif: pip install pillow-heif, or {how}"
    return f"{kind} images cannot be read: {how}"


def _foreign(value: Any) -> str:
    """What to do about an image of a known format that is not read, from its first bytes or its name.

    The text is empty for any other format.
    """
    if not READS_HEIC and _is_heic(value):
        return advice(".heic")
    suffix = begins(value)[1]
    return advice(suffix) if suffix in IMAGES.unread else ""


def _is_heic(value: Any) -> bool:
    start = begins(value)[0]
    return start[4:8] == b"ftyp" and start[8:12] in _BRANDS


_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def save_example(value: Any, folder: Path, name: str) -> str:
    """Write a small copy of an image as the sample `name` of a card. Returns the file's name. Raises DataError."""
    image = read_image(value)
    image.thumbnail((640, 640))
    image.info.clear()  # otherwise comments of the file would be written to the copy
    image.save(folder / f"{name}.jpg", quality=90)
    return f"{name}.jpg"


def thumbnail(value: Any, side: int = 160, white: int | None = None) -> bytes | None:
    """A small JPEG of an image, without metadata; None if the image cannot be read. Tiny images are enlarged."""
    from PIL import Image

    try:
        image = read_image(value, white=white)
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


def _draft(name: str, image: Any, most: int) -> None:
    """Let a JPEG of more than `most` pixels be decoded at a part of its size. Raises DataError for other images."""
    _check_size(name, image.width, image.height, MAX_PIXELS if _shrinks(image) else most)
    if _shrinks(image) and image.width * image.height > most:
        times = next(n for n in (2, 4, 8) if image.width * image.height <= most * n * n or n == 8)
        image.draft(None, (image.width // times, image.height // times))


def _shrinks(image: Any) -> bool:
    """Whether the decoder can give a smaller image without decoding all of it; not for a progressive JPEG."""
    return image.format in ("JPEG", "MPO") and not image.info.get("progressive")


def _open(name: str, value: Any, formats: tuple[str, ...] | None) -> Any:
    from PIL import Image, UnidentifiedImageError

    page = value.get("page") if isinstance(value, dict) else None
    given = value = _source(value)
    if value is None:
        raise DataError(f"{name}: no image here")
    if isinstance(value, (bytes, bytearray)):
        value = io.BytesIO(value)
    elif not isinstance(value, (str, Path)):
        return value.copy()
    try:
        image = Image.open(value, formats=formats)
    except UnidentifiedImageError:
        if not (READS_HEIC and _is_heic(given)):
            raise
        _register_heic()
        image = Image.open(value, formats=formats)
    if image.format == "EPS":  # a program, which Pillow would run with Ghostscript
        image.close()
        raise DataError(f"{name}: PostScript is not read: save it as PNG or JPEG")
    if page:
        try:
            if page < 0:
                raise EOFError
            _seek(image, given, page)
        except EOFError:
            image.close()
            pages = pages_of(given, PAGES_KEPT)
            raise DataError(f"{name}: no page {page + 1}: the file has {pages}") from None
        except Exception:  # many kinds, from the tags of a broken page; `_reading` says why
            image.close()
            raise
    return image


@functools.cache
def _register_heic() -> None:
    """Let Pillow read HEIC; only where such a file is met, because the import takes time."""
    from pillow_heif import register_heif_opener

    register_heif_opener()


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


def _to_rgb(image: Any, image_module: Any, white: int | None) -> Any:
    """Convert an image to RGB; a large one strip by strip, which limits the memory of intermediate copies."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    top, rows = _full_scale(image, white), max(1, STRIP // image.width)
    if image.height <= rows:
        return _strip_to_rgb(image, top, image_module)
    converted = image_module.new("RGB", image.size)
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(start + rows, image.height)))
        converted.paste(_strip_to_rgb(strip, top, image_module), (0, start))
    return converted


def _full_scale(image: Any, white: int | None) -> float | None:
    """The value of white if pixels have more than 8 bits, else None.

    Pillow would turn all values above 255 to white. A 16-bit file has a fixed range, so that one dark photo does not
    become brighter than others; for other modes the range is inferred from the values.
    """
    if image.mode.startswith("I;16"):
        return float(white or FULL)
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    most = np.nan_to_num(np.asarray(image, dtype=np.float32)).max(initial=0)
    return float(white or FULL) if most > 255 else 1.0 if image.mode == "F" and most <= 1 else 255.0


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
LOOKED_AT = 32  # number of images that are checked
RANGES = (1023, 4095, 16383)  # white of detectors of 10, 12 and 14 bits


def warn_if_dark(rows: Any, white: int | None = None, *, option: bool = False) -> None:
    """Warn if images arrive nearly black: detectors write 10 to 14 bits into files of 16 bits, where white is 65,535.

    With `option` the message offers options.white. `white` is its value.
    """
    places = sorted({number * len(rows) // LOOKED_AT for number in range(LOOKED_AT)})
    brightest: list[int] = []  # of 255
    deep: list[int] = []  # the largest values in files of 16 bits
    for place in places:
        value = rows[place]["image"]
        try:
            highest = _reading(_name(value), value, _highest, None)
            brightest.append(max(high for _, high in read_image(value, white=white).getextrema()))
        except DataError:  # reported when the row is read for training
            continue
        deep += [highest] if highest is not None else []
    most = max(deep, default=FULL)
    fitting = next((top for top in RANGES if most <= top), None)
    if fitting is not None and white is None:
        advice = f"set options.white={fitting}, or the value of white in your files" if option else "stretch them"
        log.warning(
            "%d of %d images looked at are files of 16 bits whose values reach %d of 65,535, so they arrive dark: %s",
            len(deep),
            len(brightest),
            most,
            advice,
            extra={"once": True},
        )
    elif brightest and max(brightest) <= DARK:
        log.warning(
            "all of %d images looked at are nearly black: the brightest pixel is %d of 255",
            len(brightest),
            max(brightest),
            extra={"once": True},
        )


def _highest(image: Any) -> int | None:
    """The largest value of an image whose file has 16 bits a pixel; None for other images."""
    return int(image.getextrema()[1]) if image.mode.startswith("I;16") else None


class LabelledImages(Encoding):
    """Rows as examples with `image` (PIL) and `target` float32 [classes].

    An image is decoded when it is indexed, in a worker.

    It warns of labels that the model does not know. Raises DataError if it knows none of them.
    """

    def __init__(self, rows: Any, labels: list[str], multi_label: bool, white: int | None = None) -> None:
        self.rows, self.multi_label, self.white = rows, multi_label, white
        warn_of_pages(rows)
        self.number_of = {label: i for i, label in enumerate(labels)}
        found = {part for label in rows["label"] for part in (several(label) if multi_label else [str(label)])}
        check_known(found, labels)

    @property
    def cache_key(self) -> str:
        return "" if self.white is None else f"white={self.white}"

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
        image = image_of(row, self.white)
        return {"id": row["id"], "row": number, "image": image, "target": target, "true": true}
