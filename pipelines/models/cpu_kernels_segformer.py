"""SegFormer's head for a CPU (see pipelines.models.cpu_kernels).

The head maps the features of each stage linearly, enlarges them to the largest, joins them, and maps them linearly
again. Both maps together are one product of matrices, and enlarging is linear too. So the product can come first, which
gives the same up to rounding. With the sizes of B0, it takes a thirtieth of the multiplications.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead


def install(model: nn.Module) -> None:
    """Use this head in a model."""
    for part in model.modules():
        if type(part) is SegformerDecodeHead:
            part.__class__ = Head


class Head(SegformerDecodeHead):
    """The library's head with one linear map for each stage."""

    def forward(self, encoder_hidden_states: Any, **kwargs: Any) -> Tensor:
        maps: list[Any] = [one.proj for one in self.linear_projections]
        fuse = self.linear_fuse
        if (
            any(type(one) is not nn.Linear or type(one.weight) is not nn.Parameter for one in maps)
            or type(fuse) is not nn.Conv2d
            or type(fuse.weight) is not nn.Parameter  # a share of it, under FSDP
            or any(state.ndim != 4 or state.device.type != "cpu" for state in encoder_hidden_states)
        ):
            found: Tensor = super().forward(encoder_hidden_states, **kwargs)
            return found
        size = encoder_hidden_states[0].shape[2:]
        shares = fuse.weight.flatten(1).chunk(len(maps), 1)[::-1]  # the last stage comes first
        total: Tensor | None = None
        for state, own, share in zip(encoder_hidden_states, maps, shares, strict=True):
            with torch.autocast("cpu", enabled=False):
                # layers that only predict may be kept in bf16, some of them alone
                kind = torch.promote_types(share.dtype, torch.float32)
                weight, bias = (share.to(kind) @ one.to(kind) for one in (own.weight, own.bias))
                weight, bias = weight.to(own.weight.dtype), bias.to(own.weight.dtype)
            mapped = f.linear(state.flatten(2).transpose(1, 2), weight, bias)
            mapped = mapped.unflatten(1, state.shape[2:]).permute(0, 3, 1, 2)  # in channels-last memory
            if mapped.shape[2:] != size:
                mapped = f.interpolate(mapped, size=size, mode="bilinear", align_corners=False)
            total = mapped if total is None else total + mapped
        result: Tensor = self.classifier(self.dropout(self.activation(self.batch_norm(total))))
        return result
