"""What a task asks of its rows, what a format reads, and the splits of a run."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.data.leakage import overlap
from pipelines.data.media import MEDIA, paths

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")


ANSWERS = ("label", "answer", "answer_start", "title", "speaker")  # columns that a row is not known by


@dataclass
class Source:
    """What a format read: splits under their own names, before anything is cut or renamed."""

    splits: "dict[str, Dataset]"
    labels: list[str] | None = None  # in the data set's own order, where it has one
    skipped: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # split -> (id, why)
    lost: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> label of skipped rows -> why
    ignored: dict[str, int] = field(default_factory=dict)  # what is no row (".txt files", "rows of the split 'extra'") -> how many
    revision: str | None = None
    license: str | None = None
    hub_id: str | None = None
    unlabelled: list[str] = field(default_factory=list)  # splits that were left out, as their table has no labels
    decimal_comma: set[str] = field(default_factory=set)  # splits in whose table 3,5 may be a number
    group: str | None = None  # what data.group is here unless the recipe says: a column, or `none` where official splits share it


@dataclass(frozen=True)
class Needs:
    """What a task asks of its data."""

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    group: str | None = None  # column that stays whole in one split, where there is one
    several: bool = False  # whether a row's label is a list of labels
    clean: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # one row as the task wants it
    classes: bool = True  # whether labels are classes, or numbers

    @property
    def content(self) -> tuple[str, ...]:
        """The columns by which two rows are equal: images and recordings, else all texts that are no answer."""
        media = tuple(name for name in self.columns if name in MEDIA)
        return media or tuple(name for name in (*self.columns, *self.optional) if name not in ANSWERS)


def needs_of(task: Any) -> Needs:
    """Of a Task."""
    from pipelines.task import Task

    clean = task.clean if type(task).clean is not Task.clean else None
    return Needs(task.columns, task.optional, task.group, task.several, clean, task.classes)


@dataclass
class Splits:
    """Train, validation and test. Rows hold `id` (unique in its split) and the task's columns."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    labels: list[str] | None
    source: dict[str, str]  # split -> where it came from: "train", "cut from train (10 %)"
    skipped: dict[str, list[tuple[str, str]]]
    fingerprint: dict[str, str]
    name: str  # hub id, or the last path component of a local source
    hub_id: str | None = None
    revision: str | None = None
    license: str | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    trained_before: dict[str, int] = field(default_factory=dict)  # validation, test -> rows taken out: the run's model knows them
    contents: dict[str, list[str]] = field(default_factory=dict)  # split -> of every row a digest of its content
    group: str | None = None  # the column whose values stand in one split only; intervals resample these groups

    def __getitem__(self, name: str) -> "Dataset":
        return getattr(self, name)

    @property
    def overlap(self) -> dict[str, int]:
        """How many rows of validation and test are no new ones, where some are not (see apart.overlap)."""
        return overlap(self.contents)

    def overlaps(self) -> list[str]:
        """The same in words, a line for each split."""
        others = {"validation": "train", "test": "train or validation"}
        return [
            f"{count:,} of {len(self[name]):,} rows of {name} have the same content as a row of {others[name]}: "
            f"the score on {name} may be better than on rows that are new"
            for name, count in self.overlap.items()
        ]

    def files_fingerprint(self, name: str) -> str:
        """Changes when a file of the split is written anew: for caches on this machine, not for results."""
        digest = hashlib.blake2b(digest_size=8)
        for path in paths(self[name]):
            if path and os.path.isfile(path):
                digest.update(f"{path}/{os.stat(path).st_mtime_ns}".encode())
        return digest.hexdigest()

    def smoke(self, rows: int = 8) -> "Splits":
        """The same data with at most `rows` rows a split, of as many classes as possible."""
        places = {name: spread(self[name], rows) for name in SPLITS}
        small = {name: self[name].select(found) for name, found in places.items()}
        contents = {name: [found[place] for place in places[name]] for name, found in self.contents.items()}
        prints = {name: fingerprint(part) for name, part in small.items()}
        return dataclasses.replace(self, **small, fingerprint=prints, contents=contents)


def spread(rows: "Dataset", most: int) -> list[int]:
    """Up to `most` row indexes that take the labels in turn, or the articles by their titles."""
    column = next((name for name in ("label", "title") if name in rows.column_names), None)
    if column is None:
        return list(range(min(most, len(rows))))
    by_label: dict[str, list[int]] = {}
    for index, label in enumerate(rows[column]):
        by_label.setdefault(str(label), []).append(index)
    turns = max(map(len, by_label.values()), default=0)
    picked = [indexes[turn] for turn in range(turns) for indexes in by_label.values() if turn < len(indexes)]
    return sorted(picked[:most])


def fingerprint(rows: "Dataset") -> str:
    """Sixteen hex digits that change when an id, a label or a text changes. Images and audio are covered by file size only."""
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.select_columns([c for c in rows.column_names if c not in MEDIA]):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()
