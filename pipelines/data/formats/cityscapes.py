"""Cityscapes: street scenes with 19 classes.

    cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png

The masks hold label ids; the 19 classes of the benchmark count, and all other ids are ignored. `gtFine_labelTrainIds`
is read if there are no label ids. The masks of the split test are empty, so it is left out.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import folders, runs
from pipelines.data.formats import _masks
from pipelines.data.schema import Source
from pipelines.errors import DataError

CLASSES = {  # label id -> class
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_IDS = 34
_ENDS = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")


def detect(path: Path) -> bool:
    """Whether there are folders leftImg8bit and gtFine."""
    return (path / "leftImg8bit").is_dir() and (path / "gtFine").is_dir()


def has_masks(path: Path) -> bool:
    """The same as `detect`."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_masks.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the images with their label ids. Raises DataError."""
    _masks.check_columns(section, columns, "the images of Cityscapes")
    root = Path(section.id).expanduser()
    if not detect(root):
        raise DataError(f"data.id: {section.id} has no folders leftImg8bit and gtFine")
    parts: dict[str, list[_masks.Pair]] = {}
    for folder in folders(root / "leftImg8bit"):
        if folder.name != "test":
            parts[folder.name] = list(_pairs(root, folder))
    parts = {split: pairs for split, pairs in parts.items() if pairs}
    if not parts:
        raise DataError(f"data.id: {section.id}/leftImg8bit holds no images in train/CITY and val/CITY")
    source = _masks.source(section, parts, columns)
    source.labels = list(CLASSES.values())
    return source


def _pairs(root: Path, folder: Path) -> Iterator[_masks.Pair]:
    ids = _legend({number: CLASSES.get(number) for number in range(_IDS)})
    trained = _legend({**dict(enumerate(CLASSES.values())), 255: None})
    for where, entries in runs(folder):
        for entry in entries:
            if not entry.name.endswith("_leftImg8bit.png"):
                continue
            image = Path(where, entry.name)
            stem, inner = entry.name.removesuffix("_leftImg8bit.png"), image.parent.relative_to(root / "leftImg8bit")
            masks = [root / "gtFine" / inner / f"{stem}{end}" for end in _ENDS]
            mask = next((one for one in masks if one.is_file()), None)
            legend = trained if mask == masks[1] else ids
            wrong = "" if mask is not None else f"no mask {masks[0].name}"
            id_ = image.relative_to(root).as_posix()
            yield _masks.Pair(id_, str(image), str(mask), legend, wrong=wrong)


def _legend(classes: dict[int, str | None]) -> str:
    return json.dumps({"values": {str(number): name for number, name in classes.items()}}, separators=(",", ":"))
