"""Recordings of which their headers or transcripts say that they cannot be used: known before the first step, they have no part in it."""

from collections.abc import Sequence
from typing import Any

from pipelines.data.audio import Recordings
from pipelines.errors import DataError


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
