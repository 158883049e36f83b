"""Detectors of transformers: DETR, Conditional and Deformable DETR, RT-DETR, D-FINE, RF-DETR, LW-DETR, YOLOS.

Images are stretched to a square, because the boxes of these models are relative to the padded image, and a square needs
no padding. The processor that is saved does the same, so that transformers' own pipeline gives equal boxes.

Terms of boxes are divided by the boxes of the step, DETR's and YOLOS' term of classes by its own weights, and D-FINE's
distillation by its queries. So the losses and gradients of micro-batches add up, with three exceptions: RT-DETR and
D-FINE draw noisy boxes ("denoising") whose number depends on the largest number of boxes in the micro-batch; the
BatchNorm of the encoder of RT-DETR, D-FINE and LW-DETR is live; RF-DETR compares masks at points that are drawn.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.losses import detection as losses
from pipelines.models import enlarged_masks, pretrained
from pipelines.models import layers as model_layers
from pipelines.models.detection import MOST, Batch, Detections

SOFTMAX = ("detr", "yolos")  # their classes exclude each other, and the last one means "no object"
# the published models were trained with the loss of every decoder layer, but their configurations leave it out
EVERY_LAYER = ("detr", "conditional_detr", "deformable_detr")
PLAIN_PIXELS = ("rt_detr", "rt_detr_v2", "d_fine")  # values from 0 to 1, without a mean and a standard deviation
HEAD = re.compile(
    r"(.*\.)?(class_labels_classifier|bbox_predictor|class_embed|bbox_embed|enc_score_head|enc_bbox_head"
    r"|enc_out_class_embed|enc_out_bbox_embed|denoising_class_embed)"
)
# what computes scores, boxes, and the points from which boxes are refined; some are lists with a part for each layer
EXACT = re.compile(
    r"(.*\.)?(class_labels_classifier|bbox_predictor|class_embed|bbox_embed|enc_score_head|enc_bbox_head"
    r"|enc_out_class_embed|enc_out_bbox_embed|ref_point_head|reference_points|pre_bbox_head|integral|lqe_layers)(\.\d+)?"
)
GROUPS = ("lw_detr", "rf_detr")  # in training they have several groups of queries, each of which finds every object
AS_QUERIES = (*PLAIN_PIXELS, "rf_detr")  # published with as many detections as they have queries, usually 300
KINDS = (*EVERY_LAYER, *PLAIN_PIXELS, *GROUPS, "yolos")
LATER = re.compile(r"layer[234]|stages\.[123]")  # the stages of a ResNet that train, as timm and transformers name them
SIDE = 640  # pixels, of a model without a processor


class Transformers:
    """The family of transformers' detectors (see pipelines.models.detection.Family).

    DETR and YOLOS are published with scores of images that keep their shape (DETR: 800 to 1333 pixels a side). Here
    their images are stretched to a square (800 x 800) too, so scores may differ from the published ones.
    """

    library = "transformers"

    def __init__(self, config: Any, processor: Any, side: int, masks: bool = False) -> None:
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.config, self.processor, self.side, self.masks = config, processor, side, masks
        self.softmax = config.model_type in SOFTMAX
        normal = bool(getattr(processor, "do_normalize", False))
        self.mean = torch.tensor(processor.image_mean if normal else [0.0] * 3)[:, None, None]
        self.spread = torch.tensor(processor.image_std if normal else [1.0] * 3)[:, None, None]

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        image = example["image"]
        pixels = self._resized(image)
        found: dict[str, Any] = {"pixel_values": (pixels - self.mean) / self.spread, "size": tuple(example["size"])}
        if "boxes" in example:
            keep = ~np.asarray(example["crowd"], dtype=bool)
            corners = torch.from_numpy(np.asarray(example["boxes"], dtype=np.float32).reshape(-1, 4)[keep])
            scale = torch.tensor([image.width, image.height, image.width, image.height], dtype=torch.float32)
            low, high = (corners / scale).clamp(0, 1).chunk(2, dim=1)
            solid = (high > low).all(1)  # rounding may leave a box without area, for which GIoU is not defined
            if self.masks:
                shapes = [mask for mask, kept in zip(example["masks"], keep, strict=True) if kept]
                found["masks"] = self._stretched(shapes)[solid]
            found["boxes"] = torch.cat([(low + high) / 2, high - low], 1)[solid]
            found["class_labels"] = torch.from_numpy(np.asarray(example["classes"], dtype=np.int64)[keep])[solid]
        return found

    def _resized(self, image: Any) -> Tensor:
        """The image as the model's processor resizes it, from 0 to 1."""
        from PIL import Image

        square = (self.side, self.side)
        if self.config.model_type == "rf_detr":  # it takes single pixels of the image, without a mean over others
            pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
            return nn.functional.interpolate(pixels[None], square, mode="bilinear", align_corners=False)[0]
        resized = image.resize(square, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).float() / 255

    def _stretched(self, masks: Sequence[np.ndarray]) -> Tensor:
        """Masks of an image at the size of the model's input, [n, side, side]."""
        from PIL import Image

        square = (self.side, self.side)
        found = [np.asarray(Image.fromarray(mask).resize(square, Image.Resampling.NEAREST)) for mask in masks]
        return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, *square, dtype=torch.uint8)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        batch: Batch = {
            "pixel_values": torch.stack([one["pixel_values"] for one in examples]),
            "sizes": [one["size"] for one in examples],
        }
        if all("boxes" in one for one in examples):
            batch["boxes"] = [one["boxes"] for one in examples]
            batch["class_labels"] = [one["class_labels"] for one in examples]
            if self.masks:
                batch["masks"] = [one["masks"] for one in examples]
        return batch

    def counts(self, batch: Batch) -> dict[str, float]:
        found = {"boxes": float(sum(map(len, batch["boxes"])))}
        if self.softmax:
            found["class_weight"] = self._class_weight(batch)
        if self.config.model_type == "d_fine":
            queries = self.config.num_queries
            found["queries"] = float(queries * len(batch["boxes"]))
            found["matched"] = float(sum(min(len(boxes), queries) for boxes in batch["boxes"]))
        return found

    def _class_weight(self, batch: Batch) -> float:
        """The sum of the weights of DETR's cross entropy: 1 for a query with an object, `eos_coefficient` for others.

        Every object is matched with a query of its own, as long as there are queries.
        """
        queries = self.config.num_detection_tokens if self.config.model_type == "yolos" else self.config.num_queries
        matched = sum(min(len(boxes), queries) for boxes in batch["boxes"])
        return float(matched + self.config.eos_coefficient * (len(batch["boxes"]) * queries - matched))

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        device = batch["pixel_values"].device
        labels = [
            {"boxes": boxes.to(device), "class_labels": classes.to(device)}
            for boxes, classes in zip(batch["boxes"], batch["class_labels"], strict=True)
        ]
        if self.masks:
            for label, masks in zip(labels, batch["masks"], strict=True):
                label["masks"] = masks.to(device)
        output = model(pixel_values=batch["pixel_values"], labels=labels)
        of_boxes = self._divided(batch, device) / max(1.0, counts["boxes"])
        if self.masks:
            # without an object the library's losses of masks are empty tensors, and so is its sum
            total: Tensor = self._with_masks(output.loss_dict) * of_boxes
            return total
        if not self.softmax:
            total = output.loss * of_boxes
            if self.config.model_type == "d_fine":
                total = total + losses.distillation(output.loss_dict, counts["matched"], counts["queries"])
            return total
        of_classes = self._class_weight(batch) / counts["class_weight"]
        weights = {
            "loss_ce": of_classes,
            "loss_bbox": of_boxes * self.config.bbox_loss_coefficient,
            "loss_giou": of_boxes * self.config.giou_loss_coefficient,
        }
        parts = [
            value * weights[kind]
            for name, value in output.loss_dict.items()
            if (kind := re.sub(r"_\d+$", "", name)) in weights  # of every decoder layer
        ]
        return torch.stack(parts).sum()

    def _divided(self, batch: Batch, device: Any) -> float:
        """What the library divided the loss by, for each group of queries."""
        own = float(sum(map(len, batch["boxes"])))
        if self.config.model_type in PLAIN_PIXELS:  # their loss counts the boxes of its own process
            return max(1.0, own)
        groups = self.config.group_detr if self.config.model_type in GROUPS else 1
        return max(1.0, groups * losses.mean_over_processes(own, device)) / groups

    def _with_masks(self, parts: Mapping[str, Tensor]) -> Tensor:
        weights = {
            "loss_ce": self.config.class_loss_coefficient,
            "loss_bbox": self.config.bbox_loss_coefficient,
            "loss_giou": self.config.giou_loss_coefficient,
            "loss_mask_ce": self.config.mask_class_loss_coefficient,
            "loss_mask_dice": self.config.mask_dice_loss_coefficient,
        }
        found = [
            value.sum() * weights[kind]
            for name, value in parts.items()
            if (kind := re.sub(r"_(\d+|enc)$", "", name)) in weights
        ]
        return torch.stack(found).sum()

    @torch.no_grad()
    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        device = next(model.parameters()).device
        output = model(pixel_values=batch["pixel_values"].to(device))
        logits, boxes = output.logits.float().cpu(), output.pred_boxes.float().cpu()
        found = []
        for number, (of_image, places, (height, width)) in enumerate(zip(logits, boxes, batch["sizes"], strict=True)):
            if self.softmax:
                scores, classes = of_image.softmax(-1)[:, :-1].max(-1)
                scores, queries = scores.topk(min(MOST, len(scores)))
                classes = classes[queries]
            else:
                most = len(of_image) if self.config.model_type in AS_QUERIES else MOST
                if self.config.model_type == "lw_detr":  # transformers' processor has 100, the authors' code 100 or 300
                    most = max(MOST, len(of_image))
                most = min(most, of_image.numel())
                scores, flat = of_image.sigmoid().flatten().topk(most)
                queries, classes = flat // of_image.shape[-1], flat % of_image.shape[-1]
            centres, sides = places[queries].chunk(2, dim=1)
            corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, 1)
            corners = corners * torch.tensor([width, height, width, height], dtype=torch.float32)
            masks = None
            if self.masks:
                shapes = output.pred_masks[number].float().cpu()[queries]
                masks = [enlarged_masks.runs(one, (height, width)) for one in shapes]
            found.append(Detections(corners.numpy(), scores.numpy(), classes.numpy(), masks))
        return found

    def layers(self, model: nn.Module) -> list[nn.Module]:
        heads = [module for name, module in model.named_modules() if HEAD.fullmatch(name)]
        if self.masks:
            heads += [module for name, module in model.named_children() if name != "model"]
        own = {id(part) for head in heads for part in head.modules()}
        trunk = pretrained.trunk(model)
        return [*[block for block in model_layers.blocks(trunk) if id(block) not in own], nn.ModuleList(heads)]

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def build(source: Any, labels: list[str], image_size: int | None, masks: bool) -> tuple[nn.Module, Transformers]:
    """A detector of a folder, or of a configuration with random weights. Raises ModelError."""
    auto = _auto(masks)
    config = _checked(pretrained.read_config(source.folder, source.config), source.folder, masks)
    known = [str(config.id2label[index]) for index in range(config.num_labels)]
    read = None
    if source.folder is not None and not source.random:
        read = pretrained.load_model(auto, source.folder, config, lambda model: nn.ModuleList(), hint=HINT)
    processor, side = _processor(source.folder, config, image_size)
    if read is None or known != labels:
        wanted = type(config).from_dict(config.to_dict())
        pretrained.name_classes(wanted, labels)
        try:
            model: Any = auto.from_config(wanted)
        except Exception as error:  # the libraries of backbones raise many kinds
            what = "model.config" if source.folder is None else pretrained.called(source.folder)
            raise ModelError(f"{what}: no detector can be built: {pretrained.first_line(error)}") from error
        if read is not None:
            _take_over(read, model, known, labels)
        config = wanted
    else:
        model = read
    _freeze(model, stem=source.folder is not None and not source.random)
    _in_float32(model)
    return model, Transformers(config, processor, side, masks)


def load(folder: Path, masks: bool) -> tuple[nn.Module, Transformers]:
    """Load a model folder in eval mode. Raises ModelError."""
    config = _checked(pretrained.read_config(folder, None), folder, masks)
    model: Any = pretrained.load_model(_auto(masks), folder, config, lambda model: nn.ModuleList(), hint=HINT)
    _freeze(model, stem=True)
    _in_float32(model)
    return model.eval(), Transformers(config, *_processor(folder, config, None), masks)


HINT = "is it a detector of this kind?"


def _auto(masks: bool) -> Any:
    from transformers import AutoModelForInstanceSegmentation, AutoModelForObjectDetection

    return AutoModelForInstanceSegmentation if masks else AutoModelForObjectDetection


def _checked(config: Any, folder: Path | None, masks: bool) -> Any:
    kind, what = config.model_type, pretrained.called(folder)
    if kind == "deimv2":
        raise ModelError(
            f"{what}: DEIMv2 of transformers scores near zero with the published weights; "
            "take the one of libreyolo: a model folder of model_type libreyolo, architecture deimv2"
        )
    if kind not in KINDS:
        raise ModelError(f"{what}: a {kind} model does not find objects; choose one of {', '.join(KINDS)}")
    if masks and kind != "rf_detr":
        others = "rf_detr, mask2former, eomt or torchvision's maskrcnn"
        raise ModelError(f"{what}: a {kind} model finds boxes only; for masks choose {others}")
    if kind in EVERY_LAYER:
        config.auxiliary_loss = True
    return config


def _processor(folder: Path | None, config: Any, image_size: int | None) -> tuple[Any, int]:
    """The image processor, set to stretch images to a square, and the side of the square."""
    from transformers import IMAGE_PROCESSOR_MAPPING, AutoImageProcessor, RTDetrImageProcessor

    own = folder is not None and (folder / "preprocessor_config.json").is_file()
    processor: Any
    if own:
        try:
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a damaged file raises many kinds
            what = f"{pretrained.called(folder)}: preprocessor_config.json cannot be read"
            raise ModelError(f"{what}: {pretrained.first_line(error)}") from error
    elif config.model_type in PLAIN_PIXELS:
        processor = RTDetrImageProcessor()
    else:
        kinds: Any = IMAGE_PROCESSOR_MAPPING[type(config)]  # its type is that of an older version
        processor = kinds["torchvision"]()
    given = {key: value for key, value in dict(processor.size).items() if value}
    side = image_size or (min(given.get("height", 0), given.get("width", 0)) or given.get("shortest_edge", SIDE))
    if not own and image_size is None:
        side = SIDE
    processor.size = {"height": int(side), "width": int(side)}
    processor.do_pad = False
    return processor, int(side)


def _freeze(model: Any, stem: bool) -> None:
    """Freeze what does not train: constants, and with `stem` the stem and first stage of DETR's ResNet.

    transformers does not: `from_pretrained` lets all parameters train, and a ResNet from a configuration is frozen
    entirely, because the names of its stages have changed. A random stem has to train.
    """
    kind, backbone = model.config.model_type, getattr(model.config, "backbone_config", None)
    resnet = "resnet" in f"{getattr(backbone, 'model_type', '')} {getattr(backbone, 'backbone', '')}"
    for name, parameter in model.named_parameters():
        if name.endswith((".mask_token", ".up", ".reg_scale")):  # RF-DETR hides no part of an image; D-FINE's two
            parameter.requires_grad_(False)
        elif kind in EVERY_LAYER and resnet and ".backbone." in name:
            parameter.requires_grad_(not stem or LATER.search(name) is not None)


def _in_float32(model: nn.Module) -> None:
    """Compute boxes, scores and losses in float32, also under autocast.

    A box in bfloat16 has steps of 1/256 of the image: 3 pixels of 800. Names of weights do not change. Features stay in
    bfloat16, and so do, in a sharded model (FSDP), the learned points from which LW-DETR and RF-DETR start.
    """
    for name, part in model.named_modules():
        if EXACT.fullmatch(name) and not isinstance(part, nn.ModuleList):
            kind = type(part)
            part.__class__ = type(kind.__name__, (_Exact, kind), {"__module__": kind.__module__})
    losses.in_float32(model)


class _Exact(nn.Module):
    """A part of a model that is computed in float32, also under autocast and with weights in bfloat16 (FSDP)."""

    def forward(self, *given: Tensor) -> Tensor:
        weights = dict(self.named_parameters())
        with torch.autocast(given[0].device.type, enabled=False):
            if any(weight.dtype != torch.float32 for weight in weights.values()):
                exact = {name: weight.float() for name, weight in weights.items()}
                found: Tensor = torch.func.functional_call(self, exact, given)
            else:
                found = super().forward(*(one.float() for one in given))
        return found


def _take_over(read: nn.Module, model: nn.Module, known: list[str], labels: list[str]) -> None:
    """Copy weights from one model to another with other classes; of classes that both know by name, their rows."""
    old, new = read.state_dict(), model.state_dict()
    pairs = [(row[0], place) for place, label in enumerate(labels) if (row := pretrained.rows_of(known, [label]))]
    for name, tensor in new.items():
        given = old.get(name)
        if given is None:
            continue
        more = len(given) - len(known) if given.dim() else 0
        of_classes = HEAD.search(name) is not None and more in (0, 1) and len(tensor) == len(labels) + more
        if of_classes and given.shape[1:] == tensor.shape[1:] and "bbox" not in name:
            for before, after in pairs:
                tensor[after] = given[before]
            if more:  # "no object", or the padding of an embedding
                tensor[-1] = given[-1]
        elif given.shape == tensor.shape:
            tensor.copy_(given)
