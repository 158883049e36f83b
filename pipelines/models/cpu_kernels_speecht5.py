"""SpeechT5's attention for training on a CPU (see pipelines.models.cpu_kernels).

The library's attention drops weights by torch's generator, which draws one number after another: 6 % of a step of a
SpeechT5 with half its sizes. Here the numbers come from numpy's SFC64. All else is computed as in the library.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.speecht5.modeling_speecht5 import SpeechT5Attention

from pipelines.models.cpu_kernels import kept


def install(model: nn.Module) -> None:
    """Use this attention in a model."""
    for part in model.modules():
        if type(part) is SpeechT5Attention:
            part.__class__ = Attention


class Attention(SpeechT5Attention):
    """The library's attention with a faster dropout, in training."""

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **others: Any,
    ) -> Any:
        rate = float(self.dropout or 0.0)
        if not self.training or not 0 < rate < 1 or past_key_values is not None or hidden_states.device.type != "cpu":
            return super().forward(
                hidden_states, key_value_states, past_key_values, attention_mask, position_bias, output_attentions
            )
        rows, length, _ = hidden_states.shape
        source = hidden_states if key_value_states is None else key_value_states
        query = self._heads(self.q_proj(hidden_states) * self.scaling)
        key, value = self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
        scores = torch.bmm(query, key.transpose(1, 2))
        if position_bias is not None:
            scores = scores + torch.matmul(query.transpose(0, 1), position_bias.transpose(-2, -1)).transpose(0, 1)
        shape = (rows, self.num_heads, length, source.shape[1])
        if attention_mask is not None:
            scores = (scores.view(shape) + attention_mask).flatten(0, 1)
        weights = scores.softmax(-1)
        used = weights * kept(weights.shape, rate).to(weights.dtype).mul_(1 / (1 - rate))
        mixed = torch.bmm(used, value).view(rows, self.num_heads, length, self.head_dim).transpose(1, 2)
        states = self.out_proj(mixed.reshape(rows, length, self.embed_dim))
        return states, weights.view(shape) if output_attentions else None

    def _heads(self, states: Tensor) -> Tensor:
        """[rows, steps, size] -> [rows * heads, steps, size of a head]."""
        parts = states.view(len(states), -1, self.num_heads, self.head_dim)
        return parts.transpose(1, 2).reshape(len(states) * self.num_heads, -1, self.head_dim)
