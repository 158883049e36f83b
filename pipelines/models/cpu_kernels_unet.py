"""Decoder blocks of segmentation-models-pytorch's U-Net for a CPU (see pipelines.models.cpu_kernels).

A convolution of 3 x 3 over an image that was enlarged to twice its sides by repeating pixels sees each pixel several
times. Four convolutions of 2 x 2 over the small image give the same, up to rounding: 16 multiplications for each of its
pixels, not 36. The skip connection gets a convolution of its own, and is joined with nothing.
"""

from typing import Any

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn
from torch.nn import functional as f

# How the rows (or columns) of a 3 x 3 kernel add up to those of 2 x 2 kernels: [phase, row of 2, row of 3]. An even row
# of the large image sees the row before of the small image once, and its own row twice; an odd row its own row twice,
# and the next row once.
SUMS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def install(model: nn.Module) -> None:
    """Use these blocks in a model."""
    part: Any
    for part in model.modules():
        if type(part) is UnetDecoderBlock and isinstance(part.attention1.attention, nn.Identity):
            part.__class__ = Block


class Block(UnetDecoderBlock):
    """The library's block; enlarging and the first convolution are one step."""

    def forward(
        self, feature_map: Tensor, target_height: int, target_width: int, skip_connection: Tensor | None = None
    ) -> Tensor:
        convolution: Any = self.conv1[0]
        sides = [2 * side for side in feature_map.shape[2:]]
        if (
            self.interpolation_mode != "nearest"
            or sides != [target_height, target_width]
            or type(convolution) is not nn.Conv2d
            or type(convolution.weight) is not nn.Parameter  # a share of it, under FSDP
            or convolution.bias is not None
            or feature_map.device.type != "cpu"
        ):
            found: Tensor = super().forward(feature_map, target_height, target_width, skip_connection)
            return found
        joined = convolved(feature_map, skip_connection, convolution.weight)
        for part in list(self.conv1)[1:]:
            joined = part(joined)
        result: Tensor = self.attention2(self.conv2(joined))
        return result


def convolved(small: Tensor, skip: Tensor | None, weight: Tensor) -> Tensor:
    """The convolution by `weight` [outputs, channels, 3, 3] of `small`, enlarged to twice its sides, and `skip`.

    Both are [n, channels, height, width]; those of `skip` are the last channels of the kernel.
    """
    channels = small.shape[1]
    parts = f.conv2d(small, _kernels(weight[:, :channels]), padding=1)
    over = None if skip is None else f.conv2d(skip, weight[:, channels:], padding=1)
    found: Tensor = _Interleaved.apply(parts, over)
    return found


def _kernels(weight: Tensor) -> Tensor:
    """The four kernels [4 * outputs, channels, 2, 2], in channels-last memory."""
    outputs, channels = weight.shape[:2]
    with torch.autocast("cpu", enabled=False):
        kind = torch.promote_types(weight.dtype, torch.float32)
        sums = torch.tensor(SUMS, dtype=kind)
        of_both = torch.einsum("aik,bjl->abijkl", sums, sums).reshape(16, 9)
        rows = weight.permute(0, 2, 3, 1).reshape(outputs, 9, channels).to(kind)
        kernels = torch.matmul(of_both, rows).to(weight.dtype).view(outputs, 4, 4, channels).transpose(0, 1)
        return kernels.reshape(4 * outputs, 2, 2, channels).permute(0, 3, 1, 2)


class _Interleaved(torch.autograd.Function):
    """Four images [n, 4 * channels, h + 1, w + 1] as one of [n, channels, 2 * h, 2 * w], added to `over`."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, over: Tensor | None) -> Tensor:
        height, width = (side - 1 for side in parts.shape[2:])
        channels = parts.shape[1] // 4
        ctx.size, ctx.added = parts.shape, over is not None
        size = (len(parts), channels, 2 * height, 2 * width)
        if over is None:
            result = torch.empty(size, dtype=parts.dtype, memory_format=torch.channels_last)
        else:
            result = over
            ctx.mark_dirty(over)
        for phase, (down, across) in enumerate(_places()):
            own = parts[:, phase * channels : (phase + 1) * channels, down : down + height, across : across + width]
            place = result[:, :, down::2, across::2]
            if over is None:
                place.copy_(own)
            else:
                place.add_(own)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        channels, height, width = ctx.size[1] // 4, ctx.size[2] - 1, ctx.size[3] - 1
        found = torch.empty(ctx.size, dtype=gradient.dtype, memory_format=torch.channels_last)
        for phase, (down, across) in enumerate(_places()):
            own = found[:, phase * channels : (phase + 1) * channels]
            own[:, :, down : down + height, across : across + width] = gradient[:, :, down::2, across::2]
            own[:, :, 0 if down else height] = 0
            own[:, :, :, 0 if across else width] = 0
        return found, gradient if ctx.added else None


def _places() -> list[tuple[int, int]]:
    return [(down, across) for down in (0, 1) for across in (0, 1)]
