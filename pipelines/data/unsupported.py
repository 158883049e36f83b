"""Data that no task takes: label maps, records of other libraries. `seen` says what they are.

Files that a task could take may lie among them (the photos of COCO). They are not guessed to be the data, because a
user who has boxes wants to learn boxes. Names of files and folders decide, and the first bytes of a few files.
"""

import re
from collections import Counter
from itertools import islice
from pathlib import Path

from pipelines.data.files import all_files, ends, printable
from pipelines.data.media import AUDIO, IMAGES, VIDEO
from pipelines.utils.formatting import printable as printable_text
from pipelines.utils.formatting import short

LOOKED_AT = 2000  # files that decide

OTHERS = {
    ".tfrecord": "TFRecord files",
    ".tfrecords": "TFRecord files",
    ".npy": "arrays of NumPy",
    ".npz": "arrays of NumPy",
    ".h5": "HDF5 files",
    ".hdf5": "HDF5 files",
    ".mat": "files of MATLAB",
    ".nii": "NIfTI volumes",
    ".dcm": "DICOM images",
    ".pkl": "pickle files, which run code when they are read",
    ".zip": "archives: unpack them, and give the folder",
    ".tar": "archives: unpack them, and give the folder",
    ".tgz": "archives: unpack them, and give the folder",
    ".rar": "archives: unpack them, and give the folder",
    ".7z": "archives: unpack them, and give the folder",
    ".pdf": "PDF files: write their text to .txt files",
    ".docx": "Word files: write their text to .txt files",
    ".xlsx": "Excel files: save each sheet as csv",
    ".xls": "Excel files: save each sheet as csv",
}
_MASKS = ("mask", "annot", "segm", "groundtruth", "label")  # parts of the names of folders with label maps
_OF_MASK = re.compile(r"[_-](mask|masks|seg|segmentation|label|labels|gt|l)$")  # ends of the names of label maps


def seen(path: Path) -> str | None:
    """What such data are, for a message; None if nothing here is known to be of no task."""
    files = [path] if path.is_file() else list(islice(all_files(path), LOOKED_AT))
    suffixes = Counter(_suffix(file) for file in files)
    images = [file for file in files if file.suffix.lower() in IMAGES.suffixes]
    media = len(images) + sum(suffixes[suffix] for suffix in (AUDIO.suffixes | VIDEO.suffixes) - IMAGES.suffixes)
    others = {suffix: suffixes[suffix] for suffix in OTHERS if suffixes[suffix]}
    if others and sum(others.values()) > max(media, (len(files) - suffixes[".md"] - suffixes[".txt"]) / 2):
        return OTHERS[max(others, key=others.__getitem__)]
    return _coco(files) or _masks(images)


def without_boxes(path: Path) -> str:
    """Why data are in none of the layouts of boxes, for a message; "" if no file tells it."""
    files = [path] if path.is_file() else list(islice(all_files(path), LOOKED_AT))
    for file in files:
        kind, name = file.suffix.lower(), short(printable(file.name), 60)
        if kind == ".json":
            start = ends(file).lstrip(b"\xef\xbb\xbf \r\n\t").rstrip()
            if not start.startswith(b"{"):
                sign = printable_text(start[:1].decode("ascii", "replace"))
                return f"{name} begins with {sign}, not {{" if sign else f"{name} is empty"
            if not start.endswith(b"}"):
                return f"{name} is cut off: its end is missing"
            if b'"bbox"' in start:
                return f"{name} is in an inner folder: give that folder"
            return f"{name} has no images with annotations and categories"
        if kind == ".csv":
            head = ends(file).splitlines()[:1]
            columns = printable_text(head[0].decode("utf-8", "replace")) if head else ""
            return f"{name} begins with the line {short(columns, 80)!r}"
        if kind == ".xml":
            return f"{name} has no <bndbox>"
    return ""


def _suffix(file: Path) -> str:
    """The suffix that tells the kind: that of the file inside of a .gz, unless it is a table or text."""
    inner = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return inner.suffix.lower()


def _coco(files: list[Path]) -> str | None:
    """Whether a JSON file has COCO's keys: `images` at its start, `annotations` there or at its end."""
    found, named = b"", None
    for file in (file for file in files if file.suffix.lower() == ".json"):
        both = ends(file)
        if both.lstrip().startswith(b"{") and b'"images"' in both and b'"annotations"' in both:
            found, named = found + both, file if named is None or b'"bbox"' in both else named
    if named is None:
        return None
    if b'"bbox"' in found or b'"segmentation"' in found:
        what = "boxes and masks" if b'"segmentation"' in found else "boxes"
        return f"photos with {what} in COCO's JSON ({printable(named.name)}) in an inner folder (give that folder)"
    advice = "for captions, write them to a metadata.csv with the columns file_name and text"
    return f"photos with annotations in COCO's JSON ({printable(named.name)}; {advice})"


def _masks(images: list[Path]) -> str | None:
    """Whether images have label maps: images of the same names in a folder for them, or with an ending for them."""
    by_folder: dict[Path, set[str]] = {}
    for image in images:
        by_folder.setdefault(image.parent, set()).add(image.stem)
    for folder, stems in by_folder.items():
        ends = {_OF_MASK.sub("", stem) for stem in stems if _OF_MASK.search(stem)}
        if any(part in folder.name.lower() for part in _MASKS) or folder.name.lower() in ("gt", "seg"):
            others = set().union(*(names for place, names in by_folder.items() if place != folder))
            alike = len(stems & others) + len(ends & others)
        else:
            alike = len(ends & stems)
        if alike * 3 > len(stems):
            return f"images with label maps ({printable(folder.name)}), for segmentation"
    return None
