"""Semantic and panoptic segmentation with Mask2Former, MaskFormer and EoMT (see pipelines.models.mask_classification).

The targets of a label map are one mask for each class in it; those of panoptic data are its segments. The probability
of a class at a pixel is the sum over queries of their probabilities of the class and of the pixel, divided by the sum
over classes. Pixels that the data ignore have no weight in the loss; in the authors' code they are part of no mask.

Segments are made as in the authors' code of Mask2Former and EoMT. transformers' processor of Mask2Former differs: it
gives every pixel to a segment, and lists a segment of stuff several times.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.data.image.label_maps import IGNORE
from pipelines.errors import ModelError
from pipelines.models import mask_classification as queries
from pipelines.models import vision
from pipelines.models.source import read_json_object

Batch = dict[str, Any]
SURE = 0.8  # the least score of a query that becomes a segment
VISIBLE = 0.8  # the least part of its mask that other segments leave free
LOSS = "cross-entropy"  # the option's default: these models have a loss of their own


class Segments(NamedTuple):
    """The segments of one image, at its original size."""

    segments: np.ndarray
    """int32 [height, width]: the number of the segment, from 1 on; 0 where there is none."""
    kinds: np.ndarray
    """int16 [n]: the label number of segment 1 to n."""
    scores: np.ndarray
    """float32 [n]: the probability of its class."""


class Queries:
    """The family of models that find masks with queries (see pipelines.models.segmentation.Family).

    The loss adds up exactly over micro-batches, with the exceptions of pipelines.models.detection_queries.Queries. A
    batch may hold `seed`, a number for each image from which its points are drawn, and `progress`, the share of the
    training that is done.

    `things` are the labels of which an image may have several segments. The segments of any other label are one. None:
    every label is a thing.
    """

    library = "transformers"
    resize = "square"

    def __init__(self, config: Any, processor: Any, side: int) -> None:
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.config, self.processor, self.side = config, processor, side
        self.fixed = config.model_type in queries.EOMT
        self.stride = int(config.patch_size) if self.fixed else queries.STRIDE
        self.things: list[str] | None = None
        self.mean = torch.tensor(processor.image_mean)[:, None, None]
        self.spread = torch.tensor(processor.image_std)[:, None, None]

    def pixels(self, image: Any) -> Tensor:
        found = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        return (found - self.mean) / self.spread

    def counts(self, batch: Batch) -> dict[str, float]:
        return queries.counts(self.config, [len(kinds) for kinds, _ in map(_named, *_columns(batch))])

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float], step: int) -> Tensor:
        found = [targets(*one) for one in zip(*_columns(batch), strict=True)]
        masks, classes, ignored = zip(*found, strict=True)
        return queries.loss(model, batch, masks, classes, counts, ignored)

    def scores(self, model: nn.Module, pixels: Tensor) -> Tensor:
        return torch.stack(list(self.probabilities(model, pixels)))

    @torch.no_grad()
    def probabilities(self, model: nn.Module, pixels: Tensor) -> Iterator[Tensor]:
        classes, masks = queries.outputs(model, pixels)
        shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        of_classes = classes.softmax(-1)[..., :-1]
        for kinds, logits in zip(of_classes, masks, strict=True):  # one by one: many large masks fill the memory
            total = torch.zeros(kinds.shape[1], *shape, device=logits.device)
            for of_query, mask in zip(kinds.split(16), logits.split(16), strict=True):
                probable = queries.enlarged(mask, shape, shape, shape).sigmoid()
                total += torch.einsum("qc,qhw->chw", of_query, probable)
            yield total / total.sum(0, keepdim=True).clamp(min=1e-12)

    @torch.no_grad()
    def panoptic(
        self,
        model: nn.Module,
        pixels: Tensor,
        sizes: Sequence[tuple[int, int]],
        inner: Sequence[tuple[int, int]] | None = None,
    ) -> list[Segments]:
        """The segments of images at their original `sizes`. `inner` is the part of an input that is no padding."""
        shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        classes, masks = queries.outputs(model, pixels)
        stuff = set(range(len(self.labels)))
        stuff -= {place for place, label in enumerate(self.labels) if self.things is None or label in self.things}
        each = zip(classes.cpu(), masks, inner or [shape] * len(pixels), sizes, strict=True)
        return [segments_of(of_image, logits, shape, part, size, stuff) for of_image, logits, part, size in each]

    def layers(self, model: nn.Module) -> list[nn.Module]:
        return queries.layers(model)

    @property
    def padded(self) -> bool:
        """EoMT's authors pad images for panoptic segmentation, and cut them into windows for semantic segmentation."""
        return self.fixed and self.things is not None

    def save(self, model: Any, folder: Path) -> None:
        model.config.things = self.things
        if self.fixed:  # its processor cannot stretch: without padding it cuts windows, as the authors do it
            self.processor.size = {"shortest_edge": self.side, "longest_edge": self.side if self.padded else None}
            self.processor.do_pad, self.processor.do_split_image = self.padded, not self.padded
            self.processor.do_resize, self.processor.resample = True, Image.Resampling.BILINEAR
        else:
            vision.set_resizing(self.processor, self.side, self.resize)
        queries.save(model, self.processor, folder)


def segments_of(
    classes: Tensor,
    masks: Tensor,
    shape: Sequence[int],
    inner: Sequence[int],
    size: Sequence[int],
    stuff: set[int],
) -> Segments:
    """The segments of one image.

    Each pixel belongs to the query with the largest product of the probabilities of class and mask. A query whose mask
    is mostly taken by others is left out. A pixel is left free where the mask of its query is less probable than not.
    """
    probable, labels = classes.softmax(-1).max(-1)
    chosen = torch.nonzero((labels < classes.shape[-1] - 1) & (probable > SURE))[:, 0].tolist()
    height, width = int(size[0]), int(size[1])
    owner = torch.full((height, width), -1, dtype=torch.int32, device=masks.device)
    most = torch.full((height, width), -1.0, device=masks.device)
    inside = torch.zeros((height, width), dtype=torch.bool, device=masks.device)
    areas = []
    for place, query in enumerate(chosen):  # one by one: many large masks fill the memory
        mask = queries.enlarged(masks[query][None], shape, inner, size)[0].sigmoid()
        areas.append(int((mask >= 0.5).sum()))
        value = probable[query].to(mask) * mask
        better = value > most
        owner[better], most[better], inside[better] = place, value[better], (mask >= 0.5)[better]
    found = torch.zeros((height, width), dtype=torch.int32, device=masks.device)
    kinds: list[int] = []
    scores: list[float] = []
    numbers: dict[int, int] = {}  # of stuff
    for place, query in enumerate(chosen):
        own, label = owner == place, int(labels[query])
        shown = own & inside
        if not areas[place] or not bool(shown.any()) or int(own.sum()) / areas[place] <= VISIBLE:
            continue
        number = numbers.get(label)
        if number is None:
            kinds.append(label)
            scores.append(float(probable[query]))
            number = len(kinds)
            if label in stuff:
                numbers[label] = number
        found[shown] = number
    return Segments(found.cpu().numpy(), np.array(kinds, np.int16), np.array(scores, np.float32))


# ---- targets ----


def _columns(batch: Batch) -> tuple[Any, Any, Any]:
    """Maps, segments and kinds of the images of a batch; None for each image without segments."""
    number = len(batch["map"])
    return batch["map"], batch.get("segments") or [None] * number, batch.get("kinds") or [None] * number


def _named(label_map: Tensor, segments: Any, kinds: Any) -> tuple[list[int], list[int]]:
    """The label numbers of the masks of an image, and the values of their pixels."""
    if segments is None:
        values = [int(value) for value in torch.unique(label_map) if value != IGNORE]
        return values, values
    values = [int(value) for value in torch.unique(torch.as_tensor(segments)) if value > 0]
    known = [int(kind) for kind in kinds]
    shown = [value for value in values if known[value - 1] != IGNORE]
    return [known[value - 1] for value in shown], shown


def targets(label_map: Tensor, segments: Any, kinds: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masks uint8 [n, height, width], their label numbers, and the ignored pixels (None if all count)."""
    labels, values = _named(label_map, segments, kinds)
    of_pixels = label_map if segments is None else torch.as_tensor(segments).to(label_map.device)
    ignored = label_map == IGNORE
    if segments is not None:
        for place, kind in enumerate(kinds):
            if int(kind) == IGNORE:  # a crowd
                ignored = ignored | (of_pixels == place + 1)
    masks = [of_pixels == value for value in values]
    stacked = torch.stack(masks) if masks else torch.zeros(0, *label_map.shape, device=label_map.device)
    classes = torch.tensor(labels, dtype=torch.int64, device=label_map.device)
    return stacked.to(torch.uint8), classes, ignored if bool(ignored.any()) else None


# ---- building ----


def build(
    source: Any,
    labels: Sequence[str],
    loss: str = LOSS,
    weights: Mapping[str, float] | None = None,
    image_size: int | None = None,
) -> tuple[nn.Module, Queries]:
    """A model for these classes. Raises ModelError."""
    _check(loss, weights)
    model, processor, side = queries.build(source, labels, image_size)
    return model, Queries(model.config, processor, side)


def load(folder: Path, loss: str = LOSS, weights: Mapping[str, float] | None = None) -> tuple[nn.Module, Queries]:
    """A saved model, in eval mode. Raises ModelError."""
    _check(loss, weights)
    model, processor, side = queries.load(folder)
    family = Queries(model.config, processor, side)
    things = (read_json_object(folder / "config.json") or {}).get("things")
    if isinstance(things, list) and all(isinstance(one, str) for one in things):
        family.things = [one for one in things if one in family.labels]
    return model, family


def _check(loss: str, weights: Mapping[str, float] | None) -> None:
    if loss != LOSS or weights:
        key = "loss" if loss != LOSS else "class_weights"
        raise ModelError(f"options.{key}: models that find masks with queries have a loss of their own: leave it out")
