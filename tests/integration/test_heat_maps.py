"""`graft report RUN --heat-maps` on a finished run of every classifier."""

import importlib
import json
from pathlib import Path

import pytest

from pipelines.config.recipe import validate
from pipelines.errors import DataError, ModelError
from pipelines.evaluation.explanation import explain
from pipelines.models.attribution import METHODS
from pipelines.reporting import mistakes
from pipelines.training.run import train
from tests.support.runs import one_thread  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSIFIERS = ("image-classification", "text-classification", "audio-classification", "video-classification")


def finished(task: str, folder: Path) -> Path:
    contract = importlib.import_module(f"tests.tasks.test_{task.replace('-', '_')}").TestContract
    recipe = contract().recipe(folder / "made")
    recipe["train"] |= {"epochs": 1, "learning_rate": 1e-7}  # it learns nothing, so it has mistakes
    train(validate(recipe), folder / "run", name="tiny")
    return folder / "run"


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_a_finished_run_gets_maps_and_the_test_of_them(task: str, tmp_path: Path) -> None:
    run = finished(task, tmp_path)
    before = json.loads((run / "results.json").read_text())
    found = explain(run)
    after = json.loads((run / "results.json").read_text())
    assert after == {**before, "explanation": json.loads(json.dumps(found))}
    assert set(found) == set(METHODS)
    for one in found.values():
        assert one["rank_correlation"] is None or -1 <= one["rank_correlation"] <= 1
        assert 0 < one["rows"] <= 8
    assert "Do the heat maps depend on what the model learned?" in (run / "report.html").read_text()
    assert "Heat maps were tested with random weights" in (run / "model" / "README.md").read_text()
    shown = mistakes.read(run / "mistakes")
    assert shown is not None
    if task == "text-classification":
        assert any(name.endswith("by integrated gradients") for name in shown.shown[0].texts)
    else:
        assert all(set(one.maps) == set(METHODS) for one in shown.shown[:8])
        assert all(one.maps == {} for one in shown.shown[8:])


def test_what_cannot_be_explained_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no run folder"):
        explain(tmp_path / "nothing")
    with pytest.raises(ModelError, match="heat maps are of classifiers"):
        explain(finished("fill-mask", tmp_path / "words"))
    run = finished("image-classification", tmp_path / "photos")
    next((tmp_path / "photos" / "made").rglob("test/*/*.jpg")).unlink()
    with pytest.raises(DataError, match="changed since the run"):
        explain(run)
    assert "explanation" not in json.loads((run / "results.json").read_text())
