"""How rows were cut and limited until version 0.1, row by row: the cuts of today must choose the same rows.

tests/unit/data/test_splitting.py compares them. The code is kept as it was, so that published splits do not move.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.data.leakage import CONTENT, groups_of

WORK, TRIES, TRAIN = 400_000, 100, -1


def fingerprint(rows: Dataset) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def cut(
    rows: Dataset,
    shares: Mapping[str, float],
    seed: int,
    group: str | None,
    labels: list[Any] | None,
    fixed: list[bool],
) -> dict[str, list[int]]:
    """The places of the rows that each split gets."""
    ids, units = rows["id"][:], units_of(rows, group)
    free = [False] * len(rows)
    for kept in (free, fixed) if any(fixed) else (free,):
        drawn = _one_by_one(ids, units, shares, seed, labels, kept) if group is None else None
        taken = assign(units, [_draw(seed, id_) for id_ in ids], labels, shares, kept, seed) if drawn is None else drawn
        if not any(fixed[index] for indexes in taken.values() for index in indexes) or kept is fixed:
            break
    return {name: sorted(found) for name, found in taken.items()}


def units_of(rows: Dataset, group: str | None) -> list[int]:
    count = len(rows)
    alike = rows[CONTENT][:] if CONTENT in rows.column_names else None
    if group is None:
        return _joined(count, [alike] if alike is not None else [])
    by_group = _joined(count, [groups_of(rows, group)])
    if alike is None:
        return by_group
    both = _joined(count, [groups_of(rows, group), alike])
    return by_group if _largest(both) > count / 2 >= _largest(by_group) else both


def _joined(count: int, keys: list[list[Any]]) -> list[int]:
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
    labels: Sequence[Any] | None,
    shares: Mapping[str, float],
    fixed: Sequence[bool],
    seed: int,
) -> dict[str, set[int]]:

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


class _Problem:
    def __init__(
        self,
        units: Sequence[int],
        draws: Sequence[bytes],
        labels: Sequence[Any] | None,
        shares: list[float],
        fixed: Sequence[bool],
    ) -> None:
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

    def _by_class(self, mine: np.ndarray, classes: int) -> np.ndarray:
        units, own, count = self.columns
        return np.bincount(own, weights=count * mine[units], minlength=classes)

    def walk(self, rng: np.random.Generator) -> np.ndarray:
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

    def _leaves(self, unit: int, left: np.ndarray) -> bool:
        return all(left[own] > count for own, count in self.pairs[unit])

    def _give_one(self, split: int, found: np.ndarray, left: np.ndarray) -> None:
        wanted = self.shares[split] * self.rows
        free = [u for u in range(len(found)) if found[u] == TRAIN and not self.fixed[u] and self._leaves(u, left)]
        if free and (found == TRAIN).sum() > 1:
            unit = min(free, key=lambda u: (abs(self.sizes[u] - wanted), u))
            found[unit] = split
            for own, count in self.pairs[unit]:
                left[own] -= count

    def cost(self, found: np.ndarray) -> tuple[int, float, float]:
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


def _one_by_one(
    ids: list[str],
    units: list[int],
    shares: Mapping[str, float],
    seed: int,
    labels: list[Any] | None,
    fixed: Sequence[bool],
) -> dict[str, set[int]] | None:
    members: dict[int, list[int]] = {}
    for index, unit in enumerate(units):
        members.setdefault(unit, []).append(index)
    # the row with the smallest id represents its unit, whatever the order of the rows
    first = {min(of, key=ids.__getitem__): of for of in members.values()}
    left = sorted(first)
    count = len(left)
    drawn: dict[str, set[int]] = {}
    for name, share in shares.items():
        draws = {index: _draw(seed + (name == "test"), ids[index]) for index in left}
        order = sorted((i for i in left if not any(fixed[other] for other in first[i])), key=draws.__getitem__)
        wanted = count * share
        if labels is None:
            drawn[name] = set(order[: max(round(wanted), 1)])
        elif any(isinstance(label, list) for label in labels):
            drawn[name] = _each_label_left(order, left, labels, wanted)
        else:
            drawn[name] = _stratified(order, left, labels, wanted)
        left = [index for index in left if index not in drawn[name]]
    taken = {name: {other for index in found for other in first[index]} for name, found in drawn.items()}
    if count == len(ids):
        return taken
    bound = max(0.02 * len(ids), max(map(len, members.values())) / 2)
    train = set(range(len(ids))) - {index for found in taken.values() for index in found}
    near = all(abs(len(taken[name]) - share * len(ids)) <= bound for name, share in shares.items())
    lacking = labels is not None and set().union(*_sets(labels)) - set().union(
        *_sets([labels[index] for index in train])
    )
    return taken if near and not lacking else None


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()


def _stratified(order: list[int], left: Sequence[int], labels: list[str], wanted: float) -> set[int]:
    sizes = Counter(labels[index] for index in left)
    by_label: dict[str, list[int]] = {label: [] for label in sizes}
    for index in order:
        by_label[labels[index]].append(index)
    quota = {label: size * wanted / len(left) for label, size in sizes.items()}
    most = {label: min(len(by_label[label]), size - 1) for label, size in sizes.items()}
    total = max(round(wanted), 1)
    common = {label for label, size in sizes.items() if size > 2 and most[label]}
    take = {label: int(label in common and len(common) <= total) for label in sizes}
    # largest remainder: the class that lacks most gets the next row, so that shares are rounded and the total is right
    lacking = [(take[label] - quota[label], label) for label in sizes if take[label] < most[label]]
    heapq.heapify(lacking)
    for _ in range(total - sum(take.values())):
        if not lacking:
            break
        _, label = heapq.heappop(lacking)
        take[label] += 1
        if take[label] < most[label]:
            heapq.heappush(lacking, (take[label] - quota[label], label))
    return {index for label, indexes in by_label.items() for index in indexes[: take[label]]}


def _each_label_left(order: list[int], left: Sequence[int], labels: list[list[str]], wanted: float) -> set[int]:
    counts = Counter(part for index in left for part in labels[index])
    taken: set[int] = set()
    for index in order:
        if len(taken) < max(round(wanted), 1) and all(counts[part] > 1 for part in labels[index]):
            taken.add(index)
            counts.subtract(labels[index])
    return taken


def limit(rows: Dataset, most: int, seed: int, known: list[Any] | None) -> list[int]:
    draws = [_draw(seed, id_) for id_ in rows["id"][:]]
    order = sorted(range(len(rows)), key=draws.__getitem__)
    labels = _sets(known) if known is not None else [frozenset()] * len(rows)
    sizes: Counter[frozenset[str]] = Counter(labels)
    seen: Counter[frozenset[str]] = Counter()
    first = _cover(order, labels)
    first = first if len(first) <= most else set()
    place: dict[int, float] = {}
    for index in order:
        place[index] = -1.0 if index in first else (seen[labels[index]] + 0.5) / sizes[labels[index]]
        seen[labels[index]] += 1
    return sorted(sorted(order, key=lambda index: place[index])[:most])


def _sets(labels: list[Any]) -> list[frozenset[str]]:
    return [frozenset(label if isinstance(label, list) else [label]) for label in labels]


def _cover(order: list[int], labels: list[frozenset[str]]) -> set[int]:
    sizes = Counter(label for row in labels for label in row)
    firsts: dict[str, int] = {}
    for index in order:
        for label in labels[index]:
            firsts.setdefault(label, index)
    taken: set[int] = set()
    held: set[str] = set()
    for label in sorted(firsts, key=lambda one: (sizes[one], one)):
        if label not in held:
            taken.add(firsts[label])
            held |= labels[firsts[label]]
    return taken
