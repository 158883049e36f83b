"""Images with masks, in one form for all formats: from pairs of files to rows; and tables of classes."""

import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.files import all_files, suffix_of
from pipelines.data.formats import _boxes
from pipelines.data.image import boxes, label_maps
from pipelines.data.image.reading import pages_of, read_size
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short

log = logging.getLogger("graft")

COLUMNS = {"image": "image", "mask": "mask"}
NO_MASK = "objects without a mask that can be read"
NO_CLASS = "objects of an unknown class"
MOST_PAGES = 20_000  # of a TIFF
MOST_CLASSES = 4096  # of a table
_LARGEST = 4 << 20  # bytes of a table of classes
_LINE = 1000  # characters of a line of it


class Pair(NamedTuple):
    """An image with its mask, or its shapes."""

    id: str
    image: str | None
    mask: str | None = None
    legend: str | None = None
    shapes: str | None = None
    classes: str | None = None  # JSON list of the classes that the row shows, if the format knows them
    wrong: str = ""  # why the pair cannot be used, if the format knows


def check_columns(section: DataSection, columns: Sequence[str], layout: str) -> None:
    """Raise DataError if a task needs other columns than images with masks."""
    lacking = sorted(set(columns) - COLUMNS.keys())
    if lacking:
        other = {"label": "imagefolder", "text": "captions"}.get(lacking[0])
        advice = f"; to read the images in another way, data.format={other}" if other and not section.format else ""
        raise DataError(
            f"{section.id}: {layout} have masks and no {lacking[0]}, which this task needs: image-segmentation learns "
            f"from them{advice}"
        )
    if section.columns:
        raise DataError(f"data.columns: {layout} have no columns: leave it out")


def source(section: DataSection, parts: Mapping[str, Iterable[Pair]], columns: Sequence[str]) -> Source:
    """The rows of several splits. Pages of a TIFF are rows of their own. Raises DataError."""
    found = Source(splits={})
    opened: dict[str, list[tuple[Pair, int | None]]] = {}
    for split, given in parts.items():
        pages, skipped = list[tuple[Pair, int | None]](), list[tuple[str, str]]()
        for pair in given:
            try:
                pages += _pages(pair)
            except DataError as error:
                skipped.append((pair.id, str(error)))
        if not pages:
            first = f"; the first: {skipped[0][1]}" if skipped else ""
            raise DataError(f"{section.id}: none of {len(skipped)} images of {split} can be used{first}")
        opened[split], found.skipped[split] = pages, skipped
    stacks = {pair.image for pages in opened.values() for pair, page in pages if page is not None}
    grouped = False
    for split, pages in opened.items():
        names = [pair.id for pair, _ in pages]
        origins = (names if len(stacks) > 1 else None) if stacks else _boxes.origins(names)

        def fill(rows: stored.Rows, pages: Any = pages, origins: Any = origins) -> None:
            rows.types = _types(bool(stacks))
            for number, (pair, page) in enumerate(pages):
                row = _row(pair, page, bool(stacks), "mask" in columns)
                rows.add(row | ({"origin": origins[number]} if origins else {}))

        found.splits[split] = stored.table(None, f"reading masks of {section.id}", fill)[0]
        grouped = grouped or bool(origins)
    if grouped:
        found.group = "origin"
    elif stacks:
        log.warning(
            "%s: all slices are of one stack, so splits are cut slice by slice: neighbours are alike, and scores are "
            "better than on another stack",
            section.id,
        )
    return found


def _pages(pair: Pair) -> list[tuple[Pair, int | None]]:
    """The pair, or each of its pages. Raises DataError."""
    name = printable(short(pair.id, 120))
    if pair.wrong or pair.image is None:
        raise DataError(f"{name}: {pair.wrong or 'no image'}")
    if not pair.image.lower().endswith((".tif", ".tiff")):
        return [(pair, None)]
    pages = pages_of(pair.image, MOST_PAGES + 1)
    own = pages_of(pair.mask, MOST_PAGES + 1) if pair.mask is not None else pages
    if max(pages, own) > MOST_PAGES:
        raise DataError(f"{name}: more than {MOST_PAGES:,} pages, which is the most that is read")
    if pages != own:
        raise DataError(f"{name}: the image has {pages} pages, and its mask {own}: each page needs a mask")
    return [(pair, page) for page in range(pages)] if pages > 1 else [(pair, None)]


def _row(pair: Pair, page: int | None, paged: bool, masks: bool) -> dict[str, Any]:
    at = {"page": page} if paged else {}
    size = os.stat(str(pair.image)).st_size + (os.stat(pair.mask).st_size if pair.mask is not None else 0)
    row = {
        "id": pair.id if page is None else f"{pair.id}#{page + 1}",
        "image": {"path": pair.image, "bytes": None, **at},
        "size": size,
        **at,
    }
    if masks:
        row |= {
            "mask": {"path": pair.mask, "bytes": None, **at},
            "legend": pair.legend,
            "shapes": pair.shapes,
            "classes": pair.classes,
        }
    return row


def _types(paged: bool) -> dict[str, Any]:
    import pyarrow

    text, whole = pyarrow.string(), pyarrow.int32()
    fields = [("path", text), ("bytes", pyarrow.binary()), *([("page", whole)] if paged else [])]
    file = pyarrow.struct(fields)
    return {"image": file, "mask": file, "legend": text, "shapes": text, "classes": text, "origin": text, "page": whole}


# ---- shapes that are drawn ----


def drawn(
    section: DataSection,
    parts: Mapping[str, Iterable[_boxes.Annotated]],
    columns: Sequence[str],
    labels: Sequence[str] | None,
) -> Source:
    """The rows of images whose objects have polygons or run lengths, to be drawn on a background. Raises DataError.

    `labels` are the classes; if it is None, those of the objects, sorted.
    """
    builder = _boxes.Builder(section, labels)
    pairs = {split: [_drawn(one, builder) for one in images] for split, images in parts.items()}
    if not builder.seen:
        what, shown = next(iter(builder.examples.items()), ("objects with a mask", ["none found"]))
        raise DataError(
            f"{section.id}: no object has a mask that can be read, and this task learns masks: give polygons or run "
            f"lengths; the first: {shown[0]}: {what}"
        )
    found = source(section, pairs, columns)
    about = builder.done()
    found.ignored |= about.ignored
    names = [name for name in about.labels or [] if name != label_maps.BACKGROUND]
    found.labels = [label_maps.BACKGROUND, *names]
    return found


def _drawn(one: _boxes.Annotated, builder: _boxes.Builder) -> Pair:
    name = printable(short(one.id, 120))
    if one.wrong or one.path is None:
        return Pair(one.id, None, wrong=one.wrong or "no image")
    try:
        width, height, turned = read_size(one.path)
    except DataError as error:
        return Pair(one.id, None, wrong=str(error).removeprefix(f"{name}: "))
    upright = (height, width) if turned > 4 else (width, height)
    if one.size is not None and one.size != upright and one.size != (width, height):
        wrong = (
            f"its shapes are of an image of {one.size[0]} x {one.size[1]} pixels, and the file has {upright[0]} x "
            f"{upright[1]}"
        )
        return Pair(one.id, None, wrong=wrong)
    turn = turned if one.size is not None and one.size != upright else 1
    shapes: list[dict[str, Any]] = []
    for number, thing in enumerate(one.things, 1):
        where = f"{name}, {thing.where or f'object {number}'}"
        if thing.wrong:
            builder.count(thing.wrong, where)
        elif thing.label is None or (builder.labels is not None and thing.label not in builder.labels):
            builder.count(NO_CLASS, where)
        elif (mask := _mask(thing, one.relative, upright)) is None:
            builder.count(NO_MASK, where)
        elif isinstance(mask, dict) and mask["size"] != [upright[turn == 1], upright[turn != 1]]:
            builder.count(boxes.NO_MASK, where)
        else:
            label = None if thing.label == "__ignore__" else thing.label
            label = label_maps.BACKGROUND if label == "_background_" else label
            if label not in (None, label_maps.BACKGROUND):
                builder.seen[str(label)] = None
            mask = _boxes.turned_mask(mask, turn, width, height)
            shapes.append({"label": label, "segmentation": mask})
    classes = list(dict.fromkeys([label_maps.BACKGROUND, *(str(s["label"]) for s in shapes if s["label"])]))
    return Pair(one.id, one.path, shapes=json.dumps(shapes, separators=(",", ":")), classes=json.dumps(classes))


def _mask(thing: _boxes.Thing, relative: bool, size: tuple[int, int]) -> Any:
    """The polygons or run lengths of an object in pixels; None if it has none that can be read."""
    if relative:
        if thing.mask is None:
            return None
        return boxes.polygons([[v * side for v, side in zip(p, size * (len(p) // 2), strict=True)] for p in thing.mask])
    return json.loads(thing.mask) if thing.mask else None


# ---- tables of classes ----

_TABLES = re.compile(
    r"(class_?dict(_seg)?|class(es|_?names)|class_?colou?rs|labels|label_?names|label_?map|label_?colou?rs|colou?rs|"
    r"colou?r_?map|palette|codes|categories|id2label)\.(csv|txt|tsv|json)",
    re.IGNORECASE,
)


def class_table(folders: Sequence[Path], stems: Collection[str] = ()) -> dict[str, Any]:
    """What a file in one of the folders says of masks: {"names": [...]}, {"values": {...}} or {"colors": {...}}.

    `file` is its name. Empty if there is no such file. `stems` are the names of the images without their suffixes: a
    table whose lines name images is about something else. Raises DataError for a file that cannot be read.
    """
    for folder in folders:
        for file in sorted(all_files(folder, deep=False)) if folder.is_dir() else ():
            if _TABLES.fullmatch(file.name):
                found = _table(file, stems)
                if found:
                    some = found.get("names") or list((found.get("values") or found["colors"]).values())
                    if len(some) > MOST_CLASSES:
                        raise DataError(
                            f"{file}: {len(some):,} classes, at most {MOST_CLASSES:,} are read: leave out those that "
                            "no mask has"
                        )
                    shown = ", ".join(short(str(name or "ignored"), 40) for name in some[:4])
                    log.info("%s names the classes of masks: %s%s", file, shown, ", ..." if some[4:] else "")
                    return {**found, "file": file.name}
    return {}


def _table(file: Path, stems: Collection[str]) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            return {}
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        if file.suffix.lower() == ".json":
            return _of_json(json.loads(text), file)
        return {} if _names_images(text, stems) else _of_lines(text, file)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: no JSON: {str(error)[:80]}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _names_images(text: str, stems: Collection[str]) -> bool:
    """Whether half of the lines hold the name of an image: labels.csv with patients is no list of classes."""
    lines = [line for line in text.splitlines()[:1000] if line.strip()]
    words = [re.split(r"[\s,;]+", line[:_LINE].replace('"', "")) for line in lines]
    # a name of digits may be a value
    named = [any(suffix_of(w) in IMAGES.suffixes or (w in stems and not w.isdigit()) for w in some) for some in words]
    return sum(named) * 2 >= max(1, len(lines))


def _of_json(found: Any, file: Path) -> dict[str, Any]:
    """A list of names, names by value or by colour, or the other way round; empty for anything else."""
    if isinstance(found, dict):
        found = next((found[key] for key in ("id2label", "classes", "labels", "names") if key in found), found)
    if isinstance(found, list) and found and all(name is None or isinstance(name, str) for name in found):
        names = [_boxes.class_name(name) for name in found]
        if None in names:
            raise _empty(file, f"entry {names.index(None) + 1}")
        return {"names": names}
    if isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        if all(type(one.get("number")) is int for one in found):  # classes.json of `graft predict --out masks/`
            return {"values": {str(one["number"]): _boxes.class_name(one.get("name")) for one in found}}
        found = {str(one.get("name")): one.get("color", one.get("colour", one.get("id"))) for one in found}
    if not isinstance(found, dict) or not found:
        return {}
    values: dict[str, str | None] = {}
    colours: dict[str, str | None] = {}
    for key, given in found.items():
        if isinstance(given, list) and len(given) in (3, 4) and all(type(part) is int for part in given):
            colours[",".join(map(str, given[:3]))] = _boxes.class_name(key)
        elif type(given) is int:
            values[str(given)] = _boxes.class_name(key)
        elif isinstance(given, str) and key.strip().isdigit():
            values[str(int(key))] = _boxes.class_name(given)
    return {"colors": colours} if colours else {"values": values} if values else {}


def _empty(file: Path, where: str) -> DataError:
    return DataError(
        f"{file}: {where} is empty, and the place of a class is its value: write `void` for a value that is ignored, "
        "or leave it out if it is no class"
    )


def _of_lines(text: str, file: Path) -> dict[str, Any]:
    """A name in each line, with its value or its colour or without, in any order. Raises DataError.

    If some lines have a value and others none, a number is a part of the name, as in `3 wheeler`.
    """
    lines = [line[:_LINE].strip() for line in text.splitlines()[:65_536]]
    lines = list(dropwhile(lambda line: not line or line.startswith(("#", "//")), lines))
    while lines and not lines[-1]:
        lines.pop()
    parts = [_parts(line) for line in lines if line]
    filled = [line for line in lines if line]
    head = filled[0] if filled else ""
    if parts and not parts[0][0] and all(numbers for numbers, _ in parts[1:]) and _is_header(head, len(parts)):
        parts = parts[1:]
    found = [(numbers, name) for numbers, name in parts if name is not None]
    colours = {
        ",".join(map(str, numbers[-3:])): name
        for numbers, name in found
        if len(numbers) in (3, 4) and max(numbers[-3:]) < 256
    }
    if colours and len(colours) * 2 >= len(found):
        return {"colors": colours}
    plain = [line for line in filled if not line.startswith(("#", "//"))]
    values = [(numbers, name) for (numbers, name), line in zip(map(_parts, plain), plain, strict=True) if name]
    values = values[1:] if values and not values[0][0] and len(parts) < len(filled) else values
    if values and all(len(numbers) == 1 for numbers, _ in values):
        return {"values": {str(numbers[0]): name for numbers, name in values}}
    if "" in lines:
        raise _empty(file, f"line {text[: text.index(head)].count(chr(10)) + lines.index('') + 1}")
    names = [_boxes.class_name(line.strip("\"'")) for line in lines]
    return {"names": names} if names else {}


_HEADS = frozenset(
    (
        *("id", "ids", "idx", "index", "number", "value", "values", "pixel", "code", "train_id", "trainid", "class_id"),
        *("name", "names", "label", "labels", "class", "classes", "category", "class_name", "label_name", "label_id"),
        *("color", "colour", "rgb", "r", "g", "b", "red", "green", "blue"),
    )
)


def _is_header(line: str, lines: int) -> bool:
    """Whether the first line of a table names its columns."""
    return {word for word in re.split(r"[\s,;:]+", line.lower()) if word} <= _HEADS or (
        lines > 2 and re.search(r"[,;\t]", line) is not None
    )


_SIGN = r"[\s,;:=]+"
_FIRST = re.compile(rf"\s*(\d+(?:{_SIGN}\d+){{0,4}}){_SIGN}(.*\D.*)")  # 0 sky; 128,64,128,road
_LAST = re.compile(  # road 128 64 128
    rf"(?:\d+{_SIGN})?(\D.*?[^\s,;:=]){_SIGN}(\d+{_SIGN}\d+{_SIGN}\d+(?:{_SIGN}\d+)?)[\s,;:].*"
)
_VALUE = re.compile(r"(.*?\S)\s*[,;:=\t]\s*(\d+)\s*")  # sky,0


def _parts(line: str) -> tuple[list[int], str | None]:
    """The whole numbers of a line, and its name."""
    line = line.strip()
    first, last, value = _FIRST.fullmatch(line), _LAST.fullmatch(f"{line} "), _VALUE.fullmatch(line)
    numbers, name = "", line
    if last is not None:
        name, numbers = last.groups()
    elif first is not None:
        numbers, name = first.groups()
    elif value is not None:
        name, numbers = value.groups()
    found = [int(number) for number in re.findall(r"\d{1,9}", numbers)]
    return found, _boxes.class_name(name.strip().strip("\"'"))
