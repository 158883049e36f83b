"""Scores must not flatter: intervals, time over stages, rows that were trained on, scores of a smoke run."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pipelines.config.recipe import DataSection, validate
from pipelines.data.grouping import group_column
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, RecipeError, RunError
from pipelines.evaluation import row_statistics, scoring
from pipelines.evaluation.compare import compare
from pipelines.evaluation.evaluate import evaluate, evaluate_recipe
from pipelines.metrics import classification
from pipelines.metrics.statistics import Statistics
from pipelines.reporting.results import environment
from pipelines.training.run import train
from pipelines.utils.formatting import resampled
from tests.support import tiny, tiny_text
from tests.support.runs import results, settings, without_pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(tmp_path_factory.mktemp("photos"), n=16, splits=())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.vit(tmp_path_factory.mktemp("model"))


class Answers:
    """The parts of a task that scores need."""

    data = DataSpec(("image", "label"))

    def statistics(self, records: Any, rows: Any) -> Statistics:
        return classification.statistics(records, ["cat", "dog"])

    def summarize(self, statistics: Statistics, weights: Any) -> dict[str, float]:
        return classification.summarize(statistics, weights)


def answers(*predicted: str) -> list[dict[str, Any]]:
    """The true label is always `cat`."""
    return [
        {"id": f"{n:03}", "true": "cat", "predicted": guess, "confidence": 0.9, "rank": int(guess != "cat")}
        for n, guess in enumerate(predicted)
    ]


def scored(records: list[dict[str, Any]], rows: Any = None, group: str | None = None) -> dict[str, Any]:
    task: Any = Answers()
    return scoring.score_split(task, records, rows, "test", group=group, tables=False)


def test_rows_that_are_all_right_or_all_wrong_have_the_exact_interval() -> None:
    for guess, bounds in (("cat", [0.832, 1]), ("dog", [0, 0.168])):
        found = scored(answers(*[guess] * 20))
        assert found["ci95"]["accuracy"] == pytest.approx(bounds, abs=5e-4)
        assert found["interval"] == {"unit": "rows", "resamples": 1000, "exact": ["accuracy"]}
        assert (found["n"], found["groups"]) == (20, None)
        # the score is no proportion of rows, and all resamples are equal
        assert "balanced_accuracy" not in found["ci95"]
    low, high = scored(answers(*["cat"] * 6, "dog"))["ci95"]["accuracy"]
    assert low < 6 / 7 < high


def test_groups_are_resampled_whole() -> None:
    """Five speakers, one of whom is never understood. A row without a speaker is a group of its own."""
    records = answers(*["cat"] * 16, *["dog"] * 4)
    speakers = [str(n // 4) for n in range(20)]
    rows = Dataset.from_dict({"id": [r["id"] for r in records], "speaker": speakers})
    alone, grouped = scored(records), scored(records, rows, "speaker")
    assert (grouped["groups"], grouped["interval"]["unit"], grouped["interval"]["resamples"]) == (5, "speaker", 1000)
    assert alone["metrics"] == grouped["metrics"]
    width = {
        name: found["ci95"]["accuracy"][1] - found["ci95"]["accuracy"][0]
        for name, found in (("a", alone), ("g", grouped))
    }
    assert width["g"] > 1.5 * width["a"]
    unknown = Dataset.from_dict({"id": [r["id"] for r in records], "speaker": [*speakers[:18], None, " "]})
    assert scored(records, unknown, "speaker")["groups"] == 7
    all_right = scored(answers(*["cat"] * 20), rows, "speaker")
    assert all_right["ci95"]["accuracy"] == pytest.approx([0.025 ** (1 / 5), 1])
    assert resampled(all_right) == (
        "The intervals are from 1,000 resamples of the 5 groups of rows (rows of the same speaker belong together). "
        "Accuracy: all right or all wrong, so the interval is the exact binomial one of 5 groups of rows."
    )


def test_one_row_and_one_group_have_no_interval() -> None:
    one = scored(answers("cat"))
    rows = Dataset.from_dict({"id": [f"{n:03}" for n in range(9)], "speaker": ["a"] * 9})
    group = scored(answers(*["cat", "dog", "cat"] * 3), rows, "speaker")
    for found in (one, group):
        assert found["ci95"] == {}
        assert found["interval"]["resamples"] == 0
    assert resampled(one) == "There are no intervals: one row cannot be resampled."
    assert resampled(group) == "There are no intervals: one group of rows (speaker) cannot be resampled."
    with pytest.raises(DataError, match="there are no predictions to score"):
        scored([])


@pytest.mark.parametrize(
    ("asked", "usual", "columns", "found"),
    [
        (None, "speaker", ["id", "speaker"], "speaker"),
        (None, "speaker", ["id"], None),
        (None, "none", ["id", "speaker"], None),
        ("none", "speaker", ["id", "speaker"], None),
        ("patient", "speaker", ["id", "speaker", "patient"], "patient"),
        ("patient", "speaker", ["id", "speaker"], None),
        ("audio", "speaker", ["id", "audio", "file"], "file"),
        (None, None, ["id", "file"], "file"),
    ],
)
def test_the_column_of_groups(asked: str | None, usual: str | None, columns: list[str], found: str | None) -> None:
    assert group_column(asked, usual, columns) == found


def test_an_older_run_is_scored_again_without_training(photos: Path, model: Path, tmp_path: Path) -> None:
    """The error of `graft compare` gives this advice for runs that kept no statistics."""
    recipe, run = validate(settings(model, photos)), tmp_path / "run"
    with without_pictures():
        train(recipe, run)
        before, kept = results(run), run / "predictions" / row_statistics.FILE
        statistics = kept.read_bytes()
        kept.unlink()
        (run / "model" / "results.json").unlink()
        train(recipe, run)
    assert kept.read_bytes() == statistics
    assert results(run) == before


def test_time_and_examples_are_those_of_all_stages(photos: Path, model: Path, tmp_path: Path) -> None:
    changes = {"train__head_epochs": 2, "train__max_steps": 3, "train__batch_size": 8, "data__cache_gb": 0}
    with without_pictures():
        train(validate(settings(model, photos, **changes)), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["train"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    head = [line["seconds"] for line in lines if "seconds" in line and line["stage"] == "head"]
    assert found["steps"] == lines[-1]["step"]
    assert found["seconds"] > head[-1] > 0
    assert [line["seconds"] for line in lines if "seconds" in line] == sorted(
        line["seconds"] for line in lines if "seconds" in line
    )


def test_rows_that_may_have_been_trained_on_are_not_scored_as_test(model: Path, tmp_path: Path) -> None:
    photos = tiny.photos(tmp_path / "photos", n=16, splits=())
    with without_pictures():
        train(validate(settings(model, photos)), tmp_path / "run")
    assert evaluate(tmp_path / "run")["metrics"] == pytest.approx(
        results(tmp_path / "run")["test"]["metrics"], abs=1e-6
    )
    tiny.photos(photos, n=30, splits=(), size=24)
    with pytest.raises(DataError, match=r"the data changed since the run, so its test rows may now be others.*--data"):
        evaluate(tmp_path / "run")
    assert evaluate(tmp_path / "run", data=str(photos))["n"] == 60


def test_a_smoke_run_is_not_gone_on_with(photos: Path, model: Path, tmp_path: Path) -> None:
    short, real = (validate(settings(model, photos, train__max_steps=n)) for n in (2, 4))
    splits = load_splits(DataSection(id=str(photos)), DataSpec(("image", "label")))
    assert splits.smoke().fingerprint != splits.fingerprint
    with without_pictures():
        train(short, tmp_path / "run", smoke=True)
        with pytest.raises(RunError, match="the data changed since the run began"):
            train(real, tmp_path / "run")


def test_random_weights_are_not_evaluated(photos: Path, model: Path) -> None:
    with pytest.raises(RecipeError, match="random weights: there is nothing to evaluate"):
        evaluate_recipe(validate(settings(model, photos, model__weights="random")))


def test_the_hardware_is_what_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H100")
    assert environment(1, "bf16", "cuda")["hardware"] == "1 x NVIDIA H100"
    assert environment(16, "bf16", "cuda")["hardware"] == "16 x NVIDIA H100"
    assert environment(1, "fp32", "cpu")["hardware"].startswith("CPU, ")
    assert environment(1, "fp32", "mps")["hardware"].startswith("Apple GPU")


def test_a_run_with_groups_and_its_evaluation(tmp_path: Path) -> None:
    """Rows of an author share a split and are resampled together, in the run, `graft evaluate` and `graft compare`."""
    rows = [
        {**row, "author": f"author {number % 20}"} for number, row in enumerate(tiny_text.labelled_rows("class", 100))
    ]
    table = tmp_path / "texts.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {
        "task": "text-classification",
        "model": {"id": str(tiny_text.bert(tmp_path / "bert", "BertForSequenceClassification"))},
        "data": {"id": str(table), "workers": 0, "group": "author", "holdout": 0.2},
        "options": {"max_length": 40},
        "train": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
    }
    run = tmp_path / "run"
    assert train(validate(raw), run)
    test = results(run)["test"]
    assert (test["n"], test["groups"], test["interval"]["unit"]) == (20, 4, "author")
    found = evaluate(run)
    assert {key: found[key] for key in ("ci95", "groups", "interval")} == {
        key: test[key] for key in ("ci95", "groups", "interval")
    }
    other = evaluate(run, data=str(table))
    assert (other["n"], other["groups"], other["interval"]["unit"]) == (
        20,
        4,
        "author",
    )  # the same folder: its own test rows
    compared = compare([run, run])
    assert (compared["groups"], compared["interval"]) == (4, {"unit": "author", "resamples": 1000})
    kept = row_statistics.read(run / "predictions" / row_statistics.FILE)
    assert sorted(set(kept.units.tolist())) == [0, 1, 2, 3]
