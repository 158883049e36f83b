"""Videos in class folders, with or without split folders above them; or with a list of them, as on the hub.

    clips/jump/1.mp4                 clips/train/jump/1.mp4   clips/test/jump/9.webm
    clips/metadata.csv               clips/train/metadata.csv   clips/test/metadata.csv

The list (metadata.csv, .jsonl or .parquet) has a column file_name, with paths relative to it, and a column label. A row
may be a part of a file: columns start and end, or offset and duration, in seconds.

An mp4 may be meant as a recording, and a gif as an image: the task decides. If no task is named, such a folder holds
videos if most of its files are videos.
"""

from collections import Counter
from itertools import islice
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files, ends, runs, suffix_of, suffixes
from pipelines.data.formats import _class_folders, _metadata, table
from pipelines.data.media import AUDIO, IMAGES, SOUND_OR_PICTURES, VIDEO
from pipelines.data.schema import Source

TEXTS = ("text", "caption")
_LOOKED_INTO = 3  # files that tell whether files with such suffixes show pictures


def detect(path: Path) -> bool:
    """Whether most files of a folder are videos, in a layout that this format reads."""
    if not path.is_dir():
        return False
    found = suffixes(path, _class_folders.LOOKED_AT)
    videos = _count(found, VIDEO.suffixes - IMAGES.suffixes)
    others = _count(found, IMAGES.suffixes | AUDIO.suffixes - VIDEO.suffixes)
    if videos <= others:
        return False
    either = _count(found, AUDIO.suffixes & VIDEO.suffixes)
    return (either * 2 <= videos or _shows_pictures(path)) and has_videos(path)


def has_videos(path: Path) -> bool:
    """Whether a folder holds videos in a layout that this format reads, for a task that needs videos."""
    if not path.is_dir():
        return False
    endings = VIDEO.suffixes | VIDEO.unread
    if not any(suffix_of(entry.name) in endings for _, entries in runs(path) for entry in entries):
        return False
    if any(_metadata.own_list(folder) for folder in (path, *_metadata.split_folders(path))):
        return True
    return _class_folders.detect(path) or not table.detect(path)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds, by the head of a list or the names of folders. Raises DataError."""
    found = next((_metadata.columns(place, VIDEO, TEXTS) for place in _metadata.lists(path).values()), None)
    return found or _class_folders.columns(path, VIDEO)


def classes(path: Path) -> list[str]:
    """The names of the class folders, sorted; empty if a list says the classes."""
    return [] if _metadata.lists(path) else _class_folders.classes(path)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of class folders, or of a list of videos. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    lists = _metadata.lists(root, section) if root.is_dir() else {}
    return (
        _metadata.read(section, VIDEO, lists, TEXTS, columns, optional)
        if lists
        else _class_folders.read(section, VIDEO, columns)
    )


def _count(found: Counter[str], endings: frozenset[str]) -> int:
    return sum(found[ending] for ending in endings)


def _shows_pictures(path: Path) -> bool:
    """Whether files that hold a video or only sound (.mp4, .webm) hold a video, by the names of codecs in them.

    If nothing is found in them, an mp4 is taken for a video, and what browsers record is not.
    """
    both = AUDIO.suffixes & VIDEO.suffixes
    for file in islice((file for file in all_files(path) if file.suffix.lower() in both), _LOOKED_INTO):
        start = ends(file)
        if any(mark in start for mark in (b"V_VP", b"V_AV1", b"V_MPEG", b"vmhd")):
            return True
        sound = any(mark in start for mark in (b"A_OPUS", b"A_VORBIS", b"A_AAC", b"smhd"))
        if file.suffix.lower() not in SOUND_OR_PICTURES and not sound:
            return True
    return False
