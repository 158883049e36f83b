"""A tiny data set of the hub with instance maps: the form of transformers' examples of instance segmentation.

    instance_maps(tmp_path / "repo", n=24)     data/train-00000-of-00001.parquet

A seed decides everything.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"background": 0, "circle": 1, "square": 2}


def png(pixels: np.ndarray) -> dict[str, bytes | None]:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def instances(rng: np.random.Generator, side: int, count: int) -> np.ndarray:
    """A map with circles (class 1) and squares (class 2); later ones cover earlier ones."""
    found = np.zeros((side, side, 3), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for number in range(1, count + 1):
        half = int(rng.integers(side // 8, side // 4))
        top, left = (int(place) for place in rng.integers(half, side - half, 2))
        kind = int(rng.integers(1, 3))
        if kind == 1:
            inside = (rows - top) ** 2 + (columns - left) ** 2 <= half**2
        else:
            inside = (abs(rows - top) <= half) & (abs(columns - left) <= half)
        found[inside] = (kind, number, 0)
    return found


def instance_maps(folder: Path, n: int = 24, side: int = 64, classes: Mapping[str, int] | None = CLASSES) -> Path:
    """A repository with the column `semantic_class_to_id`, or without it if `classes` is None."""
    rng = np.random.default_rng(0)
    cells = []
    for number in range(n):
        drawn = instances(rng, side, 0 if number % 8 == 7 else 1 + number % 3)
        image = rng.integers(90, 130, (side, side, 3), dtype=np.uint8)
        image[drawn[..., 0] == 1, 0] = 255
        image[drawn[..., 0] == 2, 2] = 255
        cells.append((png(image), png(drawn)))
    return repository(folder, cells, classes)


def repository(folder: Path, cells: list[tuple[dict, dict]], classes: object = CLASSES) -> Path:
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    content: dict = {"image": [image for image, _ in cells], "annotation": [drawn for _, drawn in cells]}
    if classes is not None:
        content["semantic_class_to_id"] = classes if isinstance(classes, list) else [classes] * len(cells)
    rows = Dataset.from_dict(content)
    features = Features({**rows.features, "image": ImageColumn(), "annotation": ImageColumn()})
    (folder / "data").mkdir(parents=True)
    Dataset.from_dict(content, features=features).to_parquet(folder / "data/train-00000-of-00001.parquet")
    return folder
