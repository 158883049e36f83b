"""Tensors of unequal length, stored without padding: the rows of all examples follow each other in one flat tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Ragged:
    """Values of examples that have different lengths.

    `flat` is [sum of all lengths, ...]: the tokens of each example follow those of the one before. `lengths` has one
    entry per example; `dim` is the dimension of a padded batch that holds the tokens.
    """

    flat: "Tensor"
    lengths: np.ndarray
    dim: int

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()

    def put(self, indexes: Sequence[int], values: "Tensor") -> None:
        """Store the rows of a padded batch without the padding."""
        for index, value in zip(indexes, values, strict=True):
            start, end = self.starts[index : index + 2]
            self.flat[start:end] = value.movedim(self.dim - 1, 0)[: end - start]

    def take(self, indexes: Sequence[int]) -> "Tensor":
        """The rows at `indexes` as one batch, padded with zeros to the longest row."""
        from torch.nn.utils.rnn import pad_sequence

        rows = [self.flat[self.starts[index] : self.starts[index + 1]] for index in indexes]
        return pad_sequence(rows, batch_first=True).movedim(1, self.dim)


def without_padding(values: "Tensor", lengths: Sequence[int], dim: int) -> "Tensor":
    """A copy of a padded batch with zeros in its padding."""
    kept = values.clone()
    for row, length in zip(kept, lengths, strict=True):
        row.movedim(dim - 1, 0)[length:] = 0
    return kept
