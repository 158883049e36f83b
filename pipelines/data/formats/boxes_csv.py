"""Images with a csv of boxes: one row for each box.

    shop/boxes.csv     columns image, x, y, width, height, label, or xmin, ymin, xmax, ymax in place of the sizes
    shop/images/1.jpg

The column of images may also be called file_name, filename or path, and that of classes class or category. `split`
names the split of each row. A row without a box is an image without objects. Open Images' csv is read with its own
names (ImageID, LabelName, XMin, XMax, YMin, YMax as shares of the image, IsGroupOf).
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders
from pipelines.data.formats import _boxes
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError

NAMES = {
    "image": ("image", "file_name", "filename", "image_path", "path", "imageid", "image_id"),
    "label": ("label", "class", "category", "class_name", "labelname", "name"),
    "left": ("xmin", "x_min", "x1", "left"),
    "top": ("ymin", "y_min", "y1", "top"),
    "right": ("xmax", "x_max", "x2", "right"),
    "bottom": ("ymax", "y_max", "y2", "bottom"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "width": ("width", "w", "bbox_width"),
    "height": ("height", "h", "bbox_height"),
    "split": ("split", "set", "subset"),
    "crowd": ("crowd", "iscrowd", "isgroupof", "difficult"),
}
CORNERS, SIZES = ("left", "top", "right", "bottom"), ("x", "y", "width", "height")
_MOST = 1 << 20  # characters of a cell


def detect(path: Path) -> bool:
    """Whether a csv file has columns for images, classes and boxes."""
    return bool(_lists(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_boxes.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the images that csv files of boxes name. Raises DataError."""
    _boxes.check_columns(section, columns, "csv files of boxes")
    path = Path(section.id).expanduser()
    if not path.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    lists = _lists(path)
    if not lists:
        raise DataError(
            f"data.id: {section.id} holds no csv of boxes: it has a column for the image (image), one for the class "
            "(label), and x, y, width, height or xmin, ymin, xmax, ymax"
        )
    root = path if path.is_dir() else path.parent
    files, builder = _boxes.Files(root), _boxes.Builder(section, None)
    names = _class_names(root)
    parts: dict[str, dict[str, list[_boxes.Thing]]] = {}
    relative = False
    for file in lists:
        usual = _boxes.role(file.stem) or (_boxes.role(file.parent.name) if file.parent != root else None) or "train"
        for number, row, open_images in _rows(file):
            relative = relative or open_images
            image = (row.get("image") or "").strip()
            split = _boxes.role(row.get("split") or "") or usual
            things = parts.setdefault(split, {}).setdefault(image, [])
            if any((row.get(name) or "").strip() for name in _four(row)):
                things.append(_thing(row, names, f"line {number} of {file.name}"))
    for split, images in parts.items():
        builder.add(split, _images(root, files, images, relative))
    return builder.done()


def _lists(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".csv" and _head(path) else []
    places = (path, *folders(path))
    return [f for place in places for f in all_files(place, deep=False) if f.suffix.lower() == ".csv" and _head(f)]


def _known(head: Sequence[str]) -> dict[str, int]:
    """Our names of the columns -> their places; empty if boxes, images or classes are missing."""
    lower = [name.strip().lower() for name in head]
    found = {own: lower.index(name) for own, usual in NAMES.items() for name in usual[::-1] if name in lower}
    complete = set(CORNERS) <= found.keys() or set(SIZES) <= found.keys()
    return found if complete and {"image", "label"} <= found.keys() else {}


def _separator(line: str) -> str:
    """The sign between the cells of a line: spreadsheets write semicolons in some countries."""
    return max(",;\t", key=line.count)


def _head(file: Path) -> dict[str, int]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            line = opened.readline(_MOST)
            return _known(next(csv.reader([line], delimiter=_separator(line)), []))
    except (OSError, ValueError, csv.Error):
        return {}


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str], bool]]:
    """The number of the line, the cells by our names, and whether the file is of Open Images."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            start = opened.readline(_MOST)
            opened.seek(0)
            lines = csv.reader(opened, delimiter=_separator(start))
            head = next(lines)
            places = _known(head)
            open_images = {"ImageID", "LabelName", "XMin"} <= set(head)
            for cells in lines:
                if any(cells):
                    row = {name: cells[place] for name, place in places.items() if place < len(cells)}
                    yield lines.line_num, row, open_images
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as csv in UTF-8: {str(error)[:80]}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _class_names(root: Path) -> dict[str, str]:
    """Open Images' codes of classes -> names, if the file with them is there."""
    file = next((f for f in all_files(root) if f.name.lower().startswith("class-descriptions")), None)
    if file is None:
        return {}
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        return {cells[0]: cells[1] for cells in csv.reader(opened) if len(cells) == 2}


def _four(row: dict[str, str]) -> tuple[str, ...]:
    """The columns of the box; next to corners, width and height are those of the image."""
    return CORNERS if all(name in row for name in CORNERS) else SIZES


def _thing(row: dict[str, str], names: dict[str, str], where: str) -> _boxes.Thing:
    label = (row.get("label") or "").strip()
    box: Any = None
    try:
        a, b, c, d = (float(row[name]) for name in _four(row))
        box = [a, b, c - a, d - b] if _four(row) == CORNERS else [a, b, c, d]
    except (ValueError, KeyError):
        pass  # counted as a box without four numbers
    crowd = (row.get("crowd") or "").strip().lower() in ("1", "true")
    return _boxes.Thing(box, _boxes.class_name(names.get(label, label)), crowd, where=where)


def _images(
    root: Path, files: _boxes.Files, images: dict[str, list[_boxes.Thing]], relative: bool
) -> Iterator[_boxes.Annotated]:
    for image, things in images.items():
        # a name without an ending is that of a JPEG in Open Images
        names = [image] if Path(image).suffix.lower() in IMAGES.suffixes else [f"{image}.jpg", f"{image}.png", image]
        tried = [files.find(name if image else None, [root, root / "images"]) for name in names]
        path, wrong = next((one for one in tried if one[0]), tried[0])
        yield _boxes.Annotated(image or "a row without an image", path, things, None, wrong, relative)
