"""What a user sees while a run works: one live bar on a terminal, and a plain line from time to time elsewhere."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.utils.formatting import duration

EVERY = 60.0  # seconds between plain lines
SOON = 3.0  # seconds that a preparation takes before it says what it does
WIDTH = 80  # columns, where the width of the terminal is not known


class Progress:
    """Prints to stderr, on the main process only. A quiet one prints bars of the training and warnings only."""

    def __init__(self, show: bool, quiet: bool = False) -> None:
        from rich.console import Console

        self.show, self.quiet = show, quiet
        self.console = Console(stderr=True, highlight=False)
        self.bar: Any = None
        self.warned: set[str] = set()

    @property
    def live(self) -> bool:
        """Whether somebody looks: lines that matter for a moment only are for a terminal, not for a file."""
        return self.show and self.console.is_terminal

    @property
    def columns(self) -> int:
        return min(WIDTH, self.console.width) if self.live else WIDTH

    def say(self, text: str) -> None:
        if not self.quiet:
            self._print(text)

    def warn(self, text: str, about: str = "") -> None:
        """Print a warning, but only once in a run. Warnings with the same `about` count as one."""
        if (about or text) not in self.warned:
            self.warned.add(about or text)
            self._print(text)

    def _print(self, text: str) -> None:
        if self.show:  # a terminal breaks lines between words; in a file each message stays one line
            self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)

    @contextmanager
    def item(self, name: str, total: int, done: int = 0) -> Iterator["ProgressItem"]:
        """Show progress over `total` units: a bar on a terminal, else lines."""
        if not self.live:
            yield ProgressItem(self, name, total, done)
            return
        from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
        from rich.progress import Progress as Bar
        from rich.progress import Task as Row
        from rich.text import Text

        class Left(ProgressColumn):
            """The time that is left, once it can be estimated."""

            def render(self, row: Row) -> Text:
                left = row.time_remaining
                return Text("" if left is None else f"{duration(math.ceil(left))} left")

        def add(bar: Bar) -> TaskID:
            # the rows of one display have columns of one width
            return bar.add_task(name, total=total, completed=done, note="", counts=_counts(done, total))

        outer = self.bar
        if outer is not None:  # an evaluation inside the training gets a second bar below
            row = add(outer)
            yield ProgressItem(self, name, total, done, outer, row)
            outer.remove_task(row)
            return
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.fields[note]}"),
            Left(),
        )
        with Bar(*columns, console=self.console, transient=True) as bar:
            self.bar = bar
            try:
                yield ProgressItem(self, name, total, done, bar, add(bar))
            finally:
                self.bar = None


_shown: Progress | None = None  # of the command that runs, for what is prepared before its first bar


def show_preparations(progress: Progress) -> None:
    """Let `preparing` and `waiting` print where this progress does."""
    global _shown
    _shown = progress


def _speaks() -> bool:
    return _shown is not None and _shown.show and not _shown.quiet


@contextmanager
def preparing(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Say from the third second on what takes so long. The block calls the given function with what it has done.

    On a terminal the line is written over every second, and removed at the end.
    """
    began = time.monotonic()
    done, due, drawn = 0, began + SOON, False

    def advance(count: int) -> None:
        nonlocal done, due, drawn
        done += count
        now = time.monotonic()
        if _shown is None or not _speaks() or now < due:
            return
        live = _shown.live and _shown.bar is None
        due = now + (1.0 if live else EVERY)
        text = f"{what}: {done:,}" if total is None else f"{what}: {_counts(done, total)}"
        print(f"\r{text}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)
        drawn = drawn or live

    try:
        yield advance
    finally:
        if drawn:
            print(f"\r{' ' * WIDTH}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def waiting(text: Callable[[], str]) -> Iterator[None]:
    """Print a line about the work in this block from the third second on, and then one every minute.

    It is for work that cannot say how far it is (see `preparing`).
    """
    over = threading.Event()

    def speak() -> None:
        pause = SOON
        while not over.wait(pause):
            if _shown is not None and _shown.bar is None:  # a line would break a bar
                print(f"{text()} ...", file=sys.stderr, flush=True)
            pause = EVERY

    if not _speaks():
        yield
        return
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()


def _counts(done: int, total: int) -> str:
    return f"{done:,}/{total:,}"


class ProgressItem:
    def __init__(self, progress: Progress, name: str, total: int, done: int, bar: Any = None, item: Any = None) -> None:
        self.progress, self.name, self.total, self.done = progress, name, total, done
        self.bar, self.item = bar, item
        self.first, self.since = done, time.monotonic()
        self.printed = self.since

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self.bar is not None:
            counts = _counts(self.done, self.total)
            self.bar.update(self.item, completed=self.done, counts=counts, **({"note": note} if note else {}))
        elif self.progress.show and time.monotonic() - self.printed > EVERY:
            self.printed = time.monotonic()
            rate = (self.done - self.first) / max(self.printed - self.since, 1e-9)
            parts = [f"{self.name} {_counts(self.done, self.total)}", note]
            parts += [f"{duration(math.ceil((self.total - self.done) / rate))} left"] if rate else []
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)
