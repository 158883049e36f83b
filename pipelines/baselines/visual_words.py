"""Visual words: counts of clusters of local descriptors (Csurka et al. 2004, "Visual categorization with bags of
keypoints").
"""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

SAMPLE = 50_000  # descriptors that the clusters are learned from
AT_ONCE = 1000  # rows whose descriptors are counted at a time


class VisualWords(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step of a scikit-learn pipeline: descriptors [any number, 128] of each row -> float32 [rows, words].

    The words are centres of a k-means clustering of the descriptors that it is fitted on. If these have fewer different
    descriptors than words, there are fewer words. A row's counts are divided by their sum, then the square root is
    taken; a row without descriptors has only zeros.
    """

    def __init__(self, words: int = 200, seed: int = 0) -> None:
        self.words, self.seed = words, seed

    def fit(self, rows: Sequence[np.ndarray], y: object = None) -> "VisualWords":
        from sklearn.cluster import MiniBatchKMeans

        every = sample(rows, np.random.default_rng(self.seed))
        count = min(self.words, len(np.unique(every, axis=0)))
        self.clusters_ = None
        if count:
            clusters = MiniBatchKMeans(count, random_state=self.seed, n_init=1, batch_size=4096)
            self.clusters_ = clusters.fit(every.astype(np.float32))
        return self

    def transform(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        size = 1 if self.clusters_ is None else self.clusters_.n_clusters
        found = np.zeros((len(rows), size), dtype=np.float32)
        for start in range(0, len(rows) if self.clusters_ is not None else 0, AT_ONCE):
            part = rows[start : start + AT_ONCE]
            lengths = [len(row) for row in part]
            if sum(lengths):
                words = self.clusters_.predict(np.concatenate(list(part)).astype(np.float32))  # type: ignore[union-attr]
                np.add.at(found, (np.repeat(np.arange(start, start + len(part)), lengths), words), 1.0)
        return np.asarray(np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1.0)), dtype=np.float32)


def sample(rows: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """At most SAMPLE of all descriptors of the rows. They are chosen by number, so that not all are copied at once."""
    ends = np.cumsum([len(row) for row in rows])
    if ends[-1] <= SAMPLE:
        return np.concatenate(list(rows))
    chosen = np.sort(rng.choice(ends[-1], SAMPLE, replace=False))
    of = np.searchsorted(ends, chosen, side="right")
    starts = ends - [len(row) for row in rows]
    return np.stack([rows[row][number] for row, number in zip(of, chosen - starts[of], strict=True)])
