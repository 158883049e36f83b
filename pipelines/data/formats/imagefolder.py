"""Photos in class folders, with or without split folders above them.

    photos/cat/1.jpg                 photos/train/cat/1.jpg   photos/test/cat/9.jpg

Listed here and not by `load_dataset("imagefolder")`, which drops classes and files whose names look like splits.
A split is a direct child named train, validation, val, valid or test that holds class folders.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.errors import DataError

SPLIT_NAMES = ("train", "validation", "val", "valid", "test")
SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga"])
_LITTER = frozenset(("Thumbs.db", "desktop.ini"))


def detect(path: Path) -> bool:
    return path.is_dir() and any(_files(child) for child in _folders(path))


def read(section: Any, columns: tuple[str, ...]) -> Any:
    from pipelines.data import Source

    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    asked = [name for name in (section.train, section.validation, section.test) if name]
    names = [c.name for c in _folders(root) if c.name in (asked or SPLIT_NAMES) and _folders(c)]
    parts = {name: root / name for name in names} or {"train": root}
    source = Source(splits={})
    ignored: Counter[str] = Counter()
    for name, folder in parts.items():
        rows, skipped = _list(root, folder, ignored)
        if not rows:
            raise DataError(f"{folder}: no readable images in class folders ({len(skipped)} files skipped)")
        source.splits[name] = _dataset(rows)
        source.skipped[name] = skipped
    source.ignored = dict(ignored)
    return source


def _list(root: Path, folder: Path, ignored: Counter) -> tuple[list[dict], list[tuple[str, str]]]:
    """Every file below the class folders becomes a row, a skip, or is counted as ignored: none vanishes."""
    rows: list[dict] = []
    skipped: list[tuple[str, str]] = []
    before, found = sum(ignored.values()), 0
    for child in _folders(folder):
        for path in _files(child):
            found += 1
            name = path.relative_to(root).as_posix()
            if path.suffix.lower() not in SUFFIXES:
                ignored[path.suffix.lower() or "no suffix"] += 1
                continue
            try:
                size = path.stat().st_size
            except OSError as error:
                skipped.append((name, f"{path}: {error.strerror}"))
                continue
            if size == 0:
                skipped.append((name, f"{path}: empty file"))
            else:
                rows.append({"id": name, "image": {"path": str(path), "bytes": None}, "label": child.name, "size": size})
    if found != len(rows) + len(skipped) + sum(ignored.values()) - before:
        raise DataError(f"{folder}: {found} files found but {len(rows)} read and {len(skipped)} skipped")
    return rows, skipped


def _dataset(rows: list[dict]) -> Any:
    from datasets import Dataset, Features, Value

    image = {"path": Value("string"), "bytes": Value("binary")}
    features = Features({"id": Value("string"), "image": image, "label": Value("string"), "size": Value("int64")})
    return Dataset.from_dict({key: [row[key] for row in rows] for key in features}, features=features)


def _folders(path: Path) -> list[Path]:
    return sorted(c for c in path.iterdir() if c.is_dir() and not c.name.startswith("."))


def _files(path: Path) -> list[Path]:
    found = []
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        found += [Path(folder) / n for n in sorted(names) if not n.startswith(".") and n not in _LITTER]
    return found
