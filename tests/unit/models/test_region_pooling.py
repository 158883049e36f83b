"""Pooling of regions on a CPU: the values and gradients of torchvision's."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from pipelines.models.region_pooling import RegionPooling


def _boxes(count, seed):
    torch.manual_seed(seed)
    corners = torch.rand(count, 2) * 300 - 30  # also outside of the image
    return torch.cat([corners, corners + torch.rand(count, 2) ** 3 * 250], 1)


@pytest.mark.parametrize("size", [7, 14])
def test_it_is_torchvisions(size):
    boxes = [_boxes(40, 0), _boxes(0, 1), _boxes(25, 2)]
    boxes[0][:2] = torch.tensor([[5.0, 5, 5, 5], [-20, 0, 240, 230]])  # empty; as large as the image
    torch.manual_seed(3)
    maps = {str(n): torch.randn(3, 5, 192 >> n, 256 >> n, requires_grad=True) for n in (2, 3, 4)}
    copies = {name: one.detach().clone().requires_grad_() for name, one in maps.items()}
    theirs = MultiScaleRoIAlign(list(maps), size, 2)
    ours = RegionPooling(list(maps), size, 2)
    ours.set_strides([4, 8, 16])
    shapes = [(192, 256)] * 3
    expected, found = theirs(maps, boxes, shapes), ours(copies, boxes, shapes)
    assert set(ours.map_levels(boxes).tolist()) == {0, 1, 2}
    assert found.shape == (65, 5, size, size)
    assert torch.allclose(found, expected, atol=1e-4)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for name, one in maps.items():
        assert torch.allclose(copies[name].grad, one.grad, atol=1e-3)
        assert one.grad.abs().sum() > 0


def test_half_precision_and_no_regions():
    ours = RegionPooling(["0"], 7, 2)
    ours.set_strides([4])
    maps = {"0": torch.randn(1, 5, 16, 16, dtype=torch.bfloat16)}
    assert ours(maps, [_boxes(3, 0)], [(64, 64)]).dtype == torch.bfloat16
    assert ours(maps, [_boxes(0, 0)], [(64, 64)]).shape == (0, 5, 7, 7)
