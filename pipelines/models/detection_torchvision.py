"""Detectors of torchvision: Faster R-CNN, Mask R-CNN, RetinaNet, FCOS, SSD.

A folder holds config.json (`"model_type": "torchvision"`, `"architecture": "fasterrcnn_resnet50_fpn"`, `id2label`) and
model.safetensors. `architecture` is the name of a function of torchvision, or `fasterrcnn`, `retinanet` or `maskrcnn`
with a timm model as `backbone`. torchvision's own .pth files are not read, because they are pickles.

BatchNorm is live, as torchvision has it for a model from random weights. `"frozen_batch_norm": true` freezes that of
the backbone, as torchvision does for its pretrained models.

Other keys of a configuration: `image_size` (the longest side; RetinaNet and FCOS pad every image to that square),
`fpn_channels` and `anchor_scale` (with a timm backbone), `backbone_weights` (a folder or hub repo of timm, read once),
and for R-CNN `proposals`, `samples` and `anchor_samples` per image. R-CNN on a timm backbone also has `head_channels`
(of the two layers that classify a region; torchvision has 1,024) and `mask_channels` (of the four layers that draw a
mask; 256).

torchvision's own weights become a folder with a config.json of one's own and

    save_file(torch.load("downloaded.pth", weights_only=True), "model.safetensors")  # of safetensors.torch

They need `"frozen_batch_norm": true`. Faster R-CNN, Mask R-CNN and RetinaNet with COCO_V1 on ResNet-50 (the names that
end in _resnet50_fpn) also need `"batch_norm_eps": 0.0`: torchvision adds 0 to the variances of these weights, and 1e-5
elsewhere.

Their classes are those of `Weights.meta["categories"]`: without the first, `__background__`, for R-CNN and SSD; with it
for RetinaNet and FCOS.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection as models
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.roi_heads import RoIHeads, expand_boxes, expand_masks
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes

from pipelines.config.validation_errors import suggest
from pipelines.data.image import run_lengths
from pipelines.errors import ModelError
from pipelines.models import folders, timm_weights
from pipelines.models import layers as model_layers
from pipelines.models.detection import MOST, Batch, Detections, in_float32
from pipelines.models.pretrained import rows_of
from pipelines.models.region_pooling import RegionPooling
from pipelines.utils import shares
from pipelines.utils.formatting import short

ARCHITECTURES = (
    *("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"),
    *("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"),
    *("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"),
    *("ssd300_vgg16", "ssdlite320_mobilenet_v3_large", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"),
)
DENSE = ("deeplabv3", "fcn_", "lraspp")  # begin the names of models of pipelines.models.segmentation_torchvision
WITH_TIMM = ("fasterrcnn", "retinanet", "maskrcnn")
SIDES = {  # shortest and longest side that torchvision resizes to
    "fasterrcnn_mobilenet_v3_large_320_fpn": (320, 640),
    "ssd300_vgg16": (300, 300),
    "ssdlite320_mobilenet_v3_large": (320, 320),
}
KEYS = {  # of config.json -> the arguments of torchvision's R-CNN
    "proposals": ("rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test"),
    "samples": ("box_batch_size_per_image",),
    "anchor_samples": ("rpn_batch_size_per_image",),
}
NUMBERS = {  # of config.json -> the least and the most
    "image_size": (32, 4096),
    **dict.fromkeys(("fpn_channels", "head_channels", "mask_channels"), (1, 4096)),
    **dict.fromkeys(("proposals", "samples", "anchor_samples"), (1, 100_000)),
}
OWNERS = {  # of keys that only some detectors take
    "frozen_batch_norm": "detectors with BatchNorm",
    "batch_norm_eps": "detectors with frozen_batch_norm",
    **dict.fromkeys(("fpn_channels", "anchor_scale", "backbone_weights"), "detectors with a timm `backbone`"),
    **dict.fromkeys(KEYS, "Faster and Mask R-CNN"),
    "head_channels": "Faster and Mask R-CNN with a timm backbone",
    "mask_channels": "Mask R-CNN with a timm backbone",
}
BACKBONE = re.compile(r"[\w.]+")  # no path and no hub id: timm would open or download it
OF_CLASSES = re.compile(  # the parameters that hold a part for each class
    r"(roi_heads\.(box_predictor\.(cls_score|bbox_pred)|mask_predictor\.mask_fcn_logits)"
    r"|head\.classification_head\.(cls_logits|module_list\.\d+(\.1)?))\.(weight|bias)"
)
FLOOR = 0.05  # of FCOS, where torchvision has 0.2, which costs AP. The others have what torchvision has
CROWDED = 0.5  # part of an anchor in a crowd from which on it is no negative


class _Prepared(nn.Module):
    """torchvision's place for resizing. The images come resized; here they are normalised and padded.

    With `canvas` every batch has that size, so that the loss of an image does not depend on the others in its batch.
    """

    def __init__(self, mean: Sequence[float], spread: Sequence[float], canvas: int | None) -> None:
        super().__init__()
        self.mean, self.spread, self.canvas = list(mean), list(spread), canvas

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        height, width = (_up(self.canvas or max(side)) for side in zip(*sizes, strict=True))
        if self.canvas is not None and all(size == (self.canvas, self.canvas) for size in sizes):
            height = width = self.canvas
        mean = torch.tensor(self.mean, device=images[0].device)[:, None, None]
        spread = torch.tensor(self.spread, device=images[0].device)[:, None, None]
        pixels = torch.zeros(len(images), 3, height, width, device=images[0].device)
        for place, image in zip(pixels, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = (image.float() / 255 - mean) / spread
        if targets is not None:
            targets = [target | {name: _read(target[name]) for name in CORNERS} for target in targets]
        return ImageList(pixels, sizes), targets

    def postprocess(self, result: Any, shapes: Any, original: Any) -> Any:
        return [one | {name: _bits(one[name]) for name in ("boxes", "scores")} for one in result]


CORNERS = ("boxes", "crowds")  # of a target


def _bits(values: Tensor) -> Tensor:
    """float32 numbers that look like integers: FSDP rounds all that goes into and comes out of a model to bfloat16."""
    return values.float().contiguous().view(torch.int32)


def _read(values: Tensor) -> Tensor:
    """The numbers of `_bits`."""
    return values.view(torch.float32) if values.dtype == torch.int32 else values


def _output_in_float32(module: nn.Module, given: Any, output: Any) -> Any:
    """A forward hook."""
    return in_float32(output)


class _Anchors(AnchorGenerator):
    """Anchors in float32, whatever the feature maps are."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(torch.float32, device)


class _DefaultBoxes(DefaultBoxGenerator):
    """The same for SSD."""

    def _grid_default_boxes(self, grid_sizes: Any, image_size: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        boxes: Tensor = super()._grid_default_boxes(grid_sizes, image_size, torch.float32)
        return boxes


def _up(side: int) -> int:
    """The side of a padded image: a multiple of the largest stride of most backbones."""
    return -(-side // 32) * 32


def crowded(anchors: Tensor, crowds: Tensor) -> Tensor:
    """Whether at least half of an anchor lies in one crowd."""
    if not len(crowds):
        return torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    low = torch.maximum(anchors[:, None, :2], crowds[None, :, :2])
    high = torch.minimum(anchors[:, None, 2:], crowds[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (anchors[:, 2:] - anchors[:, :2]).clamp(min=1e-6).prod(-1)
    found: Tensor = (shared / area[:, None]).amax(1) >= CROWDED
    return found


def _mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}


class _Proposals(RegionProposalNetwork):
    """The loss is the mean over images of each image's loss. Anchors in crowds are no negatives."""

    def filter_proposals(self, proposals: Any, objectness: Any, image_shapes: Any, num_anchors_per_level: Any) -> Any:
        """torchvision's proposals. Overlaps are looked for among the best boxes first, and only in these if they do.

        The time grows with the square of the number of boxes: on a CPU this was a quarter of a training step.
        """
        most = self.post_nms_top_n()
        scores = objectness.detach().reshape(len(proposals), -1)
        levels = torch.arange(len(num_anchors_per_level), device=scores.device)
        levels = levels.repeat_interleave(torch.tensor(num_anchors_per_level, device=scores.device))
        chosen = self._get_top_n_idx(scores, num_anchors_per_level)
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for boxes, score, best, shape in zip(proposals, scores, chosen, image_shapes, strict=True):
            score, order = score[best].sigmoid().sort(descending=True, stable=True)
            boxes, level = clip_boxes_to_image(boxes[best[order]], shape), levels[best[order]]
            large = remove_small_boxes(boxes, self.min_size)
            boxes, score, level = boxes[large], score[large], level[large]
            count = 2 * most
            while True:
                kept = batched_nms(boxes[:count], score[:count], level[:count], self.nms_thresh)
                if len(kept) >= most or count >= len(boxes):
                    break
                count *= 2
            for places, values in zip(found, (boxes, score), strict=True):
                places.append(values[kept[:most]])
        return found

    def assign_targets_to_anchors(self, anchors: Any, targets: Any) -> Any:
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & crowded(anchor, target["crowds"])] = -1
        return labels, matched

    def compute_loss(self, objectness: Any, pred_bbox_deltas: Any, labels: Any, regression_targets: Any) -> Any:
        count = len(labels)
        parts = zip(objectness.chunk(count), pred_bbox_deltas.chunk(count), labels, regression_targets, strict=True)
        losses = [super(_Proposals, self).compute_loss(o.float(), d.float(), [n], [r]) for o, d, n, r in parts]
        return tuple(torch.stack(kind).mean() for kind in zip(*losses, strict=True))


class _RoIHeads(RoIHeads):
    """Proposals in crowds are no negatives. The means are over the sampled proposals of all images of the batch."""

    def select_training_samples(self, proposals: Any, targets: Any) -> Any:
        self.crowds = [target["crowds"] for target in targets]
        try:
            return super().select_training_samples(proposals, targets)
        finally:
            del self.crowds

    def assign_targets_to_proposals(self, proposals: Any, gt_boxes: Any, gt_labels: Any) -> Any:
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, proposal, crowds in zip(labels, proposals, self.crowds, strict=True):
            label[(label == 0) & crowded(proposal, crowds)] = -1
        return matched, labels


def _one_by_one(compute: Any, targets: Any, outputs: Any, *lists: Any) -> dict[str, Tensor]:
    """The mean over images of a loss, each image divided by its own foreground."""
    return _mean(
        [
            compute([target], {k: v[i : i + 1].float() for k, v in outputs.items()}, *([kind[i]] for kind in lists))
            for i, target in enumerate(targets)
        ]
    )


class _RetinaNet(RetinaNet):
    def postprocess_detections(self, head_outputs: Any, anchors: Any, image_shapes: Any) -> Any:
        return super().postprocess_detections(in_float32(head_outputs), anchors, image_shapes)

    def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any) -> Any:
        matched = []
        for anchor, target in zip(anchors, targets, strict=True):
            if len(target["boxes"]):
                found = self.proposal_matcher(box_iou(target["boxes"], anchor))
            else:
                found = torch.full((len(anchor),), -1, dtype=torch.int64, device=anchor.device)
            found[(found == -1) & crowded(anchor, target["crowds"])] = -2  # torchvision's sign for "ignored"
            matched.append(found)
        return _one_by_one(self.head.compute_loss, targets, head_outputs, anchors, matched)


class _FCOS(FCOS):
    def postprocess_detections(self, head_outputs: Any, anchors: Any, image_shapes: Any) -> Any:
        return super().postprocess_detections(in_float32(head_outputs), anchors, image_shapes)

    def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any, num_anchors_per_level: Any) -> Any:
        def one(target: Any, outputs: Any, anchor: Any) -> Any:
            return super(_FCOS, self).compute_loss(target, outputs, anchor, num_anchors_per_level)

        return _one_by_one(one, targets, head_outputs, anchors)


class _SSD(SSD):
    def postprocess_detections(self, head_outputs: Any, anchors: Any, image_shapes: Any) -> Any:
        return super().postprocess_detections(in_float32(head_outputs), anchors, image_shapes)

    def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: Any) -> Any:
        return _one_by_one(super().compute_loss, targets, head_outputs, anchors, matched_idxs)


class _Pyramid(nn.Module):
    """A timm model's feature maps of stride 4 and more, with a feature pyramid on top."""

    def __init__(self, name: str, channels: int, extra: nn.Module) -> None:
        super().__init__()
        import timm
        from torchvision.ops import FeaturePyramidNetwork

        try:
            self.body = timm.create_model(name, features_only=True, pretrained=False)
            known: Any = self.body.feature_info
            strides, wide = known.reduction(), known.channels()
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            raise ModelError(f"backbone: {name!r} cannot be the backbone of a detector: {error}") from None
        self.used = [index for index, stride in enumerate(strides) if stride >= 4]
        self.strides = [strides[index] for index in self.used]
        self.fpn = FeaturePyramidNetwork([wide[index] for index in self.used], channels, extra)
        self.out_channels = channels

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        maps = self.body(pixels)
        found: dict[str, Tensor] = self.fpn({str(index): maps[index] for index in self.used})
        return found


def _with_timm(config: Mapping[str, Any], classes: int, numbers: dict[str, int]) -> Any:
    """Faster R-CNN, Mask R-CNN or RetinaNet on a timm backbone."""
    from torchvision.models.detection import retinanet
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    kind, channels = config["architecture"], config.get("fpn_channels", 256)
    dense = kind == "retinanet"
    extra = LastLevelP6P7(channels, channels) if dense else LastLevelMaxPool()
    pyramid = _Pyramid(config["backbone"], channels, extra)
    scale = config.get("anchor_scale", 4 if dense else 8)
    strides = [*pyramid.strides, *(pyramid.strides[-1] * 2**n for n in range(1, 3 if dense else 2))]
    steps = [2 ** (n / 3) for n in range(3)] if dense else [1.0]
    sizes = tuple(tuple(scale * stride * step for step in steps) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    if dense:
        head = retinanet.RetinaNetHead(channels, anchors.num_anchors_per_location()[0], classes)
        return RetinaNet(pyramid, classes, anchor_generator=anchors, head=head)
    names = [str(index) for index in pyramid.used]
    shared: dict[str, Any] = {
        "rpn_anchor_generator": anchors,
        "box_roi_pool": MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
    }
    wide = config.get("head_channels", 1024)
    shared["box_head"] = TwoMLPHead(channels * 7**2, wide)
    shared["box_predictor"] = FastRCNNPredictor(wide, classes + 1)
    if kind == "fasterrcnn":
        return models.FasterRCNN(pyramid, **shared, **numbers)
    deep = config.get("mask_channels", 256)
    shared["mask_roi_pool"] = MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2)
    shared["mask_head"] = MaskRCNNHeads(channels, (deep,) * 4, 1)
    shared["mask_predictor"] = MaskRCNNPredictor(deep, deep, classes + 1)
    return models.MaskRCNN(pyramid, **shared, **numbers)


def _strides(model: Any, kind: str) -> list[int]:
    """The strides of the feature maps from which an R-CNN takes its regions."""
    if isinstance(model.backbone, _Pyramid):
        return model.backbone.strides
    return [32, 32] if "mobilenet" in kind else [4, 8, 16, 32]


def _checked(given: Mapping[str, Any], own: bool) -> dict[str, Any]:
    """The configuration without empty keys. One's `own`, of a recipe, has no key without an effect. Raises ModelError.

    A configuration of the hub comes from a stranger. It may have keys of other programs.
    """
    config = {key: value for key, value in given.items() if value is not None}
    kind, backbone = config.get("architecture"), config.get("backbone")
    if "backbone" in config:
        import timm

        if not isinstance(backbone, str) or not BACKBONE.fullmatch(backbone) or not timm.is_model(backbone):
            raise ModelError(
                f"backbone: got {short(repr(backbone), 60)}, must be a model of timm, such as resnet50.tv_in1k"
            )
    if isinstance(kind, str) and kind.startswith(DENSE):
        raise ModelError(
            f"torchvision/{short(kind, 60)} gives every pixel a class and finds no objects: the task "
            f"image-segmentation trains it. Detectors are {', '.join(ARCHITECTURES)}"
        )
    if not isinstance(kind, str) or kind not in (WITH_TIMM if backbone else ARCHITECTURES):
        allowed = ", ".join(WITH_TIMM if backbone else ARCHITECTURES)
        more = "" if backbone or kind not in WITH_TIMM else " (this one needs a `backbone`, the name of a timm model)"
        found = short(repr(kind), 60)
        raise ModelError(f"architecture: got {found}{more}; with{'' if backbone else 'out'} a backbone: {allowed}")
    for key, (least, most) in NUMBERS.items():
        if key in config and (type(config[key]) is not int or not least <= config[key] <= most):
            got = short(repr(config[key]))
            raise ModelError(f"{key}: got {got}, must be a number without decimals from {least} to {most}")
    if kind == "ssd300_vgg16" and config.get("image_size", 300) < 268:
        raise ModelError(f"image_size: got {config['image_size']}; ssd300_vgg16 takes images from 268 on")
    for key, most in (("anchor_scale", 64), ("batch_norm_eps", 1)):
        number = config.get(key, 1)
        if type(number) not in (int, float) or not 0 <= number <= most or (key == "anchor_scale" and not number):
            above = "above 0 and at most" if key == "anchor_scale" else "from 0 to"
            raise ModelError(f"{key}: got {short(repr(number))}, must be a number {above} {most}")
    if type(config.get("frozen_batch_norm", False)) is not bool:
        raise ModelError(f"frozen_batch_norm: got {short(repr(config['frozen_batch_norm']))}, must be true or false")
    if own:
        _check_keys(config, kind)
    return config


def _check_keys(config: Mapping[str, Any], kind: str) -> None:
    """Raises ModelError if a key has no effect."""
    takes = {"model_type", "architecture", "image_size", "id2label", "backbone"}
    if kind != "ssd300_vgg16":
        takes |= {"frozen_batch_norm"} | ({"batch_norm_eps"} if config.get("frozen_batch_norm") else set())
    if "rcnn" in kind:
        takes |= {*KEYS}
    if "backbone" in config:
        takes |= {"fpn_channels", "anchor_scale", "backbone_weights"}
        takes |= {"head_channels"} if "rcnn" in kind else set()
        takes |= {"mask_channels"} if kind == "maskrcnn" else set()
    for key in config:
        if key not in takes:
            allowed = ", ".join(sorted(takes - {"model_type", "id2label"}))
            why = f": only {OWNERS[key]} take it." if key in OWNERS else suggest(str(key), takes) or "."
            name = short(str(key))
            raise ModelError(f"model.config: {kind} takes no {name}{why} It takes {allowed}")


def _network(config: Mapping[str, Any], classes: int) -> Any:
    """The network of a checked configuration, with random weights. Raises ModelError."""
    kind, backbone = str(config["architecture"]), config.get("backbone")
    has_regions = "rcnn" in kind
    numbers = {name: config[key] for key, names in KEYS.items() if key in config and has_regions for name in names}
    model: Any
    if backbone:
        model = _with_timm(config, classes, numbers)
    else:
        background = 0 if kind.startswith(("retinanet", "fcos")) else 1
        numbers["num_classes"] = classes + background
        model = getattr(models, kind)(weights=None, weights_backbone=None, **numbers)
    if config.get("frozen_batch_norm"):
        from timm.layers.norm_act import FrozenBatchNormAct2d
        from timm.utils import model as tools
        from torchvision.ops import FrozenBatchNorm2d

        freeze: Any = vars(tools)["freeze_batch_norm_2d"]
        model.backbone = freeze(model.backbone)
        for part in model.backbone.modules():
            if "batch_norm_eps" in config and isinstance(part, (FrozenBatchNorm2d, FrozenBatchNormAct2d)):
                part.eps = float(config["batch_norm_eps"])
    size = config.get("image_size")
    if isinstance(model, SSD):
        if not shares.asked():  # FSDP does not accept this memory. SSDlite on a CPU is 1.5 times as fast with it
            model = model.to(memory_format=torch.channels_last)
        if size and size != 300:
            model.anchor_generator.steps = None  # they are pixels at 300
        model.size = (size or SIDES[kind][0],) * 2
    canvas = model.size[0] if isinstance(model, SSD) else None if has_regions else size
    model.transform = _Prepared(model.transform.image_mean, model.transform.image_std, canvas)
    for plain, ours in ((RetinaNet, _RetinaNet), (FCOS, _FCOS), (SSD, _SSD)):
        if type(model) is plain:
            model.__class__ = ours
    anchors = model.rpn.anchor_generator if has_regions else model.anchor_generator
    anchors.__class__ = _DefaultBoxes if isinstance(model, SSD) else _Anchors
    if has_regions:
        for part in (model.rpn.head, model.roi_heads.box_predictor, model.roi_heads.mask_predictor):
            if part is not None:
                part.register_forward_hook(_output_in_float32)
        model.rpn.__class__, model.roi_heads.__class__ = _Proposals, _RoIHeads
        model.roi_heads.detections_per_img = MOST
        for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
            if pool is not None:
                pool.__class__ = RegionPooling
                pool.set_strides(_strides(model, kind))
    elif isinstance(model, FCOS):
        model.score_thresh = FLOOR
    return model


def _fill(model: Any, weights: dict[str, Tensor], known: list[str], labels: list[str], where: Any) -> None:
    """Load weights; the outputs of the classes known by name are kept, those of other classes stay random."""
    own = model.state_dict()
    background = 0 if isinstance(model, (RetinaNet, FCOS)) else 1
    old, new = len(known) + background, len(labels) + background
    pairs = [(0, 0)] * background
    for index, label in enumerate(labels):
        row = rows_of(known, [label]) if known != labels else [index]
        if row:
            pairs.append((row[0] + background, index + background))
    wrong = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    for name, tensor in weights.items():
        if name not in own:
            wrong.append(name)
            continue
        if known == labels or not OF_CLASSES.fullmatch(name):
            if tensor.shape != own[name].shape:
                wrong.append(name)
            else:
                own[name].copy_(tensor)
            continue
        if tensor.shape[1:] != own[name].shape[1:] or len(tensor) % old or len(tensor) // old != len(own[name]) // new:
            wrong.append(name)
            continue
        boxes = "bbox_pred" in name  # [class, 4]; all others are [anchor, class]
        each = len(tensor) // old
        shape = (old, each) if boxes else (each, old)
        given = tensor.reshape(*shape, *tensor.shape[1:])
        kept = own[name].reshape(*((new, each) if boxes else (each, new)), *tensor.shape[1:])
        for before, after in pairs:
            if boxes:
                kept[after] = given[before]
            else:
                kept[:, after] = given[:, before]
        own[name].copy_(kept.reshape(own[name].shape))
    if wrong:
        raise ModelError(f"{where}: its weights are not those of its config.json: {wrong[0]} and {len(wrong) - 1} more")


class TorchvisionFamily:
    """The loss is the mean over images. For RetinaNet, FCOS and SSD it adds up exactly over micro-batches if BatchNorm
    is not live and `image_size` is given: each image is divided by its own foreground (torchvision divides FCOS and SSD
    by that of the batch).

    Faster and Mask R-CNN: the proposal network is exact but for its random samples. The region heads average over the
    sampled proposals of the micro-batch, which is exact if every image fills its samples. The samples are drawn from
    torch's generator, which the trainer seeds as for dropout. Batches are only as large as their images, as in
    torchvision, and not squares; so the padding depends on the images of the micro-batch.

    Crowds are never objects. Anchors and proposals of RetinaNet and R-CNN that lie half in a crowd are no negatives;
    FCOS and SSD count them as background.

    Scores below a floor are not given, whatever the threshold: 0.05 for R-CNN, RetinaNet and FCOS, 0.01 for SSD and
    0.001 for SSDlite, torchvision's own but for FCOS. An image has at most 100 detections with R-CNN and FCOS, 200 with
    SSD, 300 with RetinaNet and SSDlite, also torchvision's numbers: with these the published AP was measured.

    Detections do not depend on other images: images of one padded size are detected together. FSDP is the exception:
    there each batch is padded to its largest image and detected at once, because all processes must call the model
    equally often. The padding may then change a box or a score a little.
    """

    library = "torchvision"

    def __init__(self, config: Mapping[str, Any], labels: Sequence[str]) -> None:
        self.config, self.labels = dict(config), list(labels)
        kind = str(config["architecture"])
        size = config.get("image_size")
        self.square = kind.startswith("ssd")
        self.sides = (size, size) if size else SIDES.get(kind, (800, 1333))
        self.masks = kind.startswith("maskrcnn")
        self.canvas = self.square or (bool(size) and "rcnn" not in kind)
        self.offset = 0 if kind.startswith(("retinanet", "fcos")) else 1
        self.together = shares.asked()

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        from PIL import Image

        image = example["image"]
        width, height = image.size
        if self.square:
            size = (self.sides[0], self.sides[0])
        else:
            scale = min(self.sides[0] / min(width, height), self.sides[1] / max(width, height))
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        result: dict[str, Any] = {
            "pixels": torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(),
            "size": tuple(example.get("size", (height, width))),
        }
        if example.get("boxes") is None:
            return result
        factors = np.array([size[0] / width, size[1] / height] * 2, np.float32)
        boxes = np.asarray(example["boxes"], np.float32).reshape(-1, 4) * factors
        boxes = boxes.clip(0, np.array([*size, *size], np.float32))
        fine = np.isfinite(boxes).all(1) & (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(
            1
        )  # torchvision fails on empty ones
        crowd = np.asarray(example.get("crowd", np.zeros(len(boxes))), bool)
        chosen = np.flatnonzero(fine & ~crowd)
        target = {
            "boxes": torch.from_numpy(boxes[chosen]),
            "labels": torch.from_numpy(np.asarray(example["classes"], np.int64)[chosen] + self.offset),
            "crowds": torch.from_numpy(boxes[fine & crowd]),
        }
        if self.masks:
            drawn = [
                np.array(
                    Image.fromarray(np.asarray(example["masks"][i], np.uint8)).resize(size, Image.Resampling.NEAREST)
                )
                for i in chosen
            ]
            stacked = np.stack(drawn) if drawn else np.zeros((0, size[1], size[0]), np.uint8)
            target["masks"] = torch.from_numpy(stacked)
        result["target"] = target
        return result

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        batch: Batch = {name: [one[name] for one in examples] for name in ("pixels", "size")}
        if all("target" in one for one in examples):
            batch["targets"] = [dict(one["target"]) for one in examples]
        return batch

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"images": float(len(batch["pixels"]))}

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        pixels, targets = _placed(model, batch["pixels"]), _placed(model, batch["targets"])
        targets = [target | {name: _bits(target[name]) for name in CORNERS} for target in targets]
        if model.training:
            losses = model(pixels, targets)
        else:  # torchvision gives losses in training mode only: its parts keep their mode, so BatchNorm is not changed
            network = getattr(model, "module", model)
            parts = [part for part in network.modules() if isinstance(part, HAVE_LOSSES)]
            for part in parts:
                part.training = True
            try:
                losses = model(pixels, targets)
            finally:
                for part in parts:
                    part.training = False
        total: Tensor = sum(part.float() for part in losses.values())
        return total * (len(pixels) / counts["images"])

    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        model.eval()
        pixels: list[Tensor] = batch["pixels"]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(pixels):
            key = () if self.canvas or self.together else tuple(_up(side) for side in image.shape[1:])
            groups.setdefault(key, []).append(place)
        found: list[Any] = [None] * len(pixels)
        with torch.no_grad():
            for places in groups.values():
                for place, one in zip(places, model(_placed(model, [pixels[n] for n in places])), strict=True):
                    found[place] = one
        pairs = zip(found, pixels, batch["size"], strict=True)
        return [self._original(one, tuple(pixels.shape[1:]), size) for one, pixels, size in pairs]

    def _original(self, found: Mapping[str, Tensor], shape: Any, size: tuple[int, int]) -> Detections:
        """The detections of one image, at its original size."""
        height, width = int(size[0]), int(size[1])
        boxes, scores = _read(found["boxes"]).cpu(), _read(found["scores"]).cpu()
        order = scores.argsort(descending=True, stable=True)
        factors = torch.tensor([width / shape[1], height / shape[0]] * 2)
        boxes = (boxes[order] * factors).clamp(min=0).minimum(torch.tensor([width, height] * 2))
        masks = None
        if self.masks:
            probabilities = found["masks"].float().cpu()[order]
            masks = [pasted(mask, box, height, width) for mask, box in zip(probabilities, boxes, strict=True)]
        classes = found["labels"].cpu()[order] - self.offset
        return Detections(boxes.numpy(), scores[order].numpy(), classes.numpy().astype(np.int64), masks)

    def layers(self, model: nn.Module) -> list[nn.Module]:
        network: Any = model
        head = nn.ModuleList([network.rpn, network.roi_heads]) if hasattr(network, "rpn") else network.head
        return [*model_layers.blocks(network.backbone), head]

    def save(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        named = {str(index): label for index, label in enumerate(self.labels)}
        config = {**self.config, "model_type": "torchvision", "id2label": named}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pasted(mask: Tensor, box: Tensor, height: int, width: int) -> dict[str, Any]:
    """The probabilities [1, h, w] of a box as COCO's run lengths in the image, as torchvision's own code draws them.

    That code fills a complete image for each mask, which is slow for large photos.
    """
    bordered, scale = expand_masks(mask[None], 1)
    left, top, right, bottom = expand_boxes(box[None], scale).long()[0].tolist()
    sides = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    drawn = nn.functional.interpolate(bordered, sides, mode="bilinear", align_corners=False)[0, 0] > 0.5
    x, y = max(left, 0), max(top, 0)
    part = drawn[y - top : max(min(bottom + 1, height) - top, 0), x - left : max(min(right + 1, width) - left, 0)]
    return run_lengths.of_box(part.numpy(), x, y, height, width)


HAVE_LOSSES = (models.FasterRCNN, RetinaNet, FCOS, SSD, RegionProposalNetwork, RoIHeads)


def _placed(model: nn.Module, value: Any) -> Any:
    """Tensors in lists and dicts, on the model's device."""
    device = next(model.parameters()).device
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _placed(model, one) for name, one in value.items()}
    return [_placed(model, one) for one in value]


def build(
    source: Any, labels: Sequence[str], image_size: int | None = None, masks: bool = False
) -> tuple[nn.Module, TorchvisionFamily]:
    """A detector for these classes. Raises ModelError."""
    weights: dict[str, Tensor] | None = None
    if source.folder is not None:
        config, weights = folders.read_folder(source.folder)
    else:
        config = dict(source.config)
    known = folders.named_classes(config)
    if image_size is not None:
        config["image_size"] = image_size
    config = _checked(config, source.folder is None)
    _check_masks(config, masks)
    place = config.pop("backbone_weights", None)
    model = _network(config, len(labels))
    if weights is not None and not source.random:
        _fill(model, weights, known, list(labels), source.folder)
    elif place is not None and source.folder is None:
        timm_weights.read_into(model.backbone.body, str(place), "backbone_weights")
    return model, TorchvisionFamily(config, labels)


def load(folder: Path, masks: bool = False) -> tuple[nn.Module, TorchvisionFamily]:
    """A saved detector, in eval mode. Raises ModelError."""
    config, weights = folders.read_folder(folder)
    labels = folders.named_classes(config)
    config = _checked(config, False)
    _check_masks(config, masks)
    model = _network(config, len(labels))
    _fill(model, weights, labels, labels, folder)
    return model.eval(), TorchvisionFamily(config, labels)


def _check_masks(config: Mapping[str, Any], masks: bool) -> None:
    if masks != str(config.get("architecture")).startswith("maskrcnn"):
        what = "instance segmentation needs maskrcnn" if masks else "Mask R-CNN is for instance segmentation"
        raise ModelError(f"architecture: got {config.get('architecture')!r}: {what}")
