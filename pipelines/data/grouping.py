"""Units of rows that must stay together, and the assignment of units to splits.

The rows of a group (a speaker, an article, a patient) are a unit, and so are rows with equal content.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipelines.data.columns import distinct, values
from pipelines.data.leakage import CONTENT, named
from pipelines.data.media import MEDIA

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

log = logging.getLogger("graft")

WORK = 400_000  # units that are visited in all tries together
TRIES = 100  # maximum number of tries


def group_column(asked: str | None, usual: str | None, columns: Sequence[str]) -> str | None:
    """The column whose groups stay in one split; None if there is none.

    `asked` is data.group, `usual` the column of the task or of the data set. Rows of one file (a recording, an image
    with several captions) have the column `file`, which is used unless data.group names another.
    """
    if asked is not None and asked not in MEDIA:
        return asked if asked in columns else None  # "none" is not the name of a column
    return "file" if "file" in columns else usual if usual in columns else None


def units_of(rows: "Dataset", group: str | None) -> "np.ndarray":
    """The unit of every row, as a number.

    Rows of one group form a unit, and so do rows with equal content; a row without a value in the group column is on
    its own. Content is ignored if it would join groups until one unit has more than half of all rows, although no group
    does: short texts that many people write would leave nothing to cut.
    """
    import numpy as np

    alike = codes(values(rows, CONTENT)) if CONTENT in rows.column_names else None
    if group is None:
        return np.arange(len(rows)) if alike is None else alike
    cells, places = distinct(rows, group)
    names = [named(cell) for cell in cells]
    if not any(names):
        log.warning("no row has a value in the column %r: the rows are cut one by one", group)
    by_group: np.ndarray = codes(names)[places]
    alone = np.array([name is None for name in names], dtype=bool)[places]
    by_group[alone] = len(names) + np.arange(alone.sum())
    if alike is None:
        return by_group
    both = _joined(by_group, alike)
    if _largest(both) > len(rows) / 2 >= _largest(by_group):
        log.warning(
            "rows with equal content stand in most groups of %r: groups stay in one split, such rows may not", group
        )
        return by_group
    return both


def codes(keys: Iterable[Any]) -> "np.ndarray":
    """A number for each row, equal for equal keys, in the order of first appearance. None equals no other key."""
    import numpy as np

    numbers: dict[Any, int] = {}
    found = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    if None in numbers:
        alone = np.flatnonzero(found == numbers[None])
        found[alone] = len(numbers) + np.arange(len(alone))
    return found


def _joined(units: "np.ndarray", alike: "np.ndarray") -> "np.ndarray":
    """The units, joined where rows of different units are alike."""
    import numpy as np

    _, firsts, found = np.unique(alike, return_index=True, return_inverse=True)
    pairs = np.stack([units, units[firsts[found]]], 1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    parent = np.arange(units.max(initial=-1) + 1).tolist()

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    for one, other in pairs.tolist():
        parent[root(one)] = root(other)
    roots = np.array([root(unit) for unit in range(len(parent))], dtype=np.int64)
    joined: np.ndarray = roots[units]
    return joined


def _largest(units: "np.ndarray") -> int:
    import numpy as np

    return int(np.bincount(units).max(initial=0))


def assign(
    units: "np.ndarray",
    draws: "np.ndarray",
    labels: "Sequence[Any] | None",
    shares: Mapping[str, float],
    fixed: "np.ndarray",
    seed: int,
) -> dict[str, set[int]]:
    """Choose the rows of each split: complete units, such that sizes and classes are close to the shares.

    `draws` (a number per row) determine the order of units. `labels` are the rows' classes, or lists of classes. A
    `fixed` row stays in train with its unit. A split for which there is no unit is left out of the result.

    Units are ordered by class, each under the class of which it holds the largest part, and at random within a class.
    They are visited in this order. A unit goes to the split that lacks most, if half of the unit fits into what that
    split may hold so far, and if train keeps every class. So a split's size is within half of the largest unit of its
    share wherever the units allow it, and it gets about its share of each class that is not rare.

    Up to 100 random orders are tried. The best one has the fewest rows beyond max(2 % of the rows, half of the largest
    unit) from the shares, and among equals the smallest distance in size and classes.
    """
    import numpy as np

    problem = _Problem(units, draws, labels, list(shares.values()), fixed)
    tries = int(np.clip(WORK // max(1, len(problem.sizes)), 1, TRIES))
    best, chosen = None, None
    for turn in range(tries):
        found = problem.walk(np.random.default_rng([seed % 2**32, turn]))
        cost = problem.cost(found)
        if best is None or cost < best:
            best, chosen = cost, found
    assert chosen is not None
    split_of = chosen[problem.unit_of_row]
    taken = {name: set(np.flatnonzero(split_of == number).tolist()) for number, name in enumerate(shares)}
    return {name: rows for name, rows in taken.items() if rows}


TRAIN = -1


class _Problem:
    """Units with their sizes and classes, in an order that does not depend on the order of rows; and target shares."""

    def __init__(
        self,
        units: "np.ndarray",
        draws: "np.ndarray",
        labels: "Sequence[Any] | None",
        shares: list[float],
        fixed: "np.ndarray",
    ) -> None:
        import numpy as np

        _, appears, rows_unit = np.unique(units, return_index=True, return_inverse=True)
        least = np.full(len(appears), np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(least, rows_unit, draws)
        number = np.empty(len(appears), dtype=np.int64)
        number[np.lexsort((appears, least))] = np.arange(len(appears))
        self.unit_of_row = number[rows_unit]
        self.sizes = np.bincount(self.unit_of_row, minlength=len(number))
        self.fixed = np.bincount(self.unit_of_row, weights=fixed.astype(float), minlength=len(number)) > 0
        self.shares, self.rows = shares, len(units)
        places, classes = _classes(labels or [])
        # unit, class, rows: three arrays, one entry for each class of each unit
        pairs, counts = np.unique(
            self.unit_of_row[places] * max(1, classes.max(initial=0) + 1) + classes, return_counts=True
        )
        self.columns = np.stack([*np.divmod(pairs, max(1, classes.max(initial=0) + 1)), counts])
        self.totals = self._by_class(np.ones(len(self.sizes), bool), int(classes.max(initial=-1)) + 1)
        # the same by unit
        every = list(zip(*self.columns[1:].tolist(), strict=True))
        ends = np.searchsorted(self.columns[0], np.arange(len(self.sizes) + 1)).tolist()
        self.pairs: list[list[tuple[int, int]]] = [every[start:end] for start, end in pairwise(ends)]
        # the class of which a unit holds the largest part; 0 if there are no classes
        unit, own, count = self.columns
        order = np.lexsort((own, count / self.totals[own], unit))
        self.main = np.zeros(len(self.sizes), dtype=np.int64)
        self.main[unit[order]] = own[order]  # of several values for one unit, the last one stays

    def _by_class(self, mine: "np.ndarray", classes: int) -> "np.ndarray":
        """The number of rows of each class in the units with `mine` true."""
        import numpy as np

        units, own, count = self.columns
        return np.bincount(own, weights=count * mine[units], minlength=classes)

    def walk(self, rng: "np.random.Generator") -> "np.ndarray":
        """Assign a split to every unit, in one random order."""
        import numpy as np

        places = rng.permutation(len(self.sizes))
        ranks = rng.permutation(max(1, len(self.totals)))
        order = places[np.argsort(ranks[self.main[places]], kind="stable")]
        splits = [TRAIN] * len(self.sizes)
        pairs, shares, numbers = self.pairs, self.shares, range(len(self.shares))
        left, filled, allowed = self.totals.tolist(), [0] * len(self.shares), [0.0] * len(self.shares)
        of_class = np.bincount(self.main, weights=self.sizes, minlength=len(ranks)).tolist()
        at = None
        visits = zip(
            order.tolist(),
            self.main[order].tolist(),
            self.sizes[order].tolist(),
            self.fixed[order].tolist(),
            strict=True,
        )
        for unit, main, size, fixed in visits:
            if main != at:
                at = main
                allowed = [value + share * of_class[at] for value, share in zip(allowed, shares, strict=True)]
            most, split = None, 0
            for number in numbers:  # the split that lacks most; the last one of equals
                lacks = (allowed[number] - filled[number]) / shares[number]
                if most is None or lacks >= most:
                    most, split = lacks, number
            if fixed or filled[split] + size / 2 > allowed[split]:
                continue
            of = pairs[unit]
            for own, count in of:
                if left[own] <= count:
                    break
            else:  # train keeps every class
                splits[unit] = split
                filled[split] += size
                for own, count in of:
                    left[own] -= count
        found = np.array(splits)
        for split in range(len(self.shares)):
            if not filled[split]:
                self._give_one(split, found, left)
        return found

    def _leaves(self, unit: int, left: list[float]) -> bool:
        """Whether train, which has `left` rows of each class, keeps every class without this unit."""
        return all(left[own] > count for own, count in self.pairs[unit])

    def _give_one(self, split: int, found: "np.ndarray", left: list[float]) -> None:
        """Give an empty split the unit with the closest size, of those that train can spare."""
        wanted = self.shares[split] * self.rows
        free = [u for u in range(len(found)) if found[u] == TRAIN and not self.fixed[u] and self._leaves(u, left)]
        if free and (found == TRAIN).sum() > 1:
            unit = min(free, key=lambda u: (abs(self.sizes[u] - wanted), u))
            found[unit] = split
            for own, count in self.pairs[unit]:
                left[own] -= count

    def cost(self, found: "np.ndarray") -> tuple[int, float, float]:
        """The cost of an assignment (lower is better): empty splits, rows beyond the bound, distance to the shares."""
        import numpy as np

        empty, beyond, distance = 0, 0.0, 0.0
        bound = max(0.02 * self.rows, self.sizes.max() / 2)
        for split, share in [*enumerate(self.shares), (TRAIN, 1 - sum(self.shares))]:
            mine = found == split
            size = float(self.sizes[mine].sum())
            empty += not mine.any()
            beyond += max(0.0, abs(size - share * self.rows) - bound)
            distance += abs(size - share * self.rows)
            has = self._by_class(mine, len(self.totals))
            distance += 0.5 * float(np.abs(has - share * self.totals).sum())
        return empty, beyond, distance


def _classes(labels: Sequence[Any]) -> "tuple[np.ndarray, np.ndarray]":
    """The classes of the rows as two arrays, with one entry for each class of each row: row, number of the class."""
    import numpy as np

    if list in set(map(type, labels)):
        parts = [{str(part) for part in (label if isinstance(label, list) else [label])} for label in labels]
        rows = np.repeat(np.arange(len(parts)), [len(own) for own in parts])
        names = [part for own in parts for part in own]
    else:
        rows, names = np.arange(len(labels)), list(map(str, labels))
    number = {name: place for place, name in enumerate(sorted(set(names)))}
    return rows, np.array([number[name] for name in names], dtype=np.int64)
