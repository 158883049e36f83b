"""The contract, for a task of two phases that is in no package: what it proves of training and scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_gan import installed, toy_recipe
from tests.tasks.contract import TaskContract


@pytest.fixture(scope="module", autouse=True)
def found() -> Iterator[None]:
    with installed():
        yield


class TestToyGan(TaskContract):
    spine = False
    improves = "distance"
    steps, rate = 40, 2e-2
    # it has no card, no app and no recipes
    test_published_and_loaded_is_the_same = test_the_snippet_runs_without_graft = test_the_app_builds = None  # type: ignore[assignment]
    test_the_run_folder_is_whole = test_every_recipe_of_the_task_is_valid = None  # type: ignore[assignment]
    test_training_rows_stay_training_rows = test_saved_and_loaded_is_the_same = None  # type: ignore[assignment]
    test_interrupted_and_resumed_is_uninterrupted = None  # type: ignore[assignment]  # see tests/unit/training/test_phases.py

    def recipe(self, folder: Path) -> dict[str, Any]:
        return toy_recipe(folder)

    def perfect(self, rows: Any) -> list[dict[str, Any]]:
        return [{"id": row["id"], "true": row["value"], "made": row["value"]} for row in rows]
