"""Units of rows that must stay together, and the assignment of units to splits.

The rows of a group (a speaker, an article, a patient) are a unit, and so are rows with equal content.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.leakage import CONTENT, groups_of
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


def units_of(rows: "Dataset", group: str | None) -> list[int]:
    """The unit of every row, as a number.

    Rows of one group form a unit, and so do rows with equal content; a row without a value in the group column is on
    its own. Content is ignored if it would join groups until one unit has more than half of all rows, although no group
    does: short texts that many people write would leave nothing to cut.
    """
    count = len(rows)
    alike = rows[CONTENT][:] if CONTENT in rows.column_names else None
    if group is None:
        return _joined(count, [alike] if alike is not None else [])
    groups = groups_of(rows, group)
    if not any(groups):
        log.warning("no row has a value in the column %r: the rows are cut one by one", group)
    by_group = _joined(count, [groups])
    if alike is None:
        return by_group
    both = _joined(count, [groups, alike])
    if _largest(both) > count / 2 >= _largest(by_group):
        log.warning(
            "rows with equal content stand in most groups of %r: groups stay in one split, such rows may not", group
        )
        return by_group
    return both


def _joined(count: int, keys: list[list[Any]]) -> list[int]:
    """A number for each row, equal for rows that share a value (other than None) in one of the `keys` (union-find)."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for values in keys:
        firsts: dict[Any, int] = {}
        for index, value in enumerate(values):
            if value is not None and (first := firsts.setdefault(value, index)) != index:
                parent[root(index)] = root(first)
    return [root(index) for index in range(count)]


def _largest(units: list[int]) -> int:
    sizes: dict[int, int] = {}
    for unit in units:
        sizes[unit] = sizes.get(unit, 0) + 1
    return max(sizes.values(), default=0)


def assign(
    units: Sequence[int],
    draws: Sequence[bytes],
    labels: "Sequence[Any] | None",
    shares: Mapping[str, float],
    fixed: Sequence[bool],
    seed: int,
) -> dict[str, set[int]]:
    """Choose the rows of each split: complete units, such that sizes and classes are close to the shares.

    `draws` (a digest per row) determine the order of units. `labels` are the rows' classes, or lists of classes. A
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
        units: Sequence[int],
        draws: Sequence[bytes],
        labels: "Sequence[Any] | None",
        shares: list[float],
        fixed: Sequence[bool],
    ) -> None:
        import numpy as np

        firsts: dict[int, bytes] = {}
        for unit, draw in zip(units, draws, strict=True):
            firsts[unit] = min(draw, firsts.get(unit, draw))
        number = {unit: place for place, unit in enumerate(sorted(firsts, key=firsts.__getitem__))}
        self.unit_of_row = np.array([number[unit] for unit in units])
        self.sizes = np.bincount(self.unit_of_row, minlength=len(number))
        self.fixed = np.bincount(self.unit_of_row, weights=np.asarray(fixed, float), minlength=len(number)) > 0
        self.shares, self.rows = shares, len(units)
        parts = [{str(part) for part in (label if isinstance(label, list) else [label])} for label in labels or []]
        names = {name: place for place, name in enumerate(sorted(set().union(*parts)))}
        counts: dict[tuple[int, int], int] = {}
        for unit, own_parts in zip(self.unit_of_row.tolist(), parts, strict=False):
            for part in own_parts:
                counts[unit, names[part]] = counts.get((unit, names[part]), 0) + 1
        self.pairs: list[list[tuple[int, int]]] = [[] for _ in self.sizes]
        for (unit, own), count in counts.items():
            self.pairs[unit].append((own, count))
        # the same as three arrays: unit, class, rows
        self.columns = np.array([(unit, own, count) for (unit, own), count in counts.items()], int).reshape(-1, 3).T
        self.totals = self._by_class(np.ones(len(self.sizes), bool), len(names))
        # the class of which a unit holds the largest part; 0 if there are no classes
        self.main = np.array(
            [max(((count / self.totals[own], own) for own, count in of), default=(0, 0))[1] for of in self.pairs]
        )

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
        found = np.full(len(self.sizes), TRAIN)
        left, filled, allowed = self.totals.copy(), [0] * len(self.shares), [0.0] * len(self.shares)
        of_class = np.bincount(self.main, weights=self.sizes, minlength=len(ranks))
        at = None
        for unit in order.tolist():
            if self.main[unit] != at:
                at = self.main[unit]
                allowed = [value + share * of_class[at] for value, share in zip(allowed, self.shares, strict=True)]
            size = int(self.sizes[unit])
            lacks = [
                ((may - has) / share, split)
                for split, (may, has, share) in enumerate(zip(allowed, filled, self.shares, strict=True))
            ]
            split = max(lacks)[1]
            if self.fixed[unit] or filled[split] + size / 2 > allowed[split] or not self._leaves(unit, left):
                continue
            found[unit] = split
            filled[split] += size
            for own, count in self.pairs[unit]:
                left[own] -= count
        for split in range(len(self.shares)):
            if not filled[split]:
                self._give_one(split, found, left)
        return found

    def _leaves(self, unit: int, left: "np.ndarray") -> bool:
        """Whether train, which has `left` rows of each class, keeps every class without this unit."""
        return all(left[own] > count for own, count in self.pairs[unit])

    def _give_one(self, split: int, found: "np.ndarray", left: "np.ndarray") -> None:
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
