"""Does a heat map depend on what the model learned? The model parameter randomisation test of Adebayo et al. 2018
(arXiv:1810.03292).

    check(task, model, rows)     {"occlusion": {"rank_correlation": 0.06, "ci95": [-0.04, 0.17], ...}, ...}

The weights are drawn anew, and the same maps are computed again. A map that stays the same shows the row, not what the
model learned. The figure is Spearman's rank correlation of the absolute values of both maps, as in the paper: 0 if the
map depends on the weights, 1 if it ignores them. The paper draws weights as they are initialised; to draw them around
their trained mean is Graft's variant (see `randomised`), and so is the limit of 0.3.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError, ModelError
from pipelines.metrics import intervals
from pipelines.models.attribution import METHODS, Map, Parts, map_of
from pipelines.models.layers import depth_of_parameters

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

LIMIT = 0.3  # of the mean rank correlation: Graft's own, the paper names none
DRAWS = 3  # random weights
ROWS = 8

Explain = Callable[..., Map]  # that of `map_of`


def check(
    task: Any,
    model: "nn.Module",
    rows: Sequence[Mapping[str, Any]],
    *,
    methods: Sequence[str] = METHODS,
    draws: int = DRAWS,
    stages: bool = True,
    explain: Explain = map_of,
    tick: Callable[[], Any] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """{method: {rank_correlation, ci95, rows, draws, passed, stages}} for rows that the model has not seen.

    `rank_correlation` is the mean over rows and draws, with all weights random; None if no map of the trained model
    varies. `ci95` is the bootstrap interval of that mean over the rows (see pipelines.metrics.intervals); None for
    fewer than two. `passed` is True if it is wholly below LIMIT, False if it is wholly above, and else None. `stages`
    has the same figure of one draw if only the head is random, and if the head and the upper half are. A method that
    does not fit the model is left out, and so is a row that cannot be read. The model is not changed: a copy gets the
    random weights. `tick` is called after each model and row, `passes(rows)` times.
    """
    import numpy as np

    kind = task.data.label_kind
    trained = [(row, parts) for row in rows if (parts := _parts(task, model, row)) is not None]
    learned: dict[str, list[Map]] = {}
    for method in methods:
        try:
            learned[method] = [explain(parts, method, kind) for _, parts in trained]
        except ModelError:
            continue

    def compared(depth: int, seed: int) -> "dict[str, np.ndarray]":
        drawn = randomised(task, model, [row for row, _ in trained], depth=depth, seed=seed)
        found: dict[str, list[float]] = {method: [] for method in learned}
        for place, (row, _) in enumerate(trained):
            parts = task.parts(drawn, row)
            for method, maps in learned.items():
                other = explain(parts, method, kind, number=maps[place].number)
                found[method].append(rank_correlation(maps[place].values, other.values))
            tick()
        return {method: np.asarray(values) for method, values in found.items()}

    if not learned or not trained:
        return {}
    every = [compared(0, seed) for seed in range(draws)]
    result = {method: summary(np.stack([of[method] for of in every]), draws) for method in learned}
    if stages:
        blocks = len(task.layers(model))
        for name, depth in (("head", blocks - 1), ("upper half", blocks // 2)):
            for method, values in compared(depth, 0).items():
                result[method].setdefault("stages", {})[name] = _mean(values)
    return result


def passes(rows: int, draws: int = DRAWS) -> int:
    """How often `check` calls `tick` for so many rows."""
    return rows * (draws + 2)


def _parts(task: Any, model: "nn.Module", row: Mapping[str, Any]) -> Parts | None:
    try:
        parts: Parts = task.parts(model, row)
    except DataError:
        return None
    return parts


def summary(values: "np.ndarray", draws: int) -> dict[str, Any]:
    """The figures of one method from its rank correlations [draws, rows]."""
    import numpy as np

    means = np.array([_mean(row) for row in values.T], dtype=float)
    means = means[np.isfinite(means)]
    mean = _mean(means)
    ci95 = None
    if len(means) > 1:
        ends = intervals.of_mean(means) or [means[0], means[0]]  # all rows have one value
        ci95 = [round(float(end), 4) for end in ends]
    passed = None if ci95 is None or ci95[0] < LIMIT <= ci95[1] else ci95[1] < LIMIT
    return {"rank_correlation": mean, "ci95": ci95, "rows": len(means), "draws": draws, "passed": passed}


def _mean(values: "np.ndarray") -> float | None:
    """The mean of the finite values, rounded; None if there are none."""
    import numpy as np

    finite = values[np.isfinite(values)]
    return round(float(finite.mean()), 4) if len(finite) else None


def rank_correlation(first: "np.ndarray", second: "np.ndarray") -> float:
    """Spearman's rank correlation of the absolute values of two maps of one shape; NaN if one does not vary."""
    import numpy as np
    from scipy.stats import rankdata

    sizes = [np.abs(one).reshape(-1) for one in (first, second)]
    ranks = [rankdata(one) for one in sizes]
    if any(len(one) < 2 or np.ptp(one) == 0 or not np.isfinite(one).all() for one in sizes):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


# ---- random weights ----


def randomised(
    task: Any, model: "nn.Module", rows: Sequence[Mapping[str, Any]], *, depth: int = 0, seed: int = 0
) -> "nn.Module":
    """A copy of a model whose parameters are drawn anew, in the task's layers from number `depth` to the head.

    Every parameter comes from a normal distribution with the mean and the deviation of its trained values. So the
    signal neither fades nor grows without limit in a deep network, and nothing that was learned stays but these two
    numbers. A parameter of one number, or of equal numbers, has no deviation: the size of its mean takes its place, so
    that a scale that was learned does not stay (a bias of zeros, which was not learned, does). Other buffers (tables of
    positions) stay. The running statistics of batch norms belong to the old weights:
    with the new ones, they are measured again on `rows`.
    """
    import torch

    drawn = copy.deepcopy(model)
    depths = depth_of_parameters(drawn, task.layers(drawn))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in drawn.named_parameters():
            if depths[name] >= depth:
                values = parameter.float()
                noise = torch.randn(values.shape, generator=generator).to(values.device)
                mean, spread = values.mean(), values.std(unbiased=False)
                # rounding leaves equal numbers a tiny deviation
                parameter.copy_(noise * torch.where(spread > 1e-6 * mean.abs(), spread, mean.abs()) + mean)
    _measure_statistics(task, drawn, rows)
    return drawn


def _measure_statistics(task: Any, model: "nn.Module", rows: Sequence[Mapping[str, Any]]) -> None:
    """Set the running statistics of the batch norms to those of some rows. The model stays in eval mode."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and not getattr(module, "fixed_statistics", False)
    ]
    if not norms:
        return
    of_shape: dict[Any, list[Parts]] = {}
    for row in rows:
        parts = task.parts(model, row)
        of_shape.setdefault(parts.inputs.shape, []).append(parts)
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over all batches
        module.train()
    with torch.no_grad():
        for same in of_shape.values():
            inputs = [parts.inputs for parts in same]
            # a batch norm of vectors has no statistics of one row
            same[0].logits(torch.cat(inputs if len(inputs) > 1 else [*inputs, same[0].empty]))
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()
