"""Recordings of which their headers or transcripts say that they cannot be used: known before the first step, they have no part in it."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.audio.recordings import Recordings
from pipelines.data.media import file_columns
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


class Usable(Sequence):
    """Examples without those that are `wrong`; each says by `row` where it stands in the data set, as ever."""

    def __init__(self, encoded: Any, wrong: dict[int, str]) -> None:
        self.encoded, self.column_names = encoded, encoded.column_names
        self.numbers = [number for number in range(len(encoded)) if number not in wrong]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        """One example by its number among the usable ones, or a whole column by its name."""
        if isinstance(index, str):
            column = self.encoded[index]
            return [column[number] for number in self.numbers]
        return self.encoded[self.numbers[index]]


def sorted_out(encoded: Any, ids: Sequence[str], split: str) -> tuple[Any, list[tuple[str, str]], dict[str, int]]:
    """What a run takes of a split's examples, those known to be unusable (id, why), and how many train leaves out by its own options.

    Only train does without them: the others are scored, and what they lack is counted. Raises DataError where train keeps none.
    """
    recordings = getattr(encoded, "recordings", encoded)  # Clips and LogMels hold them, Utterances are some
    if not isinstance(recordings, Recordings) or not recordings.wrong:
        return encoded, [], {}
    long = recordings.long if split == "train" else set()
    known = [(ids[number], why) for number, why in recordings.wrong.items() if number not in long]
    if split != "train":
        return encoded, known, {}
    taken = Usable(encoded, recordings.wrong)
    if not len(taken):
        raise DataError(f"none of {len(encoded)} recordings of train can be used; the first: {next(iter(recordings.wrong.values()))}")
    what = f"recordings of train longer than {recordings.longest:g} seconds (options.max_seconds)"
    return taken, known, {what: len(long)} if long else {}


def cleaned(rows: "Dataset", clean: Callable[[dict], dict], source: str) -> "tuple[Dataset, list[tuple[str, str]]]":
    """Rows as the task wants them, and those (id, why) that it cannot use. `clean` sees no files, whose bytes a row may hold."""
    from datasets import Dataset, concatenate_datasets

    if len(rows) == 0:  # GLUE's test splits: not a label in them
        return rows, []
    media = file_columns(rows)
    good: dict[int, dict] = {}
    bad: list[tuple[str, str]] = []
    for number, row in enumerate(rows.remove_columns(media)):
        try:
            good[number] = clean(row)
        except DataError as error:
            bad.append((row["id"], f"{row['id']}: {error}"))
    if not good:
        raise DataError(f"{source}: none of {len(rows)} rows can be used; the first: {bad[0][1]}")
    if not media:
        return Dataset.from_list(list(good.values())), bad
    # beside the files stand as many rows, so that these are neither read nor copied
    lacking = dict.fromkeys(next(iter(good.values())))
    made = Dataset.from_list([good.get(number, lacking) for number in range(len(rows))])
    made = concatenate_datasets([made, rows.select_columns(media)], axis=1)
    return made.select(good) if bad else made, bad


class Fitting(Sequence):
    """Encoded examples of which some cannot be used: `wrong` says why, and indexing such a one raises DataError."""

    def __init__(self, encoded: "Dataset") -> None:
        self.encoded = encoded
        self.column_names = encoded.column_names

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: Any) -> Any:
        """One example by number, or a whole column by name."""
        found = self.encoded[index]
        if isinstance(index, int) and found["wrong"]:
            raise DataError(found["wrong"])
        return found


log = logging.getLogger("graft")


class Skips:
    """Unreadable examples, counted once each; too many of them end the run."""

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
        """Count rows (id, why) and warn of the new ones. Raises DataError when there are too many."""
        known = self.found.setdefault(split, {})
        new = [(id_, why) for id_, why in skipped if id_ not in known]
        known.update(new)
        for _, why in new:
            log.warning("skipped, cannot be read: %s", why)
        if new:
            self._check(split)

    def _check(self, split: str) -> None:
        n, total = len(self.found[split]), self.totals.get(split, 0)
        limit = max(3, math.floor(self.share * total)) if self.share else 0  # of few rows, a share is no row at all
        if n > limit:
            first = list(self.found[split].values())[:3]
            allowed = f"{limit} of {total} may be" if limit else "none may be"
            them = "them" if n > 1 else "it"
            raise DataError(
                f"{n} row{'s' * (n > 1)} of {split} cannot be read, {allowed} (data.max_skipped={self.share:g}): {'; '.join(first)}"
                f"{f'; and {n - 3} more' if n > 3 else ''}. Repair {them} or take {them} out, or raise data.max_skipped"
            )
