"""Groups and rows with equal content stay in one split: how near the cut comes to the requested sizes."""

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from datasets import Dataset

from pipelines.config.recipe import DataSection
from pipelines.data.grouping import units_of
from pipelines.data.leakage import CONTENT, check_groups, with_contents
from pipelines.data.splitting import cut
from pipelines.errors import DataError

SHARES = {"test": 0.1, "validation": 0.1}


def structure(seed: int) -> tuple[list[str], list[str]]:
    """Groups and classes of some hundred rows.

    There are few or many groups, of similar or different sizes, with one class or all classes each.
    """
    rng = random.Random(seed)
    count = rng.choice([3, 4, 5, 10, 20, 60, 150])
    kind = rng.choice(["equal", "one large", "skewed", "very skewed"])
    classes = rng.choice([1, 2, 3, 10])
    mixed = rng.random() < 0.5
    groups, labels = [], []
    for number in range(count):
        size = {
            "equal": 8,
            "one large": 300 if number == 0 else rng.randint(1, 9),
            "skewed": 1 + int(rng.lognormvariate(2, 1)),
            "very skewed": min(400, int(3 * rng.paretovariate(0.9))),
        }[kind]
        own = rng.randrange(classes)
        groups += [f"g{number}"] * size
        labels += [str(rng.randrange(classes) if mixed else own) for _ in range(size)]
    return groups, labels


def possible(groups: list[str], labels: list[str]) -> bool:
    """Whether some assignment of these few groups keeps the bound, with every class in train and no split empty.

    It tries all of them.
    """
    sizes, rows = Counter(groups), len(groups)
    bound = max(0.02 * rows, max(sizes.values()) / 2)
    classes = {group: {label for own, label in zip(groups, labels, strict=True) if own == group} for group in sizes}
    asked = {**SHARES, "train": 0.8}
    for splits in itertools.product(asked, repeat=len(sizes)):
        where = dict(zip(sizes, splits, strict=True))
        counts = {name: sum(size for group, size in sizes.items() if where[group] == name) for name in asked}
        near = all(counts[name] and abs(counts[name] - share * rows) <= bound for name, share in asked.items())
        if near and set().union(*(classes[group] for group in sizes if where[group] == "train")) == set(labels):
            return True
    return False


def test_two_hundred_structures_of_groups() -> None:
    """If some assignment does it, splits have about the requested sizes, and train has every class.

    A size may be wrong by max(2 % of the rows, half of the largest group). For up to five groups, all assignments are
    tried.
    """
    outcomes: Counter[str] = Counter()
    for seed in range(200):
        groups, labels = structure(seed)
        rows = Dataset.from_dict({"id": [f"r{i}" for i in range(len(groups))], "who": groups, "label": labels})
        bound = max(0.02 * len(rows), max(Counter(groups).values()) / 2)
        try:
            splits = cut(rows, SHARES, seed, "who")
        except DataError as error:
            outcome = f"refused: {'too few to cut one in whole groups of' in str(error)}"
        else:
            assert sorted(id_ for part in splits.values() for id_ in part["id"]) == sorted(rows["id"])
            assert sum(len(set(part["who"])) for part in splits.values()) == len(set(groups)), "a group in two splits"
            assert set(splits["train"]["label"]) == set(labels)
            off = [abs(len(splits[name]) - share * len(rows)) for name, share in {**SHARES, "train": 0.8}.items()]
            outcome = "kept" if max(off) <= bound else "beyond"
        outcomes[outcome] += 1
        if outcome != "kept":
            assert len(set(groups)) <= 5, (seed, outcome)
            assert not possible(groups, labels), (seed, outcome)
    assert set(outcomes) == {"kept", "beyond", "refused: True"}
    assert outcomes["kept"] > 120


def test_classes_get_their_share_of_whole_groups() -> None:
    """100 groups of two classes, 1 : 4, and one rare class: each split has about its share of every class."""
    groups = [f"g{number}" for number in range(100) for _ in range(10)]
    labels = ["rare" if n < 3 else "few" if n < 20 else "many" for n in range(100) for _ in range(10)]
    rows = Dataset.from_dict({"id": [f"r{i}" for i in range(1000)], "who": groups, "label": labels})
    for seed in range(5):
        splits = cut(rows, SHARES, seed, "who")
        for name in SHARES:
            found = Counter(splits[name]["label"])
            assert 90 <= len(splits[name]) <= 110
            assert 10 <= found["few"] <= 30
            assert 60 <= found["many"] <= 90


def test_small_groups_are_shared_out() -> None:
    """One group holds 900 of 1,000 rows: test must not take all small groups and leave the large one to validation."""
    groups = ["all"] * 900 + [f"g{number}" for number in range(10) for _ in range(10)]
    rows = Dataset.from_dict({"id": [f"r{i}" for i in range(1000)], "who": groups})
    splits = cut(rows, SHARES, 0, "who")
    assert {name: len(part) for name, part in splits.items()} == {"test": 50, "validation": 50, "train": 900}


def test_a_row_without_a_group_is_alone() -> None:
    rows = Dataset.from_dict({"id": [f"r{i}" for i in range(40)], "who": [None, "", "ann", "ben"] * 10})
    units = units_of(rows, "who")
    assert sorted(Counter(units).values()) == [1] * 20 + [10, 10]
    assert len(cut(rows, SHARES, 0, "who")["test"]) == 4


def test_equal_content_is_one_unit_with_its_group() -> None:
    texts = ["a", "b", " a ", "c", "d", "", ""]
    rows = Dataset.from_dict(
        {"id": [f"r{i}" for i in range(7)], "text": texts, "who": ["x", "x", "y", "z", None, None, None]}
    )
    rows = with_contents(rows, ("text",))
    assert rows[CONTENT][0] == rows[CONTENT][2]
    assert len(set(rows[CONTENT])) == 6, "empty texts equal no other row"
    assert len(set(units_of(rows, None))) == 6
    by_group = units_of(rows, "who")
    assert by_group[0] == by_group[1] == by_group[2]
    assert len(set(by_group)) == 5


def test_a_text_that_everybody_writes_does_not_join_all_groups(caplog: pytest.LogCaptureFixture) -> None:
    texts = [text for number in range(30) for text in ("ok", f"text {number}", f"more {number}")]
    groups = [f"g{number}" for number in range(30) for _ in range(3)]
    rows = with_contents(
        Dataset.from_dict({"id": [f"r{i}" for i in range(90)], "text": texts, "who": groups}), ("text",)
    )
    splits = cut(rows, SHARES, 0, "who")
    assert sum(len(set(part["who"])) for part in splits.values()) == 30
    assert "rows with equal content stand in most groups of 'who'" in caplog.text


def test_the_order_of_the_rows_changes_nothing() -> None:
    groups, labels = structure(7)
    rows: Any = Dataset.from_dict({"id": [f"r{i}" for i in range(len(groups))], "who": groups, "label": labels})
    order = list(range(len(groups)))
    random.Random(1).shuffle(order)
    first, second = cut(rows, SHARES, 3, "who"), cut(rows.select(order), SHARES, 3, "who")
    assert {name: sorted(part["id"]) for name, part in first.items()} == {
        name: sorted(part["id"]) for name, part in second.items()
    }


def test_groups_are_compared_without_blanks(caplog: pytest.LogCaptureFixture) -> None:
    own = {
        name: Dataset.from_dict({"id": [f"{name}{i}" for i in range(4)], "who": groups})
        for name, groups in (("train", ["p1", "p2", "p3", ""]), ("test", ["p1 ", "p9", "p8", None]))
    }
    with pytest.raises(DataError, match="who 'p1' in train and in test too"):
        check_groups(DataSection(id="x"), own, "who")
    rows = Dataset.from_dict({"id": [f"r{i}" for i in range(40)], "who": ["p1", " p1", "p1 ", "p2"] * 10})
    assert len(set(units_of(rows, "who"))) == 2
    empty = Dataset.from_dict({"id": [f"r{i}" for i in range(40)], "who": ["", None] * 20})
    assert len(set(units_of(empty, "who"))) == 40
    assert "no row has a value in the column 'who'" in caplog.text
