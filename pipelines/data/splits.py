"""Cut, name, limit and check splits. All of it is decided by `data.seed` and the rows, never by their order on disk."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

USUAL = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test", "testing", "eval")}


def arrange(section: Any, found: "dict[str, Dataset]", group: str | None) -> "tuple[dict[str, Dataset], dict[str, str]]":
    """Name the splits and cut the missing ones from train. Returns the splits and where each came from."""
    named: dict[str, str] = {}
    for name, usual in USUAL.items():
        asked = getattr(section, name)
        if asked is not None and asked not in found:
            raise DataError(f"data.{name}: {section.id} has no split {asked!r} (it has: {', '.join(found) or 'none'})")
        choice = asked or next((n for n in usual if n in found), None)
        if choice is not None and choice not in named.values():
            named[name] = choice
    if "train" not in named:
        if len(found) != 1:
            raise DataError(f"{section.id}: no train split (it has: {', '.join(found) or 'none'}); name one with data.train=NAME")
        named["train"] = next(iter(found))
        named = {k: v for k, v in named.items() if k == "train" or v != named["train"]}
    splits = {name: found[source] for name, source in named.items()}
    came_from = dict(named)
    group = None if group == "none" else group
    rest = splits["train"]
    if group is not None and group not in rest.column_names:
        raise DataError(f"data.group: no column {group!r} in {section.id} (it has: {', '.join(rest.column_names)})")
    for name in ("test", "validation"):
        if name not in splits:
            rest, splits[name] = cut(rest, len(found[named["train"]]) * section.holdout, section.seed + (name == "test"), group)
            came_from[name] = f"cut from {named['train']}"
    splits["train"] = rest
    limits = {"train": section.max_train_rows, "validation": section.max_eval_rows, "test": section.max_eval_rows}
    for name, most in limits.items():
        if most is not None and most < len(splits[name]):
            splits[name] = cut(splits[name], most, section.seed, None)[1]
    return {name: splits[name] for name in ("train", "validation", "test")}, came_from


def cut(rows: "Dataset", wanted: float, seed: int, group: str | None) -> "tuple[Dataset, Dataset]":
    """Take about `wanted` rows out: stratified by label, or whole groups. Returns (what is left, what was taken).

    The choice depends on the ids and the seed, not on the order of the rows.
    """
    order = sorted(range(len(rows)), key=lambda index, ids=rows["id"]: _draw(seed, ids[index]))
    if group is not None:
        taken = _whole_groups(order, [str(v) for v in rows[group]], wanted, seed)
    elif "label" in rows.column_names:
        taken = _stratified(order, [str(v) for v in rows["label"]], wanted / max(len(rows), 1))
    else:
        taken = set(order[: round(wanted)])
    left = [index for index in range(len(rows)) if index not in taken]
    if not left or not taken:
        raise DataError(
            f"{len(rows)} rows are too few to cut a split of about {wanted:.0f} from"
            + (f" with whole groups of {group!r}" if group else "")
            + ": add rows, or give validation and test splits of your own"
        )
    return rows.select(left), rows.select(sorted(taken))


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()


def _stratified(order: list[int], labels: list[str], share: float) -> set[int]:
    by_label: dict[str, list[int]] = {}
    for index in order:
        by_label.setdefault(labels[index], []).append(index)
    # largest remainder: shares are rounded so that the total is right and no class of two or more rows is left out
    quota = {label: len(indexes) * share for label, indexes in by_label.items()}
    take = {label: max(int(quota[label]), 1 if len(by_label[label]) > 1 else 0) for label in quota}
    missing = round(sum(quota.values())) - sum(take.values())
    for label in sorted(quota, key=lambda name: (-(quota[name] % 1), name))[: max(missing, 0)]:
        take[label] += 1
    return {index for label, indexes in by_label.items() for index in indexes[: min(take[label], len(indexes))]}


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


def label_names(splits: "dict[str, Dataset]", known: list[str] | None) -> list[str]:
    """The classes, in the data set's own order or sorted (numbers by value). Every class must occur in train."""
    seen = {name: _labels_of(rows) for name, rows in splits.items()}
    for name in ("validation", "test"):
        extra = sorted(seen[name] - seen["train"])
        if extra:
            raise DataError(f"class {extra[0]!r} occurs in {name} but not in train ({len(extra)} such): add training rows or take it out")
    if known is not None:
        return [label for label in known if label in seen["train"]]
    return sorted(seen["train"], key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label))


def _labels_of(rows: "Dataset") -> set[str]:
    found: set[str] = set()
    for label in rows["label"]:
        found.update(label if isinstance(label, list) else [label])
    return found


def check_rows(name: str, rows: "Dataset", section: Any) -> None:
    if len(rows) == 0:
        raise DataError(f"{section.id}: the {name} split is empty")
    ids = rows["id"]
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{section.id}: id {twice!r} occurs twice in {name}: ids must be unique")


def fingerprint(rows: "Dataset") -> str:
    """Sixteen hex digits that change when an id, a label or a text changes. Pixels are covered by file size only."""
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.select_columns([c for c in rows.column_names if c != "image"]):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()
