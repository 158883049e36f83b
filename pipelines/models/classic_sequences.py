"""Layers that read sequences, for the classics of texts and of audio: recurrent cells, the Transformer's block, and
ways to make one vector of many."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f


class RecurrentLayer(nn.Module):
    """A layer of LSTM cells (Hochreiter and Schmidhuber 1997) or GRU cells (Cho et al. 2014).

    With `bidirectional`, a second row of cells reads from the end (Schuster and Paliwal 1997).
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int, dropout: float, bidirectional: bool) -> None:
        super().__init__()
        cells = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.cells = cells(input_size, hidden_size, batch_first=True)
        self.backwards = cells(input_size, hidden_size, batch_first=True) if bidirectional else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [n, length, size], bool mask [n, length] with padding (false) on the right -> [n, length, new size]."""
        found: Tensor = self.cells(x)[0]
        if self.backwards is not None:
            place = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
            size = mask.sum(1, keepdim=True) if mask is not None else x.shape[1]
            turned = torch.where(place < size, size - 1 - place, place)[:, :, None]  # its own inverse
            other = self.backwards(x.gather(1, turned.expand(x.shape)))[0]
            found = torch.cat([found, other.gather(1, turned.expand(other.shape))], 2)
        dropped: Tensor = self.dropout(found)
        return dropped

    def step(self, x: Tensor, state: Any, opens: Tensor, edges: list[int]) -> tuple[Tensor, Any]:
        """Go on from the state of earlier tokens, and forget it where `opens` [n, length] is true.

        `edges` are the columns with such a place. A state is None or a tuple of tensors [1, n, hidden_size].
        """
        parts = []
        for begin, end in pairwise(sorted({0, *edges, x.shape[1]})):
            if state is not None:
                goes_on = ~opens[:, begin][None, :, None]
                state = tuple(value * goes_on for value in state)
                state = state if isinstance(self.cells, nn.LSTM) else state[0]
            found, state = self.cells(x[:, begin:end], state)
            state = state if isinstance(self.cells, nn.LSTM) else (state,)
            parts.append(found)
        return self.dropout(torch.cat(parts, 1) if len(parts) > 1 else parts[0]), state


class TransformerBlock(nn.Module):
    """Attention of many heads and two dense layers, each added to its input (Vaswani et al. 2017).

    The sums are normalised as published, or with `norm_first` the inputs are, which trains without a warm-up (Xiong et
    al. 2020).
    """

    def __init__(
        self, hidden_size: int, num_attention_heads: int, intermediate_size: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        if hidden_size % num_attention_heads:
            raise ValueError(f"hidden_size: got {hidden_size}, must be a multiple of {num_attention_heads} heads")
        self.heads, self.norm_first = num_attention_heads, norm_first
        self.attention = nn.Linear(hidden_size, 3 * hidden_size)  # queries, keys and values
        self.mixed = nn.Linear(hidden_size, hidden_size)
        self.dense = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size), nn.ReLU(), nn.Linear(intermediate_size, hidden_size)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None) -> tuple[Tensor, Any]:
        """x [n, length, size]; mask, bool, true where a place (row) may look at another (column); keys and values of
        earlier tokens -> output like x, and keys and values of all tokens."""
        n, length, size = x.shape
        seen = self.norms[0](x) if self.norm_first else x
        query, key, value = self.attention(seen).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        found = f.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.dropout(self.mixed(found.transpose(1, 2).reshape(n, length, size)))
        x = x if self.norm_first else self.norms[0](x)
        x = x + self.dropout(self.dense(self.norms[1](x) if self.norm_first else x))
        return (x if self.norm_first else self.norms[1](x)), (key, value)


def sinusoids(places: Tensor, size: int) -> Tensor:
    """Sines and cosines of positions [n, length] -> [n, length, size] (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, size, 2, device=places.device) * (-math.log(10_000) / size))
    angle = places[:, :, None] * rate
    return torch.stack([angle.sin(), angle.cos()], 3).flatten(2)[:, :, :size]


def pooled(x: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector of each sequence [n, length, size]: the mean or the largest values of its real places, or the last
    one."""
    if how == "mean":
        return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    if how == "max":
        return x.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
    return x[torch.arange(len(x), device=x.device), mask.sum(1).clamp(min=1) - 1]
