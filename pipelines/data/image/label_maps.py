"""Label maps: the class of every pixel of an image.

A row has a `mask` (an image whose pixels are values or colours) with a `legend` that gives their classes, or `shapes`
that are drawn. Maps hold the class numbers of `labels`; classes are matched by their names.

    legend: {"values": {"0": "sky", "11": null}}            null: the pixels are ignored
            {"colors": {"128,64,128": "road"}}
            {"segments": {"3226956": "person"}, "things": ["person"], "crowds": [3226956]}      COCO panoptic
            {"background": "background"}                                          of shapes; null: ignored
    shapes: [{"label": "cat", "segmentation": [[x, y, x, y, x, y]]}]    drawn in this order; null: ignored
"""

import base64
import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pipelines.data.columns import distinct
from pipelines.data.encoding import Encoding
from pipelines.data.image import boxes
from pipelines.data.image import run_lengths as runs
from pipelines.data.image.reading import Mask, image_of, read_mask, read_size, upright_size, warn_of_pages
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short

log = logging.getLogger("graft")

IGNORE = -1  # a pixel that no loss and no score counts
BACKGROUND = "background"  # what shapes are drawn on

LOSSY = ("JPEG", "MPO", "WEBP")  # formats that change the values of pixels

_UNKNOWN = -2  # a value that is no class
_VALUES = 1 << 16  # values above it are looked up one by one
_LONGEST = 64 << 20  # characters of a legend or of shapes
_MANY = 8  # unknown values of one mask that look like smoothed edges


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
    height, width = label_map.shape
    values, starts = [], []
    for left in range(0, width, COLUMNS):
        block = label_map[:, left : left + COLUMNS].T.ravel()  # COCO counts column by column
        changes = np.flatnonzero(np.diff(block)) + 1
        places = np.concatenate([[0], changes])
        values.append(block[places])
        starts.append(places + left * height)
    of, start = np.concatenate(values).astype(np.int64), np.concatenate(starts)
    new = np.append(True, of[1:] != of[:-1])  # a run may go on in the next block
    of, start = of[new], start[new]
    end = np.append(start[1:], height * width)
    found = {}
    for number in np.unique(of[of != IGNORE]):
        mine = of == number
        edges = np.stack([start[mine], end[mine]], 1).ravel()  # inside, outside, inside, ...
        found[int(number)] = runs.packed(edges, height, width)
    return found


# ---- legends ----


class Legend(NamedTuple):
    """What the pixels of a mask mean; None in place of a name: they are ignored."""

    values: Mapping[int, str | None]
    colors: Mapping[int, str | None]  # by `colour_number`
    segments: Mapping[int, str | None] | None = None
    things: frozenset[str] = frozenset()
    crowds: frozenset[int] = frozenset()
    background: str | None = BACKGROUND

    @property
    def names(self) -> list[str]:
        """The names of the classes, in order."""
        found = [*self.values.values(), *self.colors.values(), *(self.segments or {}).values()]
        return list(dict.fromkeys(name for name in found if name is not None))


def colour_number(red: int, green: int, blue: int) -> int:
    """A colour as one number, as COCO counts the segments of panoptic masks."""
    return red + 256 * green + 65536 * blue


def colour_text(number: int) -> str:
    """The colour of `colour_number` as "r,g,b"."""
    return f"{number & 255},{number >> 8 & 255},{number >> 16 & 255}"


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_COLOUR = re.compile(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*")


def colour(text: str) -> int | None:
    """The number of a colour that is written as "r,g,b" or "#rrggbb"; None if it is no colour."""
    match = _COLOUR.fullmatch(text)
    if match is not None:
        parts = [int(part) for part in match.groups()]
        return colour_number(*parts) if max(parts) < 256 else None
    if re.fullmatch(r"\s*#[0-9a-fA-F]{6}\s*", text):
        digits = text.strip()[1:]
        return colour_number(*(int(digits[at : at + 2], 16) for at in (0, 2, 4)))
    return None


@lru_cache(maxsize=512)
def legend_of(text: str | None) -> Legend:
    """A legend from its text. Raises DataError."""
    found = _json(text, "legend") if text else {}
    if not isinstance(found, dict):
        raise DataError("its legend is no JSON object")
    try:
        values = {_whole(key): _name(name) for key, name in (found.get("values") or {}).items()}
        colors = {_colour(key): _name(name) for key, name in (found.get("colors") or {}).items()}
        segments = found.get("segments")
        known = None if segments is None else {_whole(key): _name(name) for key, name in segments.items()}
        things = frozenset(str(name) for name in found.get("things") or ())
        crowds = frozenset(_whole(number) for number in found.get("crowds") or ())
        background = _name(found.get("background", BACKGROUND))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"its legend cannot be read: {short(printable(str(error)), 80)}") from None
    return Legend(values, colors, known, things, crowds, background)


def _json(text: str, what: str) -> Any:
    if len(text) > _LONGEST:
        raise DataError(f"its {what} has more than {_LONGEST >> 20} million characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its {what} is no JSON: {str(error)[:80]}") from None


def _whole(key: Any) -> int:
    number = int(key)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"{number} is no value of a pixel")
    return number


def _colour(key: Any) -> int:
    number = colour(str(key))
    if number is None:
        raise ValueError(f"{key} is no colour")
    return number


def _name(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{name} is no name of a class")
    return None if name is None else clean_name(name)


def clean_name(name: str) -> str:
    """The name of a class in one line, without control characters, which a terminal would obey."""
    return _CONTROL.sub("\ufffd", " ".join(name.encode("utf-8", "replace").decode().split()))


def _number(name: str | None, labels: Sequence[str]) -> int:
    return labels.index(name) if name is not None and name in labels else IGNORE


@lru_cache(maxsize=16)
def _table(text: str, labels: tuple[str, ...]) -> np.ndarray:
    """Value 0 .. 65535 -> class number."""
    table = np.full(_VALUES, _UNKNOWN, dtype=np.int16)
    for value, name in legend_of(text).values.items():
        if 0 <= value < _VALUES:
            table[value] = _number(name, labels)
    return table


@lru_cache(maxsize=64)
def _pairs(text: str, labels: tuple[str, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The keys of a legend, sorted, and the class number of each."""
    legend = legend_of(text)
    found: Mapping[int, str | None] = getattr(legend, kind)
    keys = np.array(sorted(found), dtype=np.int64)
    return keys, np.array([_number(found[int(key)], labels) for key in keys], dtype=np.int16)


def _looked_up(numbers: np.ndarray, keys: np.ndarray, classes: np.ndarray) -> np.ndarray:
    if not len(keys):
        return np.full(numbers.shape, _UNKNOWN, dtype=np.int16)
    places = np.searchsorted(keys, numbers).clip(0, len(keys) - 1)
    return np.where(keys[places] == numbers, classes[places], np.int16(_UNKNOWN))


# ---- rows to maps ----


def read_map(row: Mapping[str, Any], labels: Sequence[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """The classes of a row's pixels as int16 [height, width], of the size of the upright image.

    `size` is (width, height) of the image as `read_image` gives it, if it was read before. Raises DataError naming the
    row: a mask of another size, a value that is no class, smoothed edges.
    """
    try:
        return _map(row, tuple(labels), size or upright_size(row["image"]))
    except DataError as error:
        raise _named(row, error) from None


def _named(row: Mapping[str, Any], error: DataError) -> DataError:
    id_ = printable(short(str(row["id"]), 120))
    return error if str(error).startswith(f"{id_}: ") else DataError(f"{id_}: {error}")


def _map(row: Mapping[str, Any], labels: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
    if not _has_mask(row):
        return _drawn(row, labels, size)
    legend = row.get("legend") or ""
    mask = upright(read_mask(row["mask"]), row, size)
    if legend_of(legend).segments is not None:
        numbers = _segment_numbers(mask)
        keys, classes = _pairs(legend, labels, "segments")
        found = np.where(numbers == 0, np.int16(IGNORE), _looked_up(numbers, keys, classes))
        return _checked(found, numbers, "segment", mask.format)
    return _by_legend(mask, legend, labels)


def _has_mask(row: Mapping[str, Any]) -> bool:
    mask = row.get("mask")
    if isinstance(mask, Mapping):
        return mask.get("path") is not None or mask.get("bytes") is not None
    return mask is not None


def _by_legend(mask: Mask, text: str, labels: tuple[str, ...]) -> np.ndarray:
    legend = legend_of(text)
    if legend.colors:
        keys, classes = _pairs(text, labels, "colors")
        numbers = colour_numbers(mask)
        return _checked(_looked_up(numbers, keys, classes), numbers, "colour", mask.format)
    values = grey(mask)
    if values is None:
        raise DataError(
            "the mask is in colour, and its classes are known by values: save the class numbers as a grey PNG, or give "
            'data.mask_classes with colours ("r,g,b")'
        )
    if values.dtype in (np.uint8, np.uint16):
        return _checked(_table(text, labels)[values], values, "value", mask.format)
    keys, classes = _pairs(text, labels, "values")
    return _checked(_looked_up(values, keys, classes), values, "value", mask.format)


def colour_numbers(mask: Mask) -> np.ndarray:
    """The colour of every pixel as its number; -1 for grey above 255, which is no colour."""
    if mask.palette is not None:
        of_index = np.full(256, -1, dtype=np.int32)
        of_index[: len(mask.palette)] = _numbers(mask.palette)
        found: np.ndarray = of_index[mask.values]
        return found
    if mask.values.ndim == 3:
        return _numbers(mask.values)
    wide = mask.values.astype(np.int64)
    return np.where((wide >= 0) & (wide < 256), wide * colour_number(1, 1, 1), -1)


def grey(mask: Mask) -> np.ndarray | None:
    """The values of a mask [height, width]; None if it is in colour. Grey that is stored as RGB is grey."""
    if mask.values.ndim == 2:
        return mask.values
    red, green, blue = (mask.values[..., part] for part in range(3))
    return red if (red == green).all() and (red == blue).all() else None


def _numbers(colours: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as the numbers of `colour_number`."""
    found: np.ndarray = colours[..., 2].astype(np.int32)  # channel by channel: masks may be large
    for channel in (1, 0):
        found <<= 8
        found |= colours[..., channel]
    return found


def _checked(found: np.ndarray, numbers: np.ndarray, what: str, kind: str) -> np.ndarray:
    """The map. Raises DataError if a pixel has no class. `numbers` are the values, colours or segments of the mask."""
    if found.min(initial=0) != _UNKNOWN:
        return found
    odd, counts = np.unique(numbers[found == _UNKNOWN], return_counts=True)
    text = colour_text if what == "colour" else str
    some = ", ".join(text(int(odd[place])) for place in np.argsort(-counts, kind="stable")[:4])
    some += ", ..." if len(odd) > 4 else ""
    raise DataError(unknown(what, len(odd), some, int(counts.sum()) / found.size, kind))


def unknown(what: str, count: int, some: str, share: float, kind: str) -> str:
    """What is wrong with a mask whose values are no classes, and what to do. `kind` is the format of its file."""
    lossy = kind in LOSSY
    if what != "segment" and (lossy or count >= _MANY):
        why = f"as {kind} compression changes them" if lossy else "as smoothed (anti-aliased) edges do"
        return (
            f"the mask has {count:,} {what}{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} no class "
            f"({some}) in {share:.1%} of its pixels, {why}: save masks as PNG, drawn and resized without smoothing"
        )
    if what == "segment":
        return f"the mask has {count:,} segments that its list does not name ({some})"
    return (
        f"the mask has the {what}{'s' if count > 1 else ''} {some} in {share:.1%} of its pixels, which no class has: "
        "name its class with data.mask_classes, or null to ignore these pixels"
    )


# ---- masks of another size, and turned images ----


def upright(mask: Mask, row: Mapping[str, Any], size: tuple[int, int]) -> Mask:
    """The mask, turned like its image if it is of the image as its file stores it."""
    high, wide = mask.values.shape[:2]
    if (wide, high) == size:
        return mask
    turn = _turn(row["image"])
    if turn > 4 and (high, wide) == size:
        return mask._replace(values=turned(mask.values, turn))
    raise DataError(other_size((wide, high), size))


def other_size(mask: tuple[int, int], image: tuple[int, int]) -> str:
    """What is wrong with a mask of another size (width, height) than its image, and what to do."""
    return (
        f"a mask of {mask[0]} x {mask[1]} pixels, and an image of {image[0]} x {image[1]}: a mask has the size of its "
        "image, so resize it without smoothing (nearest), or leave the pair out"
    )


def _turn(image: Any) -> int:
    """The EXIF orientation of an image, 1 if it has none."""
    try:
        return read_size(image)[2]
    except DataError:
        return 1


def turned(values: np.ndarray, turn: int) -> np.ndarray:
    """Pixels as a file stores them, upright by the EXIF orientation `turn`."""
    if turn in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        values = values[:, ::-1]
    if turn in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


# ---- shapes ----


def _drawn(row: Mapping[str, Any], labels: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
    """Shapes drawn one after the other, so a later one covers an earlier one."""
    background = legend_of(row.get("legend") or "").background
    text = row.get("shapes")
    if text is None:
        raise DataError("no mask here, and no shapes")
    shapes = _json(text, "list of shapes")
    if not isinstance(shapes, list):
        raise DataError("its shapes are no JSON list")
    width, height = size
    found = np.full((width, height), _number(background, labels), dtype=np.int16)  # run lengths go down the columns
    for number, shape in enumerate(shapes, 1):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), (str, type(None))):
            raise DataError(f"shape {number} is no object with a label and a segmentation")
        _draw(found, shape.get("segmentation"), _number(shape["label"], labels) if shape.get("label") else IGNORE)
    return np.ascontiguousarray(found.T)


def _draw(found: np.ndarray, segmentation: Any, number: int) -> None:
    """Give the pixels [width, height] of one shape their class. Raises DataError."""
    from pycocotools import mask as coco

    width, height = found.shape
    if isinstance(segmentation, list):
        known = boxes.polygons(segmentation)
        if known is None:
            raise DataError("a shape is no list of polygons with three points or more")
        text = coco.merge(coco.frPyObjects(known, height, width))["counts"].decode("ascii")
    else:
        given = boxes.run_lengths(segmentation)
        if given is None:
            raise DataError("a shape's run lengths are broken")
        if given["size"] != [height, width]:
            raise DataError(other_size((given["size"][1], given["size"][0]), (width, height)))
        text = given["counts"]
    # run by run, because a complete mask for each of a thousand small shapes would take long
    flat, at = found.reshape(-1), 0
    counts = runs.counts(text)
    for place, count in enumerate([] if counts is None else counts.tolist()):
        if place % 2:
            flat[at : at + count] = number
        at += count


# ---- panoptic rows ----


def is_panoptic(row: Mapping[str, Any]) -> bool:
    """Whether the mask of a row numbers segments."""
    text = row.get("legend")
    return bool(text) and legend_of(text).segments is not None


def read_segments(
    row: Mapping[str, Any], labels: Sequence[str], size: tuple[int, int] | None = None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The segments of a panoptic row: int32 [height, width] of 1 .. n (0: none), and for each its class number
    (`label`), and whether it is a `thing` or a `crowd`.

    Raises DataError naming the row.
    """
    try:
        legend = legend_of(row.get("legend") or "")
        if legend.segments is None:
            raise DataError("its mask has no segments")
        mask = upright(read_mask(row["mask"]), row, size or upright_size(row["image"]))
        numbers = _segment_numbers(mask)
        keys = np.array(sorted(key for key in legend.segments if key), dtype=np.int64)
        order = np.arange(1, len(keys) + 1)
        places = np.searchsorted(keys, numbers).clip(0, max(0, len(keys) - 1))
        known = keys[places] == numbers if len(keys) else np.zeros(numbers.shape, dtype=bool)
        lacking = np.unique(numbers[~known & (numbers != 0)])
        if len(lacking):
            some = ", ".join(map(str, lacking[:4].tolist())) + (", ..." if len(lacking) > 4 else "")
            raise DataError(unknown("segment", len(lacking), some, 0.0, mask.format))
        found = np.where(known, order[places] if len(keys) else 0, 0).astype(np.int32)
    except DataError as error:
        raise _named(row, error) from None
    kinds = []
    for key in keys.tolist():
        name = legend.segments[key]
        kinds.append({"label": _number(name, labels), "thing": name in legend.things, "crowd": key in legend.crowds})
    return found, kinds


def _segment_numbers(mask: Mask) -> np.ndarray:
    return mask.values.astype(np.int64) if mask.values.ndim == 2 else _numbers(mask.values)


# ---- examples ----


class LabelMaps(Encoding):
    """Rows as examples with `image` (PIL RGB), `map` int16 [height, width] and `size` (height, width).

    Examples of panoptic rows also have `segments` int32 [height, width], `kinds` int16 [n], the class number of segment
    1 .. n (IGNORE for crowds), and `crowds`, the class number of each segment that is a crowd. Image and mask are
    decoded when they are indexed, in a worker. Pixels of classes that are not in `labels` are ignored.
    """

    def __init__(self, rows: Any, labels: Sequence[str], white: int | None = None) -> None:
        warn_of_pages(rows)
        self.rows, self.labels, self.white = rows, tuple(labels), white
        lacking = [name for name in names_in(rows) if name not in self.labels] if hasattr(rows, "column_names") else []
        if lacking:
            some = ", ".join(map(short, lacking[:4])) + (", ..." if len(lacking) > 4 else "")
            if not set(names_in(rows)) & set(labels):
                known = short(", ".join(labels), 200)
                raise DataError(f"the model knows none of the classes of the masks ({some}), but {known}")
            log.warning(
                "pixels of %d classes that the model does not know are ignored: %s",
                len(lacking),
                some,
                extra={"once": True},
            )

    @property
    def cache_key(self) -> str:
        return f"{list(self.labels)}" + ("" if self.white is None else f" white={self.white}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        row = self.rows[number]
        image = image_of(row, self.white)
        example = {
            "id": row["id"],
            "row": number,
            "image": image,
            "map": read_map(row, self.labels, image.size),
            "size": (image.height, image.width),
        }
        if is_panoptic(row):
            segments, kinds = read_segments(row, self.labels, image.size)
            labels = [IGNORE if kind["crowd"] else kind["label"] for kind in kinds]
            crowds = {number: kind["label"] for number, kind in enumerate(kinds, 1) if kind["crowd"]}
            example |= {"segments": segments, "kinds": np.array(labels, dtype=np.int16), "crowds": crowds}
        return example


def names_in(rows: Any) -> list[str]:
    """The names of all classes of rows: those that the legends give, and those of shapes. Raises DataError."""
    found: dict[str, None] = {}
    for text in distinct(rows, "legend")[0] if "legend" in rows.column_names else ():
        found |= dict.fromkeys(legend_of(text).names if text else ())
    for text in distinct(rows, "classes")[0] if "classes" in rows.column_names else ():
        found |= dict.fromkeys(json.loads(text) if text else ())
    return list(found)
