"""Layers of diffusers' U-Nets and VAEs for training on a CPU in bf16 (see pipelines.models.cpu_kernels).

Attention as plain matrix products, and residual blocks that keep the memory format of their images.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D


def install(model: Any, most: float) -> None:
    """Use these layers in a model.

    Attention weights of more than `most` bytes are left to torch's kernel, which keeps none.
    """
    for part in model.modules():
        processor: Any = part.processor if isinstance(part, Attention) else None
        if type(processor) is AttnProcessor2_0:
            part.set_processor(Products(most))
        if type(part) is ResnetBlock2D:
            part.__class__ = Block


class Products(AttnProcessor2_0):
    """diffusers' two attention processors; the faster one is chosen by size and precision."""

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
        # diffusers reads the parameter names above and drops arguments that it does not find there
        queries = hidden_states.shape[1] if hidden_states.ndim == 3 else hidden_states.shape[2] * hidden_states.shape[3]
        keys = queries if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        weights = 2 * len(hidden_states) * attn.heads * queries * keys
        faster = torch.is_autocast_enabled("cpu") and hidden_states.device.type == "cpu" and weights <= self.most
        way: Any = AttnProcessor if faster else AttnProcessor2_0
        return way.__call__(self, attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)


class Block(ResnetBlock2D):
    """diffusers' residual block without the copies that it makes in training.

    In training, the block copies the skip input out of channels-last memory, and its gradient back, because DDP on a
    GPU needs it (huggingface/diffusers issue 12975). On a CPU these copies take a tenth of a step.
    """

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # the block reads `training` for that copy only; dropout is a module with a flag of its own
        training, self.training = self.training, False
        try:
            return super().forward(input_tensor, temb, *args, **kwargs)
        finally:
            self.training = training
