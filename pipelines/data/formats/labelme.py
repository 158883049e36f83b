"""Images with polygons and rectangles in the JSON files of LabelMe, one for each image.

    shop/1.jpg   shop/1.json      shop/train/1.jpg   shop/train/1.json   shop/test/9.jpg   shop/test/9.json

Shapes of the types polygon, rectangle and circle are read. Image bytes inside of the JSON (`imageData`) are not.

For label maps, the shapes are drawn on a background in their order. A shape called `__ignore__` is ignored there, and
one called `_background_` cuts a hole.
"""

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _boxes, _masks
from pipelines.data.image import boxes
from pipelines.data.schema import Source
from pipelines.errors import DataError

_LARGEST = 256 << 20  # bytes of a file, which may hold the image
SHAPE = "shapes that are neither polygon, rectangle nor circle"


def detect(path: Path) -> bool:
    """Whether the first JSON files are of LabelMe."""
    if not path.is_dir():
        return False
    found = [_is_labelme(f) for f in islice((f for f in islice(all_files(path), 2000) if _is_json(f)), 5)]
    return bool(found) and sum(found) * 2 > len(found)


def has_masks(path: Path) -> bool:
    """The same as `detect`: shapes are drawn to masks."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_boxes.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of LabelMe's files. Raises DataError."""
    check = _masks.check_columns if "mask" in columns else _boxes.check_columns
    check(section, columns, "files of LabelMe")
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    parts: dict[str, list[Path]] = {}
    for file in all_files(root):
        if _is_json(file):
            split = next((s for part in file.relative_to(root).parent.parts if (s := _boxes.role(part))), "train")
            parts.setdefault(split, []).append(file)
    if not parts:
        raise DataError(f"data.id: {section.id} holds no JSON files")
    files = _boxes.Files(root)
    if "mask" in columns:
        drawn = {split: map(_filled, _images(root, files, some)) for split, some in parts.items()}
        return _masks.drawn(section, drawn, columns, None)
    builder = _boxes.Builder(section, None)
    for split, some in parts.items():
        builder.add(split, _images(root, files, some))
    return builder.done()


def _filled(one: _boxes.Annotated) -> _boxes.Annotated:
    """The image with rectangles as polygons."""

    def filled(thing: _boxes.Thing) -> _boxes.Thing:
        box = boxes.numbers(thing.box)
        if thing.mask is not None or box is None or thing.wrong:
            return thing
        x, y, w, h = box
        return thing._replace(mask=_boxes.mask_text([[x, y, x + w, y, x + w, y + h, x, y + h]]))

    return one._replace(things=[filled(thing) for thing in one.things])


def _is_json(file: Path) -> bool:
    return file.suffix.lower() == ".json"


def _is_labelme(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            start = opened.read(1 << 16)
            opened.seek(max(0, file.stat().st_size - 4096))
            return b'"shapes"' in start and (b'"imagePath"' in start + opened.read())
    except OSError:
        return False


def _images(root: Path, files: _boxes.Files, listed: list[Path]) -> Iterator[_boxes.Annotated]:
    for file in listed:
        id_ = file.relative_to(root).as_posix()
        try:
            if file.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            found = json.loads(file.read_text(encoding="utf-8-sig"))
            shapes = found["shapes"]
            if not isinstance(shapes, list):
                raise ValueError("shapes is no list")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            yield _boxes.Annotated(
                id_, None, (), None, f"no JSON of LabelMe: {type(error).__name__}: {str(error)[:80]}"
            )
            continue
        path, wrong = files.find(found.get("imagePath"), [file.parent])
        width, height = found.get("imageWidth"), found.get("imageHeight")
        size = (width, height) if type(width) is int and type(height) is int else None
        things = [_thing(shape, number) for number, shape in enumerate(shapes, 1)]
        yield _boxes.Annotated(Path(path).relative_to(root).as_posix() if path else id_, path, things, size, wrong)


def _thing(shape: Any, number: int) -> _boxes.Thing:
    where = f"shape {number}"
    shape = shape if isinstance(shape, dict) else {}
    label = _boxes.class_name(shape.get("label"))
    points, kind = shape.get("points"), shape.get("shape_type") or "polygon"
    try:
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        known = bool(xs) and all(map(math.isfinite, (*xs, *ys)))
    except (TypeError, ValueError):
        known = False
    if kind not in ("polygon", "rectangle", "circle"):
        return _boxes.Thing(None, label, where=where, wrong=SHAPE)
    if not known:
        return _boxes.Thing(None, label, where=where, wrong=boxes.NUMBERS)
    if kind == "circle" and len(xs) == 2:
        radius, (x, y) = math.hypot(xs[1] - xs[0], ys[1] - ys[0]), (xs[0], ys[0])
        steps = [2 * math.pi * step / 32 for step in range(32)]
        xs, ys = [x + radius * math.cos(s) for s in steps], [y + radius * math.sin(s) for s in steps]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    flat = [value for point in zip(xs, ys, strict=True) for value in point]
    mask = None if kind == "rectangle" else _boxes.mask_text([flat])
    return _boxes.Thing(box, label, mask=mask, where=where)
