"""The loss of models that find masks with queries, against transformers' own on the same points."""

import copy

import pytest
import torch

from pipelines.losses import mask_classification as losses
from pipelines.models import mask_classification as models
from pipelines.models.source import Weights
from tests.support import tiny_queries

SIDE = 64


@pytest.fixture(params=list(tiny_queries.CONFIGS))
def pair(request):
    """A model with the library's loss, and the same model with this one."""
    torch.manual_seed(0)
    own, _, _ = models.build(Weights(None, tiny_queries.CONFIGS[request.param], True), ["a", "b", "c"], SIDE)
    library = copy.deepcopy(own)
    library.criterion.__class__ = type(own.criterion).__bases__[1]
    return library.eval(), own.eval()


def targets(numbers, seed=0, side=SIDE):
    """Rectangles, and their classes."""
    drawing = torch.Generator().manual_seed(seed)
    masks, classes = [], []
    for number in numbers:
        found = torch.zeros(number, side, side, dtype=torch.uint8)
        for mask in found:
            low, high = torch.sort(torch.randint(0, side + 1, (2, 2), generator=drawing), 0).values
            mask[low[0] : high[0] + 4, low[1] : high[1] + 4] = 1
        masks.append(found)
        classes.append(torch.randint(0, 3, (number,), generator=drawing))
    return masks, classes


def batch(number, seed=0):
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randn(number, 3, SIDE, SIDE, generator=drawing)
    return {"pixel_values": pixels, "seed": [11 + place for place in range(number)]}


def of(model, whole, masks, classes, places, counts):
    part = {"pixel_values": whole["pixel_values"][places], "seed": [whole["seed"][place] for place in places]}
    return models.loss(model, part, [masks[p] for p in places], [classes[p] for p in places], counts)


@pytest.mark.parametrize("number", [1, 3, 0])
def test_one_image_has_the_library_s_loss_and_gradients(pair, number):
    library, own = pair
    masks, classes = targets([number])
    whole = batch(1)
    counts = models.counts(own.config, [number])
    models.mask_attention(library, None)
    torch.manual_seed(whole["seed"][0])
    labels = {"mask_labels": [masks[0].float()], "class_labels": classes}
    expected = library(pixel_values=whole["pixel_values"], output_hidden_states=True, **labels).loss
    found = models.loss(own, whole, masks, classes, counts)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()
    found.backward()
    for (name, one), other in zip(library.named_parameters(), own.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=2e-5, msg=name)


def test_a_step_divided_by_its_counts_is_the_library_s_mean(pair):
    """The library divides by masks and by weights of classes of the batch, which are the counts of the step."""
    library, own = pair
    numbers = [3, 0, 1, 2]
    masks, classes = targets(numbers)
    whole = batch(4)
    counts = models.counts(own.config, numbers)
    assert counts == {"masks": 6.0, "class_weight": pytest.approx(6 + 0.1 * 34)}
    parts = sum(float(of(own, whole, masks, classes, [place], counts).detach()) for place in range(4))
    models.mask_attention(library, None)
    if isinstance(own.criterion, losses.ByPixels):  # without points the library can be asked for all images at once
        labels = {"mask_labels": [one.float() for one in masks], "class_labels": classes}
        expected = float(library(pixel_values=whole["pixel_values"], **labels).loss.detach())
        assert parts == pytest.approx(expected, rel=1e-5)
    assert float(of(own, whole, masks, classes, [0, 1, 2, 3], counts).detach()) == pytest.approx(parts, rel=1e-5)


def test_micro_batches_add_up_with_their_gradients(pair):
    _, own = pair
    numbers = [2, 0, 12, 1]  # one has more masks than queries
    masks, classes = targets(numbers)
    whole, counts = batch(4), models.counts(own.config, numbers)
    assert counts == {"masks": 15.0, "class_weight": pytest.approx(13 + 0.1 * 27)}
    gradients = []
    for cut in ([[0, 1, 2, 3]], [[0], [1], [2, 3]]):
        own.zero_grad()
        for places in cut:
            of(own, whole, masks, classes, places, counts).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


def test_images_without_masks_alone_give_no_nan(pair):
    _, own = pair
    masks, classes = targets([0, 0])
    counts = models.counts(own.config, [0, 0])
    own.train()
    found = models.loss(own, batch(2), masks, classes, counts)
    found.backward()
    assert torch.isfinite(found)
    assert all(torch.isfinite(p.grad).all() for p in own.parameters() if p.requires_grad)


def test_evaluation_is_always_the_same_and_training_depends_on_the_seed(pair):
    _, own = pair
    masks, classes = targets([2, 1])
    whole, counts = batch(2), models.counts(own.config, [2, 1])
    del whole["seed"]
    first, second = (float(models.loss(own, whole, masks, classes, counts).detach()) for _ in range(2))
    assert first == second
    own.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(float(models.loss(own, whole, masks, classes, counts).detach()))
    assert drawn[0] == drawn[1]
    assert (drawn[0] != drawn[2]) is isinstance(own.criterion, losses.ByPoints)


def test_ignored_pixels_have_no_weight(pair):
    """What the masks are there makes no difference; without ignored pixels it does."""
    _, own = pair
    masks, classes = targets([2])
    whole, counts = batch(1), models.counts(own.config, [2])
    ignored = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    ignored[:, 32:] = True
    other = masks[0].clone()
    other[:, :, 33:] = 1 - other[:, :, 33:]
    values = [
        float(models.loss(own, whole, [one], classes, counts, [mask]).detach())
        for mask in (ignored, None)
        for one in (masks[0], other)
    ]
    assert values[0] == pytest.approx(values[1], rel=2e-3)  # a point next to the edge sees both sides
    assert values[2] != pytest.approx(values[3], rel=2e-2)


def test_everything_ignored_gives_no_nan(pair):
    _, own = pair
    masks, classes = targets([1])
    counts = models.counts(own.config, [1])
    found = models.loss(own, batch(1), masks, classes, counts, [torch.ones(SIDE, SIDE, dtype=torch.bool)])
    found.backward()
    assert torch.isfinite(found)
    assert all(torch.isfinite(p.grad).all() for p in own.parameters() if p.grad is not None)
