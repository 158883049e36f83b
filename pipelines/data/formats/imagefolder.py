"""Photos in class folders, with or without split folders above them.

    photos/cat/1.jpg                 photos/train/cat/1.jpg   photos/test/cat/9.jpg

Listed here and not by `load_dataset("imagefolder")`, which drops classes and files whose names look like splits.
"""

from pathlib import Path
from typing import Any

from pipelines.data import classfolders
from pipelines.data.classfolders import AUDIO, IMAGES
from pipelines.data.files import all_files

SUFFIXES = IMAGES.suffixes


def detect(path: Path) -> bool:
    """Class folders, unless they hold recordings, or texts and no image."""
    if not classfolders.detect(path):
        return False
    found = classfolders.medium(path)
    return found is not AUDIO and (found is IMAGES or not any(file.suffix.lower() in (".txt", ".md") for file in all_files(path)))


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    return classfolders.read(section, IMAGES, columns)
