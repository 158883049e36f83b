"""Convolutions over time for a CPU (see pipelines.models.cpu_kernels).

A convolution over time alone (3 x 1 x 1, of R(2+1)D and S3D) is one over [time, pixels] images too. torch computes that
form in a third of the time in fp32: forward and backward of 4 x 144 x 8 x 28 x 28 to 64 channels take 133 ms on one
core, and 44 ms in this form.

The patches of a video transformer do not overlap, so their convolution is a product of matrices. In bf16, forward and
backward of 2 clips of 16 x 224 x 224 take 38 ms, and 24 ms in this form.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f


def install(model: nn.Module) -> None:
    """Use these convolutions in a model."""
    part: Any
    for part in model.modules():
        if not isinstance(part, nn.Conv3d) or part.groups != 1 or part.padding_mode != "zeros":
            continue
        # a subclass of torchvision (Conv3DSimple) has the same forward, but no kernel of these forms
        if type(part) is nn.Conv3d and part.dilation == (1, 1, 1) and not isinstance(part.padding, str):
            if part.kernel_size[1:] == part.stride[1:] == (1, 1) and part.padding[1:] == (0, 0):
                if part.kernel_size[0] > 1:
                    part.__class__ = OverTime
            elif part.kernel_size == part.stride and part.padding == (0, 0, 0):
                part.__class__ = Patches


def _plain(part: nn.Conv3d, input: Tensor) -> bool:
    """Whether the weight is all of it (FSDP keeps shares), on a CPU."""
    return type(part.weight) is nn.Parameter and input.device.type == "cpu" and input.ndim == 5


class OverTime(nn.Conv3d):
    """torch's convolution with a kernel of n x 1 x 1."""

    def forward(self, input: Tensor) -> Tensor:
        if not _plain(self, input):
            return super().forward(input)
        height, width = input.shape[3:]
        how = ((self.stride[0], 1), (int(self.padding[0]), 0))
        found: Tensor = f.conv2d(input.flatten(3), self.weight[..., 0], self.bias, *how)
        return found.unflatten(3, (height, width))  # type: ignore[no-any-return]


class Patches(nn.Conv3d):
    """torch's convolution with a stride that is the kernel's size."""

    def forward(self, input: Tensor) -> Tensor:
        lengths = input.shape[2:]
        fits = all(length % side == 0 for length, side in zip(lengths, self.kernel_size, strict=True))
        if not _plain(self, input) or not fits or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        input = input.to(torch.get_autocast_dtype("cpu"))
        (times, rows, columns), (t, h, w) = lengths, self.kernel_size
        batch, channels = input.shape[:2]
        parts = input.reshape(batch, channels, times // t, t, rows // h, h, columns // w, w)
        flat = parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # [batch, times, rows, columns, values of a patch]
        return f.linear(flat, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)
