"""Classics that classify recordings: LSTM, GRU and a small Transformer.

They read `input_features`, float32 [n, steps, 2 * num_mel_bins], log-mel energies of 20 ms a step (two frames of 10 ms
side by side), and `attention_mask` [n, steps], which is 0 in the padding on the right. They give logits
[n, num_labels].
"""

import torch
from torch import Tensor, nn

from pipelines.models.classic_sequences import RecurrentLayer, TransformerBlock, pooled, sinusoids
from pipelines.models.classics import Classic


class RecurrentForAudioClassification(Classic):
    """Layers of cells that read log-mel energies, and one layer on the mean of their outputs over time."""

    def __init__(
        self,
        num_labels: int = 10,
        num_mel_bins: int = 40,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_hidden_layers < 1:
            raise ValueError(f"num_hidden_layers: got {num_hidden_layers}, must be 1 or more")
        size = hidden_size * (2 if bidirectional else 1)
        sizes = [2 * num_mel_bins, *[size] * (num_hidden_layers - 1)]
        self.trunk = nn.ModuleList(
            RecurrentLayer(self.model_type, one, hidden_size, dropout, bidirectional) for one in sizes
        )
        self.head = nn.Linear(size, num_labels)

    def forward(self, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        x, mask = input_features, attention_mask.bool()
        for layer in self.trunk:
            x = layer(x, mask)
        logits: Tensor = self.head(pooled(x, mask, "mean"))
        return logits


class LSTMForAudioClassification(RecurrentForAudioClassification):
    model_type = "lstm"


class GRUForAudioClassification(RecurrentForAudioClassification):
    model_type = "gru"


class TransformerForAudioClassification(Classic):
    """The encoder of Vaswani et al. 2017 on log-mel energies, and one layer on the mean of its outputs over time."""

    model_type = "transformer"

    def __init__(
        self,
        num_labels: int = 10,
        num_mel_bins: int = 40,
        hidden_size: int = 256,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        norm_first: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"stem": nn.Linear(2 * num_mel_bins, hidden_size)})
        self.trunk["layers"] = nn.ModuleList(
            TransformerBlock(hidden_size, num_attention_heads, intermediate_size, dropout, norm_first)
            for _ in range(num_hidden_layers)
        )
        self.trunk["norm"] = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, num_labels)

    def forward(self, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        x, mask = self.trunk["stem"](input_features), attention_mask.bool()
        place = torch.arange(x.shape[1], device=x.device)[None]
        x = self.dropout(x + sinusoids(place, x.shape[2]).to(x.dtype))
        for layer in self.trunk["layers"].children():
            x, _ = layer(x, mask[:, None, None])
        logits: Tensor = self.head(pooled(self.trunk["norm"](x), mask, "mean"))
        return logits
