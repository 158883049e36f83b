"""report.html of a run that goes on or stopped: what it says, when it is written, and that it never stops a run."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import ModelError
from pipelines.reporting import live
from pipelines.reporting.live import FILE, LivePage, LiveReport
from tests.support.fake_run import fake_run
from tests.unit.reporting.test_report import Page

ABOUT = {"name": "my_run", "model": "vit", "data": "pets", "metric": "accuracy", "direction": "max"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = fake_run(tmp_path / "run", n=20, steps=100, pictures=False)
    (folder / "results.json").unlink()
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def report(run: Path, said: list[str]) -> LiveReport:
    return LiveReport(run, ABOUT, said.append, writes=True)


def text(run: Path) -> str:
    return " ".join(Page(run / "report.html").text.split())


def append(run: Path, entry: dict[str, Any]) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 1.0, "stage": "train", **entry}) + "\n")


def test_the_page_of_a_run_that_goes_on(run: Path, report: LiveReport) -> None:
    report.begin("training", stage="train", step=0, steps=200, baseline=0.25)
    report.status["seconds_per_step"] = 3.0
    report.write()
    shown = text(run)
    assert "my_run vit on pets" in shown
    assert "Trainingabout 5 min 0 s left" in shown
    assert "Step100of 200" in shown
    assert "Before training0.250" in shown
    assert "Accuracy on validationby step" in shown
    assert "Training lossby step" in shown
    assert "Best accuracy" in shown
    html = (run / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="10">' in html
    assert "location.reload" in html
    assert "default-src 'none'" in html


def test_a_stopped_run_says_how_to_go_on_and_stays(run: Path, report: LiveReport) -> None:
    report.begin("training", stage="train", step=0, steps=200)
    report.end("stopped", 100)
    assert "Stopped at step 100. The checkpoint is saved. The same graft train command goes on from there." in text(run)
    html = (run / "report.html").read_text()
    assert "<title>Stopped at step 100 · my_run · Graft</title>" in html
    assert "reload" not in html
    assert "refresh" not in html


def test_a_failed_run_says_why(run: Path, report: LiveReport) -> None:
    report.begin("training", stage="train", step=0, steps=200)
    report.end("failed", why="step 7: the loss is nan; rows: <b>7</b>")
    assert "This run failed at step 100. step 7: the loss is nan; rows: <b>7</b>" in text(run)


def test_a_run_without_a_process_is_lost_and_one_with_a_process_starts_again(run: Path, report: LiveReport) -> None:
    report.begin("training", stage="train", step=0, steps=200)
    page = LivePage(run)
    assert "stopped at step 100, and did not write why" in page.render(served=True, running=False)
    assert "did not write why" not in page.render(served=True, running=None)
    report.end("stopped", 100)
    assert "<b>Starting</b>" in page.render(served=True, running=True)
    assert "<b>Stopped at step 100</b>" in page.render(served=True, running=False)


def test_a_run_of_an_older_version_has_a_page(run: Path) -> None:
    html = LivePage(run).render(served=True)
    assert "This run has not finished." in html
    assert "the log ends at step 100" in html


def test_it_is_not_written_all_the_time(run: Path, report: LiveReport, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    report.begin("training", stage="train", step=0, steps=200)
    report.cost, written = 0.05, []
    monkeypatch.setattr(live, "write_text", lambda path, text: written.append(now))
    for number in range(1, 41):
        now += 1
        report.update(number)
        report.cost = 0.05
    assert [b - a for a, b in zip([1000.0, *written], written, strict=False)] == [10.0] * 4, "half a percent"
    assert report.status["seconds_per_step"] == 1.0


def test_a_page_that_cannot_be_written_is_said_once_and_stops_nothing(
    run: Path, report: LiveReport, said: list[str]
) -> None:
    (run / "report.html").mkdir()
    report.begin("training", stage="train", step=0, steps=200)
    report.begin("training", stage="train", step=0, steps=200)
    report.end("stopped", 100)
    assert len(said) == 1
    assert "report.html is not updated any more (RunError: " in said[0]
    assert said[0].endswith("the training goes on")


def test_only_the_main_process_writes(run: Path) -> None:
    report = LiveReport(run, ABOUT, print, writes=False)
    report.begin("training", stage="train", step=0, steps=200)
    report.end("stopped")
    report.close()
    assert not (run / "report.html").exists()
    assert not (run / FILE).exists()


def test_a_finished_run_has_no_live_file(run: Path, report: LiveReport) -> None:
    report.begin("training", stage="train", step=0, steps=200)
    assert (run / FILE).exists()
    report.close()
    assert not (run / FILE).exists()


def test_names_are_text(run: Path, said: list[str]) -> None:
    evil = '"><script>alert(1)</script>{{ 7 * 7 }}'
    report = LiveReport(run, {**ABOUT, "name": evil, "model": evil, "data": evil}, said.append, writes=True)
    append(run, {"step": 101, "validation": {evil: 0.5}})
    report.begin("training", stage="train", step=0, steps=200)
    page = Page(run / "report.html")
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.text.count(evil) >= 5
    assert said == []


def test_samples_are_small_and_the_file_in_the_making_is_left_out(run: Path, report: LiveReport) -> None:
    folder = run / "samples" / "grids"
    folder.mkdir(parents=True)
    for number in range(0, 90, 10):
        Image.effect_noise((900, 900), 80).save(folder / f"step_{number:06}.png")
    (folder / "step_000090.png").write_bytes(b"\x89PNG\r\n")
    report.begin("training", stage="train", step=0, steps=200)
    images = Page(run / "report.html").images()
    assert 4 <= len(images) <= live.GRIDS
    assert images[-1]["alt"] == "Samples at step 0"
    assert (run / "report.html").stat().st_size < 1_500_000


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no run folder"):
        LivePage(tmp_path).render()


def test_the_page_draws_nothing_at_random(run: Path) -> None:
    import random

    import numpy as np

    def states() -> list[str]:
        return [repr(random.getstate()), repr(np.random.get_state())]

    before, first = states(), LivePage(run).render()
    assert states() == before
    assert LivePage(run).render() == first
