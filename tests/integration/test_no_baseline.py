"""`train.baseline: false`: the score before training is left out, and every page of the run bears it."""

import json
from pathlib import Path

import pytest

from pipelines.training.trainer import Trainer
from tests.support import tiny
from tests.support.command import graft
from tests.support.runs import one_thread  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = """task: image-classification
model: {{id: {model}}}
data: {{id: {data}, workers: 0}}
train: {{max_steps: 3, batch_size: 8, learning_rate: 1.0e-3, precision: fp32, log_every: 1, baseline: false}}
"""


def test_a_run_without_the_score_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny.photos(tmp_path / "data", ("cat", "dog"), n={"train": 8, "validation": 5, "test": 5}, size=32)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.format(model=tiny.vit(tmp_path / "model"), data=data))
    titles: list[str] = []
    real = Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda *given: (titles.append(given[4]), real(*given))[1])
    done = graft("train", recipe, "--run", "one")
    assert done.code == 0, done.err
    assert titles == ["validation", "validation", "validation", "test"]  # "before" is not among them
    run = tmp_path / "one"
    assert json.loads((run / "results.json").read_text())["baseline"] is None
    assert " before)" not in done.out
    assert "baseline: false" in (run / "recipe.yaml").read_text()
    report, card = (run / "report.html").read_text(), (run / "model" / "README.md").read_text()
    assert "not scored before training" in report
    assert "before training |" not in card.lower()
    assert "; before" not in card
    again = graft("train", recipe, "--run", "one")  # finished: nothing is trained again
    assert again.code == 0, again.err
    assert len(titles) == 4
    listed = graft("runs", tmp_path)
    assert listed.code == 0, listed.err
    other = graft("train", recipe, "train.baseline=true", "train.seed=1", "--run", "two")
    assert other.code == 0, other.err
    assert "before" in titles
    assert "baseline" not in (tmp_path / "two" / "recipe.yaml").read_text()  # Spaces of version 0.1 read it
    compared = graft("compare", run, tmp_path / "two")
    assert compared.code == 0, compared.err
