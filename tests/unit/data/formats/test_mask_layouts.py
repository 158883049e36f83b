"""Every layout of images with masks gives the same maps."""

import json
import logging
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data import maps
from pipelines.data.formats import ade20k, run_lengths, voc
from pipelines.data.image.label_maps import IGNORE, LabelMaps, read_map
from pipelines.data.loading import format_module, load_rows, load_splits
from pipelines.data.schema import Splits
from pipelines.errors import DataError
from tests.support import mask_layouts as layouts
from tests.support import tiny_masks

NAMES = ["background", "square", "disc"]


def load(folder: Path, **keys: Any) -> Splits:
    return load_splits(DataSection(id=str(folder), **keys), maps.spec())


def number_of(row: dict[str, Any]) -> int:
    """The number of an image, from its name."""
    digits = "".join(sign for sign in Path(row["id"]).stem if sign.isdigit() or sign == "_")
    return int(next(part for part in digits.split("_") if part))


def check(splits: Splits, classes: list[int], labels: list[str]) -> None:
    """Compare all maps with the truth; `classes` are the class numbers of background, square and disc."""
    assert splits.labels == labels
    count = 0
    for name in ("train", "validation", "test"):
        for row in splits[name]:
            assert (read_map(row, labels) == np.array(classes)[layouts.truth(number_of(row))]).all(), row["id"]
            count += 1
    assert count == layouts.SCENES


def names_file(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        layouts.folders(folder)
        (folder / name).write_text(text)
        return folder

    return make


def in_colour(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        layouts.folders(folder, layouts.coloured)
        (folder / name).write_text(text)
        return folder

    return make


LISTS: dict[str, Callable[[Path], Path]] = {
    "names in lines": names_file("classes.txt", "background\nsquare\ndisc\n"),
    "numbers and names": names_file("labels.txt", "0 background\n1: square\n2,disc\n"),
    "a csv of names": names_file("classes.csv", "name,id\nbackground,0\nsquare,1\ndisc,2\n"),
    "json by number": names_file("id2label.json", json.dumps(dict(enumerate(NAMES)))),
    "json by name": names_file("label_map.json", json.dumps({name: n for n, name in enumerate(NAMES)})),
    "a json list": names_file("classes.json", json.dumps(NAMES)),
    "class_dict.csv": in_colour("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nsquare,128,0,0\ndisc,0,128,0\n"),
    "CVAT's labelmap.txt": in_colour(
        "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nsquare:128,0,0::\ndisc:0,128,0::\n"
    ),
    "CamVid's label_colors.txt": in_colour("label_colors.txt", "0 0 0\tbackground\n128 0 0\tsquare\n0 128 0\tdisc\n"),
    "json of colours": in_colour(
        "palette.json", json.dumps({name: list(colour) for name, colour in zip(NAMES, layouts.PALETTE, strict=True)})
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_names_the_classes(name: str, tmp_path: Path) -> None:
    splits = load(LISTS[name](tmp_path / "data"))
    check(splits, [0, 1, 2], NAMES)
    assert splits.source == {"train": "train", "validation": "validation", "test": "cut from train"}


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "images and masks": layouts.folders,
    "img and annotations": lambda f: layouts.folders(f, names=("img", "annotations")),
    "JPEGImages and labels, with an ending": lambda f: layouts.folders(f, names=("JPEGImages", "labels"), end="_mask"),
    "data and its masks": lambda f: layouts.folders(f, names=(".", "masks")),
    "a palette": lambda f: layouts.folders(f, layouts.with_palette),
    "grey as RGB": lambda f: layouts.folders(f, lambda values: layouts.grey(values).convert("RGB")),
    "16 bits": lambda f: layouts.folders(f, lambda values: Image.fromarray(values.astype(np.uint16))),
    "splits above": lambda f: moved(f, "{split}/images/{name}.jpg", "{split}/labels/{name}.png"),
    "one folder": lambda f: moved(f, "{name}.jpg", "{name}_seg.png"),
    "one folder for each split": lambda f: moved(f, "{split}/{name}.jpg", "{split}/{name}-mask.png"),
    "trainannot": lambda f: moved(f, "{split}/{name}.jpg", "{split}annot/{name}.png"),
    "train_masks": lambda f: moved(f, "{split}_images/{name}.jpg", "{split}_masks/{name}_mask.png"),
    "names before": lambda f: moved(f, "images/{name}.jpg", "masks/mask_{name}.png"),
    "names that only the file tells": lambda f: moved(f, "photos of May/{name}.jpg", "GroundTruth/{name}.png"),
}


def moved(folder: Path, image: str, mask: str) -> Path:
    for number in range(layouts.SCENES):
        values = {"split": layouts.split(number), "name": f"{number:02d}"}
        tiny_masks.save(layouts.picture(number), folder / image.format(**values))
        tiny_masks.save(layouts.grey(layouts.truth(number)), folder / mask.format(**values))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_images_and_of_masks(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = FOLDERS[name](tmp_path / "data")
    assert format_module(DataSection(id=str(folder)), ("image", "mask")).__name__.endswith(".masks")
    assert format_module(DataSection(id=str(folder))).__name__.endswith(".masks")
    with caplog.at_level(logging.WARNING, "graft"):
        check(load(folder), [0, 1, 2], ["class 0", "class 1", "class 2"])
    assert "0: class 0, 1: class 1, 2: class 2. data.mask_classes" in caplog.text
    check(load(folder, mask_classes={2: "disc", 1: "disc", "0": None}), [IGNORE, 0, 0], ["disc"])


def test_colours_are_named_by_the_recipe(tmp_path: Path) -> None:
    folder = layouts.folders(tmp_path / "data", layouts.coloured)
    check(
        load(folder, mask_classes={"#800000": "square", "0,128,0": "disc", "0, 0, 0": None}), [IGNORE, 0, 1], NAMES[1:]
    )
    folder = layouts.folders(tmp_path / "palette", layouts.with_palette)
    check(load(folder, mask_classes={"128,0,0": "square", "0,128,0": "disc", "0,0,0": None}), [IGNORE, 0, 1], NAMES[1:])


@pytest.mark.parametrize("white", [255, 1])
def test_masks_of_two_values(white: int, tmp_path: Path) -> None:
    splits = load(tiny_masks.binary(tmp_path / "cells", 12, 32, white))
    assert splits.labels == ["background", "foreground"]
    row = splits.train[0]
    assert (read_map(row, splits.labels) == (tiny_masks.scene(0, 32, 1)[1] > 0)).all()
    assert json.loads(row["classes"]) == ["background", "foreground"]
    named = load(tmp_path / "cells", mask_classes={str(white): "cell", "0": "membrane"})
    assert named.labels == ["cell", "membrane"]
    (tmp_path / "cells" / "classes.txt").write_text("outside\ninside\n")
    assert load(tmp_path / "cells").labels == ["outside", "inside"]


def test_255_is_void_next_to_classes(tmp_path: Path) -> None:
    def mask(values: np.ndarray) -> Image.Image:
        values = values.copy()
        values[:2] = 255
        return layouts.grey(values)

    splits = load(layouts.folders(tmp_path / "data", mask))
    assert splits.labels == ["class 0", "class 1", "class 2"]
    assert (read_map(splits.train[0], splits.labels)[:2] == IGNORE).all()


def test_segnets_lists(tmp_path: Path) -> None:
    folder = moved(tmp_path / "data", "{split}/{name}.jpg", "{split}annot/{name}.png")
    lines = [f"/SegNet/CamVid/train/{n:02d}.jpg /SegNet/CamVid/trainannot/{n:02d}.png" for n in (0, 1, 3)]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    (folder / "test.txt").write_text("train/04.jpg trainannot/04.png\nval/02.jpg valannot/02.png\n")
    splits = load(folder)
    assert sorted(row["id"] for row in splits.test) == ["train/04.jpg", "val/02.jpg"]
    others = [row["id"] for name in ("train", "validation") for row in splits[name]]
    assert sorted(others) == ["train/00.jpg", "train/01.jpg", "train/03.jpg"]
    assert splits.labels == ["class 0", "class 1"]  # the last value is void
    assert splits.ignored == {"images without a mask (the first: train/06.jpg)": 7}


def test_the_published_layouts(tmp_path: Path) -> None:
    city = load(layouts.cityscapes(tmp_path / "city"))
    check(city, [IGNORE, 0, 13], list(city.labels or []))
    assert city.labels is not None
    assert city.labels[13] == "car"
    assert len(city.labels) == 19
    ade = load(layouts.ade20k(tmp_path / "ade"))
    check(ade, [IGNORE, 0, 1], list(ade20k.CLASSES))
    assert len(set(ade20k.CLASSES)) == 150
    check(load(layouts.pets(tmp_path / "pets")), [1, 0, 2], ["pet", "background", "border"])
    found = load(layouts.voc(tmp_path / "voc"))
    assert found.labels == list(voc.CLASSES)
    row = found.train[0]
    seen = read_map(row, found.labels)
    assert (seen[0] == IGNORE).all()
    assert (seen[1:] == layouts.truth(number_of(row))[1:]).all()


def test_the_classes_of_ade20k_have_the_names_of_its_list(tmp_path: Path) -> None:
    folder = layouts.ade20k(tmp_path / "ade")
    lines = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t1\t1\twall", "2\t0.1\t1\t1\tbuilding, edifice"]
    (folder / "objectInfo150.txt").write_text("\n".join(lines))
    assert load(folder).labels == ["wall", "building"]


def test_segments_of_coco(tmp_path: Path) -> None:
    splits = load(layouts.panoptic(tmp_path / "data"))
    labels = ["grass", "square", "disc"]
    check(splits, [0, 1, 2], labels)
    example = LabelMaps(splits.train, labels)[0]
    assert example["kinds"].tolist() == [0, 1, IGNORE][: len(example["kinds"])]
    kinds = np.array([IGNORE, 0, 1, 2])[example["segments"]]  # the number of a segment follows its id
    assert (kinds == example["map"]).all()


def test_shapes_are_drawn(tmp_path: Path) -> None:
    pixels = {"counts": [0, 24 * 4, 24 * 28], "size": [24, 32]}
    things = [
        {
            "id": 1,
            "image_id": 0,
            "category_id": 3,
            "bbox": [2, 2, 20, 10],
            "segmentation": [[2, 2, 22, 2, 22, 12, 2, 12]],
        },
        {
            "id": 2,
            "image_id": 0,
            "category_id": 9,
            "bbox": [10, 5, 5, 5],
            "segmentation": [[10, 5, 15, 5, 15, 10, 10, 10]],
        },
        {"id": 3, "image_id": 0, "category_id": 3, "bbox": [0, 0, 4, 24], "segmentation": pixels, "iscrowd": 1},
        {"id": 4, "image_id": 1, "category_id": 9, "bbox": [0, 0, 4, 24]},
    ]
    for number in range(3):
        tiny_masks.save(layouts.picture(number), tmp_path / "data" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 24} for n in range(3)]
    kinds = [{"id": 3, "name": "square"}, {"id": 9, "name": "disc"}]
    content = {"images": images, "annotations": things, "categories": kinds}
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    _, rows, _ = load_rows(DataSection(id=str(tmp_path / "data")), maps.spec())
    found = {row["id"]: read_map(row, ["background", "square", "disc"]) for row in rows}
    expected = np.zeros((24, 32), dtype=int)
    expected[2:12, 2:22] = 1
    expected[5:10, 10:15] = 2  # drawn later
    expected[:, :4] = 1
    assert (found["0.png"] == expected).all()
    assert not found["1.png"].any()
    assert not found["2.png"].any()
    assert {row["id"]: json.loads(row["classes"]) for row in rows} == {
        "0.png": ["background", "square", "disc"],
        "1.png": ["background"],
        "2.png": ["background"],
    }


def test_a_hole_and_an_ignored_shape_of_labelme(tmp_path: Path) -> None:
    def square(label: str, a: int, b: int, kind: str = "polygon") -> dict[str, Any]:
        points = [[a, a], [b, b]] if kind == "rectangle" else [[a, a], [b, a], [b, b], [a, b]]
        return {"label": label, "points": points, "shape_type": kind, "group_id": None}

    for number in range(3):
        tiny_masks.save(layouts.picture(number), tmp_path / "data" / f"{number}.png")
        shapes = [square("ring", 2, 20), square("_background_", 8, 14), square("__ignore__", 0, 2, "rectangle")]
        about = {"shapes": shapes, "imagePath": f"{number}.png", "imageWidth": 32, "imageHeight": 24}
        (tmp_path / "data" / f"{number}.json").write_text(json.dumps(about))
    splits = load(tmp_path / "data")
    expected = np.zeros((24, 32), dtype=int)
    expected[2:20, 2:20] = 1
    expected[8:14, 8:14] = 0
    expected[:2, :2] = IGNORE
    assert splits.labels == ["background", "ring"]
    assert (read_map(splits.train[0], splits.labels) == expected).all()


def test_polygons_of_yolo(tmp_path: Path) -> None:
    for number in range(3):
        tiny_masks.save(layouts.picture(number), tmp_path / "data" / "images" / "train" / f"{number}.png")
        text = tmp_path / "data" / "labels" / "train" / f"{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    (tmp_path / "data" / "data.yaml").write_text("names: [square, disc]\n")
    splits = load(tmp_path / "data")
    expected = np.zeros((24, 32), dtype=int)
    expected[6:18, 8:24] = 2
    assert splits.labels == NAMES
    assert (read_map(splits.train[0], NAMES) == expected).all()


def test_run_lengths(tmp_path: Path) -> None:
    splits = load(layouts.kaggle(tmp_path / "data"))
    labels = ["background", "class 1", "class 2"]
    assert splits.labels == labels
    rows = {number_of(row): row for name in ("train", "validation", "test") for row in splits[name]}
    for number, row in rows.items():
        true = layouts.truth(number) if number < layouts.SCENES - 1 else np.zeros((24, 32))
        assert (read_map(row, labels) == true).all()
    _, *lines = (tmp_path / "data" / "train.csv").read_text().splitlines()
    both = [line.replace(",", "_", 1) for line in lines]
    (tmp_path / "data" / "train.csv").write_text("\n".join(["ImageId_ClassId,EncodedPixels", *both]))
    assert load(tmp_path / "data").labels == labels


@pytest.mark.parametrize(
    ("text", "counts"), [("", [12]), ("1 2", [0, 2, 10]), ("3 2 5 1", [2, 3, 7]), ("11 2", [10, 2, 0])]
)
def test_run_lengths_as_coco_counts_them(text: str, counts: list[int]) -> None:
    assert run_lengths.coco_runs(text, 4, 3) == {"size": [3, 4], "counts": counts}


def test_slices_of_a_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = load(layouts.stack(tmp_path / "data"))
    assert splits.group == "origin"
    stacks = [{row["origin"] for row in splits[name]} for name in ("train", "validation", "test")]
    assert sum(map(len, stacks)) == len(set.union(*stacks)) == 3
    dark, bright = LabelMaps(splits.train, splits.labels or []), LabelMaps(splits.train, splits.labels or [], 4095)
    for number, row in enumerate(splits.train):
        assert (bright[number]["map"] == layouts.truth(row["page"])).all()
        grey = np.asarray(layouts.picture(row["page"]).convert("L")).astype(int)
        assert np.abs(np.asarray(bright[number]["image"])[..., 0] - grey * 16 * 255 / 4095).max() <= 1
        assert np.asarray(dark[number]["image"]).max() <= 255 * 16 // 257
    with caplog.at_level(logging.WARNING, "graft"):
        alone = load(layouts.stack(tmp_path / "one", 1, 10))
    assert len(alone.train) == 8
    assert alone.group is None
    assert "all slices are of one stack" in caplog.text


def test_who_reads_what(tmp_path: Path) -> None:
    """Masks do not take data from other formats, and the task decides where a folder has both."""

    def format_of(folder: Path, *columns: str) -> str:
        return str(format_module(DataSection(id=str(folder)), columns).__name__.rpartition(".")[2])

    photos = tmp_path / "photos"
    for number in range(4):
        for kind in ("mask", "no_mask", "image"):
            noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            tiny_masks.save(Image.fromarray(noise), photos / kind / f"{number}.jpg")
    assert format_of(photos) == "imagefolder"
    both = layouts.folders(tmp_path / "both")
    boxes = {"images": [{"id": 1, "file_name": "train/00.jpg"}], "categories": [{"id": 1, "name": "a"}]}
    boxes["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    (both / "annotations.json").write_text(json.dumps(boxes))
    assert format_of(both, "image", "objects") == "coco"
    assert format_of(both, "image", "mask") == "masks"
    pair = layouts.folders(tmp_path / "pair")
    with pytest.raises(DataError, match="have masks and no label"):
        load_splits(DataSection(id=str(pair)), maps.DataSpec(columns=["image", "label"]))
    shutil.rmtree(pair / "masks")
    assert format_of(pair) == "imagefolder"


def put(folder: Path, *names: str, number: int = 0, mask: Any = layouts.grey) -> None:
    """Save images and masks; a mask is a file below a folder whose name holds `mask` or `gt`."""
    for name in names:
        of_masks = any(word in name for word in ("mask", "gt"))
        picture = mask(layouts.truth(number)) if of_masks else layouts.picture(number)
        tiny_masks.save(picture, folder / name)


def pairs_of(splits: Splits, folder: Path) -> dict[str, str]:
    rows = [row for name in ("train", "validation", "test") for row in splits[name]]
    return {row["id"]: Path(row["mask"]["path"]).relative_to(folder).as_posix() for row in rows}


def test_a_mask_belongs_to_the_image_in_its_own_place(tmp_path: Path) -> None:
    for place in ("p1/5", "p1/6", "p2/7", "p2/8"):
        put(tmp_path, f"images/{place}.png", f"masks/{place}.png", number=int(place[-1]))
    put(tmp_path, "masks/p0/5.png", "images/p3/9.png", "masks/p4/9.png", number=3)
    splits = load(tmp_path)
    expected = {f"images/{place}.png": f"masks/{place}.png" for place in ("p1/5", "p1/6", "p2/7", "p2/8")}
    assert pairs_of(splits, tmp_path) == expected
    assert splits.ignored == {
        "images without a mask (the first: images/p3/9.png)": 1,
        "masks without an image of the same name (the first: masks/p0/5.png)": 2,
    }


def test_a_mask_never_belongs_to_an_image_of_another_split(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"train/images/{number}.png", f"train/masks/{number}.png", number=number)
        put(tmp_path, f"val/images/{number + 4}.png", f"val/masks/{number + 4}.png", number=number)
    put(tmp_path, "test/masks/0.png", "test/masks/9.png", "val/images/9.png", number=7)
    assert all(image == mask.replace("masks", "images") for image, mask in pairs_of(load(tmp_path), tmp_path).items())


def test_the_split_may_be_that_of_the_mask(tmp_path: Path) -> None:
    for number in range(9):
        put(tmp_path, f"images/{number}.png", f"masks/{('train', 'val', 'test')[number % 3]}/{number}.png")
    splits = load(tmp_path)
    assert [row["id"] for row in splits.test] == ["images/2.png", "images/5.png", "images/8.png"]
    assert [row["id"] for row in splits.validation] == ["images/1.png", "images/4.png", "images/7.png"]


@pytest.mark.parametrize("places", [("masks/cell", "masks/nucleus"), ("gt", "masks")])
def test_several_masks_of_each_image_are_an_error(places: tuple[str, str], tmp_path: Path) -> None:
    for number in range(6):
        put(tmp_path, f"images/{number}.png", *(f"{place}/{number}.png" for place in places))
    with pytest.raises(DataError, match=f"6 images have several masks, in {places[0]} and in {places[1]} "):
        load(tmp_path)


def test_pictures_of_masks_next_to_them_are_left_out(tmp_path: Path) -> None:
    for number in range(6):
        put(tmp_path, f"images/{number}.png", f"masks/{number}.png", f"masks_color/{number}.png", number=number)
    splits = load(tmp_path)
    assert {mask.split("/")[0] for mask in pairs_of(splits, tmp_path).values()} == {"masks"}
    assert splits.ignored == {"masks of an image that has another mask (the first: masks_color/0.png)": 6}


def test_lists_of_names(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path, f"images/scan.{number}.png", f"masks/scan.{number}.png", number=number)
    (tmp_path / "train.txt").write_text("scan.0\nscan.1\nscan.2.png\nscan.3\n")
    (tmp_path / "val.txt").write_text("images/scan.4.png\nD:\\data\\images\\scan.5.png\n")
    (tmp_path / "test.txt").write_text("scan.6\nscan.7\n")
    splits = load(tmp_path)
    found = {name: [int(row["id"].split(".")[1]) for row in splits[name]] for name in ("train", "validation", "test")}
    assert found == {"train": [0, 1, 2, 3], "validation": [4, 5], "test": [6, 7]}
    assert splits.ignored == {"images that no list of a split names (the first: images/scan.8.png)": 2}
    (tmp_path / "test.txt").write_text("scan.6\nscan.1\n")
    with pytest.raises(DataError, match=r"train.txt: scan.1 is also in the list of test"):
        load(tmp_path)


def test_an_image_in_two_lists_of_pairs(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"train/{number}.png", f"trainmasks/{number}.png")
    (tmp_path / "train.txt").write_text("".join(f"train/{n}.png trainmasks/{n}.png\n" for n in range(4)))
    (tmp_path / "test.txt").write_text("train/1.png trainmasks/1.png\n")
    with pytest.raises(DataError, match=r"train/1.png is also in the list of test"):
        load(tmp_path)


def test_folders_that_are_called_images_and_masks_are_no_classes(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"images/{number}.png", f"masks/{number}_cell.png", number=number)
    section = DataSection(id=str(tmp_path))
    assert format_module(section).__name__.endswith(".masks")
    for columns in (("image", "mask"), ("image", "label")):
        with pytest.raises(DataError, match=r"no mask has the name of an image; the first masks: masks/0_cell.png, "):
            format_module(section, columns).read(section, ("image", "mask"))


def test_classes_whose_names_are_words_for_masks(tmp_path: Path) -> None:
    for number in range(6):
        for kind in ("target", "clutter"):
            tiny_masks.save(layouts.grey(layouts.truth(number)), tmp_path / "drawings" / kind / f"{number}.png")
    assert format_module(DataSection(id=str(tmp_path / "drawings")), ("image", "label")).__name__.endswith(
        ".imagefolder"
    )
    assert format_module(DataSection(id=str(tmp_path / "drawings")), ("image", "mask")).__name__.endswith(".masks")


def test_a_mask_for_each_object(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"s{number}/images/s{number}.png", f"s{number}/masks/a1.png", f"s{number}/masks/b2.png")
    with pytest.raises(DataError, match="each image has a folder of masks, as in s0/masks"):
        load(tmp_path)


def test_the_names_of_voc_are_only_those_of_its_own_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):
        tiny_masks.save(layouts.picture(number), tmp_path / "mine" / "JPEGImages" / f"{number}.jpg")
        tiny_masks.save(layouts.grey(layouts.truth(number)), tmp_path / "mine" / "SegmentationClass" / f"{number}.png")
    assert load(tmp_path / "mine").labels == ["class 0", "class 1", "class 2"]
    (tmp_path / "mine").rename(tmp_path / "VOC2012")
    caplog.clear()
    assert load(tmp_path / "VOC2012").labels == list(voc.CLASSES)
    assert "read as Pascal VOC's classes" in caplog.text


def squares(folder: Path, *values: int) -> Path:
    """Masks whose classes 0, 1 and 2 have these values."""
    return layouts.folders(folder, lambda classes: layouts.grey(np.array(values)[classes]))


@pytest.mark.parametrize("text", ["cell\n", "cell"])
def test_one_class_and_white_masks(text: str, tmp_path: Path) -> None:
    folder = squares(tmp_path, 0, 255, 255)
    (folder / "classes.txt").write_text(text)
    check(load(folder), [0, 1, 1], ["background", "cell"])


def test_255_is_a_class_if_it_is_the_only_one(tmp_path: Path) -> None:
    folder = squares(tmp_path, 0, 255, 255)
    (folder / "classes.txt").write_text("background\nsquare\ndisc\n")
    with pytest.raises(DataError, match=r"classes.txt names 3 classes, .* and they have 0, 255"):
        load(folder)
    (folder / "classes.txt").unlink()
    (folder / "id2label.json").write_text('{"0": "out", "1": "in"}')
    check(load(folder), [0, 1, 1], ["out", "in"])
    (folder / "id2label.json").write_text('{"0": "out", "1": "in", "2": "edge"}')
    with pytest.raises(DataError, match=r"id2label.json does not name 255"):
        load(folder)


def test_255_is_a_class_next_to_large_values(tmp_path: Path) -> None:
    check(load(squares(tmp_path, 255, 128, 0)), [2, 1, 0], ["class 0", "class 128", "class 255"])


def test_255_is_void_next_to_a_table_without_it(tmp_path: Path) -> None:
    folder = squares(tmp_path, 0, 1, 255)
    (folder / "id2label.json").write_text('{"0": "out", "1": "in"}')
    check(load(folder), [0, 1, IGNORE], ["out", "in"])


def test_masks_of_one_value(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the masks have only one value, 255: there is nothing to tell apart"):
        load(squares(tmp_path, 255, 255, 255))


@pytest.mark.parametrize("odd", ["#1 kind", "3 wheeler", "3 wheeler, 4", "// x"])
def test_no_line_of_a_list_of_names_is_lost(odd: str, tmp_path: Path) -> None:
    folder = layouts.folders(tmp_path)
    (folder / "classes.txt").write_text(f"# my classes\nbackground\n{odd}\ndisc\n\n")
    check(load(folder), [0, 1, 2], ["background", odd, "disc"])


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("classes.txt", "# mine\nbackground\n\ndisc\n", "line 3"),
        ("classes.json", '["background", "", "disc"]', "entry 2"),
        ("classes.json", '["background", null, "disc"]', "entry 2"),
    ],
)
def test_an_empty_name_of_a_list_is_an_error(name: str, text: str, where: str, tmp_path: Path) -> None:
    folder = layouts.folders(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: {where} is empty"):
        load(folder)


@pytest.mark.parametrize("line", ["{0:02d}.jpg,P{1}", "scan{0:02d},P{1}"])
def test_a_table_of_images_is_no_list_of_classes(line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(12):
        put(tmp_path, f"images/scan{number:02d}.jpg", f"masks/scan{number:02d}.png", number=number)
    (tmp_path / "labels.csv").write_text("image,patient\n" + "".join(line.format(n, n) + "\n" for n in range(12)))
    assert load(tmp_path).labels == ["class 0", "class 1", "class 2"]
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    with caplog.at_level(logging.INFO, "graft"):
        assert load(tmp_path).labels == NAMES
    assert "labels.txt names the classes of masks: background, square, disc" in caplog.text


def test_a_table_of_classes_has_limits(tmp_path: Path) -> None:
    folder = layouts.folders(tmp_path)
    (folder / "classes.txt").write_text("".join(f"class {number:x}z\n" for number in range(5000)))
    with pytest.raises(DataError, match=r"classes.txt: 5,000 classes, at most 4,096 are read"):
        load(folder)
    (folder / "classes.txt").write_text("".join(f"{'n' * 900}{number:x}z\n" for number in range(400)))
    with pytest.raises(DataError, match="at most 262,144 are read: shorten them"):
        load(folder)
    (folder / "classes.txt").write_text("a" + "\t" * 1_000_000 + "b\nsquare\ndisc\n")  # minutes without a limit
    assert load(folder).labels == ["a", "square", "disc"]


def stack_of(pages: int) -> bytes:
    """A TIFF of pages of 1 x 1."""
    tags = [(256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 1)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in tags)
    size = len(entries) + 4
    nexts = [16 + size * number for number in range(1, pages)] + [0]
    return b"II*\0" + struct.pack("<IQ", 16, 1) + b"".join(entries + struct.pack("<I", place) for place in nexts)


def test_a_stack_has_a_limit(tmp_path: Path) -> None:
    for kind, pages in (("images", 50_000), ("masks", 60_000)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "1.tif").write_bytes(stack_of(pages))
    with pytest.raises(DataError, match="more than 20,000 pages, which is the most that is read"):
        load(tmp_path)


def test_masks_that_graft_wrote_have_their_names(tmp_path: Path) -> None:
    folder = squares(tmp_path, 0, 1, 255)
    classes: list[dict[str, Any]] = [{"number": n, "name": name, "colour": "#000000"} for n, name in enumerate("ab")]
    (folder / "classes.json").write_text(json.dumps([*classes, {"number": 255, "name": None, "colour": "#ffffff"}]))
    check(load(folder), [0, 1, IGNORE], ["a", "b"])
