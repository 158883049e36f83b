"""Boxes and masks that a model found, in COCO's JSON format, and COCO's run lengths.

A found object is what `infer` of the tasks gives: {"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"}}, and with
a mask "mask": {"size": [height, width], "counts": text}. A segment of an image has a mask and no box.
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
    mask = found.get("mask")
    if "box" in found:
        box = found["box"]
        sides = (box["xmin"], box["ymin"], box["xmax"] - box["xmin"], box["ymax"] - box["ymin"])
    else:
        sides = around(found["mask"])
    area = sum(runs(mask["counts"])[1::2]) if mask else sides[2] * sides[3]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [round(value, 2) for value in sides],
        "area": round(area, 2),
        "iscrowd": 0,
        "score": found["score"],
        **({"segmentation": dict(mask)} if mask else {}),
    }


# ---- a file ----


def write(lines: Path, target: Path, labels: Sequence[str]) -> None:
    """Write the answers in `lines` (one JSON object a line: input, width, height, objects or segments) as a COCO file.

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
        for found in record["segments"] if "segments" in record else record["objects"]:
            number += 1
            yield annotation(number, image, ids[found["label"]], found)


# ---- run lengths ----


def runs(counts: str) -> list[int]:
    """The lengths of COCO's compressed text: pixels outside, pixels inside, and so on, down the columns.

    Raises DataError for a text that is no such list.
    """
    lengths: list[int] = _lengths(counts).tolist()
    return lengths


def _lengths(text: str) -> "np.ndarray":
    """The same as int64."""
    from pipelines.data.image.run_lengths import counts

    found = counts(text)
    if found is None:
        raise DataError("a mask whose run lengths cannot be read")
    return found


def around(mask: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """The box of a mask: left, top, width and height in pixels; zeros for an empty mask."""
    import numpy as np

    height = mask["size"][0]
    edges = np.cumsum(_lengths(mask["counts"]))
    ends = edges[1::2]
    starts = edges[::2][: len(ends)]
    starts, ends = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return 0, 0, 0, 0
    left, right = int(starts[0] // height), int(ends[-1] // height)
    if (starts // height != ends // height).any():  # a run that goes on in the next column
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int((ends % height).max())
    return left, top, right - left + 1, bottom - top + 1


def pixels(mask: Mapping[str, Any]) -> "np.ndarray":
    """A mask as a bool array [height, width]. Raises DataError if its run lengths do not fill its size."""
    import numpy as np

    height, width = mask["size"]
    lengths = _lengths(mask["counts"])
    if lengths.sum() != height * width:
        raise DataError(f"a mask of {lengths.sum():,} pixels in an image of {width} x {height}")
    inside = np.arange(len(lengths)) % 2 == 1
    filled: np.ndarray = np.repeat(inside, lengths).reshape(width, height).T
    return filled
