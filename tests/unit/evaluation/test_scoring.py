"""Numbers that must not flatter: intervals, time over stages, rows that were trained on, a smoke run's scores."""

import json
from pathlib import Path

import pytest

from pipelines.config.recipe import DataSection, validate
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, RecipeError, RunError
from pipelines.evaluation import scoring
from pipelines.evaluation.evaluate import evaluate, evaluate_recipe
from pipelines.reporting.results import environment
from pipelines.tasks.image_classification import ImageClassification
from pipelines.training.run import train
from tests.support import tiny
from tests.support.runs import results, settings, without_pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photos(tmp_path_factory.mktemp("photos"), n=16, splits=())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.vit(tmp_path_factory.mktemp("model"))


def test_a_score_that_does_not_vary_has_no_interval() -> None:
    task = ImageClassification()
    task.labels = ["cat", "dog"]

    def record(number: int, predicted: str) -> dict:
        return {"id": str(number), "true": "cat", "predicted": predicted, "confidence": 0.9, "rank": int(predicted != "cat")}

    alike = [record(i, "cat") for i in range(6)]
    assert "accuracy" not in scoring.bootstrap(task, alike, None)
    low, high = scoring.bootstrap(task, [*alike, record(6, "dog")], None)["accuracy"]
    assert low < 6 / 7 < high


def test_time_and_examples_are_those_of_all_stages(photos: Path, model: Path, tmp_path: Path) -> None:
    changes = {"train__head_epochs": 2, "train__max_steps": 3, "train__batch_size": 8, "data__cache_gb": 0}
    with without_pictures():
        train(validate(settings(model, photos, **changes)), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["train"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    head = [line["seconds"] for line in lines if "seconds" in line and line["stage"] == "head"]
    assert found["steps"] == lines[-1]["step"]
    assert found["seconds"] > head[-1] > 0
    assert [line["seconds"] for line in lines if "seconds" in line] == sorted(line["seconds"] for line in lines if "seconds" in line)


def test_rows_that_may_have_been_trained_on_are_not_scored_as_test(model: Path, tmp_path: Path) -> None:
    photos = tiny.photos(tmp_path / "photos", n=16, splits=())
    with without_pictures():
        train(validate(settings(model, photos)), tmp_path / "run")
    assert evaluate(tmp_path / "run")["metrics"] == pytest.approx(results(tmp_path / "run")["test"]["metrics"], abs=1e-6)
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
