"""Segmentation models of all families: sums over micro-batches, ignored pixels, folders, classes known by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.models import layers, segmentation
from pipelines.models.source import Weights
from tests.support.tiny_segmenters import KINDS, LABELS, made_up, parts, tiny


def step(model: Any, family: Any, batches: list[dict[str, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of a step with these micro-batches."""
    model.zero_grad()
    counts: dict[str, float] = {}
    for batch in batches:
        for name, value in family.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + value
    total = 0.0
    for batch in batches:
        loss = family.loss(model, batch, counts, 0)
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["cross-entropy", "focal+dice"])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up(kind: str, loss: str) -> None:
    model, family = tiny(kind, loss=loss)
    model.eval()
    batch = made_up(4)
    batch["map"][1] = -1
    expected, gradients = step(model, family, [batch])
    for size in (2, 1):
        found, others = step(model, family, parts(batch, size))
        assert found == pytest.approx(expected, rel=1e-5)
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_folder(kind: str, tmp_path: Path) -> None:
    model, family = tiny(kind)
    model.eval()
    pixels = made_up(2)["pixel_values"]
    scores = family.scores(model, pixels)
    assert scores.shape == (2, 3, 64, 64)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 64, 64))
    family.save(model, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert (tmp_path / "model.safetensors").is_file()
    again, other = segmentation.load(tmp_path)
    assert other.labels == LABELS
    assert other.side == family.side
    assert other.stride == family.stride
    torch.testing.assert_close(other.scores(again, pixels), scores, rtol=1e-5, atol=1e-6)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    assert family.pixels(image).shape == (3, 20, 30)
    assert torch.equal(other.pixels(image), family.pixels(image))
    # other classes: rows of those that the model knows stay
    third, of_third = segmentation.build(Weights(tmp_path), ["tree", "car", "sky", "dog"])
    assert of_third.labels == ["tree", "car", "sky", "dog"]
    assert "kept for 2 classes" in third.about_head
    assert "'car' and 1 more" in third.about_head
    logits, kept = (f.outputs(m.eval(), pixels, False)[0] for m, f in ((again, other), (third, of_third)))
    torch.testing.assert_close(kept[:, [0, 2]], logits[:, [2, 0]], rtol=1e-4, atol=1e-5)
    same, _ = segmentation.build(Weights(tmp_path), list(reversed(LABELS)))
    assert same.about_head.startswith("kept")


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_pixels_alone_give_zero(kind: str) -> None:
    model, family = tiny(kind)
    batch = made_up(2)
    batch["map"][:] = -1
    loss, gradients = step(model, family, [batch])
    assert loss == 0
    assert gradients
    assert all(bool((gradient == 0).all()) for gradient in gradients.values())


@pytest.mark.parametrize("kind", KINDS)
def test_layers_hold_all_parameters_and_end_in_the_head(kind: str) -> None:
    model, family = tiny(kind)
    found = family.layers(model)
    head = {id(p) for p in found[-1].parameters()}
    assert head
    assert not head & {id(p) for layer in found[:-1] for p in layer.parameters()}
    layers.freeze(model, found, "backbone")
    assert {id(p) for p in model.parameters() if p.requires_grad} == head
    assert len(found) > 4
    layers.train_mode(model)
    batch = made_up(2)
    family.loss(model, batch, family.counts(batch), 0).backward()
