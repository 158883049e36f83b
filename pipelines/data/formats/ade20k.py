"""ADE20K in the form of the SceneParsing benchmark: 150 classes.

    ADEChallengeData2016/images/training/ADE_train_00000001.jpg   ADEChallengeData2016/annotations/training/...1.png
    ADEChallengeData2016/images/validation/ADE_val_00000001.jpg   ADEChallengeData2016/objectInfo150.txt

Value 0 of a mask is everything else, and is ignored. The classes have the first of their names in objectInfo150.txt.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import folders, runs
from pipelines.data.formats import _boxes, _masks
from pipelines.data.schema import Source
from pipelines.errors import DataError

CLASSES = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet"),
    *("sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water"),
    *("painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence"),
    *("desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column"),
    *("signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator"),
    *("grandstand", "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway"),
    *("river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench"),
    *("countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar"),
    *("arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning"),
    *("streetlight", "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land"),
    *("bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain"),
    *("conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket"),
    *("waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name"),
    *("microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood"),
    *("sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor"),
    *("bulletin board", "shower", "radiator", "glass", "clock", "flag"),
)


def detect(path: Path) -> bool:
    """Whether there is objectInfo150.txt, or the folders of the benchmark."""
    if not ((path / "images").is_dir() and (path / "annotations").is_dir()):
        return False
    if (path / "objectInfo150.txt").is_file():
        return True
    return any(_first(path / "images" / split).startswith("ADE_") for split in ("training", "validation"))


def has_masks(path: Path) -> bool:
    """The same as `detect`."""
    return detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return dict(_masks.COLUMNS)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the images with their masks. Raises DataError."""
    _masks.check_columns(section, columns, "the images of ADE20K")
    root = Path(section.id).expanduser()
    if not (root / "images").is_dir() or not (root / "annotations").is_dir():
        raise DataError(f"data.id: {section.id} has no folders images and annotations")
    names = _names(root / "objectInfo150.txt")
    legend = text_of(names)
    parts = {folder.name: list(_pairs(root, folder, legend)) for folder in folders(root / "images")}
    parts = {split: pairs for split, pairs in parts.items() if pairs}
    if not parts:
        raise DataError(f"data.id: {section.id}/images holds no images in training and validation")
    source = _masks.source(section, parts, columns)
    source.labels = list(names)
    return source


def text_of(names: tuple[str, ...] = CLASSES) -> str:
    """The legend of masks of ADE20K."""
    values = {"0": None, **{str(number): name for number, name in enumerate(names, 1)}}
    return json.dumps({"values": values}, separators=(",", ":"))


def _first(folder: Path) -> str:
    return (
        next((entry.name for _, entries in runs(folder, deep=False) for entry in entries), "")
        if folder.is_dir()
        else ""
    )


def _names(file: Path) -> tuple[str, ...]:
    """The first name of each class in objectInfo150.txt. Raises DataError for a file that is something else."""
    if not file.is_file():
        return CLASSES
    found: dict[int, str] = {}
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()[1:1000]:
        cells = line.split("\t")
        name = _boxes.class_name(cells[-1].split(",")[0])
        if cells[0].strip().isdigit() and name is not None:
            found[int(cells[0])] = name
    if not found or sorted(found) != list(range(1, len(found) + 1)) or len(set(found.values())) < len(found):
        raise DataError(f"{file}: not the list of classes of ADE20K (Idx, Ratio, Train, Val, Name, parted by tabs)")
    return tuple(found[number] for number in sorted(found))


def _pairs(root: Path, folder: Path, legend: str) -> Iterator[_masks.Pair]:
    masks = root / "annotations" / folder.name
    for where, entries in runs(folder):
        for entry in entries:
            image = Path(where, entry.name)
            if image.suffix.lower() not in (".jpg", ".jpeg", ".png"):
                continue
            mask = masks / image.relative_to(folder).with_suffix(".png")
            wrong = "" if mask.is_file() else f"no mask {mask.relative_to(root).as_posix()}"
            yield _masks.Pair(image.relative_to(root).as_posix(), str(image), str(mask), legend, wrong=wrong)
