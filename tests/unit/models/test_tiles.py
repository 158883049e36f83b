"""Prediction in tiles: equal to the prediction of the complete image, without seams."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipelines.models import tiles


class Plain:
    """A family of convolutions: the classes of a pixel depend on `reach` pixels around it."""

    library, fixed = "none", False

    def __init__(self, classes: int, stride: int = 1, side: int = 64) -> None:
        self.labels, self.stride, self.side = [str(number) for number in range(classes)], stride, side
        self.seen: list[tuple[int, ...]] = []

    def pixels(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255

    def probabilities(self, model: nn.Module, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        yield from self.scores(model, pixels)

    def scores(self, model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(pixels.shape))
        return model(pixels).softmax(1)


def convolutions(classes: int, reach: int) -> nn.Module:
    torch.manual_seed(0)
    blocks: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, padding_mode="replicate"), nn.ReLU()]
    for _ in range(reach - 2):
        blocks += [nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate"), nn.ReLU()]
    model = nn.Sequential(*blocks, nn.Conv2d(8, classes, 3, padding=1, padding_mode="replicate"))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.4)
    return model


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(200, 200), (300, 130), (97, 211), (64, 64), (65, 64), (30, 500), (1, 90)])
@torch.no_grad()
def test_tiles_give_the_map_of_the_complete_image(size: tuple[int, int]) -> None:
    """The model sees 4 pixels around each; a quarter of the overlap is never blended."""
    model, family, image = convolutions(5, 4), Plain(5), picture(*size)
    expected = family.scores(model, family.pixels(image)[None])[0]
    found = tiles.segment(model, family, image, size[::-1], 64, 16)
    assert np.array_equal(found.map, expected.argmax(0).numpy())
    assert found.pixels.sum() == size[0] * size[1]
    assert found.sure.sum() == pytest.approx(float(expected.max(0).values.sum()), rel=1e-5)


@pytest.mark.parametrize("overlap", [2, 8, 16, 31])
@torch.no_grad()
def test_the_parts_cover_every_pixel_once_and_blend_what_two_tiles_say(overlap: int) -> None:
    family, image = Plain(2), picture(333, 217)

    class Noise(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.rand(1, 2, *pixels.shape[-2:], generator=generator) * 8

    generator = torch.Generator().manual_seed(1)
    noise = Noise()
    noise.register_parameter("one", nn.Parameter(torch.zeros(1)))
    covered = torch.zeros(217, 333)
    for top, left, scores in tiles.tiles(noise, family, image, 64, overlap):
        covered[top : top + scores.shape[1], left : left + scores.shape[2]] += scores.sum(0)
    assert torch.allclose(covered, torch.ones(217, 333), atol=1e-5)


@torch.no_grad()
def test_no_tile_is_larger_than_asked_for() -> None:
    model, family = convolutions(3, 2), Plain(3, stride=32)
    tiles.segment(model, family, picture(700, 500), (500, 700), 128, 32)
    assert {shape[-2:] for shape in family.seen} == {(128, 128)}
    assert len(family.seen) == 7 * 5


@torch.no_grad()
def test_a_model_of_one_size_sees_only_this_size() -> None:
    model, family = convolutions(3, 2), Plain(3, side=64)
    family.fixed = True
    for size in ((40, 30), (64, 64), (100, 50)):
        found = tiles.segment(model, family, picture(*size), size[::-1], 64, 16)
        assert found.map.shape == size[::-1]
    assert {shape[-2:] for shape in family.seen} == {(64, 64)}


@torch.no_grad()
def test_probabilities_areenlarged_before_the_best_class_is_taken() -> None:
    """As torch's own interpolation, in bands of rows."""
    scores = torch.rand(1, 7, 33, 41, generator=torch.Generator().manual_seed(2)).softmax(1)
    expected = nn.functional.interpolate(scores, (150, 97), mode="bilinear", align_corners=False)[0].argmax(0)
    before, tiles.BAND = tiles.BAND, 7 * 97 * 10
    try:
        found = tiles.enlarged(scores[0], (150, 97)).map
    finally:
        tiles.BAND = before
    assert (found == expected.numpy()).mean() > 0.9999  # rounding may decide between equal probabilities


@torch.no_grad()
def test_a_resized_image_is_cut_into_tiles_andenlarged() -> None:
    model, family, image = convolutions(4, 3), Plain(4), picture(160, 120)
    expected = tiles.segment(model, family, image, (240, 320), 4096, 16)
    found = tiles.segment(model, family, image, (240, 320), 64, 16)
    assert (found.map == expected.map).mean() > 0.9999
    assert found.map.dtype == np.uint8


def test_axes_leave_no_more_than_two_tiles_at_a_pixel() -> None:
    for length in range(65, 600):
        for overlap in (2, 15, 32):
            for stride in (1, 8, 32):
                axis = tiles.axis(length, 64, overlap, stride)
                assert axis.starts[0] == 0
                assert axis.ends[-1] == length
                assert all(start % stride == 0 for start in axis.starts)
                assert all(end - start == 64 for start, end in zip(axis.starts[:-1], axis.ends[:-1], strict=True))
                assert all(after - before <= max(stride, 64 - overlap) for before, after in pairwise(axis.starts))
                edges = [edge for strip in axis.strips for edge in strip]
                assert edges == sorted(edges), (length, overlap, axis)
                assert not edges or edges[-1] <= length
                for (start, end), left, right in zip(axis.strips, axis.starts[1:], axis.ends[:-1], strict=True):
                    assert left <= start < end <= right


@pytest.mark.parametrize("size", [(200, 200), (211, 150)])
@torch.no_grad()
def test_tiles_of_a_model_that_halves_the_image_are_cut_where_it_would(size: tuple[int, int]) -> None:
    """Its four pixels of a coarser map start at multiples of four, in every tile."""
    torch.manual_seed(0)
    coarse = nn.Conv2d(3, 4, 4, stride=4)
    nn.init.normal_(coarse.weight, std=0.4)
    model = nn.Sequential(coarse, nn.Upsample(scale_factor=4))
    family, image = Plain(4, stride=4), picture(*size)
    expected = tiles.segment(model, family, image, size[::-1], 4096, 16)
    found = tiles.segment(model, family, image, size[::-1], 64, 18)
    assert np.array_equal(found.map, expected.map)
