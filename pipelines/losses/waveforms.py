"""The negative log-likelihood of samples, in nats, summed over the samples of each recording that count.

- mulaw: the cross entropy of a softmax over 256 codes (van den Oord et al. 2016).
- logistics: a mixture of logistics whose probabilities are those of the levels of 16 bits (Salimans et al. 2017).
"""

import math
from typing import TYPE_CHECKING

from torch.nn import functional as f

if TYPE_CHECKING:
    from torch import Tensor

LEVEL = 1 / 65_535  # half of the distance of two levels, which lie from -1 to 1
LOWEST = -9.0  # of the logarithm of a scale, as in pipelines.models.wavenet_network
LOG_WIDTH = math.log(2 * LEVEL)
RARE = 1e-5  # below this probability the density stands for the difference of two rounded numbers


def nats(outputs: "Tensor", targets: "Tensor", valid: "Tensor", kind: str) -> "Tensor":
    """float32 [batch]. `outputs` [batch, time, 256 or 3 * mixtures], `targets` [batch, time] codes or samples,
    `valid` [batch, time] of bool.
    """
    rows, times = valid.nonzero(as_tuple=True)
    chosen, wanted = outputs[rows, times].float(), targets[rows, times]
    each = f.cross_entropy(chosen, wanted, reduction="none") if kind == "mulaw" else logistics(chosen, wanted)
    return each.new_zeros(len(valid)).index_add(0, rows, each)


def logistics(outputs: "Tensor", samples: "Tensor") -> "Tensor":
    """Nats of each sample [n] under a mixture of logistics [n, 3 * mixtures]: weights, means, logarithms of scales."""
    import torch

    weights, means, scales = outputs.chunk(3, -1)
    scales = scales.clamp(min=LOWEST)
    distance = samples.float()[:, None] - means
    narrow = torch.exp(-scales)
    above, below = narrow * (distance + LEVEL), narrow * (distance - LEVEL)
    between = torch.sigmoid(above) - torch.sigmoid(below)
    middle = narrow * distance
    density = middle - scales - 2 * f.softplus(middle) + LOG_WIDTH
    likely = torch.where(between > RARE, between.clamp(min=RARE).log(), density)
    first, last = (samples < -1 + LEVEL)[:, None], (samples > 1 - LEVEL)[:, None]
    logs = torch.where(first, f.logsigmoid(above), torch.where(last, -f.softplus(below), likely))
    return -torch.logsumexp(logs + weights.log_softmax(-1), -1)
