"""Image segmentation: the class of every pixel.

Any `AutoModelForSemanticSegmentation` of transformers (SegFormer, UperNet, BEiT, DPT), Mask2Former, MaskFormer and
EoMT, torchvision's DeepLabV3, FCN and LR-ASPP, and U-Net and its kin of segmentation-models-pytorch with any timm
encoder. Rows hold `image` and `mask`; classes are matched by name. Scores are those of the original size.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data import maps
from pipelines.data.image.label_maps import LabelMaps
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, RecipeError
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils import shares
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.models.tiles import Segmented
    from pipelines.reporting.mistakes import MistakeSpec

TILE = 1024  # pixels a side, of a model that takes any size


class Options(Strict):
    image_size: Annotated[Int, Field(ge=32, le=4096)] | None = None
    """Pixels a side that images are resized to, as `resize` says. Left out: the model's own."""
    resize: Literal["square", "shorter", "none"] = "square"
    """`square`: stretched to a square of `image_size`. `shorter`: the shorter side becomes `image_size`.

    `none`: images keep their pixels (micrographs, aerial photos); `crop` then limits what a step trains on.
    """
    crop: Annotated[Int, Field(ge=32, le=4096)] | None = None
    """Train on random parts of this many pixels a side, a new one in every epoch. Left out: on complete images."""
    augment: Literal["none", "flip", "photo", "micrograph"] = "none"
    """`flip`: mirrored half of the time. `photo`: also a random scale and random colours, as for scenes.

    `micrograph`: turned and mirrored in all eight ways, deformed like tissue (Simard et al. 2003), random brightness
    and contrast. It also suits images from above.
    """
    scale: Annotated[list[Annotated[Float, Field(ge=0.1, le=10)]], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest random scale of training images. Left out: [0.5, 2] with `augment: photo`, else [1, 1]."""
    loss: Literal[
        "cross-entropy", "focal", "dice", "lovasz", "cross-entropy+dice", "cross-entropy+lovasz", "focal+dice"
    ] = "cross-entropy"
    """For rare classes: `focal` (Lin et al. 2017), Dice, or Lovasz (Berman et al. 2018); or a sum of two."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss weighs each class by pixels / (classes * its pixels), so rare classes weigh more."""
    tile: Annotated[Int, Field(ge=32, le=4096)] | None = None
    """Larger images are predicted in overlapping tiles of this many pixels a side. Left out: `crop`, at least 1,024.

    A model that takes one size only has tiles of that size.
    """
    overlap: Annotated[Int, Field(ge=2, le=2048)] | None = None
    """Pixels that neighbouring tiles share. Left out: a quarter of the tile."""
    white: Annotated[Int, Field(ge=1, le=65535)] | None = None
    """The value of white in images of 16 bits: 4095 for a detector of 12 bits. Left out: 65,535."""

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("scale: give the smallest scale first, such as [0.5, 2]")
        if self.resize == "none" and self.image_size is not None:
            raise ValueError("image_size has no effect with resize: none; crop and tile set the sizes")
        return self


class ImageSegmentation(Task):
    name = "image-segmentation"
    hub = HubSpec("image-segmentation", "transformers", ("ForSemanticSegmentation", "ForUniversalSegmentation"))
    Options = Options

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.family: Any = None

    @property
    def data(self) -> DataSpec:
        return maps.spec(self.labels)

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import segmentation

        if self.family is None:  # what may be there depends on the classes and on the model
            return segmentation.METRICS
        return segmentation.metrics_of(len(self.labels), self._panoptic, self._panoptic)

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data.image.reading import warn_if_dark
        from pipelines.models import segmentation

        self.labels = list(splits.labels)
        warn_if_dark(splits.train, self.options.white, option=True)
        weights = {}
        if self.options.class_weights == "balanced":
            weights = maps.balanced(splits.train, self.labels, splits.name)
        options = self.options
        model, self.family = segmentation.build(
            source, self.labels, options.loss, weights, options.image_size, options.resize
        )
        if hasattr(self.family, "panoptic"):
            self.family.things = maps.things_in(splits.train)
        self._check_sizes()
        return model

    def _check_sizes(self) -> None:
        """Raise RecipeError for sizes that do not fit the model."""
        options, family = self.options, self.family
        side = int(family.side)
        if family.fixed and options.resize != "square" and options.crop != side:
            raise RecipeError(
                f"options.crop: this model takes images of {side} x {side} pixels: set options.crop={side}"
            )
        if family.fixed and options.crop is not None and options.crop > side:
            raise RecipeError(f"options.crop: this model takes images of {side} x {side} pixels: at most {side}")
        if self._panoptic and options.resize != "square":
            raise RecipeError("options.resize: a panoptic model takes an image at once: leave it at `square`")
        if options.resize != "square" and shares.asked():
            raise RecipeError(
                "options.resize: with FSDP every process must run the model equally often, so images need one size: "
                "set options.resize=square"
            )
        if not family.fixed and options.tile is not None and options.tile < 2 * family.stride:
            raise RecipeError(
                f"options.tile: this model divides its input by {family.stride}, and tiles overlap: at least "
                f"{2 * family.stride}"
            )
        if self._overlap > self._tile // 2:
            raise RecipeError(f"options.overlap: at most half of the tile, {self._tile // 2} pixels")

    def layers(self, model: Any) -> "list[nn.Module]":
        layers: list[nn.Module] = self.family.layers(model)
        return layers

    def encode(self, rows: Any) -> LabelMaps:
        return LabelMaps(rows, self.labels, self.options.white)

    # ---- sizes ----

    def _input_size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which the model sees an image, before it is cut or padded."""
        side = self.options.image_size or self.family.side
        if self.options.resize == "none":
            return width, height
        if self.options.resize == "square" and not self.family.padded:
            return side, side
        factor = side / (max(width, height) if self.family.padded else min(width, height))
        return max(1, round(width * factor)), max(1, round(height * factor))

    @property
    def _tile(self) -> int:
        if self.family.fixed:
            return int(self.family.side)
        tile = int(self.options.tile or max(self.options.crop or 0, TILE))
        if self.options.resize == "square":  # one stretched image is one input
            tile = max(tile, *self._input_size(1, 1))
        stride = int(self.family.stride)
        return -(-tile // stride) * stride

    @property
    def _overlap(self) -> int:
        return int(self.options.overlap or self._tile // 4)

    # ---- examples ----

    @property
    def augmentation(self) -> Augmentation:
        options = self.options
        changes = options.augment != "none" or options.crop is not None or options.scale is not None
        # features are cached of inputs of one size only
        switch = "options.augment=none with options.resize=square, without options.crop and options.scale"
        free = options.resize != "square"
        return Augmentation(changes or free, switch=switch, always=free or options.crop is not None)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.image import box_augment, map_augment

        options = self.options
        base = self._input_size(*example["image"].size)
        scale = tuple(options.scale or ((0.5, 2.0) if options.augment == "photo" else (1.0, 1.0)))
        if options.crop is not None or scale != (1.0, 1.0):
            changed = map_augment.random_part(
                example, base, options.crop or (self.family.side if self.family.fixed else min(base)), scale, rng
            )
        else:
            changed = map_augment.resized(example, base)
        if options.augment == "micrograph":
            changed = map_augment.light(map_augment.elastic(map_augment.random_turn(changed, rng), rng), rng)
        elif options.augment != "none":
            changed = map_augment.random_mirror(changed, rng)
        if options.augment == "photo":
            changed = box_augment.photometric(changed, rng)
        return {**changed, "augmented": True}

    def collate(self, examples: Sequence[Example]) -> Batch:
        from pipelines.data.image import map_augment

        batch: Batch = {name: [example[name] for example in examples] for name in ("id", "row")}
        if "augmented" not in examples[0]:  # it may be scored
            batch["size"] = [example["size"] for example in examples]
            batch["true"] = [example["map"] for example in examples]
            if "segments" in examples[0]:
                batch["true_segments"] = [
                    tuple(one[key] for key in ("segments", "kinds", "crowds")) for one in examples
                ]
            sizes = [self._input_size(*example["image"].size) for example in examples]
            if any(max(size) > self._tile for size in sizes):
                return {**batch, "images": [example["image"] for example in examples]}
            examples = [map_augment.resized(one, size) for one, size in zip(examples, sizes, strict=True)]
        return {**batch, **self._tensors(examples)}

    def _tensors(self, examples: Sequence[Example]) -> Batch:
        """Images and maps at the model's size, padded on the right and below to the largest; padding is ignored."""
        import torch
        from PIL import Image

        from pipelines.data.image.label_maps import IGNORE
        from pipelines.models.tiles import padded_size

        inner = [(example["image"].height, example["image"].width) for example in examples]
        height, width = padded_size(self.family, *(max(sides) for sides in zip(*inner, strict=True)))
        pixels = torch.zeros(len(examples), 3, height, width)
        label_maps = torch.full((len(examples), height, width), IGNORE, dtype=torch.int16)
        for place, (example, (high, wide)) in enumerate(zip(examples, inner, strict=True)):
            if self.family.padded:  # with black, as its authors do it
                canvas = Image.new("RGB", (width, height))
                canvas.paste(example["image"])
                pixels[place] = self.family.pixels(canvas)
            else:
                pixels[place, :, :high, :wide] = self.family.pixels(example["image"])
            label_maps[place, :high, :wide] = torch.from_numpy(example["map"])
        batch: Batch = {"pixel_values": pixels, "map": label_maps, "inner": inner}
        if "segments" in examples[0]:
            batch["kinds"] = [example["kinds"].tolist() for example in examples]
            batch["segments"] = [torch.zeros(height, width, dtype=torch.int32) for _ in examples]
            for segments, example, (high, wide) in zip(batch["segments"], examples, inner, strict=True):
                segments[:high, :wide] = torch.from_numpy(example["segments"])
        return batch

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        """The seed of the points at which Mask2Former and EoMT compare masks."""
        return {"seed": rng.getrandbits(62)} if hasattr(self.family, "panoptic") else {}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        counts: dict[str, float] = self.family.counts(self._whole(batch))
        return counts

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        batch = self._whole(batch)
        if "images" in batch:
            batch = {**batch, "pixel_values": batch["pixel_values"].to(next(model.parameters()).device)}
        loss: Tensor = self.family.loss(model, batch, counts, step)
        return loss

    def _whole(self, batch: Batch, cut: bool = True) -> Batch:
        """The batch with tensors. Images that are larger than a tile come without: they are made here, and kept.

        With `options.crop`, only the middle of such an image is taken for a loss, because the complete one may not fit
        the memory. Without `cut` it is taken as it is.
        """
        if "images" not in batch or "pixel_values" in batch:
            return batch
        from pipelines.data.image import map_augment

        examples = []
        for place, (image, true) in enumerate(zip(batch["images"], batch["true"], strict=True)):
            example = {"image": image, "map": true}
            if "true_segments" in batch:
                example |= dict(zip(("segments", "kinds"), batch["true_segments"][place], strict=False))
            example = map_augment.resized(example, self._input_size(*image.size))
            if cut and self.options.crop is not None:
                example = map_augment.middle(example, self.options.crop)
            examples.append(example)
        batch.update(self._tensors(examples))
        return batch

    # ---- after training ----

    def _segmented(self, model: Any, batch: Batch) -> "list[Segmented]":
        """The label map of every image of a batch at its original size."""
        from pipelines.models import tiles

        if "images" in batch:
            return [self._one(model, image) for image in batch["images"]]
        pixels = batch["pixel_values"]
        # cached features come with lists in the place of tuples
        inner, sizes = ([(high, wide) for high, wide in batch[name]] for name in ("inner", "size"))
        if self.family.fixed:  # all are padded to one size
            return tiles.segment_equal(model, self.family, pixels, inner, sizes)
        found: list[Any] = [None] * len(inner)
        for size in dict.fromkeys(inner):  # the images of one size together
            places = [place for place, one in enumerate(inner) if one == size]
            part = pixels[places, :, : size[0], : size[1]]
            answers = tiles.segment_equal(model, self.family, part, [size] * len(places), [sizes[p] for p in places])
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _one(self, model: Any, image: Any) -> "Segmented":
        """The label map of one image, in tiles if it is large."""
        from pipelines.data.image import map_augment
        from pipelines.models import tiles

        size = (image.height, image.width)
        shown = map_augment.resized({"image": image}, self._input_size(*image.size))["image"]
        return tiles.segment(model, self.family, shown, size, self._tile, self._overlap)

    @property
    def _panoptic(self) -> bool:
        """Whether the model tells the objects of some classes apart."""
        return self.family is not None and self.family.things is not None

    def _segments(self, model: Any, batch: Batch) -> list[Any]:
        """The segments of every image of a batch at its original size, from an input without tiles."""
        whole = self._whole(batch, cut=False)
        pixels = whole["pixel_values"].to(next(model.parameters()).device)
        found: list[Any] = self.family.panoptic(model, pixels, batch["size"], whole["inner"])
        return found

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.data.image.label_maps import packed
        from pipelines.metrics import segmentation

        records = []
        images = zip(batch["id"], batch["size"], batch["true"], self._segmented(model, batch), strict=True)
        for id_, size, true, found in images:
            label_map = found.map.astype("int16")
            counts = segmentation.record(label_map, true, len(self.labels))
            records.append({"id": id_, "size": list(size), **counts, "map": packed(label_map)})
        if self._panoptic and "true_segments" in batch:
            for record, (true, kinds, crowds), own in zip(
                records, batch["true_segments"], self._segments(model, batch), strict=True
            ):
                known = [crowds.get(number, int(kind)) for number, kind in enumerate(kinds, 1)]
                record |= segmentation.panoptic_record(own.segments, own.kinds, true, known, list(crowds))
        return records

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import segmentation

        things = self.family.things if self.family is not None else None
        return segmentation.statistics(records, self.labels, things)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import segmentation

        return segmentation.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import segmentation

        return {"per class": segmentation.per_class(records, self.labels)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import segmentation

        return segmentation.figures(records, self.labels)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_pixels

        return wrong_pixels(self.labels, white=self.options.white)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        self.family.save(model, folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import segmentation

        model, self.family = segmentation.load(folder, self.options.loss, resize=self.options.resize)
        self.labels = list(self.family.labels)
        return model

    def infer(self, model: Any, image: Any) -> Iterator[list[dict[str, Any]]]:
        """The classes of one image (path, bytes or PIL), largest first: [{"label", "score", "share", "mask"}].

        `score` is the mean probability of the class's pixels, `share` their part of the image, `mask` COCO's run
        lengths. Every pixel has one class. A panoptic model gives segments: several of one class, and pixels of none.
        """
        yield answer_one(self, model, image=image)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        from pipelines.data.image.reading import read_image

        def one(question: Mapping[str, Any]) -> Example:
            image = read_image(question["image"], white=self.options.white)
            return {"image": image, "like": self._input_size(*image.size)}

        return each(one, asked, cores())

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        with torch.no_grad():  # BEiT keeps tensors, which later train
            if self._panoptic:
                return [self._answer_of_segments(model, example["image"]) for example in examples]
            return [self._answer(self._one(model, example["image"])) for example in examples]

    def _answer(self, found: "Segmented") -> list[dict[str, Any]]:
        """The classes of an image as `infer` gives them."""
        from pipelines.data.image.label_maps import run_lengths

        counts, masks = found.pixels, run_lengths(found.map)
        order = sorted(masks, key=lambda number: (-counts[number], number))
        return [
            {
                "label": self.labels[number],
                "score": float(found.sure[number] / counts[number]),
                "share": float(counts[number] / found.map.size),
                "mask": masks[number],
            }
            for number in order
        ]

    def _answer_of_segments(self, model: Any, image: Any) -> list[dict[str, Any]]:
        """The segments of an image as `infer` gives them. Some pixels may be part of none."""
        import numpy as np

        from pipelines.data.image.label_maps import run_lengths

        empty = np.full((image.height, image.width), -1, np.int16)
        (found,) = self._segments(model, {"images": [image], "true": [empty], "size": [empty.shape]})
        masks, counts = run_lengths(found.segments), np.bincount(found.segments.ravel())
        order = sorted((number for number in masks if number), key=lambda number: (-counts[number], number))
        return [
            {
                "label": self.labels[int(found.kinds[number - 1])],
                "score": float(found.scores[number - 1]),
                "share": float(counts[number] / found.segments.size),
                "mask": masks[number],
            }
            for number in order
        ]
