"""Class folders of media files, with or without split folders above them: what imagefolder and audiofolder share.

A split is a direct child with a split's name (train, val, Test, ...) that holds class folders. For tasks that learn no labels a folder
may hold its files itself: children are then splits, too, where all are called so.
"""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.data import audio
from pipelines.data.files import SPLIT_NAMES, all_files, folders, kind_of, printable, problem
from pipelines.data.formats import table
from pipelines.data.splits import USUAL
from pipelines.errors import DataError


class Kind(NamedTuple):
    """A medium: its column, what its files are called in messages, and how their names end."""

    column: str
    files: str
    suffixes: frozenset[str]


_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
IMAGES = Kind("image", "images", frozenset((*_PHOTOS, ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga")))
AUDIO = Kind("audio", "recordings", audio.SUFFIXES)
LOOKED_AT = 1000  # files by which the medium of a folder is told


def detect(path: Path) -> bool:
    """Folders that hold files; beside a table at least two, for one folder of files is what a table's paths point to."""
    if not path.is_dir():
        return False
    filled = [child for child in folders(path) if _any_file(child)]
    if not table.detect(path):
        return bool(filled)
    classes = {c.name for child in filled for c in (folders(child) if _named_as_split(child) else [child])}
    return len(classes - SPLIT_NAMES) > 1  # train.csv and test.csv may have their files in train/ and test/


def medium(path: Path) -> Kind | None:
    """What most files below a folder are, of images and recordings; None where there is neither."""
    found = Counter(file.suffix.lower() for file in islice(all_files(path), LOOKED_AT))
    counts = {kind: sum(found[suffix] for suffix in kind.suffixes) for kind in (IMAGES, AUDIO)}
    best = max(counts, key=counts.__getitem__)
    if counts[best] or sum(found.values()) < LOOKED_AT:
        return best if counts[best] else None
    return next((kind for file in all_files(path) for kind in counts if file.suffix.lower() in kind.suffixes), None)


def read(section: Any, kind: Kind, columns: tuple[str, ...]) -> Any:
    from pipelines.data import Source

    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    if section.group not in (None, "none"):  # rows have no further columns
        raise DataError(f"data.group: class folders have no column {section.group!r}: list the files in a csv that has it, or leave it out")
    if section.columns:
        raise DataError("data.columns: class folders have no columns: leave it out")
    lacking = sorted(set(columns) - {kind.column, "label"})
    if lacking:
        raise DataError(f"{section.id}: class folders of {kind.files} have labels and no {lacking[0]}, which this task needs: use a table")
    labelled = "label" in columns
    filled = [child for child in folders(root) if _any_file(child)]
    if labelled and not folders(root):
        found = ", ".join(printable(path.name) for path in islice(all_files(root), 6)) or "nothing"
        raise DataError(
            f"data.id: {section.id} cannot be read as data (found: {found}): this task learns labels, "
            f"so give {kind.files} in class folders, or a table of them"
        )
    parts = _parts(section, filled, labelled)
    source = Source(splits={})
    ignored: Counter[str] = Counter()
    if parts:
        _outside(root, kind, parts, section.train, ignored)
    for name, folder in (parts or {"train": root}).items():
        training = not parts or name == section.train or name.lower() in USUAL["train"]
        rows, skipped = _list(root, kind, folder, ignored, training, labelled)
        if not rows:
            others = ", ".join(sorted(ignored))
            left_out = f"; left out: {others}" if others else ""
            where = " in class folders" if labelled else ""
            raise DataError(f"{folder}: no readable {kind.files}{where} ({len(skipped)} files skipped{left_out})")
        source.splits[name] = _dataset(kind, rows, labelled)
        source.skipped[name] = skipped
    source.ignored = dict(ignored)
    return source


def _parts(section: Any, filled: list[Path], labelled: bool) -> dict[str, Path]:
    """The split folders; without labels also those that hold their files themselves, unless other folders stand beside them."""
    asked = {name for name in (section.train, section.validation, section.test) if name}
    if not labelled and all(child.name.lower() in SPLIT_NAMES or child.name in asked for child in filled):
        return {child.name: child for child in filled}
    found = {c.name: c for c in filled if (_named_as_split(c) or c.name in asked) and any(map(_any_file, folders(c)))}
    return found if labelled else {**found, **{c.name: c for c in filled if c.name in asked}}


def _outside(root: Path, kind: Kind, parts: dict[str, Path], named: str | None, ignored: Counter) -> None:
    """What lies beside the split folders: such files there are an error, unless the recipe says which split is train."""
    for path in all_files(root):
        if path.relative_to(root).parts[0] in parts:
            continue
        if path.suffix.lower() not in kind.suffixes:
            ignored[kind_of(path)] += 1
        elif named is not None:
            ignored[f"{kind.files} outside of the splits"] += 1
        else:
            name = path.relative_to(root).as_posix()
            raise DataError(
                f"{root}: {', '.join(parts)} are splits, and {name} lies outside of them: move it, "
                f"or leave such {kind.files} out by naming a split, as in data.train=train"
            )


def _list(
    root: Path, kind: Kind, folder: Path, ignored: Counter, training: bool, labelled: bool
) -> tuple[list[dict], list[tuple[str, str]]]:
    """Every file below the folder becomes a row, a skip, or is counted as ignored: none vanishes."""
    rows: list[dict] = []
    skipped: list[tuple[str, str]] = []
    classes = {child.name: 0 for child in folders(folder)}
    for path in all_files(folder):
        inner = path.relative_to(folder).parts
        if len(inner) > 1:
            classes[inner[0]] += 1
        if path.suffix.lower() not in kind.suffixes:
            ignored[kind_of(path)] += 1
            continue
        name = path.relative_to(root).as_posix()
        reason, size = ("in no class folder", 0) if labelled and len(inner) == 1 else problem(path)
        if reason:
            skipped.append((printable(name), f"{printable(str(path))}: {reason}"))
        else:
            rows.append({"id": name, kind.column: {"path": str(path), "bytes": None}, "size": size, "label": inner[0]})
    empty = [name for name, count in classes.items() if count == 0]
    if labelled and training and empty:
        raise DataError(f"{folder / empty[0]}: an empty class folder: add {kind.files}, or remove it")
    return rows, skipped


def _dataset(kind: Kind, rows: list[dict], labelled: bool) -> Any:
    from datasets import Dataset, Features, Value

    file = {"path": Value("string"), "bytes": Value("binary")}
    label = {"label": Value("string")} if labelled else {}
    features = Features({"id": Value("string"), kind.column: file, **label, "size": Value("int64")})
    return Dataset.from_dict({key: [row[key] for row in rows] for key in features}, features=features)


# ---- files and folders ----


def _named_as_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_NAMES and bool(folders(folder))


def _any_file(folder: Path) -> bool:
    return next(all_files(folder), None) is not None
