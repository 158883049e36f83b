"""Statistics of a split: arrays with one entry per row, which hold all that its scores need.

    found = Statistics(ids, {"correct": [True, False, True]})
    found["correct"]                       the column, rows in the order of their ids
    total(found.ones(), found["correct"])  2.0

A score is a function of statistics and of a weight per row. Weights of 1 give the score, weights of 2 count a row twice, weights
of 0 leave it out. Weights of shape [draws, rows] give `draws` scores at once: that makes resampling fast.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from pipelines.errors import DataError


class Proportion(NamedTuple):
    """A metric that is `scale * sum(part) / sum(of)`: how many of some trials were right. Without `of`, each row is one trial."""

    part: str
    of: str | None = None
    scale: float = 1.0


class Statistics(Mapping[str, np.ndarray]):
    """Columns of shape [rows] or [rows, k], sorted by the ids of the rows; `proportions` says which metrics are shares of trials.

    Raises DataError for no rows.
    """

    def __init__(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Sequence[float] | np.ndarray],
        proportions: Mapping[str, Proportion] | None = None,
    ) -> None:
        if not len(ids):
            raise DataError("there are no predictions to score")
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
        self.ids = tuple(ids[place] for place in order)
        self.columns = {name: np.asarray(values)[order] for name, values in columns.items()}
        self.proportions = dict(proportions or {})

    def __getitem__(self, name: str) -> np.ndarray:
        values: np.ndarray = self.columns[name]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """The number of columns; `len(statistics.ids)` is the number of rows."""
        return len(self.columns)

    def __or__(self, other: "Statistics") -> "Statistics":
        """The columns of both, of the same rows."""
        if self.ids != other.ids:
            raise ValueError("statistics of different rows")
        return Statistics(self.ids, {**self.columns, **other.columns}, {**self.proportions, **other.proportions})

    def take(self, rows: Sequence[int] | np.ndarray) -> "Statistics":
        """Some of the rows, by their places; a place may occur several times."""
        places = np.asarray(rows, dtype=int)
        columns = {name: values[places] for name, values in self.columns.items()}
        return Statistics([self.ids[place] for place in places], columns, self.proportions)

    def ones(self) -> np.ndarray:
        """The weights of the score itself."""
        return np.ones(len(self.ids))


# ---- weighted sums ----


def total(weights: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Weighted sum over rows: weights [..., rows], values [rows] or [rows, k] -> [...] or [..., k]. Without values, sum the weights."""
    if values is None:
        return np.asarray(weights.sum(-1))
    if weights.ndim == values.ndim == 1:  # a dot product of BLAS would round by its number of threads
        return np.asarray((weights * values).sum())
    return np.asarray(weights @ values.astype(float))


def binned(weights: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Sum of the weights of the rows at each place (0 to size - 1): [..., rows] -> [..., size]."""
    if weights.ndim == 1:
        return np.bincount(places, weights, size)
    return np.stack([np.bincount(places, draw, size) for draw in weights])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing to divide by."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; 0 where all of it is."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1))


def plain(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Scores under weights [rows] as floats. Scores under weights [draws, rows] stay arrays [draws], which the type does not show."""
    return {name: float(value) if np.ndim(value) == 0 else cast("float", value) for name, value in scores.items()}
