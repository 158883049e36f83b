"""The curves of a log that grows, is cut, or is very long."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.reporting.log_curves import MOST, PARSED, LogCurves


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"step": number, "epoch": number / 10, "stage": "train", "loss": 1 / number, "learning_rate": 0.1, **more}


def scored(number: int, value: float | None) -> dict[str, Any]:
    return {"step": number, "epoch": number / 10, "stage": "train", "validation": {"accuracy": value}}


def add(path: Path, *entries: dict[str, Any], end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(json.dumps(entry) for entry in entries) + end)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_only_new_lines_are_read(path: Path) -> None:
    curves = LogCurves(path)
    assert not curves.read(), "there is no file yet"
    add(path, step(1, seconds=2.0), scored(1, 0.5))
    assert curves.read()
    at = curves.at
    assert at == path.stat().st_size
    assert not curves.read()
    add(path, step(2, seconds=4.0))
    assert curves.read()
    assert curves.steps["loss"].all() == [(1, 2, 1), (2, 4, 0.5)]
    assert curves.validation["accuracy"].all() == [(1, 2, 0.5)]
    assert curves.last is not None
    assert curves.last["step"] == 2


def test_a_line_that_is_being_written_waits(path: Path) -> None:
    curves = LogCurves(path)
    add(path, step(1), step(2), end="")
    curves.read()
    assert len(curves.steps["loss"].all()) == 1
    add(path, end="\n")
    curves.read()
    assert len(curves.steps["loss"].all()) == 2
    assert curves.damaged == 0


def test_a_resumed_run_cuts_its_log(path: Path) -> None:
    """`Log.truncate` replaces the file; the next lines may make it longer than it was."""
    curves = LogCurves(path)
    add(path, *[step(n) for n in range(1, 9)])
    curves.read()
    new = path.with_name("new")
    add(new, *[step(n) for n in range(1, 5)], *[step(n, loss=7.0) for n in range(5, 20)])
    new.replace(path)
    curves.read()
    assert [point[2] for point in curves.steps["loss"].all()] == [1, 1 / 2, 1 / 3, 1 / 4, *[7.0] * 15]
    path.write_text(json.dumps(step(1)) + "\n")
    curves.read()
    assert len(curves.steps["loss"].all()) == 1


def test_the_best_score_is_exact_and_the_later_of_two(path: Path) -> None:
    curves = LogCurves(path)
    add(path, scored(1, 0.5), scored(2, 0.9), scored(3, None), scored(4, 0.9), scored(5, 0.1))
    curves.read()
    assert curves.best["accuracy", "max"] == (0.9, 4)
    assert curves.best["accuracy", "min"] == (0.1, 5)
    assert len(curves.evaluations) == 5


def test_damaged_lines_are_counted(path: Path) -> None:
    path.write_text('not json\n{"step": null}\n[1]\n\n{"step": 1, "stage": "train", "loss": NaN}\n')
    curves = LogCurves(path)
    curves.read()
    assert curves.damaged == 3
    assert curves.steps["loss"].all() == []


def test_a_long_log_gives_few_points_soon(path: Path) -> None:
    line = json.dumps(step(1, loss=0.5, padding="x" * 100)) + "\n"
    count = 5 * PARSED
    path.write_text(line * count + json.dumps(scored(count, 0.75)) + "\n")
    curves, began = LogCurves(path), time.process_time()
    curves.read()
    assert time.process_time() - began < 2
    points = curves.steps["loss"].all()
    assert MOST <= len(points) <= 2 * MOST
    assert {value for _, _, value in points} == {0.5}
    assert curves.validation["accuracy"].all() == [(count, 0, 0.75)], "evaluations are never left out"


def test_the_mean_of_a_curve_stays(path: Path) -> None:
    curves = LogCurves(path)
    add(path, *[step(n, loss=float(n)) for n in range(1, 5 * MOST + 4)])
    curves.read()
    points = curves.steps["loss"].all()
    assert len(points) <= 2 * MOST
    assert all(x == y for x, _, y in points)
    assert points[-1][0] > 5 * MOST
