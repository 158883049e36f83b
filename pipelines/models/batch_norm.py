"""Batch norms that keep their statistics.

A network that was made small for inference has its batch norms folded into the convolutions: the running mean is 0 and
the variance is 1. The statistics of the training are lost. In training mode such a layer would normalise again what is
normal already, and the pretrained weights would be of no use.
"""

import logging
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.utils import shares

log = logging.getLogger("graft")


class Fixed(nn.Module):
    """A batch norm that stays in eval mode. Its weight and bias train."""

    fixed_statistics = True

    def train(self, mode: bool = True) -> "Fixed":
        super().train(False)
        return self


def folded(part: Any) -> bool:
    """Whether a batch norm was folded. A new one has the same statistics, but its weight is 1 and its bias is 0."""
    if not isinstance(part, _BatchNorm) or part.running_mean is None or part.running_var is None or not part.affine:
        return False
    if bool(part.running_mean.any()) or bool((part.running_var != 1).any()):
        return False
    return bool((shares.values(part.weight) != 1).any()) or bool(shares.values(part.bias).any())


def keep_folded(model: nn.Module) -> int:
    """Let the folded batch norms of a model that was read keep their statistics. Returns their number."""
    found = [part for part in model.modules() if folded(part)]
    for part in found:
        kind = type(part)
        part.__class__ = type(kind.__name__, (Fixed, kind), {"__module__": kind.__module__})
        part.train(False)
    if found:
        log.info(
            "%d batch norms of this model are folded (mean 0, variance 1): they keep these statistics in training",
            len(found),
        )
    return len(found)
