"""Images with masks: folders of images and of masks with equal names, or both in one folder.

    cells/images/1.jpg   cells/masks/1.png             scenes/train/images/1.png   scenes/train/labels/1.png
    cells/images/train/1.png   cells/masks/train/1.png   cells/images/test/9.png   cells/masks/test/9.png
    cells/1.jpg   cells/1_mask.png                     street/train/1.png   street/trainannot/1.png   street/train.txt

Folders of masks are called masks, labels, annotations, gt, seg or the like, those of images images, img or the like, or
by no special name. A mask may have an ending such as `_mask`, `_seg` or `_label`. Lists train.txt, val.txt and test.txt
with an image and its mask in each line are the splits (CamVid in SegNet's form); without them, names of folders are. A
mask is grey, has a palette, or is in colour with a table of classes (class_dict.csv, classes.txt, labelmap.txt and the
like); `data.mask_classes` says what its values mean. The pages of two TIFF files are pairs.
"""

import logging
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.data.files import runs, suffix_of
from pipelines.data.formats import _boxes, _masks
from pipelines.data.image.reading import read_mask
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short

log = logging.getLogger("graft")

_MOST = 200_000  # files that decide whether a folder is of this layout
# words in the names of folders
_MASKS = frozenset(
    (
        *(
            "mask",
            "masks",
            "label",
            "labels",
            "annotation",
            "annotations",
            "annot",
            "annots",
            "gt",
            "groundtruth",
            "seg",
        ),
        *("segs", "segm", "segmentation", "segmentations", "segmentationclass", "segmentationclassraw", "labelmap"),
        *("segmentationclasspng", "labelmaps", "target", "targets"),
    )
)
_IMAGES = frozenset(
    (
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "jpegimages", "input", "inputs"),
        *("scans", "frames"),
    )
)
_GLUED = re.compile(r"(train|val|valid|validation|test|eval)(annot|annotations|mask|masks|label|labels|gt|seg)")
_END = re.compile(
    r"(.+?)[_\-. ](mask|masks|seg|segm|segmentation|label|labels|labelids|gt|groundtruth|annotation|annot|l)",
    re.IGNORECASE,
)
_START = re.compile(r"(mask|seg|label|gt)[_\-](.+)", re.IGNORECASE)
_OF_IMAGE = re.compile(r"(.+?)[_\-](image|img|sat|rgb|input)", re.IGNORECASE)
_CAMVID = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
_CAMVID_CLASSES = (  # 11 is void
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)


class _File(NamedTuple):
    path: str
    folder: tuple[str, ...]  # the parts of its folder without the words for images and masks
    stem: str
    of_masks: bool  # whether its folder is one of masks


def detect(path: Path) -> bool:
    """Whether most masks have an image, and the first of them look like masks."""
    masks = _paired(path)
    return bool(masks) and all(_is_mask(masks[place]) for place in sorted({0, len(masks) // 2, len(masks) - 1}))


def has_masks(path: Path) -> bool:
    """Whether most masks have an image. A task that needs masks says what is wrong with them."""
    return bool(_paired(path))


def _paired(path: Path) -> list[str]:
    """The masks of a folder that have an image; empty if most have none."""
    if not path.is_dir():
        return []
    found, left = _pairs(islice(_files(path), _MOST))
    return list(found.values()) if len(found) >= len(left) else []


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_masks.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the pairs of images and masks. Raises DataError."""
    _masks.check_columns(section, columns, "folders of images and masks")
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    files = list(_files(root))
    found, left = _pairs(iter(files))
    listed, lists = _lists(root, {file.path for file in files})
    if listed:
        found = {image: mask for image, (mask, _) in listed.items()}
    if not found:
        raise DataError(
            f"{section.id}: no image with a mask of the same name: put images into a folder `images` and masks into a "
            "folder `masks`, or both into one folder as 1.jpg and 1_mask.png"
        )
    parts: dict[str, list[_masks.Pair]] = {}
    for image, mask in sorted(found.items(), key=lambda pair: _natural(pair[0])):
        id_ = Path(os.path.relpath(image, root)).as_posix()
        split = listed[image][1] if listed else lists.get(Path(image).stem) or _split(id_)
        wrong = "" if printable(id_) == id_ else "its name cannot be printed"
        parts.setdefault(split or "train", []).append(_masks.Pair(id_, image, mask, wrong=wrong))
    source = _masks.source(section, parts, columns)
    taken = {*found, *found.values()}
    for what, count in (
        ("images without a mask", sum(not f.of_masks and f.path not in taken and f.path not in left for f in files)),
        ("masks without an image of the same name, or of an image with another mask", len(set(left) - taken)),
    ):
        if count:
            source.ignored[what] = count
    folders = dict.fromkeys([root, *(Path(mask).parent for mask in islice(found.values(), 1)), root / "masks"])
    source.mask_names = _masks.class_table(list(folders))
    if not source.mask_names and _segnet(root, found.values()):
        camvid = all(_CAMVID.fullmatch(Path(image).stem) for image in found)
        values = {**{str(n): name for n, name in enumerate(_CAMVID_CLASSES)}, str(len(_CAMVID_CLASSES)): None}
        source.mask_names = {"values": values} if camvid else {"void": True}
        if camvid and not section.mask_classes:
            log.warning("%s: these are frames of CamVid: values 0 to 10 are its classes, and 11 is ignored", section.id)
    return source


def _segnet(root: Path, masks: Any) -> bool:
    """Whether the data are in SegNet's form, in which the last value is that of pixels without a class."""
    names = {Path(mask).parent.name.lower() for mask in masks}
    return (root / "train.txt").is_file() and all(name.endswith("annot") for name in names)


def _natural(name: str) -> list[Any]:
    """2.png comes before 10.png: slices of a volume are in their order."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d{1,12}|\D+", name)]


def _split(id_: str) -> str | None:
    """The split that the names of folders tell."""
    return next((split for part in Path(id_).parent.parts if (split := _boxes.role(_unglued(part)))), None)


def _unglued(part: str) -> str:
    match = _GLUED.fullmatch(part.lower())
    return f"{match[1]}_{match[2]}" if match else part


def _files(root: Path) -> Iterator[_File]:
    """The images below a folder, with what the names of their folders say."""
    top = os.fspath(root)
    for folder, entries in runs(root):
        names = [entry.name for entry in entries if suffix_of(entry.name) in IMAGES.suffixes]
        if not names or os.path.basename(folder).lower().startswith("panoptic"):  # segments, which COCO's JSON names
            continue
        place, of_masks = [], False
        for part in Path(os.path.relpath(folder, top)).parts:
            plain = _unglued(part).lower().replace("ground_truth", "groundtruth").replace("ground truth", "groundtruth")
            words = [word for word in re.split(r"[\s_\-.]+", plain) if word]
            of_masks = of_masks or bool(_MASKS.intersection(words))
            kept = "_".join(word for word in words if word not in _MASKS and word not in _IMAGES)
            place += [kept] if kept else []
        for name in names:
            yield _File(os.path.join(folder, name), tuple(place), os.path.splitext(name)[0], of_masks)


def _pairs(files: Iterator[_File]) -> tuple[dict[str, str], list[str]]:
    """Image -> mask, and the masks that are left."""
    images: dict[tuple[tuple[str, ...], str], str] = {}
    by_name: dict[str, list[str]] = {}
    masks: list[tuple[_File, list[str]]] = []
    for file in files:
        if file.of_masks:
            masks.append((file, [file.stem, *_bare(file.stem)]))
            continue
        for stem in (file.stem, *([match[1]] if (match := _OF_IMAGE.fullmatch(file.stem)) else [])):
            images.setdefault((file.folder, stem), file.path)
            by_name.setdefault(stem, []).append(file.path)
        if _bare(file.stem):
            masks.append((file, _bare(file.stem)))
    found: dict[str, str] = {}
    left: list[str] = []
    for file, stems in sorted(masks, key=lambda one: not one[0].of_masks):
        own = [images.get((file.folder, stem)) for stem in stems]
        if file.of_masks and not any(own):
            own = [by_name[stem][0] for stem in stems if len(by_name.get(stem, ())) == 1]
        image = next((path for path in own if path is not None and path != file.path), None)
        if image is not None and image not in found:
            found[image] = file.path
        elif file.of_masks or image is not None:
            left.append(file.path)
    return {image: mask for image, mask in found.items() if image not in found.values()}, left


def _bare(stem: str) -> list[str]:
    """The names of the image that a mask with this name may have."""
    end, start = _END.fullmatch(stem), _START.fullmatch(stem)
    return [*([end[1]] if end else []), *([start[2]] if start else [])]


def _is_mask(path: str) -> bool:
    """Whether a file looks like a mask and not like a photo: few values have nearly all of its pixels."""
    import numpy as np

    from pipelines.data.image import label_maps

    try:
        mask = read_mask(path)
    except DataError:
        return True  # reading it will report why
    plain = label_maps.grey(mask)
    counts = np.unique(label_maps.colour_numbers(mask) if plain is None else plain, return_counts=True)[1]
    return _few(counts) or bool(plain is not None and plain.dtype != np.uint8 and len(counts) <= 256)


def _few(counts: Any) -> bool:
    """Whether 32 values have 95 % of the pixels, or 4 values 80 % (smoothed edges)."""
    most: list[int] = sorted(counts.tolist(), reverse=True)
    return sum(most[:32]) >= 0.95 * sum(most) or sum(most[:4]) >= 0.8 * sum(most)


# ---- lists of pairs ----


def _lists(root: Path, files: set[str]) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """By train.txt and the like: image -> (mask, split), from lines with both; stem -> split, from lines with one name.

    Raises DataError for a list of which no line names two files.
    """
    pairs: dict[str, tuple[str, str]] = {}
    stems: dict[str, str] = {}
    for name in ("test", "val", "valid", "validation", "train"):
        file = root / f"{name}.txt"
        if not file.is_file() or file.stat().st_size > 64 << 20:
            continue
        split = str(_boxes.role(name))
        lines = [line.split() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
        lines = [words for words in lines if words]
        if all(len(words) == 1 for words in lines):
            stems |= {Path(words[0].replace("\\", "/")).stem: split for words in lines}
            continue
        missing: list[str] = []
        for words in lines:
            image, mask = (_below(root, word, files) for word in (words[0], words[-1]))
            if image is None or mask is None:
                missing.append(" ".join(words))
            elif image not in pairs:
                pairs[image] = (mask, split)
        if missing:
            some = printable(short(missing[0], 120))
            raise DataError(
                f"{file}: {len(missing)} of {len(lines)} lines name no image and mask here; the first: {some}"
            )
    return pairs, stems


def _below(root: Path, name: str, files: set[str]) -> str | None:
    """A file that a list names, also by a path of another machine; None if it is not below the folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ways = (os.path.join(root, *parts[at:]) for at in range(len(parts)))
    return next((way for way in ways if way in files), None)
