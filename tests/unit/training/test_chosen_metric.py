"""`train.metric` chooses the best checkpoint, and is the headline of everything that a run writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.recipe import dump_recipe, task_class, validate
from pipelines.errors import RecipeError
from pipelines.evaluation.evaluate import evaluate
from pipelines.task import headline
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.runs import one_thread, without_pictures  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(tmp_path: Path, metric: str | None, **options: Any) -> Any:
    model = tiny_text.bert(tmp_path / "bert", "BertForSequenceClassification", initializer_range=0.2)
    chosen = {} if metric is None else {"metric": metric}
    return validate(
        {
            "task": "text-classification",
            "model": {"id": str(model)},
            "data": {"id": str(tiny_text.labelled(tmp_path / "data", "class", n=12)), "workers": 0},
            "options": {"max_length": 40, **options},
            "train": {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "eval_every": 1}
            | chosen,
        }
    )


def test_it_chooses_the_checkpoint_and_leads_every_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with without_pictures():
        results = train(recipe(tmp_path, "ece"), run)
    assert results is not None
    assert results["metric"] == {"name": "ece", "direction": "min"}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["validation"] for line in lines if "validation" in line}
    assert all(next(iter(values)) == "ece" for values in scores.values()), "it comes first in lines and charts"
    lowest = min(values["ece"] for values in scores.values())
    assert results["train"]["best_step"] == max(step for step, values in scores.items() if values["ece"] == lowest)
    accuracies = [values["accuracy"] for values in scores.values()]
    assert scores[results["train"]["best_step"]]["accuracy"] < max(accuracies), "the accuracy would choose another"
    assert evaluate(run)["metric"] == "ece"
    assert "ece" in (run / "report.html").read_text()
    assert "  metric: ece\n" in (run / "recipe.yaml").read_text()


def test_a_score_that_the_task_does_not_give(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"train.metric: text-classification gives no score 'acuracy': did you mean 'accuracy'\? "
        r"\(with these options: accuracy, balanced_accuracy, f1_macro, top_5_accuracy, ece, mcc\)",
    ):
        recipe(tmp_path, "acuracy")
    with pytest.raises(RecipeError, match=r"no score 'map' \(with these options: pearson, spearman, mse\)"):
        recipe(tmp_path, "map", regression=True)


def test_a_score_that_these_rows_do_not_have(tmp_path: Path) -> None:
    with without_pictures(), pytest.raises(RecipeError, match="these validation rows have no top_5_accuracy"):
        train(recipe(tmp_path, "top_5_accuracy"), tmp_path / "run")


def test_left_out_it_is_the_first_one_and_is_not_written(tmp_path: Path) -> None:
    made = recipe(tmp_path, None)
    assert "metric:" not in dump_recipe(made)
    task = task_class("text-classification")(made.options)
    assert headline(task, made.train.metric) == ("accuracy", "max")
    assert headline(task, "map") == ("accuracy", "max")  # a score under other options
