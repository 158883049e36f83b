"""PeakMemory: the memory that a block takes beyond what this process held before it, by looking many times a second."""

import contextlib
import ctypes
import threading
from collections.abc import Callable
from types import TracebackType

EVERY = 0.1  # seconds between two looks; a shorter peak may be missed


class PeakMemory:
    """After the block, `mb` is the most that it took at a time, and `kept_mb` what it still holds, both in MB.

    With `children`, the processes that this one started count, too: what each has for itself, because a child shares
    most of its pages with its parent. `apart` gives bytes that do not count, such as a cache that others use, too.
    """

    def __init__(self, children: bool = False, apart: Callable[[], int] = lambda: 0) -> None:
        import psutil

        self.process, self.children, self.apart = psutil.Process(), children, apart
        self.mb = self.kept_mb = 0.0
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        _give_back()
        self.before = self._own()
        self._look()
        self.watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.watcher.join()
        self._look()
        _give_back()
        self.kept_mb = max(0.0, (self._own() - self.before) / 2**20)

    def _watch(self) -> None:
        while not self.over.wait(EVERY):
            self._look()

    def _own(self) -> int:
        return int(self.process.memory_info().rss) - self.apart()

    def _look(self) -> None:
        import psutil

        found = self._own() - self.before
        for child in self.process.children(recursive=True) if self.children else ():
            try:
                found += child.memory_full_info().uss
            except psutil.Error:  # it ended a moment ago
                continue
        self.mb = max(self.mb, found / 2**20)


def _give_back() -> None:
    """Give freed memory back to the system, where the C library can: a block would otherwise take it unseen."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
