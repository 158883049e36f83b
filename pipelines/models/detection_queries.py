"""Instance segmentation with Mask2Former, MaskFormer and EoMT (see pipelines.models.mask_classification).

Images are stretched to a square for Mask2Former and MaskFormer, which know no padding. For EoMT they keep their shape,
and are padded to a square at the right and the bottom, as its authors do it. The processor that is saved does the same.

Each of the best pairs of a query and a class is a detection (EoMT's processor in transformers takes one class for each
query). Its score is that of its class, times the mean probability in its mask. Masks are enlarged to the original size
before they become binary; transformers enlarges binary masks of 384 x 384 pixels. Masks may overlap.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.models import enlarged_masks
from pipelines.models import mask_classification as queries
from pipelines.models.detection import MOST, Batch, Detections


class Queries:
    """The family of models that find masks with queries (see pipelines.models.detection.Family).

    The loss adds up exactly over micro-batches. The points at which masks are compared are drawn from a seed of each
    image. The exceptions: the BatchNorm of a ResNet is live, and so is dropout; the queries that keep EoMT's masked
    attention are drawn for the micro-batch, as dropout is, and so is the scale of the positions of EoMT on DINOv3.
    """

    library = "transformers"

    def __init__(self, config: Any, processor: Any, side: int) -> None:
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.config, self.processor, self.side = config, processor, side
        self.padded = config.model_type in queries.EOMT
        self.mean = torch.tensor(processor.image_mean)[:, None, None]
        self.spread = torch.tensor(processor.image_std)[:, None, None]

    def example(self, example: Mapping[str, Any]) -> dict[str, Any]:
        from PIL import Image
        from torchvision.transforms.v2.functional import resize

        image = example["image"]
        inner = self._inner(image.height, image.width)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()
        pixels = resize(pixels, list(inner), antialias=True).float() / 255  # as transformers' processors do it
        found: dict[str, Any] = {
            "pixel_values": (self._padded(pixels) - self.mean) / self.spread,
            "size": tuple(example["size"]),
            "inner": inner,
        }
        if "boxes" in example:
            keep = np.flatnonzero(~np.asarray(example["crowd"], dtype=bool))
            drawn = [Image.fromarray(np.asarray(example["masks"][place], np.uint8)) for place in keep]
            small = [np.asarray(one.resize((inner[1], inner[0]), Image.Resampling.NEAREST)) for one in drawn]
            masks = torch.from_numpy(np.stack(small)) if small else torch.zeros(0, *inner, dtype=torch.uint8)
            seen = (masks > 0).flatten(1).any(1)  # a small thing may have no pixel left
            found["masks"] = self._padded(masks[seen])
            found["class_labels"] = torch.from_numpy(np.asarray(example["classes"], dtype=np.int64)[keep])[seen]
        return found

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image is resized."""
        if not self.padded:
            return self.side, self.side
        from transformers.image_transforms import get_size_with_aspect_ratio

        found = get_size_with_aspect_ratio((height, width), self.side, self.side)
        return max(1, int(found[0])), max(1, int(found[1]))

    def _padded(self, values: Tensor) -> Tensor:
        rest = (0, self.side - values.shape[-1], 0, self.side - values.shape[-2])
        return nn.functional.pad(values, rest)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        batch: Batch = {
            "pixel_values": torch.stack([one["pixel_values"] for one in examples]),
            "sizes": [one["size"] for one in examples],
            "inner": [one["inner"] for one in examples],
        }
        if all("masks" in one for one in examples):
            batch["masks"] = [one["masks"] for one in examples]
            batch["class_labels"] = [one["class_labels"] for one in examples]
        return batch

    def counts(self, batch: Batch) -> dict[str, float]:
        return queries.counts(self.config, [len(one) for one in batch["class_labels"]])

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        return queries.loss(model, batch, batch["masks"], batch["class_labels"], counts)

    @torch.no_grad()
    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        classes, masks = queries.outputs(model, batch["pixel_values"])
        each = zip(classes.cpu(), masks, batch["inner"], batch["sizes"], strict=True)
        return [self._found(*one) for one in each]

    def _found(self, classes: Tensor, masks: Tensor, inner: Sequence[int], size: Sequence[int]) -> Detections:
        """The detections of one image."""
        scores = classes.softmax(-1)[:, :-1]
        best, flat = scores.flatten().topk(min(MOST, scores.numel()))
        drawn: dict[int, tuple[dict[str, Any], list[float], float] | None] = {}
        found = []
        for score, place in zip(best.tolist(), flat.tolist(), strict=True):
            query, label = divmod(place, scores.shape[1])
            if query not in drawn:  # one by one: many large masks fill the memory
                seen = queries.shown(masks[query][None], (self.side, self.side), inner)[0]
                drawn[query] = enlarged_masks.drawn(seen, size)
            mask = drawn[query]
            if mask is not None:
                found.append((score * mask[2], label, mask[1], mask[0]))
        found.sort(key=lambda one: -one[0])
        return Detections(
            np.array([box for _, _, box, _ in found], np.float32).reshape(-1, 4),
            np.array([score for score, _, _, _ in found], np.float32),
            np.array([label for _, label, _, _ in found], np.int64),
            [mask for _, _, _, mask in found],
        )

    def layers(self, model: nn.Module) -> list[nn.Module]:
        return queries.layers(model)

    def save(self, model: Any, folder: Path) -> None:
        queries.save(model, self.processor, folder)


def build(source: Any, labels: list[str], image_size: int | None, masks: bool) -> tuple[nn.Module, Queries]:
    """A model for these classes. Raises ModelError."""
    _check(masks)
    model, processor, side = queries.build(source, labels, image_size)
    return model, Queries(model.config, processor, side)


def load(folder: Path, masks: bool) -> tuple[nn.Module, Queries]:
    """A saved model, in eval mode. Raises ModelError."""
    _check(masks)
    model, processor, side = queries.load(folder)
    return model, Queries(model.config, processor, side)


def _check(masks: bool) -> None:
    if not masks:
        kinds = ", ".join(queries.KINDS)
        raise ModelError(f"models with masks ({kinds}) are for the task instance-segmentation: choose a detector")
