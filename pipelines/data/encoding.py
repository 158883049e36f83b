"""What `encode` returns; and rows to examples once, in parallel, in Arrow: encodings of large data sets are kept on disk and mapped back.

They lie in $GRAFT_CACHE/encoded, keyed by the rows, the tokenizer and the options; the oldest leave when they grow beyond 10 GB.
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipelines.data.schema import fingerprint
from pipelines.errors import DataError, RunError
from pipelines.utils.cache import cache_root, make_room
from pipelines.utils.hardware import cores

if TYPE_CHECKING:
    from datasets import Dataset

Lengths = Sequence[int] | np.ndarray

SMALL = 20_000  # rows below which encoding takes a few seconds: they stay in memory, and one process does it
ROOM = 10e9  # bytes


class Budget(NamedTuple):
    """What one device takes at a time, in the unit of the examples' lengths and padding included: kind of device -> how much."""

    train: Mapping[str, int]
    evaluate: Mapping[str, int]  # more: nothing is kept for a gradient
    other: int = 8192  # on any other kind of device

    def of(self, device: str, *, training: bool) -> int:
        return (self.train if training else self.evaluate).get(device, self.other)


# 4 windows of 384 were fastest on two cores; a GPU's is a first try, halved when memory does not suffice
TOKENS = Budget({"cpu": 1536, "cuda": 32768}, {"cpu": 6144, "cuda": 32768})


class Encoded(Protocol):
    """Examples, by number, and what they say about themselves. `Encoding` has a default for each."""

    @property
    def lengths(self) -> Lengths | None:
        """How long every example is, in whole `length_unit`s, at least 1; None where all take the same room."""

    @property
    def length_unit(self) -> str:
        """What lengths count, as it stands in messages: tokens, frames, pixels."""

    @property
    def budget(self) -> Budget:
        """How much of that one device takes at a time."""

    @property
    def unusable(self) -> Mapping[int, str]:
        """Number of an example that is known to be unusable -> why. Training does without it; indexing it raises DataError."""

    @property
    def left_out(self) -> Mapping[str, Collection[int]]:
        """Of these what an option leaves out of training on purpose: why -> numbers. It is reported, and does not count as skipped."""

    @property
    def cache_key(self) -> str:
        """What decides which rows can be used, beside the rows: a part of the key of cached features."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> dict[str, Any]:
        """One example, with its `id` and `row`. Raises DataError for one that cannot be read: it is then skipped and counted."""


class Encoding(Sequence[Any]):
    """Examples that all take the same room, and of which none is known to be unusable. Derive from it, and say what differs."""

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


class EncodedTokens(Encoding):
    """A data set of tokens, whose column `length` counts them. One whose column `wrong` says why raises that as DataError."""

    length_unit = "tokens"

    def __init__(self, table: "Dataset") -> None:
        self.table = table
        self.may_be_wrong = "wrong" in table.column_names

    @property
    def lengths(self) -> Lengths:
        return np.array(self.table["length"][:])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        found = self.table[index]
        if self.may_be_wrong and found["wrong"]:
            raise DataError(found["wrong"])
        return found


def encode(
    rows: "Dataset",
    function: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    key: Any,
    at_once: int = 500,
) -> "Dataset":
    """`rows.map(function)` in batches of `at_once`, called with columns and row numbers.

    `function` may return more or fewer examples than it got rows.

    `key` is all that the result depends on beside the rows, as JSON. What was computed before is read from disk.
    """
    settings: dict[str, Any] = {
        "batched": True,
        "batch_size": at_once,
        "remove_columns": rows.column_names,
        "with_indices": True,
    }
    if len(rows) < SMALL:
        # a fingerprint of our own: the library would pickle the tokenizer to make one, for a cache that is not used here
        return rows.map(function, keep_in_memory=True, new_fingerprint="graft", **settings)
    digest = hashlib.blake2b(json.dumps([key, fingerprint(rows)], sort_keys=True).encode(), digest_size=12).hexdigest()
    folder = cache_root() / "encoded" / digest
    return _mapped(rows, function, folder, settings)


def _mapped(rows: "Dataset", function: Any, folder: Path, settings: dict[str, Any]) -> "Dataset":
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    if (folder / "state.json").is_file():
        try:
            folder.touch()  # the newest use decides what leaves first
            return Dataset.load_from_disk(str(folder))
        except (OSError, ValueError, DatasetGenerationError):
            shutil.rmtree(folder, ignore_errors=True)
    settings["num_proc"] = min(cores(), 16) if cores() > 1 else None
    beside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_room(folder.parent, ROOM)
        made = rows.map(function, load_from_cache_file=False, **settings)
        made.save_to_disk(str(beside))
        if not folder.exists():  # else another run was quicker: theirs is the same
            beside.rename(folder)
        return Dataset.load_from_disk(str(folder))
    except OSError as error:
        raise RunError(
            f"{folder.parent}: the encoded data cannot be written ({error}); free some room, or set GRAFT_CACHE"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
