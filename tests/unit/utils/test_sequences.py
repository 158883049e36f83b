"""Picking evenly from a sequence: the first, the last, and items evenly between them."""

import pytest

from pipelines.utils.sequences import evenly_spaced


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (0, 6, []),
        (1, 6, [0]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (7, 6, [0, 1, 2, 4, 5, 6]),
        (11, 6, [0, 2, 4, 6, 8, 10]),
        (100, 2, [0, 99]),
    ],
)
def test_evenly_spaced(count: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(range(count), most) == expected


def test_nothing_is_shown_twice() -> None:
    for count in range(2, 60):
        found = evenly_spaced(range(count), 8)
        assert len(set(found)) == len(found) == min(count, 8)
        assert (found[0], found[-1]) == (0, count - 1)
