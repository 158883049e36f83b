"""Finished runs of all tasks, each trained for a few steps: `python -m tests.support.ten_runs FOLDER`."""

import importlib
import sys
from pathlib import Path

from tests.support.ten_demos import models


def train_all(root: Path) -> dict[str, Path]:
    """Task -> its run folder in `root`. A run that is there already stays as it is."""
    from pipelines.config.recipe import validate
    from pipelines.training.run import train

    found = {}
    for task in models():
        run = root / task / "run"
        if not (run / "results.json").is_file():
            contract = importlib.import_module(f"tests.tasks.test_{task.replace('-', '_')}").TestContract
            recipe = contract().recipe(root / task / "made")
            recipe["train"]["epochs"] = 1  # for pages, what a model has learned does not matter
            train(validate(recipe), run, name=f"tiny_{task.replace('-', '_')}")
        found[task] = run
    return found


if __name__ == "__main__":
    print(*train_all(Path(sys.argv[1])).values(), sep="\n")
