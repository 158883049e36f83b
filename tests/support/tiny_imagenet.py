"""ImageNet's tree in small, in each form in which it is given away; and the list of its images' classes.

folder = tree(tmp_path / "data", "kaggle")     or "xml", "devkit", "plain"
"""

from pathlib import Path

import numpy as np
from PIL import Image

SYNSETS = {  # in an order that is not theirs, as in the development kit
    "n03126707": "crane",
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n01443537": "goldfish, Carassius auratus",
}
IDS = {synset: number for number, synset in enumerate(SYNSETS, 1)}  # ILSVRC2012_ID
NAMES = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane (n02012849)", "crane (n03126707)"]
TRAIN, VAL, TEST = 5, 8, 3  # images of each class; of val; of test


def truth(number: int) -> str:
    """The synset of image `number` of val, from 1 on."""
    return sorted(SYNSETS)[number * 3 % 4]


def picture(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (12, 12, 4 if mode == "CMYK" else 3), np.uint8)
    # one file of ImageNet's is a PNG whose name says JPEG
    Image.fromarray(values, mode if mode == "CMYK" else "RGB").save(path, "PNG" if mode == "PNG" else "JPEG")


def tree(folder: Path, form: str) -> Path:
    top = folder if form == "plain" else folder / "ILSVRC/Data/CLS-LOC"
    for place, synset in enumerate(SYNSETS):
        for number in range(TRAIN):
            mode = {0: "CMYK", 1: "PNG"}.get(number, "RGB") if place == 0 else "RGB"
            picture(top / f"train/{synset}/{synset}_{number}.JPEG", place * 100 + number, mode)
    for number in range(1, VAL + 1):
        own = f"{truth(number)}/" if form == "plain" else ""
        picture(top / f"val/{own}{val(number)}.JPEG", 1000 + number)
    if form == "plain":
        rows = [f"{place},{synset},{SYNSETS[synset]!r}" for place, synset in enumerate(sorted(SYNSETS))]
        (folder / "classes.csv").write_text("index,synset,name\n" + "\n".join(rows).replace("'", '"'))
        return folder
    for number in range(TEST):
        picture(top / f"test/ILSVRC2012_test_{number:08d}.JPEG", 2000 + number)
    if form == "devkit":
        devkit(folder / "data")
        return folder
    mapping = [f"{synset} {SYNSETS[synset]}" for synset in sorted(SYNSETS)]
    (folder / "LOC_synset_mapping.txt").write_text("\n".join(mapping) + "\n")
    lists = folder / "ILSVRC/ImageSets/CLS-LOC"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{val(number)} {number}\n" for number in range(1, VAL + 1)))
    (lists / "train_cls.txt").write_text("".join(f"x {number}\n" for number in range(1, 4 * TRAIN + 3)))
    if form == "kaggle":
        rows = [f"{val(number)},{truth(number)} 1 2 30 40 {truth(number)} 5 6 7 8 " for number in range(1, VAL + 1)]
        (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows) + "\n")
    if form == "xml":
        for number in range(1, VAL + 1):
            annotation(folder, number, f"<object><name>{truth(number)}</name></object>")
    return folder


def val(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def annotation(folder: Path, number: int, objects: str) -> Path:
    path = folder / f"ILSVRC/Annotations/CLS-LOC/val/{val(number)}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{val(number)}</filename>{objects}</annotation>")
    return path


def devkit(folder: Path) -> None:
    """The list of numbers, and meta.mat, which names classes above the others, too."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    numbers = [IDS[truth(number)] for number in range(1, VAL + 1)]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, numbers)) + "\n")
    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("words", object), ("num_children", float)]
    rows = [(IDS[synset], synset, words, 0) for synset, words in SYNSETS.items()]
    table = np.array([*rows, (5, "n00001740", "entity", 3)], dtype=kinds).reshape(-1, 1)
    savemat(folder / "meta.mat", {"synsets": table}, do_compression=True)
