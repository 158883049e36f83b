"""The column `objects` of images with boxes: whether data have one, and whether a task can learn from it."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import unsupported
from pipelines.data.files import printable
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable as on_a_terminal
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

NO_MASKS = "objects without a mask"


def check_layout(kind: Any, section: DataSection) -> None:
    """Raise DataError for files that hold no boxes, and say what boxes look like. `kind` is the module that reads them.

    A format that the recipe names says it itself.
    """
    path = Path(section.id).expanduser()
    if section.format is not None or not path.exists():
        return
    if section.columns.get("objects", "objects") in kind.columns(path):
        return
    found = ", ".join(sorted(printable(p.name) for p in path.iterdir())[:6]) if path.is_dir() else path.name
    why = unsupported.without_boxes(path)
    raise DataError(
        f"{section.id}: no boxes that Graft can read (found: {short(found, 120) or 'nothing'}"
        f"{'; ' if why else ''}{why}): give COCO's JSON, Pascal VOC's XML, YOLO's text files with data.yaml, LabelMe's "
        "JSON, a csv with image, label and x, y, width, height (or xmin, ymin, xmax, ymax), or a column `objects`"
    )


def count(source: Source) -> int:
    """The number of objects of all rows."""
    import pyarrow.compute

    lengths = (pyarrow.compute.sum(pyarrow.compute.list_value_length(c)) for c in _columns(*source.splits.values()))
    return sum(length.as_py() or 0 for length in lengths)


def check_masks(source: Source, before: int, name: str) -> None:
    """Count the objects that the task left out because they have no mask. `before` is how many there were.

    Raises DataError if none is left.
    """
    left = count(source)
    if left == before:
        return
    if not left:
        raise DataError(
            f"{name}: none of {before:,} objects has a mask that can be read, and this task learns masks: give "
            "polygons or run lengths; to learn boxes, take a recipe of object-detection"
        )
    log.warning("%s: %d %s, which are left out", name, before - left, NO_MASKS)
    source.ignored[NO_MASKS] = before - left


def check_classes(train: "Dataset", labels: Sequence[str], name: str) -> None:
    """Warn of classes without an object to learn from. Raises DataError if there is no object at all."""
    import pyarrow.compute

    seen: set[str] = set()
    for column in _columns(train):
        things = pyarrow.compute.list_flatten(column)
        names, crowds = (pyarrow.compute.struct_field(things, field) for field in ("label", "crowd"))
        seen.update(names.filter(pyarrow.compute.invert(crowds)).unique().to_pylist())
    if not seen:
        raise DataError(
            f"{name}: train has no object to learn from: its images have none, or only crowds (iscrowd, difficult, "
            "IsGroupOf), which no loss and no score counts"
        )
    lacking = [label for label in labels if label not in seen]
    if lacking:
        some = ", ".join(short(on_a_terminal(label)) for label in lacking[:4]) + (", ..." if len(lacking) > 4 else "")
        log.warning("%s: train has no object of %d of %d classes: %s", name, len(lacking), len(labels), some)


def _columns(*parts: "Dataset") -> Iterator[Any]:
    """The column in Arrow's form, in pieces."""
    for rows in parts:
        for table in rows.select_columns("objects").with_format("arrow").iter(1000):
            yield table["objects"].combine_chunks()
