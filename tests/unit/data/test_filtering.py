"""Rows that cannot be used: how often each one is counted."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipelines.data.encoding import Encoding
from pipelines.data.filtering import Skips, sorted_out
from pipelines.errors import DataError


class TooLong(Encoding):
    """Five rows, two of which are too long."""

    length_unit = "frames"

    @property
    def unusable(self) -> Mapping[int, str]:
        return {1: "b: too long", 3: "d: too long"}

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: Any) -> Any:
        if index in self.unusable:
            raise DataError(self.unusable[index])
        return {"id": "abcde"[index], "row": index}


def test_a_row_known_to_be_unusable_is_counted_once_where_it_is_scored() -> None:
    encoded, known, _ = sorted_out(TooLong(), list("abcde"), "test")
    skips = Skips(0.01, {"test": known}, {"test": 5})
    met = []
    for number in range(len(encoded)):
        try:
            encoded[number]
        except DataError as error:
            met.append((str(number), str(error)))  # the name that an evaluation gives it
    skips.add("test", met)
    assert list(skips.found["test"].values()) == ["b: too long", "d: too long"]


def test_train_does_without_them() -> None:
    encoded, known, left_out = sorted_out(TooLong(), list("abcde"), "train")
    assert [encoded[number]["id"] for number in range(len(encoded))] == ["a", "c", "e"]
    assert (known, left_out) == ([("b", "b: too long"), ("d", "d: too long")], {})


def test_too_many_end_the_run() -> None:
    _, known, _ = sorted_out(TooLong(), list("abcde"), "test")
    with pytest.raises(DataError, match=r"4 rows of test cannot be read, 3 of 5 may be \(data.max_skipped=0.01\)"):
        Skips(0.01, {"test": [*known, ("0", "a: no"), ("2", "c: no")]}, {"test": 5})
