"""Masks of small logits, against torch's interpolation of the complete image and pycocotools."""

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from pipelines.models import detection_torchvision, enlarged_masks


def whole(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def encoded(mask: Tensor) -> dict:
    found = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def cases(count: int) -> list[tuple[Tensor, tuple[int, int]]]:
    """Noise, of which from nothing to everything is above 0; sizes below and above those of the logits."""
    rng, drawn = np.random.default_rng(0), torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        small, size = rng.integers(1, 40, 2).tolist(), rng.integers(1, 300, 2).tolist()
        logits = torch.randn(small, generator=drawn) + float(rng.choice([-8, -3, -2, 0, 3, 8]))
        found.append((logits, tuple(size)))
    return found


def test_masks_are_those_of_the_complete_image() -> None:
    """Some are wider than the columns that are enlarged together."""
    for logits, size in cases(200):
        values = whole(logits, size)
        pixels = values > 0
        assert enlarged_masks.runs(logits, size) == encoded(pixels)
        found = enlarged_masks.drawn(logits, size)
        if not pixels.any():
            assert found is None
            continue
        assert found is not None
        runs, box, mean = found
        rows, columns = np.nonzero(pixels.numpy())
        assert runs == encoded(pixels)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert abs(mean - float(values[pixels].sigmoid().mean())) < 1e-6


def test_only_the_box_of_a_mask_is_enlarged() -> None:
    logits = torch.full((96, 96), -5.0)
    logits[40:44, 10:20] = 5
    size = (960, 1920)
    blocks = [block for _, _, block in enlarged_masks.above_zero(logits, *size)]
    assert sum(block.numel() for block in blocks) < 1.6 * (4 * 10) * (10 * 20)
    assert all(len(block) <= enlarged_masks.COLUMNS for block in blocks)
    assert list(enlarged_masks.above_zero(torch.full((96, 96), -5.0), *size)) == []


def test_masks_of_boxes_are_pasted_as_torchvision_does() -> None:
    drawn = torch.Generator().manual_seed(0)
    for number in range(100):
        height, width = (int(side) for side in torch.randint(1, 200, (2,), generator=drawn))
        sides = torch.tensor([width, height, width, height])
        corners = torch.rand(2, 2, generator=drawn).sort(0).values.flatten()
        if number % 5 == 0:
            corners = torch.tensor([0.0, 0.0, 1.0, 1.0])
        box = corners * sides
        mask = torch.rand(1, 28, 28, generator=drawn)
        expected = paste_masks_in_image(mask[None], box[None], (height, width))[0, 0] > 0.5
        assert detection_torchvision.pasted(mask, box, height, width) == encoded(expected)
