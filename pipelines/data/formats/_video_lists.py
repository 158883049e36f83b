"""Helpers for the layouts of published video sets: find listed files, count missing ones, and add rows as splits."""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.data.columns import values, with_column
from pipelines.data.files import all_files, composed, runs, suffix_of
from pipelines.data.formats import _audio_lists, _class_folders
from pipelines.data.media import AUDIO, IMAGES, VIDEO, paths
from pipelines.data.schema import Source
from pipelines.errors import DataError, MissingColumn

log = logging.getLogger("graft")

_VALIDATION = ("validation", "validate", "val")
_LOOKED_AT = 1000  # files that decide whether a folder holds such videos
Index = dict[str, list[Path]]  # name of a file, or its name without the suffix -> the files that have it


def index(*roots: Path, stems: bool = False) -> Index:
    """All videos below some folders, by name; with `stems` by the name without its suffix. Raises DataError."""
    found: Index = {}
    for root in roots:
        for folder, entries in runs(root):
            for entry in entries:
                suffix = suffix_of(entry.name)
                if suffix in VIDEO.suffixes:
                    name = composed(entry.name)
                    found.setdefault(name[: -len(suffix)] if stems else name, []).append(Path(folder, entry.name))
    return found


def listed_name(name: str) -> str:
    """The name of a video in a list, without its suffix, as `index` has it with `stems`."""
    name = composed(name)
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in VIDEO.suffixes else name


def called(path: Path, form: re.Pattern[str]) -> bool:
    """Whether most videos of a folder have names of this form."""
    first = some(path) if path.is_dir() else []
    return sum(form.fullmatch(file.name) is not None for file in first) * 2 > len(first)


def columns(path: Path, listed: bool) -> dict[str, str]:
    """The columns of videos with groups, which lists or class folders name, with their kinds. Raises DataError."""
    found = {"label": "label"} if listed else _class_folders.columns(path, VIDEO)
    return {"video": "video", **found, "group": "text"}


def some(path: Path) -> list[Path]:
    """The first videos in a folder, which tell whose names they have; empty if there are as many images or recordings.

    One such video among photos does not change what the folder holds.
    """
    files = list(islice(all_files(path), _LOOKED_AT))
    videos = [file for file in files if file.suffix.lower() in VIDEO.suffixes]
    others = sum(file.suffix.lower() in (IMAGES.suffixes | AUDIO.suffixes) - VIDEO.suffixes for file in files)
    return videos[:20] if len(videos) > others else []


def best(files: Sequence[Path], words: Sequence[str]) -> Path:
    """Of files with one name, the first that has most of these words among its folders; the last word counts most."""
    weights = {word: 2**place for place, word in enumerate(words)}
    return max(files, key=lambda file: sum(weights.get(part, 0) for part in set(file.parts[:-1])))


def split_of(section: DataSection, name: str) -> str:
    """Lists of Kinetics call validation `validate` or `val`: it has the name that the recipe asks for.

    Without such a recipe `validate` is `validation`. All other names of splits are kept.
    """
    asked = (section.train, section.validation, section.test)
    if name in asked or name not in _VALIDATION:
        return name
    return next((one for one in asked if one in _VALIDATION), "validation" if name == "validate" else name)


def times(start: str, end: str) -> tuple[float, float]:
    """Two cells as seconds. Raises DataError unless they are numbers, 0 or more, and in order."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        first = last = math.nan
    if not (math.isfinite(first) and math.isfinite(last)):
        raise DataError(f"{start[:40]!r} to {end[:40]!r} are no seconds")
    if first < 0:
        raise DataError(f"the part begins at {first:g} seconds: a video begins at 0")
    if last <= first:
        raise DataError(f"the part ends at {last:g} seconds and begins at {first:g}")
    return first, last


class Listed(NamedTuple):
    """The rows of each split, those that cannot be used (id, why), and what is no row."""

    rows: dict[str, list[_audio_lists.Row]]
    skipped: dict[str, _audio_lists.SkippedRows]
    ignored: Counter[str]


def source_of(section: DataSection, found: Listed, columns: Sequence[str], root: Path, labels: list[str]) -> Source:
    """The splits of `found`. A split whose rows have no labels is left out and named if the task needs labels.

    Raises DataError if no row is left.
    """
    source = Source(splits={}, labels=labels if labels and "label" not in section.columns else None)
    parts = any("start" in row for rows in found.rows.values() for row in rows)
    for name, rows in found.rows.items():
        labelled = [row for row in rows if row["label"] is not None]
        if "label" not in columns:
            rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
        elif len(labelled) < len(rows):
            found.ignored[f"rows of {name} without a label"] += len(rows) - len(labelled)
            if not labelled:
                source.unlabelled.append(name)
                log.warning("%s: the list of %s has no labels: no row of it is used", section.id, name)
            rows = labelled
        elif not rows:
            log.warning("%s: no row that the lists give to %s has a video that can be used", section.id, name)
        if not rows:
            continue
        if parts:  # the columns are then in all splits, and empty for complete files
            cut = [{"start": row.get("start"), "end": row.get("end")} for row in rows]
            rows = [{**row, "video": {**row["video"], **of}, **of} for row, of in zip(rows, cut, strict=True)]
        source.group = "group" if "group" in rows[0] else None
        _audio_lists.add(source, section, name, rows, found.skipped.get(name, []), columns, root)
    if not source.splits:
        whys = [why for reasons in found.skipped.values() for _, why in reasons]
        counts = "; ".join(f"{what}: {count:,}" for what, count in found.ignored.items() if count)
        first = f"; {len(whys):,} cannot be used; the first: {whys[0]}" if whys else ""
        about = f" ({counts})" if counts else "" if whys else " (no rows)"
        raise DataError(f"{root}: no row of the lists can be used{about}{first}")
    source.ignored = {what: count for what, count in found.ignored.items() if count}
    return source


def unlisted(found: Index, named: Collection[str]) -> dict[str, int]:
    """How many videos have a name that no row has, for Source.ignored. `named` holds names in lower case."""
    count = sum(len(files) for name, files in found.items() if name.lower() not in named)
    return {"videos that no row names": count} if count else {}


# ---- class folders with split files: UCF101 and HMDB51 ----


def number_of(section: DataSection, config: str = "1") -> str:
    """The split that data.config names: 1, 2 or 3. Raises DataError."""
    found = re.fullmatch(r"(?:split)?0?([123])", section.config or config)
    if found is None:
        raise DataError(f"data.config: {section.config!r} is no split: give split1, split2 or split3")
    return found[1]


def folders_with_groups(
    section: DataSection, columns: tuple[str, ...], group_of: Callable[[str], str | None]
) -> Source:
    """Class folders of videos whose names say from which video they were cut. Raises DataError or MissingColumn."""
    own = section.model_copy(update={"group": None}) if section.group == "group" else section
    source = _class_folders.read(own, VIDEO, columns)
    for name, rows in source.splits.items():
        files = [Path(file or id_) for file, id_ in zip(paths(rows), values(rows, "id"), strict=True)]
        source.splits[name] = with_column(rows, "group", [group_of(file.name) or file.stem for file in files])
    source.group = "group"
    return source


class Lists(NamedTuple):
    """The lines of the lists of UCF101 or HMDB51: (file, line number, class, name of the video), by split.

    `named` holds the names of all listed videos, in lower case; those of no split are among them.
    """

    lines: dict[str, list[tuple[Path, int, str, str]]]
    skipped: dict[str, _audio_lists.SkippedRows]
    ignored: Counter[str]
    named: set[str]


def of_lists(
    section: DataSection,
    root: Path,
    lists: Lists,
    files: Index,
    classes: list[str],
    columns: tuple[str, ...],
    group_of: Callable[[str], str | None],
) -> Source:
    """The rows of lists of videos in class folders. Raises DataError or MissingColumn.

    `files` are by name without the suffix: a copy may be mp4 or webm, where the lists say avi. A listed video that
    is missing is skipped. If no video of its class is there, it is only counted, because users often take some of the
    classes.
    """
    if section.columns:
        raise MissingColumn("data.columns: this layout has fixed columns: leave it out")
    by_name: Index = {}
    for name, found in files.items():  # UCF101 writes HandStandPushups in two ways
        by_name.setdefault(name.lower(), []).extend(found)
    there = {folder for found in files.values() for file in found for folder in file.relative_to(root).parts[:-1]}
    rows: dict[str, list[_audio_lists.Row]] = {}
    seen: dict[str, str] = {}
    for split, lines in lists.lines.items():
        rows[split] = []
        bad = lists.skipped.setdefault(split, [])
        for path, number, label, name in lines:
            where = f"{path.name}:{number}"
            id_ = f"{label}/{name}"
            try:
                if id_ in seen:
                    raise DataError(f"{id_} a second time (the first: {seen[id_]})")
                seen[id_] = where
                stem = listed_name(name)
                lists.named.add(stem.lower())
                videos = files.get(stem) or by_name.get(stem.lower())
                if not videos:
                    if label not in there:
                        lists.ignored[f"rows of {split} of classes without a video here"] += 1
                        continue
                    raise DataError(f"{id_}: no such video below {root}")
                videos = [video for video in videos if video.name.lower() == name.lower()] or videos
                cells = _audio_lists.recording(best(videos, [label]), "video")
                rows[split].append({"id": id_, **cells, "label": label, "group": group_of(name) or Path(name).stem})
            except DataError as error:
                bad.append((where, f"{where}: {error}"))
    source = source_of(section, Listed(rows, lists.skipped, lists.ignored), columns, root, classes)
    source.ignored |= unlisted(files, lists.named)
    return source
