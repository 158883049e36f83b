"""Images with boxes or polygons in the text files of YOLO.

    shop/data.yaml   shop/images/train/1.jpg   shop/labels/train/1.txt   shop/images/val/9.jpg   shop/labels/val/9.txt
    shop/data.yaml   shop/train/images/1.jpg   shop/train/labels/1.txt   shop/valid/images/9.jpg
    shop/classes.txt   shop/1.jpg   shop/1.txt

A line is `class x y width height`, with the centre of the box, or `class x1 y1 x2 y2 x3 y3 ...`; all numbers but the
class are shares of the image. `names` in data.yaml, or the lines of classes.txt, are the classes. The folders that
data.yaml names are used if they are in the data; its `download` is never run. An image without a text file, or with an
empty one, has no objects. For label maps, polygons are drawn on a background in their order.
"""

import logging
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _boxes, _masks
from pipelines.data.image import boxes
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short

log = logging.getLogger("graft")

_LOOKED_AT = 20
_LARGEST = 4 << 20  # bytes of a text file
COLUMNS_WRONG = "lines that are neither a box (5 numbers) nor a polygon (7 or more, an odd count)"


def detect(path: Path) -> bool:
    """Whether most of the text files of the first images hold lines of boxes."""
    if not path.is_dir():
        return False
    found = []
    for image in islice((file for file in islice(all_files(path), 2000) if _is_image(file)), _LOOKED_AT):
        text = text_of(image)
        if text is not None:
            try:
                with text.open("rb") as opened:
                    lines = opened.read(4096).decode("utf-8", "replace").splitlines()[:10]
            except OSError:
                continue
            if lines:
                found.append(all(map(_is_line, lines[:-1] or lines)))
    return bool(found) and sum(found) * 2 > len(found)


def has_masks(path: Path) -> bool:
    """The same as `detect`: polygons are drawn to masks."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_boxes.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of images with YOLO's text files. Raises DataError."""
    check = _masks.check_columns if "mask" in columns else _boxes.check_columns
    check(section, columns, "text files of YOLO")
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    names, own = _about(root)
    if names is None:
        raise DataError(
            f"{section.id}: no data.yaml with `names`, and no classes.txt: Graft needs the names of classes"
        )
    builder = _boxes.Builder(section, list(dict.fromkeys(names.values())))
    parts: dict[str, list[Path]] = {}
    for file in all_files(root):
        if _is_image(file):
            parts.setdefault(_split(file.relative_to(root), own), []).append(file)
    if not parts:
        raise DataError(f"{section.id}: no images")
    if "mask" in columns:
        drawn = {split: _images(root, files, names) for split, files in parts.items()}
        return _masks.drawn(section, drawn, columns, builder.labels)
    for split, files in parts.items():
        builder.add(split, _images(root, files, names))
    return builder.done()


def text_of(image: Path) -> Path | None:
    """The text file of an image: next to it, or with the last folder `images` of its path replaced by `labels`."""
    places = [image.parent, image.parent / "labels"]
    parts = image.parent.parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        places.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]))
    return next((text for place in places if (text := place / f"{image.stem}.txt").is_file()), None)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGES.suffixes


def _split(file: Path, own: dict[Path, str]) -> str:
    """The split of an image: that of the folder which data.yaml names, or else by the names of its folders."""
    for folder in file.parents:
        if folder in own:
            return own[folder]
    return next((split for part in file.parent.parts if (split := _boxes.role(part))), "train")


def _about(root: Path) -> tuple[dict[int, str] | None, dict[Path, str]]:
    """What data.yaml or classes.txt says: number -> class, and folder -> split. Raises DataError."""
    import yaml

    listed = sorted(f for f in all_files(root, deep=False) if f.suffix.lower() in (".yaml", ".yml"))
    for file in listed:
        try:
            if file.stat().st_size > _LARGEST:
                continue
            found = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read: {str(error).splitlines()[0][:120]}") from None
        names: Any = found.get("names") if isinstance(found, dict) else None
        if isinstance(names, list) and names:
            names = dict(enumerate(names))
        if isinstance(names, dict) and names:
            return _classes(names, file), _folders(found, file)
    plain = next((p for n in ("classes.txt", "obj.names", "labels/classes.txt") if (p := root / n).is_file()), None)
    if plain is None:
        return None, {}
    lines = plain.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return {number: name for number, line in enumerate(lines) if (name := _boxes.class_name(line))} or None, {}


def _is_line(line: str) -> bool:
    """Whether a line has a class number and at least four more numbers."""
    try:
        first, *others = map(float, line.split())
    except ValueError:
        return False
    return first.is_integer() and first >= 0 and len(others) >= 4


def _classes(names: dict[Any, Any], file: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, value in names.items():
        if type(number) is not int:
            about = type(number).__name__ if isinstance(number, tuple) else short(str(number), 40)
            raise DataError(f"{file}: names: each class has a number, got {about!r}")
        name = _boxes.class_name(value)
        if name is None:  # `no` and `null` are not text in YAML
            about = f"a {type(value).__name__}" if isinstance(value, (list, dict)) else repr(value)
            raise DataError(f"{file}: names: class {number} is {about}: give its name as text, in quotes")
        found[number] = name
    return dict(sorted(found.items()))


def _folders(found: dict[Any, Any], file: Path) -> dict[Path, str]:
    """The folders that data.yaml names for splits. One that is not below its own is warned of, and not read."""
    root, base = file.parent.resolve(), found.get("path")
    own: dict[Path, str] = {}
    for key in ("train", "val", "test"):
        value = found.get(key)
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not name or "\0" in name:
                continue
            # Roboflow writes ../train/images, and means a folder next to the file
            plain = re.sub(r"^(\.\.?/)+", "", name.replace("\\", "/"))
            tried = [root / str(base) / name if isinstance(base, str) else root / name, root / name, root / plain]
            there = [place.resolve() for place in tried if "\0" not in str(place) and place.is_dir()]
            inside = next((p.relative_to(root) for p in there if p != root and p.is_relative_to(root)), None)
            if inside is not None and inside in own:
                log.warning("%s: %s is the folder of %s: its images are used for that only", file, key, own[inside])
            elif inside is not None:
                own[inside] = _boxes.role(key) or key
            else:
                log.warning(
                    "%s: %s: %s is no folder below that of the file: names of folders decide",
                    file,
                    key,
                    printable(short(name, 120)),
                )
    return own


def _images(root: Path, files: list[Path], names: dict[int, str]) -> Iterator[_boxes.Annotated]:
    for image in files:
        id_ = image.relative_to(root).as_posix()
        text = text_of(image)
        things: list[_boxes.Thing] = []
        wrong = ""
        try:
            if text is not None and text.stat().st_size > _LARGEST:
                wrong = f"{text.name} has more than {_LARGEST >> 20} MB"
            elif text is not None:
                lines = text.read_text(encoding="utf-8-sig").splitlines()
                things = [
                    _thing(line, names, f"line {n} of {text.name}") for n, line in enumerate(lines, 1) if line.strip()
                ]
        except UnicodeDecodeError:
            wrong = f"{text} is not UTF-8 text"
        except OSError as error:
            wrong = f"{text}: cannot be read: {error.strerror}"
        yield _boxes.Annotated(id_, str(image), things, None, wrong, relative=True)


def _thing(line: str, names: dict[int, str], where: str) -> _boxes.Thing:
    words = line.split()
    if len(words) < 5 or (len(words) > 5 and len(words) % 2 == 0) or len(words) == 6:
        return _boxes.Thing(None, None, where=where, wrong=COLUMNS_WRONG)
    try:
        number, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return _boxes.Thing(None, None, where=where, wrong=boxes.NUMBERS)
    label = names.get(int(number)) if number.is_integer() else None
    if len(values) == 4:
        x, y, w, h = values
        return _boxes.Thing([x - w / 2, y - h / 2, w, h], label, where=where)
    xs, ys = values[::2], values[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return _boxes.Thing(box, label, mask=[values], where=where)
