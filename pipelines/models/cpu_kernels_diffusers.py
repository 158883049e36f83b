"""Attention of diffusers' U-Nets and VAEs by plain products, on a CPU and in bf16, and blocks that keep their images' layout.

See pipelines.models.cpu_kernels.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D


def install(model: Any, most: float) -> None:
    """Where torch's attention is in use. `most` bytes of attention weights are kept for a backward pass; beyond it, torch's."""
    for part in model.modules():
        processor: Any = part.processor if isinstance(part, Attention) else None
        if type(processor) is AttnProcessor2_0:
            part.set_processor(Products(most))
        if type(part) is ResnetBlock2D:
            part.__class__ = Block


class Products(AttnProcessor2_0):
    """diffusers' two ways, whichever is faster for the size and type at hand."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # the names above are read by the library, which drops what it does not find there
        queries = hidden_states.shape[1] if hidden_states.ndim == 3 else hidden_states.shape[2] * hidden_states.shape[3]
        keys = queries if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        weights = 2 * len(hidden_states) * attn.heads * queries * keys
        faster = torch.is_autocast_enabled("cpu") and hidden_states.device.type == "cpu" and weights <= self.most
        way: Any = AttnProcessor if faster else AttnProcessor2_0
        return way.__call__(self, attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)


class Block(ResnetBlock2D):
    """diffusers' block, which in training copies what goes past it out of channels-last memory and the gradient back again.

    It does so for DDP's sake on a GPU (huggingface/diffusers issue 12975); on a CPU it is a tenth of a step.
    """

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        training, self.training = self.training, False  # asked for that copy alone; dropout is a module of its own
        try:
            return super().forward(input_tensor, temb, *args, **kwargs)
        finally:
            self.training = training
