"""Cutting splits: fair to every class, groups stay together, and only the seed and the ids decide."""

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.recipe import DataSection
from pipelines.data.filtering import cleaned
from pipelines.data.labels import label_names, labelled
from pipelines.data.leakage import CONTENT
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec, Splits, fingerprint, spread
from pipelines.data.splitting import arrange, check_rows, limit
from pipelines.data.splitting import cut as cut_splits
from pipelines.errors import DataError
from tests.support import cut_row_by_row

QUICK = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**31)


def rows(labels: list[Any], **columns: list) -> Dataset:
    return Dataset.from_dict({"id": [f"row/{i}" for i in range(len(labels))], "label": labels, **columns})


def cut(data: Dataset, wanted: float, seed: int, group: str | None) -> tuple[Dataset, Dataset]:
    """Cut one split of about `wanted` rows: (the rows left, the rows taken)."""
    parts = cut_splits(data, {"validation": wanted / len(data)}, seed, group)
    return parts["train"], parts["validation"]


def shuffled(data: Dataset, seed: int) -> Dataset:
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    return data.select(order)


@st.composite
def classes(draw: st.DrawFn, most: int = 40) -> list[str]:
    """Labels of a data set: up to 6 classes, from frequent to rare, in random order."""
    sizes = draw(st.lists(st.integers(1, most), min_size=2, max_size=6))
    labels = [name for name, size in zip("abcdef", sizes, strict=False) for _ in range(size)]
    draw(st.randoms(use_true_random=False)).shuffle(labels)
    return labels


@QUICK
@given(labels=classes(), share=st.floats(0.02, 0.45), seed=SEEDS)
def test_a_cut_is_stratified_and_disjoint(labels: list[str], share: float, seed: int) -> None:
    data, wanted = rows(labels), share * len(labels)
    sizes = Counter(labels)
    if max(sizes.values()) == 1:
        with pytest.raises(DataError, match="too few"):
            cut(data, wanted, seed, None)
        return
    left, taken = cut(data, wanted, seed, None)
    assert sorted([*left["id"], *taken["id"]]) == sorted(data["id"])
    assert set(left["label"]) == set(labels)  # the last row of a class is never taken
    total = max(round(wanted), 1)
    assert len(taken) <= total
    found = Counter(taken["label"])
    for name, size in sizes.items():
        assert found[name] <= max(1, math.ceil(size * share)), "more than its share"
        if total >= len(sizes) and size > 2:
            assert found[name] >= 1, "a class without a row"
    if all(size > 2 for size in sizes.values()):
        assert len(taken) == total
        assert all(found[name] >= math.floor(size * share) - 1 for name, size in sizes.items())


@QUICK
@given(labels=classes(), seed=SEEDS, order=SEEDS)
def test_a_cut_does_not_depend_on_the_order(labels: list[str], seed: int, order: int) -> None:
    data = rows([*labels, "a", "a"])
    for make in (lambda d: cut(d, len(d) * 0.2, seed, None)[1], lambda d: limit(d, max(1, len(d) // 3), seed)):
        assert sorted(make(data)["id"]) == sorted(make(shuffled(data, order))["id"])


@QUICK
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=12), share=st.floats(0.05, 0.4), seed=SEEDS, order=SEEDS)
def test_groups_stay_whole(sizes: list[int], share: float, seed: int, order: int) -> None:
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    data = rows(["x"] * len(groups), who=groups)
    left, taken = cut(data, share * len(groups), seed, "who")
    assert not set(left["who"]) & set(taken["who"])
    assert len(left) + len(taken) == len(groups)
    assert set(taken["who"]) == set(cut(shuffled(data, order), share * len(groups), seed, "who")[1]["who"])
    assert len(taken) <= max(share * len(groups) + max(sizes) / 2, max(sizes))


@QUICK
@given(
    labels=st.lists(st.lists(st.sampled_from("abcd"), unique=True), min_size=4, max_size=60),
    share=st.floats(0.05, 0.4),
    seed=SEEDS,
)
def test_of_several_labels_each_is_left_to_train(labels: list[list[str]], share: float, seed: int) -> None:
    data, _ = labelled(rows(["|".join(parts) for parts in labels]), True, True)
    assert data["label"][:] == labels
    seen = Counter(part for parts in labels for part in parts)
    if not any(all(seen[part] > 1 for part in parts) for parts in labels):
        with pytest.raises(DataError, match="too few"):
            cut(data, share * len(labels), seed, None)
        return
    left, taken = cut(data, share * len(labels), seed, None)
    assert {part for parts in left["label"] for part in parts} == set(seen)
    assert len(taken) <= max(1, round(share * len(labels)))
    assert sorted([*left["id"], *taken["id"]]) == sorted(data["id"])


@QUICK
@given(labels=classes(), most=st.integers(1, 80), seed=SEEDS)
def test_a_limit_is_a_limit(labels: list[str], most: int, seed: int) -> None:
    few = limit(rows(labels), most, seed)
    assert len(few) == min(most, len(labels))
    assert len(set(few["id"])) == len(few)
    if most >= len(set(labels)):
        assert set(few["label"]) == set(labels)


def test_seeds_cut_differently_and_the_same_seed_the_same() -> None:
    data = rows(["a", "b"] * 40)
    cuts = {tuple(cut(data, 16, seed, None)[1]["id"]) for seed in range(10)}
    assert len(cuts) == 10
    assert cut(data, 16, 3, None)[1]["id"][:] == cut(data, 16, 3, None)[1]["id"][:]


# ---- all splits ----


@QUICK
@given(labels=classes(), seed=st.integers(0, 99), holdout=st.floats(0.05, 0.3))
def test_missing_splits_are_cut_from_train(labels: list[str], seed: int, holdout: float) -> None:
    labels = [*labels, *"abcdef" * 3]
    section = DataSection(id="x", seed=seed, holdout=holdout)
    splits, came_from, _ = arrange(section, {"all": rows(labels)}, None)
    assert came_from == {"train": "all", "validation": "cut from all", "test": "cut from all"}
    ids = [id_ for part in splits.values() for id_ in part["id"]]
    assert sorted(ids) == sorted(f"row/{i}" for i in range(len(labels)))
    assert label_names(splits, None, "x") == sorted(set(labels))
    for name in ("validation", "test"):
        assert abs(len(splits[name]) - len(labels) * holdout) <= 1


def test_a_split_of_ones_own_is_left_alone() -> None:
    own = rows(["a", "b"] * 5)
    splits, came_from, _ = arrange(DataSection(id="x"), {"train": rows(["a", "b"] * 20), "test": own}, None)
    assert splits["test"]["id"][:] == own["id"][:]
    assert came_from == {"train": "train", "validation": "cut from train", "test": "test"}
    assert len(splits["train"]) + len(splits["validation"]) == 40


def test_another_training_seed_has_the_same_test_rows() -> None:
    """data.seed decides the cut. A recipe keeps it when train.seed changes."""
    section = DataSection(id="digits", format="digits", config="0-1", max_eval_rows=20)
    first, second = (load_splits(section, DataSpec(("image", "label"))) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    other = load_splits(section.model_copy(update={"seed": 1}), DataSpec(("image", "label")))
    assert other.fingerprint["test"] != first.fingerprint["test"]


# ---- names, ids, fingerprints ----


def test_classes_have_an_order() -> None:
    parts = {name: rows(["10", "9", "b", "a", "²"]) for name in ("train", "validation", "test")}
    assert label_names(parts, None, "x") == ["9", "10", "a", "b", "²"]
    assert label_names(parts, ["b", "gone", "a", "10", "9", "²"], "x") == ["b", "a", "10", "9", "²"]


def test_ids_that_occur_twice_are_refused() -> None:
    data = Dataset.from_dict({"id": ["a", "b", "a"], "label": ["x", "y", "x"]})
    with pytest.raises(DataError, match=r"pets.*'a' occurs twice in train"):
        check_rows("train", data, DataSection(id="pets"))
    with pytest.raises(DataError, match=r"pets: the test split is empty"):
        check_rows("test", data.select([]), DataSection(id="pets"))


def test_a_fingerprint_sees_what_changed() -> None:
    first = rows(["a", "b"] * 4, size=[7] * 8)
    changed = [
        rows(["b", "a"] * 4, size=[7] * 8),
        rows(["a", "b"] * 4, size=[7] * 7 + [8]),
        first.select(range(7)),
        shuffled(first, 1),
    ]
    prints = {fingerprint(data) for data in [first, *changed]}
    assert len(prints) == 1 + len(changed)
    assert fingerprint(rows(["a", "b"] * 4, size=[7] * 8)) == fingerprint(first)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)


def test_a_few_rows_are_of_as_many_classes_as_can_be() -> None:
    data = rows(["a"] * 50 + ["b", "c"])
    assert Counter(data[i]["label"] for i in spread(data, 5)) == Counter(a=3, b=1, c=1)
    assert len(spread(data, 99)) == 52


# ---- files: not read, and only in one split ----


def test_rows_are_cleaned_and_stamped_without_their_bytes() -> None:
    """A task's `clean` may drop rows and change columns and their types.

    It does not get the recordings, and they are not copied.
    """
    import tracemalloc

    import pyarrow

    size = 1 << 20
    audio = [{"path": f"{i}.wav", "bytes": bytes([i]) * size} for i in range(16)]
    kinds = Features(
        {"id": Value("string"), "audio": {"path": Value("string"), "bytes": Value("binary")}, "label": Value("string")}
    )
    data = Dataset.from_dict(
        {"id": [f"row/{i}" for i in range(16)], "audio": audio, "label": list(map(str, range(16)))}, features=kinds
    )
    del audio

    def clean(row: dict[str, Any]) -> dict[str, Any]:
        assert "audio" not in row
        if row["id"] in ("row/0", "row/5"):
            raise DataError("no label")
        return {"id": row["id"], "label": float(row["label"]), "more": [row["label"]]}

    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    kept, bad = cleaned(data, clean, "x")
    empty: dict[str, Any] = {"labels": None, "source": {}, "skipped": {}, "fingerprint": {}, "name": "x"}
    stamp = Splits(train=kept, validation=kept, test=kept, **empty).files_fingerprint("train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(stamp) == 16
    assert max(pyarrow.total_allocated_bytes() - before, peak) < size
    assert bad == [("row/0", "row/0: no label"), ("row/5", "row/5: no label")]
    left = [i for i in range(16) if i not in (0, 5)]
    assert kept["id"][:] == [f"row/{i}" for i in left]
    assert (kept.features["audio"], kept.features["label"], kept["label"][:]) == (
        kinds["audio"],
        Value("float64"),
        list(map(float, left)),
    )
    assert all(
        row["audio"] == {"path": f"{i}.wav", "bytes": bytes([i]) * size} for i, row in zip(left, kept, strict=True)
    )
    with pytest.raises(DataError, match="none of 1 rows can be used; the first: row/0"):
        cleaned(data.select([0]), clean, "x")


def test_recordings_without_speakers_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The warning appears once, if a split is cut and nobody stated that this is right."""
    recordings = {"audio": [{"path": None, "bytes": b"a"}] * 40}
    for group, own, section, warned in (
        ("speaker", recordings, {}, True),
        ("speaker", recordings, {"group": "none"}, False),
        ("none", recordings, {}, False),  # a format whose own splits share speakers
        ("speaker", recordings | {"speaker": list("abcd") * 10}, {}, False),
        (None, recordings, {}, False),
        ("title", {}, {}, False),
    ):
        caplog.clear()
        arrange(DataSection(id="voices", **section), {"train": rows(["a", "b"] * 20, **own)}, group)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == warned
        if warned:
            assert messages[0].startswith(
                "voices: no column 'speaker', so validation and test may share speakers with train"
            )
            assert "data.group=NAME" in messages[0]
    own = {
        name: rows(["a", "b"] * 4, audio=[{"path": None, "bytes": b"a"}] * 8)
        for name in ("train", "validation", "test")
    }
    arrange(DataSection(id="voices"), own, "speaker")
    assert not caplog.records


# ---- rows that belong together, and rows with several labels ----


def test_questions_on_one_passage_stay_together_without_titles(tmp_path: Path) -> None:
    from pipelines.data.text.passages import answered

    lines = [
        json.dumps({"question": f"Who is {k}?", "context": f"Ada {n} met Boris.", "answer": "Boris"})
        for n in range(50)
        for k in range(4)
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines))
    needs = DataSpec(("question", "context", "answer"), ("title",), "title", clean=lambda row: answered(row, False))
    splits = load_splits(DataSection(id=str(tmp_path / "asked.jsonl")), needs)
    contexts = [set(splits[name]["context"]) for name in ("train", "validation", "test")]
    assert sum(map(len, contexts)) == len(set.union(*contexts)) == 50
    (tmp_path / "few.jsonl").write_text("\n".join(lines[:8]))
    with pytest.raises(DataError, match=r"of which there are 2 \(data.group=none cuts row by row\)"):
        load_splits(DataSection(id=str(tmp_path / "few.jsonl")), needs)


def test_a_limit_leaves_every_label_of_several(tmp_path: Path) -> None:
    """155 combinations of 7 labels need no 155 rows."""
    rng = random.Random(0)
    rows = [{"text": f"text {i}", "label": sorted(rng.sample("abcdefg", rng.randrange(1, 5)))} for i in range(300)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    needs = DataSpec(("text", "label"), label_kind="classes")
    for most in (50, 7):
        splits = load_splits(DataSection(id=str(tmp_path / "many.jsonl"), max_train_rows=most), needs)
        assert len(splits.train) == most
        assert {label for labels in splits.train["label"] for label in labels} == set("abcdefg")


# ---- the same rows as row by row ----


@st.composite
def small_tables(draw: st.DrawFn) -> tuple[Dataset, list[bool]]:
    """Rows with equal contents, groups, one label or several, and rows that must stay in train."""
    count = draw(st.integers(4, 60))
    some = st.integers(0, draw(st.integers(1, 12)))
    ids = draw(st.permutations([f"a.csv:{number}" for number in range(count)]))
    label = st.sampled_from("abcde")
    many = draw(st.booleans())
    labels = draw(st.lists(st.lists(label, max_size=3) if many else label, min_size=count, max_size=count))
    groups = draw(st.lists(st.one_of(st.none(), some.map(str)), min_size=count, max_size=count))
    contents = draw(st.lists(st.one_of(some, st.integers(100, 10**6)).map(str), min_size=count, max_size=count))
    kinds = {"id": Value("string"), "label": List(Value("string")) if many else Value("string"), "who": Value("string")}
    columns = {"id": ids, "label": labels, "who": groups, CONTENT: contents}
    rows = Dataset.from_dict(columns, features=Features({**kinds, CONTENT: Value("string")}))
    fixed = draw(st.lists(st.booleans(), min_size=count, max_size=count)) if draw(st.booleans()) else [False] * count
    return (rows if draw(st.booleans()) else rows.remove_columns(CONTENT)), fixed


@settings(max_examples=60, deadline=None)
@given(
    small_tables(), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 9), st.booleans(), st.booleans(), st.booleans()
)
def test_the_same_rows_are_chosen_as_row_by_row(
    table: tuple[Dataset, list[bool]], share: float, seed: int, grouped: bool, both: bool, classes: bool
) -> None:
    rows, fixed = table
    shares = {"test": share, "validation": share} if both else {"test": share}
    labels = rows["label"][:] if classes else None
    wanted = cut_row_by_row.cut(rows, shares, seed, "who" if grouped else None, labels, fixed)
    places = {id_: place for place, id_ in enumerate(rows["id"][:])}
    try:
        found = cut_splits(rows, shares, seed, "who" if grouped else None, lambda _: labels, fixed)
    except DataError:  # too few rows for a split
        fewest = min(len(wanted.get(name, ())) for name in shares)
        assert fewest == 0 or sum(map(len, wanted.values())) == len(rows) or fewest < share * len(rows) / 2
        return
    assert {name: [places[id_] for id_ in found[name]["id"]] for name in shares} == wanted
    most = max(1, len(rows) // 2)
    assert [places[id_] for id_ in limit(rows, most, seed, lambda _: labels)["id"]] == cut_row_by_row.limit(
        rows, most, seed, labels
    )
    assert fingerprint(found["train"]) == cut_row_by_row.fingerprint(found["train"])


def test_a_fingerprint_covers_every_type_of_cell() -> None:
    cells = {
        "id": ['a"b', "ü\n\\", "c"],
        "number": [1, -(2**60), None],
        "real": [0.1, float("nan"), 1e300],
        "flag": [True, False, None],
        "some": [["x", None], [], None],
        "nested": [{"b": 1, "a": [{"z": "é"}]}, None, {"b": None, "a": []}],
        "z text": [None, "", "%s"],
    }
    rows = Dataset.from_dict(cells)
    assert fingerprint(rows) == cut_row_by_row.fingerprint(rows)
    assert fingerprint(rows.select([2, 0])) == cut_row_by_row.fingerprint(rows.select([2, 0]))
