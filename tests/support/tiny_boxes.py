"""Tiny images with boxes and masks: circles, squares and triangles that overlap, in COCO's JSON.

    shapes(tmp_path / "shapes", n=24)   annotations.json and images/0000.png

A seed decides everything.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle")
CORNERS = 24  # of the polygon of a circle
UNDEFINED = frozenset({"ap_medium", "ap_large", "ar_medium", "ar_large"})  # all shapes are small


def shapes(folder: Path, n: int = 24, size: int = 96, seed: int = 0, most: int = 4, largest: int | None = None) -> Path:
    """A folder in COCO's layout. Every eighth image is empty; later shapes cover earlier ones.

    With `largest`, width and height are drawn between `size` and it.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(n):
        width, height = size, size - 16 * (number % 2)
        if largest is not None:
            width, height = (int(side) for side in rng.integers(size, largest + 1, 2))
        noise = rng.integers(90, 130, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        count = 0 if number % 8 == 7 else int(rng.integers(1, most + 1))
        for _ in range(count):
            kind = int(rng.integers(0, len(KINDS)))
            side = float(rng.integers(size // 6, size // 3))
            left, top = float(rng.uniform(0, width - side)), float(rng.uniform(0, height - side))
            points = [(left + x * side, top + y * side) for x, y in outline(KINDS[kind])]
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            ImageDraw.Draw(image).polygon(points, fill=colour, outline="white")
            polygon = [round(value, 2) for point in points for value in point]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": number,
                    "category_id": 10 * (kind + 1),
                    "bbox": [round(left, 2), round(top, 2), side, side],
                    "area": round(side * side * {"circle": 0.785, "square": 1, "triangle": 0.5}[KINDS[kind]], 2),
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
        name = f"{number:04d}.png"
        image.save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    kinds = [{"id": 10 * (number + 1), "name": name} for number, name in enumerate(KINDS)]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": kinds})
    )
    return folder


def outline(kind: str) -> list[tuple[float, float]]:
    """The corners of a shape in a square of side 1."""
    if kind == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if kind == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    return [(0.5 + 0.5 * float(np.cos(turn)), 0.5 + 0.5 * float(np.sin(turn))) for turn in turns]


def config(architecture: str) -> dict[str, Any]:
    """The configuration of a small detector of torchvision: on a timm backbone, or SSDlite as it is."""
    if architecture not in ("maskrcnn", "retinanet"):
        return {"model_type": "torchvision", "architecture": architecture}
    small: dict[str, Any] = {"backbone": "mobilenetv3_small_050", "fpn_channels": 16, "image_size": 96}
    heads = {"proposals": 30, "samples": 16, "head_channels": 64, "mask_channels": 16}
    small |= heads if architecture == "maskrcnn" else {"anchor_scale": 2}
    # with live statistics of BatchNorm, a loss depends on how a batch is cut
    return {"model_type": "torchvision", "architecture": architecture, **small, "frozen_batch_norm": True}


def model(folder: Path, architecture: str) -> Path:
    """The folder of such a model, which knows the classes of the shapes."""
    from pipelines.models import detection
    from pipelines.models.source import Weights

    source = Weights(None, config(architecture), True)
    network, family = detection.build(source, KINDS, masks=architecture == "maskrcnn")
    family.save(network, folder)
    return folder


def perfect(rows: Any, masks: bool) -> list[dict[str, Any]]:
    """Records that are right about every row."""
    from pipelines.data.image.boxes import LabelledBoxes
    from pipelines.detection.examples import packed

    records = []
    for example in LabelledBoxes(rows, sorted(KINDS), masks):
        true = {name: example[name].tolist() for name in ("boxes", "classes", "crowd", "area")}
        if masks:
            true["masks"] = [packed(mask) for mask in example["masks"]]
        found = {name: true[name] for name in ("boxes", "classes", "masks") if name in true}
        scores = [0.9] * len(true["classes"])
        records.append({"id": example["id"], "size": list(example["size"]), **found, "scores": scores, "true": true})
    return records


def surer(run: Path, folder: Path) -> Path:
    """A copy of a run whose model finds objects everywhere: after so short a training no score reaches a threshold."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(run, folder)
    model = folder / "model"
    weights = load_file(model / "model.safetensors")
    for name in weights:
        if name.endswith("cls_logits.bias") and name.startswith("head"):  # RetinaNet begins with scores of 0.01
            weights[name] += 4
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"detection_threshold": 0.1}))
    return folder


def as_printed(printed: str, answer: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a card's snippet printed the objects of an answer: 0.912  cat  [10, 12, 50, 64].

    The order of equal scores does not matter. torchvision may find more than the 100 that Graft keeps.
    """
    lines = re.findall(r"^([\d.]+)  (.+?)  \[([-\d, ]+)\]$", printed, re.M)
    found = [(float(score), label, [int(side) for side in box.split(",")]) for score, label, box in lines]

    def has(one: Mapping[str, Any]) -> bool:
        box = np.array(list(one["box"].values()))
        return any(
            label == one["label"] and abs(score - one["score"]) < 2e-3 and np.abs(box - sides).max() <= 1.5
            for score, label, sides in found
        )

    return 0 < len(answer) <= len(found) and all(map(has, answer))
