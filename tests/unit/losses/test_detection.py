"""Losses of detectors: NaN reaches every process, and each decoder layer of D-FINE has its own outputs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DFineConfig
from transformers.loss.loss_d_fine import DFineLoss

from pipelines.losses import detection as losses

IMAGES, QUERIES, BINS = 2, 6, 8
CONFIG = DFineConfig(num_labels=3, num_queries=QUERIES, max_num_bins=BINS, decoder_layers=3)


def outputs(layers: int = 3) -> dict[str, Any]:
    """What D-FINE hands to its loss in training: classes and boxes begin with those before the first layer."""
    torch.manual_seed(0)
    boxes = torch.rand(IMAGES, layers + 1, QUERIES, 4) * 0.3 + 0.3
    classes = torch.randn(IMAGES, layers + 1, QUERIES, 3)
    corners = torch.randn(IMAGES, layers, QUERIES, 4 * (BINS + 1))
    return {
        "logits": classes[:, -1],
        "pred_boxes": boxes[:, -1],
        "outputs_class": classes,
        "outputs_coord": boxes,
        "predicted_corners": corners,
        "initial_reference_points": torch.rand(IMAGES, layers, QUERIES, 4) * 0.3 + 0.3,
        "enc_topk_logits": torch.randn(IMAGES, QUERIES, 3),
        "enc_topk_bboxes": torch.rand(IMAGES, QUERIES, 4) * 0.3 + 0.3,
    }


def labels(objects: tuple[int, ...] = (2, 1)) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    return [
        {"boxes": torch.rand(count, 4) * 0.3 + 0.3, "class_labels": torch.randint(0, 3, (count,))} for count in objects
    ]


def test_each_decoder_layer_has_a_loss_of_its_sides_and_classes() -> None:
    given = outputs()
    for name in ("outputs_class", "outputs_coord", "predicted_corners"):
        given[name].requires_grad_()
    total, parts, _ = losses.d_fine(labels=labels(), device="cpu", config=CONFIG, **given)
    total.backward()
    assert (given["predicted_corners"].grad.abs().sum((0, 2, 3)) > 0).tolist() == [True] * 3
    # the last layer's classes and boxes are `logits` and `pred_boxes`
    assert (given["outputs_class"].grad.abs().sum((0, 2, 3)) > 0).tolist() == [True] * 3 + [False]
    assert (given["outputs_coord"].grad.abs().sum((0, 2, 3)) > 0).tolist() == [True] * 3 + [False]
    # numbers of outputs: before the first layer (without sides), the first, the second, the encoder's (without sides)
    assert sorted(name for name in parts if "fgl" in name) == ["loss_fgl", "loss_fgl_aux_1", "loss_fgl_aux_2"]
    assert sorted(name for name in parts if "vfl" in name) == ["loss_vfl", *(f"loss_vfl_aux_{n}" for n in range(4))]
    assert sorted(name for name in parts if "ddf" in name) == [
        f"ddf_{which}_aux_{place}" for which in ("matched", "others") for place in (1, 2)
    ]


@pytest.mark.parametrize("objects", [(2, 1), (0, 0), (QUERIES, QUERIES)])
def test_the_distillation_of_a_batch_is_the_librarys(objects: tuple[int, ...]) -> None:
    given, true = outputs(), labels(objects)
    _, parts, _ = losses.d_fine(labels=true, device="cpu", config=CONFIG, **given)
    expected = 0.0
    library = DFineLoss(CONFIG)
    for layer in (0, 1):
        of_layer = {
            "logits": given["outputs_class"][:, layer + 1],
            "pred_boxes": given["outputs_coord"][:, layer + 1],
            "pred_corners": given["predicted_corners"][:, layer],
            "ref_points": given["initial_reference_points"][:, layer],
            "teacher_logits": given["outputs_class"][:, -1],
            "teacher_corners": given["predicted_corners"][:, -1],
        }
        pairs = library.matcher(of_layer, true)
        expected += library.loss_local(of_layer, true, pairs, 1.0)["loss_ddf"].item() * CONFIG.weight_loss_ddf
    found = losses.distillation(parts, sum(objects), IMAGES * QUERIES)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_the_shares_of_micro_batches_are_the_distillation_of_the_step() -> None:
    given, true = outputs(), labels((3, 0))
    whole = losses.distillation(losses.d_fine(labels=true, device="cpu", config=CONFIG, **given)[1], 3, 12)
    found = 0.0
    for place in range(IMAGES):
        own = {name: value[place : place + 1] for name, value in given.items()}
        parts = losses.d_fine(labels=true[place : place + 1], device="cpu", config=CONFIG, **own)[1]
        found += float(losses.distillation(parts, 3, 12))
    assert found == pytest.approx(float(whole), rel=1e-5)


def test_the_loss_works_without_outputs_before_the_first_layer() -> None:
    given = outputs(1)  # as in eval mode
    given |= {name: given[name][:, 1:] for name in ("outputs_class", "outputs_coord")}
    total, parts, _ = losses.d_fine(labels=labels(), device="cpu", config=CONFIG, **given)
    assert total.isfinite()
    assert "loss_fgl" in parts
    assert losses.distillation(parts, 3, 12) == 0


def test_a_loss_of_nan_is_computed_and_has_gradients() -> None:
    seen = []

    def computed(logits: Tensor, boxes: Tensor) -> tuple[Tensor, dict[str, Tensor], None]:
        seen.append((logits, boxes))  # the sums over all processes are in here
        return logits.sum(), {"loss_ce": logits.sum(), "loss_mask_ce": logits.new_zeros(0)}, None

    model = SimpleNamespace(config=SimpleNamespace(model_type="detr"), loss_function=computed)
    losses.in_float32(model)
    logits = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    endless = torch.tensor([torch.inf, 3.0])  # of points outside the image
    total, parts, _ = model.loss_function(logits, boxes=endless)
    assert (total.item(), parts["loss_ce"].item()) == (3, 3)
    assert total.dtype == torch.float32
    total, parts, _ = model.loss_function(logits, boxes=endless * torch.tensor([1, torch.nan]))
    assert total.isnan()
    assert parts["loss_ce"].isnan()
    assert len(parts["loss_mask_ce"]) == 0
    assert [boxes.tolist() for _, boxes in seen] == [[torch.inf, 3], [torch.inf, 0]]
    total.backward()
    assert logits.grad is not None
