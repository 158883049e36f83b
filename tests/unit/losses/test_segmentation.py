"""Losses of label maps: values and gradients against other code, ignored pixels, weights, micro-batches."""

from typing import Any

import pytest
import torch
from segmentation_models_pytorch import losses as smp
from segmentation_models_pytorch.losses.lovasz import _lovasz_softmax_flat
from torch import Tensor
from torch.nn import functional as f

from pipelines.errors import RecipeError
from pipelines.losses.segmentation import LOSSES, Criterion

LABELS = ["a", "b", "c", "d"]
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}  # d has 1


def made_up(size: tuple[int, int] = (8, 6)) -> tuple[Tensor, Tensor]:
    """Logits of this size, and maps of 16 x 24 pixels; the second map is ignored, and class d is in no map."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 4, *size, generator=generator, requires_grad=True)
    maps = torch.randint(-1, 3, (4, 16, 24), generator=generator).to(torch.int16)
    maps[1] = -1
    return logits, maps


def of_image(name: str, p: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """Dice or Lovasz of the valid pixels of one image: p [pixels, classes]."""
    present = [c for c in range(p.shape[1]) if bool((true == c).any())]
    values = []
    for c in present:
        there = (true == c).to(p)
        if name == "dice":
            values.append(1 - 2 * (p[:, c] * there).sum() / (p[:, c].sum() + there.sum()))
        else:  # the library takes the mean over the classes that are present: here it gets one
            two = torch.stack([1 - p[:, c], p[:, c]], 1)
            values.append(_lovasz_softmax_flat(two.float(), there.long(), classes=[1]))
    share = weights[present]
    return (torch.stack(values) * share).sum() / share.sum()


def expected(name: str, logits: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
    """The loss of a batch in plain torch, in float64."""
    logits = f.interpolate(logits.double(), size=maps.shape[-2:], mode="bilinear", align_corners=False)
    weights, true = weights.double(), maps.long()
    valid = true >= 0
    total = logits.new_zeros(())
    for term in name.split("+"):
        if term == "cross-entropy":
            total = total + f.cross_entropy(logits, true, weights, ignore_index=-1)
        elif term == "focal":
            log_p = f.nll_loss(logits.log_softmax(1), true.clamp(min=0), reduction="none").neg()
            each = weights[true.clamp(min=0)] * valid
            total = total - (each * (1 - log_p.exp()) ** 2 * log_p).sum() / each.sum()
        else:
            images = zip(logits.softmax(1), true, valid, strict=True)
            values = [of_image(term, p[:, ok].T, one[ok], weights) for p, one, ok in images if bool(ok.any())]
            total = total + torch.stack(values).mean()
    return total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(16, 24), (8, 6)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name: str, size: tuple[int, int], weighted: bool) -> None:
    logits, maps = made_up(size)
    criterion = Criterion(name, LABELS, WEIGHTS if weighted else None)
    loss = criterion(logits, maps, criterion.counts(maps))
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0]) if weighted else torch.ones(4)
    wanted = expected(name, logits, maps, weights)
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    (found,) = torch.autograd.grad(3 * loss, logits)
    (gradient,) = torch.autograd.grad(3 * wanted, logits)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-8, check_dtype=False)


@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_add_up(name: str) -> None:
    logits, maps = made_up()
    criterion = Criterion(name, LABELS, WEIGHTS)
    counts = criterion.counts(maps)
    (expected_gradient,) = torch.autograd.grad(criterion(logits, maps, counts), logits)
    for size in (2, 1):
        starts = range(0, 4, size)
        each = [criterion.counts(maps[n : n + size]) for n in starts]
        assert {key: sum(one[key] for one in each) for key in counts} == pytest.approx(counts)
        total = torch.stack([criterion(logits[n : n + size], maps[n : n + size], counts) for n in starts]).sum()
        assert float(total.detach()) == pytest.approx(float(criterion(logits.detach(), maps, counts)), rel=1e-6)
        torch.testing.assert_close(torch.autograd.grad(total, logits)[0], expected_gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing(name: str) -> None:
    logits, maps = made_up((16, 24))
    criterion = Criterion(name, LABELS)
    before = criterion(logits, maps, criterion.counts(maps))
    padded = f.pad(maps, (0, 5, 0, 3), value=-1)
    wide = f.pad(logits, (0, 5, 0, 3), value=7.0)
    after = criterion(wide, padded, criterion.counts(padded))
    assert float(after.detach()) == pytest.approx(float(before.detach()), rel=1e-6)
    (one,), (other,) = torch.autograd.grad(before, logits), torch.autograd.grad(after, logits)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LOSSES)
def test_all_pixels_ignored(name: str) -> None:
    logits, maps = made_up()
    criterion = Criterion(name, LABELS, WEIGHTS)
    maps[:] = -1
    assert criterion.counts(maps) == {"pixels": 0.0, "images": 0.0}
    loss = criterion(logits, maps, criterion.counts(maps))
    assert float(loss.detach()) == 0
    assert bool((torch.autograd.grad(loss, logits)[0] == 0).all())


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name: str) -> None:
    logits = torch.tensor([300.0, -300.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    maps = torch.ones(1, 4, 4, dtype=torch.int16)
    criterion = Criterion(name, LABELS[:2])
    loss = criterion(logits, maps, criterion.counts(maps))
    assert bool(loss.isfinite())
    assert bool(torch.autograd.grad(loss, logits)[0].isfinite().all())
    wanted = sum(600.0 if term in ("cross-entropy", "focal") else 1 for term in name.split("+"))
    assert float(loss.detach()) == pytest.approx(wanted)


def test_one_image_equals_the_library() -> None:
    """Dice of one image in which every class is there is that of segmentation-models-pytorch."""
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.arange(64).view(1, 8, 8) % 3
    criterion = Criterion("dice", LABELS[:3])
    dice = smp.DiceLoss("multiclass")(logits, maps)
    assert float(criterion(logits, maps.short(), criterion.counts(maps))) == pytest.approx(float(dice), rel=1e-5)


def test_float32_under_autocast() -> None:
    logits, maps = made_up()
    criterion = Criterion("cross-entropy+dice", LABELS)
    wanted = criterion(logits.bfloat16().float(), maps, criterion.counts(maps))
    with torch.autocast("cpu", torch.bfloat16):
        loss = criterion(logits.bfloat16(), maps, criterion.counts(maps))
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == float(wanted.detach())
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("cross entropy", None, "loss: got 'cross entropy', must be one of cross-entropy, focal"),
        ("dice", {"e": 1.0}, "the data have no class 'e'; they have a, b, c, d"),
        ("dice", {"a": -1.0}, "a has -1.0, must be a number from 0 on"),
        ("dice", {"a": float("nan")}, "a has nan, must be"),
    ],
)
def test_wrong_options(name: str, weights: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says.replace("+", r"\+")):
        Criterion(name, LABELS, weights)
