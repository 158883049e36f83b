"""A U-Net's decoder for a CPU computes what the library's does."""

import copy

import pytest
import torch
from torch.nn import functional

from pipelines.models import cpu_kernels
from pipelines.models.cpu_kernels_unet import Block, convolved
from tests.support.tiny_segmenters import made_up, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("skips", [0, 5])
@pytest.mark.parametrize("sides", [(1, 1), (3, 4)])
def test_the_convolution_and_its_gradients_are_those_of_the_enlarged_image(skips: int, sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    small = torch.randn(2, 7, *sides, dtype=torch.float64, requires_grad=True)
    high, wide = (2 * side for side in sides)
    skip = torch.randn(2, skips, high, wide, dtype=torch.float64, requires_grad=True) if skips else None
    weight = torch.randn(6, 7 + skips, 3, 3, dtype=torch.float64, requires_grad=True)
    inputs = [one for one in (small, skip, weight) if one is not None]
    slope = torch.randn(2, 6, high, wide, dtype=torch.float64)

    enlarged = functional.interpolate(small, scale_factor=2, mode="nearest")
    want = functional.conv2d(enlarged if skip is None else torch.cat([enlarged, skip], 1), weight, padding=1)
    wanted = torch.autograd.grad(want, inputs, slope)
    found = convolved(small, skip, weight)
    torch.testing.assert_close(found, want)
    for one, other in zip(torch.autograd.grad(found, inputs, slope), wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("half", [False, True])
def test_a_network_has_the_same_loss_gradients_and_weights(half: bool) -> None:
    plain, family = tiny("unet")
    fast = copy.deepcopy(plain)
    cpu_kernels.install(fast, CPU)
    assert sum(type(part) is Block for part in fast.modules()) == 5
    assert list(fast.state_dict()) == list(plain.state_dict())
    batch = made_up(3)
    counts, losses = family.counts(batch), []
    for model in (plain.train(), fast.train()):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = family.loss(model, batch, counts, 0)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2 if half else 1e-5, atol=0)
    own, other = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (fast, plain))
    assert (own - other).norm() <= (0.2 if half else 1e-4) * other.norm()


def test_sides_that_are_not_doubled_are_enlarged_by_the_library() -> None:
    plain, _ = tiny("unet")
    block = plain.decoder.blocks[-1].eval()
    small = torch.randn(1, block.conv1[0].in_channels, 5, 6)
    want = block(small, 9, 12)
    cpu_kernels.install(plain, CPU)
    assert type(block) is Block
    assert torch.equal(block(small, 9, 12), want)


def test_a_model_that_predicts_in_bf16_has_nearly_the_same_scores() -> None:
    """Graft keeps convolutions or linear layers in bf16 then."""
    plain, family = tiny("unet")
    pixels = made_up(2)["pixel_values"]
    want = family.scores(plain.eval(), pixels)
    cpu_kernels.install(plain, CPU)
    for types in ((torch.nn.Linear,), (torch.nn.Linear, torch.nn.Conv2d)):
        for part in plain.decoder.modules():
            if isinstance(part, types):
                part.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(family.scores(plain, pixels), want, atol=0.03, rtol=0)
