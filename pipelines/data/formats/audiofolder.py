"""Recordings in class folders, with or without split folders above them; or with a list of them, as on the hub.

    sounds/dog/1.wav                 sounds/train/dog/1.wav   sounds/test/dog/9.wav
    speech/metadata.csv              speech/train/metadata.csv   speech/test/metadata.csv

The list (metadata.csv, .jsonl or .parquet) has a column file_name, with paths relative to it, and the task's column:
label, or text, which may also be called transcription, transcript or sentence.
"""

from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.formats import (
    _class_folders,
    _metadata,
    audioset,
    common_voice,
    esc50,
    kaldi,
    librispeech,
    libritts,
    ljspeech,
    nemo,
    spoken_digits,
    vctk,
)
from pipelines.data.media import AUDIO
from pipelines.data.schema import Source

TEXTS = ("text", "transcription", "transcript", "sentence")


def detect(path: Path) -> bool:
    """Whether a folder holds recordings in a layout that no format of a known data set reads."""
    if not path.is_dir() or _class_folders.medium(path) is not AUDIO:
        return False
    known = (audioset, common_voice, esc50, kaldi, librispeech, libritts, ljspeech, nemo, spoken_digits, vctk)
    if any(layout.detect(path) for layout in known):
        return False
    if any(_metadata.own_list(folder) for folder in (path, *_metadata.split_folders(path))):
        return True
    return _class_folders.detect(path) and not _class_folders.with_texts(path, AUDIO)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds, by the head of a list or the names of folders. Raises DataError."""
    found = next((_metadata.columns(place, AUDIO, TEXTS) for place in _metadata.lists(path).values()), None)
    return found or _class_folders.columns(path, AUDIO)


def classes(path: Path) -> list[str]:
    """The names of the class folders, sorted; empty if a list says the classes."""
    return [] if _metadata.lists(path) else _class_folders.classes(path)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of class folders, or of a list of recordings. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    lists = _metadata.lists(root, section) if root.is_dir() else {}
    return (
        _metadata.read(section, AUDIO, lists, TEXTS, columns, optional)
        if lists
        else _class_folders.read(section, AUDIO, columns)
    )
