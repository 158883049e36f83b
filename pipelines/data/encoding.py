"""The encoded examples of a split; and `encode`, which turns rows into examples once and in parallel.

Encodings of large data sets are Arrow files in $GRAFT_CACHE/encoded, keyed by the rows, the tokenizer and the options,
and are mapped into memory. The oldest are deleted when they take more than 10 GB.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipelines.data import columns, stored
from pipelines.data.schema import fingerprint
from pipelines.errors import DataError, RunError
from pipelines.utils.cache import begin, cache_root, discard, finish, hold
from pipelines.utils.hardware import cores
from pipelines.utils.progress import waiting

if TYPE_CHECKING:
    from datasets import Dataset

Lengths = Sequence[int] | np.ndarray

SMALL = 20_000  # rows; fewer are encoded in a few seconds by one process, and stay in memory
ROOM = 10e9  # bytes of encodings on disk


class Budget(NamedTuple):
    """The limit of a batch on one kind of device, in the unit of the examples' lengths, padding included."""

    train: Mapping[str, int]
    evaluate: Mapping[str, int]  # larger, because nothing is kept for gradients
    other: int = 8192  # on any other kind of device

    def of(self, device: str, *, training: bool) -> int:
        return (self.train if training else self.evaluate).get(device, self.other)


# On two cores 1,024 tokens were as fast as 1,536, with 0.1 GB less (BERT with 22 M parameters). For a GPU it is a first
# value, which is halved if memory does not suffice.
TOKENS = Budget({"cpu": 1024, "cuda": 32768}, {"cpu": 3072, "cuda": 32768})


class Encoded(Protocol):
    """Examples by number, with properties of all of them. `Encoding` has a default for each property."""

    @property
    def lengths(self) -> Lengths | None:
        """The length of every example as an integer number of `length_unit`s, at least 1; None if all cost the same."""

    @property
    def length_unit(self) -> str:
        """The unit of lengths in messages: tokens, frames, pixels."""

    @property
    def budget(self) -> Budget:
        """The limit of a batch on one device."""

    @property
    def unusable(self) -> Mapping[int, str]:
        """Number of an unusable example -> why. Training leaves it out; indexing it raises DataError."""

    @property
    def left_out(self) -> Mapping[str, Collection[int]]:
        """The unusable examples that an option leaves out of training: why -> numbers.

        They are reported, not counted as skipped.
        """

    @property
    def cache_key(self) -> str:
        """What the usable rows depend on besides the rows themselves; a part of the key of cached features."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> dict[str, Any]:
        """One example, with its `id` and `row`.

        Raises DataError if it cannot be read: it is then skipped and counted.
        """

    def training(self) -> "Encoded":
        """The examples that training takes, where these are other ones than those that are scored."""

    def to_augment(self, number: int, /) -> dict[str, Any]:
        """One example for `Task.augment`, without what augmentation replaces anyway, such as the frames of a video."""

    def row(self, number: int, /) -> int:
        """The number under which an example that cannot be read is counted: equal for all examples of a file."""


class Encoding(Sequence[Any]):
    """Examples that all cost the same and are all usable. Subclasses override what differs."""

    length_unit: str = "examples"
    budget: Budget = TOKENS

    @property
    def lengths(self) -> Lengths | None:
        return None

    @property
    def unusable(self) -> Mapping[int, str]:
        return {}

    @property
    def left_out(self) -> Mapping[str, Collection[int]]:
        return {}

    @property
    def cache_key(self) -> str:
        return ""

    def training(self) -> "Encoded":
        return self

    def to_augment(self, number: int) -> Any:
        return self[number]

    def row(self, number: int) -> int:
        return number


class EncodedTokens(Encoding):
    """A data set of tokens with their number in the column `length`.

    An example with a reason in the column `wrong` cannot be used.
    """

    length_unit = "tokens"

    def __init__(self, table: "Dataset") -> None:
        self.table = table
        reasons = table["wrong"][:] if "wrong" in table.column_names else []
        self.wrong = {number: why for number, why in enumerate(reasons) if why}

    @property
    def lengths(self) -> Lengths:
        return np.array(columns.values(self.table, "length"))

    @property
    def unusable(self) -> Mapping[int, str]:
        return self.wrong

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        found = self.table[index]
        if self.wrong and found["wrong"]:
            raise DataError(found["wrong"])
        return found


def encode(
    rows: "Dataset",
    function: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    key: Any,
    at_once: int | None = None,
) -> "Dataset":
    """`rows.map(function)` in batches of `at_once` rows; left out, of at most 500 rows and about 8 MB.

    `function` gets columns and row numbers.

    `function` may return more or fewer examples than rows. `key` (JSON) holds everything besides the rows that the
    result depends on. A stored result is read from disk. Raises RunError if it cannot be written.
    """
    settings: dict[str, Any] = {
        "batched": True,
        "batch_size": at_once or columns.at_once(rows, 500),
        "remove_columns": rows.column_names,
        "with_indices": True,
    }
    if len(rows) < SMALL and not stored.large(rows):
        # a fixed fingerprint: the library would pickle the tokenizer to compute one, for a cache that is not used here
        return rows.map(function, keep_in_memory=True, new_fingerprint="graft", **settings)
    digest = hashlib.blake2b(json.dumps([key, fingerprint(rows)], sort_keys=True).encode(), digest_size=12).hexdigest()
    folder = cache_root() / "encoded" / digest
    return _mapped(rows, function, folder, settings)


def _mapped(rows: "Dataset", function: Any, folder: Path, settings: dict[str, Any]) -> "Dataset":
    if (folder / "complete").is_file():
        try:
            hold(folder)
            return _opened(folder)
        except stored.UNREADABLE:
            pass  # it is damaged
    if folder.exists():
        discard(folder)
    settings["num_proc"] = min(cores(), 16) if cores() > 1 else None
    temporary = None
    try:
        temporary = begin(folder, ROOM)
        # a fixed fingerprint: the library would pickle the tokenizer to compute one; batches are written one by one
        with waiting(lambda: f"encoding {len(rows):,} rows"):
            rows.map(
                function,
                load_from_cache_file=False,
                cache_file_name=str(temporary / "examples.arrow"),
                writer_batch_size=min(1000, settings["batch_size"]),
                new_fingerprint="graft",
                **settings,
            )
        (temporary / "complete").touch()
        finish(temporary, folder, ROOM)
        hold(folder)
        return _opened(folder)
    except OSError as error:
        raise RunError(
            f"{folder.parent}: the encoded data cannot be written ({error}); free some room, or set GRAFT_CACHE"
        ) from None
    finally:
        if temporary is not None:
            discard(temporary)


def _opened(folder: Path) -> "Dataset":
    """The examples of a folder: one file of each process that encoded them, in the order of the rows."""
    from datasets import Dataset, concatenate_datasets

    parts = [Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
    return concatenate_datasets([part for part in parts if len(part)] or parts[:1])
