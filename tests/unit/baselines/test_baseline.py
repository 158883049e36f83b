"""`graft baseline`: what chooses the settings, what is repeatable, and what the differences are."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.baselines import baseline, explanations, images, learners
from pipelines.baselines.features import FeatureSet
from pipelines.evaluation.compare import compare
from pipelines.utils.progress import Progress
from tests.support import tiny
from tests.support.baseline_runs import FEW, finished
from tests.support.fake_run import keep_statistics


@pytest.fixture(scope="module", autouse=True)
def small_learners() -> Iterator[None]:
    every = images.feature_sets

    def one(task: Any) -> list[FeatureSet]:  # SIFT takes most of the time
        return every(task)[:1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "TREES", 5)
        patch.setattr(images, "feature_sets", one)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, their model, and a run."""
    here = tmp_path_factory.mktemp("baseline")
    tiny.photos(here / "photos", n=FEW)
    tiny.vit(here / "vit")
    finished(here / "run", here / "photos", here / "vit")
    return here


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    """What the learners reach beside this run."""
    return studied(place / "run")


def studied(run: Path) -> dict[str, Any]:
    return baseline.opened(run, Progress(False)).result()


def lasting(found: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from time to time."""
    entries = [{k: v for k, v in one.items() if k not in ("seconds", "memory_mb")} for one in found["learners"]]
    return {**found, "learners": entries, "finished": None}


@pytest.mark.integration
def test_a_second_time_everything_is_equal(place: Path, found: dict[str, Any]) -> None:
    assert lasting(studied(place / "run")) == lasting(found)


def test_what_a_learner_takes(found: dict[str, Any]) -> None:
    """The simplest answer takes nothing; no learner of a few photos takes as much as the libraries alone."""
    simplest, *others = found["learners"]
    assert simplest["seconds"]["fit"] < 0.5
    assert simplest["memory_mb"] < 20
    assert all(one["memory_mb"] < 200 for one in others)
    assert found["network"]["device"] == "CPU"
    assert found["network"]["memory_mb"] > 0


def test_the_test_rows_choose_nothing(place: Path, found: dict[str, Any]) -> None:
    turned = tiny.photos(place / "turned", n=FEW)
    for number in (0, 1, 2):
        cat, dog = (turned / "test" / label / f"{number:03d}.jpg" for label in ("cat", "dog"))
        content = cat.read_bytes(), dog.read_bytes()
        dog.write_bytes(content[0])
        cat.write_bytes(content[1])
    before = found
    after = studied(finished(place / "other", turned, place / "vit"))
    keys = ("name", "settings", "validation")
    chosen = [[[one[key] for key in keys] for one in found["learners"]] for found in (before, after)]
    assert chosen[0] == chosen[1]
    assert [before[key] for key in ("best", "best_learned")] == [after[key] for key in ("best", "best_learned")]
    scores = [[one["metrics"] for one in found["learners"]] for found in (before, after)]
    assert scores[0] != scores[1]


def test_differences_are_those_of_compare(place: Path, found: dict[str, Any]) -> None:
    """The answers of the majority class, written down by hand as a second run, compared by `graft compare`."""
    simplest = found["learners"][0]
    second = finished(place / "second", place / "photos", place / "vit")
    records = [json.loads(line) for line in (second / "predictions" / "test.jsonl").read_text().splitlines()]
    for record in records:  # equally many of both: the first one
        record |= {"predicted": "cat", "confidence": 0.5, "rank": int(record["true"] != "cat")}
    keep_statistics(second, records)
    known = compare([second, place / "run"])["comparisons"][0]["metrics"]["accuracy"]
    assert simplest["metrics"]["accuracy"] == known["first"]
    assert simplest["difference"] == {"value": known["difference"], "ci95": known["ci95"]}


@pytest.mark.integration
def test_groups_are_resampled(place: Path, found: dict[str, Any]) -> None:
    grouped = studied(finished(place / "grouped", place / "photos", place / "vit", group="group"))
    assert grouped["interval"] == {**found["interval"], "unit": "group", "units": 4}
    one, plain = (of["learners"][0]["difference"] for of in (grouped, found))
    assert one["value"] == plain["value"]
    assert one["ci95"] != plain["ci95"]


def test_a_curve_ends_with_the_score_of_all_rows(found: dict[str, Any]) -> None:
    assert {curve["name"] for curve in found["curve"]} == {found["best"], found["best_learned"]}
    scores = {one["name"]: one["metrics"]["accuracy"] for one in found["learners"]}
    for curve in found["curve"]:
        rows = [point["rows"] for point in curve["points"]]
        assert rows == sorted(rows)
        assert rows[-1] == found["rows"]["train"] == 16
        assert curve["points"][-1]["value"] == scores[curve["name"]]


def test_a_grid_ends_where_validation_falls(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = baseline.opened(place / "run", Progress(False))
    scores = iter([0.5, 0.5, 0.7, 0.6, 0.9])
    tried: list[float] = []
    monkeypatch.setattr(study, "_fit", lambda learner, settings, *rest: tried.append(settings["C"]) or settings)
    monkeypatch.setattr(study, "_scores", lambda *_: next(scores))
    learner = dataclasses.replace(learners.LEARNERS["logistic"], grid=tuple({"C": float(c)} for c in range(5)))
    with study.progress.item("a grid", 5) as bar:
        best, rows, value, *_ = study._search(learner, {"train": np.zeros((16, 2)), "validation": None}, bar)
    assert (tried, best, value, len(rows)) == ([0.0, 1.0, 2.0, 3.0], {"C": 2.0}, 0.7, 16)


@pytest.mark.integration
def test_a_learner_that_would_take_too_long_has_fewer_rows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "MOST_WORK", 12 * images.BINS**3)
    found = studied(place / "run")
    linear = found["learners"][1]
    assert linear["settings"]["training_rows"] == 12
    assert "linear SVM: fitted on 12 training rows, all would take too long" in baseline.table(found)
    assert all(point["rows"] <= 12 for curve in found["curve"] for point in curve["points"] if "SVM" in curve["name"])


@pytest.mark.integration
def test_a_map_that_fails_leaves_the_numbers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(explanations, "beside", failing)
    study = baseline.opened(place / "run", Progress(False))
    found = study.result()
    assert study.explain(found) == []
    assert found["skipped"][-1] == {"name": "maps of what decides", "why": "RuntimeError: out of memory"}


def test_the_star_stays_after_a_long_name(found: dict[str, Any]) -> None:
    long = "colours and HOG of frames + nearest neighbours"
    one = {**found["learners"][-1], "name": long}
    lines = baseline.table({**found, "learners": [one], "best": long}).splitlines()
    assert any(line.startswith("colours and HOG") and " * " in line for line in lines)


@pytest.mark.integration
def test_a_photo_that_cannot_be_read_is_left_out_of_train(place: Path) -> None:
    photos = tiny.photos(place / "broken", n=FEW)
    (photos / "train" / "cat" / "003.jpg").write_bytes(b"no photo")
    found = studied(finished(place / "of_broken", photos, place / "vit"))
    assert found["rows"]["train"] == 15
    assert found["skipped"] == []


@pytest.mark.parametrize("labels", [["a"] * 50 + ["b"] * 30 + ["c"] * 3, ["a", "b"], ["a"] * 7, list("abcdefgh")])
def test_beginnings_are_stratified_and_nested(labels: list[str]) -> None:
    order = baseline.nested(labels, seed=3)
    assert sorted(order.tolist()) == list(range(len(labels)))
    sizes = Counter(labels)
    assert {labels[place] for place in order[: len(sizes)]} == set(sizes)
    for count in range(len(sizes), len(labels) + 1):
        have = Counter(labels[place] for place in order[:count])
        assert all(abs(have[label] - count * size / len(labels)) <= len(sizes) for label, size in sizes.items())
    assert not np.array_equal(order, baseline.nested(labels, seed=4)) or len(labels) < 8


def test_rows_with_several_labels_count_for_the_rarest() -> None:
    labels = [["a"], ["a", "b"], ["a"], [], ["a"], ["b", "c"]]
    order = baseline.nested(labels, seed=0)
    assert {str(labels[place]) for place in order[:4]} == {"['a']", "['a', 'b']", "[]", "['b', 'c']"}


def test_rows_that_no_feature_set_names_are_found_by_halves(place: Path) -> None:
    from datasets import Dataset

    from pipelines.errors import DataError

    rows = Dataset.from_dict({"id": [str(number) for number in range(11)]})

    def read(part: Any) -> list[str]:
        if bad := {"2", "9"} & set(part["id"]):
            raise DataError(f"row {min(bad)} is broken")
        return list(part["id"])

    assert baseline.unreadable_rows(read, rows) == {2: "row 2 is broken", 9: "row 9 is broken"}
