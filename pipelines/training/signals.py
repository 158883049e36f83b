"""SIGTERM and Ctrl-C: the run stops after the step, saves, and can be resumed."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Inside the block, the first SIGTERM or Ctrl-C sets a flag, and the loop ends its step, saves and returns.

    The second one raises KeyboardInterrupt. Gives a function that returns whether the flag is set.
    """
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")  # print is not safe in a handler

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: the program around Graft handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
