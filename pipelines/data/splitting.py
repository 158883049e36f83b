"""Cut, name, limit and check splits.

The result depends only on `data.seed` and the rows' ids (file names, line or row numbers).
"""

import contextlib
import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import DataSection
from pipelines.data.grouping import assign, units_of
from pipelines.data.leakage import CONTENT, check_files, check_groups, warn_of_speakers
from pipelines.data.schema import Strata, by_label
from pipelines.data.trained_rows import TrainedRows
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

NONE_TRAINED = TrainedRows()
USUAL = {  # split -> the usual names of it in data sets, in order of preference
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "dev-clean", "dev-other"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "test-clean", "test-other"),
}


def arrange(
    section: DataSection,
    found: "dict[str, Dataset]",
    group: str | None,
    strata: Strata = by_label,
    trained: TrainedRows = NONE_TRAINED,
) -> "tuple[dict[str, Dataset], dict[str, str], dict[str, int]]":
    """Name the splits, and cut the missing ones from train.

    Returns the splits, where each comes from, and how many rows were removed from validation and test.

    `strata` gives the classes of rows; every split gets its share of each. Rows of `trained`, on which the model that
    the run starts from was trained, are in train only: they are never cut from it, and the data set's own validation
    and test lose them. Raises DataError.
    """
    named = name_splits(section, list(found))
    if "test" not in named and "validation" not in named and section.holdout >= 0.5:
        raise DataError(
            f"data.holdout: {section.holdout:g} for test and as much for validation leaves no rows to train on"
        )
    splits = {name: found[source] for name, source in named.items()}
    came_from = dict(named)
    before: dict[str, int] = {}
    for name in ("validation", "test"):
        if name in splits:
            splits[name], count = without_trained(section, name, splits[name], trained)
            before |= {name: count} if count else {}
    rest = splits["train"]
    usual = group if group in rest.column_names else None
    if section.group is None and usual is None and group not in (None, "none"):
        warn_of_speakers(section, rest, str(group), [name for name in ("validation", "test") if name not in splits])
    group = {None: usual, "none": None}.get(section.group, section.group)
    if group is not None and group not in rest.column_names:
        raise DataError(f"data.group: no column {group!r} in {section.id} (it has: {', '.join(rest.column_names)})")
    missing = [name for name in ("test", "validation") if name not in splits]
    if missing:
        try:
            splits |= _cut_apart(
                section, rest, missing, [splits[name] for name in splits if name != "train"], group, strata, trained
            )
        except DataError as error:
            raise DataError(f"{section.id}: {error}") from None
        came_from |= dict.fromkeys(missing, f"cut from {named['train']}")
    if group is not None:
        check_groups(section, splits, group)
    check_files(section, splits)
    limits = {"train": section.max_train_rows, "validation": section.max_eval_rows, "test": section.max_eval_rows}
    for name, most in limits.items():
        if most is not None and most < len(splits[name]):
            rows = splits[name]
            labels = strata(rows) if name == "train" else None
            if labels is not None and most < (needed := len(_cover(list(range(len(rows))), _sets(labels)))):
                raise DataError(
                    f"data.max_train_rows: {most} rows cannot hold every class of {section.id}: "
                    f"at least {needed} are needed"
                )
            splits[name] = limit(rows, most, section.seed, strata)
    return {name: splits[name] for name in ("train", "validation", "test")}, came_from, before


def _cut_apart(
    section: DataSection,
    rest: "Dataset",
    missing: list[str],
    own: "list[Dataset]",
    group: str | None,
    strata: Strata,
    trained: TrainedRows,
) -> "dict[str, Dataset]":
    """Cut the missing splits. Rows that the model knows stay in train.

    If enough other rows are left, rows with the content of a row of the data set's own splits stay in train too:
    otherwise a validation split with rows of test would select the model by them.
    """
    shares = dict.fromkeys(missing, section.holdout)
    contents = rest[CONTENT][:] if CONTENT in rest.column_names else []
    known = trained.known(contents)
    others = {content for rows in own if CONTENT in rows.column_names for content in rows[CONTENT][:]}
    fixed = [seen or content in others for seen, content in zip(known, contents, strict=True)]
    if fixed != known:
        with contextlib.suppress(DataError):  # too much overlap: it is accepted, counted and reported
            return cut(rest, shares, section.seed, group, strata, fixed)
    return cut(rest, shares, section.seed, group, strata, known, f"{trained.named} was trained on")


def without_trained(section: DataSection, name: str, rows: "Dataset", trained: TrainedRows) -> "tuple[Dataset, int]":
    """The rows that the model was not trained on, and the number of the others. Raises DataError if no row is left."""
    if not trained or CONTENT not in rows.column_names:
        return rows, 0
    known = trained.known(rows[CONTENT][:])
    if all(known) and known:
        raise DataError(
            f"{section.id}: {trained.named} was trained on every row of {name}, so a score on them says nothing: "
            f"give {name} rows that it has not seen, or start from another model"
        )
    return (
        (rows.select([number for number, seen in enumerate(known) if not seen]), sum(known))
        if any(known)
        else (rows, 0)
    )


def name_splits(section: DataSection, found: list[str]) -> dict[str, str]:
    """train, validation, test -> the data set's own name: the one in the recipe, else a usual name in any case.

    Raises DataError.
    """
    named: dict[str, str] = {}
    for name in USUAL:
        asked = getattr(section, name)
        if asked is None:
            continue
        if asked not in found:
            raise DataError(f"data.{name}: {section.id} has no split {asked!r} (it has: {', '.join(found) or 'none'})")
        if asked in named.values():
            other = next(k for k, v in named.items() if v == asked)
            raise DataError(f"data.{name}: {asked!r} is {other} already: a row may be in one split only")
        named[name] = asked
    free = {own.lower(): own for own in reversed(found) if own not in named.values()}
    for name, usual in USUAL.items():
        choice = next((free[n] for n in usual if n in free), None)
        if name not in named and choice is not None:
            named[name] = choice
    if "train" not in named:
        if len(found) != 1 or section.validation or section.test:
            raise DataError(
                f"{section.id}: no split to train on (it has: {', '.join(found) or 'none'}); "
                "name one with data.train=NAME"
            )
        named = {"train": found[0]}
    return named


def cut(
    rows: "Dataset",
    shares: Mapping[str, float],
    seed: int,
    group: str | None,
    strata: Strata = by_label,
    fixed: Sequence[bool] = (),
    why: str = "",
) -> "dict[str, Dataset]":
    """Cut splits out of `rows`, each of about its share of them. Returns these splits and `train`, the remaining rows.

    Rows are drawn one by one, stratified by label; rows with equal content (see leakage.with_contents) follow the drawn
    one. grouping.assign chooses instead if there is a `group` column, or if a split would be further from its share
    than max(2 % of the rows, half of the largest set of equal rows). The choice depends on the ids and the seed, not on
    the order of the rows.

    `fixed` rows stay in train, and `why` gives the reason. The cut is first made without regard to them, so that the
    same data and seed give the same test rows as before; if that takes a fixed row, the cut is made again around them.
    Raises DataError if there are too few rows.
    """
    labels = strata(rows)
    ids = rows["id"][:]
    units = units_of(rows, group)
    free = [False] * len(rows)
    fixed = fixed or free
    for kept in (free, fixed) if any(fixed) else (free,):
        drawn = _one_by_one(ids, units, shares, seed, labels, kept) if group is None else None
        taken = assign(units, [_draw(seed, id_) for id_ in ids], labels, shares, kept, seed) if drawn is None else drawn
        if not any(fixed[index] for indexes in taken.values() for index in indexes) or kept is fixed:
            break
    for name, share in shares.items():
        if not taken.get(name) or sum(map(len, taken.values())) == len(rows):
            reason = _too_few(rows, units, group, labels)
        elif any(fixed) and len(taken[name]) < share * len(rows) / 2:
            reason = f"{len(rows)} rows are too few to cut one"
        else:
            continue
        if any(fixed):
            reason = f"{why} {sum(fixed)} of the {len(rows)} rows, which leaves too few"
            raise DataError(f"no {name} split, and {reason}: add rows, lower data.holdout, or start from another model")
        raise DataError(f"no {name} split, and {reason}: add rows, or give {name} data of its own")
    gone = {index for indexes in taken.values() for index in indexes}
    splits = {name: rows.select(sorted(taken[name])) for name in shares}
    return {**splits, "train": rows.select([index for index in range(len(rows)) if index not in gone])}


def _too_few(rows: "Dataset", units: list[int], group: str | None, labels: list[Any] | None) -> str:
    if group is not None:
        count = len(set(rows[group]))
        how = f" in whole groups of {group!r}, of which there are {count} (data.group=none cuts row by row)"
    elif len(set(units)) < len(rows):
        how = f": only {len(set(units))} of them differ in content"
    else:
        how = " with each class in both" if labels is not None else ""
    return f"{len(rows)} rows are too few to cut one{how}"


def _one_by_one(
    ids: list[str],
    units: list[int],
    shares: Mapping[str, float],
    seed: int,
    labels: list[Any] | None,
    fixed: Sequence[bool],
) -> dict[str, set[int]] | None:
    """Each split in turn draws its share of every class from the remaining rows.

    One row of each unit is drawn, the others follow it. None if units are so uneven that a split is further from its
    share than max(2 % of the rows, half of the largest unit), or if train lacks a class.
    """
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
    """Draw about `wanted` of the rows that are `left`, in the given order: from each class its share.

    At least one row of each class stays, and one of each is taken if there is room.
    """
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
    """Draw rows with several labels each: in the given order, those without which every label still occurs."""
    counts = Counter(part for index in left for part in labels[index])
    taken: set[int] = set()
    for index in order:
        if len(taken) < max(round(wanted), 1) and all(counts[part] > 1 for part in labels[index]):
            taken.add(index)
            counts.subtract(labels[index])
    return taken


def limit(rows: "Dataset", most: int, seed: int, strata: Strata = by_label) -> "Dataset":
    """`most` of the rows, drawn as in `cut`: first one of every class if there is room, then each class's share."""
    draws = [_draw(seed, id_) for id_ in rows["id"][:]]
    order = sorted(range(len(rows)), key=draws.__getitem__)
    known = strata(rows)
    labels = _sets(known) if known is not None else [frozenset()] * len(rows)
    sizes: Counter[frozenset[str]] = Counter(labels)
    seen: Counter[frozenset[str]] = Counter()
    first = _cover(order, labels)
    first = first if len(first) <= most else set()
    place: dict[int, float] = {}
    for index in order:
        place[index] = -1.0 if index in first else (seen[labels[index]] + 0.5) / sizes[labels[index]]
        seen[labels[index]] += 1
    return rows.select(sorted(sorted(order, key=lambda index: place[index])[:most]))


def _sets(labels: list[Any]) -> list[frozenset[str]]:
    return [frozenset(label if isinstance(label, list) else [label]) for label in labels]


def _cover(order: list[int], labels: list[frozenset[str]]) -> set[int]:
    """A small set of rows that has every label: for each label, rarest first, the first row in `order` that has it."""
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


def check_rows(name: str, rows: "Dataset", section: DataSection) -> None:
    """Raise DataError for a split without rows, or with an id that occurs twice."""
    if len(rows) == 0:
        raise DataError(f"{section.id}: the {name} split is empty")
    ids = rows["id"][:]  # a slice: reading ids one by one takes a hundred times as long
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{section.id}: id {twice!r} occurs twice in {name}: ids must be unique")
