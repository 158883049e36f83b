"""Images in class folders, or without class folders; both with or without split folders; or with a list, as on the hub.

    photos/cat/1.jpg                 photos/train/cat/1.jpg   photos/test/cat/9.jpg
    photos/1.jpg                     photos/train/1.jpg       photos/test/9.jpg            for tasks without labels
    photos/metadata.csv              photos/train/metadata.csv   photos/test/metadata.csv

The list (metadata.csv, .jsonl, .json or .parquet) has a column file_name, with paths relative to it, and the task's
column: label, or text, which may also be called caption or prompt. Files are not listed by
`load_dataset("imagefolder")`, which drops classes and files with names like those of splits.
"""

from itertools import islice
from pathlib import Path

from pipelines.config.recipe import DataSection
from pipelines.data.files import all_files
from pipelines.data.formats import _class_folders, _metadata, mnist, table
from pipelines.data.media import AUDIO, FILE_NAME, IMAGES
from pipelines.data.schema import Source
from pipelines.errors import DataError

TEXTS = ("text", "caption", "prompt")


def detect(path: Path) -> bool:
    """Whether a folder holds images, in class folders or not, and not mainly recordings or texts."""
    if not path.is_dir() or mnist.detect(path):
        return False
    found = _class_folders.medium(path)
    if found is AUDIO or (found is None and table.detect(path)):
        return False
    if _class_folders.detect(path):
        return found is IMAGES or not any(_is_text(file) for file in all_files(path))
    if found is not IMAGES:
        return False
    return _listed(path) or (not table.detect(path) and not _texts_with_pictures(path))


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds, by the head of a list or the names of folders. Raises DataError."""
    found = next((_metadata.columns(place, IMAGES, TEXTS) for place in _metadata.lists(path).values()), None)
    return found or _class_folders.columns(path, IMAGES)


def classes(path: Path) -> list[str]:
    """The names of the class folders, sorted; empty if a list says the classes."""
    return [] if _metadata.lists(path) else _class_folders.classes(path)


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of class folders, of a folder of images, or of a list. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    lists = _lists(root, section, columns) if root.is_dir() else {}
    if lists:
        return _metadata.read(section, IMAGES, lists, TEXTS, columns, optional)
    if "text" in columns:
        odd = next(
            (path for folder in (root, *_metadata.split_folders(root, section)) if (path := _any_list(folder))), None
        )
        if odd is not None:
            raise DataError(
                f"{odd}: no column {FILE_NAME!r} (it has: {', '.join(table.column_names(odd))}): "
                "it is to say of which image a row is"
            )
        raise DataError(
            f"{section.id}: images without text, which this task needs: put a metadata.csv with the columns file_name "
            "and text beside them, or beside each image its caption, 1.txt beside 1.jpg"
        )
    return _class_folders.read(section, IMAGES, columns)


def _lists(root: Path, section: DataSection, columns: tuple[str, ...]) -> dict[str, Path]:
    """The lists to read (split -> list). None are read if the folders suffice for the task.

    This is so if a list has no labels, or if the folder has both one list for all files and split folders.
    """
    if "text" not in columns and _metadata.own_list(root) and _metadata.split_folders(root, section):
        return {}
    found = _metadata.lists(root, section)
    label = section.columns.get("label", "label")
    if (
        "label" in columns
        and "text" not in columns
        and not all(label in table.column_names(path) for path in found.values())
    ):
        return {}
    return found


def _listed(root: Path) -> bool:
    return any(_metadata.own_list(folder) for folder in (root, *_metadata.split_folders(root)))


def _any_list(folder: Path) -> Path | None:
    return next((path for name in _metadata.LISTS if (path := folder / name).is_file()), None)


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in (".txt", ".md")


def _texts_with_pictures(path: Path) -> bool:
    files = list(islice(all_files(path), _class_folders.LOOKED_AT))
    return sum(map(_is_text, files)) > sum(file.suffix.lower() in IMAGES.suffixes for file in files)
