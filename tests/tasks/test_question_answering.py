"""Question answering: the contract, windows, padding, spans, questions without an answer, the official scores."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.recipe import DataSection, ModelSection, Recipe, validate
from pipelines.data.batching import Examples
from pipelines.data.loading import load_splits
from pipelines.errors import DataError
from pipelines.evaluation import scoring
from pipelines.metrics.question_answering import judge
from pipelines.models.source import resolve
from pipelines.tasks.question_answering import Options, QuestionAnswering
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.hub import HubServer
from tests.tasks.contract import Served, TaskContract, close, gradio_page, hub  # noqa: F401 (fixtures)


class TestContract(TaskContract):
    def recipe(self, folder: Path) -> dict[str, Any]:
        return {
            "task": "question-answering",
            "model": {"id": str(tiny_text.bert(folder / "bert"))},
            "data": {"id": str(tiny_text.squad(folder / "squad", n=12)), "workers": 0, "max_eval_rows": 12},
            "options": {"max_length": 48, "stride": 8, "max_question_length": 12},
            "train": {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32"},
            "hub": {"examples": 2},
        }

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        def record(row: Any) -> dict[str, Any]:
            true = row["answer"]["text"]
            return {"id": row["id"], "question": row["question"], "true": true, "predicted": true[0], "confidence": 1.0}

        return [record(row) for row in rows]

    def question(self, run: Path) -> tuple[Any, ...]:
        example = json.loads((run / "model" / "examples" / "examples.json").read_text())[0]
        return example["question"], example["context"]

    def same(self, printed: str, answer: Any) -> bool:
        return printed.strip() == answer["answer"]


def served(recipe: Recipe, hub: HubServer, folder: Path) -> Served:
    assert recipe.model.id is not None
    hub.add_model(recipe.model.id, tiny_text.bert(folder / "model"))
    files = tiny_text.squad(folder / "squad", version=recipe.options.version)  # type: ignore[attr-defined]
    small = ("options.max_length=64", "options.stride=16", "options.max_question_length=16")
    if recipe.data.format == "squad":
        return Served(str(files), changes=small)
    hub.add_dataset(recipe.data.id, tiny_text.squad_repo(folder / "data", files))
    return Served(changes=small)


# ---- windows and spans ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.bert(tmp_path_factory.mktemp("bert"))


def made(model: Path, data: Path, **options: Any) -> tuple[QuestionAnswering, Any, Any]:
    """A task, its model and its data."""
    task = QuestionAnswering(Options(**{"max_length": 40, "stride": 8, "max_question_length": 12, **options}))
    splits = load_splits(DataSection(id=str(data)), task.data)
    torch.manual_seed(0)
    return task, task.build(resolve(ModelSection(id=str(model))), splits).eval(), splits


def test_the_windows_of_a_passage_cover_it_and_hold_its_answer(model: Path, tmp_path: Path) -> None:
    task, _, splits = made(model, tiny_text.squad(tmp_path / "squad"))
    examples = task.encode(splits.train)
    assert len(examples) > len(splits.train), "one window a passage: nothing is shown"
    by_row: dict[int, list[dict]] = {}
    for example in examples:
        assert example["length"] == len(example["input_ids"]) <= 40
        by_row.setdefault(example["row"], []).append(example)
    for number, windows in by_row.items():
        row = splits.train[number]
        seen = {place for window in windows for start, end in window["offsets"] for place in range(start, end)}
        assert all(c.isspace() for i, c in enumerate(row["context"]) if i not in seen)
        found = [w for w in windows if w["end"]]
        assert found
        for window in found:
            first, last = (window["offsets"][window[key] - window["first"]] for key in ("start", "end"))
            assert row["context"][first[0] : last[1]] == row["answer"]["text"][0]


def test_padding_and_micro_batches_change_nothing(model: Path, tmp_path: Path) -> None:
    """A question alone, in pairs, with all others, with a longer one: the same loss and the same spans."""
    task, net, splits = made(model, tiny_text.squad(tmp_path / "squad"), max_length=100)
    examples = Examples(task, task.encode(splits.train))
    lengths = examples.lengths
    keys = [(None, int(i)) for i in np.argsort(lengths)[[0, 1, 2, -3, -2, -1]]]
    all_at_once = examples[keys].batch
    assert lengths.min() < lengths.max()
    counts = task.counts(all_at_once)
    with torch.no_grad():
        loss = float(task.loss(net, all_at_once, counts, "main", 0))
        for size in (1, 2, 3):
            parts = [examples[keys[i : i + size]].batch for i in range(0, 6, size)]
            assert sum(float(task.loss(net, part, counts, "main", 0)) for part in parts) == pytest.approx(
                loss, rel=1e-5
            )
        together = task.merge(task.predict(net, all_at_once), splits.train)
        alone = task.merge([r for key in keys for r in task.predict(net, examples[[key]].batch)], splits.train)
    assert all(close(a, b, 1e-4) for a, b in zip(together, alone, strict=True))


def test_a_question_without_an_answer(model: Path, tmp_path: Path) -> None:
    """SQuAD 2.0: the threshold is the best one on the rows that it is chosen by, and the saved model holds it."""
    task, net, splits = made(model, tiny_text.squad(tmp_path / "squad", version="2.0"), version="2.0")
    examples = Examples(task, task.encode(splits.validation))
    assert any(not row["answer"]["text"] for row in splits.validation)
    with torch.no_grad():
        raw = task.predict(net, examples[[(None, i) for i in range(len(examples))]].batch)
    chosen = task.calibrate(task.merge(raw, splits.validation), splits.validation)
    best = scoring.scores(task, task.merge(raw, splits.validation), None)["f1"]
    for other in sorted({r["margin"] for r in task.merge(raw, splits.validation)}):
        task.threshold = other
        assert scoring.scores(task, task.merge(raw, splits.validation), None)["f1"] <= best + 1e-9
    net.config.update(chosen)
    task.save(net, tmp_path / "saved")
    again = QuestionAnswering()
    again.load(tmp_path / "saved")
    assert (again.threshold, again.options.version) == (chosen["no_answer_threshold"], "2.0")


def test_an_answer_of_several_windows_is_found_in_one_pass(model: Path, tmp_path: Path) -> None:
    task, net, splits = made(model, tiny_text.squad(tmp_path / "squad"))
    row = splits.train[0]
    found = list(task.infer(net, row["question"], row["context"] * 3))[-1]
    assert (row["context"] * 3)[found["start"] : found["end"]] == found["answer"]
    assert found["nbest"][0]["score"] >= found["nbest"][-1]["score"]
    with pytest.raises(DataError, match="question is empty"):
        list(task.infer(net, " ", row["context"]))


# ---- the official scores ----


def test_scores_are_those_of_an_independent_implementation() -> None:
    """Scores equal torchmetrics' SQuAD on every row of a difficult set.

    It holds articles, punctuation, several answers, and predictions without a common word.
    """
    from torchmetrics.functional.text import squad

    texts = [
        "the Broncos",
        "Denver Broncos.",
        "a  denver",
        "broncos broncos",
        "Édouard's",
        "49ers",
        "-",
        "the",
        "U.S.",
        "24 to 10",
        "twenty-four",
    ]
    rng = random.Random(0)
    for _ in range(400):
        predicted, true = rng.choice(texts), rng.sample(texts, rng.randrange(1, 4))
        found = judge(predicted, true)
        target = {"answers": {"text": true, "answer_start": [0] * len(true)}, "id": "1"}
        theirs = squad([{"prediction_text": predicted, "id": "1"}], [target])
        assert 100 * found["exact_match"] == pytest.approx(float(theirs["exact_match"]), abs=1e-4), (predicted, true)
        assert 100 * found["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-4), (predicted, true)


def test_a_frozen_trunk_trains_though_its_features_are_ragged(model: Path, tmp_path: Path) -> None:
    raw = {
        "task": "question-answering",
        "model": {"id": str(model), "freeze": "backbone"},
        "data": {"id": str(tiny_text.squad(tmp_path / "squad", n=4)), "workers": 0},
        "options": {"max_length": 48, "stride": 8, "max_question_length": 12},
        "train": {"max_steps": 2, "batch_size": 8, "precision": "fp32"},
    }
    results = train(validate({**raw, "train": {**raw["train"], "max_steps": None, "epochs": 2}}), tmp_path / "run")  # type: ignore[dict-item]
    assert results
    assert results["train"]["epochs"] == 2, "epochs count examples, of which a row makes several"


def test_a_version_may_be_a_number() -> None:
    """A shell takes the quotes of "2.0" away."""
    assert Options(version=2.0).version == "2.0"
    with pytest.raises(ValueError, match=r"1\.1"):
        Options(version=2.1)


def test_two_versions_in_one_folder(tmp_path: Path) -> None:
    """A complete download of SQuAD has the dev files of both versions.

    The dev file of train's version is the test split. The other one is not used, and a message names it.
    """
    folder = tiny_text.squad(tmp_path, n=4)
    tiny_text.squad(tmp_path, n=2, version="2.0", splits=("dev",))
    splits = load_splits(DataSection(id=str(folder)), QuestionAnswering(Options()).data)
    assert len(splits.test) == 4 * 9
    assert splits.ignored == {"rows of the split 'dev-v2.0'": 14}  # questions without an answer are skipped first
    other = load_splits(DataSection(id=str(folder), test="dev-v2.0"), QuestionAnswering(Options(version="2.0")).data)
    assert any(not row["answer"]["text"] for row in other.test)
