"""Cut, name, limit and check splits. All of it is decided by `data.seed` and the rows' ids: file names, or line and row numbers."""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.data.apart import MEDIA, check_files, check_groups, warn_of_speakers
from pipelines.data.labels import alike
from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

USUAL = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "dev-clean", "dev-other"),
    "test": ("test", "testing", "eval", "test-clean", "test-other"),
}


def arrange(
    section: Any, found: "dict[str, Dataset]", group: str | None, classes: bool = True
) -> "tuple[dict[str, Dataset], dict[str, str]]":
    """Name the splits and cut the missing ones from train. Returns the splits and where each came from.

    `classes` says whether labels are classes, of which every split is to have its share.
    """
    named = name_splits(section, list(found))
    if "test" not in named and "validation" not in named and section.holdout >= 0.5:
        raise DataError(f"data.holdout: {section.holdout:g} for test and as much for validation leaves no rows to train on")
    splits = {name: found[source] for name, source in named.items()}
    came_from = dict(named)
    rest = splits["train"]
    usual = group if group in rest.column_names else None
    if section.group is None and usual is None and group not in (None, "none"):
        warn_of_speakers(section, rest, str(group), [name for name in ("validation", "test") if name not in splits])
    group = {None: usual, "none": None}.get(section.group, section.group)
    if group is not None and group not in rest.column_names:
        raise DataError(f"data.group: no column {group!r} in {section.id} (it has: {', '.join(rest.column_names)})")
    for name in ("test", "validation"):
        if name not in splits:
            wanted = len(found[named["train"]]) * section.holdout
            try:
                rest, splits[name] = cut(rest, wanted, section.seed + (name == "test"), group, classes)
            except DataError as error:
                raise DataError(f"{section.id}: no {name} split, and {error}: add rows, or give {name} data of its own") from None
            came_from[name] = f"cut from {named['train']}"
    splits["train"] = rest
    if group is not None:
        check_groups(section, splits, group)
    check_files(section, splits)
    limits = {"train": section.max_train_rows, "validation": section.max_eval_rows, "test": section.max_eval_rows}
    for name, most in limits.items():
        if most is not None and most < len(splits[name]):
            labelled = classes and "label" in rest.column_names
            if name == "train" and labelled and most < (rows_needed := len(_cover(list(range(len(rest))), _sets(rest["label"])))):
                raise DataError(
                    f"data.max_train_rows: {most} rows cannot hold every class of {section.id}: at least {rows_needed} are needed"
                )
            splits[name] = limit(splits[name], most, section.seed, classes)
    return {name: splits[name] for name in ("train", "validation", "test")}, came_from


def name_splits(section: Any, found: list[str]) -> dict[str, str]:
    """Our names -> the data set's: what the recipe says, else the usual names in any case, each split once."""
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
            raise DataError(f"{section.id}: no split to train on (it has: {', '.join(found) or 'none'}); name one with data.train=NAME")
        named = {"train": found[0]}
    return named


def cut(rows: "Dataset", wanted: float, seed: int, group: str | None, classes: bool = True) -> "tuple[Dataset, Dataset]":
    """Take about `wanted` rows out: stratified by label, or whole groups. Returns (what is left, what was taken).

    The choice depends on the ids and the seed, not on the order of the rows.
    """
    draws = [_draw(seed, id_) for id_ in rows["id"][:]]
    order = sorted(range(len(rows)), key=draws.__getitem__)
    if group is not None:
        taken = _whole_groups(order, [str(v) for v in rows[group][:]], wanted, seed)
    elif classes and "label" in rows.column_names:
        labels = rows["label"]
        several = any(isinstance(label, list) for label in labels)
        taken = _each_label_left(order, labels, wanted) if several else _stratified(order, labels, wanted)
    else:
        taken = set(order[: max(round(wanted), 1)])
    left = [index for index in range(len(rows)) if index not in taken]
    if not left or not taken:
        groups = (
            f" in whole groups of {group!r}, of which there are {len(set(rows[group]))} (data.group=none cuts row by row)" if group else ""
        )
        how = groups if group else " with each class in both" if classes and "label" in rows.column_names else ""
        raise DataError(f"{len(rows)} rows are too few to cut one{how}")
    return rows.select(left), rows.select(sorted(taken))


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()


def _stratified(order: list[int], labels: list[str], wanted: float) -> set[int]:
    """Each class's share of about `wanted` rows, at least one row of each class left; one taken of each where that fits."""
    by_label: dict[str, list[int]] = {}
    for index in order:
        by_label.setdefault(labels[index], []).append(index)
    quota = {label: len(indexes) * wanted / len(order) for label, indexes in by_label.items()}
    total = max(round(wanted), 1)
    common = {label for label, indexes in by_label.items() if len(indexes) > 2}
    take = {label: int(label in common and len(common) <= total) for label in by_label}
    # largest remainder: whoever lacks most gets the next row, so that shares are rounded and the total is right
    lacking = [(take[label] - quota[label], label) for label, indexes in by_label.items() if take[label] < len(indexes) - 1]
    heapq.heapify(lacking)
    for _ in range(total - sum(take.values())):
        if not lacking:
            break
        _, label = heapq.heappop(lacking)
        take[label] += 1
        if take[label] < len(by_label[label]) - 1:
            heapq.heappush(lacking, (take[label] - quota[label], label))
    return {index for label, indexes in by_label.items() for index in indexes[: take[label]]}


def _each_label_left(order: list[int], labels: list[list[str]], wanted: float) -> set[int]:
    """Rows with several labels each: in the order drawn, those without which every label still occurs."""
    left = Counter(part for label in labels for part in label)
    taken: set[int] = set()
    for index in order:
        if len(taken) < max(round(wanted), 1) and all(left[part] > 1 for part in labels[index]):
            taken.add(index)
            left.subtract(labels[index])
    return taken


def limit(rows: "Dataset", most: int, seed: int, classes: bool = True) -> "Dataset":
    """`most` of the rows, drawn like `cut` does: every class first if there is room, then each class's share."""
    draws = [_draw(seed, id_) for id_ in rows["id"][:]]
    order = sorted(range(len(rows)), key=draws.__getitem__)
    labels = _sets(rows["label"]) if classes and "label" in rows.column_names else [frozenset()] * len(rows)
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
    """Few rows that have every label: of each, the rarest first, the first row in `order` that has it."""
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


def _whole_groups(order: list[int], groups: list[str], wanted: float, seed: int) -> set[int]:
    members: dict[str, list[int]] = {}
    for index in order:
        members.setdefault(groups[index], []).append(index)
    if len(members) < 3:
        return set()
    taken: set[int] = set()
    for name in sorted(members, key=lambda key: _draw(seed, key)):
        if not taken or len(taken) + len(members[name]) / 2 <= wanted:
            taken.update(members[name])
    return taken


def cleaned(rows: "Dataset", clean: Callable[[dict], dict], source: str) -> "tuple[Dataset, list[tuple[str, str]]]":
    """Rows as the task wants them, and those (id, why) that it cannot use. `clean` sees no files, whose bytes a row may hold."""
    from datasets import Dataset, concatenate_datasets

    if len(rows) == 0:  # GLUE's test splits: not a label in them
        return rows, []
    media = [column for column in rows.column_names if column in MEDIA]
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


def label_names(splits: "dict[str, Dataset]", known: list[str] | None, source: str) -> list[str]:
    """The classes, in the data set's own order or sorted (numbers by value). Every class must occur in train."""
    seen = {name: _labels_of(rows) for name, rows in splits.items()}
    for name in ("validation", "test"):
        extra = sorted(seen[name] - seen["train"])
        if extra:
            others = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            near = next((label for label in sorted(seen["train"]) if alike(label) == alike(extra[0])), None)
            others += "" if near is None else f" (train has {near!r}: spell it in one way)"
            raise DataError(f"{source}: class {extra[0]!r}{others} occurs in {name} but not in train: add training rows, or take it out")
    if known is not None:
        return [label for label in known if label in seen["train"]]
    return sorted(seen["train"], key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def _labels_of(rows: "Dataset") -> set[str]:
    found: set[str] = set()
    for label in rows["label"]:
        found.update(label if isinstance(label, list) else [label])
    return found


def check_rows(name: str, rows: "Dataset", section: Any) -> None:
    if len(rows) == 0:
        raise DataError(f"{section.id}: the {name} split is empty")
    ids = rows["id"][:]  # at once: one by one takes a hundred times as long
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{section.id}: id {twice!r} occurs twice in {name}: ids must be unique")


def fingerprint(rows: "Dataset") -> str:
    """Sixteen hex digits that change when an id, a label or a text changes. Images and audio are covered by file size only."""
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.select_columns([c for c in rows.column_names if c not in MEDIA]):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()
