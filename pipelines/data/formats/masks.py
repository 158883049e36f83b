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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
    of_images: bool  # whether its folder has a word for images
    split: str | None  # that the names of its folders tell
    only_words: bool  # whether the name of its folder holds nothing but words for images, masks and splits


class _Found(NamedTuple):
    """What belongs together."""

    masks: dict[str, str]  # image -> mask
    alone: list[str]  # masks without an image
    several: list[tuple[str, str]]  # (mask, further mask) of one image, where nothing says which one counts
    further: list[str]  # masks in another place of images that have one in their own: masks_colour next to masks
    loose: set[str]  # images in a folder of another name, which holds no word for images


def detect(path: Path) -> bool:
    """Whether most masks have an image, and the first of them look like masks.

    Two folders whose files have equal names may be classes, so one of them must be called images. But folders that are
    called images and masks are never classes.
    """
    if not path.is_dir():
        return False
    files = list(islice(_files(path), _MOST))
    found = _pairs(files)
    masks = [mask for image, mask in found.masks.items() if image not in found.loose]
    if masks and len(masks) >= len(found.alone):
        return all(_is_mask(masks[place]) for place in sorted({0, len(masks) // 2, len(masks) - 1}))
    return not found.masks and _meant(files)


def has_masks(path: Path) -> bool:
    """Whether most masks have an image, or folders are called so. A task that needs masks says what is wrong."""
    if not path.is_dir():
        return False
    files = list(islice(_files(path), _MOST))
    found = _pairs(files)
    return bool(found.masks and len(found.masks) >= len(found.alone)) or _meant(files)


def _meant(files: Sequence[_File]) -> bool:
    """Whether all folders are called images, masks or the like."""
    both = any(file.of_masks for file in files) and any(file.of_images for file in files)
    return both and all(file.only_words for file in files)


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
    pairs = _pairs(files)
    found = pairs.masks
    listed, lists = _lists(root, {file.path for file in files})
    if listed:
        found = {image: mask for image, (mask, _) in listed.items()}
    else:
        _check_pairs(section.id, root, files, pairs)
    splits = {file.path: file.split for file in files}
    named = {image: lists.of(root, image) or lists.of(root, mask) for image, mask in found.items()}
    named = named if any(named.values()) else {}
    parts: dict[str, list[_masks.Pair]] = {}
    unlisted: list[str] = []
    for image, mask in sorted(found.items(), key=lambda pair: _natural(pair[0])):
        id_ = Path(os.path.relpath(image, root)).as_posix()
        if named and not named[image]:
            unlisted.append(image)
            continue
        split = listed[image][1] if listed else named.get(image) or splits[image] or splits[mask]
        wrong = "" if printable(id_) == id_ else "its name cannot be printed"
        parts.setdefault(split or "train", []).append(_masks.Pair(id_, image, mask, wrong=wrong))
    source = _masks.source(section, parts, columns)
    further = [*(mask for _, mask in pairs.several), *pairs.further]
    taken = {*found, *found.values()}
    known = {*taken, *pairs.alone, *further}
    for what, left in (
        ("images without a mask", [file.path for file in files if not file.of_masks and file.path not in known]),
        ("masks without an image of the same name", [mask for mask in pairs.alone if mask not in taken]),
        ("masks of an image that has another mask", [mask for mask in further if mask not in taken]),
        ("images that no list of a split names", unlisted),
    ):
        if left:
            source.ignored[f"{what} (the first: {_shown(root, left[0])})"] = len(left)
    folders = dict.fromkeys([root, *(Path(mask).parent for mask in islice(found.values(), 1)), root / "masks"])
    source.mask_names = _masks.class_table(list(folders), {file.stem for file in files})
    if not source.mask_names and _segnet(root, found.values()):
        camvid = all(_CAMVID.fullmatch(Path(image).stem) for image in found)
        values = {**{str(n): name for n, name in enumerate(_CAMVID_CLASSES)}, str(len(_CAMVID_CLASSES)): None}
        source.mask_names = {"values": values} if camvid else {"void": True}
        if camvid and not section.mask_classes:
            log.warning("%s: these are frames of CamVid: values 0 to 10 are its classes, and 11 is ignored", section.id)
    return source


def _shown(root: Path, path: str) -> str:
    return printable(short(Path(os.path.relpath(path, root)).as_posix(), 80))


def _check_pairs(name: str, root: Path, files: Sequence[_File], pairs: _Found) -> None:
    """Raise DataError if no mask has an image, or if many images have several masks."""
    several = len({one for one, _ in pairs.several})
    if several * 4 >= len(pairs.masks) > 0 or (several > 3 and several * 10 > len(pairs.masks)):
        first, second = pairs.several[0]
        one, other = (_shown(root, os.path.dirname(mask)) for mask in (first, second))
        where = f"in {one} and in {other}" if one != other else f"in {one}"
        raise DataError(
            f"{name}: {several:,} images have several masks, {where} ({_shown(root, first)}, {_shown(root, second)}): "
            "one mask is to hold all classes of an image. Merge them, or move the folder or the files that are not to "
            "be learned"
        )
    if pairs.masks:
        return
    masks = [file for file in files if file.of_masks]
    if masks and _objects(files):
        raise DataError(
            f"{name}: each image has a folder of masks, as in {_shown(root, os.path.dirname(masks[0].path))}, and "
            "image-segmentation reads one mask for an image: draw all objects of an image into one mask with its name"
        )
    some = ", ".join(_shown(root, file.path) for file in masks[:2])
    raise DataError(
        f"{name}: no mask has the name of an image{f'; the first masks: {some}' if some else ''}: put images into a "
        "folder `images` and masks of the same names into a folder `masks`, or both into one folder as 1.jpg and "
        "1_mask.png"
    )


def _objects(files: Sequence[_File]) -> bool:
    """Whether each folder of masks has one image, and most have several masks: one for each object (DSB 2018)."""
    images = Counter(file.folder for file in files if not file.of_masks)
    masks = Counter(file.folder for file in files if file.of_masks)
    alone = all(images[folder] == 1 for folder in masks)
    return alone and sum(masks.values()) > len(masks)


def _segnet(root: Path, masks: Any) -> bool:
    """Whether the data are in SegNet's form, in which the last value is that of pixels without a class."""
    names = {Path(mask).parent.name.lower() for mask in masks}
    return (root / "train.txt").is_file() and all(name.endswith("annot") for name in names)


def _natural(name: str) -> list[Any]:
    """2.png comes before 10.png: slices of a volume are in their order."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d{1,12}|\D+", name)]


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
        place, of_masks, of_images, only_words = [], False, False, False
        parts = Path(os.path.relpath(folder, top)).parts
        split = next((split for part in parts if (split := _boxes.role(_unglued(part)))), None)
        for part in parts:
            plain = _unglued(part).lower().replace("ground_truth", "groundtruth").replace("ground truth", "groundtruth")
            words = [word for word in re.split(r"[\s_\-.]+", plain) if word]
            of_masks = of_masks or bool(_MASKS.intersection(words))
            of_images = of_images or bool(_IMAGES.intersection(words))
            kept = "_".join(word for word in words if word not in _MASKS and word not in _IMAGES)
            place += [kept] if kept else []
            here = bool(_MASKS.intersection(words) or _IMAGES.intersection(words))
            # masks/train holds masks, and one folder of masks/cat is one of many
            only_words = (here and (not kept or _boxes.role(kept) is not None)) or (
                only_words and _boxes.role(kept) is not None
            )
        for name in names:
            stem = os.path.splitext(name)[0]
            yield _File(os.path.join(folder, name), tuple(place), stem, of_masks, of_images, split, only_words)


def _pairs(files: Iterable[_File]) -> _Found:
    """Which image a mask belongs to.

    The image in the same place comes first. If there is none, it is the only image of that name, but only if one of
    the two lies in a plain folder (masks/1.png, or images/1.png), or if no mask has an image in its own place. A mask
    never belongs to an image of another split.
    """
    images: dict[tuple[tuple[str, ...], str], str] = {}
    by_name: dict[str, list[_File]] = {}
    masks: list[tuple[_File, list[str]]] = []
    for file in files:
        if file.of_masks:
            masks.append((file, [file.stem, *_bare(file.stem)]))
            continue
        for stem in (file.stem, *([match[1]] if (match := _OF_IMAGE.fullmatch(file.stem)) else [])):
            images.setdefault((file.folder, stem), file.path)
            by_name.setdefault(stem, []).append(file)
        if _bare(file.stem):
            masks.append((file, _bare(file.stem)))
    found = _Found({}, [], [], [], set())
    others: list[tuple[_File, list[str]]] = []
    mirrored = False
    for file, stems in sorted(masks, key=lambda one: not one[0].of_masks):
        own = (images.get((file.folder, stem)) for stem in stems)
        image = next((path for path in own if path is not None and path != file.path), None)
        if image is not None:
            mirrored = mirrored or (file.of_masks and any(part for part in file.folder if _boxes.role(part) is None))
            _add(found, image, file.path)
        elif file.of_masks:
            others.append((file, stems))
    exact = set(found.masks)
    for file, stems in others:
        fitting = next((some[0] for stem in stems if len(some := by_name.get(stem, [])) == 1), None)
        if fitting is None or not _may_be(file, fitting, mirrored):
            found.alone.append(file.path)
            continue
        if fitting.path in exact:
            found.further.append(file.path)
            continue
        _add(found, fitting.path, file.path)
        if not fitting.of_images:
            found.loose.add(fitting.path)
    for image in [image for image in found.masks if image in found.masks.values()]:
        del found.masks[image]
    return found


def _add(found: _Found, image: str, mask: str) -> None:
    if image in found.masks:
        found.several.append((found.masks[image], mask))
    else:
        found.masks[image] = mask


def _may_be(mask: _File, image: _File, mirrored: bool) -> bool:
    """Whether a mask may belong to an image in another place."""
    if mask.split is not None and image.split is not None and mask.split != image.split:
        return False
    of_mask, of_image = ([part for part in one.folder if _boxes.role(part) is None] for one in (mask, image))
    return not of_mask or not of_image or of_mask == of_image or not mirrored


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


class _Lists:
    """The splits of lists with one name in each line: 000, images/000.png, or a path of another machine."""

    def __init__(self) -> None:
        self.own: dict[str, str] = {}
        self.ends: dict[str, str] = {}  # the ends of the paths; "" for one that two splits have

    def add(self, name: str, split: str) -> str | None:
        """Returns the split of another list with the same name, if there is one."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        parts[-1] = _plain(parts[-1])
        own = "/".join(parts)
        other = self.own.setdefault(own, split)
        for at in range(len(parts)):
            end = "/".join(parts[at:])
            self.ends[end] = split if self.ends.get(end, split) == split else ""
        return other if other != split else None

    def of(self, root: Path, path: str) -> str | None:
        """The split of a file; None if no list names it, or if it is not clear which."""
        parts = list(Path(os.path.relpath(path, root)).parts)
        parts[-1] = _plain(parts[-1])
        ends = ("/".join(parts[at:]) for at in range(len(parts)))
        return next((split for end in ends if (split := self.ends.get(end))), None)


def _plain(name: str) -> str:
    """A file's name without the suffix of an image: scan.4 has none."""
    return os.path.splitext(name)[0] if suffix_of(name) in IMAGES.suffixes else name


def _lists(root: Path, files: set[str]) -> tuple[dict[str, tuple[str, str]], _Lists]:
    """By train.txt and the like: image -> (mask, split), from lines with both; and splits, from lines with one name.

    Raises DataError for a list of which no line names two files, and for an image in two lists.
    """
    pairs: dict[str, tuple[str, str]] = {}
    lists = _Lists()
    for name in ("test", "val", "valid", "validation", "train"):
        file = root / f"{name}.txt"
        if not file.is_file() or file.stat().st_size > 64 << 20:
            continue
        split = str(_boxes.role(name))
        lines = [line.split() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
        lines = [words for words in lines if words]
        if all(len(words) == 1 for words in lines):
            for words in lines:
                other = lists.add(words[0], split)
                if other is not None:
                    raise _twice(file, words[0], other)
            continue
        missing: list[str] = []
        for words in lines:
            image, mask = (_below(root, word, files) for word in (words[0], words[-1]))
            if image is None or mask is None:
                missing.append(" ".join(words))
            elif pairs.setdefault(image, (mask, split))[1] != split:
                raise _twice(file, words[0], pairs[image][1])
        if missing:
            some = printable(short(missing[0], 120))
            raise DataError(
                f"{file}: {len(missing)} of {len(lines)} lines name no image and mask here; the first: {some}"
            )
    return pairs, lists


def _twice(file: Path, name: str, other: str) -> DataError:
    shown = printable(short(name, 120))
    return DataError(
        f"{file}: {shown} is also in the list of {other}: scores on images of the training are too good. Name each "
        "image in one list"
    )


def _below(root: Path, name: str, files: set[str]) -> str | None:
    """A file that a list names, also by a path of another machine; None if it is not below the folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ways = (os.path.join(root, *parts[at:]) for at in range(len(parts)))
    return next((way for way in ways if way in files), None)
