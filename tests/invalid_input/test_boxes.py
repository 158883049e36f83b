"""Images with boxes and masks that nobody can learn from, or only in part, through the command line.

Every case begins with data that are right, and spoils them. The error says what is wrong, where and what to do, and
ends with exit code 2; what is left out is counted and named.
"""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from tests.support import tiny_boxes
from tests.support.box_layouts import coco, edit, labelme, open_images, table, voc, yolo
from tests.support.command import Done, graft, refused

SMALL = (
    "{model_type: torchvision, architecture: %s, backbone: mobilenetv3_small_050, image_size: 32, fpn_channels: 8, "
    "proposals: 8, samples: 8}"
)
RECIPE = """task: {task}
model: {{config: {config}}}
data: {{id: nowhere, workers: 0}}
train: {{max_steps: 2, batch_size: 4, learning_rate: 1.0e-3, warmup: 0, precision: fp32, log_every: 1}}
"""


def run(verb: str, folder: Path, data: Path, *more: Any, masks: bool = False) -> Done:
    """A verb on a recipe for boxes, or masks. Everything but the data is right."""
    recipe = folder / "recipe.yaml"
    kind = SMALL % ("maskrcnn" if masks else "fasterrcnn")
    recipe.write_text(RECIPE.format(task="instance-segmentation" if masks else "object-detection", config=kind))
    return graft(verb, recipe, "--data", data, *more)


# ---- what is done to data that are right ----


def first(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """Change the first annotation."""
    return lambda content: content["annotations"][0].update(changes)


def every(change: Callable[[dict[str, Any]], object], key: str = "annotations") -> Callable[[dict[str, Any]], object]:
    return lambda content: [change(one) for one in content[key]]


def box_of(change: Callable[..., list[Any]]) -> Callable[[dict[str, Any]], object]:
    """Change all boxes: `change` gets x, y, width, height."""
    return every(lambda one: one.update(bbox=change(*one["bbox"])))


def exchanged(content: dict[str, Any]) -> None:
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["bbox"] = [y, x, h, w]


def spoiled(data: Path, pattern: str, change: Callable[[str], str]) -> Path:
    """Change the text of the files that the pattern names."""
    files = sorted(data.glob(pattern))
    assert files, pattern
    for file in files:
        file.write_text(change(file.read_text()))
    return data


def image(data: Path, name: str = "images/0000.png", content: bytes | None = None) -> Path:
    """An image is removed, or gets this content."""
    (data / name).unlink()
    if content is not None:
        (data / name).write_bytes(content)
    return data


def edited(data: Path, **changes: Any) -> Path:
    """Change the first file of LabelMe."""
    edit(data / "0000.json", lambda content: content.update(changes))
    return data


def pixels(old: str) -> str:
    """Lines of YOLO in pixels."""
    lines = [line.split() for line in old.splitlines()]
    return "".join(f"{line[0]} {' '.join(str(round(float(v) * 48)) for v in line[1:])}\n" for line in lines)


def names(value: Any) -> Callable[[str], str]:
    return lambda old: old.partition("names")[0] + value + "\n"


def damaged(data: Path, count: int | None = 1, pattern: str = "**/*.png") -> Path:
    for file in sorted(data.glob(pattern))[:count]:
        file.write_bytes(file.read_bytes()[:40])
    return data


def first_line(line: str) -> Callable[[str], str]:
    return lambda old: line + "\n" + old.partition("\n")[2]


def bomb(xml: str) -> str:
    lines = "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10 if n else "lol"}">' for n in range(9))
    return f"<!DOCTYPE annotation [{lines}]>{xml.replace('circle', '&b8;')}"


def hostile_names(content: dict[str, Any]) -> None:
    names = ("<script>alert(1)</script>", "x" * 10_000, "a\x1b[31mred\x00\n\r\u202e")
    for one, name in zip(content["categories"], names, strict=True):
        one["name"] = name


def two_of_one_name(folder: Path) -> Path:
    data = coco(folder)
    for place in ("a", "b"):
        (data / place).mkdir()
        shutil.copy(data / "images" / "0000.png", data / place)
    (data / "images" / "0000.png").unlink()
    return data


def secret(data: Path) -> Path:
    """An image next to the folder of the data."""
    shutil.copy(next(data.rglob("0000.png")), data.parent / "secret.png")
    return data


def classes(folder: Path) -> Path:
    """An image-classification folder."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for n in range(6):
            Image.new("RGB", (32, 32), (n * 9, 40, 60)).save(folder / label / f"{n}.png")
    return folder


def only(count: int) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(images=content["images"][:count])


def file_name(value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["images"][0].update(file_name=value)


# ---- refused ----

CIRCLES = "circle, square, triangle"
NO_BOXES = ("no boxes that Graft can read", "give COCO's JSON")
# what to spoil -> the words of the error
REFUSED: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "all images damaged": (
        lambda t: damaged(coco(t), None),
        ("none of 12 images of train", "0000.png: not a readable"),
    ),
    "JSON cut off": (
        lambda t: spoiled(coco(t), "annotations.json", lambda s: s[:-30]),
        ("annotations.json: not complete JSON",),
    ),
    "JSON cut off early": (
        lambda t: spoiled(coco(t), "annotations.json", lambda s: s[:40]),
        (*NO_BOXES, "annotations.json is cut off"),
    ),
    "a list at the top": (
        lambda t: spoiled(coco(t), "annotations.json", lambda s: f"[{s}]"),
        (*NO_BOXES, "annotations.json begins with [, not {"),
    ),
    "an empty JSON": (lambda t: spoiled(coco(t), "*.json", lambda s: ""), (*NO_BOXES, "annotations.json is empty")),
    "JSON nested without end": (
        lambda t: spoiled(coco(t), "*.json", lambda s: s.replace("[", "[" * 100_000, 1)),
        ("annotations.json: not complete JSON",),
    ),
    "a number of 6,000 digits": (
        lambda t: spoiled(coco(t), "*.json", lambda s: s.replace('"bbox": [', f'"bbox": [{"9" * 6000}, ', 1)),
        ("annotations.json: not complete JSON, or damaged",),
    ),
    "no categories": (lambda t: coco(t, lambda c: c.pop("categories")), ("a list 'categories'",)),
    "no annotations": (lambda t: coco(t, lambda c: c.update(annotations=[])), ("a list 'annotations'",)),
    "images as an object": (lambda t: coco(t, lambda c: c.update(images={"a": 1})), ("a list 'images'",)),
    "two classes of one id": (
        lambda t: coco(t, every(lambda one: one.update(id=10), "categories")),
        ("annotations.json", "'circle' and 'square' have one id, 10"),
    ),
    "a class without a name": (
        lambda t: coco(t, lambda c: c["categories"][0].update(name=" ")),
        ("annotations.json: a category has an id and a name",),
    ),
    "one file for two images": (
        lambda t: coco(t, lambda c: c["images"][2].update(file_name="0000.png")),
        ("two images have the file '0000.png'",),
    ),
    "images of another size": (
        lambda t: coco(t, every(lambda one: one.update(width=one["width"] * 2), "images")),
        ("0000.png: its boxes are of an image of 96 x 48 pixels, and the file has 48 x 48",),
    ),
    "x and y exchanged": (lambda t: coco(t, exchanged, 24), ("x and y", "exchanged", "correct the file")),
    "corners for sizes": (
        lambda t: coco(t, box_of(lambda x, y, w, h: [x, y, x + w, y + h])),
        ("corners (x1, y1, x2, y2)", "correct the file"),
    ),
    "shares for pixels": (
        lambda t: coco(t, box_of(lambda x, y, w, h: [x / 48, y / 48, w / 48, h / 48])),
        ("between 0 and 1", "correct the file"),
    ),
    "boxes of larger images": (
        lambda t: coco(t, box_of(lambda x, y, w, h: [x * 10, y * 10, w * 10, h * 10])),
        ("27 of 28 boxes lie outside",),
    ),
    "boxes from the lower right": (
        lambda t: coco(t, box_of(lambda x, y, w, h: [x + w, y + h, -w, -h])),
        ("28 of 28 boxes are upside down",),
    ),
    "a single image": (lambda t: coco(t, only(1)), ("1 rows are too few", "add rows")),
    "only crowds": (
        lambda t: coco(t, every(lambda one: one.update(iscrowd=1))),
        ("train has no object to learn from", "only crowds"),
    ),
    "entities in all XML files": (
        lambda t: spoiled(voc(t), "Annotations/*.xml", bomb),
        ("none of 12 images", "Annotations/0000.xml", "DOCTYPE", "plain UTF-8 XML"),
    ),
    "XML without bndbox": (
        lambda t: spoiled(voc(t), "Annotations/*.xml", lambda s: s.replace("bndbox", "polygon")),
        (*NO_BOXES, "0000.xml has no <bndbox>"),
    ),
    "YOLO in pixels": (
        lambda t: spoiled(yolo(t), "labels/*/*.txt", pixels),
        ("they are pixels", "shares of the image"),
    ),
    "YOLO with 6 columns": (
        lambda t: spoiled(yolo(t), "labels/*/*.txt", lambda s: s.replace("\n", " 0.9\n")),
        ("line 1 of 0000.txt: lines that are neither a box (5 numbers) nor a polygon",),
    ),
    "YOLO without names": (lambda t: image(yolo(t), "data.yaml"), ("no data.yaml with `names`", "names of classes")),
    "YOLO's names as objects": (
        lambda t: spoiled(yolo(t), "data.yaml", names("names: [{a: b}, c]")),
        ("data.yaml: names: class 0 is a dict", "in quotes"),
    ),
    "YOLO's names as yes and no": (
        lambda t: spoiled(yolo(t), "data.yaml", names("names: [yes, no]")),
        ("data.yaml: names: class 0 is True", "in quotes"),
    ),
    "a data.yaml that grows without end": (
        lambda t: spoiled(yolo(t), "data.yaml", lambda s: aliases()),
        ("data.yaml: names: class 0 is a list",),
    ),
    "a data.yaml that runs a command": (
        lambda t: spoiled(
            yolo(t), "data.yaml", lambda s: f"{s}x: !!python/object/apply:os.system ['touch {t}/owned']\n"
        ),
        ("data.yaml: cannot be read", "constructor"),
    ),
    "a csv without classes": (
        lambda t: table(t, "image,x,y,width,height", range(5)),
        (*NO_BOXES, "boxes.csv begins with the line 'image,x,y,width,height'"),
    ),
    "a csv without a header": (
        lambda t: spoiled(table(t), "boxes.csv", lambda s: s.partition("\n")[2]),
        (*NO_BOXES, "boxes.csv begins with the line '0000.png"),
    ),
    "a csv in another order": (
        lambda t: table(t, order=(0, 5, 1, 2, 3, 4)),
        ("no box can be used", "line 2 of boxes.csv: boxes without four finite numbers"),
    ),
    "a csv with sizes for corners": (
        lambda t: table(t, "image,xmin,ymin,xmax,ymax,label"),
        ("22 of 28 boxes are upside down", "sizes where corners are wanted"),
    ),
    "a csv in Latin-1": (
        lambda t: latin(table(t) / "boxes.csv"),
        ("boxes.csv: cannot be read as csv in UTF-8",),
    ),
    "Open Images in pixels": (lambda t: open_images(t, 48), ("they are pixels", "shares of the image")),
    "class folders": (classes, (*NO_BOXES, "found: cat, dog")),
    "captions of COCO": (
        lambda t: coco(t, every(lambda one: [one.update(caption="a"), one.pop("bbox"), one.pop("segmentation")])),
        ("no box can be used", "annotation 1"),
    ),
}
NO_MASKS = ("none of 28 objects has a mask", "object-detection")
WITHOUT_MASKS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "COCO without masks": (lambda t: coco(t, every(lambda one: one.pop("segmentation"))), NO_MASKS),
    "lines of two points as masks": (
        lambda t: coco(t, every(lambda one: one.update(segmentation=[[1, 2, 3, 4]]))),
        NO_MASKS,
    ),
    "boxes of YOLO": (yolo, NO_MASKS),
    "boxes of Pascal VOC": (voc, NO_MASKS),
    "a csv of boxes": (table, NO_MASKS),
}


def aliases() -> str:
    """Each list holds the one before nine times."""
    lines = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    return f"a0: &a0 [x]\n{lines}names: *a11\n"


def latin(file: Path) -> Path:
    file.write_bytes(file.read_bytes() + "0000.png,1,1,5,5,Café\n".encode("latin-1"))
    return file.parent


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_hold_no_boxes_to_learn_from_are_refused(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    refused(run("check", tmp_path, make(tmp_path / "data")), 2, *words)
    assert not (tmp_path / "data" / "owned").exists()


@pytest.mark.parametrize("name", WITHOUT_MASKS)
def test_data_without_masks_are_refused(name: str, tmp_path: Path) -> None:
    make, words = WITHOUT_MASKS[name]
    refused(run("check", tmp_path, make(tmp_path / "data"), masks=True), 2, *words)


def test_boxes_for_a_task_without_them_are_refused_with_the_way_out(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    shutil.copy(coco(tmp_path / "other") / "annotations.json", data)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(task="image-classification", config="{model_type: resnet}"))
    done = graft("check", recipe, "--data", data)
    refused(done, 2, "have boxes and no label", "object-detection", "data.format=imagefolder")
    spec = DataSpec(columns={"image": "image", "label": "text"})
    splits = load_splits(DataSection(id=str(data), format="imagefolder"), spec)
    assert splits.labels == ["cat", "dog"]


@pytest.mark.parametrize("saved", [False, True])
def test_a_detector_for_another_task_is_refused_with_the_tasks_that_take_it(saved: bool, tmp_path: Path) -> None:
    recipe, model = tmp_path / "recipe.yaml", "torchvision/ssd300_vgg16"
    if saved:
        model = str(tiny_boxes.model(tmp_path / "model", "maskrcnn"))
    recipe.write_text(RECIPE.format(task="image-classification", config="{model_type: resnet}"))
    done = graft("check", recipe, "--data", classes(tmp_path / "data"), "--model", model)
    refused(done, 2, "instance-segmentation and image-segmentation train them", "takes another model")


# ---- counted ----

SKIPPED = "train      9 rows (train), 1 skipped"


def lines(line: str) -> Callable[[Path], Path]:
    return lambda t: spoiled(yolo(t), "labels/train/0000.txt", first_line(line))


def mask(value: Any) -> Callable[[Path], Path]:
    return lambda t: coco(t, first(segmentation=value))


# what to spoil -> what the command prints
COUNTED: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "a box outside": (
        lambda t: coco(t, first(bbox=[500, 10, 5, 5])),
        ("1 boxes outside of their image: 0000.png, annotation 1",),
    ),
    "a box that leaves": (
        lambda t: coco(t, first(bbox=[40, 10, 1e300, 5])),
        ("1 boxes that left their image, clipped at its edge: 0000.png, annotation 1",),
    ),
    "no area": (lambda t: coco(t, first(bbox=[4, 10, 0, 5])), ("1 boxes without an area: 0000.png, annotation 1",)),
    "negative sides": (
        lambda t: coco(t, first(bbox=[20, 20, -5, -5])),
        ("1 boxes that are upside down (width or height below zero): 0000.png, annotation 1",),
    ),
    "NaN": (
        lambda t: coco(t, first(bbox=[float("nan"), 10, 5, 5])),
        ("1 boxes without four finite numbers: 0000.png, annotation 1",),
    ),
    "Infinity": (
        lambda t: coco(t, first(bbox=[1, 10, float("inf"), 5])),
        ("1 boxes without four finite numbers: 0000.png, annotation 1",),
    ),
    "an unknown class": (
        lambda t: coco(t, first(category_id=99)),
        ("1 boxes of an unknown class: 0000.png, annotation 1",),
    ),
    "no class": (
        lambda t: coco(t, lambda c: c["annotations"][0].pop("category_id")),
        ("1 boxes of an unknown class: 0000.png, annotation 1",),
    ),
    "an unknown image": (
        lambda t: coco(t, first(image_id=9999)),
        ("1 boxes of an image that the file does not list: annotations.json, annotation 1",),
    ),
    "an id for two images": (
        lambda t: coco(t, lambda c: c["images"][1].update(id=0)),
        (SKIPPED, "0001.png: its id 0 is that of another image", "3 boxes of an image that the file does not list"),
    ),
    "an image missing": (lambda t: image(coco(t)), (SKIPPED, "0000.png: no such file: 0000.png")),
    "an image damaged": (lambda t: damaged(coco(t)), (SKIPPED, "images/0000.png: not a readable image")),
    "an image cut short": (
        lambda t: spoiled_bytes(coco(t) / "images" / "0001.png"),
        ("images/0001.png: not a readable image: image file is truncated",),
    ),
    "a text for an image": (
        lambda t: image(coco(t), content=b"hello"),
        (SKIPPED, "images/0000.png: not a readable image"),
    ),
    "two files of one name": (
        two_of_one_name,
        (SKIPPED, "0000.png: 2 files have the name '0000.png': give the folder with the name"),
    ),
    "a name with ..": (
        lambda t: secret(coco(t, file_name("../secret.png"))),
        (SKIPPED, "../secret.png: no such file: secret.png"),
    ),
    "an absolute name": (lambda t: coco(t, file_name("/etc/passwd")), (SKIPPED, "/etc/passwd: no such file: passwd")),
    "a URL": (
        lambda t: coco(t, file_name("http://example.org/99.png")),
        (SKIPPED, "http://example.org/99.png: no such file: 99.png"),
    ),
    "a name that is no text": (lambda t: coco(t, file_name(5)), (SKIPPED, "5: its entry names no file")),
    "a name of 5,000 letters": (lambda t: coco(t, file_name("x" * 5000)), (SKIPPED, "xx…: no such file: xx")),
    "one class has all boxes": (
        lambda t: coco(t, every(lambda one: one.update(category_id=10))),
        ("train has no object of 2 of 3 classes: square, triangle",),
    ),
    "half of a character": (
        lambda t: spoiled(coco(t), "*.json", lambda s: s.replace('"circle"', '"\\ud800"')),
        ("classes    3: ?, square, triangle",),
    ),
    "hostile names": (
        lambda t: coco(t, hostile_names),
        ("classes    3: <script>alert(1)</script>, xx", "…, a\ufffd[31m"),
    ),
    "an XML file with entities": (
        lambda t: spoiled(voc(t), "Annotations/0000.xml", bomb),
        (SKIPPED, "Annotations/0000.xml: 0000.xml has a DOCTYPE"),
    ),
    "an object without bndbox": (
        lambda t: spoiled(voc(t), "Annotations/0000.xml", lambda s: s.replace("bndbox", "polygon")),
        ("1 boxes without four finite numbers: JPEGImages/0000.png, object 1",),
    ),
    "XML of something else": (
        lambda t: spoiled(voc(t), "Annotations/0000.xml", lambda s: "<html></html>"),
        (SKIPPED, "0000.xml has a <html> and no <annotation>"),
    ),
    "a line of 6 numbers": (lines("0 .5 .5 .2 .2 .9"), ("1 lines that are neither a box", "line 1 of 0000.txt")),
    "a line of 4 numbers": (lines("0 .5 .5 .2"), ("1 lines that are neither a box", "line 1 of 0000.txt")),
    "a line of words": (lines("cat .5 .5 .2 .2"), ("1 boxes without four finite numbers", "line 1 of 0000.txt")),
    "a class out of range": (lines("17 .5 .5 .2 .2"), ("1 boxes of an unknown class", "line 1 of 0000.txt")),
    "a class below zero": (lines("-1 .5 .5 .2 .2"), ("1 boxes of an unknown class", "line 1 of 0000.txt")),
    "a line in pixels": (lines("0 20 20 10 10"), ("1 boxes outside of their image", "line 1 of 0000.txt")),
    "a text file in UTF-16": (
        lambda t: utf16(yolo(t) / "labels" / "train" / "0000.txt"),
        (SKIPPED, "labels/train/0000.txt is not UTF-8 text"),
    ),
    "data.yaml with a folder elsewhere": (
        lambda t: spoiled(yolo(t), "data.yaml", lambda s: s.replace("images/train", "/etc")),
        ("data.yaml: train: /etc is no folder below that of the file", "train      10 rows"),
    ),
    "a line of csv cut short": (
        lambda t: spoiled(table(t), "boxes.csv", lambda s: s + "0000.png,3\n"),
        ("1 boxes of an unknown class: 0000.png, line 31 of boxes.csv",),
    ),
    "imagePath outside of the folder": (
        lambda t: secret(edited(labelme(t), imagePath="../secret.png")),
        (SKIPPED, "0000.json: no such file: secret.png"),
    ),
    "LabelMe without imagePath": (
        lambda t: edited(labelme(t), imagePath=None),
        (SKIPPED, "0000.json: its entry names no file"),
    ),
    "LabelMe without shapes": (
        lambda t: edited(labelme(t), shapes={}),
        (SKIPPED, "0000.json: no JSON of LabelMe"),
    ),
}
TWO_LINES = ("1 masks that cannot be read: 0000.png, annotation 1", "1 objects without a mask, which are left out")
BAD_MASKS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "a polygon of two points": (mask([[1, 2, 3, 4]]), TWO_LINES),
    "run lengths of another size": (mask({"size": [3, 3], "counts": [9]}), TWO_LINES),
    "run lengths of garbage": (mask({"size": [48, 48], "counts": "€~~x"}), TWO_LINES),
    "run lengths too short": (mask({"size": [48, 48], "counts": [10, 20]}), TWO_LINES),
    "run lengths without end": (mask({"size": [10**9, 10**9], "counts": [10**18]}), TWO_LINES),
    "a polygon without end": (mask([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9]]), TWO_LINES),
    "a polygon outside": (
        mask([[100, 100, 120, 100, 120, 120]]),
        ("1 masks that lie outside of their box: 0000.png, annotation 1", TWO_LINES[1]),
    ),
    "a line of two points in LabelMe": (
        lambda t: spoiled(
            labelme(t),
            "0000.json",
            lambda s: re.sub(r'"points": \[\[.*?\]\]', '"points": [[1, 2], [9, 9]]', s, count=1),
        ),
        ("1 masks that cannot be read: 0000.png, shape 1", TWO_LINES[1]),
    ),
}


def spoiled_bytes(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-300])
    return file.parents[1]


def utf16(file: Path) -> Path:
    file.write_bytes(file.read_text().encode("utf-16"))
    return file.parents[2]


def said(done: Done) -> str:
    """What a command printed that ended well."""
    shown = done.out + done.err
    assert done.code == 0, shown
    assert "\x1b" not in shown
    assert "Traceback" not in shown
    return shown


@pytest.mark.parametrize("name", COUNTED)
def test_what_cannot_be_used_is_counted_and_named(name: str, tmp_path: Path) -> None:
    make, words = COUNTED[name]
    shown = said(run("check", tmp_path, make(tmp_path / "data")))
    assert [word for word in words if word not in shown] == [], shown
    assert max(map(len, shown.splitlines())) < 1000


@pytest.mark.parametrize("name", BAD_MASKS)
def test_masks_that_cannot_be_used_are_counted_and_named(name: str, tmp_path: Path) -> None:
    make, words = BAD_MASKS[name]
    shown = said(run("check", tmp_path, make(tmp_path / "data"), masks=True))
    assert [word for word in words if word not in shown] == [], shown


def test_there_are_enough_cases() -> None:
    assert len({*REFUSED, *WITHOUT_MASKS, *COUNTED, *BAD_MASKS}) >= 80


# ---- odd, and right ----


def ids(image_: Callable[[int], Any], category: Callable[[int], Any]) -> Callable[[dict[str, Any]], object]:
    return every(lambda one: one.update(image_id=image_(one["image_id"]), category_id=category(one["category_id"])))


ODD: dict[str, Callable[[Path], Path]] = {
    "ids as texts": lambda t: coco(t, ids(str, str)),
    "ids as decimal numbers": lambda t: coco(t, ids(float, float)),
    "one id for all annotations": lambda t: coco(t, every(lambda one: one.update(id=1))),
    "an area of NaN": lambda t: coco(t, every(lambda one: one.update(area=float("nan")))),
    "a URL of an image that is there": lambda t: coco(t, file_name("http://example.org/0000.png")),
    "a csv with semicolons": lambda t: spoiled(table(t), "boxes.csv", lambda s: s.replace(",", ";")),
    "a download in data.yaml": lambda t: spoiled(yolo(t), "data.yaml", lambda s: f"download: touch {t}/owned\n{s}"),
    "data.yaml as Roboflow writes it": lambda t: spoiled(
        yolo(t), "data.yaml", lambda s: s.replace("images/", "../images/")
    ),
    "Open Images with PNG files": open_images,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_that_are_right_keep_every_object(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ODD[name](tmp_path / "data")
    with caplog.at_level(logging.WARNING, "graft"):
        splits = load_splits(DataSection(id=str(data)), DataSpec(columns={"image": "image", "objects": "boxes"}))
    rows = [row for split in ("train", "validation", "test") for row in splits[split]]
    assert sum(len(row["objects"]) for row in rows) == 28
    assert all(0 < one["area"] < 48 * 48 for row in rows for one in row["objects"])
    assert not any(splits.skipped.values()), splits.skipped
    assert "boxes" not in caplog.text
    assert "folder" not in caplog.text
    assert not (data / "owned").exists()


def test_splits_are_those_of_the_folders_that_data_yaml_names(tmp_path: Path) -> None:
    data = yolo(tmp_path / "data")
    for kind in ("images", "labels"):
        (data / kind / "second").mkdir()
        for file in sorted((data / kind / "train").iterdir())[:3]:
            file.rename(data / kind / "second" / file.name)
    spoiled(data, "data.yaml", lambda s: f"val: [images/second]\n{s}")
    splits = load_splits(DataSection(id=str(data)), DataSpec(columns={"image": "image", "objects": "boxes"}))
    assert sorted(splits.validation["id"]) == [f"images/second/000{n}.png" for n in range(3)]


def test_the_folder_of_annotations_alone_finds_the_images_next_to_it(tmp_path: Path) -> None:
    data = voc(tmp_path / "data")
    splits = load_splits(
        DataSection(id=str(data / "Annotations")), DataSpec(columns={"image": "image", "objects": "boxes"})
    )
    assert splits.train["id"][0].startswith("../JPEGImages/")


def test_ten_thousand_boxes_on_one_image_are_read(tmp_path: Path) -> None:
    def more(content: dict[str, Any]) -> None:
        one = content["annotations"][0]
        content["annotations"] += [{**one, "id": 1000 + number} for number in range(10_000)]

    data = coco(tmp_path / "data", more)
    splits = load_splits(DataSection(id=str(data)), DataSpec(columns={"image": "image", "objects": "boxes"}))
    most = max(len(row["objects"]) for split in ("train", "validation", "test") for row in splits[split])
    assert most == 10_001


# ---- other commands ----


def test_damaged_images_are_trained_without_and_refused_as_questions(tmp_path: Path) -> None:
    data = coco(tmp_path / "data", hostile_names)
    damaged(data)
    (data / "images" / "0001.png").write_bytes(b"")
    shown = said(run("train", tmp_path, data, "--run", tmp_path / "run"))
    assert "8 train, 1 validation, 1 test rows" in shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    done = graft("predict", tmp_path / "run", data / "images" / "0000.png")
    refused(done, 2, "images/0000.png: not a readable image")
    done = graft("predict", tmp_path / "run", data / "images", "--out", tmp_path / "found.json")
    assert "0000.png: not a readable image" in done.err + done.out
    assert "Traceback" not in done.err
