"""Photos in class folders, with or without split folders above them.

    photos/cat/1.jpg                 photos/train/cat/1.jpg   photos/test/cat/9.jpg

Listed here and not by `load_dataset("imagefolder")`, which drops classes and files whose names look like splits.
A split is a direct child with a split's name (train, val, Test, ...) that holds class folders.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.data.files import SPLIT_NAMES, all_files, folders, kind_of, printable
from pipelines.data.formats import table
from pipelines.data.splits import USUAL
from pipelines.errors import DataError

COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SUFFIXES = frozenset((*COMMON, ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga"))


def detect(path: Path) -> bool:
    """Folders that hold files; beside a table at least two, for one folder of images is what a table's paths point to."""
    if not path.is_dir() or _documents_only(path):
        return False
    filled = [child for child in folders(path) if next(all_files(child), None) is not None]
    classes = {c.name for child in filled for c in (folders(child) if _named_as_split(child) else [child])}
    return len(classes) > 1 if table.detect(path) else bool(filled)


def read(section: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    from pipelines.data import Source

    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    if section.group not in (None, "none"):  # rows have no further columns
        raise DataError(f"data.group: class folders have no column {section.group!r}: list the files in a csv that has it, or leave it out")
    if section.columns:
        raise DataError("data.columns: class folders have no columns: leave it out")
    asked = {name for name in (section.train, section.validation, section.test) if name}
    parts = {c.name: c for c in folders(root) if (_named_as_split(c) or c.name in asked) and any(map(_any_file, folders(c)))}
    source = Source(splits={})
    ignored: Counter[str] = Counter()
    if parts:
        _outside(root, parts, section.train, ignored)
    for name, folder in (parts or {"train": root}).items():
        training = not parts or name == section.train or name.lower() in USUAL["train"]
        rows, skipped = _list(root, folder, ignored, training)
        if not rows:
            others = ", ".join(sorted(ignored))
            raise DataError(
                f"{folder}: no readable images in class folders ({len(skipped)} files skipped{f'; left out: {others}' if others else ''})"
            )
        source.splits[name] = _dataset(rows)
        source.skipped[name] = skipped
    source.ignored = dict(ignored)
    return source


def _outside(root: Path, parts: dict[str, Path], named: str | None, ignored: Counter) -> None:
    """What lies beside the split folders: images there are an error, unless the recipe says which split is train."""
    for path in all_files(root):
        if path.relative_to(root).parts[0] in parts:
            continue
        if path.suffix.lower() not in SUFFIXES:
            ignored[kind_of(path)] += 1
        elif named is not None:
            ignored["images outside of the splits"] += 1
        else:
            name = path.relative_to(root).as_posix()
            raise DataError(
                f"{root}: {', '.join(parts)} are splits, and {name} lies outside of them: move it, "
                "or leave such images out by naming a split, as in data.train=train"
            )


def _list(root: Path, folder: Path, ignored: Counter, training: bool) -> tuple[list[dict], list[tuple[str, str]]]:
    """Every file below the folder becomes a row, a skip, or is counted as ignored: none vanishes."""
    rows: list[dict] = []
    skipped: list[tuple[str, str]] = []
    classes = {child.name: 0 for child in folders(folder)}
    for path in all_files(folder):
        inner = path.relative_to(folder).parts
        if len(inner) > 1:
            classes[inner[0]] += 1
        if path.suffix.lower() not in SUFFIXES:
            ignored[kind_of(path)] += 1
            continue
        name = path.relative_to(root).as_posix()
        reason, size = _problem(path, inner)
        if reason:
            skipped.append((printable(name), f"{printable(str(path))}: {reason}"))
        else:
            rows.append({"id": name, "image": {"path": str(path), "bytes": None}, "label": inner[0], "size": size})
    empty = [name for name, count in classes.items() if count == 0]
    if training and empty:
        raise DataError(f"{folder / empty[0]}: an empty class folder: add images, or remove it")
    return rows, skipped


def _problem(path: Path, inner: tuple[str, ...]) -> tuple[str, int]:
    """Why an image file is no row ("" where it is one), and its size in bytes."""
    if len(inner) == 1:
        return "in no class folder", 0
    if printable(str(path)) != str(path):
        return "its name is not UTF-8", 0
    try:
        size = path.stat().st_size
    except OSError as error:
        return error.strerror or "cannot be read", 0
    return ("" if size else "empty file"), size


def _dataset(rows: list[dict]) -> Any:
    from datasets import Dataset, Features, Value

    image = {"path": Value("string"), "bytes": Value("binary")}
    features = Features({"id": Value("string"), "image": image, "label": Value("string"), "size": Value("int64")})
    return Dataset.from_dict({key: [row[key] for row in rows] for key in features}, features=features)


# ---- files and folders ----


def _named_as_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_NAMES and bool(folders(folder))


def _documents_only(path: Path) -> bool:
    """Texts and no image: a folder of folders of them is no folder of classes."""
    texts = False
    for file in all_files(path):
        if file.suffix.lower() in SUFFIXES:
            return False
        texts = texts or file.suffix.lower() in (".txt", ".md")
    return texts


def _any_file(folder: Path) -> bool:
    return next(all_files(folder), None) is not None
