"""Classics that classify texts or continue them: LSTM, GRU and a small Transformer.

They read `input_ids` int64 [n, length]. Classifiers give logits [n, num_labels]. Language models give Scores: `logits`
[n, length, vocab_size] of the next token at each place, and a state from which the next call goes on.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipelines.models.classic_sequences import RecurrentLayer, TransformerBlock, pooled, sinusoids
from pipelines.models.classics import Classic

# Keys of `model.config` beside the arguments of a network: its tokenizer (models.learned_tokenizer), and word vectors.
RECIPE = {
    "tokenizer": "bpe",
    "lowercase": False,
    "word_vectors": None,
    "freeze_word_vectors": False,
}


class Scores(NamedTuple):
    logits: Tensor
    past_key_values: Any = None


class RecurrentForSequenceClassification(Classic):
    """A vector for each token, layers of cells, and one layer on the `pooling` of their outputs: mean, max or last."""

    def __init__(
        self,
        num_labels: int = 2,
        vocab_size: int = 10_000,
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "max", "last"):
            raise ValueError(f"pooling: got {pooling!r}, must be mean, max or last")
        self.pooling = "ends" if pooling == "last" and bidirectional else pooling
        if num_hidden_layers < 1:
            raise ValueError(f"num_hidden_layers: got {num_hidden_layers}, must be 1 or more")
        size = hidden_size * (2 if bidirectional else 1)
        self.trunk = nn.ModuleDict({"embedding": nn.Embedding(vocab_size, embedding_size)})
        sizes = [embedding_size, *[size] * (num_hidden_layers - 1)]
        self.trunk["layers"] = nn.ModuleList(
            RecurrentLayer(self.model_type, one, hidden_size, dropout, bidirectional) for one in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x, mask = self.dropout(self.trunk["embedding"](input_ids)), attention_mask.bool()
        for layer in self.trunk["layers"]:
            x = layer(x, mask)
        if self.pooling == "ends":  # each direction ends at another end of the text
            half = x.shape[2] // 2
            found = torch.cat([pooled(x[:, :, :half], mask, "last"), x[:, 0, half:]], 1)
        else:
            found = pooled(x, mask, self.pooling)
        logits: Tensor = self.head(found)
        return logits


class LSTMForSequenceClassification(RecurrentForSequenceClassification):
    model_type = "lstm"


class GRUForSequenceClassification(RecurrentForSequenceClassification):
    model_type = "gru"


class TransformerForSequenceClassification(Classic):
    """The encoder of Vaswani et al. 2017, and one layer on the mean of its outputs."""

    model_type = "transformer"

    def __init__(
        self,
        num_labels: int = 2,
        vocab_size: int = 10_000,
        hidden_size: int = 256,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        norm_first: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"embedding": nn.Embedding(vocab_size, hidden_size)})
        nn.init.normal_(self.trunk["embedding"].weight, std=hidden_size**-0.5)
        self.trunk["layers"] = nn.ModuleList(
            TransformerBlock(hidden_size, num_attention_heads, intermediate_size, dropout, norm_first)
            for _ in range(num_hidden_layers)
        )
        self.trunk["norm"] = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x, mask = self.trunk["embedding"](input_ids), attention_mask.bool()
        place = torch.arange(input_ids.shape[1], device=x.device)[None]
        x = self.dropout(x * x.shape[2] ** 0.5 + sinusoids(place, x.shape[2]).to(x.dtype))
        for layer in self.trunk["layers"]:
            x, _ = layer(x, mask[:, None, None])
        logits: Tensor = self.head(pooled(self.trunk["norm"](x), mask, "mean"))
        return logits


class RecurrentForCausalLM(Classic):
    """A vector for each token, layers of cells, and one layer that scores the vocabulary.

    The state begins anew where `position_ids` is 0. With `tie_word_embeddings`, the last layer has the vectors of the
    tokens as its weights (Press and Wolf 2017).
    """

    def __init__(
        self,
        vocab_size: int = 10_000,
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        dropout: float = 0.0,
        tie_word_embeddings: bool = False,
    ) -> None:
        super().__init__()
        if num_hidden_layers < 1:
            raise ValueError(f"num_hidden_layers: got {num_hidden_layers}, must be 1 or more")
        if tie_word_embeddings and embedding_size != hidden_size:
            raise ValueError(f"embedding_size: got {embedding_size}, must be hidden_size to be tied ({hidden_size})")
        self.trunk = nn.ModuleDict({"embedding": nn.Embedding(vocab_size, embedding_size)})
        nn.init.normal_(self.trunk["embedding"].weight, std=0.1)
        sizes = [embedding_size, *[hidden_size] * (num_hidden_layers - 1)]
        self.trunk["layers"] = nn.ModuleList(
            RecurrentLayer(self.model_type, one, hidden_size, dropout, False) for one in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)
        if tie_word_embeddings:
            self.head.weight = self.trunk["embedding"].weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
        **unused: Any,
    ) -> Scores:
        x = self.dropout(self.trunk["embedding"](input_ids))
        opens = torch.zeros_like(input_ids, dtype=torch.bool) if position_ids is None else position_ids == 0
        opens[:, :-1] &= ~opens[:, 1:]  # of padding, the last place: a text of one token has no next token
        edges = opens.any(0).nonzero()[:, 0].tolist()
        states = []
        for number, layer in enumerate(self.trunk["layers"]):
            x, state = layer.step(x, past_key_values[number] if past_key_values else None, opens, edges)
            states.append(state)
        return Scores(self.head(x[:, -logits_to_keep:]), tuple(states) if use_cache else None)


class LSTMForCausalLM(RecurrentForCausalLM):
    model_type = "lstm"


class GRUForCausalLM(RecurrentForCausalLM):
    model_type = "gru"


class TransformerForCausalLM(Classic):
    """The decoder of Vaswani et al. 2017: each place sees the earlier ones of its text, which begins at position 0."""

    model_type = "transformer"

    def __init__(
        self,
        vocab_size: int = 10_000,
        hidden_size: int = 256,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        norm_first: bool = True,
        dropout: float = 0.0,
        tie_word_embeddings: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"embedding": nn.Embedding(vocab_size, hidden_size)})
        nn.init.normal_(self.trunk["embedding"].weight, std=hidden_size**-0.5)
        self.trunk["layers"] = nn.ModuleList(
            TransformerBlock(hidden_size, num_attention_heads, intermediate_size, dropout, norm_first)
            for _ in range(num_hidden_layers)
        )
        self.trunk["norm"] = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)
        if tie_word_embeddings:
            self.head.weight = self.trunk["embedding"].weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
        **unused: Any,
    ) -> Scores:
        past = past_key_values[0][0].shape[2] if past_key_values else 0
        index = torch.arange(past, past + input_ids.shape[1], device=input_ids.device)[None]
        place = index if position_ids is None else position_ids
        seen = torch.arange(past + input_ids.shape[1], device=input_ids.device)
        mask = (seen <= index[:, :, None]) & (seen >= (index - place)[:, :, None])  # its own text up to itself
        x = self.trunk["embedding"](input_ids)
        x = self.dropout(x * x.shape[2] ** 0.5 + sinusoids(place, x.shape[2]).to(x.dtype))
        kept = []
        for number, layer in enumerate(self.trunk["layers"]):
            x, state = layer(x, mask[:, None], past_key_values[number] if past_key_values else None)
            kept.append(state)
        found = self.trunk["norm"](x[:, -logits_to_keep:])
        return Scores(self.head(found), tuple(kept) if use_cache else None)
