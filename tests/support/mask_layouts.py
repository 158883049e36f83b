"""The same tiny images with label maps in every layout that Graft reads. All of it is right, to be made wrong.

folder = cityscapes(tmp_path / "data")     SCENES images of 32 x 24 pixels

`truth(number)` is the map of image `number`: 0 background, 1 square, 2 disc.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.tiny_masks import save, scene

SCENES = 12
SPLITS = ("train", "train", "val")  # of the images, in turn
PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def truth(number: int) -> np.ndarray:
    """The map of an image, 24 x 32 pixels."""
    return scene(number, 32)[1][:24]


def picture(number: int) -> Image.Image:
    return scene(number, 32)[0].crop((0, 0, 32, 24))


def split(number: int) -> str:
    return SPLITS[number % len(SPLITS)]


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def with_palette(values: np.ndarray) -> Image.Image:
    """A mask with VOC's kind of palette: the indices are the classes."""
    image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([part for colour in PALETTE for part in colour] + [9] * 3 * (256 - len(PALETTE)))
    return image


def coloured(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(PALETTE, dtype=np.uint8)[values])


def folders(folder: Path, mask: Any = grey, names: Sequence[str] = ("images", "masks"), end: str = "") -> Path:
    """images/train/00.jpg and masks/train/00.png."""
    for number in range(SCENES):
        save(picture(number), folder / names[0] / split(number) / f"{number:02d}.jpg")
        save(mask(truth(number)), folder / names[1] / split(number) / f"{number:02d}{end}.png")
    return folder


def cityscapes(folder: Path) -> Path:
    ids = np.array([3, 7, 26])  # static (ignored), road, car
    for number in range(SCENES):
        place, name = f"{split(number)}/ulm", f"ulm_{number:06d}_000019"
        save(picture(number), folder / "leftImg8bit" / place / f"{name}_leftImg8bit.png")
        save(grey(ids[truth(number)]), folder / "gtFine" / place / f"{name}_gtFine_labelIds.png")
        save(grey(truth(number)), folder / "gtFine" / place / f"{name}_gtFine_instanceIds.png")
    return folder


def ade20k(folder: Path) -> Path:
    for number in range(SCENES):
        place = "training" if split(number) == "train" else "validation"
        name = f"ADE_{'train' if place == 'training' else 'val'}_{number:08d}"
        save(picture(number), folder / "images" / place / f"{name}.jpg")
        save(grey(truth(number)), folder / "annotations" / place / f"{name}.png")
    return folder


def pets(folder: Path) -> Path:
    values = np.array([2, 1, 3])
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for number in range(SCENES):
        name = f"Birman_{number}"
        save(picture(number), folder / "images" / f"{name}.jpg")
        save(grey(values[truth(number)]), folder / "annotations" / "trimaps" / f"{name}.png")
        lists["trainval" if split(number) == "train" else "test"].append(f"{name} 1 1 1\n")
    for name, lines in lists.items():
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))
    return folder


def voc(folder: Path) -> Path:
    """VOC2012 below the folder, with masks that have a palette."""
    root, lists = folder / "VOC2012", {"train": "", "val": ""}
    for number in range(SCENES):
        save(picture(number), root / "JPEGImages" / f"{number}.jpg")
        values = truth(number).copy()
        values[0] = 255
        save(with_palette(values), root / "SegmentationClass" / f"{number}.png")
        lists[split(number)] += f"{number}\n"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, text in lists.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(text)
    return folder


def panoptic(folder: Path) -> Path:
    """COCO's panoptic JSON: the background is stuff, each class of shapes one thing."""
    (folder / "annotations").mkdir(parents=True)
    kinds = [{"id": 7, "name": "grass", "isthing": 0}, {"id": 8, "name": "square", "isthing": 1}]
    kinds.append({"id": 90, "name": "disc", "isthing": 1})
    for part in ("train", "val"):
        images, marks = [], []
        for number in (n for n in range(SCENES) if split(n) == part):
            save(picture(number), folder / part / f"{number}.jpg")
            ids = np.array([5, 257, 70000])[truth(number)]
            pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
            save(Image.fromarray(pixels), folder / "annotations" / f"panoptic_{part}" / f"{number}.png")
            found = [kind for kind in range(3) if (truth(number) == kind).any()]
            info = [
                {"id": (5, 257, 70000)[kind], "category_id": kinds[kind]["id"], "iscrowd": int(kind == 2)}
                for kind in found
            ]
            images.append({"id": number, "file_name": f"{number}.jpg", "width": 32, "height": 24})
            marks.append({"image_id": number, "file_name": f"{number}.png", "segments_info": info})
        content = {"images": images, "annotations": marks, "categories": kinds}
        (folder / "annotations" / f"panoptic_{part}.json").write_text(json.dumps(content))
    return folder


def runs(values: np.ndarray) -> str:
    """Kaggle's run lengths of a mask of 0 and 1."""
    padded = np.concatenate([[0], values.T.ravel().astype(int), [0]])
    ends = np.flatnonzero(np.diff(padded))
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(ends[::2], ends[1::2], strict=True))


def kaggle(folder: Path) -> Path:
    """train.csv with ImageId, ClassId and EncodedPixels, as in Severstal's; the last image is empty."""
    rows = []
    for number in range(SCENES):
        save(picture(number), folder / "train_images" / f"{number}.jpg")
        for kind in (1, 2):
            found = runs(truth(number) == kind) if number < SCENES - 1 else ""
            rows.append([f"{number}.jpg", kind, found])
    table(folder / "train.csv", ["ImageId", "ClassId", "EncodedPixels"], rows)
    return folder


def table(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def stack(folder: Path, stacks: int = 3, pages: int = 4) -> Path:
    """TIFF files of several pages: 16-bit images up to 4095, and their masks."""
    for number in range(stacks):
        for name, pictures in (
            ("images", [np.asarray(picture(n).convert("L")).astype(np.uint16) * 16 for n in range(pages)]),
            ("masks", [truth(n) for n in range(pages)]),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            first, *others = [Image.fromarray(one) for one in pictures]
            first.save(folder / name / f"{number}.tif", save_all=True, append_images=others)
    return folder
