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
from pipelines.data import stored
from pipelines.data.columns import select, values
from pipelines.data.grouping import assign, units_of
from pipelines.data.leakage import CONTENT, check_files, check_groups, warn_of_speakers
from pipelines.data.schema import Strata, by_label
from pipelines.data.trained_rows import TrainedRows
from pipelines.errors import DataError

if TYPE_CHECKING:
    import numpy as np
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
            if labels is not None and most < (needed := len(_cover(*_numbered(_sets(labels))))):
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
    contents = values(rest, CONTENT) if CONTENT in rest.column_names else []
    known = trained.known(contents)
    others = {content for rows in own if CONTENT in rows.column_names for content in values(rows, CONTENT)}
    fixed = [seen or content in others for seen, content in zip(known, contents, strict=True)]
    if fixed != known:
        with contextlib.suppress(DataError):  # too much overlap: it is accepted, counted and reported
            return cut(rest, shares, section.seed, group, strata, fixed)
    return cut(rest, shares, section.seed, group, strata, known, f"{trained.named} was trained on")


def without_trained(section: DataSection, name: str, rows: "Dataset", trained: TrainedRows) -> "tuple[Dataset, int]":
    """The rows that the model was not trained on, and the number of the others. Raises DataError if no row is left."""
    if not trained or CONTENT not in rows.column_names:
        return rows, 0
    known = trained.known(values(rows, CONTENT))
    if all(known) and known:
        raise DataError(
            f"{section.id}: {trained.named} was trained on every row of {name}, so a score on them says nothing: "
            f"give {name} rows that it has not seen, or start from another model"
        )
    return (
        (select(rows, [number for number, seen in enumerate(known) if not seen]), sum(known))
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
    import numpy as np

    def choose() -> dict[str, list[int]]:
        return _chosen(rows, shares, seed, group, strata, fixed, why)

    own = stored.function_key(strata) if stored.large(rows) and stored.lasting(rows) else None
    if own is None:
        taken = choose()
    else:
        held = hashlib.blake2b(np.asarray(fixed, dtype=bool).tobytes()).hexdigest()
        key = ["cut", rows._fingerprint, list(shares.items()), seed, group, own, held]
        taken = stored.value(key, f"cutting {len(rows):,} rows", choose)
    stays = np.ones(len(rows), dtype=bool)
    for indexes in taken.values():
        stays[indexes] = False
    splits = {name: select(rows, taken[name]) for name in shares}
    return {**splits, "train": select(rows, np.flatnonzero(stays))}


def _chosen(
    rows: "Dataset",
    shares: Mapping[str, float],
    seed: int,
    group: str | None,
    strata: Strata,
    fixed: Sequence[bool],
    why: str,
) -> dict[str, list[int]]:
    """The rows of each split that `cut` makes. Raises DataError."""
    import numpy as np

    labels = strata(rows)
    ids = values(rows, "id")
    units = units_of(rows, group)
    free = np.zeros(len(rows), dtype=bool)
    held = np.asarray(fixed, dtype=bool) if len(fixed) else free
    for kept in (free, held) if held.any() else (free,):
        drawn = _one_by_one(ids, units, shares, seed, labels, kept) if group is None else None
        taken = assign(units, _draws(seed, ids), labels, shares, kept, seed) if drawn is None else drawn
        if not any(held[list(indexes)].any() for indexes in taken.values()) or kept is held:
            break
    for name, share in shares.items():
        if not taken.get(name) or sum(map(len, taken.values())) == len(rows):
            reason = _too_few(rows, units, group, labels)
        elif held.any() and len(taken[name]) < share * len(rows) / 2:
            reason = f"{len(rows)} rows are too few to cut one"
        else:
            continue
        if held.any():
            reason = f"{why} {held.sum()} of the {len(rows)} rows, which leaves too few"
            raise DataError(f"no {name} split, and {reason}: add rows, lower data.holdout, or start from another model")
        raise DataError(f"no {name} split, and {reason}: add rows, or give {name} data of its own")
    return {name: sorted(taken[name]) for name in shares}


def _too_few(rows: "Dataset", units: "np.ndarray", group: str | None, labels: list[Any] | None) -> str:
    if group is not None:
        count = len(set(values(rows, group)))
        how = f" in whole groups of {group!r}, of which there are {count} (data.group=none cuts row by row)"
    elif len(set(units.tolist())) < len(rows):
        how = f": only {len(set(units.tolist()))} of them differ in content"
    else:
        how = " with each class in both" if labels is not None else ""
    return f"{len(rows)} rows are too few to cut one{how}"


def _one_by_one(
    ids: list[str],
    units: "np.ndarray",
    shares: Mapping[str, float],
    seed: int,
    labels: list[Any] | None,
    fixed: "np.ndarray",
) -> dict[str, set[int]] | None:
    """Each split in turn draws its share of every class from the remaining rows.

    One row of each unit is drawn, the others follow it. None if units are so uneven that a split is further from its
    share than max(2 % of the rows, half of the largest unit), or if train lacks a class.
    """
    import numpy as np

    sizes = np.bincount(units)
    held = np.bincount(units, weights=fixed.astype(float)) > 0
    # the row with the smallest id represents its unit, whatever the order of the rows
    first = np.full(len(sizes), -1)
    first[units] = np.arange(len(ids))
    smallest: dict[int, int] = {}
    several = np.flatnonzero(sizes[units] > 1)
    for index, unit in zip(several.tolist(), units[several].tolist(), strict=True):
        if unit not in smallest or ids[index] < ids[smallest[unit]]:
            smallest[unit] = index
    first[list(smallest)] = list(smallest.values())
    left = np.sort(first[first >= 0])
    count = len(left)
    several_labels = labels is not None and any(isinstance(label, list) for label in labels)
    names, classes = _numbered([] if labels is None or several_labels else labels)
    drawn: dict[str, np.ndarray] = {}
    for name, share in shares.items():
        free = left[~held[units[left]]]
        draws = _draws(seed + (name == "test"), [ids[index] for index in free.tolist()])
        order = free[np.argsort(draws, kind="stable")]
        wanted = count * share
        if labels is None:
            drawn[name] = order[: max(round(wanted), 1)]
        elif several_labels:
            drawn[name] = np.array(_each_label_left(order.tolist(), left.tolist(), labels, wanted), dtype=np.int64)
        else:
            drawn[name] = _stratified(order, left, names, classes, wanted)
        left = np.setdiff1d(left, drawn[name], assume_unique=True)
    taken: dict[str, set[int]] = {}
    train = np.ones(len(ids), dtype=bool)
    for name, found in drawn.items():
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[units[found]] = True
        taken[name] = set(np.flatnonzero(chosen[units]).tolist())
        train &= ~chosen[units]
    if count == len(ids):
        return taken
    bound = max(0.02 * len(ids), int(sizes.max()) / 2)
    near = all(abs(len(taken[name]) - share * len(ids)) <= bound for name, share in shares.items())
    lacking = labels is not None and _parts(labels) - _parts([labels[index] for index in np.flatnonzero(train)])
    return taken if near and not lacking else None


def _parts(labels: Sequence[Any]) -> set[Any]:
    """The different labels of rows, each of which may have several."""
    return {part for label in labels for part in (label if isinstance(label, list) else (label,))}


def _numbered(keys: Sequence[Any]) -> "tuple[list[Any], np.ndarray]":
    """The different keys, and for each row the place of its key among them."""
    import numpy as np

    places: dict[Any, int] = {}
    found = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    return list(places), found


def _draws(seed: int, keys: Sequence[str]) -> "np.ndarray":
    """A number for each key that decides on the order in which rows are drawn."""
    import numpy as np

    begun = hashlib.blake2b(f"{seed}/".encode(), digest_size=8).copy
    digests = []
    for key in keys:
        digest = begun()
        digest.update(key.encode())
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _stratified(
    order: "np.ndarray", left: "np.ndarray", names: list[Any], classes: "np.ndarray", wanted: float
) -> "np.ndarray":
    """Draw about `wanted` of the rows that are `left`, in the given order: from each class its share.

    At least one row of each class stays, and one of each is taken if there is room. `classes` holds each row's class as
    its place in `names`.
    """
    import numpy as np

    counted = np.bincount(classes[left], minlength=len(names)).tolist()
    free = np.bincount(classes[order], minlength=len(names)).tolist()
    sizes = {place: size for place, size in enumerate(counted) if size}
    quota = {place: size * wanted / len(left) for place, size in sizes.items()}
    most = {place: min(free[place], size - 1) for place, size in sizes.items()}
    total = max(round(wanted), 1)
    common = {place for place, size in sizes.items() if size > 2 and most[place]}
    take = {place: int(place in common and len(common) <= total) for place in sizes}
    # largest remainder: the class that lacks most gets the next row, so that shares are rounded and the total is right
    lacking = [(take[place] - quota[place], names[place], place) for place in sizes if take[place] < most[place]]
    heapq.heapify(lacking)
    for _ in range(total - sum(take.values())):
        if not lacking:
            break
        _, name, place = heapq.heappop(lacking)
        take[place] += 1
        if take[place] < most[place]:
            heapq.heappush(lacking, (take[place] - quota[place], name, place))
    # of each class, the first rows in the order
    sorted_ = order[np.argsort(classes[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(free)[:-1]]).astype(np.int64) if names else np.zeros(0, np.int64)
    limits = np.array([take.get(place, 0) for place in range(len(names))], dtype=np.int64)
    of = classes[sorted_]
    chosen: np.ndarray = sorted_[np.arange(len(sorted_)) - starts[of] < limits[of]]
    return chosen


def _each_label_left(order: list[int], left: Sequence[int], labels: list[Any], wanted: float) -> list[int]:
    """Draw rows with several labels each: in the given order, those without which every label still occurs."""
    counts = Counter(part for index in left for part in labels[index])
    taken: list[int] = []
    most = max(round(wanted), 1)
    for index in order:
        if len(taken) >= most:
            break
        if all(counts[part] > 1 for part in labels[index]):
            taken.append(index)
            counts.subtract(labels[index])
    return taken


def limit(rows: "Dataset", most: int, seed: int, strata: Strata = by_label) -> "Dataset":
    """`most` of the rows, drawn as in `cut`: first one of every class if there is room, then each class's share."""
    import numpy as np

    order = np.argsort(_draws(seed, values(rows, "id")), kind="stable")
    known = strata(rows)
    names, sets = _numbered(_sets(known) if known is not None else [frozenset()] * len(rows))
    sets = sets[order]
    by_set = np.argsort(sets, kind="stable")
    sizes = np.bincount(sets, minlength=len(names))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    place = np.empty(len(order))
    place[by_set] = (np.arange(len(order)) - starts[sets[by_set]] + 0.5) / sizes[sets[by_set]]
    first = _cover(names, sets)
    if len(first) <= most:
        place[first] = -1.0
    return select(rows, np.sort(order[np.argsort(place, kind="stable")[:most]]))


def _sets(labels: list[Any]) -> list[frozenset[str]]:
    return [frozenset(label if isinstance(label, list) else [label]) for label in labels]


def _cover(names: list[frozenset[str]], sets: "np.ndarray") -> list[int]:
    """A small set of rows that has every label: for each label, rarest first, the first row that has it.

    `sets` holds each row's set of labels as its place in `names`.
    """
    import numpy as np

    sizes: Counter[str] = Counter()
    for place, count in enumerate(np.bincount(sets, minlength=len(names)).tolist()):
        sizes.update(dict.fromkeys(names[place], count))
    firsts: dict[str, int] = {}
    for index in np.sort(np.unique(sets, return_index=True)[1]).tolist():
        for label in names[sets[index]]:
            firsts.setdefault(label, index)
    taken: list[int] = []
    held: set[str] = set()
    for label in sorted(firsts, key=lambda one: (sizes[one], one)):
        if label not in held:
            taken.append(firsts[label])
            held |= names[sets[firsts[label]]]
    return taken


def check_rows(name: str, rows: "Dataset", section: DataSection) -> None:
    """Raise DataError for a split without rows, or with an id that occurs twice."""
    if len(rows) == 0:
        raise DataError(f"{section.id}: the {name} split is empty")
    ids = values(rows, "id")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{section.id}: id {twice!r} occurs twice in {name}: ids must be unique")
