"""The reports of all tasks, measured in Chromium: at three widths, in light and in dark mode."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.reporting.report import write_report
from tests.support.fake_run import fake_run
from tests.support.page_checks import problems
from tests.support.ten_demos import models

pytestmark = pytest.mark.browser

WIDTHS = (375, 768, 1280)
ARABIC, HEBREW, CHINESE = "قطة برية صغيرة جدا", "חתול בית קצר שיער", "短毛猫和长毛猫以及所有其他的猫科动物"
LONG = ("a name that goes on and on without any end", ARABIC, HEBREW, CHINESE, "W" * 60, "🐈 tabby", "<b>&amp;</b>")
HARD: dict[str, dict[str, Any]] = {
    "long names in four scripts": {"labels": LONG, "n": 90},
    "thirty classes": {"labels": tuple(f"class number {i}" for i in range(30)), "n": 300, "skill": 0.5},
    "a thousand classes": {"labels": tuple(f"n{i:08}" for i in range(1000)), "n": 1500, "skill": 0.6},
    "no row wrong": {"skill": 1.0, "n": 40},
    "many labels for a row": {"labels": LONG, "n": 60, "multi_label": True},
    "large counts": {"n": 12_000},
}


@pytest.fixture(scope="module")
def windows(chromium: Any) -> Iterator[dict[int, Any]]:
    """One page of each width; a narrow one is a phone's."""
    opened = {
        width: chromium.new_context(
            viewport={"width": width, "height": 900}, is_mobile=width < 600, has_touch=width < 600
        )
        for width in WIDTHS
    }
    yield {width: context.new_page() for width, context in opened.items()}
    for context in opened.values():
        context.close()


@pytest.fixture(scope="module")
def runs(ten_runs: Path) -> dict[str, Path]:
    return {task: ten_runs / task / "run" for task in models()}


def faults(windows: dict[int, Any], report: Path) -> list[str]:
    found = []
    for width, page in windows.items():
        page.goto(report.as_uri())
        for mode in ("light", "dark"):
            page.emulate_media(color_scheme=mode)
            found += [f"{width} pixels, {mode}: {line}" for line in problems(page)]
    return found


@pytest.mark.parametrize("task", list(models()))
def test_the_report_of_each_task(windows: dict[int, Any], runs: dict[str, Path], task: str) -> None:
    report = write_report(runs[task])
    page = windows[1280]
    page.goto(report.as_uri())
    assert page.locator("figure svg text").count() > 5
    assert page.locator("figure img").count() == 0
    assert faults(windows, report) == []


@pytest.mark.parametrize("case", list(HARD))
def test_a_report_of_hard_names_and_numbers(windows: dict[int, Any], tmp_path: Path, case: str) -> None:
    run = fake_run(tmp_path / "run", **HARD[case])
    assert faults(windows, write_report(run)) == []


def test_a_run_without_intervals_or_with_undefined_scores(windows: dict[int, Any], tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", n=30, skill=1.0, pictures=False)
    results = json.loads((run / "results.json").read_text())
    results["test"]["ci95"], results["validation"] = {}, None
    results["test"]["metrics"] = dict.fromkeys(results["test"]["metrics"])
    (run / "results.json").write_text(json.dumps(results))
    assert faults(windows, write_report(run)) == []
