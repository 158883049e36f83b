"""Masks of small logits at the size of a photo.

Only the box of pixels that can be inside a mask is enlarged, some columns at a time: a mask takes as long as its box is
large, and little memory. The enlarged values are those of torch's bilinear interpolation, up to rounding.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.data.image import run_lengths

COLUMNS = 256  # that are enlarged together


def drawn(logits: Tensor, size: Sequence[int]) -> tuple[dict[str, Any], list[float], float] | None:
    """COCO's run lengths of the pixels whose logits are above 0, their box (x1, y1, x2, y2), and their mean
    probability; None if there are none. `logits` [h, w] are enlarged to `size` (height, width).
    """
    height, width = size
    parts, inside, total = [], 0, torch.zeros((), dtype=torch.float64, device=logits.device)
    for left, top, block in above_zero(logits, height, width):
        above = block > 0
        edges = run_lengths.edges_of_columns(above.cpu().numpy(), left, top, height)
        if len(edges):
            parts.append(edges)
            inside += int((edges[1::2] - edges[::2]).sum())
            total += block.sigmoid_().mul_(above).sum()
    if not parts:
        return None
    edges = run_lengths.joined(parts)
    box = [float(side) for side in run_lengths.around(edges, height)]
    return run_lengths.packed(edges, height, width), box, float(total) / inside


def runs(logits: Tensor, size: Sequence[int]) -> dict[str, Any]:
    """COCO's run lengths of the pixels whose logits are above 0. `logits` [h, w] are enlarged to `size`."""
    height, width = size
    parts = [
        run_lengths.edges_of_columns((block > 0).cpu().numpy(), left, top, height)
        for left, top, block in above_zero(logits, height, width)
    ]
    return run_lengths.packed(run_lengths.joined(parts), height, width)


def above_zero(logits: Tensor, height: int, width: int) -> Iterator[tuple[int, int, Tensor]]:
    """The left and the top of a block of columns, and its values [columns, rows]. Blocks hold all values above 0."""
    above = (logits > 0).cpu().numpy()
    rows, columns = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    if not len(rows):
        return
    top, bottom = _reach(int(rows[0]), int(rows[-1]), logits.shape[0], height)
    first, last = _reach(int(columns[0]), int(columns[-1]), logits.shape[1], width)
    upper, lower, down = _places(top, bottom, logits.shape[0], height, logits.device)
    start, end = int(upper[0]), int(lower[-1]) + 1
    used, upper, lower = logits[start:end], upper - start, lower - start
    for left in range(first, last, COLUMNS):
        before, after, along = _places(left, min(left + COLUMNS, last), logits.shape[1], width, logits.device)
        lines = (used[:, before] * (1 - along) + used[:, after] * along).T.contiguous()
        block = lines.index_select(1, upper).mul_(1 - down)  # in place, which is three times as fast
        yield left, top, block.add_(lines.index_select(1, lower).mul_(down))


def _reach(first: int, last: int, small: int, large: int) -> tuple[int, int]:
    """The range of places in the large line on which the places `first` to `last` of the small one have an effect."""
    scale = large / small
    begin, end = int((first - 0.5) * scale) - 1, int((last + 1.5) * scale) + 2
    return max(0, begin), min(large, end)


def _places(first: int, end: int, small: int, large: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For places of the large line: the places before and after it in the small one, and the weight of the second."""
    scale = torch.tensor(small, dtype=torch.float32) / large
    exact = (scale.to(device) * (torch.arange(first, end, device=device) + 0.5) - 0.5).clamp(min=0)
    before = exact.long().clamp(max=small - 1)
    return before, (before + 1).clamp(max=small - 1), (exact - before).clamp(0, 1)
