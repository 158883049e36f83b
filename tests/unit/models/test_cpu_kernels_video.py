"""Convolutions over time in other forms: the same numbers and gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.models import cpu_kernels
from pipelines.models.cpu_kernels_video import OverTime, Patches
from tests.support.tiny_video_models import batch, tiny

CPU = torch.device("cpu")


def results(module: nn.Module, given: torch.Tensor) -> list[torch.Tensor]:
    given = given.detach().requires_grad_()
    output = module(given)
    output.float().square().sum().backward()
    return [output.detach(), given.grad, *(p.grad for p in module.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "bias"), [(3, 1, 1, False), (7, 2, 3, True), (3, 2, 0, False)])
def test_a_convolution_over_time(kernel: int, stride: int, padding: int, bias: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(5, 6, (kernel, 1, 1), (stride, 1, 1), (padding, 0, 0), bias=bias)
    given = torch.randn(2, 5, 9, 4, 3)
    if channels_last:
        plain, given = (one.to(memory_format=torch.channels_last_3d) for one in (plain, given))  # type: ignore[assignment]
    other = copy.deepcopy(plain)
    cpu_kernels.install(other, CPU)
    assert type(other) is OverTime
    for found, expected in zip(results(other, given), results(plain, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_patches_in_bf16() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 16, (2, 4, 8), (2, 4, 8))
    given = torch.randn(2, 4, 3, 16, 16).transpose(1, 2)
    exact = results(plain, given)
    plain.zero_grad()
    other = copy.deepcopy(plain)
    cpu_kernels.install(other, CPU)
    assert type(other) is Patches
    assert all(torch.equal(one, two) for one, two in zip(results(other, given), exact, strict=True))
    other.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = results(other, given)
    assert found[0].dtype == torch.bfloat16
    for one, two in zip(found, exact, strict=True):
        assert (one.float() - two).norm() < 0.01 * two.norm()


def test_other_convolutions_stay() -> None:
    kinds: list[Any] = [
        nn.Conv3d(4, 4, 3),
        nn.Conv3d(4, 4, (3, 1, 1), dilation=(2, 1, 1)),
        nn.Conv3d(4, 4, (3, 1, 1), groups=2),
        nn.Conv3d(4, 4, (1, 3, 3)),
        nn.Conv3d(4, 4, 1),
        nn.Conv3d(4, 4, (3, 1, 1), padding="same"),
        nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0), padding_mode="replicate"),
    ]
    model = nn.Sequential(*kinds)
    given = torch.randn(1, 4, 9, 5, 5)
    expected = [kind(given) for kind in kinds]
    cpu_kernels.install(model, CPU)
    assert not any(type(kind) is OverTime for kind in kinds)
    assert all(torch.equal(kind(given), before) for kind, before in zip(kinds, expected, strict=True))


@pytest.mark.parametrize("kind", ["videomae", "r2plus1d"])
def test_a_model_keeps_its_answers_and_its_weights(kind: str) -> None:
    model, family = tiny(kind)
    given = batch(family)
    other = copy.deepcopy(model)
    cpu_kernels.install(other, CPU)
    assert any(type(part) in (OverTime, Patches) for part in other.modules())
    assert list(other.state_dict()) == list(model.state_dict())
    gradients = []
    for one in (model, other):
        torch.manual_seed(0)
        logits = family.logits(one.eval(), given)
        logits.square().sum().backward()
        gradients.append([logits.detach(), *(p.grad for p in one.parameters())])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
