"""Load data: `load_splits` turns a recipe's data section into train, validation and test.

Every format is a module in `formats/`, found by its name. It reads rows with an `id` and the task's columns.
"""

import contextlib
import importlib
import logging
from collections.abc import Callable, Collection
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import maps, objects
from pipelines.data.audio.segments import timed
from pipelines.data.columns import values
from pipelines.data.files import composed
from pipelines.data.filtering import cleaned
from pipelines.data.grouping import group_column
from pipelines.data.labels import (
    BETWEEN,
    check_lost,
    decimal_points,
    from_columns,
    label_names,
    labelled,
    lost,
    warn_alike,
    warn_joined,
)
from pipelines.data.leakage import CONTENT, with_contents, with_files
from pipelines.data.media import MEDIA
from pipelines.data.schema import DataSpec, Source, Splits, fingerprint
from pipelines.data.splitting import NONE_TRAINED, USUAL, arrange, check_rows, name_splits
from pipelines.data.text import chat
from pipelines.data.trained_rows import TrainedRows
from pipelines.data.video import feature_sets
from pipelines.errors import DataError, MissingColumn
from pipelines.hub import places
from pipelines.utils.files import did_you_mean, problem
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("graft")

BOXES = ("coco", "voc", "yolo_txt", "labelme", "boxes_csv")  # formats of images with boxes
# formats of images with masks, or with shapes that are drawn to masks; those that have nothing else come first
ONLY_MASKS = ("cityscapes", "ade20k", "oxford_pets", "run_lengths", "masks")
MASKS = ("cityscapes", "ade20k", "oxford_pets", "voc", "run_lengths", "masks", "coco", "labelme", "yolo_txt")
VIDEOS = ("kinetics", "ucf101", "hmdb51", "something_something", "videofolder")  # formats of videos, the surest first


def format_names() -> list[str]:
    """The names of all data formats, sorted."""
    folder = resources.files("pipelines.data.formats")
    return sorted(e.name[:-3] for e in folder.iterdir() if e.name.endswith(".py") and not e.name.startswith("_"))


def format_module(section: DataSection, columns: Collection[str] = ()) -> Any:
    """The module that reads this data: the named format, else the first that recognises the files.

    `columns` are those that the task needs: a folder may hold both boxes and masks, and an mp4 is a video or a
    recording. Without columns the files decide. It is the hub's if there is no such file or folder. Raises DataError.
    """
    why = problem(section.id)
    if why:
        raise DataError(f"data.id: no data can be called {short(section.id)!r}: {why}")
    names = format_names()
    try:
        path = Path(section.id).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, a NUL in it, an unknown home folder
        raise DataError(f"data.id: no such file or folder: {short(section.id, 200)!r}") from None
    if section.format is not None:
        if section.format not in names:
            raise DataError(f"data.format: unknown format {section.format!r} (known: {', '.join(names)})")
        return importlib.import_module(f"pipelines.data.formats.{section.format}")
    if not there:
        if places.looks_local(section.id):
            raise DataError(f"data.id: no such file or folder: {section.id}{did_you_mean(section.id)}")
        return importlib.import_module("pipelines.data.formats.hub")
    for name in _asked(names, columns):
        module = importlib.import_module(f"pipelines.data.formats.{name}")
        try:
            if _recognises(module, name, path, columns):
                return module
        except OSError as error:
            raise DataError(
                f"data.id: {section.id}: {error.filename or path} cannot be read: {error.strerror}"
            ) from None
    found = sorted(p.name for p in path.iterdir())[:6] if path.is_dir() else [path.name]
    raise DataError(
        f"data.id: {section.id} cannot be read as data (found: {', '.join(found) or 'nothing'}): "
        "give a folder of images or of class folders (images, recordings, videos), a .csv, .tsv, .jsonl, .json or "
        ".parquet table, speech with its transcripts "
        "(metadata.csv, a manifest, or as LibriSpeech, VCTK, Common Voice and Kaldi lay it out), .txt or .md files, "
        "or a Wikipedia dump"
    )


def _asked(names: list[str], columns: Collection[str]) -> list[str]:
    """The formats that may read data for a task with these columns, in the order in which they are asked.

    Photos with boxes or masks are also folders of photos, or tables: what says more about them is asked first.
    """
    videos = "video" in columns
    first: tuple[str, ...] = (*sorted(BOXES), *ONLY_MASKS, *(() if columns else VIDEOS))
    if "mask" in columns or videos:
        first = MASKS if "mask" in columns else VIDEOS
    if "features" in columns:  # a folder of videos has none, and its error says so
        first = ("youtube8m", "table", "videofolder", *first)
    elif not columns or videos:
        first = ("youtube8m", *first)
    if set(columns) <= {"image", "label"}:  # the tree has nothing else; captions, for example, stand in lists
        first = ("imagenet", *first)
    # other tasks read the same files as something else
    left_out = (*(VIDEOS if columns and not videos else ()), *(() if "imagenet" in first else ("imagenet",)))
    return [*first, *(name for name in names if name not in (*first, *left_out))]


def _recognises(module: Any, name: str, path: Path, columns: Collection[str]) -> bool:
    """Whether a format reads these files, for a task with these columns: what it needs decides on mixed folders."""
    if "mask" in columns and name in MASKS:
        return bool(module.has_masks(path))
    if name == "videofolder" and ("video" in columns or "features" in columns):
        return bool(module.has_videos(path))
    if name == "youtube8m" and "features" in columns:
        return bool(module.has_shards(path))
    return bool(module.detect(path))


def _of_layout(kind: Any, section: DataSection, needs: DataSpec) -> Source:
    """Read the columns of the first layout of conversations that the data have. Raises DataError or MissingColumn."""
    path = Path(section.id).expanduser()
    have = kind.columns(path) if path.exists() else None
    for layout in chat.layouts(have, section.columns):
        own = (*layout.needed, *layout.optional)
        part = section.model_copy(update={"columns": {c: name for c, name in section.columns.items() if c in own}})
        try:
            source: Source = kind.read(part, layout.needed, (*layout.optional, *needs.optional_columns))
        except MissingColumn:
            if have is not None:
                raise
        else:
            return source
    raise MissingColumn(chat.no_layout(section.id, have))


def _conversations(needs: DataSpec, group: str | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Clean a row of any layout of conversations for a task that takes `messages`. The column of groups is kept."""

    def clean(row: dict[str, Any]) -> dict[str, Any]:
        kept = {"id": row["id"], chat.KIND: chat.conversation(row)}
        of = {group: row[group]} if group in row else {}
        return of | (needs.clean(kept) if needs.clean is not None else kept)

    return clean


def _read(section: DataSection, needs: DataSpec) -> Source:
    talks = chat.KIND in needs.columns
    unknown = sorted(set(section.columns) - set(needs.kinds) - set(chat.COLUMNS if talks else ()))
    if unknown:
        raise DataError(f"data.columns: this task has no column {unknown[0]!r} (it has: {', '.join(needs.kinds)})")
    kind = format_module(section, needs.columns)
    boxes = "boxes" in needs.columns.values()
    masks = "mask" in needs.columns
    if section.mask_classes is not None and not masks:
        raise DataError("data.mask_classes says what the values of masks mean, and this task has none: leave it out")
    if boxes:
        objects.check_layout(kind, section)
    if masks:
        maps.check_layout(kind, section)
    for key in ("config", "revision"):
        parted = key == "config" and getattr(kind, "CONFIGURED", False)
        if getattr(section, key) is not None and not parted and Path(section.id).expanduser().exists():
            raise DataError(
                f"data.{key}: {section.id} is on this disk, where data have no {key}: leave it out (data.{key}=null)"
            )
    _check_label_keys(section, needs)
    source: Source
    if talks:
        source = _of_layout(kind, section, needs)
    elif section.label_columns is not None:
        source = _of_label_columns(kind, section, needs)
    else:
        source = kind.read(section, tuple(needs.columns), tuple(needs.optional_columns))
    if "features" in needs.columns:
        for name, rows in source.splits.items():
            source.splits[name], bad = feature_sets.with_records(rows, needs.label_kind == "class")
            source.skipped[name] = [*source.skipped.get(name, []), *bad]
            if bad and not len(source.splits[name]):
                raise DataError(f"{section.id}: none of {len(rows)} rows can be used; the first: {bad[0][1]}")
    _resolve_labels(source, needs, section)
    if masks:
        maps.resolve(source, section)
    clean = _conversations(needs, section.group) if talks else needs.clean
    if clean is not None:
        before = objects.count(source) if boxes else 0
        for name, rows in source.splits.items():
            source.splits[name], bad = cleaned(rows, clean, section.id)
            if bad and "label" in rows.column_names:
                labels = zip(values(rows, "id"), values(rows, "label"), strict=True)
                source.lost[name] = {**lost(labels, bad), **source.lost.get(name, {})}
            source.skipped[name] = [*source.skipped.get(name, []), *bad]
        if boxes:
            objects.check_masks(source, before, section.id)
    grouped = source.group or any(needs.group_column in rows.column_names for rows in source.splits.values())
    kinds = set(needs.columns.values())
    of_one_file = timed(kinds) is not None or ({"image", "text"} <= kinds and needs.group_column is None)
    if section.group in needs.files or (section.group is None and of_one_file and not grouped):
        found = {name: with_files(rows) for name, rows in source.splits.items()}
        several = [name for name, rows in found.items() if "file" in rows.column_names]
        if several:
            source.splits, source.group = found, "file"
        if timed(kinds) and any("start" not in found[name].column_names for name in several):
            log.warning(
                "%s: several rows name one %s, and each gets it from beginning to end: "
                "give the columns offset and duration, or start and end, in seconds, where a row is of a part of it",
                section.id,
                "recording" if "audio" in kinds else "video",
            )
    return source


def _of_label_columns(kind: Any, section: DataSection, needs: DataSpec) -> Source:
    """Read a data set with a column of 0 or 1 for each label. Raises DataError."""
    flags = section.label_columns or []
    taken = {section.columns.get(column, column) for column in needs.kinds if column != "label"}
    odd = next((name for name in flags if name in taken or name in MEDIA or flags.count(name) > 1), None)
    if odd is not None:
        raise DataError(f"data.label_columns: {odd!r} is another column of the task, or stands there twice")
    columns = [*(column for column in needs.columns if column != "label"), *flags]
    optional = [column for column in needs.optional_columns if column != "label"]
    source: Source = kind.read(section, tuple(columns), tuple(optional))
    for split, rows in source.splits.items():
        source.splits[split], bad = from_columns(rows, flags, needs.label_kind == "classes")
        source.skipped[split] = [*source.skipped.get(split, []), *bad]
        if bad and not len(source.splits[split]):
            raise DataError(f"{section.id}: none of {len(rows)} rows can be used; the first: {bad[0][1]}")
    source.labels = list(flags)
    return source


def _check_label_keys(section: DataSection, needs: DataSpec) -> None:
    """Raise DataError for settings of labels that have no effect on this task."""
    if section.label_separator is not None and needs.label_kind != "classes":
        why = "set options.multi_label=true" if needs.has_classes else "this task has none: leave it out"
        raise DataError(f"data.label_separator stands between several labels of a row: {why}")
    if section.label_columns is not None and not needs.has_classes:
        raise DataError("data.label_columns: this task has no classes: leave it out")
    if section.label_columns is not None and (section.label_separator is not None or "label" in section.columns):
        raise DataError("data.label_columns takes the place of a column of labels: leave out the other setting")


def _resolve_labels(source: Source, needs: DataSpec, section: DataSection) -> None:
    """Clean the labels, as lists if a row may have several, and skip rows without a needed label. Raises DataError."""
    name = section.id
    for split, rows in source.splits.items():
        if "label" in rows.column_names:
            if needs.label_kind == "number" and split in source.decimal_comma:
                rows = decimal_points(rows, name)
            between = section.label_separator or BETWEEN
            needed = "label" in needs.columns
            source.splits[split], bad = labelled(rows, needs.label_kind == "classes", needed, between)
            source.skipped[split] = [*source.skipped.get(split, []), *bad]
            if bad and not len(source.splits[split]) and source.hub_id is None:
                raise DataError(f"{name}: none of {len(rows)} rows can be used; the first: {bad[0][1]}")
    source.labels = (
        None if source.labels is None else list(dict.fromkeys(composed(name.strip()) for name in source.labels))
    )
    if needs.label_kind == "classes":
        warn_joined([label for rows in source.splits.values() for label in values(rows, "label")], name)


def load_splits(section: DataSection, needs: DataSpec, trained: TrainedRows = NONE_TRAINED) -> Splits:
    """Read, cut and check a data set for a task.

    If validation or test are missing, they are cut from train by `section.seed`, stratified by label. Groups, and rows
    with equal content, stay in one split. Rows of `trained` (see trained_rows.read) are in train only. Raises DataError
    naming the file, row or column, and HubError if the hub cannot be reached.
    """
    source = _read(section, needs)
    if needs.has_classes and needs.label_kind == "class":
        own = name_splits(section, list(source.splits))["train"]
        check_lost(source.lost.get(own, {}), source.splits[own], section.id)
    asked = section.group
    if section.group in needs.files:  # rows of one file belong together; the column `file` identifies the file
        section = section.model_copy(update={"group": None})
    found = {name: with_contents(rows, needs.content) for name, rows in source.splits.items()}
    splits, came_from, before = arrange(section, found, source.group or needs.group_column, needs.strata, trained)
    contents = {name: values(rows, CONTENT) for name, rows in splits.items() if CONTENT in rows.column_names}
    splits = {name: rows.remove_columns(CONTENT) if name in contents else rows for name, rows in splits.items()}
    for name, rows in splits.items():
        check_rows(name, rows, section)
    local = Path(section.id).expanduser()
    labels = label_names(splits, source.labels, section.id, source.vocabulary) if needs.has_classes else None
    if "boxes" in needs.columns.values():
        labels = source.labels
        objects.check_classes(splits["train"], labels or [], section.id)
    if "mask" in needs.columns:
        labels = source.labels
        maps.check_classes(splits["train"], labels or [], section.id)
    warn_alike(labels or [], section.id)
    unused = sorted(set(source.splits) - set(name_splits(section, list(source.splits)).values()))
    others = {f"rows of the split {name!r}": len(source.splits[name]) for name in unused}
    others |= {f"rows of {name} that {trained.named} was trained on before": count for name, count in before.items()}
    return Splits(
        **splits,
        labels=labels,
        source=came_from,
        vocabulary=source.vocabulary,
        skipped={name: source.skipped.get(came_from[name], []) for name in splits},
        fingerprint={name: fingerprint(rows) for name, rows in splits.items()},
        name=source.hub_id or (local.resolve().name if local.exists() else section.id),
        hub_id=source.hub_id,
        revision=source.revision,
        license=source.license,
        ignored={**source.ignored, **others},
        trained_before=before,
        contents=contents,
        group=group_column(asked, source.group or needs.group_column, splits["test"].column_names),
    )


def load_rows(
    section: DataSection, needs: DataSpec, split: str | None = None
) -> "tuple[str, Dataset, list[tuple[str, str]]]":
    """One split to score or predict: `split` if it is given, else test, else all rows.

    Returns the split's name, its rows, and the rows that cannot be read (id, why). Raises DataError.
    """
    from datasets import concatenate_datasets

    source = _read(section, needs)
    own = {name.lower(): name for name in source.splits}
    named = {
        name: getattr(section, name) or next((own[n] for n in usual if n in own), None) for name, usual in USUAL.items()
    }
    chosen = named["test"] if split is None else named.get(split) or split
    wanted = {chosen, *(USUAL["test"] if split in (None, "test") else ())}
    for name in source.unlabelled:
        if name in wanted or name.lower() in wanted:
            raise DataError(f"{section.id}: the table of {name} has no labels to score by: give other data, or a split")
    if split is not None:
        if chosen not in source.splits:
            raise DataError(f"--split {split}: {section.id} has no such split (it has: {', '.join(source.splits)})")
        return split, source.splits[chosen], source.skipped.get(chosen, [])
    if named["test"] in source.splits:
        return "test", source.splits[named["test"]], source.skipped.get(named["test"], [])
    return (
        "all",
        concatenate_datasets(list(source.splits.values())),
        [row for rows in source.skipped.values() for row in rows],
    )


Rows = tuple[str, Any, list[tuple[str, str]]]  # a split's name, its rows, and those that cannot be read (id, why)


def load_rows_by_either_name(section: DataSection, needs: DataSpec, split: str | None) -> Rows:
    """`load_rows` for data whose columns have the names that the recipe maps, or the task's own names.

    Raises DataError.
    """
    try:
        return load_rows(section, needs, split)
    except MissingColumn:
        if not section.columns:
            raise
        with contextlib.suppress(MissingColumn):  # the first error is then raised, which says more
            return load_rows(section.model_copy(update={"columns": {}}), needs, split)
        raise
