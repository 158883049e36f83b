"""Images with boxes and masks in COCO's JSON (`instances_*.json`), also as Roboflow exports it.

    coco/annotations/instances_train2017.json   coco/train2017/1.jpg   coco/val2017/9.jpg
    coco/annotations/panoptic_train2017.json   coco/annotations/panoptic_train2017/1.png   for label maps
    shop/train/_annotations.coco.json   shop/train/1.jpg   shop/valid/_annotations.coco.json   shop/valid/9.jpg
    things/annotations.json   things/images/1.jpg

`file_name` may be relative to the file's folder, to a folder `images` or to that of the split. An image without
annotations has no objects. Objects with `iscrowd` are regions that are not scored.

For label maps, the polygons and run lengths are drawn on a background in the order of the file; a crowd has its class.
The segments of `panoptic_*.json` are read instead if there is such a file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, ends, folders
from pipelines.data.formats import _boxes, _masks
from pipelines.data.image import boxes
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short

_PIECE = 8 << 20  # characters that are read at a time
_MOST = 256 << 20  # characters of one entry


def detect(path: Path) -> bool:
    """Whether there is a JSON file with COCO's keys, and boxes in it."""
    return bool(_lists(path))


def has_masks(path: Path) -> bool:
    """Whether there is a JSON file with COCO's keys, with objects or with segments."""
    return bool(_panoptic_lists(path) or _lists(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_boxes.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of COCO's files. Raises DataError."""
    if "mask" not in columns:
        _boxes.check_columns(section, columns, "files of COCO")
    root = Path(section.id).expanduser()
    if not root.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    if "mask" in columns and (panoptic := _panoptic_lists(root)):
        return _panoptic(section, root, panoptic, columns)
    lists = _lists(root)
    if not lists:
        raise DataError(f"data.id: {section.id} holds no JSON file of COCO with images, annotations and categories")
    files = _boxes.Files(root if root.is_dir() else root.parent, closed=root.is_dir())
    read_ = {split: _Parsed(path) for split, path in lists.items()}
    labels = list(dict.fromkeys(name for one in read_.values() for name in one.labels()))
    if "mask" in columns:
        _masks.check_columns(section, columns, "files of COCO")
        return _masks.drawn(section, {split: one.images(files) for split, one in read_.items()}, columns, labels)
    builder = _boxes.Builder(section, labels)
    for split in list(read_):
        parsed = read_.pop(split)
        builder.add(split, parsed.images(files))
        for thing in parsed.left():
            builder.count(boxes.NO_IMAGE, f"{parsed.path.name}, {thing.where}")
    return builder.done()


def _lists(path: Path) -> dict[str, Path]:
    """Split -> file. The files are in the folder, in `annotations`, or in the folders of the splits."""
    if path.is_file():
        return {"train": path} if path.suffix.lower() == ".json" and _is_coco(path) else {}
    found: list[Path] = []
    for folder in (path, *folders(path)):
        found += [f for f in all_files(folder, deep=False) if f.suffix.lower() == ".json" and _is_coco(f)]
    own = [file for file in found if file.name.startswith("instances")]
    found = own or found
    if len(found) == 1:
        return {_boxes.role(found[0].stem) or _boxes.role(found[0].parent.name) or "train": found[0]}
    named: dict[str, Path] = {}
    for file in found:
        split = _boxes.role(file.stem) or (_boxes.role(file.parent.name) if file.parent != path else None) or file.stem
        if split in named:
            raise DataError(f"{file}: {named[split]} is of the split {split} too: leave one of them")
        named[split] = file
    return named


def _panoptic_lists(path: Path) -> dict[str, Path]:
    """Split -> file with segments."""
    if path.is_file():
        return {"train": path} if path.suffix.lower() == ".json" and b'"segments_info"' in ends(path) else {}
    found: dict[str, Path] = {}
    for folder in (path, *folders(path)):
        for file in all_files(folder, deep=False):
            if file.suffix.lower() == ".json" and (
                file.name.startswith("panoptic") or b'"segments_info"' in ends(file)
            ):
                split = _boxes.role(file.stem) or file.stem
                if split in found:
                    raise DataError(f"{file}: {found[split]} is of the split {split} too: leave one of them")
                found[split] = file
    return (
        {"train": next(iter(found.values()))} if len(found) == 1 and _boxes.role(next(iter(found))) is None else found
    )


def _panoptic(section: DataSection, root: Path, lists: dict[str, Path], columns: tuple[str, ...]) -> Source:
    """Images with the PNG files of their segments. Raises DataError."""
    _masks.check_columns(section, columns, "files of COCO")
    files = _boxes.Files(root if root.is_dir() else root.parent, closed=root.is_dir())
    labels: dict[str, None] = {}
    parts: dict[str, list[_masks.Pair]] = {}
    for split, path in lists.items():
        images: dict[Any, Any] = {}
        names: dict[Any, str] = {}
        things: set[str] = set()
        given: list[dict[str, Any]] = []
        for key, entry in entries(path):
            if key in ("images", "annotations", "categories") and not isinstance(entry, dict):
                raise DataError(f"{path}: {key} is to be a list of objects, got {short(str(entry), 40)!r}")
            if key == "images":
                images[_id(entry.get("id"))] = entry.get("file_name")
            elif key == "categories":
                number, name = _id(entry.get("id")), _boxes.class_name(entry.get("name"))
                if number is None or name is None:
                    about = short(printable(str(entry)), 80)
                    raise DataError(f"{path}: a category has an id and a name, and one of them is {about}")
                names[number] = name
                things |= {name} if entry.get("isthing") else set()
            elif key == "annotations":
                given.append({name: entry.get(name) for name in ("image_id", "file_name", "segments_info")})
        labels |= dict.fromkeys(names.values())
        parts[split] = [_segments(path, one, images, names, things, files) for one in given]
    found = _masks.source(section, parts, columns)
    found.labels = list(labels)
    return found


def _segments(
    path: Path,
    entry: dict[str, Any],
    images: dict[Any, Any],
    names: dict[Any, str],
    things: set[str],
    files: _boxes.Files,
) -> _masks.Pair:
    """One image with its segments."""
    folder, stem = path.parent, path.stem
    part = stem.rpartition("_")[2]
    bases = [folder] if folder == files.root and files.closed else [folder, folder.parent]
    name = images.get(_id(entry["image_id"]))
    image, wrong = files.find(name, [base / sub for base in bases for sub in (part, f"images/{part}", "images", "")])
    mask, lost = files.find(
        entry["file_name"], [base / sub for base in bases for sub in (stem, "panoptic", "masks", "")]
    )
    id_ = _boxes.plain_text(str(name if name is not None else entry["file_name"]))
    info = entry["segments_info"]
    if not isinstance(info, list) or not all(isinstance(one, dict) and type(one.get("id")) is int for one in info):
        return _masks.Pair(id_, None, wrong="its segments_info is no list of segments with ids")
    segments = {str(one["id"]): names.get(_id(one.get("category_id"))) for one in info}
    unknown = next((one["id"] for one in info if segments[str(one["id"])] is None), None)
    if unknown is not None:
        return _masks.Pair(id_, None, wrong=f"segment {unknown} has a category that the file does not list")
    present = list(dict.fromkeys(str(name) for name in segments.values()))
    legend = {
        "segments": segments,
        "things": [name for name in present if name in things],
        "crowds": [one["id"] for one in info if one.get("iscrowd")],
    }
    text = json.dumps(legend, separators=(",", ":"))
    return _masks.Pair(id_, image, mask, text, classes=json.dumps(present), wrong=wrong or lost)


def _is_coco(file: Path) -> bool:
    both = ends(file)
    started = both.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and b'"images"' in both
    return started and (b'"bbox"' in both or b'"segmentation"' in both or b'"categories"' in both)


class _Parsed:
    """The content of one file, with the annotations of each image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.categories: dict[Any, str] = {}
        self.entries: list[dict[str, Any]] = []
        self.things: dict[Any, list[_boxes.Thing]] = {}
        number = 0
        keys = set()
        kept = ("file_name", "width", "height", "id")
        for key, entry in entries(path):
            keys.add(key)
            if key in ("images", "annotations", "categories") and not isinstance(entry, dict):
                raise DataError(f"{path}: {key} is to be a list of objects, got {short(str(entry), 40)!r}")
            if key == "images":
                self.entries.append({name: entry.get(name) for name in kept})
            elif key == "categories":
                self._add_category(entry)
            elif key == "annotations":
                number += 1
                mask, area = entry.get("segmentation"), entry.get("area")
                thing = _boxes.Thing(
                    entry.get("bbox") or _around(mask),
                    _id(entry.get("category_id")),
                    crowd=bool(entry.get("iscrowd")),
                    area=area if isinstance(area, (int, float)) else None,
                    mask=_boxes.mask_text(mask),
                    where=f"annotation {entry.get('id', number)}",
                )
                self.things.setdefault(_id(entry.get("image_id")), []).append(thing)
        lacking = next((key for key in ("images", "annotations", "categories") if key not in keys), None)
        if lacking:
            raise DataError(f"{path}: COCO's JSON has a list {lacking!r}, and this file has none, or an empty one")

    def _add_category(self, entry: dict[str, Any]) -> None:
        number, name = _id(entry.get("id")), _boxes.class_name(entry.get("name"))
        if number is None or name is None:
            about = short(printable(str(entry)), 80)
            raise DataError(f"{self.path}: a category has an id and a name, and one of them is {about}")
        if self.categories.setdefault(number, name) != name:
            names = f"{short(self.categories[number])!r} and {short(name)!r}"
            raise DataError(f"{self.path}: the categories {names} have one id, {number}: give each an id of its own")

    def left(self) -> Iterator[_boxes.Thing]:
        """The objects of images that the file does not list, after `images` listed all."""
        for things in self.things.values():
            yield from things

    def labels(self) -> list[str]:
        """The names of the classes, in the file's order."""
        return list(self.categories.values())

    def images(self, files: _boxes.Files) -> Iterator[_boxes.Annotated]:
        stem, folder = self.path.stem, self.path.parent
        part = stem.rpartition("_")[2]
        above = [] if folder == files.root and files.closed else [folder.parent]
        places = [base / sub for base in (folder, *above) for sub in ("", part, f"images/{part}", "images")]
        known: set[Any] = set()
        named: set[str] = set()
        for entry in self.entries:
            path, wrong = files.find(entry["file_name"], places)
            size = (entry["width"], entry["height"])
            number = _id(entry["id"])
            if number in known:
                wrong = f"its id {number} is that of another image"
            known.add(number)
            things = [one._replace(label=self.categories.get(one.label)) for one in self.things.pop(number, [])]
            name = _boxes.plain_text(str(entry["file_name"]))
            if path is not None and path in named:
                raise DataError(f"{self.path}: two images have the file {short(name, 120)!r}: make them one image")
            named.add(path or "")
            yield _boxes.Annotated(
                f"{self.path.parent.name}/{name}" if stem.startswith("_annotations") else name,
                path,
                things,
                size if all(type(side) is int for side in size) else None,
                wrong,
            )


def _id(value: Any) -> Any:
    """An id, by which 7, 7.0 and "7" are equal; None if it is no number or text."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else _boxes.plain_text(value)
    return value if isinstance(value, int) else None


def _around(mask: Any) -> list[float] | None:
    """The box around polygons."""
    found = boxes.polygons(mask)
    if found is None:
        return None
    xs, ys = [x for one in found for x in one[::2]], [y for one in found for y in one[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


# ---- large JSON ----


def entries(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of the lists in a JSON object, with the list's key, one by one: the file is never complete in memory.

    Values that are no lists are left out. Raises DataError naming the file.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Stream(file).entries()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not complete JSON, or damaged: {str(error)[:80]}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _Stream:
    def __init__(self, file: Any) -> None:
        self.file, self.text, self.at, self.before, self.ended = file, "", 0, 0, False
        self.decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        piece = "" if self.ended else self.file.read(max(_PIECE, len(self.text) - self.at))
        self.ended = not piece
        self.before += self.at
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def next(self) -> str:
        """The next sign that is no space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n":
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def take(self, signs: str) -> str:
        sign = self.next()
        if not sign or sign not in signs:
            raise ValueError(f"{' or '.join(signs)} is missing at character {self.before + self.at}")
        self.at += 1
        return sign

    def value(self) -> Any:
        self.next()
        while True:
            try:
                found, end = self.decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.at = end
                    return found
            except json.JSONDecodeError:
                if self.ended or len(self.text) - self.at > _MOST:
                    raise ValueError(f"an entry ends too early, near character {self.before + self.at}") from None
            self.more()

    def entries(self) -> Iterator[tuple[str, Any]]:
        self.take("{")
        if self.next() == "}":
            return
        sign = ","
        while sign == ",":
            self.next()
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key is missing at character {self.before + self.at}")
            self.take(":")
            if self.next() == "[":
                self.at += 1
                if self.next() == "]":
                    self.at += 1
                    sign = "]"
                else:
                    sign = ","
                while sign == ",":
                    yield key, self.value()
                    sign = self.take(",]")
            else:
                self.value()
            sign = self.take(",}")
