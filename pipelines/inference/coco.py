"""Boxes and masks that a model found, in COCO's JSON format, and COCO's run lengths.

A found object is what `infer` of the tasks gives: {"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"}}, and with
a mask "mask": {"size": [height, width], "counts": text}.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np

Found = Mapping[str, Any]


def categories(labels: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's list of classes. Its ids count from 1, because many programs take 0 for the background."""
    return [{"id": number, "name": label} for number, label in enumerate(labels, 1)]


def annotation(number: int, image: int, category: int, found: Found) -> dict[str, Any]:
    """One found object as an entry of COCO's `annotations`, with its score. `number` is its id."""
    box = found["box"]
    width, height = box["xmax"] - box["xmin"], box["ymax"] - box["ymin"]
    mask = found.get("mask")
    area = sum(runs(mask["counts"])[1::2]) if mask else width * height
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [round(value, 2) for value in (box["xmin"], box["ymin"], width, height)],
        "area": round(area, 2),
        "iscrowd": 0,
        "score": found["score"],
        **({"segmentation": dict(mask)} if mask else {}),
    }


# ---- a file ----


def write(lines: Path, target: Path, labels: Sequence[str]) -> None:
    """Write the answers in `lines` (one JSON object a line: input, width, height, objects) as one COCO file.

    The file appears complete or not at all, and the answers are never in memory together. An image's id is its place
    among the answers, from 1. Raises OSError.
    """
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # a link could lead to a file of somebody else
    with part.open("x", encoding="utf-8", errors="replace") as out:
        out.write('{"images": [')
        _items(out, _images(lines))
        out.write('],\n"categories": [')
        _items(out, iter(categories(labels)))
        out.write('],\n"annotations": [')
        _items(out, _annotations(lines, labels))
        out.write("]}\n")
    os.replace(part, target)


def _items(out: Any, items: Iterator[Mapping[str, Any]]) -> None:
    """Write the items of a list, one a line."""
    for place, item in enumerate(items):
        out.write((",\n" if place else "\n") + json.dumps(item, ensure_ascii=False))


def _records(lines: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with lines.open(encoding="utf-8") as file:
        yield from enumerate(map(json.loads, file), 1)


def _images(lines: Path) -> Iterator[dict[str, Any]]:
    for number, record in _records(lines):
        yield {"id": number, "file_name": record["input"], "width": record["width"], "height": record["height"]}


def _annotations(lines: Path, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    ids = {label: number for number, label in enumerate(labels, 1)}
    number = 0
    for image, record in _records(lines):
        for found in record["objects"]:
            number += 1
            yield annotation(number, image, ids[found["label"]], found)


# ---- run lengths ----


def runs(counts: str) -> list[int]:
    """The lengths of COCO's compressed text: pixels outside, pixels inside, and so on, down the columns.

    Raises DataError for a text that is no such list.
    """
    found: list[int] = []
    value = shift = 0
    for sign in counts:
        bits = ord(sign) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise DataError("a mask whose run lengths cannot be read")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more bits of this number follow
            continue
        if bits & 16:
            value -= 1 << shift
        # from the fourth on, only the difference to the one before the last is written
        found.append(value + found[-2] if len(found) > 2 else value)
        value = shift = 0
    if shift or any(length < 0 for length in found):
        raise DataError("a mask whose run lengths cannot be read")
    return found


def pixels(mask: Mapping[str, Any]) -> "np.ndarray":
    """A mask as a bool array [height, width]. Raises DataError if its run lengths do not fill its size."""
    import numpy as np

    height, width = mask["size"]
    lengths = runs(mask["counts"])
    if sum(lengths) != height * width:
        raise DataError(f"a mask of {sum(lengths):,} pixels in an image of {width} x {height}")
    inside = np.arange(len(lengths)) % 2 == 1
    filled: np.ndarray = np.repeat(inside, lengths).reshape(width, height).T
    return filled
