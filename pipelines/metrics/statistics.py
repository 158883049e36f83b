"""Statistics of a split: arrays with one entry per row, from which its scores are computed.

    found = Statistics(ids, {"correct": [True, False, True]})
    found["correct"]                       the column, with rows in the order of their ids
    total(found.ones(), found["correct"])  2.0

A score is a function of statistics and of a weight per row. Weights of 1 give the score; a weight of 2 counts a row
twice, a weight of 0 leaves it out. Weights of shape [draws, rows] give `draws` scores at once, which makes resampling
fast.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from pipelines.errors import DataError


class Proportion(NamedTuple):
    """A metric of the form `scale * sum(part) / sum(of)`: a share of trials that are right.

    Without `of`, each row is a trial.
    """

    part: str
    of: str | None = None
    scale: float = 1.0


class Statistics(Mapping[str, np.ndarray]):
    """Columns of shape [rows] or [rows, k], sorted by the ids of the rows.

    `proportions` lists the metrics that are shares of trials. `lifted` names the metrics that are higher in resamples,
    where rows occur twice, than on the rows themselves. Raises DataError if there are no rows.
    """

    def __init__(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Sequence[float] | np.ndarray],
        proportions: Mapping[str, Proportion] | None = None,
        lifted: Sequence[str] = (),
    ) -> None:
        if not len(ids):
            raise DataError("there are no predictions to score")
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
        self.ids = tuple(ids[place] for place in order)
        self.columns = {name: np.asarray(values)[order] for name, values in columns.items()}
        self.proportions = dict(proportions or {})
        self.lifted = frozenset(lifted)

    def __getitem__(self, name: str) -> np.ndarray:
        values: np.ndarray = self.columns[name]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """The number of columns; `len(statistics.ids)` is the number of rows."""
        return len(self.columns)

    def __or__(self, other: "Statistics") -> "Statistics":
        """The columns of both, which must have the same rows."""
        if self.ids != other.ids:
            raise ValueError("statistics of different rows")
        return Statistics(
            self.ids,
            {**self.columns, **other.columns},
            {**self.proportions, **other.proportions},
            [*self.lifted, *other.lifted],
        )

    def take(self, rows: Sequence[int] | np.ndarray) -> "Statistics":
        """Select rows by index; an index may occur several times."""
        places = np.asarray(rows, dtype=int)
        columns = {name: values[places] for name, values in self.columns.items()}
        return Statistics([self.ids[place] for place in places], columns, self.proportions, [*self.lifted])

    def ones(self) -> np.ndarray:
        """Weights of 1, which give the score."""
        return np.ones(len(self.ids))


# ---- weighted sums ----


def total(weights: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Weighted sum over rows: weights [..., rows], values [rows] or [rows, k] -> [...] or [..., k].

    Without values it is the sum of weights.
    """
    if values is None:
        return np.asarray(weights.sum(-1))
    if weights.ndim == values.ndim == 1:  # a BLAS dot product would round differently for each number of threads
        return np.asarray((weights * values).sum())
    return np.asarray(weights @ values.astype(float))


def binned(weights: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Sum of the weights of the rows with each index in `places` (0 to size - 1): [..., rows] -> [..., size]."""
    if weights.ndim == 1:
        return np.bincount(places, weights, size)
    return np.stack([np.bincount(places, draw, size) for draw in weights])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of the values that are not NaN; 0 if all are NaN."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1))


def plain(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Scores as floats. Scores for weights [draws, rows] stay arrays [draws], which the return type does not show."""
    return {name: float(value) if np.ndim(value) == 0 else cast("float", value) for name, value in scores.items()}
