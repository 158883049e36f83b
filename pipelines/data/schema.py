"""The columns that a task needs (`DataSpec`), what a format reads (`Source`), and the splits of a run (`Splits`)."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.data import stored
from pipelines.data.columns import batches, select, values
from pipelines.data.leakage import overlap
from pipelines.data.media import MEDIA, file_columns, kinds_of, paths

if TYPE_CHECKING:
    from datasets import Dataset

    from pipelines.utils.settings import Setting

SPLITS = ("train", "validation", "test")

Row = dict[str, Any]
Strata = Callable[["Dataset"], list[Any] | None]  # the class, or list of classes, of every row, for stratified splits

ANSWERS = ("label", "answer", "answer_start", "title", "speaker")  # columns that do not count for equal content


@dataclass
class Source:
    """What a format read: splits with their own names, before cutting and renaming."""

    splits: "dict[str, Dataset]"
    labels: list[str] | None = None  # in the data set's own order, if it has one
    skipped: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # split -> (id, why)
    lost: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> label of skipped rows -> why
    # what is not a row (".txt files", "rows of the split 'extra'") -> how many
    ignored: dict[str, int] = field(default_factory=dict)
    revision: str | None = None
    license: str | None = None
    hub_id: str | None = None
    unlabelled: list[str] = field(default_factory=list)  # splits left out because their table has no labels
    decimal_comma: set[str] = field(default_factory=set)  # splits whose table may write numbers as 3,5
    # default of data.group: a column, or `none` if the official splits share groups
    group: str | None = None
    # what a file says of the values of masks: {"names": [...]}, {"values": {...}} or {"colors": {...}}; see data.maps
    mask_names: dict[str, Any] = field(default_factory=dict)
    vocabulary: bool = False  # `labels` are those of a published vocabulary: a model learns all of them, in its order


def by_label(rows: "Dataset") -> list[Any] | None:
    """The labels of the rows, for stratified splits; None if they have none."""
    return values(rows, "label") if "label" in rows.column_names else None


@dataclass(frozen=True)
class DataSpec:
    """The columns that a task needs, and how it uses them.

    Columns are given with their kinds (pipelines.data.media.KINDS): `{"question": "text", "image": "image"}`. Names are
    enough if a column's name is its kind, or if its kind is text. A column of files has the name of its kind.
    """

    columns: Mapping[str, str]
    """The required columns."""
    optional_columns: Mapping[str, str] = field(default_factory=dict)
    """The columns that are kept if the data have them."""
    group_column: str | None = None
    """The column whose groups stay in one split, if the data have it and the recipe names no other."""
    input_columns: tuple[str, ...] = ()
    """The columns that `infer` takes, in this order."""
    optional_inputs: tuple[str, ...] = ()
    """The columns that `infer` takes after these, if they are given."""
    settings: "Mapping[str, Setting]" = field(default_factory=dict)
    """The numbers that `infer` takes in addition to its inputs, if the task has no `generation`, which names them."""
    from_model: Callable[[Path], None] | None = None
    """Read from the files of a model which inputs it takes, without torch, if that depends on the model.

    `graft predict` calls it to check inputs before it loads the weights. Raises ModelError.
    """
    label_kind: Literal["class", "classes", "number"] | None = "class"
    """What the column `label` holds: one class, a list of classes, or a number. None if rows have no such column."""
    labels: tuple[str, ...] = ()
    """The classes that the model knows, after it was built or loaded."""
    clean: Callable[[Row], Row] | None = None
    """Clean one row for the task. All rows of a data set must get the same columns and types.

    An empty cell is "" or None. Raises DataError for a row that cannot be used, which is then skipped and counted.
    """
    classes_of: Callable[[Row], list[str] | None] | None = None
    """The classes of a row, for stratified splits; by default its label. For rows with classes in boxes or masks.

    None: they are not known. Splits are then not stratified.
    """
    example: Callable[[Row], Row] | None = None
    """A row as shown among the sample rows of card and demo; by default its required columns (see data.examples)."""
    protocol: str = ""
    """What of a row is scored, in words, if that is not all of it: "the mean of 3 clips"; known once there is a model.

    It stands next to the scores.
    """
    record_fields: tuple[str, ...] = ()
    """The fields of a row's prediction record that are shown with it among the sample rows."""

    def __post_init__(self) -> None:
        for name in ("columns", "optional_columns"):
            given = getattr(self, name)
            kinds = dict(given) if isinstance(given, Mapping) else kinds_of(given)
            object.__setattr__(self, name, kinds)
        if "label" not in (*self.columns, *self.optional_columns):
            object.__setattr__(self, "label_kind", None)

    @property
    def kinds(self) -> dict[str, str]:
        """Every column with its kind."""
        return {**self.columns, **self.optional_columns}

    @property
    def files(self) -> tuple[str, ...]:
        """The required columns that hold files."""
        return tuple(name for name, kind in self.columns.items() if kind in MEDIA)

    @property
    def content(self) -> tuple[str, ...]:
        """The columns that decide whether two rows are equal: images and recordings, else all texts except answers.

        Of conversations it is their opening, which comes before the first answer.
        """
        if "messages" in self.columns.values():
            return ("opening",)
        if "features" in self.columns.values():
            return ("digest",)  # of the record; its file holds many rows
        files = tuple(name for name in self.files if name != "mask")  # a mask is an answer
        return files or tuple(name for name in self.kinds if name not in ANSWERS)

    @property
    def has_classes(self) -> bool:
        """Whether the column `label` is required and holds classes."""
        return self.label_kind in ("class", "classes") and "label" in self.columns

    def strata(self, rows: "Dataset") -> list[Any] | None:
        """The classes of every row, for stratified splits; None if there are none."""
        if self.classes_of is not None:
            found = [self.classes_of(row) for row in rows.remove_columns(file_columns(rows))]
            return None if None in found else found
        return by_label(rows) if self.label_kind in ("class", "classes") else None


@dataclass
class Splits:
    """Train, validation and test. Rows have `id` (unique in their split) and the task's columns."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    labels: list[str] | None
    source: dict[str, str]  # split -> where it comes from: "train", "cut from train (10 %)"
    skipped: dict[str, list[tuple[str, str]]]
    fingerprint: dict[str, str]
    name: str  # hub id, or the last path component of a local source
    hub_id: str | None = None
    revision: str | None = None
    license: str | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    # validation, test -> rows removed because the run's start model was trained on them
    trained_before: dict[str, int] = field(default_factory=dict)
    contents: dict[str, list[str]] = field(default_factory=dict)  # split -> digest of the content of every row
    group: str | None = None  # the column whose groups are in one split only; intervals resample these groups
    vocabulary: bool = False  # whether a model has all `labels`, also those that no row has

    def __getitem__(self, name: str) -> "Dataset":
        return getattr(self, name)

    @property
    def overlap(self) -> dict[str, int]:
        """How many rows of validation and test have the content of an earlier split (see leakage.overlap)."""
        return overlap(self.contents)

    def overlaps(self) -> list[str]:
        """The same as text, one line for each split."""
        others = {"validation": "train", "test": "train or validation"}
        return [
            f"{count:,} of {len(self[name]):,} rows of {name} have the same content as a row of {others[name]}: "
            f"the score on {name} may be better than on rows that are new"
            for name, count in self.overlap.items()
        ]

    def files_fingerprint(self, name: str) -> str:
        """A digest that changes when a file of the split is rewritten: for caches on this machine, not for results."""
        digest = hashlib.blake2b(digest_size=8)
        rows = self[name]
        masks = paths(rows, "mask") if "mask" in file_columns(rows) else []
        for path in (*paths(rows), *masks):
            if path and os.path.isfile(path):
                digest.update(f"{path}/{os.stat(path).st_mtime_ns}".encode())
        return digest.hexdigest()

    def smoke(self, rows: int = 8) -> "Splits":
        """The same data with at most `rows` rows per split, of as many classes as possible."""
        places = {name: spread(self[name], rows) for name in SPLITS}
        small = {name: select(self[name], found) for name, found in places.items()}
        contents = {name: [found[place] for place in places[name]] for name, found in self.contents.items()}
        prints = {name: fingerprint(part) for name, part in small.items()}
        return dataclasses.replace(self, **small, fingerprint=prints, contents=contents)


def spread(rows: "Dataset", most: int) -> list[int]:
    """Up to `most` row indices, sorted, that take the labels in turn; without labels, the titles."""
    column = next((name for name in ("label", "title") if name in rows.column_names), None)
    if column is None:
        return list(range(min(most, len(rows))))
    by_label: dict[str, list[int]] = {}
    for index, label in enumerate(values(rows, column)):
        by_label.setdefault(str(label), []).append(index)
    turns = max(map(len, by_label.values()), default=0)
    picked = [indexes[turn] for turn in range(turns) for indexes in by_label.values() if turn < len(indexes)]
    return sorted(picked[:most])


def fingerprint(rows: "Dataset") -> str:
    """Sixteen hex digits that change if an id, a label or a text changes.

    It covers only the file size of images and recordings.
    """
    plain = rows.remove_columns(file_columns(rows))
    if not stored.large(plain):
        return _fingerprint(plain)
    key = ["fingerprint", plain._fingerprint] if stored.lasting(plain) else None
    found: str = stored.value(key, f"fingerprint of {len(rows):,} rows", lambda: _fingerprint(plain))
    return found


def _fingerprint(rows: "Dataset") -> str:
    digest = hashlib.blake2b(digest_size=8)
    for batch in batches(rows):
        digest.update(_objects(batch).encode())
    return digest.hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str)


def _objects(batch: Mapping[str, list[Any]]) -> str:
    """The rows as JSON objects with sorted keys, one after the other; built by columns, which is ten times as fast."""
    pieces: list[Iterable[str]] = []
    for place, name in enumerate(sorted(batch)):
        start = ", " if place else "{"
        pieces += [repeat(f"{start}{_ENCODER.encode(name)}: "), _cells(batch[name])]
    return "".join(chain.from_iterable(zip(*pieces, repeat("}"), strict=False)))


def _cells(values: list[Any]) -> Iterable[str]:
    kinds = set(map(type, values))
    if kinds == {str}:
        return map(encode_basestring, values)
    return map(repr, values) if kinds == {int} else map(_ENCODER.encode, values)
