"""Images with a csv of run lengths, as in Kaggle's competitions: pairs of a first pixel and a count.

    steel/train.csv     columns ImageId, ClassId, EncodedPixels      steel/train_images/0002cc93b.jpg
    salt/train.csv      columns id, rle_mask                         salt/images/000e218f21.png

Pixels count from 1, down the columns. `ImageId_ClassId` holds both in one cell (`0002cc93b.jpg_1`). An empty cell, or
-1, is an image without objects; several rows of an image are drawn in their order. Without a column of classes, the
pixels are `foreground`. Images that no row names are not read.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders, not_among
from pipelines.data.formats import _boxes, _masks
from pipelines.data.image.reading import read_size
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError

RUNS = ("encodedpixels", "rle_mask", "rle", "encoded_pixels", "mask_rle", "run_lengths")
BOTH = ("imageid_classid", "image_label", "image_id_class_id")
IMAGE = ("imageid", "image_id", "img", "image", "id", "filename", "file_name")
CLASS = ("classid", "class_id", "class", "label", "category", "class_name")
FOREGROUND = "foreground"
_MOST = 64 << 20  # characters of a cell


def detect(path: Path) -> bool:
    """Whether a csv file has columns for images and run lengths."""
    return bool(_lists(path))


def has_masks(path: Path) -> bool:
    """The same as `detect`."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_masks.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the images that csv files of run lengths name. Raises DataError."""
    _masks.check_columns(section, columns, "csv files of run lengths")
    path = Path(section.id).expanduser()
    lists = _lists(path) if path.exists() else []
    if not lists:
        raise DataError(
            f"data.id: {section.id} holds no csv of run lengths: it has a column for the image (ImageId) and one for "
            "the run lengths (EncodedPixels)"
        )
    root = path if path.is_dir() else path.parent
    files = _boxes.Files(root)
    names = _masks.class_table([root])
    known = {
        **dict(enumerate(names.get("names", []), 1)),
        **{int(key): name for key, name in names.get("values", {}).items()},
    }
    parts: dict[str, dict[str, list[tuple[str, str, str]]]] = {}
    for file in lists:
        usual = _boxes.role(file.stem) or "train"
        for number, image, label, runs in _rows(file):
            label = str(known.get(int(label), f"class {label}")) if label.isascii() and label.isdigit() else label
            parts.setdefault(usual, {}).setdefault(image, []).append((label, runs, f"line {number} of {file.name}"))
    found: dict[str, list[_boxes.Annotated]] = {split: list(_images(files, some)) for split, some in parts.items()}
    source = _masks.drawn(section, found, columns, None)
    taken = [one.path for some in found.values() for one in some if one.path]
    if others := not_among(root, IMAGES.suffixes, taken):
        source.ignored["images that no row names"] = others
    return source


def _lists(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".csv" and _head(path) else []
    places = (path, *folders(path))
    listed = [f for place in places for f in all_files(place, deep=False) if f.suffix.lower() == ".csv"]
    return [file for file in listed if not file.name.lower().startswith("sample") and _head(file)]


def _known(head: Sequence[str]) -> dict[str, int]:
    """Our names of the columns -> their places; empty if images or run lengths are missing."""
    lower = [name.strip().lower() for name in head]
    kinds = {"runs": RUNS, "both": BOTH, "image": IMAGE, "label": CLASS}
    found = {own: lower.index(name) for own, usual in kinds.items() for name in usual[::-1] if name in lower}
    return found if "runs" in found and ("image" in found or "both" in found) else {}


def _head(file: Path) -> dict[str, int]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            return _known(next(csv.reader([opened.readline(1 << 16)]), []))
    except (OSError, ValueError, csv.Error):
        return {}


def _rows(file: Path) -> Iterator[tuple[int, str, str, str]]:
    """The number of the line, the image, the class and the run lengths of each row. Raises DataError."""
    csv.field_size_limit(_MOST)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = csv.reader(opened)
            places = _known(next(lines))
            for cells in lines:
                row = {name: cells[place].strip() for name, place in places.items() if place < len(cells)}
                if not any(row.values()):
                    continue
                image, label = row.get("image", ""), row.get("label", "")
                if "both" in places:
                    image, _, label = row.get("both", "").rpartition("_")
                yield lines.line_num, image, label or FOREGROUND, row.get("runs", "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as csv in UTF-8: {str(error)[:80]}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _images(files: _boxes.Files, images: dict[str, list[tuple[str, str, str]]]) -> Iterator[_boxes.Annotated]:
    places = [files.root, *folders(files.root)]
    for name, rows in images.items():
        names = [name] if Path(name).suffix.lower() in IMAGES.suffixes else [f"{name}{end}" for end in _ENDINGS]
        tried = [files.find(one if name else None, places) for one in names]
        path, wrong = next((one for one in tried if one[0]), tried[0])
        things: list[_boxes.Thing] = []
        if path is not None:
            try:
                width, height, _ = read_size(path)
                things = [
                    _thing(label, runs, width, height, where) for label, runs, where in rows if runs not in _NOTHING
                ]
            except DataError as error:
                path, wrong = None, str(error)
        yield _boxes.Annotated(name or "a row without an image", path, things, None, wrong)


_ENDINGS = (".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp")
_NOTHING = ("", "-1", "nan", "NaN", "None")


def _thing(label: str, runs: str, width: int, height: int, where: str) -> _boxes.Thing:
    name = _boxes.class_name(label)
    try:
        mask = coco_runs(runs, width, height)
    except ValueError as error:
        return _boxes.Thing(None, name, where=where, wrong=f"run lengths that cannot be read ({error})")
    return _boxes.Thing(None, name, mask=_boxes.mask_text(mask), where=where)


def coco_runs(text: str, width: int, height: int) -> dict[str, Any]:
    """Kaggle's run lengths as COCO's. Raises ValueError."""
    words = text.replace(",", " ").split()
    if len(words) % 2 or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise ValueError("they are no pairs of a first pixel and a count")
    numbers = list(map(int, words))
    counts, at = list[int](), 0  # zeros and ones in turn
    for start, count in sorted(zip(numbers[::2], numbers[1::2], strict=True)):
        first, end = max(start - 1, at), start - 1 + count
        if start < 1 or end > width * height:
            raise ValueError(f"a run leaves its image of {width} x {height} pixels")
        if end <= first:
            continue
        if first == at and counts:
            counts[-1] += end - first
        else:
            counts += [first - at, end - first]
        at = end
    counts.append(width * height - at)
    return {"size": [height, width], "counts": counts}
