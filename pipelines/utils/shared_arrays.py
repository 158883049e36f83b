"""Arrays in memory that this process shares with the processes it forks, such as the workers of a data loader."""

from mmap import mmap
from typing import Any

import numpy as np


def shared(size: int, kind: Any) -> np.ndarray:
    """An array of `size` zeros of this kind. Its pages are allocated when they are written."""
    return np.frombuffer(mmap(-1, max(size, 1) * np.dtype(kind).itemsize), kind)[:size]
