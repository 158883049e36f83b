"""Detectors of transformers: losses that add up, heads that keep known classes, folders that load again."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import ModelError
from pipelines.models import detection
from pipelines.models.detection_transformers import HEAD
from pipelines.models.source import Weights
from tests.support.tiny_detectors import CONFIGS, examples

LABELS = ["ant", "bee", "cow"]
KINDS = sorted(CONFIGS)


def built(kind: str, labels: list[str] | None = None) -> tuple[Any, Any]:
    torch.manual_seed(0)
    found: tuple[Any, Any] = detection.build(Weights(None, CONFIGS[kind]), labels or LABELS, 128)
    return found


def batch_of(family: Any, some: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = family.collate([family.example(one) for one in some])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_of_micro_batches_add_up(kind: str) -> None:
    model, family = built(kind)
    model.eval()
    model.config.num_denoising = 0  # noisy boxes depend on the largest number of boxes in the micro-batch
    some = examples()
    counts = family.counts(batch_of(family, some))
    assert counts["boxes"] == 6
    whole = family.loss(model, batch_of(family, some), counts)
    assert whole.isfinite()
    assert whole > 0
    for cut in ([some[:1], some[1:]], [some[:2], some[2:3], some[3:]], [[one] for one in some]):
        parts = [family.loss(model, batch_of(family, part), counts) for part in cut]
        assert torch.stack(parts).sum().item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_again_and_finds_the_same(kind: str, tmp_path: Path) -> None:
    model, family = built(kind)
    model.eval()
    batch = batch_of(family, examples())
    before = family.detect(model, batch)
    family.save(model, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again, other = detection.load(tmp_path)
    assert other.labels == LABELS
    after = other.detect(again, batch_of(other, examples()))
    for one, two in zip(before, after, strict=True):
        assert 0 < len(one.scores) <= 100
        assert list(one.scores) == sorted(one.scores, reverse=True)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
        assert one.boxes.min() >= 0
        assert one.boxes[:, 2].max() <= 100
        assert one.boxes[:, 3].max() <= 80


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_known_classes_are_taken_over(kind: str, tmp_path: Path) -> None:
    model, family = built(kind)
    family.save(model, tmp_path)
    renewed, new = detection.build(Weights(tmp_path, None), ["cow", "dog", "ant"], None)
    assert (new.labels, new.side) == (["cow", "dog", "ant"], 128)
    old, now = model.state_dict(), renewed.state_dict()
    names = [name for name in now if HEAD.search(name) and re.search(r"class|score", name) and "bbox" not in name]
    last = [name for name in names if len(now[name]) in (3, 4)]
    assert last
    for name in last:
        assert torch.equal(now[name][0], old[name][2]), name
        assert torch.equal(now[name][2], old[name][0]), name
        if len(now[name]) == 4:
            assert torch.equal(now[name][3], old[name][3]), name  # no object
    assert all(torch.equal(now[name], old[name]) for name in now if name not in names)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_blocks_and_the_head(kind: str) -> None:
    model, family = built(kind)
    *blocks, head = family.layers(model)
    assert len(blocks) >= 3
    of_head = {id(p) for p in head.parameters()}
    assert of_head
    assert not of_head & {id(p) for block in blocks for p in block.parameters()}


def test_a_step_in_bfloat16_has_gradients() -> None:
    model, family = built("rt_detr_v2")
    model.train()
    batch = batch_of(family, examples())
    with torch.autocast("cpu", torch.bfloat16):
        loss = family.loss(model, batch, family.counts(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_four_images_are_learned_by_heart() -> None:
    model, family = built("rt_detr")
    model.train()
    batch = batch_of(family, examples((1, 2, 1, 1), seed=1))
    counts = family.counts(batch)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        torch.manual_seed(0)
        loss = family.loss(model, batch, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_models_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DEIMv2 of transformers scores near zero"):
        detection.build(Weights(None, {"model_type": "deimv2"}), LABELS, 128)
    with pytest.raises(ModelError, match="bert is no model for object detection"):
        detection.build(Weights(None, {"model_type": "bert"}), LABELS, 128)
    with pytest.raises(ModelError, match="yolos finds boxes only"):
        detection.build(Weights(None, CONFIGS["yolos"]), LABELS, 128, masks=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        detection.load(tmp_path)
