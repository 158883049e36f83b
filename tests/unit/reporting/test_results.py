"""results.json: scores without a value (null in every file, as JSON has no NaN), older schemas, kinds of intervals."""

import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.publishing.card import write_card
from pipelines.reporting.report import read_log, write_report
from pipelines.reporting.results import read_results, undefined
from pipelines.tasks.image_classification import ImageClassification
from pipelines.utils.files import read_json, to_json, write_json, write_records
from tests.support.command import graft
from tests.support.fake_run import change, fake_run
from tests.support.invalid_inputs import World, a_right_world, a_world  # noqa: F401 (fixtures)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_writer_knows_no_nan(tmp_path: Path) -> None:
    value = {"a": [1.5, float("nan"), {"b": float("inf")}], "c": (float("-inf"), 2), "d": "NaN", "e": None}
    wanted = {"a": [1.5, None, {"b": None}], "c": [None, 2], "d": "NaN", "e": None}
    assert strict(to_json(value)) == wanted
    write_json(tmp_path / "one.json", value)
    write_records(tmp_path / "lines.jsonl", [value, value])
    assert strict((tmp_path / "one.json").read_text()) == wanted
    assert [strict(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()] == [wanted, wanted]


def test_what_an_older_run_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"a": NaN, "b": -Infinity}')
    (tmp_path / "log.jsonl").write_text('{"step": 1, "validation": {"f1": NaN}}\n')
    assert read_json(tmp_path / "results.json") == {"a": None, "b": None}
    assert read_log(tmp_path) == [{"step": 1, "validation": {"f1": None}}]


def test_it_is_said_which_and_where() -> None:
    assert undefined("test", 3, {"f1": 0.5, "map": float("nan"), "perplexity": math.inf, "wer": None}) == [
        "map, perplexity, wer: undefined on the 3 rows of test (null in JSON): "
        "they are too few, or do not hold what it compares"
    ]
    assert undefined("test", 3, {"f1": 0.5}) == []


@pytest.mark.parametrize("names", [("accuracy",), ("f1_macro", "ece")], ids=" ".join)
def test_a_run_with_an_undefined_score(world: World, names: tuple[str, ...]) -> None:
    """The leading metric or another one, in every file that the run writes and every verb that shows a score."""
    real = ImageClassification.summarize

    def summarize(task: Any, statistics: Any, weights: Any) -> dict[str, float]:
        return real(task, statistics, weights) | dict.fromkeys(names, float("nan"))

    run = world.tmp / "run"
    with mock.patch.object(ImageClassification, "summarize", summarize):
        done = world.graft("train", "train.eval_every=1", "train.save_every=1", "train.early_stopping=1")
        scored = graft("evaluate", run, "--json")
        evaluated = graft("evaluate", run)
    assert done.code == scored.code == evaluated.code == 0, done.err + scored.err + evaluated.err
    for split in ("test", "validation"):
        assert f"{', '.join(names)}: undefined on the 8 rows of {split} (null in JSON)" in done.err
    assert ("accuracy on 8 test rows: undefined (undefined before)" in done.out) == ("accuracy" in names)
    documents = [path for path in run.rglob("*.json") if ".cache" not in path.parts]
    assert {"results.json", "state.json"} <= {path.name for path in documents}
    for path in documents:
        strict(path.read_text())
    for path in run.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            strict(line)
    found = strict((run / "results.json").read_text())
    assert all(found[split]["metrics"][name] is None for split in ("test", "validation", "baseline") for name in names)
    assert strict((run / "model" / "results.json").read_text()) == found
    assert strict(scored.out)["metrics"][names[0]] is None
    assert f"  {names[0]:20} undefined" in evaluated.out
    card = (run / "model" / "README.md").read_text()
    assert "is undefined on the 8 test rows" in card
    assert "nan" not in card.lower().replace("nano", "")
    assert "A dash: the metric is undefined on these rows" in (run / "report.html").read_text()
    assert found["train"]["best_step"] == 2  # among equal scores, or if none exists, the later one


def test_the_app_shows_it(tmp_path: Path) -> None:
    from apps.parts import numbers_shown

    run = fake_run(tmp_path / "run", pictures=False)
    change(run, "test", metrics={"accuracy": None, "f1_macro": 0.5}, ci95={})
    assert numbers_shown(read_json(run / "results.json"))[0] == "Accuracy <b>undefined</b>"


def test_card_and_report_of_a_run_whose_leading_score_is_null(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", pictures=False)
    for section in ("test", "baseline", "validation"):
        known = read_json(run / "results.json")[section]
        change(run, section, metrics=known["metrics"] | {"accuracy": None}, ci95={})
    assert "Accuracy is undefined on the 150 test rows" in write_card(run, "me/pets").read_text()
    assert "A dash: the metric is undefined" in write_report(run).read_text()


def test_files_of_schema_1_are_read(tmp_path: Path) -> None:
    """They do not say how intervals were computed, and the oldest call the baseline `before`."""
    run = fake_run(tmp_path / "run", pictures=False)
    found = json.loads((run / "results.json").read_text())
    for name in ("test", "validation", "baseline"):
        del found[name]["groups"], found[name]["interval"]
    found = {("before" if name == "baseline" else name): value for name, value in found.items()} | {"schema": 1}
    (run / "results.json").write_text(json.dumps(found))
    read = read_results(run)
    for name in ("test", "validation", "baseline"):
        assert read[name]["groups"] is None
        assert read[name]["interval"] == {"unit": "rows", "resamples": None, "exact": []}
    assert read["test"]["ci95"] == found["test"]["ci95"]
    assert "The interval is a bootstrap over the test rows." in write_report(run).read_text()
    assert "The interval is a bootstrap over the test rows." in write_card(run).read_text()


def test_report_and_card_name_the_groups(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", pictures=False)
    change(run, "test", groups=12, interval={"unit": "patient", "resamples": 1000, "exact": ["accuracy"]})
    sentence = (
        "The intervals are from 1,000 resamples of the 12 groups of rows (rows of the same patient belong together)."
    )
    for text in (write_report(run).read_text(), write_card(run).read_text()):
        assert sentence in text
        assert (
            "Accuracy: all right or all wrong, so the interval is the exact binomial one of 12 groups of rows." in text
        )
    change(run, "test", groups=1, ci95={}, interval={"unit": "patient", "resamples": 0, "exact": []})
    assert "There are no intervals: one group of rows (patient) cannot be resampled." in write_report(run).read_text()
    assert "- There is no interval: all 150 test rows belong to one group." in write_card(run).read_text()
