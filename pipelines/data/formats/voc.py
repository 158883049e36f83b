"""Images with boxes in the XML files of Pascal VOC.

    VOC2007/Annotations/1.xml   VOC2007/JPEGImages/1.jpg   VOC2007/ImageSets/Main/trainval.txt   .../test.txt
    VOC2012/SegmentationClass/1.png   VOC2012/ImageSets/Segmentation/train.txt   .../val.txt   for label maps
    shop/train/1.jpg   shop/train/1.xml   shop/test/9.jpg   shop/test/9.xml

The lists train.txt, val.txt and test.txt of `ImageSets/Main` are the splits; without them, names of folders are. Boxes
are corners that count pixels from 1. Objects marked `difficult` are regions that are not scored.

The masks of SegmentationClass hold the background (0) and the 20 classes of Pascal VOC, and 255 is ignored, if the
folder is called VOC2012 or the like or has ImageSets/Segmentation/train.txt. A table of classes in the folder
(class_names.txt, labelmap.txt and the like) takes their place. In folders of other data without one, values are names.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders
from pipelines.data.formats import _boxes, _masks
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import short

log = logging.getLogger("graft")

_LARGEST = 8 << 20  # bytes of a file


def detect(path: Path) -> bool:
    """Whether one of the first XML files holds a box."""
    if not path.is_dir():
        return False
    for file in islice((f for f in islice(all_files(path), 2000) if f.suffix.lower() == ".xml"), 3):
        try:
            with file.open("rb") as opened:
                if b"<bndbox>" in opened.read(1 << 16):
                    return True
        except OSError:
            continue
    return False


def has_masks(path: Path) -> bool:
    """Whether there is a folder SegmentationClass."""
    return path.is_dir() and bool(_mask_folders(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_boxes.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of Pascal VOC's files. Raises DataError."""
    check = _masks.check_columns if "mask" in columns else _boxes.check_columns
    check(section, columns, "files of Pascal VOC")
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    if "mask" in columns:
        return _maps(section, root, columns)
    listed = [file for file in all_files(root) if file.suffix.lower() == ".xml"]
    if not listed:
        raise DataError(f"data.id: {section.id} holds no XML files")
    lists = _lists(root)
    parts: dict[str, list[Path]] = {}
    left = 0
    for file in listed:
        if lists:
            split = lists.get(file.stem)
            left += split is None
        else:
            split = next((s for part in file.relative_to(root).parent.parts if (s := _boxes.role(part))), "train")
        if split is not None:
            parts.setdefault(split, []).append(file)
    builder, files = _boxes.Builder(section, None), _boxes.Files(root)
    for split, some in parts.items():
        builder.add(split, _images(root, files, some))
    source = builder.done()
    if left:
        source.ignored["XML files that no list of ImageSets names"] = left
    return source


CLASSES = (  # of the masks, in the order of their values
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def _mask_folders(root: Path) -> list[Path]:
    """The folders SegmentationClass: VOCdevkit holds one for each year."""
    near = (root, *folders(root), *(inner for child in folders(root) for inner in folders(child)))
    return [place / "SegmentationClass" for place in near if (place / "SegmentationClass").is_dir()]


def _maps(section: DataSection, root: Path, columns: tuple[str, ...]) -> Source:
    """The images with their masks. Raises DataError."""
    found = _mask_folders(root)
    if not found:
        raise DataError(f"data.id: {section.id} holds no folder SegmentationClass with masks")
    table = _masks.class_table([root, *(folder.parent for folder in found)])
    values = {**{str(number): name for number, name in enumerate(CLASSES)}, "255": None}
    own = not table and all(map(_is_voc, found))
    legend = json.dumps({"values": values}, separators=(",", ":")) if own else None
    if own and section.mask_classes is None:
        log.warning(
            "%s: the values of the masks are read as Pascal VOC's classes (0: background, 1: aeroplane, ..., 20: "
            "tvmonitor, 255: ignored). data.mask_classes={VALUE: NAME, ...} names others",
            section.id,
        )
    files, parts = _boxes.Files(root), dict[str, list[_masks.Pair]]()
    left = 0
    for folder in found:
        lists = _lists(folder.parent, "Segmentation")
        for mask in all_files(folder):
            if mask.suffix.lower() not in IMAGES.suffixes:
                continue
            split = lists.get(mask.stem) if lists else _boxes.role(folder.parent.name) or "train"
            if split is None:
                left += 1
                continue
            places = [folder.parent / "JPEGImages", folder.parent / "images", folder.parent]
            names = [f"{mask.stem}{ending}" for ending in (".jpg", ".jpeg", ".png")]
            image = next((str(p / n) for n in names for p in places if (p / n).is_file()), None)
            wrong = "" if image else files.find(names[0], places)[1]
            id_ = Path(os.path.relpath(image or mask, root)).as_posix()
            parts.setdefault(split, []).append(_masks.Pair(id_, image, str(mask), legend, wrong=wrong))
    if not parts:
        raise DataError(f"{section.id}: SegmentationClass holds no mask that a list of ImageSets/Segmentation names")
    source = _masks.source(section, parts, columns)
    source.labels, source.mask_names = (list(CLASSES) if own else None), table
    if left:
        source.ignored["masks that no list of ImageSets names"] = left
    return source


def _is_voc(masks: Path) -> bool:
    """Whether a folder SegmentationClass is that of Pascal VOC: other tools write folders of this name too."""
    year = masks.parent.resolve().name
    return bool(re.fullmatch(r"VOC20\d\d", year)) or (masks.parent / "ImageSets/Segmentation/train.txt").is_file()


def _lists(root: Path, kind: str = "Main") -> dict[str, str]:
    """The name of a file -> its split, by the lists of ImageSets/Main or ImageSets/Segmentation."""
    found: dict[str, str] = {}
    for split in ("test", "val", "train", "trainval"):
        for file in root.glob(f"**/ImageSets/{kind}/{split}.txt"):
            own = {"val": "validation", "trainval": "train"}.get(split, split)
            for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
                if line.strip():
                    found.setdefault(line.split()[0], own)
    return found


def _images(root: Path, files: _boxes.Files, listed: list[Path]) -> Iterator[_boxes.Annotated]:
    for file in listed:
        try:
            found = parsed(file)
        except DataError as error:
            yield _boxes.Annotated(file.relative_to(root).as_posix(), None, (), None, str(error))
            continue
        name = (found.findtext("filename") or "").strip()
        name = name if "." in name else f"{file.stem}.jpg"
        places = [file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images"]
        path, wrong = files.find(name, places)
        if path is None:
            path, _ = files.find(f"{file.stem}.jpg", places)
            wrong = "" if path else wrong
        size = (_number(found.findtext("size/width")), _number(found.findtext("size/height")))
        whole = (int(size[0]), int(size[1])) if size[0] and size[1] else None
        things = [_thing(one, number) for number, one in enumerate(found.findall("object"), 1)]
        id_ = Path(os.path.relpath(path, root)).as_posix() if path else name
        yield _boxes.Annotated(id_, path, things, whole, wrong)


def _thing(one: Any, number: int) -> _boxes.Thing:
    corners = [_number(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = corners
    box = None
    if None not in corners:
        box = [left - 1, top - 1, right - left + (right >= left), bottom - top + (bottom >= top)]
        box = [left - 1, top - 1, right - left, bottom - top] if right <= left or bottom <= top else box
    label = _boxes.class_name(one.findtext("name"))
    return _boxes.Thing(box, label, (one.findtext("difficult") or "").strip() == "1", where=f"object {number}")


def _number(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def parsed(file: Path) -> Any:
    """The root of an XML file. Raises DataError; entities, which can grow without limit, are refused."""
    from xml.etree import ElementTree

    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{file.name} has more than {_LARGEST >> 20} MB")
        data = file.read_bytes()
        if re.search(rb"<!\s*(DOCTYPE|ENTITY)", data, re.IGNORECASE) or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{file.name} has a DOCTYPE or is UTF-16, which are not read: save it as plain UTF-8 XML")
        found = ElementTree.fromstring(data)
        if found.tag != "annotation":
            raise DataError(f"{file.name} has a <{short(str(found.tag), 40)}> and no <annotation> of Pascal VOC")
        return found
    except OSError as error:
        raise DataError(f"{file.name} cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, RecursionError, LookupError) as error:
        raise DataError(f"{file.name} is no complete XML: {str(error)[:80]}") from None
