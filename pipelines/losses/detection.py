"""Losses of transformers' detectors, as sums that add up over the micro-batches of a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from transformers.loss.loss_d_fine import DFineLoss

# D-FINE's distillation between its decoder layers, as two sums: of queries with an object, and of the others
MATCHED, OTHERS = "ddf_matched", "ddf_others"


def in_float32(model: Any) -> None:
    """Compute the loss of a model in float32, also under autocast: objects are matched in NumPy, without bfloat16.

    No object can be matched with a box that is NaN. Then the losses are NaN, but they are computed all the same, with 0
    in the place of NaN: other processes wait for the sums of this one, and for its gradients.
    """
    computed: Callable[..., Any] = d_fine if model.config.model_type == "d_fine" else model.loss_function

    def loss(logits: Tensor, *given: Any, **named: Any) -> Any:
        device = logits.device
        with torch.autocast(device.type, enabled=False):
            lost: list[Tensor] = []  # the sum of the NaN of each tensor, which is 0 without any
            clean = [_clean(one, lost) for one in (logits, *given)]
            total, parts, *more = computed(*clean, **{name: _clean(one, lost) for name, one in named.items()})
            nan = torch.stack(lost).sum()
            return total + nan, {name: value + nan for name, value in parts.items()}, *more

    model.loss_function = loss


def _clean(value: Any, lost: list[Tensor]) -> Any:
    """The value in float32 and without NaN; `lost` gets what was taken out. It does not wait for a GPU."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        value = value.float()
        nan = value.isnan()
        lost.append(value.masked_fill(~nan, 0).sum())
        return value.masked_fill(nan, 0)
    if isinstance(value, (list, tuple)):
        return type(value)(_clean(one, lost) for one in value)
    if isinstance(value, dict):
        return {key: _clean(one, lost) for key, one in value.items()}
    return value


def mean_over_processes(number: float, device: Any) -> float:
    """The mean of a number over all processes, as transformers' losses take it. Every process must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    total = torch.tensor(float(number), device=device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()


def distillation(parts: Mapping[str, Tensor], matched: float, queries: float) -> Tensor | float:
    """The share of a step's distillation loss: `matched` and `queries` count all queries of the step.

    The library weights the two means with the square roots of their counts.
    """
    sums = [sum(value for name, value in parts.items() if name.startswith(kind)) for kind in (MATCHED, OTHERS)]
    counts = [4 * matched, 4 * (queries - matched)]  # each query has four sides
    whole = sum(count**0.5 for count in counts)
    found: Tensor | float = 0.0
    for one, count in zip(sums, counts, strict=True):
        if count > 0:
            found = found + one / (count**0.5 * whole)
    return found


class _DFine(DFineLoss):
    """D-FINE's loss, which gives the distillation of the normal queries as sums instead of means."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.weight_dict |= {MATCHED: config.weight_loss_ddf, OTHERS: config.weight_loss_ddf}

    def loss_local(
        self, outputs: dict[str, Any], targets: Any, indices: Any, num_boxes: float, T: float = 5
    ) -> dict[str, Tensor]:
        if "pred_corners" not in outputs or "denoising" in outputs:
            found: dict[str, Tensor] = super().loss_local(outputs, targets, indices, num_boxes, T)
            return found
        own = outputs["pred_corners"]
        # a layer that is its own teacher has no distillation loss: this leaves out the library's
        local = super().loss_local({**outputs, "teacher_corners": own}, targets, indices, num_boxes, T)
        found = {"loss_fgl": local["loss_fgl"]}
        if "teacher_corners" not in outputs:  # the last layer, which teaches the others
            return found
        teacher = outputs["teacher_corners"].detach()
        place = self._get_source_permutation_idx(indices)
        boxes = torch.cat([target["boxes"][index] for target, (_, index) in zip(targets, indices, strict=True)])
        weight = outputs["teacher_logits"].detach().sigmoid().max(-1)[0]
        weight[place] = _paired_iou(outputs["pred_boxes"].detach()[place], boxes)
        matched = torch.zeros_like(weight, dtype=torch.bool)
        matched[place] = True
        bins = (*own.shape[:-1], 4, self.max_num_bins + 1)
        between = f.kl_div(
            f.log_softmax(own.reshape(bins) / T, -1), f.softmax(teacher.reshape(bins) / T, -1), reduction="none"
        )
        of_query = weight * T**2 * between.sum((-1, -2))
        return {**found, MATCHED: of_query[matched].sum(), OTHERS: of_query[~matched].sum()}


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """The overlap of each box with the box of the same number; boxes are centre and size."""
    low = torch.maximum(first[:, :2] - first[:, 2:] / 2, second[:, :2] - second[:, 2:] / 2)
    high = torch.minimum(first[:, :2] + first[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)


def d_fine(
    logits: Tensor,
    labels: Sequence[Mapping[str, Tensor]],
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Any = None,
    outputs_coord: Any = None,
    enc_topk_logits: Any = None,
    enc_topk_bboxes: Any = None,
    denoising_meta_values: Mapping[str, Any] | None = None,
    predicted_corners: Any = None,
    initial_reference_points: Any = None,
    **unused: Any,
) -> tuple[Tensor, dict[str, Tensor], None]:
    """D-FINE's loss, except that its distillation is in the second value only, as sums.

    transformers' own pairs the classes and boxes of a decoder layer with the sides of the next one, because classes and
    boxes begin with those before the first layer. So it also leaves the sides of the last layer without a loss, and
    the classes of the last layer but one. Here each layer has its own, as in the paper's code.
    """
    criterion: nn.Module = _DFine(config).to(device)
    outputs: dict[str, Any] = {}
    if denoising_meta_values is not None:
        split = denoising_meta_values["dn_num_split"]
        logits, pred_boxes = logits.split(split, 1)[1], pred_boxes.split(split, 1)[1]
    outputs |= {"logits": logits, "pred_boxes": pred_boxes.clamp(0, 1)}
    if config.auxiliary_loss:
        # of all decoder layers, [images, layers, queries, ...]
        layers = [outputs_class, outputs_coord.clamp(0, 1), predicted_corners, initial_reference_points]
        if denoising_meta_values is not None:
            noisy = [one.split(split, 2)[0] for one in layers]
            layers = [one.split(split, 2)[1] for one in layers]
            early, found = _by_layer(*noisy)
            outputs["dn_auxiliary_outputs"] = [{**one, "denoising": True} for one in (*early, *found)]
            outputs["denoising_meta_values"] = denoising_meta_values
        early, found = _by_layer(*layers)
        outputs |= {name: found[-1][name] for name in ("pred_corners", "ref_points")}
        of_encoder = {"logits": enc_topk_logits, "pred_boxes": enc_topk_bboxes.clamp(0, 1)}
        outputs["auxiliary_outputs"] = [*early, *found[:-1], of_encoder]
    parts: dict[str, Tensor] = criterion(outputs, labels)
    return torch.stack([one for name, one in parts.items() if not name.startswith("ddf_")]).sum(), parts, None


def _by_layer(
    logits: Tensor, boxes: Tensor, corners: Tensor, points: Tensor
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The outputs before the first decoder layer (none in eval mode), and those of each layer.

    The last layer teaches the others.
    """
    before = logits.shape[1] - corners.shape[1]
    early = [{"logits": logits[:, place], "pred_boxes": boxes[:, place]} for place in range(before)]
    teacher = {"teacher_logits": logits[:, -1], "teacher_corners": corners[:, -1]}
    names = ("logits", "pred_boxes", "pred_corners", "ref_points")
    all_layers = (logits[:, before:], boxes[:, before:], corners, points)
    each = zip(*(one.unbind(1) for one in all_layers), strict=True)
    return early, [dict(zip(names, of_layer, strict=True)) | teacher for of_layer in each]
