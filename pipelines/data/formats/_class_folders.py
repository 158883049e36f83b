"""Class folders of media files, with or without split folders above them.

Used by imagefolder, audiofolder and videofolder.

A split is a direct child with the name of a split (train, val, Test, ...) that holds class folders. Folders with a
split's name within theirs (seg_train, test_images) are splits if they hold the same class folders. If a folder holds
nothing but a folder of the same name, that one is read, because archives are often unpacked in this way. For tasks
without labels a folder may hold its files itself; its children are then splits if all of them have names of splits.

A table in the folder that has the task's columns takes precedence over the names of the folders.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.config.recipe import DataSection
from pipelines.data.audio import reading as audio
from pipelines.data.files import (
    NOT_UTF8,
    SPLIT_NAMES,
    all_files,
    any_file,
    composed,
    file_size,
    folders,
    kind_of,
    not_among,
    printable,
    runs,
    suffix_of,
    suffixes,
)
from pipelines.data.formats import table
from pipelines.data.image import reading as images
from pipelines.data.media import AUDIO, FILE_NAME, IMAGES, VIDEO, VIDEOS_WITH_SOUND, Kind, paths
from pipelines.data.schema import Source
from pipelines.data.splitting import USUAL
from pipelines.data.video import reading as videos
from pipelines.errors import DataError, MissingColumn
from pipelines.utils import progress
from pipelines.utils.formatting import short

log = logging.getLogger("graft")


# words in the names of folders with files to predict, which have no labels
TRIED_ON = frozenset(("pred", "predict", "prediction", "predictions", "inference", "unlabelled", "unlabeled"))
# endings of texts next to files: 1.txt of 1.jpg. LibriTTS has .normalized.txt, and aligners of speech write .lab
TEXTS_BESIDE = {
    IMAGES: (".txt", ".TXT", ".caption", ".CAPTION"),
    AUDIO: (".txt", ".TXT", ".normalized.txt", ".lab"),
}
LOOKED_AT = 1000  # files that decide whether a folder holds images or recordings


def detect(path: Path) -> bool:
    """Whether a folder holds folders with files.

    If it holds a table, there must be at least two, because one folder may hold the table's files.
    """
    if not path.is_dir():
        return False
    filled = [child for child in folders(path) if any_file(child)]
    if not table.detect(path):
        return bool(filled)
    classes = {c.name for child in filled for c in (folders(child) if _named_as_split(child) else [child])}
    return len(classes - SPLIT_NAMES) > 1  # train.csv and test.csv may have their files in train/ and test/


def medium(path: Path) -> Kind | None:
    """Whether most files below a folder are images or recordings; None if there is neither."""
    found = suffixes(path, LOOKED_AT)
    # formats that can be read take precedence: photos among videos are a folder of photos
    for own in (
        {kind: kind.suffixes - VIDEOS_WITH_SOUND for kind in (IMAGES, AUDIO)},
        {IMAGES: IMAGES.unread, AUDIO: AUDIO.unread | VIDEOS_WITH_SOUND},
    ):
        counts = {kind: sum(found[suffix] for suffix in endings) for kind, endings in own.items()}
        best = max(counts, key=counts.__getitem__)
        if counts[best]:
            return best
    if sum(found.values()) < LOOKED_AT:
        return None
    return next(
        (kind for file in all_files(path) for kind in (IMAGES, AUDIO) if file.suffix.lower() in kind.suffixes), None
    )


def with_texts(path: Path, kind: Kind) -> bool:
    """Whether most files of this kind have a text file of the same name next to them."""
    found = [file for file in islice(all_files(path), LOOKED_AT) if file.suffix.lower() in kind.suffixes]
    return sum(text_of(file, kind).is_file() for file in found) * 2 > len(found)


def text_of(file: Path, kind: Kind) -> Path:
    """The text file of an image or a recording: 1.txt or 1.jpg.txt of 1.jpg. The first is given if there is none."""
    names = [*(file.with_suffix(ending) for ending in TEXTS_BESIDE[kind]), file.with_name(f"{file.name}.txt")]
    found = next((name for name in names if name.is_file()), None)
    if found is None and not file.name.isascii():  # a Mac writes accents as characters of their own
        written = _by_composed_name(file.parent)
        found = next((written[name] for one in names if (name := composed(one.name)) in written), None)
    return names[0] if found is None else found


@lru_cache(maxsize=4)
def _by_composed_name(folder: Path) -> dict[str, Path]:
    return {composed(file.name): file for file in all_files(folder, deep=False)}


def columns(path: Path, kind: Kind) -> dict[str, str]:
    """The columns of class folders, or of files without classes, with their kinds. Raises DataError.

    Folders are classes if there are two or more, and most files of this kind are in them.
    """
    for listed in (file for file in all_files(path, deep=False) if file.suffix.lower() in table.SUFFIXES):
        found = table.columns(listed)
        if kind.column in found or FILE_NAME in found:
            return {**found, kind.column: kind.column}
    top = _unwrapped(path)
    filled = [child for child in folders(top) if any_file(child)]
    if not _parts(DataSection(id=str(path)), filled, True):
        loose = sum(file.suffix.lower() in kind.suffixes for file in all_files(top, deep=False))
        within = sum(1 for child in filled for _ in islice(_of_kind(child, kind), loose + 1))
        named = [child for child in filled if child.name.lower() in SPLIT_NAMES or _role(child.name)]
        if len(filled) < 2 or loose >= within or (named == filled and not any(map(_classes, filled))):
            return {kind.column: kind.column}
        _check_classes(top, kind, filled)
    return {kind.column: kind.column, "label": "label"}


def classes(path: Path) -> list[str]:
    """The names of the class folders of the first split, sorted."""
    top = _unwrapped(path)
    filled = [child for child in folders(top) if any_file(child)]
    parts = _parts(DataSection(id=str(path)), filled, True)
    return sorted(_classes(next(iter(parts.values()))) if parts else (child.name for child in filled))


def read(section: DataSection, kind: Kind, columns: tuple[str, ...]) -> Source:
    """The rows of class folders, or of a table in the folder that has the task's columns. Raises DataError."""
    root = Path(section.id).expanduser()
    if not root.is_dir():
        raise DataError(f"data.id: no such folder: {section.id}")
    tables, unfit = _tables(root, section, kind, columns)
    if tables:
        return _of_tables(root, section, kind, columns, tables, unfit)
    if section.group not in (None, "none"):  # rows have no other columns
        raise DataError(
            f"data.group: class folders have no column {section.group!r}: "
            "list the files in a csv that has it, or leave it out"
        )
    if section.columns:
        found = next((file for file in all_files(root) if file.suffix.lower() in table.SUFFIXES), None)
        if found is not None:
            raise MissingColumn(
                f"data.columns: no table of {section.id} is read as a list of {kind.files} (there is "
                f"{short(found.relative_to(root).as_posix(), 80)}): call the list of each folder metadata.csv, with a "
                f"column {FILE_NAME} or {kind.column}"
            )
        raise MissingColumn("data.columns: class folders have no columns: leave it out")
    lacking = sorted(set(columns) - {kind.column, "label"})
    if lacking:
        advice = (
            "put each transcript next to its recording (1.wav and 1.txt), or "
            if kind is AUDIO and lacking == ["text"]
            else ""
        )
        if lacking == ["features"]:
            raise DataError(
                f"{section.id}: {kind.files}, and options.input=features reads numbers that were computed before: "
                "set options.input=frames, or give a table with the columns features (paths of .npy files) and label"
            )
        raise DataError(
            f"{section.id}: class folders of {kind.files} have labels and no {lacking[0]}, which this task needs: "
            f"{advice}use a table"
        )
    labelled = "label" in columns
    top = _unwrapped(root) if labelled else root
    filled = [child for child in folders(top) if any_file(child)]
    if labelled and not folders(top):
        files = ", ".join(printable(path.name) for path in islice(all_files(root), 6)) or "nothing"
        raise DataError(
            f"data.id: {section.id} cannot be read as data (found: {files}): this task learns labels, "
            f"so give {kind.files} in class folders, or a table of them"
        )
    parts = _parts(section, filled, labelled)
    if labelled and not parts:
        _check_classes(top, kind, filled)
    source = Source(splits={})
    ignored: Counter[str] = Counter()
    if parts:
        _outside(top, kind, parts, section.train, ignored)
    if top != root:
        ignored.update(kind_of(path) for path in all_files(root, deep=False))
    for name, folder in (parts or {"train": top}).items():
        training = not parts or name == section.train or name.lower() in USUAL["train"] or _role(name) == "train"
        with progress.preparing(f"listing {kind.files}") as report:
            rows, skipped = _list(root, kind, folder, ignored, training, labelled, report)
        if not rows.ids:
            others = ", ".join(sorted(ignored))
            left_out = f"; left out: {others}" if others else ""
            first = f"; the first: {skipped[0][1]}" if skipped else ""
            where = " in class folders" if labelled else ""
            raise DataError(
                f"{folder}: no readable {kind.files}{where} ({len(skipped)} files skipped{left_out}{first})"
            )
        source.splits[_usual(name, parts, section)] = _dataset(kind, rows, labelled)
        source.skipped[_usual(name, parts, section)] = skipped
    for path, why in unfit.items():
        if ignored[f"{path.suffix.lower()} files"] > 0:
            ignored[f"{path.suffix.lower()} files"] -= 1
        ignored[f"the table {path.name}: {why}"] = 1
    for name, count in _hidden(root, kind).items():
        ignored[f"{kind.files} in the hidden folder {name}"] += count
    source.ignored = {what: count for what, count in ignored.items() if count}
    return source


# ---- a table among the folders ----


def _tables(
    root: Path, section: DataSection, kind: Kind, columns: tuple[str, ...]
) -> tuple[dict[Path, dict[str, str]], dict[Path, str]]:
    """The tables in a folder with the task's columns (table -> column -> its name), and why others are not read."""
    found: dict[Path, dict[str, str]] = {}
    unfit: dict[Path, str] = {}
    if set(columns) == {kind.column}:
        return found, unfit
    for path in all_files(root, deep=False):
        if path.suffix.lower() not in table.SUFFIXES:
            continue
        try:
            have = table.column_names(path)
        except DataError as error:
            unfit[path] = str(error)
            continue
        names = {column: section.columns.get(column, column) for column in columns}
        if kind.column not in section.columns and names[kind.column] not in have and "file_name" in have:
            names[kind.column] = "file_name"
        missing = [name for name in names.values() if name not in have]
        if missing:
            unfit[path] = f"it has no column {missing[0]!r}"
        else:
            found[path] = {**section.columns, **{column: name for column, name in names.items() if name != column}}
    return found, unfit


def _of_tables(
    root: Path,
    section: DataSection,
    kind: Kind,
    columns: tuple[str, ...],
    tables: dict[Path, dict[str, str]],
    unfit: dict[Path, str],
) -> Source:
    """The rows of tables, which take precedence over the names of the folders."""
    shown = ", ".join(path.name for path in tables)
    log.warning(
        "%s: %s has the columns that this task needs, so its rows are the data, and the names of folders say nothing",
        section.id,
        shown,
    )
    source = Source(splits={})
    listed: set[str] = set()
    for path, names in tables.items():
        name = "train" if len(tables) == 1 else path.stem
        part = table.read(section.model_copy(update={"id": str(path), "columns": names}), columns)
        source.splits[name], source.skipped[name] = part.splits["train"], part.skipped["train"]
        source.lost[name] = part.lost["train"]
        listed.update(file for file in paths(part.splits["train"]) if file)
    others = not_among(root, kind.suffixes, listed)
    source.ignored = {f"{kind.files} that {shown} does not list": others} if others else {}
    source.ignored |= {f"the table {path.name}: {why}": 1 for path, why in unfit.items()}
    return source


# ---- splits ----


def _parts(section: DataSection, filled: list[Path], labelled: bool) -> dict[str, Path]:
    """The split folders.

    For tasks without labels, these are also folders that hold their files themselves, unless there are other folders.
    """
    asked = {name for name in (section.train, section.validation, section.test) if name}
    if not labelled and all(child.name.lower() in SPLIT_NAMES or child.name in asked for child in filled):
        return {child.name: child for child in filled}
    known = [c for c in filled if c.name.lower() in SPLIT_NAMES or c.name in asked]
    found = {c.name: _inner(c) for c in known if _classes(c)}
    found = found if labelled else {**found, **{c.name: c for c in filled if c.name in asked}}
    return found or _by_role(filled)


def _by_role(filled: list[Path]) -> dict[str, Path]:
    """Find splits like seg_train and seg_test: each has another role, and all hold the same class folders."""
    named = {child: role for child in filled if (role := _role(child.name)) and _classes(child)}
    roles = list(named.values())
    first = next((child for child, role in named.items() if role == "train"), None)
    if first is None or len(named) < 2 or len(set(roles)) < len(roles):
        return {}
    shared = all(_classes(first) & _classes(child) for child in named)
    return {child.name: _inner(child) for child in named} if shared else {}


def _role(name: str) -> str | None:
    """The split that a folder's name contains (imagenet-val -> validation); None if there is none, or more than one."""
    words = _words(name)
    found = {
        role for role, usual in USUAL.items() for word in words if word in usual or word.removesuffix("set") in usual
    }
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _usual(name: str, parts: dict[str, Path], section: DataSection) -> str:
    """The usual name of a split; the folder's own name if it is a usual one, or if the recipe names it."""
    asked = (section.train, section.validation, section.test)
    role = _role(name)
    return (
        role if parts and role and name not in asked and name.lower() not in SPLIT_NAMES and role not in parts else name
    )


def _check_classes(root: Path, kind: Kind, filled: list[Path]) -> None:
    """Raise DataError if folders cannot be classes: some have names of splits, or all hold the same folders.

    A single folder with such a name may be a class. A train folder together with a test folder are splits, whatever
    else is there.
    """
    names = ", ".join(printable(child.name) for child in filled[:6])
    within = [_classes(child) for child in filled]
    named = [child for child in filled if _role(child.name)]
    roles = {_role(child.name) for child in named}
    if "train" in roles and (len(roles) > 1 or (len(filled) == 1 and not within[0])):
        train = next(child for child in named if _role(child.name) == "train")
        some = ", ".join(printable(child.name) for child in named[:6])
        media = (file for file in all_files(train) if file.suffix.lower() in kind.suffixes)
        first = printable(next((file.relative_to(root).as_posix() for file in media), ""))
        classes = {child.name: _classes(child) for child in named}
        if not any(classes.values()):
            raise DataError(
                f"{root}: {some} {'are splits, and hold' if len(named) > 1 else 'is a split, and holds'} "
                f"{kind.files} without class folders ({first}): put each class "
                "into a folder, as in train/cat/1.jpg; where the class stands in the file's name, write a train.csv "
                f"with the columns {kind.column} and label"
            )
        held = {printable(name): printable(", ".join(sorted(own)[:4])) or "none" for name, own in classes.items()}
        shown = "; ".join(f"{name}: {own}" for name, own in held.items())
        raise DataError(
            f"{root}: {some} are called like splits, and do not hold the same class folders ({shown}): put the same "
            "classes into each and call one train; if they are classes, list the files in a train.csv with the "
            f"columns {kind.column} and label"
        )
    same = set.intersection(*within) if within else set()
    if len(filled) > 1 and len(same) > 1 and all(part == same for part in within):
        inner = ", ".join(printable(name) for name in sorted(same)[:6])
        raise DataError(
            f"{root}: {names} all hold the same folders ({inner}), so it is not clear whether these are classes: "
            "if they are splits, call them train, validation and test, or name them, "
            f"as in data.train={printable(filled[0].name)}; if they are classes, list the files "
            f"in a train.csv with the columns {kind.column} and label"
        )


def _outside(root: Path, kind: Kind, parts: dict[str, Path], named: str | None, ignored: Counter[str]) -> None:
    """Count what is outside of the split folders.

    Media files there are an error, unless the recipe names the train split.

    Files in a folder without class folders are only counted if its name is that of a split or of data to predict on.
    """
    others = [child for child in folders(root) if child.name not in parts and not _classes(child)]
    loose = {child.name for child in others if _role(child.name) or TRIED_ON.intersection(_words(child.name))}
    loose = loose if all(map(_classes, parts.values())) else set()
    places = [child for child in folders(root) if child.name not in parts]
    for path in chain(all_files(root, deep=False), *map(all_files, places)):
        inner = path.relative_to(root).parts
        if path.suffix.lower() not in kind.suffixes:
            ignored[kind_of(path)] += 1
        elif named is not None:
            ignored[f"{kind.files} outside of the splits"] += 1
        elif len(inner) > 1 and inner[0] in loose:
            ignored[f"{kind.files} in {printable(inner[0])}, which holds no class folders"] += 1
        else:
            name = path.relative_to(root).as_posix()
            raise DataError(
                f"{root}: {', '.join(parts)} are splits, and {name} lies outside of them: move it, "
                f"or leave such {kind.files} out by naming a split, as in data.train=train"
            )


# ---- files to rows ----


def _list(
    root: Path,
    kind: Kind,
    folder: Path,
    ignored: Counter[str],
    training: bool,
    labelled: bool,
    report: Callable[[int], None],
) -> tuple["Listed", list[tuple[str, str]]]:
    """Every file below the folder becomes a row or a skipped file, or is counted as ignored; none is lost.

    A recording among images is skipped and reported, and so is an image among recordings or either among videos,
    because the user may expect that it is read; unless a file with the same name is read (an image may be the
    spectrogram of a recording).
    """
    rows = ids, files, sizes, labels = Listed([], [], [], [])
    skipped: list[tuple[str, str]] = []
    classes = {child.name: 0 for child in folders(folder)}
    # per class, the files that are not rows, with the reason
    media: dict[str, list[tuple[Path, str]]] = {name: [] for name in classes}
    others = {IMAGES: (AUDIO,), AUDIO: (IMAGES,), VIDEO: (IMAGES, AUDIO)}[kind]
    for where, entries in runs(folder):
        place = Path(where)
        inner = place.relative_to(folder).parts
        label = inner[0] if inner else ""
        if label:
            classes[label] += len(entries)
        own, near = _prefix(str(place)), _prefix(place.relative_to(root).as_posix())
        odd, shown = printable(own) != own, composed(label)
        for entry in entries:
            name = entry.name
            suffix, size = suffix_of(name), 0
            if suffix in kind.suffixes:
                if labelled and not label:
                    reason = "in no class folder"
                elif odd or (not name.isascii() and printable(name) != name):
                    reason = NOT_UTF8
                else:
                    reason, size = file_size(entry)
                    if not reason:
                        ids.append(near + name)
                        files.append(own + name)
                        sizes.append(size)
                        continue
            elif suffix in kind.unread:
                reason = unread(kind, suffix)
            elif (other := next((one for one in others if suffix in one.suffixes | one.unread), None)) and not any(
                (place / name).with_suffix(own_suffix).is_file() for own_suffix in kind.suffixes
            ):
                reason = f"no {kind.one} but {'an' if other is IMAGES else 'a'} {other.one}"
            else:
                ignored[kind_of(Path(name))] += 1
                continue
            skipped.append((printable(near + name), f"{printable(own + name)}: {reason}"))
            media.get(label, []).append((place / name, reason))
        labels += [shown] * (len(ids) - len(labels))
        report(len(entries))
    empty = [name for name, count in classes.items() if count == 0]
    if labelled and training and empty:
        raise DataError(f"{folder / empty[0]}: an empty class folder: add {kind.files}, or remove it")
    if labelled and training:
        _check_readable(folder, kind, rows, media)
    return rows, skipped


class Listed(NamedTuple):
    """The rows of a folder, by columns."""

    ids: list[str]
    files: list[str]
    sizes: list[int]
    labels: list[str]


def _prefix(folder: str) -> str:
    """What a file's name follows in its path: nothing in the current folder."""
    return "" if folder == "." else folder if folder.endswith("/") else f"{folder}/"


def unread(kind: Kind, suffix: str) -> str:
    """Why files of this medium with this suffix are not read, and what to do."""
    return {AUDIO: audio.advice, VIDEO: videos.advice}.get(kind, images.advice)(suffix)


def _check_readable(folder: Path, kind: Kind, rows: Listed, media: dict[str, list[tuple[Path, str]]]) -> None:
    """Raise DataError for a class without a readable file, because the model would never learn it.

    Headers are read only until one file of each class is readable.
    """
    check: Callable[[Any], object] = {AUDIO: audio.header, VIDEO: videos.header}.get(kind, images.check_header)
    wrong: dict[str, list[tuple[Path, str]]] = {}
    for name, found in media.items():
        wrong.setdefault(composed(name), []).extend(found)
    right: set[str] = set()
    for file, label in zip(rows.files, rows.labels, strict=True):
        if label in right:
            continue
        try:
            check({"path": file, "bytes": None})
            right.add(label)
        except DataError as error:
            wrong[label].append((Path(file), str(error).partition(": ")[2]))
    for name, files in wrong.items():
        if files and name not in right:
            some = ", ".join(printable(path.name) for path, _ in files[:3]) + (
                f" and {len(files) - 3} more" if files[3:] else ""
            )
            raise DataError(
                f"{printable(str(folder / name))}: no {kind.one} of this class can be read ({some}): {files[0][1]}"
            )


def _dataset(kind: Kind, rows: Listed, labelled: bool) -> Any:
    """The rows as a data set, made from columns: the library takes seconds to encode a hundred thousand rows."""
    import pyarrow
    from datasets import Dataset, DatasetInfo, Features, Value
    from datasets.table import InMemoryTable

    file = {"path": Value("string"), "bytes": Value("binary")}
    label = {"label": Value("string")} if labelled else {}
    features = Features({"id": Value("string"), kind.column: file, **label, "size": Value("int64")})
    schema = features.arrow_schema
    paths, contents = pyarrow.array(rows.files, pyarrow.string()), pyarrow.nulls(len(rows.files), pyarrow.binary())
    cells = {"id": rows.ids, "label": rows.labels, "size": rows.sizes}
    columns = [
        pyarrow.StructArray.from_arrays([paths, contents], fields=list(schema.field(kind.column).type))
        if name == kind.column
        else pyarrow.array(cells[name], schema.field(name).type)
        for name in features
    ]
    table = InMemoryTable(pyarrow.Table.from_arrays(columns, schema=schema.remove_metadata()))
    return Dataset(table, info=DatasetInfo(features=features))


# ---- files and folders ----


def _hidden(root: Path, kind: Kind) -> dict[str, int]:
    """Hidden folders, and how many files of this kind each holds, if any."""
    found: dict[str, int] = {}
    for child in sorted(root.iterdir()):
        if child.name.startswith(".") and child.is_dir():
            count = sum(
                file.suffix.lower() in kind.suffixes for file in child.iterdir() if not file.name.startswith(".")
            )
            found |= {printable(child.name): count} if count else {}
    return found


def _named_as_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_NAMES and bool(folders(folder))


def _of_kind(folder: Path, kind: Kind) -> Iterator[Path]:
    return (file for file in all_files(folder) if file.suffix.lower() in kind.suffixes)


def _inner(folder: Path) -> Path:
    """The folder that holds the files: archives are often unpacked to seg_train/seg_train/."""
    found = folders(folder)
    if len(found) == 1 and found[0].name.lower() == folder.name.lower() and not any_file(folder, deep=False):
        return found[0]
    return folder


def _classes(folder: Path) -> set[str]:
    """The names of the folders with files in a split folder."""
    return {child.name for child in folders(_inner(folder)) if any_file(child)}


def _unwrapped(root: Path) -> Path:
    """The folder with the splits or classes: the only child of `root`, if it holds several folders and nothing else.

    A README or a licence may lie next to it, as in a clone from the hub.
    """
    found = [child for child in folders(root) if any_file(child)]
    alone = all(file.stem.upper() in ("README", "LICENSE") for file in all_files(root, deep=False))
    if len(found) != 1 or not alone:
        return root
    inner = [child for child in folders(found[0]) if any_file(child)]
    splits = [child for child in inner if _role(child.name) == "train" and _classes(child)]
    name = found[0].name.lower()
    a_split = _role(found[0].name) is not None or name in SPLIT_NAMES
    wraps = name == root.resolve().name.lower() or (len(inner) > 1 and not a_split and not _loose(found[0]))
    return found[0] if splits or wraps else root


def _loose(folder: Path) -> bool:
    """Whether there are files in a folder, and not only in its folders."""
    return next(all_files(folder, deep=False), None) is not None
