"""ImageNet's own tree (ILSVRC 2012), as its site and Kaggle give it away, and plain folders of synsets.

    ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG   val/ILSVRC2012_val_00000001.JPEG   test/...
    ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml   ILSVRC/ImageSets/CLS-LOC/val.txt
    LOC_synset_mapping.txt   LOC_val_solution.csv                                          of Kaggle
    data/ILSVRC2012_validation_ground_truth.txt   data/meta.mat                            of the development kit
    train/n01440764/...   val/n01440764/...   classes.csv                                  plain folders
    train/n01443537/images/...   val/val_annotations.txt   wnids.txt   words.txt           Tiny ImageNet (CS231n)

The class of a training image is its folder. Images of `val` that are in no class folders get their class from the first
of these: LOC_val_solution.csv, the XML files of Annotations, the development kit's list, val_annotations.txt. The
numbers in the development kit's list are ILSVRC2012_ID, in another order than the classes, so it needs meta.mat. Images
whose class has no folder in `train` are counted and left out, because users often take some of the classes. The images
of `test` have no labels: they are counted.

Folders are recognised only if all of them have names of this layout. If a folder has another name, or a metadata.csv
lists the images, they are read as class folders (`imagefolder`); `data.format: imagenet` reads them nevertheless.

Classes are in the order of their synsets, as in all published models. Their names are those of LOC_synset_mapping.txt
("tench, Tinca tinca", as transformers and timm have them), of meta.mat or of classes.csv (index, synset, name); without
these the synsets. If two synsets have one name, each gets its synset in addition: "crane (n02012849)". ImageNet's
terms allow research and education only. Russakovsky et al. (2015).
"""

import io
import logging
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.files import (
    NOT_UTF8,
    SPLIT_NAMES,
    all_files,
    any_file,
    file_size,
    folders,
    kind_of,
    printable,
    runs,
    suffix_of,
)
from pipelines.data.formats import _audio_lists, _class_folders, _metadata, table, voc
from pipelines.data.media import IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError, MissingColumn
from pipelines.utils import progress
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
MAPPING, SOLUTION, CLASSES = "LOC_synset_mapping.txt", "LOC_val_solution.csv", "classes.csv"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
TINY, TINY_NAMES, TINY_VAL = "wnids.txt", "words.txt", "val/val_annotations.txt"  # of Tiny ImageNet

_SYNSET = re.compile(r"n\d{8}")
_NUMBERED_OF = {part: re.compile(rf"ILSVRC2012_{part}_\d{{8}}") for part in ("val", "test")}
_KITS = ("data", "ILSVRC2012_devkit_t12", "Annotations", "ImageSets")  # folders with lists
_LARGEST = 64 << 20  # bytes of a list
_LONGEST = 300  # characters of a name
_DEPTH = 8  # of structures in meta.mat


def detect(path: Path) -> bool:
    """Whether it is ImageNet's tree, and nothing but that: no other folder, and no list of images of one's own."""
    if not path.is_dir():
        return False
    top = _top(path)
    parts = {name: top / name for name in SPLITS if (top / name).is_dir() and any_file(top / name)}
    if "train" not in parts and "val" not in parts and "validation" not in parts:
        return False
    if any((place / name).is_file() for place in (path, top, *parts.values()) for name in _metadata.LISTS):
        return False
    if _tiny(top):
        return True
    if top == path and not _only_known(path):
        return False
    synsets = {name: _has_synsets(folder) for name, folder in parts.items()}
    loose = [name for name, right in synsets.items() if not right]
    return all(_numbered_images(parts[name], _NUMBERED_OF[name]) for name in loose if name in _NUMBERED_OF) and not (
        set(loose) - set(_NUMBERED_OF)
    )


def _only_known(path: Path) -> bool:
    """Whether a folder holds splits and lists of ImageNet only. Another folder may be a split, a table its labels."""
    if any(child.name not in (*SPLITS, *_KITS) and any_file(child) for child in folders(path)):
        return False
    return not any(
        file.suffix.lower() in IMAGES.suffixes
        or (file.suffix.lower() in table.SUFFIXES and not file.name.startswith("LOC_") and not _names_classes(file))
        for file in all_files(path, deep=False)
    )


def _names_classes(file: Path) -> bool:
    try:
        return file.name == CLASSES and {"synset", "name"} <= set(table.column_names(file))
    except DataError:
        return False


def _numbered_images(folder: Path, name: "re.Pattern[str]") -> bool:
    """Whether a folder holds no folders, and images with ImageNet's names."""
    return not folders(folder) and any(name.match(file.name) for file in islice(all_files(folder, deep=False), 3))


def _tiny(top: Path) -> bool:
    """Whether it is Tiny ImageNet."""
    return (top / TINY).is_file() and (top / TINY_VAL).is_file() and (top / "train").is_dir()


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"image": "image", "label": "label"}


def classes(path: Path) -> list[str]:
    """The names of the classes, in the order of their synsets."""
    top = _top(path)
    found = {child.name for folder in _parts(top).values() for child in folders(folder)}
    return list(_chosen(_Lists(path, top).names(), {one for one in found if _SYNSET.fullmatch(one)}).values())


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of ImageNet's tree. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    lacking = sorted(set(columns) - {"image", "label"})
    if lacking:
        raise DataError(f"{section.id}: ImageNet has images and labels, and no {lacking[0]}, which this task needs")
    if section.columns:
        raise MissingColumn("data.columns: ImageNet's folders have no columns: leave it out")
    if section.group not in (None, "none"):
        raise DataError(f"data.group: ImageNet's folders have no column {section.group!r}: leave it out")
    top = _top(root)
    parts = _parts(top, section)
    if not parts:
        raise DataError(f"data.id: {section.id} holds no folder train or val of ImageNet (ILSVRC/Data/CLS-LOC/train)")
    lists = _Lists(root, top)
    named = lists.names()
    seen = {child.name for folder in parts.values() for child in folders(folder) if _SYNSET.fullmatch(child.name)}
    truth = lists.truth(parts["val"]) if "val" in parts and not _has_synsets(parts["val"]) else None
    trained = {child.name for child in folders(parts["train"])} if "train" in parts else None
    if truth is not None:
        seen |= truth.synsets() if trained is None else truth.synsets() & trained
    unknown = min(seen - set(named), default=None) if named else None
    if unknown is not None:
        raise DataError(f"{section.id}: {unknown} is no class of {lists.named_by}: take it out, or add its name")
    names = _chosen(named, seen)
    source = Source(splits={}, labels=list(names.values()))
    ignored: Counter[str] = Counter()
    for part, folder in parts.items():
        if part == "test" and not _has_synsets(folder):
            count = sum(suffix_of(entry.name) in IMAGES.suffixes for _, run in runs(folder) for entry in run)
            ignored["images of test, which have no labels"] = count
            source.unlabelled.append("test")
            continue
        of_file = truth.synset if truth is not None and part == "val" else None
        split = part if part in (section.train, section.validation, section.test) else SPLITS.get(part, part)
        _warn_of_others(section, folder, of_file is None)
        source.splits[split], source.skipped[split] = _rows(root, folder, names, of_file, ignored, "label" in columns)
        listed = lists.count(part)
        absent = listed - len(source.splits[split]) - len(source.skipped[split])
        if absent > 0:
            ignored[f"images of {split} that ImageSets lists and that are not there"] = absent
    if not source.splits:
        raise DataError(f"{section.id}: only images of test, which have no labels: add train or val")
    source.ignored = {what: count for what, count in ignored.items() if count}
    return source


# ---- folders ----


def _top(root: Path) -> Path:
    """The folder with train and val."""
    for inner in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"):
        if (root / inner).is_dir():
            return root / inner
    return root


def _parts(top: Path, section: DataSection | None = None) -> dict[str, Path]:
    """The folders of splits: those with a split's name, and those that the recipe names."""
    asked = () if section is None else (section.train, section.validation, section.test)
    found = {child.name: child for child in folders(top) if child.name.lower() in SPLIT_NAMES or child.name in asked}
    return dict(sorted(found.items(), key=lambda one: (*SPLITS, one[0]).index(one[0])))


def _has_synsets(folder: Path) -> bool:
    """Whether there are folders in a folder, and all with files are called by synsets."""
    found = [bool(_SYNSET.fullmatch(child.name)) for child in folders(folder) if any_file(child)]
    return bool(found) and all(found)


def _warn_of_others(section: DataSection, folder: Path, by_folder: bool) -> None:
    """Name the class folders that are not called by a synset: they are left out."""
    others = [child.name for child in folders(folder) if not _SYNSET.fullmatch(child.name)] if by_folder else []
    if others:
        log.warning(
            "%s: %d class folders of %s are not called by a synset such as n01440764, and are left out: %s; "
            "data.format=imagefolder reads them",
            section.id,
            len(others),
            folder.name,
            short(", ".join(map(printable, others)), 100),
        )


def _rows(
    root: Path,
    folder: Path,
    names: dict[str, str],
    of_file: "Callable[[str], str] | None",
    ignored: Counter[str],
    labelled: bool,
) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows of a split, and the files that cannot be used (id, why). Raises DataError.

    A class is the name of the folder, or what `of_file` gives for the name of a file. Rows go to the disk as they are
    listed, so memory does not grow with their number.
    """

    def fill(rows: stored.Rows) -> list[tuple[str, str]]:
        import pyarrow

        rows.types = {"image": pyarrow.struct({"path": pyarrow.string(), "bytes": pyarrow.binary()})}
        skipped: list[tuple[str, str]] = []
        empty = {child.name for child in folders(folder)} if of_file is None else set()
        with progress.preparing("listing images") as report:
            for where, entries in runs(folder):
                place = Path(where)
                inner = place.relative_to(folder).parts
                synset = inner[0] if inner else ""
                near, own = f"{place.relative_to(root).as_posix()}/", f"{where.rstrip('/')}/"
                empty.discard(synset)
                if of_file is None and synset and not _SYNSET.fullmatch(synset):
                    ignored["files in folders that are not called by a synset"] += len(entries)
                    continue
                odd = printable(own) != own
                for entry in entries:
                    name = entry.name
                    if (suffix := suffix_of(name)) not in IMAGES.suffixes:
                        if suffix not in IMAGES.unread:
                            ignored[kind_of(Path(name))] += 1
                            continue
                        why, size = _class_folders.unread(IMAGES, suffix), 0
                    elif odd or (not name.isascii() and printable(name) != name):
                        why, size = NOT_UTF8, 0
                    elif of_file is None and not synset:
                        why, size = "in no class folder", 0
                    else:
                        why, size = file_size(entry)
                    label = synset
                    if not why and of_file is not None:
                        try:
                            label = of_file(os.path.splitext(name)[0])
                        except DataError as error:
                            why = str(error)
                    if not why and label not in names:
                        ignored[f"images of {folder.name} of classes that train does not have"] += 1
                        continue
                    if why:
                        skipped.append((printable(near + name), f"{printable(own + name)}: {why}"))
                        continue
                    row = {"id": near + name, "image": {"path": own + name, "bytes": None}}
                    rows.add({**row, "label": names[label], "size": size} if labelled else {**row, "size": size})
                report(len(entries))
        if empty and folder.name == "train" and labelled:
            raise DataError(f"{folder / min(empty)}: an empty class folder: add images, or remove it")
        return skipped

    table, skipped = stored.table(None, f"listing {folder.name}", fill)
    if not len(table):
        first = f"; the first: {skipped[0][1]}" if skipped else ""
        raise DataError(f"{folder}: no images in folders of synsets ({len(skipped)} files skipped{first})")
    return table, skipped


# ---- lists ----


class _Truth:
    """The synset of each image of `val`."""

    def __init__(self, path: Path, of: dict[str, str], wrong: dict[str, str] | None = None) -> None:
        self.path, self.of, self.wrong = path, of, wrong or {}

    def synsets(self) -> set[str]:
        return set(self.of.values())

    def synset(self, stem: str) -> str:
        """The synset of the image with this name. Raises DataError."""
        found = self.of.get(stem)
        if found is None:
            raise DataError(self.wrong.get(stem, f"{self.path.name} does not say its class"))
        return found


class _Lists:
    """The lists that lie near the images: in the folder, above ILSVRC/Data/CLS-LOC, or in the development kit's."""

    def __init__(self, root: Path, top: Path) -> None:
        near, place = [root, top, root / "ILSVRC"], top.absolute()
        while place.name in _LEVELS:
            place = place.parent
            near.append(place)
        kits = ("data", "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/data")
        self.places = list(dict.fromkeys([*near, *(one / kit for one in near for kit in kits)]))
        self.tiny = _tiny(top)
        self.named_by = ""

    def _find(self, name: str) -> Path | None:
        return next((found for place in self.places if (found := place / name).exists()), None)

    def names(self) -> dict[str, str]:
        """Synset -> name; empty if no list names them. Raises DataError."""
        if self.tiny:
            words = self._find(TINY_NAMES)
            self.named_by = TINY_NAMES
            return {} if words is None else _of_mapping(words, "\t")
        for name, reader in ((MAPPING, _of_mapping), (META, _of_meta), (CLASSES, _of_table)):
            path = self._find(name)
            if path is not None and (found := reader(path)):
                self.named_by = name
                return found
        return {}

    def truth(self, val: Path) -> _Truth:
        """The classes of images that are in no class folders. Raises DataError."""
        if self.tiny:
            return _Truth(val / Path(TINY_VAL).name, _boxed(val / Path(TINY_VAL).name))
        solution = self._find(SOLUTION)
        if solution is not None:
            return _Truth(solution, _solutions(solution))
        boxes = self._find("Annotations/CLS-LOC/val")
        if boxes is not None:
            return _Truth(boxes, *_annotated(boxes))
        truth = self._find(TRUTH)
        if truth is not None:
            meta = self._find(META)
            if meta is None:
                raise DataError(
                    f"{truth}: its numbers are ILSVRC2012_ID, which are in another order than the classes: put "
                    f"{META} of the development kit next to it"
                )
            return _Truth(truth, _numbered(truth, meta))
        raise DataError(
            f"{val}: images in no class folders, and no list of their classes: put {SOLUTION} next to ILSVRC, or the "
            f"development kit's data/{TRUTH} with data/{META}, or sort the images into folders of synsets"
        )

    def count(self, part: str) -> int:
        """How many images ImageSets lists for a part; 0 if there is no list."""
        path = self._find(f"ImageSets/CLS-LOC/{'train_cls' if part == 'train' else part}.txt")
        if path is None:
            return 0
        try:
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


_LEVELS = ("CLS-LOC", "Data", "ILSVRC")


def _checked(path: Path) -> Path:
    """The path of a list that is not too large. Raises DataError."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if size > _LARGEST:
        raise DataError(f"{path}: more than {_LARGEST >> 20} MB, and no list of ImageNet")
    return path


def _of_mapping(path: Path, between: str = " ") -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_audio_lists.lines(_checked(path)), 1):
        if not line.strip():
            continue
        synset, _, name = line.strip().partition(between)
        _add_name(found, f"{path}:{number}", synset, name)
    return found


def _of_table(path: Path) -> dict[str, str]:
    """The names of classes.csv; none if it has other columns, and is another list."""
    try:
        rows, wrong = _audio_lists.listed(_checked(path), ("synset", "name"))
    except MissingColumn:
        return {}
    if wrong:
        raise DataError(wrong[0][1])
    found: dict[str, str] = {}
    for where, cells in rows:
        _add_name(found, f"{path.parent}/{where}", cells["synset"], cells["name"])
    return found


def _add_name(found: dict[str, str], where: str, synset: str, name: str) -> None:
    """Add the name of a synset. Raises DataError."""
    if not _SYNSET.fullmatch(synset):
        raise DataError(f"{where}: {short(repr(synset), 40)} is no synset such as n01440764")
    if synset in found:
        raise DataError(f"{where}: {synset} a second time")
    name = " ".join(name.split())
    if len(name) > _LONGEST:
        raise DataError(f"{where}: a name of {len(name):,} characters")
    found[synset] = name or synset


def _chosen(named: dict[str, str], synsets: set[str]) -> dict[str, str]:
    """The names of these synsets, in their order; a name that the list gives to two synsets gets its synset, too."""
    often = Counter(named.values())
    names = {synset: named.get(synset, synset) for synset in sorted(synsets)}
    return {synset: name if often[name] < 2 else f"{name} ({synset})" for synset, name in names.items()}


def _solutions(path: Path) -> dict[str, str]:
    """The synset of each image in Kaggle's list. Raises DataError."""
    rows, wrong = _audio_lists.listed(_checked(path), ("ImageId", "PredictionString"))
    if wrong:
        raise DataError(wrong[0][1])
    found = {}
    for where, cells in rows:
        words = cells["PredictionString"].split()
        if not words or not _SYNSET.fullmatch(words[0]):
            said = short(repr(cells["PredictionString"]), 40)
            raise DataError(f"{path.parent}/{where}: {said} does not begin with a synset such as n01440764")
        found[cells["ImageId"]] = words[0]
    return found


def _boxed(path: Path) -> dict[str, str]:
    """The synset of each image of Tiny ImageNet's val: val_0.JPEG, synset and a box, with tabs. Raises DataError."""
    found = {}
    for number, line in enumerate(_audio_lists.lines(_checked(path)), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        synset = rest.partition("\t")[0].strip()
        if not _SYNSET.fullmatch(synset):
            raise DataError(f"{path}:{number}: {short(repr(synset), 40)} is no synset such as n01440764")
        found[os.path.splitext(name.strip())[0]] = synset
    return found


def _annotated(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The synset of each image that an XML file describes, and why other files say none."""
    found: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for file in all_files(folder):
        if file.suffix.lower() != ".xml":
            continue
        try:
            synsets = {(one.findtext("name") or "").strip() for one in voc.parsed(file).findall("object")}
        except DataError as error:
            wrong[file.stem] = str(error)
            continue
        if len(synsets) == 1 and _SYNSET.fullmatch(synset := synsets.pop()):
            found[file.stem] = synset
        else:
            wrong[file.stem] = f"{file.name} does not name one synset"
    return found, wrong


def _numbered(truth: Path, meta: Path) -> dict[str, str]:
    """The synset of each image by the development kit's list of numbers. Raises DataError."""
    synsets = _meta(meta)
    found = {}
    for number, line in enumerate(_audio_lists.lines(_checked(truth)), 1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdecimal()) or len(text) > 6 or int(text) not in synsets:
            raise DataError(f"{truth}:{number}: {short(repr(text), 40)} is no ILSVRC2012_ID of {meta.name}")
        found[f"ILSVRC2012_val_{number:08d}"] = synsets[int(text)][0]
    return found


# ---- meta.mat ----


def _of_meta(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for synset, words in _meta(path).values():
        _add_name(found, str(path), synset, words)
    return found


def _meta(path: Path) -> dict[int, tuple[str, str]]:
    """ILSVRC2012_ID -> synset and name, of the classes without classes below them. Raises DataError."""
    import numpy as np
    from scipy.io import loadmat

    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: more than {_LARGEST >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        _check_mat(data)
        table = np.atleast_1d(loadmat(io.BytesIO(data), squeeze_me=True, variable_names=["synsets"])["synsets"])
        fields = table.dtype.names or ()
        if not {"ILSVRC2012_ID", "WNID", "words"} <= set(fields):
            raise ValueError("no fields ILSVRC2012_ID, WNID and words")
        found: dict[int, tuple[str, str]] = {}
        for row in table:
            if "num_children" not in fields or int(row["num_children"]) == 0:
                found[int(row["ILSVRC2012_ID"])] = (str(row["WNID"]), str(row["words"]))
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError, RuntimeError, OSError) as error:
        raise DataError(f"{path}: no meta.mat of ImageNet's development kit: {short(str(error), 100)}") from None
    except (zlib.error, struct.error, IndexError, EOFError, AttributeError) as error:
        raise DataError(f"{path}: a damaged meta.mat: {short(str(error), 100)}") from None
    wrong = next((synset for synset, _ in found.values() if not _SYNSET.fullmatch(synset)), None)
    if wrong is not None or not found:
        raise DataError(f"{path}: {short(repr(wrong), 40) if wrong else 'nothing'} in place of synsets")
    return found


def _check_mat(data: bytes) -> None:
    """Raise ValueError for a file that is no plain MATLAB 5 file, unpacks to too much, or is nested too deeply."""
    if len(data) < 128 or data[124:128] != b"\x00\x01IM":
        raise ValueError("no file of MATLAB 5")
    room = _LARGEST
    for kind, start, end in _elements(data, 128, len(data)):
        if kind != 15:  # not packed
            _check_depth(data, start - 8, end)
            continue
        unpacked = zlib.decompressobj().decompress(data[start:end], room + 1)
        room -= len(unpacked)
        if room < 0:
            raise ValueError(f"it unpacks to more than {_LARGEST >> 20} MB")
        _check_depth(unpacked, 0, len(unpacked))


def _check_depth(data: bytes, start: int, end: int) -> None:
    """Raise ValueError if matrices hold matrices more than a few times: the library reads them by recursion."""
    open_ends, at = [end], start
    while at < end:
        while len(open_ends) > 1 and at >= open_ends[-1]:
            open_ends.pop()
        kind, first, last = next(_elements(data, at, open_ends[-1]))
        if kind == 14 and last > first:
            open_ends.append(last)
            at = first
        else:
            at = max(at + 8, last + -last % 8)
        if len(open_ends) > _DEPTH:
            raise ValueError("structures within structures without end")


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The elements of a MATLAB 5 file: their kind, and where their data are. Raises ValueError."""
    while at < end:
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # a small one, within its tag
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            after = at + 8
        else:
            start = at + 8
            after = start + size + (0 if kind == 15 else -size % 8)
        if start + size > end:
            raise ValueError("cut off")
        yield kind, start, start + size
        at = after
