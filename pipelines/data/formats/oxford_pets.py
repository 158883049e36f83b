"""Oxford-IIIT Pet with its trimaps: pet, background and border.

    pets/images/Abyssinian_1.jpg   pets/annotations/trimaps/Abyssinian_1.png
    pets/annotations/trainval.txt   pets/annotations/test.txt     lines "Abyssinian_1 1 1 1"

Value 1 of a mask is the pet, 2 the background, and 3 the border between both, which is a class of its own;
`data.mask_classes={1: pet, 2: background, 3: null}` ignores it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _masks
from pipelines.data.schema import Source
from pipelines.errors import DataError

CLASSES = {"1": "pet", "2": "background", "3": "border"}


def detect(path: Path) -> bool:
    """Whether there are trimaps."""
    return (path / "annotations" / "trimaps").is_dir() and (path / "images").is_dir()


def has_masks(path: Path) -> bool:
    """The same as `detect`."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_masks.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the images with their trimaps. Raises DataError."""
    _masks.check_columns(section, columns, "the images of Oxford-IIIT Pet")
    root = Path(section.id).expanduser()
    if not detect(root):
        raise DataError(f"data.id: {section.id} has no folders images and annotations/trimaps")
    lists = {name: _stems(root / "annotations" / f"{name}.txt") for name in ("trainval", "test")}
    split_of = {stem: "train" if name == "trainval" else "test" for name, stems in lists.items() for stem in stems}
    parts: dict[str, list[_masks.Pair]] = {}
    unlisted = 0
    for pair in _pairs(root):
        stem = Path(pair.id).stem
        if split_of and stem not in split_of:
            unlisted += 1
            continue
        parts.setdefault(split_of.get(stem, "train"), []).append(pair)
    if not parts:
        raise DataError(f"data.id: {section.id}/images holds no image with a trimap")
    source = _masks.source(section, parts, columns)
    source.labels = list(CLASSES.values())
    if unlisted:
        source.ignored["images that neither trainval.txt nor test.txt names"] = unlisted
    return source


def _stems(file: Path) -> list[str]:
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def _pairs(root: Path) -> Iterator[_masks.Pair]:
    legend = json.dumps({"values": CLASSES}, separators=(",", ":"))
    for image in all_files(root / "images", deep=False):
        if image.suffix.lower() in (".jpg", ".jpeg", ".png"):
            mask = root / "annotations" / "trimaps" / f"{image.stem}.png"
            wrong = "" if mask.is_file() else f"no trimap {mask.name}"
            yield _masks.Pair(image.relative_to(root).as_posix(), str(image), str(mask), legend, wrong=wrong)
