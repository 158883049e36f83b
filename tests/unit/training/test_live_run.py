"""What a run leaves of its live page: while it goes on, after a signal, after a failure, and at its end."""

import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.config.recipe import validate
from pipelines.errors import RunError
from pipelines.reporting.live import FILE, LiveReport
from pipelines.tasks.text_classification import TextClassification
from pipelines.training.run import train
from tests.support import tiny_text
from tests.support.runs import one_thread, without_pictures  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("texts")
    model = tiny_text.bert(folder / "bert", "BertForSequenceClassification", initializer_range=0.2)
    return {
        "task": "text-classification",
        "model": {"id": str(model)},
        "data": {"id": str(tiny_text.labelled(folder / "data", "class")), "workers": 0},
        "options": {"max_length": 40},
        "train": {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "log_every": 1},
    }


def started(raw: dict[str, Any], run: Path, action: Any) -> list[str]:
    """Train, and call `action` before the loss of the third step. Returns the states that were written."""
    real, seen, states = TextClassification.loss, 0, []

    def loss(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        found = real(*arguments)
        return action(found) if seen == 3 else found

    def write(report: LiveReport) -> None:
        states.append(report.status["state"])
        real_write(report)

    real_write = LiveReport.write
    with (
        mock.patch.object(TextClassification, "loss", loss),
        mock.patch.object(LiveReport, "write", write),
        without_pictures(),
    ):
        train(validate(raw), run)
    return states


def interrupted(loss: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    return loss


def test_a_run_that_ends(raw: dict[str, Any], tmp_path: Path) -> None:
    states = started(raw, tmp_path / "run", lambda loss: loss)
    assert [state for state, before in zip(states, [None, *states], strict=False) if state != before] == [
        "baseline",
        "training",
        "scoring",
    ]
    assert not (tmp_path / "run" / FILE).exists()
    assert "Scoring the best checkpoint" in (tmp_path / "run" / "report.html").read_text()  # the report is patched out


def test_a_signal(raw: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert started(raw, run, interrupted)[-1] == "stopped"
    assert "<b>Stopped at step 4.</b>" in (run / "report.html").read_text()
    status = json.loads((run / FILE).read_text())
    assert (status["step"], status["steps"], status["metric"]) == (4, 6, "accuracy")
    assert status["baseline"] is not None


def test_a_failure_says_why(raw: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match="step 3: the loss"):
        started(raw, run, lambda loss: loss * float("nan"))
    page = (run / "report.html").read_text()
    assert "This run failed at step 2." in page
    assert "step 3: the loss is nan" in page


def test_a_report_that_cannot_be_written_changes_no_loss(raw: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for name in ("with", "without"):
        run = tmp_path / name
        run.mkdir()
        if name == "without":
            (run / "checkpoints").mkdir()
            (run / "report.html").mkdir()
        started(raw, run, lambda loss: loss)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        found.append([line["loss"] for line in lines if "loss" in line])
    assert len(found[0]) == 6
    assert found[0] == found[1]
