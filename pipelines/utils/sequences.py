"""Choose which of many items to show, and do the same with each of many items."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipelines.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def evenly_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` (two or more) of the items in their order: the first, the last, and evenly spaced ones between
    them.
    """
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def each(function: Callable[[Item], Result], items: Sequence[Item], threads: int = 1) -> list[Result | DataError]:
    """`function(item)` for every item; its DataError in place of a result. Files are read in several `threads`."""

    def tried(item: Item) -> Result | DataError:
        try:
            return function(item)
        except DataError as error:
            return error

    if threads == 1 or len(items) < 2:
        return [tried(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(tried, items))
