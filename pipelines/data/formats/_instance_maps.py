"""Columns of instance maps, the form of the instance segmentation examples of transformers.

An instance map is an RGB image of the size of its image. Its first channel has the class number of each pixel, its
second one the number of the instance, 0 where there is none. The third one is 0. The column `semantic_class_to_id`
names the classes ({"background": 0, "person": 1}), or else id2label.json of the data set. The class `background` has
no instances.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.columns import select, values
from pipelines.data.formats import _boxes
from pipelines.data.image import label_maps
from pipelines.data.image.reading import read_mask, read_size
from pipelines.data.schema import Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short
from pipelines.utils.hardware import cores
from pipelines.utils.progress import preparing
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    from datasets import Dataset

CLASSES = "semantic_class_to_id"
NO_INSTANCE = "regions of a class without an instance number"
_AT_ONCE = 32  # rows whose files are in memory together


def with_objects(section: DataSection, rows: "Dataset", source: Source) -> "tuple[Dataset, list[tuple[str, str]]]":
    """Rows of the hub with the objects of their instance maps, and (id, why) of those that cannot be used.

    Raises DataError.
    """
    from datasets import concatenate_datasets

    names = _classes(section, rows, source)
    things = [name for _, name in sorted(names.items()) if not _is_background(name)]
    source.labels = list(dict.fromkeys([*(source.labels or []), *things]))
    builder, ids = _boxes.Builder(section, source.labels), values(rows, "id")
    needed, good, wrong = rows.select_columns(["image", "objects"]), list[int](), list[tuple[str, str]]()

    def fill(found: stored.Rows) -> None:
        found.types = {"objects": _boxes.objects_type()}
        with preparing(f"reading instance maps of {section.id}", len(ids)) as report:
            for start in range(0, len(ids), _AT_ONCE):
                places = range(start, min(start + _AT_ONCE, len(ids)))
                some = [needed[place] | {"id": ids[place]} for place in places]
                for place, one in zip(places, each(lambda row: _things(row, names), some, cores()), strict=True):
                    name = printable(short(ids[place], 120))
                    if isinstance(one, DataError):
                        wrong.append((ids[place], f"{name}: {one}"))
                        continue
                    size, listed = one
                    annotated = _boxes.Annotated(ids[place], None, ())
                    kept = [builder.object(thing, annotated, size, f"{name}, {thing.where}") for thing in listed]
                    good.append(place)
                    found.add({"objects": [one for one in kept if one], "width": size[0], "height": size[1]})
                report(len(some))

    objects, _ = stored.table(None, f"reading instance maps of {section.id}", fill)
    if wrong and not good:
        raise DataError(f"{section.id}: none of {len(wrong)} rows can be used; the first: {wrong[0][1]}")
    for what, count in builder.done().ignored.items():
        source.ignored[what] = source.ignored.get(what, 0) + count
    gone = [name for name in ("objects", "width", "height", CLASSES) if name in rows.column_names]
    rows = (select(rows, good) if wrong else rows).remove_columns(gone)
    return concatenate_datasets([rows.flatten_indices() if wrong else rows, objects], axis=1), wrong


def _is_background(name: str) -> bool:
    return name.casefold() == label_maps.BACKGROUND


def _classes(section: DataSection, rows: "Dataset", source: Source) -> dict[int, str]:
    """The names of the class numbers. Raises DataError."""
    import pyarrow.compute

    pairs: list[tuple[str, Any]] = []
    where = CLASSES if CLASSES in rows.column_names else "the file of class names"
    if CLASSES in rows.column_names:
        if not isinstance(rows.features[CLASSES], dict):
            what = short(str(rows.features[CLASSES]), 120)
            raise DataError(f'{section.id}: column {CLASSES!r} holds no {{"class": number}} but {what}')
        column = rows.data.column(CLASSES)
        column = column if rows._indices is None else column.take(rows._indices.column(0))
        for name in rows.features[CLASSES]:
            numbers = pyarrow.compute.struct_field(column, name).unique().to_pylist()
            pairs += [(name, number) for number in numbers if number is not None]
    else:
        pairs = [(name, int(number)) for number, name in source.mask_names.get("values", {}).items() if name]
    found: dict[int, str] = {}
    for given, number in pairs:
        name = _boxes.class_name(given)
        shown = printable(short(str(given), 80))
        if type(number) is not int or not 0 <= number < 256 or name is None:
            raise DataError(
                f"{section.id}: {where}: {shown!r} has the number {short(repr(number), 40)}: class numbers are whole "
                "and from 0 to 255, and names are not empty"
            )
        if found.setdefault(number, name) != name or list(found.values()).count(name) > 1:
            raise DataError(
                f"{section.id}: {where}: {shown!r} has the number {number} and another one, or shares it with another "
                "class: each class has one number of its own, the same in all rows"
            )
    if not any(not _is_background(name) for name in found.values()):
        raise DataError(
            f"{section.id}: nothing names the classes of the instance maps: give a column {CLASSES} "
            '({"background": 0, "person": 1}), or a file id2label.json ({"0": "background", "1": "person"})'
        )
    return found


def _things(row: Mapping[str, Any], names: Mapping[int, str]) -> tuple[tuple[int, int], list[_boxes.Thing]]:
    """The size (width, height) of a row's image, and the instances in its map. Raises DataError."""
    import numpy as np
    from pycocotools import mask as coco

    width, height, turned = read_size(row["image"])
    size = (height, width) if turned > 4 else (width, height)
    pixels = label_maps.upright(read_mask(row["objects"]), row, size).values
    if pixels.ndim != 3:
        raise DataError(
            "its instance map is grey or has a palette: save an RGB image with class numbers in the first channel and "
            "instance numbers in the second one"
        )
    if pixels[..., 2].any():
        raise DataError(
            "the third channel of its instance map is not 0, so this seems to be an image or a mask of colours: the "
            "first channel holds class numbers, the second one instance numbers"
        )
    numbers = pixels[..., 0].astype(np.int32) << 8 | pixels[..., 1]
    things, plain = [], dict[int, str | None]()
    for pair in np.unique(numbers).tolist():
        number, instance = divmod(pair, 256)
        if instance and number not in names:
            known = ", ".join(f"{key} {name}" for key, name in sorted(names.items()))
            raise DataError(f"its instance map has the class number {number}, which has no name ({short(known, 160)})")
        if not instance or _is_background(names[number]):
            plain[pair] = None if instance or number == 0 else names.get(number)
    if plain:
        numbers[np.isin(numbers, list(plain))] = label_maps.IGNORE
    for pair, runs in label_maps.run_lengths(numbers).items():
        number, instance = divmod(pair, 256)
        box = [float(side) for side in coco.toBbox(runs)]
        area = float(coco.area(runs))
        where = f"instance {instance} of {names[number]}"
        things.append(_boxes.Thing(box, names[number], area=area, mask=_boxes.mask_text(runs), where=where))
    lacking = [name for name in plain.values() if name and not _is_background(name)]
    things += [_boxes.Thing(None, name, where=name, wrong=NO_INSTANCE) for name in lacking]
    return size, things
