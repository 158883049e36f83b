"""The same tiny images with boxes and masks in every layout that Graft reads. All of it is right, to be made wrong.

folder = yolo(tmp_path / "data")   12 images of 48 x 48 and 48 x 32 pixels; the classes are circle, square, triangle
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support import tiny_boxes

Content = dict[str, Any]
N = 12


def coco(folder: Path, change: Callable[[Content], object] | None = None, n: int = N) -> Path:
    """annotations.json and images/0000.png. `change` changes the content of the file."""
    tiny_boxes.shapes(folder, n=n, size=48)
    if change is not None:
        edit(folder / "annotations.json", change)
    return folder


def edit(file: Path, change: Callable[[Content], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def listed(folder: Path) -> list[tuple[Content, list[tuple[str, list[float], list[float]]]]]:
    """Each image of a COCO folder with its objects: class, box (x, y, width, height), polygon. The JSON is removed."""
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    file.unlink()
    names = {one["id"]: one["name"] for one in content["categories"]}
    return [
        (
            image,
            [
                (names[one["category_id"]], one["bbox"], one["segmentation"][0])
                for one in content["annotations"]
                if one["image_id"] == image["id"]
            ],
        )
        for image in content["images"]
    ]


def yolo(folder: Path, polygons: bool = False) -> Path:
    """data.yaml, images/train/0000.png and labels/train/0000.txt."""
    found = listed(coco(folder))
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "train").mkdir()
    for image, things in found:
        width, height = image["width"], image["height"]
        lines = []
        for label, (x, y, w, h), polygon in things:
            shares = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            if polygons:
                shares = [value / (height if place % 2 else width) for place, value in enumerate(polygon)]
            lines.append(" ".join([str(tiny_boxes.KINDS.index(label)), *(f"{share:.6f}" for share in shares)]))
        stem = Path(image["file_name"]).stem
        (folder / "labels" / "train" / f"{stem}.txt").write_text("".join(line + "\n" for line in lines))
        shutil.move(folder / "images" / image["file_name"], folder / "train")
    shutil.move(folder / "train", folder / "images" / "train")
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nnames: [{', '.join(tiny_boxes.KINDS)}]\n")
    return folder


def voc(folder: Path) -> Path:
    """Annotations/0000.xml and JPEGImages/0000.png."""
    found = listed(coco(folder))
    shutil.move(folder / "images", folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for image, things in found:
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>"
            for label, (x, y, w, h), _ in things
        )
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        text = f"<annotation><filename>{image['file_name']}</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{Path(image['file_name']).stem}.xml").write_text(text)
    return folder


def labelme(folder: Path) -> Path:
    """0000.png and 0000.json."""
    for image, things in listed(coco(folder)):
        name = image["file_name"]
        shutil.move(folder / "images" / name, folder / name)
        shapes = [
            {"label": label, "shape_type": "polygon", "points": list(zip(p[::2], p[1::2], strict=True))}
            for label, _, p in things
        ]
        about = {"imagePath": name, "imageWidth": image["width"], "imageHeight": image["height"], "imageData": None}
        (folder / name).with_suffix(".json").write_text(json.dumps({"shapes": shapes, **about}))
    (folder / "images").rmdir()
    return folder


def table(folder: Path, header: str = "image,x,y,width,height,label", order: Sequence[int] = range(6)) -> Path:
    """boxes.csv and images/0000.png. `order` exchanges the cells, and the header stays."""
    lines = [header.split(",")]
    for image, things in listed(coco(folder)):
        name = image["file_name"]
        rows = [[name, *map(str, box), label] for label, box, _ in things] or [[name, "", "", "", "", ""]]
        lines += [[row[place] for place in order] for row in rows]
    (folder / "boxes.csv").write_text("".join(",".join(cells) + "\n" for cells in lines))
    return folder


def open_images(folder: Path, times: float = 1) -> Path:
    """train-annotations-bbox.csv with corners as shares, and images/0000.png. `times` enlarges the shares."""
    names = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf"
    lines = [
        f"{Path(image['file_name']).stem},xclick,/m/{label},1,{x / image['width'] * times},"
        f"{(x + w) / image['width'] * times},{y / image['height'] * times},{(y + h) / image['height'] * times},0"
        for image, things in listed(coco(folder))
        for label, (x, y, w, h), _ in things
    ]
    (folder / "train-annotations-bbox.csv").write_text("\n".join([names, *lines]) + "\n")
    return folder
