"""Images with boxes, in one form for all formats: from what a format finds in its files to rows."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.files import all_files, printable
from pipelines.data.image import boxes
from pipelines.data.image.reading import read_size
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.errors import DataError
from pipelines.utils.formatting import printable as on_a_terminal
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

COLUMNS = {"image": "image", "objects": "boxes"}
SHOWN = 3  # examples of each problem that are named
GROUP = "origin"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")  # a terminal obeys them, and no figure can hold them


class Thing(NamedTuple):
    """One object as its file gives it."""

    box: Any  # x, y, width, height; shares of the image if the format has these
    label: str | None  # None: its class is unknown
    crowd: bool = False
    area: float | None = None
    mask: Any = None  # what `mask_text` gives; polygons as shares of the image if the format has these
    where: str = ""  # its number in its file, for messages
    wrong: str = ""  # why it cannot be used, if the format knows


def mask_text(mask: Any) -> str | None:
    """COCO's segmentation as the text that rows hold; None if there is none, "" if it is broken."""
    if not mask:
        return None
    known = boxes.polygons(mask) if isinstance(mask, list) else boxes.run_lengths(mask)
    return json.dumps(known, separators=(",", ":")) if known is not None else ""


def _wrong_mask(text: str, box: Sequence[float], width: int, height: int) -> str:
    """Why the mask of a box cannot be used; "" if it can."""
    found = json.loads(text) if text else {"size": None}
    if isinstance(found, dict):
        return "" if found["size"] == [height, width] else boxes.NO_MASK
    xs, ys = [x for one in found for x in one[::2]], [y for one in found for y in one[1::2]]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if left == right or top == bottom:
        return boxes.NO_MASK
    apart = right <= box[0] or bottom <= box[1] or left >= box[0] + box[2] or top >= box[1] + box[3]
    return boxes.OTHER_MASK if apart else ""


def plain_text(text: str) -> str:
    """Text that can be written as UTF-8: half of a pair of surrogates becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def class_name(value: Any) -> str | None:
    """The name of a class in one line, without control characters; None if it is no text or number, or empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return _CONTROL.sub("\ufffd", " ".join(plain_text(str(value)).split())) or None


class Annotated(NamedTuple):
    """One image as its file names it."""

    id: str
    path: str | None
    things: Sequence[Thing]
    size: tuple[int, int] | None = None  # width and height in the file of boxes
    wrong: str = ""  # why the image cannot be used, if the format knows
    relative: bool = False  # whether boxes and masks are shares of the image


def check_columns(section: DataSection, columns: Sequence[str], layout: str) -> None:
    """Raise DataError if a task needs other columns than images with boxes."""
    lacking = sorted(set(columns) - COLUMNS.keys())
    if lacking:
        other = {"label": "imagefolder", "text": "captions"}.get(lacking[0])
        advice = f"; to read the images in another way, data.format={other}" if other and not section.format else ""
        raise DataError(
            f"{section.id}: {layout} have boxes and no {lacking[0]}, which this task needs: object-detection learns "
            f"from them{advice}"
        )
    if section.columns:
        raise DataError(f"data.columns: {layout} have no columns: leave it out")


class Files:
    """The images below a folder, found by the path or the name that a file of boxes gives."""

    def __init__(self, root: Path, closed: bool = True) -> None:
        self.root, self._names = root, dict[str, list[str]]()
        self.closed = closed  # whether all images are below the folder

    def find(self, name: Any, places: Sequence[Path]) -> tuple[str | None, str]:
        """The path of an image, and why there is none. `places` are the folders to which `name` may be relative."""
        if not isinstance(name, str) or not name or "\0" in name:
            return None, "its entry names no file"
        name = name.replace("\\", "/")
        plain = os.path.normpath(name)
        if os.path.isabs(plain) or plain.startswith("..") or "://" in name or re.match(r"[A-Za-z]:/", name):
            plain = os.path.basename(plain)  # the path is of another machine, so only the name is used
        for place in map(os.fspath, places):
            path = os.path.join(place, plain)
            if os.path.isfile(path):
                return path, ""
        if not self._names:
            for file in all_files(self.root):
                if file.suffix.lower() in IMAGES.suffixes:
                    self._names.setdefault(file.name, []).append(str(file))
        found = self._names.get(os.path.basename(plain), [])
        found = [path for path in found if path.endswith("/" + plain)] or found
        if len(found) == 1:
            return found[0], ""
        if found:
            return (
                None,
                f"{len(found)} files have the name {on_a_terminal(short(plain, 120))!r}: give the folder with the name",
            )
        return None, f"no such file: {on_a_terminal(short(plain, 120))}"


class Builder:
    """Turns annotated images of several splits into a Source; counts and reports what is wrong with boxes."""

    def __init__(self, section: DataSection, labels: Sequence[str] | None) -> None:
        self.section, self.order = section, boxes.Order()
        self.labels = list(labels) if labels is not None else None
        self.seen: dict[str, None] = {}
        self.found: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.source = Source(splits={})

    def add(self, split: str, images: Iterable[Annotated], key: Any = None) -> None:
        """Add the rows of one split. Raises DataError if it has none."""
        skipped: list[tuple[str, str]] = []
        images = list(images)
        named = origins([one.id for one in images])

        def fill(rows: stored.Rows) -> None:
            rows.types = _types()
            for number, one in enumerate(images):
                try:
                    row = self._row(one)
                except DataError as error:
                    skipped.append((one.id, str(error)))
                    continue
                rows.add({**row, GROUP: named[number]} if named else row)

        rows, _ = stored.table(None, f"reading boxes of {self.section.id}", fill)
        if not len(rows):
            first = f"; the first: {skipped[0][1]}" if skipped else ""
            raise DataError(f"{self.section.id}: none of {len(images)} images of {split} can be used{first}")
        self.source.splits[split], self.source.skipped[split] = rows, skipped
        if named:
            self.source.group = GROUP

    def _row(self, one: Annotated) -> dict[str, Any]:
        name = on_a_terminal(short(one.id, 120))
        if one.wrong or one.path is None:
            raise DataError(f"{name}: {one.wrong or 'no image'}")
        width, height, turned = read_size(one.path)
        stored_size, upright = (width, height), (height, width) if turned > 4 else (width, height)
        turn = 1
        if one.size is not None and one.size != upright:
            if one.size != stored_size:
                raise DataError(
                    f"{name}: its boxes are of an image of {one.size[0]} x {one.size[1]} pixels, and the file has "
                    f"{upright[0]} x {upright[1]}"
                )
            turn = turned  # the boxes are of the image as it is stored
        size = stored_size if turn != 1 else upright
        objects = []
        for number, thing in enumerate(one.things, 1):
            found = self.object(thing, one, size, f"{name}, {thing.where or f'object {number}'}")
            if found is not None:
                objects.append(_turned(found, turn, *stored_size) if turn != 1 else found)
        return {
            "id": one.id,
            "image": {"path": one.path},
            "objects": objects,
            "width": upright[0],
            "height": upright[1],
            "size": os.stat(one.path).st_size,
        }

    def object(self, thing: Thing, one: Annotated, size: tuple[int, int], name: str) -> dict[str, Any] | None:
        """An object as rows hold it; None if it cannot be used, which is counted. `name` is its name in messages."""
        if thing.wrong:
            self.count(thing.wrong, name)
            return None
        if thing.label is None or (self.labels is not None and thing.label not in self.labels):
            self.count(boxes.NO_CLASS, name)
            return None
        box = boxes.numbers(thing.box)
        if box is None:
            self.count(boxes.NUMBERS, name)
            return None
        width, height = size
        mask = thing.mask
        if one.relative:
            self.order.add_share(box)
            box = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
        self.order.add(box, width, height)
        inside, wrong = boxes.checked(box, width, height)
        if wrong:
            self.count(wrong, name)
        if inside is None:
            return None
        area = thing.area if thing.area is not None and 0 < thing.area < 1e12 else inside[2] * inside[3]
        text: str | None = mask
        if one.relative and mask is not None:
            text = mask_text([[v * side for v, side in zip(p, size * (len(p) // 2), strict=True)] for p in mask])
        if text is not None and (why := _wrong_mask(text, inside, width, height)):
            self.count(why, name)
            text = None
        self.seen[thing.label] = None
        return {"box": inside, "label": thing.label, "crowd": thing.crowd, "area": float(area), "mask": text}

    def count(self, what: str, name: str) -> None:
        """Count a problem, with the name of what has it."""
        self.found[what] += 1
        if len(shown := self.examples.setdefault(what, [])) < SHOWN:
            shown.append(name)

    def done(self) -> Source:
        """The source; the problems are warned of. Raises DataError if the boxes are no x, y, width, height."""
        mistake = self.order.mistake()
        if mistake:
            raise DataError(f"{self.section.id}: {mistake}: correct the file that holds them")
        if not self.seen and self.found:
            what, shown = next(iter(self.examples.items()))
            raise DataError(f"{self.section.id}: no box can be used; the first: {shown[0]}: {what}")
        for what, count in self.found.items():
            some = "; ".join(short(printable(name), 120) for name in self.examples[what])
            log.warning("%s: %d %s: %s%s", self.section.id, count, what, some, " ..." if count > SHOWN else "")
            if what != boxes.CLIPPED:  # these are used
                self.source.ignored[what] = count
        self.source.labels = self.labels if self.labels is not None else sorted(self.seen)
        return self.source


def _types() -> "Mapping[str, Any]":
    import pyarrow

    file = pyarrow.struct([("path", pyarrow.string()), ("bytes", pyarrow.binary())])
    return {"image": file, "objects": objects_type(), GROUP: pyarrow.string()}


def objects_type() -> Any:
    """The type of the column `objects`."""
    import pyarrow

    thing = {
        "box": pyarrow.list_(pyarrow.float64()),
        "label": pyarrow.string(),
        "crowd": pyarrow.bool_(),
        "area": pyarrow.float64(),
        "mask": pyarrow.string(),
    }
    return pyarrow.list_(pyarrow.struct(list(thing.items())))


# ---- images that their files turn ----


def _turned(found: dict[str, Any], turn: int, width: int, height: int) -> dict[str, Any]:
    """An object of the stored image as one of the upright image. `turn` is the EXIF orientation."""
    x, y, w, h = found["box"]
    ends = [_point(turn, a, b, width, height) for a, b in ((x, y), (x + w, y + h))]
    left, top = min(a for a, _ in ends), min(b for _, b in ends)
    box = [left, top, max(a for a, _ in ends) - left, max(b for _, b in ends) - top]
    mask = None if found["mask"] is None else turned_mask(json.loads(found["mask"]), turn, width, height)
    return {**found, "box": box, "mask": None if mask is None else json.dumps(mask, separators=(",", ":"))}


def turned_mask(mask: Any, turn: int, width: int, height: int) -> Any:
    """Polygons or run lengths of the stored image as those of the upright image. `turn` is the EXIF orientation."""
    if turn == 1:
        return mask
    if not isinstance(mask, list):
        return _turned_runs(mask, turn)
    turned = []
    for polygon in mask:
        points = [_point(turn, *pair, width, height) for pair in zip(polygon[::2], polygon[1::2], strict=True)]
        turned.append([value for point in points for value in point])
    return turned


def _turned_runs(mask: dict[str, Any], turn: int) -> dict[str, Any]:
    import numpy as np
    from pycocotools import mask as coco

    pixels = coco.decode(mask)
    turns: dict[int, Callable[[Any], Any]] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].T,
        8: np.rot90,
    }
    packed = coco.encode(np.asfortranarray(turns[turn](pixels)))
    return {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}


def _point(turn: int, x: float, y: float, width: int, height: int) -> tuple[float, float]:
    return {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[turn]


# ---- splits and origins ----


def role(name: str) -> str | None:
    """The split that a name contains (instances_val2017 -> validation); None if it contains none, or several."""
    words = re.findall(r"[a-z]+", name.lower())
    found = {split for split, usual in USUAL.items() for word in words if word in usual}
    return found.pop() if len(found) == 1 else None


_ORIGINS = (
    re.compile(r"(.+)\.rf\.[0-9A-Za-z]{6,}"),  # Roboflow's copies of one image
    re.compile(r"(.*?)[_-]?(?:frame|tile|patch|crop)[_-]?\d+(?:[_-]\d+)*"),
    re.compile(r"(.+?)[_-]x[_-]?\d+[_-]y[_-]?\d+"),
    re.compile(r"(.+?)[_-]r(?:ow)?[_-]?\d+[_-]c(?:ol)?[_-]?\d+"),
)


def origin(name: str) -> str | None:
    """The slide of a tile, the video of a frame, the image of Roboflow's copies, by the file's name; None if none."""
    folder, stem = os.path.dirname(name), os.path.splitext(os.path.basename(name))[0]
    for pattern in _ORIGINS:
        match = pattern.fullmatch(stem)
        if match is not None:
            return f"{folder}/{match[1]}"
    return None


def origins(names: Sequence[str]) -> list[str] | None:
    """The origin of every file; None if the names of fewer than half of them tell one, or all have the same."""
    found = [origin(name) for name in names]
    known = set(found) - {None}
    if sum(one is not None for one in found) * 2 < len(found) or not 1 < len(known) < len(found):
        return None
    return [one or name for one, name in zip(found, names, strict=True)]


# ---- columns of hub data sets ----


def with_objects(section: DataSection, rows: "Dataset", source: Source) -> "tuple[Dataset, list[tuple[str, str]]]":
    """Rows of the hub with `objects` in our form, and (id, why) of those that cannot be used.

    The column holds lists, or an object of lists, with `bbox` and `category`, `label` or the like. Corners in place of
    sizes are recognised and turned into sizes, with a warning. Raises DataError.
    """
    import pyarrow

    from pipelines.data.columns import select, values, with_column

    feature = rows.features["objects"]
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, dict) or not (keys := _keys(inner)):
        raise DataError(
            f"{section.id}: column 'objects' holds no boxes with classes but {short(str(feature), 120)}: "
            "name another, data.columns.objects=NAME"
        )
    names = getattr(getattr(inner[keys["label"]], "feature", inner[keys["label"]]), "names", None)
    known = source.labels if source.labels is not None else names
    listed = [_things(cell, keys, names) for cell in values(rows, "objects")]
    files = rows.select_columns("image")
    ids, sizes, wrong = values(rows, "id"), dict[int, tuple[int, int]](), list[tuple[str, str]]()
    order = boxes.Order()
    for number, id_ in enumerate(ids):
        try:
            width, height, turned = read_size(files[number]["image"])
        except DataError as error:
            wrong.append((id_, f"{id_}: {error}"))
            continue
        sizes[number] = (height, width) if turned > 4 else (width, height)
        for thing in listed[number]:
            if (box := boxes.numbers(thing.box)) is not None:
                order.add(box, *sizes[number])
    corners = order.mistake() == boxes.CORNERS
    if corners:
        log.warning("%s: %s: they are read as such", section.id, boxes.CORNERS)
    builder, objects = Builder(section, known), []
    for number, size in sizes.items():
        kept = []
        for place, thing in enumerate(listed[number], 1):
            box = boxes.numbers(thing.box)
            if corners and box is not None:
                thing = thing._replace(box=[box[0], box[1], box[2] - box[0], box[3] - box[1]])
            one = Annotated(ids[number], None, ())
            found = builder.object(thing, one, size, f"{ids[number]}, object {place}")
            kept += [found] if found is not None else []
        objects.append(kept)
    source.labels = builder.done().labels
    for what, count in builder.source.ignored.items():
        source.ignored[what] = source.ignored.get(what, 0) + count
    rows = select(rows.remove_columns("objects"), list(sizes)).flatten_indices() if wrong else rows
    rows = rows.remove_columns([name for name in ("objects", "width", "height") if name in rows.column_names])
    rows = with_column(rows, "objects", pyarrow.array(objects, objects_type()))
    for name, place in (("width", 0), ("height", 1)):
        rows = with_column(rows, name, [size[place] for size in sizes.values()])
    return rows, wrong


_LABELS = ("category", "categories", "label", "labels", "class", "category_id", "class_label", "name")


def _keys(feature: Mapping[str, Any]) -> dict[str, str]:
    """Our names of an object's parts -> the data set's; empty if there are no boxes or no classes."""
    box = next((name for name in ("bbox", "bboxes", "box", "boxes") if name in feature), None)
    label = next((name for name in _LABELS if name in feature), None)
    if box is None or label is None:
        return {}
    crowd = next((name for name in ("iscrowd", "is_crowd", "crowd", "difficult") if name in feature), None)
    mask = "segmentation" if "segmentation" in feature else None
    found = {"box": box, "label": label, "area": "area" if "area" in feature else None, "crowd": crowd, "mask": mask}
    return {own: name for own, name in found.items() if name is not None}


def _things(cell: Any, keys: Mapping[str, str], names: Sequence[str] | None) -> list[Thing]:
    if isinstance(cell, dict):
        columns = {own: cell.get(name) or [] for own, name in keys.items()}
        count = len(columns["box"])
        if any(len(column) not in (0, count) for column in columns.values()) or len(columns["label"]) != count:
            return [Thing(None, None, wrong="objects whose boxes and classes differ in number")]
        listed = [{own: column[place] if column else None for own, column in columns.items()} for place in range(count)]
    else:
        listed = [{own: one.get(name) for own, name in keys.items()} for one in cell or [] if isinstance(one, dict)]
    things = []
    for one in listed:
        label, area = one["label"], one.get("area")
        if names is not None and type(label) is int:
            label = names[label] if 0 <= label < len(names) else None
        things.append(
            Thing(
                one["box"],
                None if label is None else str(label).strip() or None,
                bool(one.get("crowd")),
                float(area) if isinstance(area, (int, float)) else None,
                mask_text(one.get("mask")),
            )
        )
    return things
