"""How a score depends on the length of a text, from prediction records: {"tokens": 57, ...}.

table(records, lambda r: float(r["true"] == r["predicted"]), "accuracy", 256)
->  [{"tokens": "up to 16", "n": 12, "accuracy": 0.9}, ...]
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Record = Mapping[str, Any]


def table(records: Sequence[Record], value: Callable[[Record], float], name: str, most: int) -> list[dict[str, Any]]:
    """The mean of `value` over records of similar length: rows {"tokens", "n", name}.

    The model read at most `most` tokens; the last row holds the longer texts, which were cut.
    """
    ends = [0, *[end for end in (2**k for k in range(4, 40)) if end < most], most]
    groups: dict[str, list[float]] = {}
    for low, high in pairwise(ends):
        inside = [value(r) for r in records if low < r["tokens"] <= high]
        groups[f"{low + 1} to {high}" if low else f"up to {high}"] = inside
    groups[f"more than {most}"] = [value(r) for r in records if r["tokens"] > most]
    return [
        {"tokens": key, "n": len(inside), name: float(np.sort(inside).mean())}
        for key, inside in groups.items()
        if inside
    ]
