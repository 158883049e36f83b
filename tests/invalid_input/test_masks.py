"""Images with masks that nobody can learn from, or only in part.

Every case begins with data that are right, and spoils them. The error says what is wrong, where and what to do; what is
left out is counted and named.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data import maps
from pipelines.data.image.label_maps import LabelMaps, read_map, read_segments
from pipelines.data.loading import load_splits
from pipelines.data.schema import Splits
from pipelines.errors import DataError, GraftError
from tests.support import mask_layouts as layouts
from tests.support import tiny_masks

Change = Callable[[Path], object]


def load(folder: Path, **keys: Any) -> Splits:
    return load_splits(DataSection(id=str(folder), **keys), maps.spec())


def folders(folder: Path) -> Path:
    """images/train/00.jpg, masks/train/00.png and classes.txt."""
    layouts.folders(folder)
    (folder / "classes.txt").write_text("background\nsquare\ndisc\n")
    return folder


def masks(folder: Path) -> list[Path]:
    return sorted((folder / "masks").rglob("*.png"))


def on_all(change: Callable[[np.ndarray], Image.Image], suffix: str = ".png", **how: Any) -> Change:
    """Write another mask in place of each."""

    def apply(folder: Path) -> None:
        for file in masks(folder):
            values = np.array(Image.open(file))
            file.unlink()
            change(values).save(file.with_suffix(suffix), **how)

    return apply


def on_one(change: Callable[[np.ndarray], Image.Image]) -> Change:
    """Write another mask in place of the first."""
    return lambda folder: change(np.array(Image.open(masks(folder)[0]))).save(masks(folder)[0])


def smooth(values: np.ndarray) -> Image.Image:
    """Two values with smoothed edges."""
    return layouts.grey((values > 0) * 255).resize((64, 48), Image.Resampling.BICUBIC).resize((32, 24))


def without_names(change: Change) -> Change:
    def apply(folder: Path) -> None:
        (folder / "classes.txt").unlink()
        change(folder)

    return apply


def edit(name: str, change: Callable[[Any], object]) -> Change:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def replace(name: str, old: str, new: str) -> Change:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


ANY = (" ", 1)
Case = tuple[Callable[[Path], Path], Change, tuple[str, ...]]

REFUSED: dict[str, Case] = {
    "masks of another size": (
        folders,
        on_all(lambda values: layouts.grey(values[:12])),
        (
            "no mask can be used; the first: images/train/00.jpg: a mask of 32 x 12 pixels, and an image of 32 x 24",
            "nearest",
        ),
    ),
    "values that a list does not name": (
        folders,
        on_all(lambda values: layouts.grey(values + 7)),
        ("classes.txt names 3 classes, so the masks are to have the values 0 to 2, and they have 7, 8", "mask_classes"),
    ),
    "a value without a class": (
        folders,
        on_all(lambda values: layouts.grey(np.where(values == 1, 9, values))),
        ("masks of train can be used", "the value 9 in ", "data.mask_classes"),
    ),
    "JPEG masks": (
        folders,
        on_all(lambda values: layouts.grey(values * 100), ".jpg"),
        ("no class", "as JPEG compression changes them", "save masks as PNG"),
    ),
    "JPEG masks without names": (
        folders,
        without_names(on_all(lambda values: layouts.grey((values > 0) * 255), ".jpg", quality=60)),
        ("as JPEG compression changes them", "save masks as PNG"),
    ),
    "smoothed edges": (folders, on_all(smooth), ("as smoothed (anti-aliased) edges do", "without smoothing")),
    "smoothed edges without names": (
        folders,
        without_names(on_all(smooth)),
        ("as smoothed (anti-aliased) edges do", "without smoothing"),
    ),
    "numbers of objects": (
        folders,
        without_names(
            on_all(lambda values: Image.fromarray(np.arange(values.size, dtype=np.uint16).reshape(values.shape)))
        ),
        ("values", "numbers of objects", "save class numbers"),
    ),
    "colours without a table": (
        folders,
        without_names(on_all(layouts.coloured)),
        ("in colour (3 colours: 0,0,0; ", 'data.mask_classes={"r,g,b": NAME', "class_dict.csv"),
    ),
    "colours that are not in the table": (
        folders,
        lambda folder: (
            on_all(layouts.coloured)(folder),
            (folder / "classes.txt").write_text("background 0 0 0\nblob 9 9 9\n"),
        ),
        ("masks of train can be used", "the colour", "128,0", "data.mask_classes"),
    ),
    "fractions": (
        folders,
        on_all(lambda values: Image.fromarray(values.astype(np.float32) / 2), ".tif"),
        ("whole numbers", "fractions"),
    ),
    "masks that are no images": (
        folders,
        lambda folder: [file.write_bytes(b"no image") for file in masks(folder)],
        ("not a readable image",),
    ),
    "everything is ignored": (
        folders,
        lambda folder: (folder / "classes.txt").write_text("void\nignore\nunlabelled\n"),
        ("no class", "data.mask_classes"),
    ),
    "only ignored pixels": (
        folders,
        lambda folder: (
            on_all(lambda values: layouts.grey(values * 0))(folder),
            (folder / "classes.txt").write_text("void\nsquare\ndisc\n"),
        ),
        ("every pixel of train is ignored",),
    ),
    "a list of pairs that are not here": (
        folders,
        lambda folder: (folder / "train.txt").write_text("a/1.jpg a/1.png\n"),
        ("train.txt: 1 of 1 lines name no image and mask here", "a/1.jpg"),
    ),
    "a table that is no JSON": (
        folders,
        lambda folder: ((folder / "classes.txt").unlink(), (folder / "classes.json").write_text("{")),
        ("classes.json: no JSON",),
    ),
    "no masks of these images": (
        folders,
        lambda folder: [file.rename(file.with_name(f"x{file.name}")) for file in masks(folder)],
        ("cannot be read", "format=masks"),
    ),
    "images without masks": (
        folders,
        lambda folder: shutil.rmtree(folder / "masks"),
        ("no masks that Graft can read (found: classes.txt, images)", "1_mask.png"),
    ),
    "Cityscapes without label ids": (
        layouts.cityscapes,
        lambda folder: [file.unlink() for file in folder.rglob("*labelIds.png")],
        ("none of 8 images of train", "no mask ulm_000000_000019_gtFine_labelIds.png"),
    ),
    "an unknown id of Cityscapes": (
        layouts.cityscapes,
        lambda folder: [layouts.grey(np.full((24, 32), 77)).save(file) for file in folder.rglob("*labelIds.png")],
        ("the value 77", "leftImg8bit"),
    ),
    "ADE20K without masks": (
        layouts.ade20k,
        lambda folder: [file.unlink() for file in (folder / "annotations").rglob("*.png")],
        ("no mask annotations/training/ADE_train_00000000.png",),
    ),
    "another list of classes of ADE20K": (
        layouts.ade20k,
        lambda folder: (folder / "objectInfo150.txt").write_text("wall\nbuilding\n"),
        ("objectInfo150.txt", "Idx, Ratio, Train, Val, Name"),
    ),
    "a trimap with a fourth value": (
        layouts.pets,
        lambda folder: [layouts.grey(np.full((24, 32), 4)).save(file) for file in folder.rglob("*.png")],
        ("the value 4", "images/Birman_"),
    ),
    "VOC's masks as RGB": (
        layouts.voc,
        lambda folder: [
            Image.open(file).convert("RGB").save(file) for file in folder.rglob("*/SegmentationClass/*.png")
        ],
        ("the mask is in colour", "grey PNG"),
    ),
    "VOC's lists of other files": (
        layouts.voc,
        lambda folder: [file.write_text("x\n") for file in folder.rglob("Segmentation/*.txt")],
        ("no mask that a list of ImageSets/Segmentation names",),
    ),
    "segments without a list": (
        layouts.panoptic,
        edit("annotations/panoptic_train.json", lambda c: [one.update(segments_info={}) for one in c["annotations"]]),
        ("segments_info is no list",),
    ),
    "a segment of an unknown category": (
        layouts.panoptic,
        edit("annotations/panoptic_train.json", lambda c: c["categories"].pop(0)),
        ("segment 5 has a category that the file does not list",),
    ),
    "a category without a name": (
        layouts.panoptic,
        edit("annotations/panoptic_train.json", lambda c: c["categories"][0].pop("name")),
        ("a category has an id and a name",),
    ),
    "run lengths that leave the image": (
        layouts.kaggle,
        lambda folder: layouts.table(
            folder / "train.csv", ["ImageId", "EncodedPixels"], [[f"{n}.jpg", "700 90"] for n in range(12)]
        ),
        ("no object has a mask", "a run leaves its image of 32 x 24 pixels", "line 2 of train.csv"),
    ),
    "run lengths that are none": (
        layouts.kaggle,
        lambda folder: layouts.table(
            folder / "train.csv", ["ImageId", "EncodedPixels"], [[f"{n}.jpg", "1 2 x"] for n in range(12)]
        ),
        ("no object has a mask", "no pairs of a first pixel and a count"),
    ),
    "boxes without masks": (
        lambda folder: folder,
        lambda folder: boxes_alone(folder),
        ("no object has a mask", "polygons or run lengths"),
    ),
    "a stack with fewer masks": (
        layouts.stack,
        lambda folder: [layouts.grey(layouts.truth(0)).save(file) for file in (folder / "masks").glob("*.tif")],
        ("none of 3 images", "the image has 4 pages, and its mask 1"),
    ),
}


def boxes_alone(folder: Path) -> None:
    tiny_masks.save(layouts.picture(0), folder / "0.png")
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 32, "height": 24}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_no_task_can_learn_from(name: str, tmp_path: Path) -> None:
    make, spoil, parts = REFUSED[name]
    folder = make(tmp_path / "data")
    spoil(folder)
    keys = {"format": "masks"} if "format=masks" in parts else {}
    with pytest.raises(DataError) as caught:
        load(folder, **keys)
    message = str(caught.value)
    for part in parts:
        if part not in ("cannot be read", "format=masks"):
            assert part in message, message
    assert message.count("\n") <= 1
    assert "Traceback" not in message


SKIPPED: dict[str, Case] = {
    "a mask of another size": (
        folders,
        on_one(lambda values: layouts.grey(values[:12])),
        ("images/train/00.jpg: a mask of 32 x 12 pixels, and an image of 32 x 24",),
    ),
    "a value without a class": (
        folders,
        on_one(lambda values: layouts.grey(np.where(values == 0, 9, values))),
        ("images/train/00.jpg: the mask has the value 9 in ", "data.mask_classes"),
    ),
    "a mask in colour": (folders, on_one(layouts.coloured), ("images/train/00.jpg: the mask is in colour",)),
    "a damaged mask": (
        folders,
        lambda folder: masks(folder)[0].write_bytes(masks(folder)[0].read_bytes()[:60]),
        ("00.png", "not a readable image"),
    ),
    "a damaged image": (
        folders,
        lambda folder: (folder / "images" / "train" / "00.jpg").write_bytes(b"x"),
        ("00.jpg", "not a readable image"),
    ),
    "a smoothed mask": (
        folders,
        without_names(
            lambda folder: (
                on_all(lambda values: layouts.grey((values > 0) * 255))(folder),
                on_one(lambda values: smooth(values))(folder),
            )
        ),
        ("images/train/00.jpg: the mask has ", "save masks as PNG"),
    ),
    "a missing mask": (
        layouts.cityscapes,
        lambda folder: next(iter(sorted((folder / "gtFine" / "train").rglob("*labelIds.png")))).unlink(),
        ("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png: no mask ulm_000000",),
    ),
    "segments that the list does not name": (
        layouts.panoptic,
        edit("annotations/panoptic_train.json", lambda c: c["annotations"][0]["segments_info"].append({"id": "x"})),
        ("0.jpg: its segments_info is no list of segments",),
    ),
    "a page too few": (
        lambda folder: layouts.stack(folder, 6),
        lambda folder: layouts.grey(layouts.truth(0)).save(folder / "masks" / "0.tif"),
        ("images/0.tif: the image has 4 pages, and its mask 1",),
    ),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_one_bad_mask_is_skipped_and_named(name: str, tmp_path: Path) -> None:
    make, spoil, parts = SKIPPED[name]
    folder = make(tmp_path / "data")
    spoil(folder)
    splits = load(folder)
    skipped = list({row for rows in splits.skipped.values() for row in rows})
    assert len(skipped) == 1
    for part in parts:
        assert part in skipped[0][1]


KEYS: dict[str, tuple[Any, str]] = {
    "no value": ({"sky": "0"}, "'sky' is no value of a mask"),
    "a colour that is none": ({"300,0,0": "sky"}, "is no value of a mask"),
    "a negative value": ({"-1": "sky"}, "is no value of a mask"),
    "values and colours": ({"1": "sky", "0,0,0": "road"}, "values and colours"),
    "an empty name": ({"0": " "}, "0 has an empty name"),
    "nothing but ignored": ({"0": None, "1": None, "2": None}, "ignores every value"),
    "a value too few": ({"0": "a", "1": "b"}, "the value 2 in"),
}


@pytest.mark.parametrize("name", KEYS)
def test_data_mask_classes_that_are_wrong(name: str, tmp_path: Path) -> None:
    given, part = KEYS[name]
    with pytest.raises(DataError, match=re.escape(part)):
        load(folders(tmp_path / "data"), mask_classes=given)


def test_data_mask_classes_where_they_have_no_effect(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shapes with names"):
        load(layouts.kaggle(tmp_path / "data"), mask_classes={"0": "a"})
    folder = folders(tmp_path / "images")
    with pytest.raises(DataError, match="this task has none"):
        load_splits(DataSection(id=str(folder), mask_classes={"0": "a"}), maps.DataSpec(columns=["image"]))
    with pytest.raises(DataError, match="task has no column 'label'"):
        load(folder, columns={"label": "x"})
    with pytest.raises(DataError, match="have no columns"):
        load(folder, columns={"mask": "x"})


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "a legend that is no JSON": ({"legend": "{"}, "its legend is no JSON"),
    "a legend that is a list": ({"legend": "[]"}, "its legend is no JSON object"),
    "a deep legend": ({"legend": '{"values":' + "[" * 9000 + "]" * 9000 + "}"}, "legend"),
    "a value that is no number": ({"legend": '{"values": {"x": "a"}}'}, "its legend cannot be read"),
    "a huge value": ({"legend": '{"values": {"99999999999": "a"}}'}, "no value of a pixel"),
    "a name that is none": ({"legend": '{"values": {"0": [1]}}'}, "no name of a class"),
    "a colour that is none": ({"legend": '{"colors": {"0,0": "a"}}'}, "0,0 is no colour"),
    "no mask and no shapes": ({"mask": None}, "no mask here, and no shapes"),
    "shapes that are no list": ({"mask": None, "shapes": "{}"}, "shapes are no JSON list"),
    "a shape without a label": ({"mask": None, "shapes": "[1]"}, "shape 1 is no object"),
    "a polygon with two points": (
        {"mask": None, "shapes": '[{"label": "a", "segmentation": [[1, 1, 2, 2]]}]'},
        "three points or more",
    ),
    "an endless polygon": (
        {"mask": None, "shapes": '[{"label": "a", "segmentation": [[1, 1, 1e300, 2, 3, 3]]}]'},
        "three points or more",
    ),
    "run lengths of another image": (
        {"mask": None, "shapes": '[{"label": "a", "segmentation": {"size": [9, 9], "counts": [81]}}]'},
        "9 x 9 pixels",
    ),
    "broken run lengths": (
        {"mask": None, "shapes": '[{"label": "a", "segmentation": {"size": [24, 32], "counts": [1]}}]'},
        "run lengths are broken",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_cannot_be_read_names_itself(name: str, tmp_path: Path) -> None:
    changes, part = ROWS[name]
    image, mask = (str(tmp_path / f"{kind}.png") for kind in ("image", "mask"))
    layouts.picture(0).save(image)
    layouts.grey(layouts.truth(0)).save(mask)
    legend = '{"values": {"0": "a", "1": "b", "2": null}}'
    row: dict[str, Any] = {"id": "photo 7", "image": image, "mask": mask, "legend": legend, "shapes": None} | changes
    with pytest.raises(DataError, match=re.escape(part)) as caught:
        read_map(row, ["a", "b"])
    assert str(caught.value).startswith("photo 7: ")


def test_hostile_files(tmp_path: Path) -> None:
    """Names that a terminal would obey, links, and pages and sizes that no file has."""
    folder = folders(tmp_path / "data")
    (folder / "classes.txt").write_text("back\x1b[31mground\nsquare\x00\ndisc\n")
    assert all(name.isprintable() for name in load(folder).labels or [])
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 8_000)).save(bomb)
    with pytest.raises(DataError, match="at most 128,000,000"):
        read_map({"id": "x", "image": str(bomb), "mask": str(bomb), "legend": None}, ["a"], (20_000, 8_000))
    value = {"path": str(next((folder / "images").rglob("*.jpg"))), "bytes": None, "page": 3}
    with pytest.raises(DataError, match="no page 4: the file has 1"):
        LabelMaps([{"id": "x", "image": value, "mask": None, "shapes": "[]"}], ["a"])[0]
    with pytest.raises(DataError, match="x: its mask has no segments"):
        read_segments({"id": "x", "image": value, "mask": None}, ["a"])
    (folder / "masks" / "loop").symlink_to(folder / "masks")
    assert len(load(folder).train) == 7
    shutil.rmtree(folder)
    with pytest.raises(GraftError):
        load(folder)
