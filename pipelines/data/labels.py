"""Labels as data sets write them, classes or numbers, and whether a model knows them."""

import logging
import math
import statistics
from collections.abc import Sequence
from typing import Any

from pipelines.errors import DataError

log = logging.getLogger("graft")


def several(label: Any) -> list[str]:
    """Several labels of one row: a list, or text split at `|`."""
    return list(label) if isinstance(label, list) else [part.strip() for part in label.split("|") if part.strip()]


def check_known(found: set[str], classes: Sequence[str]) -> None:
    """Say which labels of some data the model does not know. Raises DataError where it knows none."""
    unknown = sorted(found - set(classes))
    some = ", ".join(unknown[:5])
    if unknown and len(unknown) == len(found):
        known = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise DataError(f"the model knows none of the classes of these data ({some}): it tells apart {known}")
    if unknown:
        log.warning("the model does not know %d of %d classes (%s): their rows count as errors", len(unknown), len(found), some)


# ---- numbers ----


def number(label: Any) -> float:
    """A label that is a number. Raises DataError for anything else."""
    try:
        value = float(label)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"label is no number: {label!r} (options.regression wants one per row)")
    return value


def check_numbers(labels: Sequence[float], source: str) -> None:
    """Raises DataError for labels that are all the same; warns of a spread that a usual learning rate cannot follow."""
    spread = statistics.pstdev(labels)
    if spread == 0:
        raise DataError(f"{source}: every label of train is {labels[0]:g}: there is nothing to learn")
    if not 0.05 < spread < 20:
        middle = statistics.fmean(labels)
        log.warning("the labels spread by %.3g around %.3g: training goes best where they spread by about 1", spread, middle)
