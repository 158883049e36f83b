"""Masks of images: what their pixels mean, if no file says it, and whether a task can learn from them.

Up to ALL masks are looked at when data are loaded, and the result is kept. So a mask that cannot be used is skipped
before the training, and splits are cut so that train keeps every class. Of larger data SOME masks of each split are
looked at.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.columns import select, values, with_column
from pipelines.data.files import printable as file_name
from pipelines.data.image import label_maps
from pipelines.data.image.reading import read_mask, read_size, upright_size
from pipelines.data.schema import DataSpec, Source
from pipelines.errors import DataError
from pipelines.utils.formatting import printable, short
from pipelines.utils.hardware import cores
from pipelines.utils.progress import preparing
from pipelines.utils.sequences import each, evenly_spaced

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

ALL = 2000  # masks of a data set, if they are all looked at
SOME = 500  # masks of a split that are looked at in larger data
VOID = frozenset(("void", "ignore", "ignored", "__ignore__", "unlabelled", "unlabeled", "unlabel", "don't care"))

_LONGEST = 256 << 10  # characters of a legend, which every row has
_KEPT = 300  # values of one mask that are kept
_INDICES = 64  # classes, if the values of masks say them
_AT_ONCE = 64


def spec(labels: Sequence[str] = ()) -> DataSpec:
    """What a task asks of rows with label maps."""
    return DataSpec(
        columns={"image": "image", "mask": "mask"},
        optional_columns={"legend": "text", "shapes": "text"},
        input_columns=("image",),
        label_kind=None,
        labels=tuple(labels),
        classes_of=classes_of,
        example=lambda row: {"image": row["image"]},
    )


def classes_of(row: Mapping[str, Any]) -> list[str] | None:
    """The classes that a row's map shows; None if nobody looked."""
    text = row.get("classes")
    return None if text is None else list(json.loads(text))


def check_layout(kind: Any, section: DataSection) -> None:
    """Raise DataError for files that hold no masks, and say what they look like. `kind` is the module that reads them.

    A format that the recipe names says it itself.
    """
    path = Path(section.id).expanduser()
    if section.format is not None or not path.exists() or hasattr(kind, "has_masks"):
        return
    if section.columns.get("mask", "mask") in kind.columns(path):
        return
    found = ", ".join(sorted(file_name(p.name) for p in path.iterdir())[:6]) if path.is_dir() else path.name
    raise DataError(
        f"{section.id}: no masks that Graft can read (found: {short(printable(found), 120)}): put images into a folder "
        "`images` and masks of the same names into a folder `masks`, or both into one folder as 1.jpg and "
        "1_mask.png; a column `mask`, and polygons of COCO, LabelMe and YOLO are read too"
    )


# ---- what the masks are, and what their values mean ----


def resolve(source: Source, section: DataSection) -> None:
    """Give every row its legend and its classes, and skip rows whose mask cannot be used. Raises DataError."""
    drawn = [split for split, rows in source.splits.items() if not _files(rows)]
    if len(drawn) == len(source.splits):
        if section.mask_classes is not None:
            raise DataError(
                "data.mask_classes says what the values of masks mean, and these data have shapes with names, or "
                "segments: leave it out"
            )
        return
    everything = sum(len(places) for rows in source.splits.values() if (places := _files(rows))) <= ALL
    looks = {
        split: _looked_at(rows, places if everything else evenly_spaced(places, SOME), section.id)
        for split, rows in source.splits.items()
        if (places := _files(rows))
    }
    legends = {split: _given(rows) for split, rows in source.splits.items()}
    if section.mask_classes is not None:
        text, source.labels = _of_recipe(section.mask_classes)
        legends = {split: [text] * len(rows) for split, rows in source.splits.items()}
    elif any(legends[split][place] is None for split in looks for place in looks[split]):
        found = [look for split in looks for look in looks[split].values() if "wrong" not in look]
        if not found:
            split, place = next((split, place) for split in looks for place in looks[split])
            first = f"{printable(short(str(source.splits[split][place]['id']), 120))}: {looks[split][place]['wrong']}"
            raise DataError(f"{section.id}: no mask can be used; the first: {first}")
        looked, masks = sum(map(len, looks.values())), sum(len(_files(rows)) for rows in source.splits.values())
        of = "" if looked == masks else f" in {looked:,} of {masks:,} masks"
        text, names = _understood(found, source.mask_names, section.id, of)
        legends = {split: [own or text for own in given] for split, given in legends.items()}
        source.labels = source.labels or names
    for split, rows in source.splits.items():
        if split in looks:
            _finish(source, split, rows, legends[split], looks[split], section.id)
    if not source.labels:
        parts = [label_maps.names_in(rows) for rows in source.splits.values()]
        source.labels = list(dict.fromkeys(name for part in parts for name in part))


def _given(rows: "Dataset") -> list[str | None]:
    return values(rows, "legend") if "legend" in rows.column_names else [None] * len(rows)


def _files(rows: "Dataset") -> list[int]:
    """The rows that have a mask of values or colours: no shapes, no segments."""
    if "mask" not in rows.column_names:
        return []
    shapes = values(rows, "shapes") if "shapes" in rows.column_names else [None] * len(rows)
    segments = [bool(text) and '"segments"' in str(text)[:4096] for text in _given(rows)]
    return [n for n in range(len(rows)) if shapes[n] is None and not segments[n]]


def _finish(
    source: Source,
    split: str,
    rows: "Dataset",
    legends: list[str | None],
    looks: Mapping[int, Mapping[str, Any]],
    name: str,
) -> None:
    """Add the columns `legend` and `classes`; rows whose mask cannot be used are skipped. Raises DataError."""
    from datasets import Value

    ids = values(rows, "id")
    classes = values(rows, "classes") if "classes" in rows.column_names else [None] * len(rows)
    wrong: dict[int, str] = {}
    for place, look in looks.items():
        try:
            if "wrong" in look:
                raise DataError(look["wrong"])
            classes[place] = json.dumps(_names(look, legends[place]))
        except DataError as error:
            id_ = printable(short(str(ids[place]), 120))
            wrong[place] = str(error) if str(error).startswith(f"{id_}: ") else f"{id_}: {error}"
    if len(wrong) * 2 > len(looks):
        share = (
            f"none of {len(looks)}" if len(wrong) == len(looks) else f"only {len(looks) - len(wrong)} of {len(looks)}"
        )
        raise DataError(f"{name}: {share} masks of {split} can be used; the first: {next(iter(wrong.values()))}")
    rows = with_column(rows, "legend", legends, feature=Value("string"))
    rows = with_column(rows, "classes", classes, feature=Value("string"))
    if wrong:
        rows = select(rows, [place for place in range(len(rows)) if place not in wrong])
        source.skipped[split] = [*source.skipped.get(split, []), *((ids[place], why) for place, why in wrong.items())]
    source.splits[split] = rows


def _names(look: Mapping[str, Any], text: str | None) -> list[str]:
    """The classes of one mask. Raises DataError for values that are no class."""
    legend = label_maps.legend_of(text)
    if legend.colors:
        what, known, counts = "colour", legend.colors, look["colours"]
    elif look["values"] is None:
        raise DataError(
            "the mask is in colour, and its classes are known by values: save the class numbers as a grey PNG, or give "
            'data.mask_classes with colours ("r,g,b")'
        )
    else:
        what, known, counts = "value", legend.values, look["values"]
    odd = [(number, count) for number, count in counts if number not in known]
    if odd:
        shown = label_maps.colour_text if what == "colour" else str
        some = ", ".join(shown(number) for number, _ in odd[:4]) + (", ..." if len(odd) > 4 else "")
        share = sum(count for _, count in odd) / look["pixels"]
        raise DataError(label_maps.unknown(what, len(odd), some, share, look["format"]))
    found = {known[number] for number, _ in counts} - {None}
    return [name for name in legend.names if name in found]


# ---- looking at masks ----


def _looked_at(rows: "Dataset", places: Sequence[int], name: str) -> dict[int, dict[str, Any]]:
    """Row -> what its mask holds."""
    key = _key(rows, places)

    def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        needed = rows.select_columns([c for c in ("id", "image", "mask") if c in rows.column_names])
        with preparing(f"looking at masks of {name}", len(places)) as report:
            for start in range(0, len(places), _AT_ONCE):
                some = [needed[place] for place in places[start : start + _AT_ONCE]]
                for one in each(look_at, some, cores()):
                    found.append({"wrong": str(one)} if isinstance(one, DataError) else one)
                report(len(some))
        return found

    return dict(zip(places, stored.value(key, f"looking at masks of {name}", look), strict=True))


def _key(rows: "Dataset", places: Sequence[int]) -> list[Any] | None:
    """By which the result is found again; None if it is not kept."""
    if len(places) < _AT_ONCE:
        return None
    files = select(rows, places).select_columns(["image", "mask"])[:]
    listed = [(one or {}).get("path") for column in files.values() for one in column]
    bare = all((one or {}).get("bytes") is None for column in files.values() for one in column)
    if not bare or None in listed:
        return None
    pages = [(one or {}).get("page") for one in files["mask"]]
    known = stored.files_key([Path(str(path)) for path in dict.fromkeys(listed)])
    return None if known is None else ["masks", known, listed, pages]


def look_at(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values and colours of a mask with the number of their pixels. Raises DataError."""
    import numpy as np

    mask = read_mask(row["mask"])
    high, wide = mask.values.shape[:2]
    size = upright_size(row["image"])
    if (wide, high) != size and not ((high, wide) == size and read_size(row["image"])[2] > 4):
        raise DataError(label_maps.other_size((wide, high), size))
    plain = label_maps.grey(mask)
    values = None if plain is None else _counts(plain)
    colours = _counts(label_maps.colour_numbers(mask)) if plain is None or mask.palette is not None else None
    if colours is None:
        colours = [
            [value * label_maps.colour_number(1, 1, 1) if 0 <= value < 256 else -1, n] for value, n in values or ()
        ]
    return {
        "values": values,
        "colours": colours,
        "palette": mask.palette is not None,
        "format": mask.format,
        "pixels": int(np.prod(mask.values.shape[:2])),
    }


def _counts(numbers: Any) -> list[list[int]]:
    """The numbers with their counts, the most frequent first: at most _KEPT of them."""
    import numpy as np

    if numbers.dtype == np.uint8:
        every = np.bincount(numbers.ravel(), minlength=256)
        found, counts = np.flatnonzero(every), every[every > 0]
    else:
        found, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_KEPT]
    return [[int(found[place]), int(counts[place])] for place in order]


# ---- what values mean ----


def _of_recipe(given: Mapping[str, str | None]) -> tuple[str, list[str]]:
    """The legend of data.mask_classes, and its classes. Raises DataError."""
    values_: dict[str, str | None] = {}
    colours: dict[str, str | None] = {}
    for key, name in given.items():
        clean = None if name is None else label_maps.clean_name(name)
        if clean == "":
            raise DataError(f"data.mask_classes: {key} has an empty name: give the class, or null to ignore its pixels")
        number = label_maps.colour(key)
        if number is not None:
            colours[label_maps.colour_text(number)] = clean
        elif key.strip().isascii() and key.strip().isdigit() and len(key.strip()) < 10:
            values_[str(int(key))] = clean
        else:
            raise DataError(
                f"data.mask_classes: {short(printable(key), 40)!r} is no value of a mask: give a whole number, "
                '"r,g,b" or "#rrggbb"'
            )
    if values_ and colours:
        raise DataError("data.mask_classes has values and colours: masks have one or the other")
    names = [label_maps.clean_name(name) for name in given.values() if name is not None]
    if not names:
        raise DataError("data.mask_classes ignores every value: name one class at least")
    return _text({"colors": colours} if colours else {"values": values_}), list(dict.fromkeys(names))


def _text(legend: Mapping[str, Any]) -> str:
    """The text of a legend, which every row has. Raises DataError for a very long one."""
    text = json.dumps(legend, separators=(",", ":"))
    if len(text) > _LONGEST:
        raise DataError(
            f"the names of the classes of masks have {len(text):,} characters with their values, at most {_LONGEST:,} "
            "are read: shorten them, or leave out classes that no mask has"
        )
    return text


def _understood(
    looks: Sequence[Mapping[str, Any]], said: Mapping[str, Any], name: str, of: str = ""
) -> tuple[str, list[str]]:
    """The legend of masks about which the recipe says nothing, and its classes. `said` is what a file says.

    `of` says how many masks were looked at, if these are not all. Raises DataError.
    """
    odd = [look for look in looks if _smoothed(look)]
    if odd and len(odd) * 2 < len(looks):  # these few are skipped later, and named
        looks = [look for look in looks if not _smoothed(look)]
    grey = [look for look in looks if look["values"] is not None]
    looks = grey if len(grey) * 2 > len(looks) else looks
    of_colour: Counter[int] = Counter()
    of_value: Counter[int] = Counter()
    for look in looks:
        of_colour.update(dict(look["colours"]))
        of_value.update(dict(look["values"] or ()))
    coloured = any(look["values"] is None for look in looks)
    table = {
        colour: label
        for key, label in (said.get("colors") or {}).items()
        if (colour := label_maps.colour(key)) is not None
    }
    hits = sum(count for colour, count in of_colour.items() if colour in table)
    if table and (coloured or hits > 0.9 * sum(of_colour.values())):
        return _legend("colors", {label_maps.colour_text(key): label for key, label in table.items()})
    if coloured:
        some = "; ".join(label_maps.colour_text(colour) for colour, _ in of_colour.most_common(6))
        raise DataError(
            f"{name}: the masks are in colour ({len(of_colour)} colours: {some}{' ...' if len(of_colour) > 6 else ''})"
            ', and no table says what they mean: give data.mask_classes={"r,g,b": NAME, ...} with null for '
            "ignored colours, or a file class_dict.csv with the columns name,r,g,b"
        )
    file = printable(short(str(said.get("file") or "a file"), 80))
    if said.get("values"):
        return _legend("values", _with_255(said["values"], of_value, name, file))
    names = said.get("names") or list(table.values())
    if names:
        return _legend("values", _by_order(names, of_value, name, file))
    return _sniffed(of_value, looks, bool(said.get("void")), name, of)


def _smoothed(look: Mapping[str, Any]) -> bool:
    """Whether the edges of a mask of two values were smoothed, or its file loses details."""
    counts = dict(look["values"] or look["colours"])
    if look["format"] in label_maps.LOSSY and len(counts) > 2:
        return True
    between = [value for value in counts if value not in (0, 255)]
    two = counts.get(0, 0) + counts.get(255, 0)
    if look["values"] is None or len(between) < 3 or max(between) < 128:
        return False
    return bool(two >= 0.8 * look["pixels"] or (len(between) >= 8 and two >= 0.5 * look["pixels"]))


def _legend(kind: str, known: Mapping[str, str | None]) -> tuple[str, list[str]]:
    known = {key: None if label is not None and label.lower() in VOID else label for key, label in known.items()}
    labels = list(dict.fromkeys(label for label in known.values() if label is not None))
    return _text({kind: known}), labels


def _with_255(
    given: Mapping[str, str | None], found: Mapping[int, int], where: str, file: str
) -> dict[str, str | None]:
    """The values that a file names; 255 is ignored if it does not. Raises DataError if only 0 would be left."""
    known = sorted(found)
    if 255 not in found or "255" in given:
        return dict(given)
    if known == [0, 255] and given.keys() == {"0", "1"}:
        log.warning("%s: %s names the values 0 and 1, and the masks have 0 and 255: 255 is read as 1", where, file)
        return {"0": given["0"], "255": given["1"]}
    if not any(value for value in known if value != 255):
        raise DataError(
            f"{where}: the masks have the value{'s' if len(known) > 1 else ''} {' and '.join(map(str, known))}, and "
            f"{file} does not name 255: name it there, or give data.mask_classes={{VALUE: NAME, ...}}"
        )
    return {**given, "255": None}


def _by_order(names: Sequence[str | None], found: Mapping[int, int], where: str, file: str) -> dict[str, str | None]:
    """The values of a list of classes: a place in it is a value. Raises DataError if the masks do not fit it."""
    known = sorted(found)
    first = str(names[0] or "").lower()
    if len(names) == 2 and len(known) == 2 and known[0] == 0:
        return dict(zip(map(str, known), names, strict=True))
    if len(names) == 1 and len(known) == 2 and known[0] == 0 and first not in (label_maps.BACKGROUND, *VOID):
        log.warning("%s: %s names one class: it is the value %d, and 0 is read as background", where, file, known[1])
        return {"0": label_maps.BACKGROUND, str(known[1]): names[0]}
    own = [value for value in known if value != 255 or len(names) > 255]
    void: dict[str, str | None] = {"255": None} if 255 in found and len(names) <= 255 and any(own) else {}
    if own and own[0] >= 0 and own[-1] == len(names) and first != label_maps.BACKGROUND:
        log.warning(
            "%s: the masks have values up to %d for %d classes: 0 is read as background", where, own[-1], own[-1]
        )
        return {"0": label_maps.BACKGROUND, **{str(place): label for place, label in enumerate(names, 1)}, **void}
    counted = {value: count for value, count in found.items() if str(value) not in void}
    fitting = sum(count for value, count in counted.items() if 0 <= value < len(names))
    only_255 = 255 in found and not void and len(names) <= 255
    if only_255 or fitting * 2 < sum(counted.values()):  # a few others are found mask by mask
        some = ", ".join(map(str, known[:6])) + (", ..." if len(known) > 6 else "")
        raise DataError(
            f"{where}: {file} names {len(names)} class{'es' if len(names) != 1 else ''}, so the masks are to have the "
            f"values 0 to {len(names) - 1}, "
            f"and they have {some}: give data.mask_classes={{VALUE: NAME, ...}}"
        )
    return {**{str(place): label for place, label in enumerate(names)}, **void}


def _sniffed(
    found: Counter[int], looks: Sequence[Mapping[str, Any]], void: bool, name: str, of: str = ""
) -> tuple[str, list[str]]:
    """Classes by the values alone. What was understood is said, so that the user can correct it.

    With `void`, the last value is that of pixels without a class, as in SegNet's lists. Raises DataError.
    """
    known = sorted(found)
    if len(known) == 1:
        raise DataError(
            f"{name}: the masks have only one value, {known[0]}{of}: there is nothing to tell apart. If it is right, "
            "data.mask_classes={VALUE: NAME, ...} names all classes"
        )
    smooth = sum(map(_smoothed, looks)) * 2 >= len(looks)
    if len(known) > _INDICES or smooth:
        some = ", ".join(map(str, known[:5]))
        if smooth:
            lossy = next((look["format"] for look in looks if look["format"] in label_maps.LOSSY), None)
            why = f"as {lossy} compression changes them" if lossy else "as smoothed (anti-aliased) edges do"
            raise DataError(
                f"{name}: the masks have {len(known)} values ({some}, ...), {why}: save masks as PNG, drawn and "
                "resized without smoothing, with one value for each class"
            )
        raise DataError(
            f"{name}: the masks have {len(known)} values ({some}, ...), too many for classes that nobody names: if "
            "they are numbers of objects, save class numbers in place of them; else name them with data.mask_classes"
        )
    if len(known) <= 2 and known[0] == 0:
        legend: dict[str, str | None] = {"0": label_maps.BACKGROUND, str(known[-1]): "foreground"}
    else:
        own = [value for value in known if value != 255]
        own = own if own and own[-1] < _INDICES else known  # next to large values, 255 is one of them
        places = range(own[-1] + 1) if own and own[-1] < _INDICES and own[0] >= 0 else own
        legend = {str(value): f"class {value}" for value in places}
        legend |= {"255": None} if 255 in known and 255 not in own else {}
        if void and len(own) > 2:
            legend[str(own[-1])] = None
    text, labels = _legend("values", legend)
    listed = ", ".join(f"{value}: {label or 'ignored'}" for value, label in list(legend.items())[:8])
    log.warning(
        "%s: no file names the classes of the masks, so their values%s do: %s%s. data.mask_classes={VALUE: NAME, ...} "
        "names them, with null for a value that is ignored",
        name,
        of,
        listed,
        ", ..." if len(legend) > 8 else "",
    )
    return text, labels


# ---- whether a task can learn from them ----


def check_classes(train: "Dataset", labels: Sequence[str], name: str) -> None:
    """Warn of classes without a pixel to learn from. Raises DataError if no pixel has a class."""
    if not labels:
        raise DataError(f"{name}: the masks have no class: name one with data.mask_classes")
    known = [text for text in (values(train, "classes") if "classes" in train.column_names else []) if text is not None]
    seen = {label for text in set(known) for label in json.loads(text)}
    if not known:
        return
    if not seen:
        raise DataError(f"{name}: every pixel of train is ignored, so there is nothing to learn from")
    lacking = [label for label in labels if label not in seen]
    if lacking:
        some = ", ".join(short(printable(label)) for label in lacking[:4]) + (", ..." if len(lacking) > 4 else "")
        of = "" if len(known) == len(train) else f" in {len(known):,} masks that were looked at"
        log.warning("%s: train has no pixel of %d of %d classes%s: %s", name, len(lacking), len(labels), of, some)


def things_in(rows: "Dataset") -> list[str] | None:
    """The classes whose objects panoptic rows tell apart; None if rows are not panoptic."""
    for text in rows["legend"] if "legend" in rows.column_names else ():
        legend = label_maps.legend_of(text) if text else None
        if legend is not None and legend.segments is not None:
            return sorted(legend.things)
    return None


def balanced(rows: "Dataset", labels: Sequence[str], name: str) -> dict[str, float]:
    """The weight of each class that makes all classes equal in the loss: pixels / (classes * pixels of the class).

    Up to SOME masks are counted. A class without a pixel in them has the largest weight of the others.
    """
    import numpy as np

    places = evenly_spaced(range(len(rows)), SOME)
    needed = rows.select_columns([c for c in ("id", "image", "mask", "legend", "shapes") if c in rows.column_names])
    pixels = np.zeros(len(labels))
    with preparing(f"counting pixels of {name}", len(places)) as report:
        for start in range(0, len(places), _AT_ONCE):
            some = [needed[place] for place in places[start : start + _AT_ONCE]]
            for found in each(lambda row: label_maps.read_map(row, labels), some, cores()):
                if not isinstance(found, DataError):  # it is reported when the row is read for training
                    pixels += np.bincount(found[found != label_maps.IGNORE], minlength=len(labels))
            report(len(some))
    seen = pixels > 0
    weights = pixels.sum() / (seen.sum() * np.maximum(pixels, 1))
    weights[~seen] = weights[seen].max(initial=1.0)
    return dict(zip(labels, weights.tolist(), strict=True))
