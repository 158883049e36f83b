"""Tensors of unequal length, one per example, end to end in one flat tensor; and what to do with the padding of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Ragged:
    """`flat` is [all lengths together, ...]: the tokens of one example after those of another. `dim` is where a batch has them."""

    flat: "Tensor"
    lengths: np.ndarray
    dim: int

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()

    def put(self, indexes: Sequence[int], values: "Tensor") -> None:
        """Note the rows of a batch, without its padding."""
        for index, value in zip(indexes, values, strict=True):
            start, end = self.starts[index : index + 2]
            self.flat[start:end] = value.movedim(self.dim - 1, 0)[: end - start]

    def take(self, indexes: Sequence[int]) -> "Tensor":
        """A batch again, padded with zeros to its longest."""
        from torch.nn.utils.rnn import pad_sequence

        rows = [self.flat[self.starts[index] : self.starts[index + 1]] for index in indexes]
        return pad_sequence(rows, batch_first=True).movedim(1, self.dim)


def without_padding(values: "Tensor", lengths: Sequence[int], dim: int) -> "Tensor":
    """A copy with zeros where a batch is padded."""
    kept = values.clone()
    for row, length in zip(kept, lengths, strict=True):
        row.movedim(dim - 1, 0)[length:] = 0
    return kept
