"""95 % intervals of scores, by resampling independent units: groups of rows if rows belong together, otherwise rows.

    values = resampled(lambda weights: task.summarize(found, weights), units)   name -> 1,000 values
    bounds(values["wer"], count=20)                                             [0.081, 0.113]

Rows of one speaker, article or patient resemble each other. Resampling single rows would give intervals that are too
narrow; so groups are drawn, each with all its rows (cluster bootstrap, Davison and Hinkley 1997, section 3.8).

The percentile interval is too narrow for few groups, because it ignores that the spread is estimated from them. Its
tails therefore follow Hesterberg 2015 (The American Statistician 69(4), "expanded percentile interval"): with n groups,
a tail is not 2.5 % but the normal probability beyond sqrt(n / (n - 1)) times the t quantile of n - 1 degrees of
freedom: 2.3 % for n = 100, 0.9 % for n = 10.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from pipelines.metrics.statistics import Statistics
from pipelines.utils.seeding import seeded

RESAMPLES = 1000
BLOCK = 2**19  # number of weights in memory at once, 4 MB; more would not fit the processor's cache
OUTSIDE = 0.025  # share of the distribution on each side of an interval


def draws(units: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield weights [block, rows] that resample units, in blocks of bounded memory.

    `units` [rows] are numbers from 0.
    """
    count, rng = int(units.max()) + 1, np.random.default_rng(seeded(seed, "bootstrap"))
    size = max(1, BLOCK // len(units))
    for start in range(0, resamples, size):
        lines = min(size, resamples - start)
        picked = rng.integers(0, count, (lines, count)) + count * np.arange(lines)[:, None]
        times = np.bincount(picked.ravel(), minlength=lines * count).reshape(lines, count)
        yield times[:, units].astype(float)


def resampled(
    summarize: Callable[[np.ndarray], Mapping[str, float | np.ndarray]],
    units: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The value of each metric in every resample: name -> [resamples]."""
    blocks = [summarize(weights) for weights in draws(units, resamples, seed)]
    return {name: np.concatenate([np.atleast_1d(block[name]) for block in blocks]) for name in blocks[0]}


def tail(count: int) -> float:
    """The share of resamples below the lower bound, and above the upper one, for `count` units.

    See the module's docstring.
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, OUTSIDE)))


def bounds(values: np.ndarray, count: int, around: float | None = None) -> list[float] | None:
    """The interval of a metric from its resamples of `count` units; None if they are all equal or none is finite.

    `around` is the score of a metric that is higher in resamples than on the rows (`Statistics.lifted`): the interval
    is moved so that the median of the resamples is there, but not beyond 0 and 1.
    """
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return None
    share = tail(count)
    ends = np.quantile(known, [share, 1 - share])
    if around is not None and math.isfinite(around):
        ends = np.clip(ends + around - np.median(known), 0, 1)
    return [float(bound) for bound in ends]


def exact(statistics: Statistics, units: np.ndarray) -> dict[str, list[float]]:
    """The exact binomial interval of each proportion whose trials are all right or all wrong (Clopper-Pearson).

    Resampling shows no spread there. The number of trials is the number of units: rows of one group count once.
    """
    found = {}
    for name, (part, of, scale) in statistics.proportions.items():
        trials = statistics[of] if of is not None else statistics.ones()
        right, every = float(statistics[part].sum()), float(trials.sum())
        if every and right in (0.0, every):
            found[name] = [scale * bound for bound in all_alike(len(np.unique(units[trials > 0])), right > 0)]
    return found


def all_alike(count: int, right: bool) -> list[float]:
    """The Clopper-Pearson interval of `count` trials that are all right or all wrong: [0.832, 1] for 20 of 20."""
    edge = OUTSIDE ** (1 / count)
    return [edge, 1.0] if right else [0.0, 1 - edge]


def of_mean(values: np.ndarray, units: np.ndarray | None = None) -> list[float] | None:
    """The interval of the mean of values [n], or of a share if they are bool. None if it cannot be computed.

    Values with the same number in `units` [n] are drawn together. None: each is its own unit.
    """
    groups = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        return None
    if values.dtype == bool and values.all() == values.any():
        return all_alike(count, bool(values.all()))
    found = resampled(lambda weights: {"mean": weights @ values.astype(float) / weights.sum(-1)}, groups)
    return bounds(found["mean"], count)
