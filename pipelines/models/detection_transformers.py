"""Detectors of transformers: DETR, Conditional and Deformable DETR, RT-DETR, D-FINE, RF-DETR, LW-DETR, YOLOS.

Images are stretched to a square, because the boxes of these models are relative to the padded image, and a square needs
no padding. The processor that is saved does the same, so that transformers' own pipeline gives equal boxes.

The loss of a step is exact under micro-batches and processes: terms of boxes are divided by the boxes of the step, and
DETR's and YOLOS' term of classes by its own weights. Two exceptions: RT-DETR and D-FINE draw noisy boxes ("denoising")
whose number depends on the largest number of boxes in the micro-batch, and the BatchNorm of their encoder is live.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.models import layers as model_layers
from pipelines.models import pretrained
from pipelines.models.detection import MOST, Batch, Detections

SOFTMAX = ("detr", "yolos")  # their classes exclude each other, and the last one means "no object"
# the published models were trained with the loss of every decoder layer, but their configurations leave it out
EVERY_LAYER = ("detr", "conditional_detr", "deformable_detr")
PLAIN_PIXELS = ("rt_detr", "rt_detr_v2", "d_fine")  # values from 0 to 1, without a mean and a standard deviation
HEAD = re.compile(
    r"(.*\.)?(class_labels_classifier|bbox_predictor|class_embed|bbox_embed|enc_score_head|enc_bbox_head"
    r"|enc_out_class_embed|enc_out_bbox_embed|denoising_class_embed)"
)
SIDE = 640  # pixels, of a model without a processor


class Transformers:
    """The family of transformers' detectors (see pipelines.models.detection.Family)."""

    library = "transformers"

    def __init__(self, config: Any, processor: Any, side: int) -> None:
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.config, self.processor, self.side = config, processor, side
        self.softmax = config.model_type in SOFTMAX
        normal = bool(getattr(processor, "do_normalize", False))
        self.mean = torch.tensor(processor.image_mean if normal else [0.0] * 3)[:, None, None]
        self.spread = torch.tensor(processor.image_std if normal else [1.0] * 3)[:, None, None]

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        from PIL import Image

        image = example["image"]
        resized = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).float() / 255
        found: dict[str, Any] = {"pixel_values": (pixels - self.mean) / self.spread, "size": tuple(example["size"])}
        if "boxes" in example:
            keep = ~np.asarray(example["crowd"], dtype=bool)
            corners = torch.from_numpy(np.asarray(example["boxes"], dtype=np.float32).reshape(-1, 4)[keep])
            scale = torch.tensor([image.width, image.height, image.width, image.height], dtype=torch.float32)
            low, high = (corners / scale).clamp(0, 1).chunk(2, dim=1)
            solid = (high > low).all(1)  # rounding may leave a box without area, for which GIoU is not defined
            found["boxes"] = torch.cat([(low + high) / 2, high - low], 1)[solid]
            found["class_labels"] = torch.from_numpy(np.asarray(example["classes"], dtype=np.int64)[keep])[solid]
        return found

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        batch: Batch = {
            "pixel_values": torch.stack([one["pixel_values"] for one in examples]),
            "sizes": [one["size"] for one in examples],
        }
        if all("boxes" in one for one in examples):
            batch["boxes"] = [one["boxes"] for one in examples]
            batch["class_labels"] = [one["class_labels"] for one in examples]
        return batch

    def counts(self, batch: Batch) -> dict[str, float]:
        found = {"boxes": float(sum(map(len, batch["boxes"])))}
        if self.softmax:
            found["class_weight"] = self._class_weight(batch)
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
        output = model(pixel_values=batch["pixel_values"], labels=labels)
        own = sum(map(len, batch["boxes"]))
        # the library divided by this number, which only the real-time models count on one process alone
        divided = max(1.0, float(own) if self.config.model_type in PLAIN_PIXELS else _mean_over_processes(own, device))
        of_boxes = divided / max(1.0, counts["boxes"])
        if not self.softmax:
            total: Tensor = output.loss * of_boxes
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

    @torch.no_grad()
    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        device = next(model.parameters()).device
        output = model(pixel_values=batch["pixel_values"].to(device))
        logits, boxes = output.logits.float().cpu(), output.pred_boxes.float().cpu()
        found = []
        for of_image, places, (height, width) in zip(logits, boxes, batch["sizes"], strict=True):
            if self.softmax:
                scores, classes = of_image.softmax(-1)[:, :-1].max(-1)
                scores, queries = scores.topk(min(MOST, len(scores)))
                classes = classes[queries]
            else:
                scores, flat = of_image.sigmoid().flatten().topk(min(MOST, of_image.numel()))
                queries, classes = flat // of_image.shape[-1], flat % of_image.shape[-1]
            centres, sides = places[queries].chunk(2, dim=1)
            corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, 1)
            corners = corners * torch.tensor([width, height, width, height], dtype=torch.float32)
            found.append(Detections(corners.numpy(), scores.numpy(), classes.numpy()))
        return found

    def layers(self, model: nn.Module) -> list[nn.Module]:
        heads = [module for name, module in model.named_modules() if HEAD.fullmatch(name)]
        own = {id(part) for head in heads for part in head.modules()}
        trunk = pretrained.trunk(model)
        return [*[block for block in model_layers.blocks(trunk) if id(block) not in own], nn.ModuleList(heads)]

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def build(source: Any, labels: list[str], image_size: int | None, masks: bool) -> tuple[nn.Module, Transformers]:
    """A detector of a folder, or of a configuration with random weights. Raises ModelError."""
    from transformers import AutoModelForObjectDetection

    config = _checked(pretrained.read_config(source.folder, source.config), source.folder, masks)
    known = [str(config.id2label[index]) for index in range(config.num_labels)]
    read = None
    if source.folder is not None and not source.random:
        read = pretrained.load_model(
            AutoModelForObjectDetection, source.folder, config, lambda model: nn.ModuleList(), random=False
        )
    processor, side = _processor(source.folder, config, image_size)
    if read is None or known != labels:
        wanted = type(config).from_dict(config.to_dict())
        pretrained.name_classes(wanted, labels)
        try:
            model: Any = AutoModelForObjectDetection.from_config(wanted)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(f"a detector cannot be built from this configuration: {error}") from None
        if read is not None:
            _take_over(read, model, known, labels)
        config = wanted
    else:
        model = read
    _in_float32(model)
    return model, Transformers(config, processor, side)


def load(folder: Path, masks: bool) -> tuple[nn.Module, Transformers]:
    """Load a model folder in eval mode. Raises ModelError."""
    from transformers import AutoModelForObjectDetection

    config = _checked(pretrained.read_config(folder, None), folder, masks)
    model: Any = pretrained.load_model(
        AutoModelForObjectDetection, folder, config, lambda model: nn.ModuleList(), random=False
    )
    _in_float32(model)
    return model.eval(), Transformers(config, *_processor(folder, config, None))


def _checked(config: Any, folder: Path | None, masks: bool) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as KINDS

    kind = config.model_type
    if kind == "deimv2":
        raise ModelError("DEIMv2 of transformers scores near zero with the published weights: take another detector")
    if kind not in KINDS:
        raise ModelError(f"{pretrained.called(folder)}: {kind} is no model for object detection")
    if masks:
        raise ModelError(
            f"{pretrained.called(folder)}: {kind} finds boxes only; for masks take torchvision/maskrcnn_..."
        )
    if kind in EVERY_LAYER:
        config.auxiliary_loss = True
    return config


def _processor(folder: Path | None, config: Any, image_size: int | None) -> tuple[Any, int]:
    """The image processor, set to stretch images to a square, and the side of the square."""
    from transformers import AutoImageProcessor, DetrImageProcessor, RTDetrImageProcessor

    own = folder is not None and (folder / "preprocessor_config.json").is_file()
    processor: Any
    if own:
        processor = AutoImageProcessor.from_pretrained(folder)
    else:
        processor = RTDetrImageProcessor() if config.model_type in PLAIN_PIXELS else DetrImageProcessor()
    given = {key: value for key, value in dict(processor.size).items() if value}
    side = image_size or (min(given.get("height", 0), given.get("width", 0)) or given.get("shortest_edge", SIDE))
    if not own and image_size is None:
        side = SIDE
    processor.size = {"height": int(side), "width": int(side)}
    processor.do_pad = False
    return processor, int(side)


def _take_over(read: nn.Module, model: nn.Module, known: list[str], labels: list[str]) -> None:
    """Copy weights from one model to another with other classes; of classes that both know by name, their rows."""
    old, new = read.state_dict(), model.state_dict()
    number = {name: place for place, name in enumerate(known)}
    pairs = [(number[label], place) for place, label in enumerate(labels) if label in number]
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


def _in_float32(model: Any) -> None:
    """Compute the loss in float32, also under autocast: objects are matched in NumPy, which has no bfloat16."""
    computed: Callable[..., Any] = model.loss_function

    def in_float32(*given: Any, **named: Any) -> Any:
        device = next(model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return computed(*map(_float32, given), **{name: _float32(value) for name, value in named.items()})

    model.loss_function = in_float32


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(map(_float32, value))
    if isinstance(value, dict):
        return {key: _float32(one) for key, one in value.items()}
    return value


def _mean_over_processes(number: int, device: Any) -> float:
    """The mean of a number over all processes, as transformers' losses take it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return float(number)
    total = torch.tensor(float(number), device=device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()
