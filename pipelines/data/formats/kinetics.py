"""Kinetics (400, 600, 700) in its own lists, with the clips that a user has (Kay et al. 2017; Carreira et al.).

    kinetics/train.csv                                 label,youtube_id,time_start,time_end,split[,is_cc]
    kinetics/val.csv   kinetics/test.csv               or in a folder such as annotations/; a test list may lack labels
    kinetics/train/riding_a_bike/<youtube_id>_000010_000020.mp4
    kinetics/train/<youtube_id>_000010_000020.mp4      without class folders; also in val/, test/ and replacement/
    kinetics/<youtube_id>.mp4                          a complete video, of which the row is the part from start to end

Files may be in any folder: their names decide. A file in a folder with `replacement` in its name takes precedence.
Rows without a video are counted and left out, because many videos no longer exist. Rows of one video stay together.
"""

import csv
import re
from collections import Counter
from itertools import islice
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, folders
from pipelines.data.formats import _audio_lists, _video_lists
from pipelines.data.schema import Source
from pipelines.errors import DataError

COLUMNS = ("youtube_id", "time_start", "time_end")
ABSENT = "rows of {} without a video"


def detect(path: Path) -> bool:
    """Whether a folder, or a folder in it, holds a list of Kinetics."""
    return path.is_dir() and bool(_lists(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds. Raises DataError."""
    return {"video": "video", "label": "label", "group": "text"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the lists that have a video. Raises DataError or MissingColumn."""
    root = _audio_lists.folder(section)
    lists = _lists(root)
    if not lists:
        raise DataError(f"data.id: {section.id} holds no list with the columns {', '.join(COLUMNS)}")
    files = _video_lists.index(root, stems=True)
    found = _video_lists.Listed({}, {}, Counter())
    seen: dict[str, str] = {}
    named: set[str] = set()
    for path in lists:
        named |= _read(path, section, files, found, seen)
    rows = [row for split in found.rows.values() for row in split]
    if not rows and any(found.ignored.values()):
        raise DataError(
            f"{root}: none of {sum(found.ignored.values()):,} rows has a video: put files called "
            f"<youtube_id>_<start>_<end>.mp4 into a folder in it, as in {_example(lists[0])}"
        )
    source = _video_lists.source_of(section, found, columns, root, [])
    source.ignored |= _video_lists.unlisted(files, named)
    return source


def _read(
    path: Path, section: DataSection, files: _video_lists.Index, found: _video_lists.Listed, seen: dict[str, str]
) -> set[str]:
    """Add the rows of a list; return the names of their files. `seen` holds where each row stands. Raises DataError."""
    listed, wrong = _audio_lists.listed(path, COLUMNS)
    if not listed and not wrong:
        raise DataError(f"{path}: no rows")
    own = path.stem
    first: str | None = None
    named: set[str] = set()
    for where, cells in listed:
        split = _video_lists.split_of(section, cells.get("split", "").strip() or own)
        first = first or split
        good = found.rows.setdefault(split, [])
        bad = found.skipped.setdefault(split, [])
        video, label = cells["youtube_id"].strip(), cells.get("label", "").strip()
        try:
            start, end = _video_lists.times(cells["time_start"], cells["time_end"])
            if not video or "/" in video:
                raise DataError(f"{video!r} is no id of a video")
            name = _name(video, start, end)
            id_ = name if start.is_integer() and end.is_integer() else f"{video}_{start:g}_{end:g}"
            if id_ in seen:
                raise DataError(f"{id_} a second time (the first: {seen[id_]})")
            seen[id_] = where
            named |= {name.lower(), video.lower()}
            clips, complete = files.get(name), files.get(video)
            if not clips and not complete:
                found.ignored[ABSENT.format(path.name)] += 1
                continue
            folder = label.translate(_DROPPED)
            words = [own, split, label, folder, *_replacements(clips or complete or [])]
            row = _audio_lists.recording(_video_lists.best(clips or complete or [], words), "video")
            part = {} if clips else {"start": start, "end": end}
            if not label and "label" in cells:
                raise DataError("no label")
            good.append({"id": id_, **row, "label": label or None, "group": video, **part})
        except DataError as error:
            bad.append((where, f"{where}: {error}"))
    if wrong:
        found.skipped.setdefault(first or own, []).extend(wrong)
    return named


_OF_LISTS = re.compile("annot|csv|info|kinetics|label|list|meta|split")  # in names of folders with lists
_DROPPED = str.maketrans({" ": "_", "'": None, "(": None, ")": None})  # torchvision's names of class folders


def _replacements(files: list[Path]) -> list[str]:
    return [part for file in files for part in file.parts[:-1] if "replacement" in part.lower()]


def _lists(root: Path) -> list[Path]:
    """The lists in a folder, or, if it has none, in the folders in it."""
    own = [path for path in all_files(root, deep=False) if _is_list(path)]
    near = (child for child in folders(root) if _OF_LISTS.search(child.name.lower()))
    return own or [path for child in near for path in all_files(child, deep=False) if _is_list(path)]


def _is_list(path: Path) -> bool:
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader(islice(file, 1)), [])
    except (OSError, csv.Error):
        return False
    return set(COLUMNS) <= set(header)


def _example(path: Path) -> str:
    cells = _audio_lists.listed(path, COLUMNS)[0][0][1]
    start, end = _video_lists.times(cells["time_start"], cells["time_end"])
    return f"{_name(cells['youtube_id'], start, end)}.mp4"


def _name(video: str, start: float, end: float) -> str:
    """The name of a clip's file, without its suffix."""
    return f"{video}_{round(start):06d}_{round(end):06d}"
