"""Detectors of libreyolo: YOLOX, YOLOv9 and DEIMv2. Only its networks are used: nothing is downloaded or unpickled.

A folder holds model.safetensors, with the names of libreyolo's own networks, and config.json:

    {"model_type": "libreyolo", "architecture": "yolox", "size": "nano", "id2label": {"0": "person", ...},
     "image_size": 416}

Other keys of a configuration:

- `frozen_batch_norm`: true keeps statistics and weights of every BatchNorm as they are. It suits a model whose
  BatchNorm was folded into its convolutions, such as one from ONNX. A recipe with random weights must not have it.
- `denoising` (DEIMv2): noisy boxes that training adds, about this many an image. Left out: 0. The paper has 100.
- `head_classes` (YOLOv9): the number of classes for which the width of the head was chosen, if it is not that of now.

YOLOX and YOLOv9 get the image without distortion, in the upper left of a grey square; DEIMv2 gets it stretched.

In bf16 the networks answer in bf16: YOLOX and YOLOv9 with distances in cells, DEIMv2 with changes of a box from layer
to layer. The boxes themselves are computed from these in float32, so they have no steps of 1/256 of the image.
"""

import abc
import contextlib
import importlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d, batched_nms, box_convert, box_iou

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models import folders
from pipelines.models import layers as model_layers
from pipelines.models.detection import Batch, Detections, in_float32
from pipelines.models.pretrained import rows_of
from pipelines.utils.formatting import short

GREY = 114  # around an image, as in YOLOX and YOLOv9
STRIDE = 32  # pixels: the coarsest grid of every architecture
FLOOR = 0.001  # detections with a lower score do not count
KEPT = 300  # detections of one image; the rarest classes of a full image lose from a limit of 100, and so does AP
CANDIDATES = 10_000  # boxes of one image before overlapping ones are removed
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Libreyolo(abc.ABC):
    """What the architectures share (see pipelines.models.detection.Family).

    The loss is a sum over objects and cells, divided by the boxes of the step, which are known before the forward pass.
    So losses and gradients of micro-batches add up, if no BatchNorm is live. Crowds are never objects.
    """

    library = "libreyolo"
    sizes: ClassVar[Mapping[str, str]]
    """Size in a configuration -> libreyolo's name of it."""
    sides: ClassVar[Mapping[str, int]] = {}
    """Pixels a side, for sizes with other images than 640."""
    own_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a configuration that other architectures do not have."""
    of_classes: ClassVar[re.Pattern[str]]
    """The parameters with a row for each class."""
    stretched = False
    bgr = False

    def __init__(self, config: Mapping[str, Any], labels: Sequence[str]) -> None:
        self.config, self.labels = dict(config), list(labels)
        self.side: int = config["image_size"]

    # ---- data ----

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        from PIL import Image

        image = example["image"]
        longest = max(image.size)
        width, height = (self.side if self.stretched else max(1, side * self.side // longest) for side in image.size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        canvas = np.full((3, self.side, self.side), GREY, np.uint8)
        canvas[:, :height, :width] = np.asarray(resized)[:, :, :: -1 if self.bgr else 1].transpose(2, 0, 1)
        found: dict[str, Any] = {
            "pixels": torch.from_numpy(canvas),
            "inner": (width, height),
            "size": tuple(example["size"]),
        }
        if example.get("boxes") is None:
            return found
        factors = np.array([width / image.width, height / image.height] * 2, np.float32)
        boxes = np.asarray(example["boxes"], np.float32).reshape(-1, 4) * factors
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
        crowd = np.asarray(example["crowd"], bool)
        solid = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(1)  # rounding may leave a box without area
        found["boxes"] = torch.from_numpy(boxes[solid & ~crowd])
        found["classes"] = torch.from_numpy(np.asarray(example["classes"], np.int64)[solid & ~crowd])
        found["crowds"] = torch.from_numpy(boxes[solid & crowd])
        return found

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        batch: Batch = {
            "pixels": torch.stack([one["pixels"] for one in examples]),
            **{name: [one[name] for one in examples] for name in ("inner", "size")},
        }
        if all("boxes" in one for one in examples):
            batch |= {name: [one[name] for one in examples] for name in ("boxes", "classes", "crowds")}
        return batch

    def pixels(self, batch: Batch, device: torch.device) -> Tensor:
        pixels: Tensor = batch["pixels"].to(device, non_blocking=True)
        return pixels.float()

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"boxes": float(sum(map(len, batch["boxes"])))}

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        device = next(model.parameters()).device
        targets = [
            {name: value.to(device, non_blocking=True) for name, value in zip(NAMES, values, strict=True)}
            for values in zip(*(batch[name] for name in NAMES), strict=True)
        ]
        output = self.forward(model, self.pixels(batch, device), targets)
        with torch.autocast(device.type, enabled=False):  # coordinates of boxes need float32
            return self.total(plain(model), in_float32(output), targets) / max(1.0, counts["boxes"])

    def forward(self, model: nn.Module, pixels: Tensor, targets: list[dict[str, Tensor]]) -> Any:
        """The model's answer for the loss, in training mode and in eval mode."""
        return model(pixels)

    @abc.abstractmethod
    def total(self, model: Any, output: Any, targets: list[dict[str, Tensor]]) -> Tensor:
        """The loss as a sum over these images."""

    # ---- answers ----

    @torch.no_grad()
    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        output = model(self.pixels(batch, next(model.parameters()).device))
        found = []
        for answer, inner, size in zip(
            self.answers(plain(model), in_float32(output)), batch["inner"], batch["size"], strict=True
        ):
            boxes, scores, classes = (value.cpu() for value in answer)
            (width, height), (high, wide) = inner, size
            boxes = boxes * torch.tensor([wide / width, high / height] * 2)
            boxes = boxes.clamp(min=0).minimum(torch.tensor([wide, high] * 2))
            solid = (boxes[:, 2:] > boxes[:, :2]).all(1)  # others lie in the grey around the image
            found.append(Detections(boxes[solid].numpy(), scores[solid].numpy(), classes[solid].numpy()))
        return found

    @abc.abstractmethod
    def answers(self, model: Any, output: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (x1, y1, x2, y2 in pixels of the model's input), scores and classes of each image, best first."""

    # ---- the model ----

    @classmethod
    @abc.abstractmethod
    def network(cls, config: Mapping[str, Any], classes: int) -> Any:
        """The network with random weights. Raises ModelError."""

    def layers(self, model: nn.Module) -> list[nn.Module]:
        first, *others = model.children()
        return [*model_layers.blocks(first), *others]

    def save(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        named = {str(index): label for index, label in enumerate(self.labels)}
        config = {**self.config, "model_type": "libreyolo", "id2label": named}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        # layers of DEIMv2 share a head, and a file holds no tensor twice: copies, as libreyolo's own files have
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
        # a frozen BatchNorm has no counter, but libreyolo's network asks for one
        means = [name for name in tensors if name.endswith(".running_mean")]
        counters = {name.replace(".running_mean", COUNTER): torch.tensor(0) for name in means}
        tensors = counters | tensors
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


USUAL = 5.0  # cells per box, for an image without objects
NAMES = ("boxes", "classes", "crowds")


class Yolox(Libreyolo):
    """YOLOX without its L1 term, which its authors add in the last epochs.

    YOLOX divides the loss of a batch by the cells that its matching chose, which are known only after the forward pass.
    Here each image is divided by its own cells per box, and the step by its boxes: the same for one image, and about
    the same for a batch.
    Cells in a crowd that belong to no object are left out of the term of objectness.
    """

    sizes = {"nano": "n", "tiny": "t", "s": "s", "m": "m", "l": "l", "x": "x"}
    sides = {"nano": 416, "tiny": 416}
    of_classes = re.compile(r"head\.cls_preds\.\d+\.(weight|bias)")
    bgr = True
    NMS: ClassVar[float] = 0.65

    @classmethod
    def network(cls, config: Mapping[str, Any], classes: int) -> Any:
        model = _library("yolox.nn").LibreYOLOXModel(cls.sizes[config["size"]], classes)
        model.init_weights()
        # libreyolo's own head computes boxes in the precision of the forward pass, too coarse in bfloat16, and answers
        # differently in eval mode
        model.head.__class__ = type("Head", (type(model.head),), {"forward": _raw})
        return model

    def grid(self, model: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """The upper left corner [cells, 2] of every cell, and its side [cells, 1], in pixels."""
        corners, strides = [], []
        for stride in model.head.strides:
            line = torch.arange(self.side // stride, device=device, dtype=torch.float32) * stride
            down, across = torch.meshgrid(line, line, indexing="ij")
            corners.append(torch.stack([across, down], -1).reshape(-1, 2))
            strides.append(torch.full((len(corners[-1]), 1), float(stride), device=device))
        return torch.cat(corners), torch.cat(strides)

    @staticmethod
    def boxes(raw: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
        centres = raw[..., :2] * strides + corners
        sides = raw[..., 2:4].exp() * strides
        return torch.cat([centres - sides / 2, centres + sides / 2], -1)

    def total(self, model: Any, output: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
        corners, strides = self.grid(model, output.device)
        centres = corners + strides / 2
        found = self.boxes(output, corners, strides)
        objectness, logits = output[..., 4], output[..., 5:]
        parts = []
        for image, target in enumerate(targets):
            cells, owners, overlaps = simota(
                target["boxes"],
                target["classes"],
                found[image].detach(),
                objectness[image].detach(),
                logits[image].detach(),
                centres,
                strides,
            )
            chosen = torch.zeros_like(objectness[image])
            chosen[cells] = 1
            of_objectness = functional.binary_cross_entropy_with_logits(objectness[image], chosen, reduction="none")
            counted = (chosen > 0) | ~within(centres, target["crowds"])
            wanted = functional.one_hot(target["classes"][owners], logits.shape[-1]) * overlaps[:, None]
            of_classes = functional.binary_cross_entropy_with_logits(logits[image, cells], wanted, reduction="sum")
            shared = _overlap(found[image, cells], target["boxes"][owners])
            part = 5 * (1 - shared**2).sum() + (of_objectness * counted).sum() + of_classes
            parts.append(part / _cells_per_box(torch.tensor(len(cells)), target["boxes"]))
        return torch.stack(parts).sum()

    def answers(self, model: Any, output: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        found = self.boxes(output, *self.grid(model, output.device))
        best, classes = output[..., 5:].sigmoid().max(-1)
        scores = best * output[..., 4].sigmoid()
        return [_without_overlap(*one, self.NMS) for one in zip(found, scores, classes, strict=True)]


class Yolov9(Libreyolo):
    """YOLOv9 with its main head. The auxiliary branch, which its authors use in training, is left out.

    YOLOv9 divides the loss of a batch by the sum of the targets that its matching chose, which is known only after the
    forward pass. Here each image is divided by its own sum per box, and the step by its boxes: the same for one image,
    and about the same for a batch.
    Cells in a crowd that belong to no object are left out of the term of classes.
    """

    sizes = {"t": "t", "s": "s", "m": "m", "c": "c"}
    own_keys = ("head_classes",)
    of_classes = re.compile(r"head\.cv3\.\d+\.2\.(weight|bias)")
    NMS: ClassVar[float] = 0.7

    def pixels(self, batch: Batch, device: torch.device) -> Tensor:
        return super().pixels(batch, device) / 255

    @classmethod
    def network(cls, config: Mapping[str, Any], classes: int) -> Any:
        wide = config.get("head_classes", classes)
        model = _library("yolo9.nn").LibreYOLO9Model(cls.sizes[config["size"]], nb_classes=wide)
        if wide != classes:  # the width of the head depends on the number of classes
            for tower in model.head.cv3:
                own = tower[-1].bias[:1].detach()
                tower[-1] = nn.Conv2d(tower[-1].in_channels, classes, 1)
                nn.init.constant_(tower[-1].bias, float(own))
            model.nc = model.head.nc = classes
            model.head.no = classes + 4 * model.head.reg_max
        return model

    def _criterion(self, model: Any, device: torch.device) -> Any:
        return _library("yolo9.loss").YOLO9Loss(
            num_classes=len(self.labels),
            reg_max=model.reg_max,
            strides=model.head.stride.tolist(),
            image_size=[self.side, self.side],
            device=device,
        )

    def total(self, model: Any, output: Any, targets: list[dict[str, Tensor]]) -> Tensor:
        maps = output["raw_outputs"] if isinstance(output, dict) else output  # in eval mode, in training mode
        device = maps[0].device
        criterion = self._criterion(model, device)
        logits, distances, found = criterion.vec2box(maps)
        matched = []
        for image, target in enumerate(targets):  # one by one: the boxes of one image may be thousands
            objects = torch.cat([target["classes"][:, None].float(), target["boxes"]], 1)[None]
            predicted = (logits[image : image + 1].detach(), found[image : image + 1].detach())
            matched.append(criterion.matcher(objects, predicted))
        wanted, chosen = (torch.cat(kind) for kind in zip(*matched, strict=True))
        of_classes, boxes = wanted.split((len(self.labels), 4), -1)
        each = [
            _cells_per_box(part, target["boxes"]) for part, target in zip(of_classes.sum((1, 2)), targets, strict=True)
        ]
        share = 1 / torch.stack(each)[:, None]  # [images, 1]
        scale, once = criterion.vec2box.scaler[:, None], logits.new_ones(())
        sizes = (of_classes.sum(-1) * share)[chosen]
        boxes, cells = boxes / scale, (criterion.vec2box.anchor_grid / scale)[None]
        total: Tensor = criterion.box_weight * criterion.box_loss(found / scale, boxes, chosen, sizes, once)
        total = total + criterion.dfl_weight * criterion.dfl_loss(distances, boxes, cells, chosen, sizes, once)
        crowded = torch.stack([within(criterion.vec2box.anchor_grid, target["crowds"]) for target in targets])
        counted = (chosen | ~crowded) * share
        of_cells = functional.binary_cross_entropy_with_logits(logits, of_classes, reduction="none").sum(-1)
        total = total + criterion.cls_weight * (of_cells * counted).sum()
        return total

    def answers(self, model: Any, output: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
        maps = output["raw_outputs"] if isinstance(output, dict) else output
        logits, _, found = self._criterion(model, maps[0].device).vec2box(maps)
        answers = []
        for boxes, scores in zip(found, logits.sigmoid(), strict=True):
            cells, classes = (scores > FLOOR).nonzero(as_tuple=True)  # a cell may hold objects of several classes
            answers.append(_without_overlap(boxes[cells], scores[cells, classes], classes, self.NMS))
        return answers


class Deimv2(Libreyolo):
    """DEIMv2. Its matching is that of the first epochs; its authors change it in the last tenth of the training.

    The losses of micro-batches do not add up with `denoising`, whose noise is random and depends on the largest number
    of boxes in the micro-batch, and for the sizes from n on, whose terms of distributions are means over the matched
    queries of the micro-batch.
    """

    sizes = {size: size for size in ("atto", "femto", "pico", "n", "s", "m", "l", "x")}
    sides = {"atto": 320, "femto": 416}
    own_keys = ("denoising",)
    of_classes = re.compile(
        r"decoder\.(enc_score_head\.(weight|bias)|dec_score_head\.\d+\.(weight|bias)|denoising_class_embed\.weight)"
    )
    stretched = True

    def pixels(self, batch: Batch, device: torch.device) -> Tensor:
        pixels = super().pixels(batch, device) / 255
        if self.config["size"] not in ("s", "m", "l", "x"):
            return pixels
        mean, spread = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, SPREAD))
        return (pixels - mean) / spread

    @classmethod
    def network(cls, config: Mapping[str, Any], classes: int) -> Any:
        library = _library("deimv2.nn")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its settings
            model = library.LibreDEIMv2Model(cls.sizes[config["size"]], classes)
        for part in model.modules():
            if isinstance(part, nn.SyncBatchNorm):  # it would wait for processes that have fewer micro-batches
                vars(part).pop("process_group", None)
                object.__setattr__(part, "__class__", nn.BatchNorm2d)
        decoder = model.decoder
        cells = sum((config["image_size"] // stride) ** 2 for stride in decoder.feat_strides)
        decoder.num_queries = min(decoder.num_queries, cells)
        decoder.num_denoising = config.get("denoising", 0)
        decoder.denoising_class_embed.requires_grad_(decoder.num_denoising > 0)
        return model

    def _relative(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Boxes as libreyolo takes them: centre and sides as parts of the image."""
        return [
            {"labels": one["classes"], "boxes": box_convert(one["boxes"] / self.side, "xyxy", "cxcywh")}
            for one in targets
        ]

    def forward(self, model: nn.Module, pixels: Tensor, targets: list[dict[str, Tensor]]) -> Any:
        decoder = plain(model).decoder
        for part in (decoder, decoder.decoder):
            part.emit_loss_outputs = True  # also in eval mode
        try:
            return model(pixels, self._relative(targets)) if decoder.num_denoising else model(pixels)
        finally:
            for part in (decoder, decoder.decoder):
                part.emit_loss_outputs = False

    def total(self, model: Any, output: Any, targets: list[dict[str, Tensor]]) -> Tensor:
        recipe = _library("deimv2.trainer").DEIMV2_SIZE_DEFAULTS[self.sizes[self.config["size"]]]
        matcher = _library("deimv2.matcher").HungarianMatcher({"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0})
        criterion = _library("deimv2.loss").DEIMv2Criterion(
            matcher=matcher,
            weight_dict={"loss_mal": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_fgl": 0.15, "loss_ddf": 1.5},
            losses=list(recipe["losses"]),
            alpha=0.75,
            gamma=1.5,
            num_classes=len(self.labels),
            reg_max=model.decoder.reg_max,
            use_uni_set=recipe["use_uni_set"],
            distributed_normalize=False,
        )
        total: Tensor = sum(criterion(output, self._relative(targets)).values())
        total = total * max(1, sum(len(one["boxes"]) for one in targets))  # the library divided by it
        # libreyolo turns a loss that is not a number into 0, which would hide that the training failed
        total = total + 0 * (output["pred_boxes"].sum() + output["pred_logits"].sum())
        return total

    def answers(self, model: Any, output: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
        answers = []
        for logits, boxes in zip(output["pred_logits"], output["pred_boxes"], strict=True):
            scores, flat = logits.sigmoid().flatten().topk(min(KEPT, logits.numel()))
            queries, classes = flat // logits.shape[-1], flat % logits.shape[-1]
            answers.append((box_convert(boxes[queries], "cxcywh", "xyxy") * self.side, scores, classes))
        return answers


FAMILIES: dict[str, type[Libreyolo]] = {"yolox": Yolox, "yolov9": Yolov9, "deimv2": Deimv2}


# ---- YOLOX's head and matching ----


def _raw(self: Any, maps: Sequence[Tensor], labels: Any = None, imgs: Any = None) -> Tensor:
    """What YOLOX's head computes for every cell: [image, cell, 4 for the box, 1 for objectness, 1 per class]."""
    found = []
    for level, features in enumerate(maps):
        common = self.stems[level](features)
        of_boxes = self.reg_convs[level](common)
        parts = [
            self.reg_preds[level](of_boxes),
            self.obj_preds[level](of_boxes),
            self.cls_preds[level](self.cls_convs[level](common)),
        ]
        found.append(torch.cat(parts, 1).flatten(2))
    return torch.cat(found, 2).transpose(1, 2)


def simota(
    boxes: Tensor,
    classes: Tensor,
    found: Tensor,
    objectness: Tensor,
    logits: Tensor,
    centres: Tensor,
    strides: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """YOLOX's matching for one image: the chosen cells, the object of each one, and how much the two overlap.

    It chooses what libreyolo's `get_assignments` chooses, but it keeps no tensor of objects x cells x classes, and has
    no loop over objects: an image may hold thousands.
    """
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    far = torch.maximum(*((centres[None, :, axis] - middles[:, None, axis]).abs() for axis in (0, 1)))
    near = far < 1.5 * strides[None, :, 0]
    candidates = near.any(0).nonzero()[:, 0]
    if not len(candidates):
        nothing = candidates
        return candidates, nothing, boxes.new_zeros(0)
    overlaps = box_iou(boxes, found[candidates])
    likely = (logits[candidates].sigmoid() * objectness[candidates, None].sigmoid()).sqrt()
    right, wrong = likely.log().clamp(min=-100), (1 - likely).log().clamp(min=-100)  # as in torch's cross entropy
    of_classes = -(wrong.sum(1) - wrong.T[classes] + right.T[classes])
    cost = of_classes - 3 * (overlaps + 1e-8).log() + 1e6 * ~near[:, candidates]
    most = min(10, len(candidates))
    wanted = overlaps.topk(most, 1).values.sum(1).int().clamp(min=1)
    cheapest = cost.topk(most, 1, largest=False).indices
    within_wanted = torch.arange(most, device=cost.device) < wanted[:, None]
    matched = torch.zeros_like(cost, dtype=torch.bool).scatter(1, cheapest, within_wanted)
    several = matched.sum(0) > 1
    best = functional.one_hot(cost.argmin(0), len(boxes)).T.bool()
    matched = torch.where(several, best, matched)
    chosen = matched.any(0)
    owners = matched.int().argmax(0)[chosen]
    return candidates[chosen], owners, overlaps[owners, chosen.nonzero()[:, 0]]


def _cells_per_box(cells: Tensor, boxes: Tensor) -> Tensor:
    """What the loss of one image is divided by, before it is divided by the boxes of the step."""
    if not len(boxes):
        return torch.full_like(cells, USUAL, dtype=torch.float32)
    return cells.clamp(min=1) / len(boxes)


def within(points: Tensor, regions: Tensor) -> Tensor:
    """Whether each point lies in one of the boxes."""
    inside = (points[:, None] >= regions[None, :, :2]) & (points[:, None] <= regions[None, :, 2:])
    found: Tensor = inside.all(-1).any(1)
    return found


def _overlap(some: Tensor, others: Tensor) -> Tensor:
    """The IoU of each pair of boxes, as YOLOX's loss has it."""
    sides = (torch.minimum(some[:, 2:], others[:, 2:]) - torch.maximum(some[:, :2], others[:, :2])).clamp(min=0)
    shared = sides.prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (some, others)]
    return shared / (areas[0] + areas[1] - shared + 1e-16)


def _without_overlap(boxes: Tensor, scores: Tensor, classes: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best detections of one image, of which no two of one class overlap by more than `most`."""
    keep = (scores > FLOOR).nonzero()[:, 0]
    keep = keep[scores[keep].argsort(descending=True, stable=True)[:CANDIDATES]]
    keep = keep[boxes[keep].isfinite().all(1)]
    keep = keep[batched_nms(boxes[keep], scores[keep], classes[keep], most)[:KEPT]]
    return boxes[keep], scores[keep], classes[keep]


# ---- configurations and weights ----


def plain(model: nn.Module) -> Any:
    """The network in a wrapper of several processes."""
    return getattr(model, "module", model)


def _library(name: str) -> Any:
    """A module of libreyolo's models. Importing one imports all, and OpenCV. Raises ModelError."""
    try:
        return importlib.import_module(f"libreyolo.models.{name}")
    except ImportError as error:
        if error.name == "libreyolo":
            raise ModelError(
                "YOLOX, YOLOv9 and DEIMv2 need libreyolo, which is not installed: pip install 'graft-pipelines[yolo]'"
            ) from None
        if ".so" in str(error):
            raise ModelError(
                f"libreyolo needs OpenCV, which cannot be loaded here ({short(str(error), 80)}): install the package "
                "libgl1 of the system, or: pip uninstall opencv-python && pip install opencv-python-headless"
            ) from None
        raise ModelError(f"libreyolo cannot be imported: {short(str(error), 120)}") from None


def _checked(given: Mapping[str, Any], classes: int) -> tuple[type[Libreyolo], dict[str, Any]]:
    """The class and the configuration, with its defaults. Raises ModelError."""
    config = dict(given)
    kind, size = config.get("architecture"), config.get("size")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(f"architecture: got {short(repr(kind))}; of libreyolo: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    if not isinstance(size, str) or size not in family.sizes:
        raise ModelError(f"size: got {short(repr(size))}; {kind} has {', '.join(family.sizes)}")
    if config.get("image_size") is None:
        config["image_size"] = family.sides.get(size, 640)
    side = config["image_size"]
    if type(side) is not int or not STRIDE <= side <= 4096 or side % STRIDE:
        raise ModelError(f"image_size: got {short(repr(side))}; {kind} takes a multiple of {STRIDE} from 32 to 4096")
    for key, least, most in (("denoising", 0, 1000), ("head_classes", 1, 100_000)):
        if key in config and (type(config[key]) is not int or not least <= config[key] <= most):
            raise ModelError(f"{key}: got {short(repr(config[key]))}, must be a number from {least} to {most}")
    if type(config.get("frozen_batch_norm", False)) is not bool:
        raise ModelError(f"frozen_batch_norm: got {short(repr(config['frozen_batch_norm']))}, must be true or false")
    if not classes:
        raise ModelError("config.json: id2label names no class")
    return family, config


KEYS = ("model_type", "architecture", "size", "image_size", "id2label")


def _check_keys(family: type[Libreyolo], given: Mapping[str, Any]) -> None:
    """Refuse the keys of a recipe's configuration that would change nothing, or spoil the model. Raises ModelError."""
    kind = given["architecture"]
    known = (*KEYS, *family.own_keys)
    for key in given:
        if key == "frozen_batch_norm":
            if given[key]:
                raise ModelError(
                    "model.config: frozen_batch_norm: random weights have no statistics to keep: leave it out"
                )
        elif key not in known:
            raise ModelError(
                f"model.config: {short(repr(key))} is not a key of {kind}, which has {', '.join(known)}"
                f"{suggest(str(key), known)}"
            )


def _network(family: type[Libreyolo], config: Mapping[str, Any], classes: int) -> Any:
    model = family.network(config, classes)
    if config.get("frozen_batch_norm"):
        _freeze(model)
    return model


def _freeze(module: nn.Module) -> None:
    """Put a fixed layer in the place of every BatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps))
        else:
            _freeze(child)


COUNTER = ".num_batches_tracked"  # of a BatchNorm; a frozen one has none, and no answer depends on it


def _fill(
    family: type[Libreyolo], model: Any, weights: dict[str, Tensor], known: list[str], labels: list[str], where: Path
) -> None:
    """Load weights. The rows of the classes known by name are kept; those of other classes stay random."""
    own = model.state_dict()
    rows = [(found[0], place) for place, label in enumerate(labels) if (found := rows_of(known, [label]))]
    wrong = [name for name in own.keys() ^ weights.keys() if not name.endswith(COUNTER)]
    for name, tensor in weights.items():
        if name in wrong or name not in own:
            continue
        more = int(name.endswith("denoising_class_embed.weight"))  # a last row that stands for no class
        if known != labels and family.of_classes.fullmatch(name):
            if len(tensor) != len(known) + more or tensor.shape[1:] != own[name].shape[1:]:
                wrong.append(name)
                continue
            for before, after in rows:
                own[name][after] = tensor[before]
        elif tensor.shape != own[name].shape:
            wrong.append(name)
        else:
            own[name].copy_(tensor)
    if wrong:
        more_wrong = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(f"{where}: its weights are not those of its config.json: {min(wrong)}{more_wrong}")


def build(
    source: Any, labels: Sequence[str], image_size: int | None = None, masks: bool = False
) -> tuple[nn.Module, Libreyolo]:
    """A detector for these classes. Raises ModelError."""
    _check_masks(masks)
    weights: dict[str, Tensor] | None = None
    if source.folder is not None:
        given, weights = folders.read_folder(source.folder)
    else:
        given = dict(source.config)
    known = folders.named_classes(given)
    if image_size is not None:
        given["image_size"] = image_size
    random = weights is None or source.random
    if random and source.folder is not None:
        given.pop("frozen_batch_norm", None)  # statistics of other weights
        given.pop("head_classes", None)
    elif known and given.get("architecture") == "yolov9":
        given.setdefault("head_classes", len(known))
    family, config = _checked(given, len(labels))
    if source.folder is None:
        _check_keys(family, given)
    model = _network(family, config, len(labels))
    if weights is not None and not random:
        _fill(family, model, weights, known, list(labels), source.folder)
    return model, family(config, labels)


def load(folder: Path, masks: bool = False) -> tuple[nn.Module, Libreyolo]:
    """A saved detector, in eval mode. Raises ModelError."""
    _check_masks(masks)
    given, weights = folders.read_folder(folder)
    labels = folders.named_classes(given)
    family, config = _checked(given, len(labels))
    model = _network(family, config, len(labels))
    _fill(family, model, weights, labels, labels, folder)
    return model.eval(), family(config, labels)


def _check_masks(masks: bool) -> None:
    if masks:
        raise ModelError("libreyolo's detectors find boxes only; for masks take torchvision/maskrcnn_...")
