"""Metrics of one number per row, from prediction records: {"id", "true": 3.5, "predicted": 3.2, ...}.

    scores(records)  ->  {"pearson": 0.88, "spearman": 0.87, "mse": 0.41}

The order of the records does not change a score, not even in the last bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.metrics.statistics import Statistics, binned, plain, ratio, total

Record = Mapping[str, Any]

DIRECTIONS = {"pearson": "max", "spearman": "max", "mse": "min"}  # the scores


def statistics(records: Sequence[Record]) -> Statistics:
    """The columns true and predicted. Raises DataError if there are no records."""
    columns = {key: np.array([record[key] for record in records], dtype=float) for key in ("true", "predicted")}
    return Statistics([record["id"] for record in records], columns)


def summarize(statistics: Statistics, weights: np.ndarray) -> dict[str, float]:
    """All metrics; `weights` [rows], or [draws, rows] for arrays [draws].

    pearson    linear correlation of true and predicted numbers, -1 to 1
    spearman   linear correlation of their ranks; rows of equal value get the mean of their ranks
    mse        mean squared error, lower is better
    A correlation with constant numbers is 0.
    """
    true, predicted = statistics["true"], statistics["predicted"]
    varied = _varied(true, weights) & _varied(predicted, weights)
    return plain(
        {
            "pearson": np.where(varied, _correlation(true, predicted, weights), 0.0),
            "spearman": np.where(varied, _correlation(_ranks(true, weights), _ranks(predicted, weights), weights), 0.0),
            "mse": ratio(total(weights, (true - predicted) ** 2), total(weights)),
        }
    )


def scores(records: Sequence[Record]) -> dict[str, float]:
    """All metrics of one split (see `summarize`)."""
    found = statistics(records)
    return summarize(found, found.ones())


def _varied(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether the rows with a weight have more than one value.

    The deviation is not used, because rounding makes it larger than 0.
    """
    low = np.where(weights > 0, values, np.inf).min(-1)
    return np.asarray(low < np.where(weights > 0, values, -np.inf).max(-1))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted ranks from 1, [..., rows]: a row of weight 2 takes two ranks; equal values share the mean rank."""
    known, place = np.unique(values, return_inverse=True)
    count = binned(weights, place, len(known))
    return np.asarray((count.cumsum(-1) - (count - 1) / 2)[..., place])


def _correlation(one: np.ndarray, two: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlation of [rows] or [..., rows]; 0 if one of the two is constant."""
    n = weights.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        one, two = one - (weights * one).sum(-1, keepdims=True) / n, two - (weights * two).sum(-1, keepdims=True) / n
    scale = np.sqrt((weights * one**2).sum(-1)) * np.sqrt((weights * two**2).sum(-1))
    shared = (weights * one * two).sum(-1)
    return np.asarray(np.clip(np.divide(shared, scale, out=np.zeros(np.shape(scale)), where=scale > 0), -1, 1))
