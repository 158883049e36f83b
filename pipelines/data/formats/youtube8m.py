"""YouTube-8M's own files: features of videos in TFRecord shards. Abu-El-Haija et al. (2016); the data are CC BY 4.0.

    video/train0000.tfrecord   video/validate0000.tfrecord   video/test0000.tfrecord     features of each video
    frame/train0000.tfrecord   frame/validate0000.tfrecord   frame/test0000.tfrecord     features of each frame
    vocabulary.csv                                           Index, ..., Name            names of the classes

The shards may lie in the folder itself, in video/ and frame/, or in train/, validate/ and test/; numbers are written as
0000 or with letters, as in trainXy. `data.id` may also be one shard. If a folder holds both kinds, data.config chooses:
`video` or `frame`. Shards whose names begin with no split are train. The test shards have no labels and are left
out.

Each shard is read once, and both checksums of each record are compared. A row only points to its record, so memory does
not grow with the features. A record that cannot be used is skipped and counted: a wrong checksum of its data, features
of another size, no label or one beyond the vocabulary. If the length of a record is wrong or a shard is cut off, the
number of lost videos is unknown, so this is an error.

Classes are all those of the vocabulary, in its order: 3,862, or those of vocabulary.csv, whose names they then have.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data import stored
from pipelines.data.columns import select
from pipelines.data.files import all_files, printable, suffix_of
from pipelines.data.schema import Source
from pipelines.data.video import tfrecord
from pipelines.errors import DataError, MissingColumn
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    from datasets import Dataset

CONFIGURED = True  # data.config selects the features of videos or of frames

COLUMNS = ("features", "digest", "label", "frames")
CLASSES = 3862
VOCABULARY = "vocabulary.csv"
LEVELS = ("video", "frame")
SPLITS = {"train": "train", "validat": "validation", "valid": "validation", "val": "validation", "test": "test"}
_FILES = 1000  # that decide whether a folder holds shards
_LOOKED_AT = 20  # records that decide whether a shard holds features of videos or of frames
_MOST_CLASSES = 100_000
_LARGEST = 16 << 20  # bytes of the vocabulary


def detect(path: Path) -> bool:
    """Whether most files are shards, and one of the first holds features of videos or of frames."""
    if path.is_dir():
        files = [file for file in islice(all_files(path), _FILES) if not _about(file)]
        if sum(suffix_of(file.name) in tfrecord.SUFFIXES for file in files) * 2 <= len(files):
            return False
    return has_shards(path) and level(path) is not None


def has_shards(path: Path) -> bool:
    """Whether it is a shard, or a folder with shards, for a task that needs features."""
    if not path.is_dir():
        return suffix_of(path.name) in tfrecord.SUFFIXES
    return any(suffix_of(file.name) in tfrecord.SUFFIXES for file in islice(all_files(path), _FILES))


def _about(file: Path) -> bool:
    """Whether a file only describes the data."""
    return file.name == VOCABULARY or file.stem.upper() in ("README", "LICENSE")


def level(path: Path) -> str | None:
    """`video` or `frame`, the features in the first shard whose records tell it; None if there is none."""
    files = [path] if path.is_file() else islice(all_files(path), _FILES)
    shards = (file for file in files if suffix_of(file.name) in tfrecord.SUFFIXES)
    return next((found for shard in islice(shards, 3) if (found := _level(shard)) is not None), None)


def columns(path: Path) -> dict[str, str]:
    """The columns of such data, with their kinds."""
    return {"features": "features", "digest": "text", "label": "labels", "frames": "number"}


def read(section: DataSection, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Source:
    """Read the rows of the shards. Raises DataError or MissingColumn."""
    root = Path(section.id).expanduser()
    if not root.exists():
        raise DataError(f"data.id: no such file or folder: {section.id}")
    lacking = sorted(set(columns) - set(COLUMNS))
    if lacking:
        hint = ": set options.input=features" if lacking[0] == "video" else ""
        raise DataError(
            f"{section.id}: shards of YouTube-8M have features and labels, and no {lacking[0]}, "
            f"which this task needs{hint}"
        )
    if section.columns:
        raise MissingColumn("data.columns: shards of YouTube-8M have no other columns: leave it out")
    if section.group not in (None, "none"):
        raise DataError(f"data.group: shards of YouTube-8M have no column {section.group!r}: leave it out")
    if section.config not in (None, *LEVELS):
        raise DataError(f"data.config: {section.config!r} is neither video nor frame, the features that are to be read")
    shards = [root] if root.is_file() else [f for f in all_files(root) if suffix_of(f.name) in tfrecord.SUFFIXES]
    if not shards:
        raise DataError(f"data.id: {section.id} holds no .tfrecord files")
    vocabulary = _vocabulary(root)
    names = [str(number) for number in range(CLASSES)] if vocabulary is None else _names(vocabulary)
    shards, level, ignored = _of_one_level(section, shards)
    source = Source(splits={}, labels=names, vocabulary=True)
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        parts.setdefault(_split(shard), []).append(shard)
    if set(parts) == {"test"} and _labelled(parts["test"]):
        parts = {"train": parts["test"]}
    elif "test" in parts and not _labelled(parts["test"]):
        ignored["shards of test, which have no labels"] += len(parts.pop("test"))
        source.unlabelled.append("test")
        if not parts:
            raise DataError(f"{section.id}: shards of test, which have no labels: add train or validate shards")
    for split, files in parts.items():
        source.splits[split], source.skipped[split] = _rows(section, root, files, level, names, vocabulary)
    _check_twice(section, source.splits)
    source.ignored = dict(ignored)
    return source


# ---- files ----


def _split(shard: Path) -> str:
    """The split that the name of a shard begins with, or else that of its folder; train if neither says one."""
    for name in (shard.name.lower(), shard.parent.name.lower()):
        for start, split in SPLITS.items():
            if name.startswith(start):
                return split
    return "train"


def _of_one_level(section: DataSection, shards: list[Path]) -> tuple[list[Path], str, Counter[str]]:
    """The shards with features of videos or of frames, which of both, and what is left out. Raises DataError."""
    found = {shard: _level(shard) for shard in shards}
    levels = {level for level in found.values() if level is not None}
    if section.config is None and len(levels) > 1:
        first = {level: next(shard for shard, own in found.items() if own == level) for level in LEVELS}
        raise DataError(
            f"{section.id}: {printable(first['video'].name)} ({printable(first['video'].parent.name)}) has features of "
            f"videos, and {printable(first['frame'].name)} ({printable(first['frame'].parent.name)}) of frames: choose "
            "with data.config=video or data.config=frame"
        )
    level = section.config or next(iter(levels), "video")
    if levels and level not in levels:
        raise DataError(f"data.config: {section.id} holds no features of {level}s, only of {levels.pop()}s")
    others = [shard for shard, own in found.items() if own not in (None, level)]
    left = Counter({f"shards with features of {'frames' if level == 'video' else 'videos'}": len(others)})
    return [shard for shard in shards if shard not in set(others)], level, +left


def _level(shard: Path) -> str | None:
    """Whether a shard holds features of videos or of frames; None if its first records do not say."""
    for record in _first(shard):
        return "frame" if record.of_frames else "video"
    return None


def _labelled(shards: list[Path]) -> bool:
    """Whether the first record of one of these shards has labels."""
    return any(next((bool(record.labels) for record in _first(shard)), False) for shard in shards[:_LOOKED_AT])


def _first(shard: Path) -> Iterator[tfrecord.Record]:
    """The readable ones of a shard's first records; none if the shard is damaged, which is reported when it is read."""
    try:
        for _, data in islice(tfrecord.records(shard), _LOOKED_AT):
            if isinstance(data, bytes):
                try:
                    yield tfrecord.parse(data)
                except tfrecord.BadRecord:
                    continue
    except DataError:
        return


def _vocabulary(root: Path) -> Path | None:
    """The list of the classes: in the folder with the shards, or in the one above it."""
    folder = root.parent if root.is_file() else root
    places = [folder, folder.parent] if root.is_file() or _only_shards(folder) else [folder]
    places += [folder / name for name in (*LEVELS, "train", "validate")]
    return next((place / VOCABULARY for place in places if (place / VOCABULARY).is_file()), None)


def _only_shards(folder: Path) -> bool:
    """Whether a folder is one of the layout, such as video/, whose list of classes lies above it."""
    return folder.resolve().name in (*LEVELS, "train", "validate", "test")


def _names(path: Path) -> list[str]:
    """The names of the classes by their number. Two classes of one name get their numbers. Raises DataError."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: more than {_LARGEST >> 20} MB, and no list of classes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as csv: {short(str(error), 100)}") from None
    if not rows or not {"Index", "Name"} <= set(rows[0]):
        has = short(", ".join(map(str, rows[0])), 80) if rows else "no rows"
        raise DataError(f"{path}: no columns Index and Name (it has: {has})")
    named: dict[int, str] = {}
    for line, row in enumerate(rows, 2):
        index = (row["Index"] or "").strip()
        if not index.isdecimal() or not index.isascii() or len(index) > 6 or int(index) >= _MOST_CLASSES:
            raise DataError(f"{path}:{line}: Index is {short(repr(index), 40)}, and not the number of a class")
        if int(index) in named:
            raise DataError(f"{path}:{line}: Index {index} a second time")
        named[int(index)] = (row["Name"] or "").strip()
    count = max(named) + 1
    if count - len(named) > len(named):
        raise DataError(f"{path}: {len(named)} classes with numbers up to {count - 1:,}: is it the list of these data?")
    often = Counter(named.values())
    return [
        name if (name := named.get(number, "")) and often[name] == 1 else f"{name} ({number})" if name else str(number)
        for number in range(count)
    ]


# ---- records ----


def _rows(
    section: DataSection, root: Path, shards: list[Path], level: str, names: list[str], vocabulary: Path | None
) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows of a split's shards, and the records that cannot be used (id, why). Raises DataError."""
    files = stored.files_key([*shards, *([] if vocabulary is None else [vocabulary])])
    folder = root.parent if root.is_file() else root
    key = None if files is None else ["youtube8m", str(folder), level, files]

    def fill(rows: stored.Rows) -> list[tuple[str, str]]:
        import pyarrow

        text, whole = pyarrow.string(), pyarrow.int64()
        fields = {"path": text, "bytes": pyarrow.binary(), "offset": whole, "length": whole}
        rows.types = {"features": pyarrow.struct(list(fields.items())), "label": pyarrow.list_(text)}
        skipped: list[tuple[str, str]] = []
        for shard in shards:
            name, path = printable(shard.relative_to(folder).as_posix()), str(shard)
            if printable(path) != path:
                raise DataError(f"{printable(path)}: its name is not UTF-8: rename it")
            for offset, data in tfrecord.records(shard):
                try:
                    rows.add(_row(path, offset, data, level, names))
                except tfrecord.BadRecord as error:
                    skipped.append((f"{name}@{offset}", str(error)))
        return skipped

    table, found = stored.table(key, f"reading {len(shards):,} shards", fill)
    skipped = [(id_, why) for id_, why in found]
    if not len(table):
        what = f"none of {len(skipped):,} records can be used; the first: {skipped[0][1]}" if skipped else "no records"
        raise DataError(f"{shards[0] if len(shards) == 1 else section.id}: {what}")
    return _once(table, skipped)


def _row(path: str, offset: int, data: bytes | tfrecord.BadRecord, level: str, names: list[str]) -> dict[str, Any]:
    """The row of a record. Raises BadRecord."""
    if isinstance(data, tfrecord.BadRecord):
        raise data
    where = f"{path}: the record at byte {offset:,}"
    record = tfrecord.parse(data, where)
    wrong = ""
    if record.of_frames != (level == "frame"):
        wrong = f"has features of {'frames' if record.of_frames else 'the video'}, unlike the others"
    elif not record.labels:
        wrong = "has no labels"
    elif (highest := max(record.labels)) >= len(names):
        wrong = f"has the label {highest}, beyond the {len(names):,} classes ({VOCABULARY} lists others)"
    elif (lowest := min(record.labels)) < 0:
        wrong = f"has the label {lowest}, which is no class"
    if wrong:
        raise tfrecord.BadRecord(f"{where} {wrong}")
    digest = hashlib.blake2b(record.features["rgb"].tobytes(), digest_size=16)
    digest.update(record.features["audio"].tobytes())
    return {
        "id": record.id,
        "features": tfrecord.cell(path, offset, len(data)),
        "digest": digest.hexdigest(),
        "label": [names[number] for number in dict.fromkeys(record.labels)],
        "frames": record.frames,
    }


def _once(rows: "Dataset", skipped: list[tuple[str, str]]) -> "tuple[Dataset, list[tuple[str, str]]]":
    """The rows with the first record of each id; the others are skipped."""
    import numpy as np
    import pyarrow

    coded = rows.data.column("id").combine_chunks().dictionary_encode()
    coded = coded.chunk(0) if isinstance(coded, pyarrow.ChunkedArray) else coded
    if len(coded.dictionary) == len(rows):
        return rows, skipped
    firsts = np.unique(coded.indices.to_numpy(), return_index=True)[1]
    others = np.setdiff1d(np.arange(len(rows)), firsts)
    twice = [
        (f"{row['id']}@{row['features']['offset']}", f"{row['features']['path']}: the video {row['id']} a second time")
        for row in (rows[int(number)] for number in others)
    ]
    return select(rows, np.sort(firsts)), [*skipped, *twice]


def _check_twice(section: DataSection, splits: "dict[str, Dataset]") -> None:
    """Raise DataError if a video is in two splits, unless data.group is `none`."""
    import pyarrow.compute

    if section.group == "none":
        return
    seen: list[str] = []
    for name, rows in splits.items():
        ids = _ids(rows)
        for other in seen:
            both = ids.filter(pyarrow.compute.is_in(ids, value_set=_ids(splits[other])))
            if len(both):
                more = f" and {len(both) - 1:,} more" if len(both) > 1 else ""
                raise DataError(
                    f"{section.id}: the video {both[0].as_py()}{more} in {other} and in {name} too, which makes scores "
                    "too good: take such shards out, or accept it with data.group=none"
                )
        seen.append(name)


def _ids(rows: "Dataset") -> Any:
    stored_ids = rows.data.column("id")
    found = stored_ids if rows._indices is None else stored_ids.take(rows._indices.column(0))
    return found.combine_chunks()
