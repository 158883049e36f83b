"""Whether a run ended far from settled, so that more steps would still change its model much.

Two signs, whose thresholds are a judgement: they were chosen by looking at finished runs of several tasks, many small.

- The loss: of its fall since the first tenth of the steps, a fifth or more came in the last third, and it fell by a
  tenth or more there, although the schedules lower the learning rate to 0 in these steps. This says nothing if the
  best checkpoint is from before these steps: such a run overfits.
- The confidence: on validation the share of right answers is higher by 0.2 or more than the mean confidence.
  Classifiers that were trained to the end are too sure, not too unsure (Guo et al. 2017, On Calibration of Modern
  Neural Networks), so one that is right and unsure has not fitted its training rows. Label smoothing and mixup explain
  a smaller difference.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.metrics.statistics import Statistics

ENTRIES = 6  # of the log, at least: with fewer, the means of its thirds say nothing
ROWS = 20  # of validation, at least
SHARE, FALL, DOUBT = 0.2, 0.1, 0.2


def unsettled(log: Sequence[Mapping[str, Any]], validation: "Statistics | None", best: float) -> str | None:
    """Why the run is far from settled, as a clause; None if nothing says so.

    `log` has the entries of log.jsonl; `best` is the share of the steps after which the best checkpoint came.
    """
    return (still_falls(log) if best > 2 / 3 else None) or still_doubts(validation)


def still_falls(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Whether the training loss of the last stage still falls steeply at its end."""
    losses = [
        entry["loss"] for entry in log if entry.get("loss") is not None and entry.get("stage", "train") == "train"
    ]
    if len(losses) < ENTRIES or not all(map(math.isfinite, losses)):
        return None
    third = len(losses) // 3
    first, middle, last = (
        _mean(part) for part in (losses[: len(losses) // 10 or 1], losses[third : 2 * third], losses[2 * third :])
    )
    fall = middle - last
    if fall < SHARE * (first - last) or fall < FALL * middle or first <= last:
        return None
    return f"the training loss still fell by {fall / middle:.0%} in the last third of the steps"


def still_doubts(validation: "Statistics | None") -> str | None:
    """Whether a classifier is much less sure than it is right."""
    if validation is None or not {"correct", "confidence"} <= validation.keys() or len(validation.ids) < ROWS:
        return None
    right, sure = float(validation["correct"].mean()), float(validation["confidence"].mean())
    if right - sure < DOUBT:
        return None
    return f"it is right on {right:.0%} of the validation rows, with a mean confidence of only {sure:.0%}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
