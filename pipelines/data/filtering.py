"""Rows and examples that cannot be used.

Those known before the first step are removed, others are skipped; all are counted.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data import stored
from pipelines.data.columns import batches, select
from pipelines.data.encoding import Encoded, Encoding, Lengths
from pipelines.data.media import file_columns
from pipelines.data.stored import function_key
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


class Usable(Encoding):
    """Examples without the unusable ones. Each example's `row` is still its index in the data set."""

    def __init__(self, encoded: Encoded) -> None:
        self.encoded, self.length_unit, self.budget = encoded, encoded.length_unit, encoded.budget
        self.numbers = [number for number in range(len(encoded)) if number not in encoded.unusable]

    @property
    def lengths(self) -> Lengths | None:
        found = self.encoded.lengths
        return None if found is None else np.asarray(found)[self.numbers]

    @property
    def cache_key(self) -> str:
        return self.encoded.cache_key

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        """One example by its number among the usable ones."""
        return self.encoded[self.numbers[index]]

    def training(self) -> Encoded:
        return self

    def to_augment(self, index: int) -> Any:
        """The same, for augmentation."""
        return self.encoded.to_augment(self.numbers[index])

    def row(self, index: int) -> int:
        """The number under which an example is counted that cannot be read."""
        return self.encoded.row(self.numbers[index])


def sorted_out(
    encoded: Encoded, ids: Sequence[str], split: str
) -> tuple[Encoded, list[tuple[str, str]], dict[str, int]]:
    """The examples that a run uses of a split, the unusable ones (name, why), and counts of those left out by options.

    Only train drops unusable examples, and only train has options that leave examples out. The other splits are scored:
    there an unusable example is met again under the name that it has here, its number, so that it is counted once.
    Raises DataError if none is left in train.
    """
    if not encoded.unusable:
        return encoded, [], {}
    left_out = encoded.left_out if split == "train" else {}
    on_purpose = {number for numbers in left_out.values() for number in numbers}
    if split != "train":
        return encoded, [(str(number), why) for number, why in encoded.unusable.items()], {}
    known = [(ids[number], why) for number, why in encoded.unusable.items() if number not in on_purpose]
    taken = Usable(encoded)
    if not len(taken):
        raise DataError(
            f"none of {len(encoded)} rows of train can be used; the first: {next(iter(encoded.unusable.values()))}"
        )
    return taken, known, {why: len(numbers) for why, numbers in left_out.items() if numbers}


def cleaned(
    rows: "Dataset", clean: Callable[[dict[str, Any]], dict[str, Any]], source: str
) -> "tuple[Dataset, list[tuple[str, str]]]":
    """Apply the task's `clean` to rows; returns the rows, and those (id, why) that the task cannot use.

    `clean` gets a row without its files, whose bytes may be in the row. Raises DataError if no row is left.
    """
    from datasets import concatenate_datasets

    if len(rows) == 0:  # GLUE's test splits have no labels, so no rows are left
        return rows, []
    media = file_columns(rows)
    texts = rows.remove_columns(media)

    def fill(table: stored.Rows) -> dict[str, Any]:
        good: list[int] = []
        bad: list[tuple[str, str]] = []
        number = 0
        for batch in batches(texts):
            for cells in zip(*batch.values(), strict=True):
                row = dict(zip(batch, cells, strict=True))
                try:
                    table.add(clean(row))
                    good.append(number)
                except DataError as error:
                    bad.append((row["id"], f"{row['id']}: {error}"))
                    if media:  # the rows and their files are joined column by column, so they need the same number
                        table.add(None)
                number += 1
        if not good:
            raise DataError(f"{source}: none of {len(rows)} rows can be used; the first: {bad[0][1]}")
        return {"bad": bad, "good": good if media and bad else None}

    own = function_key(clean) if stored.large(texts) and stored.lasting(texts) else None
    key = None if own is None else ["clean", texts._fingerprint, own, source]
    try:
        found, about = stored.table(key, "cleaning the rows", fill)
    except stored.Clash as error:
        raise DataError(f"{source}: a column holds values of different kinds: {error}") from None
    bad = [(id_, why) for id_, why in about["bad"]]
    if not media:
        return found, bad
    # files are neither read nor copied; bad rows are dropped after
    joined = concatenate_datasets([found, rows.select_columns(media)], axis=1)
    return (joined if about["good"] is None else select(joined, about["good"])), bad


log = logging.getLogger("graft")


class Skips:
    """Unreadable examples, each counted once. Too many of them end the run."""

    def __init__(self, share: float, already: dict[str, list[tuple[str, str]]], totals: dict[str, int]) -> None:
        self.share = share
        self.found = {split: dict(rows) for split, rows in already.items()}
        self.totals = totals
        for split, rows in self.found.items():
            for why in list(rows.values())[:3]:
                log.warning("skipped, cannot be read: %s", why)
            if len(rows) > 3:
                log.warning("skipped, cannot be read: %d more rows of %s", len(rows) - 3, split)
            self._check(split)

    def add(self, split: str, skipped: Sequence[tuple[str, str]]) -> None:
        """Count rows (id, why) and warn of the new ones. Raises DataError if there are too many."""
        known = self.found.setdefault(split, {})
        new = [(id_, why) for id_, why in skipped if id_ not in known]
        known.update(new)
        for _, why in new:
            log.warning("skipped, cannot be read: %s", why)
        if new:
            self._check(split)

    def _check(self, split: str) -> None:
        n, total = len(self.found[split]), self.totals.get(split, 0)
        limit = (
            max(3, math.floor(self.share * total)) if self.share else 0
        )  # the share of a few rows may be less than one row
        if n > limit:
            first = list(self.found[split].values())[:3]
            allowed = f"{limit} of {total} may be" if limit else "none may be"
            them = "them" if n > 1 else "it"
            raise DataError(
                f"{n} row{'s' * (n > 1)} of {split} cannot be read, {allowed} (data.max_skipped={self.share:g}): "
                f"{'; '.join(first)}{f'; and {n - 3} more' if n > 3 else ''}. "
                f"Repair {them} or take {them} out, or raise data.max_skipped"
            )
