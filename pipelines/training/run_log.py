"""What a run writes and shows while it trains: log.jsonl, trackers and lines on the screen."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe
from pipelines.errors import RecipeError, RunError
from pipelines.training.checkpoint import State
from pipelines.utils.files import to_json, write_text
from pipelines.utils.formatting import number
from pipelines.utils.progress import Progress

SOON = 5.0


def trackers(recipe: Recipe) -> list[str]:
    """The recipe's trackers. Raises RecipeError for one that is not installed."""
    from accelerate.tracking import get_available_trackers

    ready = {str(t.value if hasattr(t, "value") else t) for t in get_available_trackers()}
    missing = [t for t in recipe.train.trackers if t not in ready]
    if missing:
        raise RecipeError(f"train.trackers: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")
    return list(recipe.train.trackers)


class Log:
    """Writes one entry to log.jsonl, to the trackers and to the screen. Only the main process writes.

    `written` is called with the step of each entry after it is in the file.
    """

    def __init__(
        self, folder: Path, accelerator: Any, progress: Progress, written: Callable[[int], None] = lambda step: None
    ) -> None:
        self.path, self.accelerator, self.progress = folder / "log.jsonl", accelerator, progress
        self.written = written
        self.shown = 0.0  # when validation scores were shown last

    def __call__(self, entry: dict[str, Any], best: bool = False, news: bool = False) -> None:
        """`best`: no earlier validation score was better. `news`: none was as good.

        Scores that are no news are shown on a terminal only, and there at most every SOON seconds.
        """
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(entry) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror}; what was saved is whole: free some room and run "
                "again"
            ) from None
        entry = json.loads(to_json(entry))
        flat = {f"validation/{k}": v for k, v in entry["validation"].items()} if "validation" in entry else entry
        self.accelerator.log({k: v for k, v in flat.items() if isinstance(v, int | float)}, step=entry["step"])
        soon = time.monotonic() - self.shown < SOON
        if "validation" in entry and (news or (self.progress.live and not soon)):
            self.shown = time.monotonic()
            self.progress.say(validation_line(entry, best, self.progress.columns))
        self.written(entry["step"])

    def truncate(self, saved: State | None) -> None:
        """Remove the entries after the checkpoint, or all entries if there is none: the run repeats those steps."""
        if self.accelerator.is_main_process and self.path.is_file():
            lines = [line for line in self.path.read_text().splitlines() if saved is not None and _known(line, saved)]
            write_text(self.path, "".join(line + "\n" for line in lines))


def validation_line(entry: dict[str, Any], best: bool, columns: int) -> str:
    """The scores of an entry, as many as fit into a line: the main metric comes first.

    {"step": 120, "epoch": 9.2308, "validation": {"accuracy": 0.9, ...}} -> "  step 120, epoch 9.2: accuracy 0.9 (best)"
    """
    values = entry["validation"].items()
    scores = [f"{name} {'undefined' if value is None else number(value)}" for name, value in values]
    line = f"  step {entry['step']:,}, epoch {round(entry['epoch'], 1):g}: {scores[0]}{' (best)' if best else ''}"
    for score in scores[1:4]:
        if len(line) + len(score) + 2 >= columns:
            break
        line += f", {score}"
    return line


def _known(line: str, saved: State) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # a kill cut this line off
        return False
    at = saved.previous_steps + saved.step
    return entry["step"] < at or (entry["step"] == at and not (saved.evaluation_due and "validation" in entry))
