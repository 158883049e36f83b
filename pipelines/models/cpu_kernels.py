"""Attention, dropout, group norm, batch norm and depthwise convolutions for training on a CPU.

torch's own attention, dropout and group norm take a third of a step in bf16.

The backward pass of torch's attention kernel reaches 30 GFLOP/s, matrix products reach 400; and the kernel has no
dropout. Torch's dropout draws one number after another (6 ns each). Here attention is four plain matrix products, and
dropout takes its bits from numpy's SFC64, seeded by torch, so the same seed still gives the same run.

Measured in bf16, forward and backward, two cores (batch x heads x tokens x size):
6 x 12 x 170 x 32: 23 -> 10 ms; 8 x 6 x 197 x 64 (ViT-S): 22 -> 8 ms; 1 x 12 x 1024 x 64: 77 -> 44 ms.

A U-Net of diffusers (32-64-64 channels, 28 px, batch 32): 115 images/s in fp32 and 130 in bf16; 151 with attention as
matrix products; 181 with group norms in fp32 too, which torch computes in half the time.

torch's backward pass of a depthwise convolution in bf16 takes 3 to 15 times as long as in fp32, if the kernel is 5 x 5
or larger, or moves by more than one pixel. Here it is computed in fp32. Forward and backward of 4 x 1152 x 8 x 8 with
5 x 5 on one core: 26 -> 4 ms; 4 x 96 x 129 x 129 with 3 x 3 and stride 2: 45 -> 7 ms.

torch 2.15's batch norm gives wrong gradients for one image whose features become tokens (flattened, transposed, and
then normalised, multiplied or joined with others). Their gradient has the channels as its last dimension in memory, and
an unusual stride for the first dimension: the kernel reads it in the order of its input. All gradients together
were wrong by 10% for CvT, 1.5% for XCiT, and 40 to 60% for RT-DETR and D-FINE. A copy in the usual order is right.
"""

import functools
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "graft_cpu"
# Bytes of attention weights that one layer may keep for its backward pass. Above this, torch's kernel is used:
# it keeps none.
MOST = 64e6


def install(model: nn.Module, device: torch.device) -> None:
    """Make a model use these layers if it runs on a CPU. Its weights, configuration and saved files do not change."""
    if device.type != "cpu":
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for part in model.modules():
        if type(part) is nn.Dropout:
            part.__class__ = Dropout
        if type(part) is nn.GroupNorm:
            part.__class__ = GroupNorm
        if isinstance(part, nn.Conv2d) and _slow_in_bf16(part):
            if type(part) is nn.Conv2d:
                part.__class__ = Depthwise
            elif type(part).__name__ == "Conv2dSame" and type(part).__module__.startswith("timm."):
                part.__class__ = DepthwiseSame
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)) and _order_gradient not in part._forward_hooks.values():
            part.register_forward_hook(_order_gradient)
        if (
            isinstance(part, PreTrainedModel)
            and part.config._attn_implementation == "sdpa"
            and part._can_set_attn_implementation()
        ):
            part.set_attn_implementation(NAME)
    if "diffusers" in sys.modules:  # otherwise the model has no diffusers layers
        from pipelines.models.cpu_kernels_diffusers import install as install_diffusers

        install_diffusers(model, MOST)
    if "segmentation_models_pytorch" in sys.modules:
        from pipelines.models.cpu_kernels_unet import install as install_unet

        install_unet(model)
    if "transformers.models.segformer.modeling_segformer" in sys.modules:
        from pipelines.models.cpu_kernels_segformer import install as install_segformer

        install_segformer(model)
    if "transformers.models.speecht5.modeling_speecht5" in sys.modules:
        from pipelines.models.cpu_kernels_speecht5 import install as install_speecht5

        install_speecht5(model)
    if any(isinstance(part, nn.Conv3d) for part in model.modules()):
        from pipelines.models.cpu_kernels_video import install as install_video

        install_video(model)


def _order_gradient(module: nn.Module, given: Any, output: torch.Tensor) -> None:
    """Let a batch norm get the gradient of one image in the usual order of memory."""
    if torch.compiler.is_compiling():  # the compiler's kernels read the strides
        return
    if len(output) == 1 and output.requires_grad and output.device.type == "cpu":
        output.register_hook(torch.Tensor.contiguous)


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm; bf16 images [n, channels, height, width] are normalised in fp32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.bfloat16 or input.ndim != 4 or input.device.type != "cpu" or self.weight is None:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            result: torch.Tensor = _GroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return result


class _GroupNorm(torch.autograd.Function):
    """Group norm of bf16, computed in fp32. The bf16 input is kept for the backward pass, in half the memory."""

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        size = (input.shape[0], input.shape[1], input.shape[2] * input.shape[3], groups)
        result, mean, deviation = torch.ops.aten.native_group_norm(
            _dense(input.float()), weight.float(), bias.float(), *size, eps
        )
        ctx.save_for_backward(input, weight, mean, deviation)
        ctx.size = size
        rounded: torch.Tensor = result.to(input.dtype)
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight, mean, deviation = ctx.saved_tensors
        images = _dense(input.float())
        given = gradient.float().contiguous(memory_format=_format(images))
        of_input, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            given, images, mean, deviation, weight.float(), *ctx.size, list(ctx.needs_input_grad[:3])
        )
        parts = (of_input.to(input.dtype) if of_input is not None else None, of_weight, of_bias)
        return (
            *(part if part is None or place == 0 else part.to(weight.dtype) for place, part in enumerate(parts)),
            None,
            None,
        )


def _format(images: torch.Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _dense(images: torch.Tensor) -> torch.Tensor:
    """The images in one of the two memory formats that the kernel reads."""
    return images.contiguous(memory_format=_format(images))


def _slow_in_bf16(part: nn.Conv2d) -> bool:
    depthwise = part.groups == part.in_channels == part.out_channels > 1 and part.padding_mode == "zeros"
    return depthwise and not isinstance(part.padding, str) and (max(part.kernel_size) >= 5 or max(part.stride) > 1)


class Depthwise(nn.Conv2d):
    """torch's depthwise convolution; the backward pass of bf16 is computed in fp32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._depthwise(input, self.padding)

    def _depthwise(self, input: torch.Tensor, padding: Any) -> torch.Tensor:
        weight, bias = self.weight, self.bias
        if input.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            input, weight, bias = input.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        how = (self.stride, padding, self.dilation)
        if input.dtype != torch.bfloat16 or input.device.type != "cpu" or not torch.is_grad_enabled():
            return nn.functional.conv2d(input, weight, bias, *how, self.groups)
        result: torch.Tensor = _Depthwise.apply(input, weight, bias, *how)
        return result


class DepthwiseSame(Depthwise):
    """The same for timm's convolution with TensorFlow's padding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        from timm.layers.padding import pad_same

        padded: torch.Tensor = pad_same(input, list(self.kernel_size), list(self.stride), list(self.dilation))
        return self._depthwise(padded, (0, 0))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.bias, ctx.how = bias is not None, (list(stride), list(padding), list(dilation))
        return nn.functional.conv2d(input, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.bias and ctx.needs_input_grad[2]]
        parts = torch.ops.aten.convolution_backward(
            *(gradient.float(), input.float(), weight.float(), [len(weight)] if ctx.bias else None),
            *(*ctx.how, False, [0, 0], len(weight), wanted),
        )
        return (*(part.to(input.dtype) if part is not None else None for part in parts), None, None, None)


class Dropout(nn.Dropout):
    """torch's Dropout with a faster random generator."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not 0 < self.p < 1 or self.inplace or input.device.type != "cpu":
            return super().forward(input)
        return input * kept(input.shape, self.p).to(input.dtype).mul_(1 / (1 - self.p))


def kept(shape: torch.Size, p: float) -> torch.Tensor:
    """bool [*shape]: true with probability 1 - p (to 1 part in 65,536), drawn from torch's random state."""
    seed = int(torch.randint(2**62, ()))
    numbers = np.random.SFC64(seed).random_raw(-(-shape.numel() // 4)).view(np.uint16)[: shape.numel()]
    return torch.from_numpy(numbers >= round(p * 65536)).view(shape)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers: [batch, heads, queries, size] each -> [batch, queries, heads, size].

    transformers' own function is called where it is faster or where this one lacks a feature: fp32 without dropout,
    decoding of one token, a position bias, weights larger than MOST.
    """
    kind = _kind(query, key, value)
    weights = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] * kind.itemsize
    faster = query.device.type == "cpu" and (kind == torch.bfloat16 or dropout > 0)
    unknown = any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap", "s_aux"))
    if not torch.is_autocast_enabled(query.device.type):  # else torch's kernel casts its inputs itself
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            attention_mask = attention_mask.to(kind)
    if not faster or unknown or query.shape[2] == 1 or weights > MOST:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    bias = _bias(attention_mask, causal, query, key)
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    result: torch.Tensor = Attention.apply(query, key, value, bias, scaling, dropout)
    return result.transpose(1, 2).contiguous(), None


def _kind(*inputs: torch.Tensor) -> torch.dtype:
    """The type in which torch's own kernel would compute.

    The inputs may be of several types: Llama's rotary embedding gives queries and keys in fp32, and values are bf16.
    """
    if inputs[0].device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return functools.reduce(torch.promote_types, [one.dtype for one in inputs])


def _bias(mask: torch.Tensor | None, causal: bool, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """The bias that is added to the scores: the lowest number where attention is masked.

    A bool mask is true where it is allowed.
    """
    if mask is None and causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    if mask is None or mask.dtype != torch.bool:
        return mask if mask is None else mask.to(query.dtype)
    return torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)


class Attention(torch.autograd.Function):
    """softmax(q k^T * scale + bias), with dropout, times v.

    The attention weights and the dropout mask are kept for backward.
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, bias: Any, scale: float, p: float) -> torch.Tensor:
        (batch, heads, length, _), over = query.shape, key.shape[2]
        query, key, value = (query * scale).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        scores = torch.bmm(query, key.transpose(1, 2))
        if bias is not None:
            scores.view(batch, heads, length, over).add_(bias)
        weights = torch.softmax(scores, -1)
        kept_ = kept(weights.shape, p) if p > 0 else None
        ctx.save_for_backward(query, key, value, weights, kept_)
        ctx.scale, ctx.p, ctx.heads = scale, p, heads
        mixed: torch.Tensor = torch.bmm(_dropped(weights, kept_, p), value).unflatten(0, (batch, heads))
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, kept_ = ctx.saved_tensors
        gradient = gradient.flatten(0, 1)
        of_value = torch.bmm(_dropped(weights, kept_, ctx.p).transpose(1, 2), gradient)
        of_weights = _dropped(torch.bmm(gradient, value.transpose(1, 2)), kept_, ctx.p)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = torch.bmm(of_scores, key).mul_(ctx.scale)
        of_key = torch.bmm(of_scores.transpose(1, 2), query)
        return (*(part.unflatten(0, (-1, ctx.heads)) for part in (of_query, of_key, of_value)), None, None, None)


def _dropped(weights: torch.Tensor, kept_: torch.Tensor | None, p: float) -> torch.Tensor:
    return weights if kept_ is None else weights * kept_.to(weights.dtype).mul_(1 / (1 - p))
