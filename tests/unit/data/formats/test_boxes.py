"""Images with boxes: every layout gives the same rows, and what is wrong with boxes is counted or an error."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.image import boxes
from pipelines.data.image.boxes import LabelledBoxes
from pipelines.data.loading import format_module, load_rows
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError
from tests.support import box_layouts

SPEC = DataSpec(columns={"image": "image", "objects": "boxes"})
CAT, DOG = [4, 6, 10, 8], [20, 10, 12, 20]  # boxes in an image of 40 x 30


def picture(path: Path, size=(40, 30), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (len(path.stem), 80, 90))
    exif = image.getexif()
    if orientation:
        exif[274] = orientation
    image.save(path, exif=exif)


def coco(root: Path, things=(("1.jpg", CAT, 7),), size=(40, 30), **changes):
    """A COCO folder with images 1 and 2; `things` are (image, box, category), or complete entries."""
    for name in ("1.jpg", "2.jpg"):
        if not (root / "images" / name).exists():
            picture(root / "images" / name)
    entries = [
        one
        if isinstance(one, dict)
        else {"id": n, "image_id": 11 if one[0] == "1.jpg" else 5, "bbox": one[1], "category_id": one[2]}
        for n, one in enumerate(things, 1)
    ]
    content = {
        "images": [
            {"id": 11, "file_name": "1.jpg", "width": size[0], "height": size[1]},
            {"id": 5, "file_name": "2.jpg", "width": 40, "height": 30},
        ],
        "annotations": entries,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        **changes,
    }
    root.mkdir(exist_ok=True)
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def read(root: Path):
    return load_rows(DataSection(id=str(root)), SPEC)


def yolo(root: Path, lines, names="names: [cat, dog]"):
    picture(root / "images/train/1.jpg")
    picture(root / "images/train/2.jpg")
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/1.txt").write_text(lines)
    (root / "data.yaml").write_text(f"download: rm -rf /\n{names}\n")
    return root


def voc(root: Path, xml):
    picture(root / "JPEGImages/1.jpg")
    (root / "Annotations").mkdir()
    (root / "Annotations/1.xml").write_text(xml)
    return root


VOC = (
    "<annotation><filename>1.jpg</filename><size><width>40</width><height>30</height></size>"
    "<object><name>cat</name><difficult>1</difficult><bndbox><xmin>5</xmin><ymin>7</ymin><xmax>14</xmax>"
    "<ymax>14</ymax></bndbox></object></annotation>"
)


def labelme(root: Path, shapes):
    picture(root / "1.jpg")
    about = {"shapes": shapes, "imagePath": "1.jpg", "imageWidth": 40, "imageHeight": 30}
    (root / "1.json").write_text(json.dumps(about))
    return root


def table(root: Path, text):
    picture(root / "images/1.jpg")
    (root / "boxes.csv").write_text(text)
    return root


SHAPE = {"label": "cat", "shape_type": "rectangle", "points": [[14, 14], [4, 6]]}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("coco", lambda root: coco(root)),
        ("yolo_txt", lambda root: yolo(root, "0 0.225 0.3333333 0.25 0.2666667\n")),
        ("voc", lambda root: voc(root, VOC)),
        ("labelme", lambda root: labelme(root, [SHAPE])),
        ("boxes_csv", lambda root: table(root, "image,x,y,width,height,label\n1.jpg,4,6,10,8,cat\n")),
        (
            "boxes_csv",
            lambda root: table(
                root, "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n1,cat,0.1,0.35,0.2,0.4666667,1\n"
            ),
        ),
        (
            "boxes_csv",
            lambda root: table(root, "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,40,30,cat,4,6,14,14\n"),
        ),
    ],
)
def test_layouts_are_recognised_and_give_equal_rows(tmp_path, name, make):
    root = make(tmp_path / "data")
    assert format_module(DataSection(id=str(root))).__name__.endswith(f".{name}")
    _, rows, skipped = read(root)
    one = next(row for row in rows if row["image"]["path"].endswith("1.jpg"))
    assert one["objects"][0]["box"] == pytest.approx(CAT, abs=1e-4)
    assert one["objects"][0]["label"] == "cat"
    assert one["objects"][0]["area"] == pytest.approx(80, abs=1e-3)
    assert (one["width"], one["height"], skipped) == (40, 30, [])


def box(values):
    return lambda root: coco(root, [("1.jpg", values, 7), ("1.jpg", CAT, 7)])


def mask(values):
    entry = {"id": 1, "image_id": 11, "bbox": CAT, "category_id": 7, "segmentation": values}
    return lambda root: coco(root, [entry])


def line(text):
    return lambda root: yolo(root, f"0 0.5 0.5 0.2 0.2\n{text}\n")


def cell(text):
    return lambda root: table(root, f"image,x,y,width,height,label\n1.jpg,4,6,10,8,cat\n{text}\n")


COUNTED = [
    (box([50, 6, 10, 8]), boxes.OUTSIDE, 1),
    (box([-20, 6, 10, 8]), boxes.OUTSIDE, 1),
    (box([4, 6, 0, 8]), boxes.EMPTY, 1),
    (box([4, 6, 10, 0]), boxes.EMPTY, 1),
    (box([4, 6, -3, 8]), boxes.REVERSED, 1),
    (box([float("nan"), 6, 10, 8]), boxes.NUMBERS, 1),
    (box([4, 6, float("inf"), 8]), boxes.NUMBERS, 1),
    (box([4, 6, 10]), boxes.NUMBERS, 1),
    (box([4, 6, 10, "wide"]), boxes.NUMBERS, 1),
    (box({"x": 4}), boxes.NUMBERS, 1),
    (box(None), boxes.NUMBERS, 1),
    (box([30, 6, 20, 8]), boxes.CLIPPED, 2),
    (lambda root: coco(root, [("1.jpg", CAT, 99), ("1.jpg", CAT, 7)]), boxes.NO_CLASS, 1),
    (lambda root: coco(root, [("1.jpg", CAT, None), ("1.jpg", CAT, 7)]), boxes.NO_CLASS, 1),
    (mask([[1, 2, 3, 4]]), boxes.NO_MASK, 1),
    (mask([[1, 2, 3, 4, 5, 6, 7]]), boxes.NO_MASK, 1),
    (mask([[1, 2, 3, "a", 5, 6]]), boxes.NO_MASK, 1),
    (mask({"size": [30, 40], "counts": [10, 20]}), boxes.NO_MASK, 1),
    (mask({"size": [30, 40], "counts": [1300, -100]}), boxes.NO_MASK, 1),
    (mask({"size": [30, 40], "counts": "~~~~"}), boxes.NO_MASK, 1),
    (mask({"size": [2, 2], "counts": [2, 2]}), boxes.NO_MASK, 1),
    (mask({"size": [0, 40], "counts": []}), boxes.NO_MASK, 1),
    (mask({"counts": [1200]}), boxes.NO_MASK, 1),
    (mask("polygon"), boxes.NO_MASK, 1),
    (line("0 0.5 0.5 0.2 0.2 0.9"), "lines that are neither", 1),
    (line("0 0.5 0.5"), "lines that are neither", 1),
    (line("cat 0.5 0.5 0.2 0.2"), boxes.NUMBERS, 1),
    (line("7 0.5 0.5 0.2 0.2"), boxes.NO_CLASS, 1),
    (line("0 0.5 0.5 0 0.2"), boxes.EMPTY, 1),
    (line("0 nan 0.5 0.1 0.2"), boxes.NUMBERS, 1),
    (cell("1.jpg,4,6,wide,8,cat"), boxes.NUMBERS, 1),
    (cell("1.jpg,4,6,10,8,"), boxes.NO_CLASS, 1),
    (cell("1.jpg,4,6"), boxes.NO_CLASS, 1),
    (lambda root: labelme(root, [SHAPE, {**SHAPE, "points": [["a", 1]]}]), boxes.NUMBERS, 1),
    (lambda root: labelme(root, [SHAPE, {**SHAPE, "shape_type": "line"}]), "shapes that are neither", 1),
    (lambda root: labelme(root, [SHAPE, "text"]), boxes.NUMBERS, 1),
]


@pytest.mark.parametrize(("make", "what", "kept"), COUNTED)
def test_bad_boxes_are_counted_and_named(tmp_path, caplog, make, what, kept):
    root = make(tmp_path / "data")
    with caplog.at_level(logging.WARNING, "graft"):
        _, rows, _ = read(root)
    found = [r.getMessage() for r in caplog.records if what in r.getMessage()]
    assert len(found) == 1
    assert f": 1 {what}" in found[0]
    assert sum(len(row["objects"]) for row in rows) == kept
    assert not any(one["mask"] for row in rows for one in row["objects"])


MISTAKES = [
    (lambda root: coco(root, [("1.jpg", [4, 6, 39, 29], 7), ("1.jpg", [20, 9, 30, 28], 7)] * 3), "corners"),
    (lambda root: coco(root, [("1.jpg", [2, 31, 5, 6], 7), ("1.jpg", [4, 28, 5, 6], 7)] * 3), "exchanged"),
    (lambda root: coco(root, [("1.jpg", [0.1, 0.2, 0.3, 0.4], 7)] * 4), "between 0 and 1"),
    (lambda root: coco(root, [("1.jpg", [400, 300, 90, 90], 7)] * 4), "outside"),
    (lambda root: yolo(root, "0 20 15 9 9\n" * 4), "pixels"),
    (lambda root: coco(root, images=[]), "images"),
    (lambda root: coco(root, categories=[]), "categories"),
    (lambda root: coco(root, categories=[{"id": 1, "name": "cow"}]), "no box can be used"),
    (lambda root: coco(root, annotations=["x"]), "list of objects"),
    (lambda root: yolo(root, "0 0.5 0.5 0.2 0.2\n", "names: {a: cat}"), "each class has a number"),
    (lambda root: yolo(root, "0 0.5 0.5 0.2 0.2\n", "names: [cat"), "cannot be read"),
    (lambda root: yolo(root, "0 0.5 0.5 0.2 0.2\n", ""), "names of classes"),
    (lambda root: voc(root, VOC[:-20]), "no complete XML"),
    (lambda root: voc(root, '<!DOCTYPE a [<!ENTITY b "c">]>' + VOC), "DOCTYPE"),
    (lambda root: voc(root, VOC.replace("1.jpg", "../../secret.jpg").replace("<width>40", "<width>41")), "41 x 30"),
]


@pytest.mark.parametrize(("make", "why"), MISTAKES)
def test_mistakes_in_all_boxes_are_named(tmp_path, make, why):
    root = make(tmp_path / "data")
    with pytest.raises(DataError, match=why) as error:
        read(root)
    assert len(str(error.value).splitlines()) == 1


def test_json_that_is_cut_off(tmp_path):
    file = coco(tmp_path / "data") / "annotations.json"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(DataError, match="not complete JSON"):
        read(tmp_path / "data")


def test_images_that_are_missing_or_of_another_size_or_of_two_folders_are_skipped(tmp_path):
    root = coco(tmp_path / "data", size=(80, 60))
    _, rows, skipped = read(root)
    assert len(rows) == 1
    assert "80 x 60" in skipped[0][1]
    (root / "images/2.jpg").unlink()
    picture(root / "a/2.jpg")
    picture(root / "b/2.jpg")
    coco(root).joinpath("images/2.jpg").unlink()
    _, rows, skipped = read(root)
    assert len(rows) == 1
    assert "2 files have the name '2.jpg'" in skipped[0][1]


def test_ten_thousand_boxes_on_one_image(tmp_path):
    _, rows, _ = read(coco(tmp_path / "data", [("1.jpg", CAT, 7)] * 10_000))
    assert max(len(row["objects"]) for row in rows) == 10_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_turned_images_fit_the_upright_image(tmp_path, orientation):
    picture(tmp_path / "data/images/1.jpg", orientation=orientation)
    entry = {"id": 1, "image_id": 11, "bbox": CAT, "category_id": 7, "segmentation": [[4, 6, 14, 6, 14, 14, 4, 14]]}
    _, rows, _ = read(coco(tmp_path / "data", [entry]))
    example = LabelledBoxes(rows, ["dog", "cat"], masks=True)[0]
    expected = {5: [6, 4, 14, 14], 6: [16, 4, 24, 14], 7: [16, 26, 24, 36], 8: [6, 26, 14, 36]}
    x1, y1, x2, y2 = expected.get(orientation, [4, 6, 14, 14])
    assert example["boxes"].tolist() == [[x1, y1, x2, y2]]
    assert example["classes"].tolist() == [1]
    assert example["size"] == ((40, 30) if orientation > 4 else (30, 40)) == example["image"].size[::-1]
    assert example["masks"][0].sum() == example["masks"][0][y1:y2, x1:x2].sum() == 80


def test_files_of_one_origin_are_a_group(tmp_path):
    root = yolo(tmp_path / "data", "0 0.5 0.5 0.2 0.2\n")
    assert "origin" not in read(root)[1].column_names
    names = ("s1_x0_y9", "s1_x9_y9", "walk_frame_0007", "walk_frame_0008", "cat_jpg.rf.0a1b2c3d", "cat_jpg.rf.ff1b2c3d")
    for name in names:
        picture(root / f"images/train/{name}.jpg")
    rows = read(root)[1]
    found = [Path(one).name for one in rows["origin"]]
    assert sorted(found) == ["1.jpg", "2.jpg", "cat_jpg", "cat_jpg", "s1", "s1", "walk", "walk"]


@pytest.mark.parametrize("layout", ["lists", "corners", "objects"])
def test_objects_of_hub_data_sets(tmp_path, caplog, layout):
    from datasets import ClassLabel, Dataset, Features, List, Value
    from datasets import Image as ImageColumn

    picture(tmp_path / "1.png")
    names = ClassLabel(names=["dog", "cat"])
    numbers = List(Value("float32"))
    objects = {"bbox": List(numbers), "category": List(names)}
    boxes_ = [CAT, DOG] if layout != "corners" else [[4, 6, 14, 14], [20, 10, 32, 30], [30, 20, 40, 29]]
    cell = {"bbox": boxes_, "category": [1, 0, 1][: len(boxes_)]}
    if layout == "objects":
        objects = List({"bbox": numbers, "category": names})
        cell = [{"bbox": one, "category": label} for one, label in zip(boxes_, [1, 0], strict=True)]
    features = Features({"image": ImageColumn(), "width": Value("int32"), "objects": objects})
    content = {
        "image": [{"bytes": (tmp_path / "1.png").read_bytes(), "path": None}] * 2,
        "width": [40, 40],
        "objects": [cell, cell],
    }
    (tmp_path / "data").mkdir()
    Dataset.from_dict(content, features=features).to_parquet(tmp_path / "data/train.parquet")
    with caplog.at_level(logging.WARNING, "graft"):
        _, rows, skipped = read(tmp_path / "data")
    found = rows[0]["objects"]
    assert [one["label"] for one in found[:2]] == ["cat", "dog"]
    assert [one["box"] for one in found[:2]] == [CAT, DOG]
    assert (rows[0]["width"], rows[0]["height"], skipped) == (40, 30, [])
    assert ("read as such" in caplog.text) == (layout == "corners")


# ---- files of one name ----


def splits_of(root: Path):
    section = DataSection(id=str(root))
    return format_module(section).read(section, ("image", "objects"))


def two_parts(root: Path, layout) -> Path:
    """train/ and valid/ in one layout, with equal names; the images of `valid` are red."""
    for part, colour in (("train", "grey"), ("valid", "red")):
        layout(root / part)
        for file in (root / part).rglob("*.png"):
            with Image.open(file) as image:
                size = image.size
            Image.new("RGB", size, colour).save(file)
    return root


@pytest.mark.parametrize("layout", [box_layouts.coco, box_layouts.labelme])
def test_images_of_one_name_stay_with_their_split(layout, tmp_path):
    root = two_parts(tmp_path / "data", layout)
    source = splits_of(root)
    assert set(source.splits) == {"train", "validation"}
    for split, part, colour in (("train", "train", "grey"), ("validation", "valid", "red")):
        rows = source.splits[split]
        assert all(f"/{part}/" in row["image"]["path"] for row in rows)
        example = LabelledBoxes(rows, ["circle", "square", "triangle"])[0]
        assert example["image"].getpixel((0, 0)) == ((128,) * 3 if colour == "grey" else (255, 0, 0))


def test_a_folder_that_is_train_and_validation_is_train(tmp_path, caplog):
    root = box_layouts.yolo(tmp_path / "data")
    (root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [circle, square, triangle]\n")
    with caplog.at_level(logging.WARNING, "graft"):
        source = splits_of(root)
    assert {split: len(rows) for split, rows in source.splits.items()} == {"train": box_layouts.N}
    assert "val is the folder of train" in caplog.text


def test_yolo_lines_with_tabs_and_decimal_classes_are_found(tmp_path):
    root = box_layouts.yolo(tmp_path / "data")
    before = list(splits_of(root).splits["train"]["objects"])
    for file in root.rglob("0*.txt"):
        lines = [line.split(" ") for line in file.read_text().splitlines()]
        file.write_text("".join("\t".join([f"{int(first)}.0", *others]) + "\n" for first, *others in lines))
    assert list(splits_of(root).splits["train"]["objects"]) == before


def test_many_masks_make_an_image_smaller(tmp_path, monkeypatch):
    source = splits_of(box_layouts.coco(tmp_path / "data"))
    examples = LabelledBoxes(source.splits["train"], ["circle", "square", "triangle"], masks=True)
    number = max(range(len(examples)), key=lambda place: len(examples[place]["boxes"]))
    whole = examples[number]
    monkeypatch.setattr(boxes, "MASK_BYTES", len(whole["masks"]) * 24 * 24)
    small = examples[number]
    assert sum(mask.size for mask in small["masks"]) <= boxes.MASK_BYTES < sum(mask.size for mask in whole["masks"])
    assert small["image"].size == small["masks"][0].shape[::-1] == small["size"][::-1]
    share = small["image"].width / whole["image"].width
    assert small["boxes"] == pytest.approx(whole["boxes"] * share, abs=1)
    for mask, box in zip(small["masks"], small["boxes"], strict=True):
        assert mask.any()
        ys, xs = mask.nonzero()
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(box, abs=1.5)
