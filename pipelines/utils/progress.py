"""What a user sees while a run works: one live bar on a terminal, and a plain line from time to time elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 10.0  # seconds between plain lines


class Progress:
    """Prints to stderr, on the main process only."""

    def __init__(self, show: bool) -> None:
        from rich.console import Console

        self.show = show
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Any = None

    def say(self, text: str) -> None:
        if self.show:
            self.console.print(text, markup=False)

    @contextmanager
    def item(self, name: str, total: int, done: int = 0) -> Iterator["ProgressItem"]:
        """Show progress over `total` units: a bar on a terminal, else lines."""
        if not (self.show and self.console.is_terminal):
            yield ProgressItem(self, name, total, done)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        outer = self.bar
        if outer is not None:  # an evaluation inside the training gets a second bar below
            row = outer.add_task(name, total=total, completed=done, note="")
            yield ProgressItem(self, name, total, done, outer, row)
            outer.remove_task(row)
            return
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bar(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console) as bar:
            self.bar = bar
            try:
                yield ProgressItem(
                    self, name, total, done, bar, bar.add_task(name, total=total, completed=done, note="")
                )
            finally:
                self.bar = None


class ProgressItem:
    def __init__(self, progress: Progress, name: str, total: int, done: int, bar: Any = None, item: Any = None) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, done
        self.bar, self.item = bar, item
        self.first, self.since = done, time.monotonic()
        self.spoke = self.since

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self.bar is not None:
            self.bar.update(self.item, completed=self.done, **({"note": note} if note else {}))
        elif self.progress.show and (time.monotonic() - self.spoke > EVERY or (note and self.done == self.total)):
            self.spoke = time.monotonic()
            rate = (self.done - self.first) / max(self.spoke - self.since, 1e-9)
            left = (self.total - self.done) / rate if rate else 0
            print(
                f"{self.name} {self.done}/{self.total}  {note}  {left:.0f} s left".replace("    ", "  "),
                file=sys.stderr,
                flush=True,
            )
