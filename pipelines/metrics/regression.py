"""Metrics of one number per row, from prediction records: {"id", "true": 3.5, "predicted": 3.2, ...}.

    scores(records)  ->  {"pearson": 0.88, "spearman": 0.87, "mse": 0.41}

The order of the records never matters, not even in the last bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import DataError

Record = Mapping[str, Any]


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split. Raises DataError for no records.

    pearson    linear correlation of true and predicted numbers, -1 to 1
    spearman   the same of their ranks, rows of equal value sharing the mean of their ranks
    mse        mean squared error, better when lower
    A correlation with numbers that are all the same is 0: it tells nothing apart.
    """
    true, predicted = true_and_predicted(records)
    return {
        "pearson": pearson(true, predicted),
        "spearman": pearson(_ranks(true), _ranks(predicted)),
        "mse": float(((true - predicted) ** 2).mean()),
    }


def true_and_predicted(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    if not records:
        raise DataError("there are no predictions to score")
    pairs = np.array([[r["true"], r["predicted"]] for r in records], dtype=float)
    pairs = pairs[np.lexsort(pairs.T)]  # sums in one order whatever the records' order
    return pairs[:, 0], pairs[:, 1]


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def pearson(one: np.ndarray, two: np.ndarray) -> float:
    if one.min() == one.max() or two.min() == two.max():  # not by the deviation, which rounding makes a little more than 0
        return 0.0
    one, two = one - one.mean(), two - two.mean()
    scale = np.sqrt((one**2).sum()) * np.sqrt((two**2).sum())
    return float(np.clip((one * two).sum() / scale, -1, 1)) if scale > 0 else 0.0
