"""PeakMemory: the most resident memory that this process has inside a block, by looking at it many times a second."""

import threading
from types import TracebackType

EVERY = 0.1  # seconds between two looks; a shorter peak may be missed


class PeakMemory:
    """`mb` is the peak in MB after the block. With `children`, the processes that this one started count, too: what
    each has for itself, because a child shares most of its pages with its parent.
    """

    def __init__(self, children: bool = False) -> None:
        import psutil

        self.process, self.children = psutil.Process(), children
        self.mb = 0.0
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._look()
        self.watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self.over.wait(EVERY):
            self._look()

    def _look(self) -> None:
        import psutil

        found = self.process.memory_info().rss
        for child in self.process.children(recursive=True) if self.children else ():
            try:
                found += child.memory_full_info().uss
            except psutil.Error:  # it ended a moment ago
                continue
        self.mb = max(self.mb, found / 2**20)
