"""Detectors of transformers: losses that add up, heads that keep known classes, folders that load again."""

import copy
import re
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection, RfDetrForInstanceSegmentation

from pipelines.errors import ModelError
from pipelines.models import cpu_kernels, detection
from pipelines.models.adapters import add_adapter
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


def settled(kind: str, masks: bool = False) -> tuple[Any, Any]:
    """A detector whose loss depends on each image alone: no noisy boxes, and a BatchNorm that does not move.

    Its features have a usual size, so that gradients reach all layers.
    """
    torch.manual_seed(0)
    fields = CONFIGS[kind] | ({"num_denoising": 0} if "num_denoising" in CONFIGS[kind] else {})
    model, family = detection.build(Weights(None, fields), LABELS, 128, masks)
    cpu_kernels.install(model, torch.device("cpu"))
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            torch.nn.init.xavier_uniform_(parameter)
    norms = [module for module in model.train().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    some = batch_of(family, examples((3, 1, 2)))
    with torch.no_grad():
        family.loss(model, some, family.counts(some))
    for norm in norms:
        norm.eval()
    return model, family


def step(model: Any, family: Any, parts: list[list[dict[str, Any]]]) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients of one step with these micro-batches."""
    model.zero_grad()
    batches = [batch_of(family, part) for part in parts]
    each = [family.counts(batch) for batch in batches]
    counts = {name: sum(one[name] for one in each) for name in each[0]}
    losses = [family.loss(model, batch, counts) for batch in batches]
    torch.stack(losses).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return sum(loss.item() for loss in losses), gradients


def size(tensors: Iterable[Tensor]) -> float:
    return torch.stack([tensor.norm() for tensor in tensors]).norm().item()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_of_micro_batches_add_up(kind: str) -> None:
    model, family = settled(kind)
    some = examples((3, 0, 1, 2, 0, 12))  # 12 boxes are more than there are queries
    loss, gradients = step(model, family, [some])
    assert loss > 0
    for cut in ([some[:1], some[1:2], some[2:4], some[4:]], [[one] for one in some]):  # [0 boxes] and [one image]
        parts, of_parts = step(model, family, cut)
        assert parts == pytest.approx(loss, rel=1e-5)
        assert gradients.keys() == of_parts.keys()
        assert size(gradients[name] - of_parts[name] for name in gradients) < 1e-3 * size(gradients.values())


def test_masks_train_and_their_losses_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, family = settled("rf_detr", masks=True)
    family.config = copy.deepcopy(model.config)
    # the library compares masks at more points if there are more images, so objects are matched by their boxes alone
    model.config.mask_class_loss_coefficient = model.config.mask_dice_loss_coefficient = 0
    some = examples((3, 0, 1, 2))
    middle = torch.full((1,), 0.5)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: middle.expand(*size).clone())  # points of masks
    loss, gradients = step(model, family, [some])
    assert size(of for name, of in gradients.items() if "segmentation" in name) > 0
    parts, of_parts = step(model, family, [some[:1], some[1:2], some[2:]])
    assert parts == pytest.approx(loss, rel=1e-5)
    assert size(gradients[name] - of_parts[name] for name in gradients) < 1e-3 * size(gradients.values())


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


def test_masks_are_found_at_the_size_of_the_image_and_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, family = detection.build(Weights(None, CONFIGS["rf_detr"]), LABELS, 128, masks=True)
    batch = batch_of(family, examples((3, 0)))
    assert [len(masks) for masks in batch["masks"]] == [3, 0]
    assert batch["masks"][0].shape == (3, 128, 128)
    boxes = batch["boxes"][0] * 128
    inside = batch["masks"][0].sum((1, 2)) / boxes[:, 2:].prod(1)  # a mask fills its box
    assert inside.tolist() == pytest.approx([1.0] * 3, abs=0.15)
    before = family.detect(model.eval(), batch)
    family.save(model, tmp_path)
    assert type(RfDetrForInstanceSegmentation.from_pretrained(tmp_path)) is type(model)
    again, other = detection.load(tmp_path, masks=True)
    after = other.detect(again, batch)
    for one, two in zip(before, after, strict=True):
        assert one.masks is not None
        assert one.masks == two.masks
        assert len(one.masks) == len(one.scores)
        shapes = coco_mask.decode(one.masks)
        assert shapes.shape[:2] == (80, 100)
        assert 0 < shapes.mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_folder_and_finds_the_same_boxes(kind: str, tmp_path: Path) -> None:
    model, family = built(kind)
    family.save(model.eval(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    published, info = AutoModelForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    processor, one = AutoImageProcessor.from_pretrained(tmp_path), examples((1,))[0]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 301, 3), dtype=np.uint8))
    for image in (one["image"], photo):  # one is enlarged, and the other is made smaller
        theirs = processor(images=image, return_tensors="pt")["pixel_values"]
        ours = family.example({"image": image, "size": (image.height, image.width)})["pixel_values"]
        # RF-DETR rounds nothing; the others round to 255 steps, and a step may fall to either side
        torch.testing.assert_close(ours, theirs[0], atol=1e-5 if kind == "rf_detr" else 0.02, rtol=0)
    with torch.no_grad():
        output = published(**processor(images=one["image"], return_tensors="pt"))
    (boxes,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[one["size"]])
    (found,) = family.detect(model, batch_of(family, [one]))
    best = boxes["scores"].argsort(descending=True)
    assert len(found.scores) == len(best)
    np.testing.assert_allclose(found.scores, boxes["scores"][best], atol=1e-3)
    np.testing.assert_allclose(found.boxes[0], boxes["boxes"][best[0]].clamp(min=0), atol=0.5)


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


def test_a_name_that_two_classes_have_takes_over_no_row(tmp_path: Path) -> None:
    model, family = built("detr", ["ant", "bee", "ant"])
    family.save(model, tmp_path)
    renewed: Any = detection.build(Weights(tmp_path, None), ["ant", "Bee"], None)[0]
    old, new = model.class_labels_classifier.weight, renewed.class_labels_classifier.weight
    assert torch.equal(new[1], old[1])
    assert not torch.equal(new[0], old[0])
    assert not torch.equal(new[0], old[2])


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        *((kind, 120) for kind in ("rt_detr", "rt_detr_v2", "d_fine", "rf_detr", "lw_detr")),
        *((kind, 100) for kind in ("deformable_detr", "conditional_detr", "detr")),
    ],
)
def test_as_many_detections_as_the_authors_count(kind: str, most: int) -> None:
    model, family = detection.build(Weights(None, CONFIGS[kind] | {"num_queries": 120}), LABELS, 256)
    for found in family.detect(model.eval(), batch_of(family, examples((1,)))):
        assert len(found.scores) == len(found.boxes) == most


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_blocks_and_the_head(kind: str) -> None:
    model, family = built(kind)
    *blocks, head = family.layers(model)
    assert len(blocks) >= 3
    of_head = {id(p) for p in head.parameters()}
    assert of_head
    assert not of_head & {id(p) for block in blocks for p in block.parameters()}


@pytest.mark.parametrize("kind", ["detr", "conditional_detr", "deformable_detr"])
def test_the_stem_of_published_weights_is_frozen_and_a_random_one_trains(kind: str, tmp_path: Path) -> None:
    model, family = built(kind)
    backbone = {name: p for name, p in model.named_parameters() if "backbone" in name}
    assert all(p.requires_grad for p in backbone.values())
    family.save(model, tmp_path)
    for labels in (LABELS, ["ant"]):  # the same head, and a new one
        read, _ = detection.build(Weights(tmp_path, None), labels, None)
        trains = {name: p.requires_grad for name, p in read.named_parameters()}
        assert [name for name in backbone if not trains[name]] == [
            name for name in backbone if "embedder" in name or "stages.0" in name
        ]
        assert any(trains[name] for name in backbone)
        assert all(value for name, value in trains.items() if name not in backbone)
    drawn, _ = detection.build(Weights(tmp_path, None, True), LABELS, None)
    assert all(p.requires_grad for p in drawn.parameters())


def test_constants_of_d_fine_do_not_train(tmp_path: Path) -> None:
    model, family = built("d_fine")
    family.save(model, tmp_path)
    read, _ = detection.build(Weights(tmp_path, None), LABELS, None)
    for one in (model, read):
        fixed = {name.rsplit(".", 1)[1] for name, p in one.named_parameters() if not p.requires_grad}
        assert fixed == {"up", "reg_scale"}


def test_a_detector_may_train_without_noisy_boxes() -> None:
    model, family = detection.build(Weights(None, CONFIGS["rt_detr"] | {"num_denoising": 0}), LABELS, 128)
    batch = batch_of(family, examples())
    assert family.loss(model.train(), batch, family.counts(batch)).isfinite()
    with pytest.raises(ModelError, match="num_denoising is -1, and must be 0 or more"):
        detection.build(Weights(None, CONFIGS["rt_detr"] | {"num_denoising": -1}), LABELS, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_diverged_has_no_finite_loss(kind: str) -> None:
    model, family = built(kind)
    batch = batch_of(family, examples())
    family.loss(model.train(), batch, family.counts(batch)).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = family.loss(model, batch | {"pixel_values": batch["pixel_values"] * torch.nan}, family.counts(batch))
    assert loss.isnan()
    loss.backward()  # other processes wait for the gradients of this one
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
    assert family.loss(model, batch, family.counts(batch)).isfinite()


def one_of_two(rank: int, folder: Path) -> None:
    """A step of two processes; the first one meets NaN."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    model, family = built("detr")
    both = torch.nn.parallel.DistributedDataParallel(model.train(), find_unused_parameters=True)
    batch = batch_of(family, examples())
    if rank == 0:
        batch["pixel_values"] *= torch.nan
    loss = family.loss(both, batch, family.counts(batch))
    loss.backward()
    gradient = model.class_labels_classifier.weight.grad
    (folder / f"{rank}.txt").write_text(f"{bool(loss.isnan())} {bool(gradient.isnan().any())}")
    torch.distributed.destroy_process_group()


def test_a_process_that_meets_nan_lets_no_other_wait(tmp_path: Path) -> None:
    running: Any = torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    while not running.join(timeout=1):
        if time.monotonic() > deadline:
            for process in running.processes:
                process.kill()
            pytest.fail("one process waits for the other")
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["True True", "False True"]


def test_lora_is_refused_where_layers_share_their_head() -> None:
    model, family = built("rt_detr_v2")
    adapter = SimpleNamespace(kind="lora", rank=2, alpha=None, dropout=0.0, targets=None)
    with pytest.raises(ModelError, match="LoRA does not fit RTDetrV2ForObjectDetection; leave adapter out"):
        add_adapter(model, family.layers(model)[-1], adapter)


def test_a_step_in_bfloat16_has_gradients() -> None:
    model, family = built("rt_detr_v2")
    model.train()
    batch = batch_of(family, examples())
    with torch.autocast("cpu", torch.bfloat16):
        loss = family.loss(model, batch, family.counts(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_scores_have_no_steps_of_bfloat16(kind: str) -> None:
    model, family = built(kind)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if HEAD.search(name) and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)  # boxes differ
    names = set(model.state_dict())
    model = copy.deepcopy(model).eval()
    assert set(model.state_dict()) == names
    batch = batch_of(family, examples())
    expected = family.detect(model, batch)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        output = model(pixel_values=batch["pixel_values"])
        found = family.detect(model, batch)
    for rough in (output.pred_boxes, output.logits):
        assert (rough == rough.bfloat16()).float().mean() < 0.05
    if kind not in ("detr", "yolos"):
        return  # these choose points by their scores, so another rounding of features gives other boxes
    for one, two in zip(found, expected, strict=True):
        each = one.boxes[:, None] / [100, 80, 100, 80] - two.boxes / [100, 80, 100, 80]
        assert 800 * np.abs(each).max(-1).min(1).max() < 1  # pixels


def test_boxes_of_sharded_weights_in_bfloat16_are_exact() -> None:
    model, _ = built("detr")
    head = model.bbox_predictor
    features = torch.randn(2, 10, 32)
    expected = head(features)
    head.bfloat16()  # as FSDP holds them during a forward pass
    found = head(features)
    assert found.dtype == torch.float32
    assert (found == found.bfloat16()).float().mean() < 0.05
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.integration
def test_four_images_are_learned_by_heart() -> None:
    model, family = built("rt_detr")
    model.train()
    batch = batch_of(family, examples((1, 2, 1, 1), seed=1))
    counts = family.counts(batch)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):  # after 40, one kind of processor has the half, and another 0.505
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
    with pytest.raises(ModelError, match="a bert model does not find objects; choose one of detr, "):
        detection.build(Weights(None, {"model_type": "bert"}), LABELS, 128)
    with pytest.raises(ModelError, match="a yolos model finds boxes only; for masks choose rf_detr"):
        detection.build(Weights(None, CONFIGS["yolos"]), LABELS, 128, masks=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        detection.load(tmp_path)
