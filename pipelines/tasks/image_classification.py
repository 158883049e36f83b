"""Image classification: one label per image, or several (`options.multi_label`).

Any `AutoModelForImageClassification`: ViT, DeiT, Swin, ConvNeXt, ResNet from transformers, and every timm model through
transformers' TimmWrapper. Rows hold `image` and `label`; labels are matched by name, never by number.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.image.reading import LabelledImages, warn_if_dark
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, ModelError
from pipelines.models.classic_kinds import KINDS, LAYERWISE
from pipelines.task import Augmentation, Batch, Example, HubSpec, Phase, Record, Task, answer_one
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.models.attribution import Parts
    from pipelines.reporting.mistakes import Mistake, MistakeSpec

log = logging.getLogger("graft")


class Options(Strict):
    of_the_model: ClassVar[tuple[str, ...]] = ("image_size", "multi_label")

    image_size: Annotated[Int, Field(ge=4, le=4096)] | None = None
    """Pixels a side. Left out: the model's own. Position embeddings are resized."""
    augment: Literal["none", "crop-flip", "distort", "randaugment"] = "none"
    """`crop-flip`: a random part of the image, mirrored half of the time.

    `distort`: slightly turned, moved, scaled and slanted, never mirrored: for digits, letters and signs. `randaugment`:
    as `crop-flip`, and also random changes of colour and shape (Cubuk et al. 2020).
    """
    mixup: Annotated[Float, Field(ge=0, le=10)] = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: Annotated[Float, Field(ge=0, le=10)] = 0.0
    """Alpha of cutmix's Beta distribution (a part of another image is pasted in); 0 is off."""
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread over all classes (Szegedy et al. 2016)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss weighs each class by n / (classes * n of the class), so rare classes weigh more."""
    multi_label: bool = False
    """An image may have several labels, or no label."""
    white: Annotated[Int, Field(ge=1, le=65535)] | None = None
    """The value of white in images of 16 bits: 4095 for a detector of 12 bits. Left out: 65,535."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout before the classifier. Left out: the model's own."""
    pretrain: Annotated[Float, Field(ge=0, le=1)] = 0.0
    """Fraction of the steps in which the layers of an `autoencoder` learn without labels, one after the other.

    Each learns to reconstruct what it reads (Vincent et al. 2008). 1: nothing else, so that other runs start from it.
    Warm-up and the decay of the learning rate span both parts, so the second part begins at a lower rate.
    """

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.multi_label and (self.label_smoothing or self.class_weights != "none"):
            raise ValueError(
                "label_smoothing and class_weights are for one label per image: leave them out with multi_label"
            )
        return self


class ImageClassification(Task):
    name = "image-classification"
    hub = HubSpec("image-classification", "transformers", ("ForImageClassification",))
    Options = Options

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.weights: dict[str, float] = {}  # class -> weight in the loss, if it is not 1

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"image": "image", "label": "label"},
            input_columns=("image",),
            label_kind="classes" if self.options.multi_label else "class",
            labels=tuple(self.labels),
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(scored_from=self.options.pretrain),)

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import classification

        return classification.SEVERAL_LABELS if self.options.multi_label else classification.ONE_LABEL

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data import labels
        from pipelines.models import pretrained, vision

        self.labels = labels.names(splits, self.options.multi_label)
        warn_if_dark(splits.train, self.options.white, option=True)
        if self.options.class_weights == "balanced":
            self.weights = labels.balanced(splits.train["label"], self.labels)
        config = pretrained.read_config(source.folder, source.config)
        vision.check_classifies(source.folder, config)
        config.problem_type = (
            "multi_label_classification" if self.options.multi_label else "single_label_classification"
        )
        if config.model_type == "timm_wrapper":
            # transformers passes num_classes itself.
            config.model_args = {k: v for k, v in (config.model_args or {}).items() if k != "num_classes"}
        self._set_dropout(config)
        if self.options.pretrain and config.model_type not in LAYERWISE:
            raise ModelError(
                f"options.pretrain: a {config.model_type} model has no layers that can be pretrained one after the "
                f"other: leave it out, or choose model: {{config: {{model_type: {LAYERWISE[0]}}}}}"
            )
        self.processor = vision.image_processor(source.folder, config, self.options.image_size)
        height, width = vision.input_size(self.processor)
        if isinstance(getattr(config, "image_size", None), int) and self.options.image_size is not None:
            config.image_size = height
        if config.model_type == "timm_wrapper" and self.options.image_size is not None and vision.fixes_size(config):
            config.model_args["img_size"] = height
        model = vision.image_classifier(source.folder, config, self.labels, random=source.random)
        if self.options.image_size is not None:
            vision.try_size(model, height, width)
        if config.model_type in LAYERWISE and not self.options.pretrain:
            for layer in model.trunk:  # type: ignore[union-attr]
                layer.decoder_bias.requires_grad_(False)  # classification does not use it
        if self.options.pretrain == 1:
            log.warning(
                "options.pretrain=1: the classifier stays random; fine-tune from this run (model.id) without the option"
            )
        return model

    def _set_dropout(self, config: Any) -> None:
        """Set the head's dropout.

        A configuration with more than 0.5 is taken for a mistake (MobileNet has 0.8 and 0.999).
        """
        asked = self.options.dropout
        if config.model_type == "timm_wrapper":
            if asked is not None:
                config.model_args = {**config.model_args, "drop_rate": asked}
            return
        if asked is not None and config.model_type in KINDS and hasattr(config, "dropout"):
            config.dropout = asked
            return
        own = getattr(config, "classifier_dropout_prob", None)
        if own is None and asked is not None:
            raise ModelError(
                f"options.dropout: a {config.model_type} model has no dropout before its classifier: leave it out"
            )
        if own is not None and asked is None and own > 0.5:
            log.warning(
                "the model's configuration drops %g of the classifier's input; using 0.2 (set options.dropout to "
                "decide)",
                own,
            )
            asked = 0.2
        if asked is not None:
            config.classifier_dropout_prob = asked

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import vision
        from pipelines.models.layers import blocks

        head = vision.head(model)
        own = {id(m) for m in head.modules()}
        return [*[b for b in blocks(vision.trunk(model)) if id(b) not in own], head]

    def check_frozen(self, model: "nn.Module") -> None:
        if self.options.pretrain and not all(parameter.requires_grad for parameter in model.parameters()):
            raise ModelError(
                "options.pretrain trains every layer, and some are frozen: leave out model.freeze, model.adapter and "
                "train.head_epochs"
            )

    def encode(self, rows: Any) -> LabelledImages:
        return LabelledImages(rows, self.labels, self.options.multi_label, self.options.white)

    @property
    def augmentation(self) -> Augmentation:
        partners = 1 if self.options.mixup or self.options.cutmix else 0
        return Augmentation(self.options.augment != "none" or partners > 0, partners)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.image import augment
        from pipelines.models import vision

        if self.options.augment == "none":
            return example
        size = vision.input_size(self.processor)
        if self.options.augment == "distort":
            distorted = augment.distort(example["image"], size, rng)
            return {**example, "pixels": vision.scaled(self.processor, distorted)}
        image = augment.random_crop(example["image"], size, rng)
        if self.options.augment == "randaugment":
            image = augment.rand_augment(image, rng)
        return {**example, "pixels": vision.scaled(self.processor, image)}

    def mix(self, examples: Sequence[Example], rng: Random) -> Example:
        from pipelines.data.image import augment

        example, partner = examples
        use_cutmix = self.options.cutmix and (not self.options.mixup or rng.random() < 0.5)
        blend, alpha = (augment.cutmix, self.options.cutmix) if use_cutmix else (augment.mixup, self.options.mixup)
        pixels, share = blend(self._pixels(example), self._pixels(partner), alpha, rng)
        return {**example, "pixels": pixels, "target": example["target"] * share + partner["target"] * (1 - share)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        return {
            "id": [e["id"] for e in examples],
            "row": [e["row"] for e in examples],
            "true": [e["true"] for e in examples],
            "target": torch.stack([e["target"] for e in examples]),
            "pixel_values": torch.stack([self._pixels(e) for e in examples]),
        }

    def _pixels(self, example: Example) -> "Tensor":
        """[3, H, W] float32 from the model's own processor, or from the augmentation if there was one."""
        if "pixels" in example:
            ready: Tensor = example["pixels"]
            return ready
        pixels: Tensor = self.processor(example["image"], return_tensors="pt")["pixel_values"][0]
        return pixels

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        from pipelines.losses import classification as classes

        found = classes.counts(
            batch["target"], classes.weights_of(self.weights, self.labels, "cpu"), self.options.multi_label
        )
        return found | ({"images": float(len(batch["id"]))} if self.options.pretrain else {})

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        from pipelines.losses import classification as classes
        from pipelines.models import pretrained

        if batch.get("progress", 1.0) < self.options.pretrain:
            return self._reconstruction(model, batch) / counts["images"]
        logits = pretrained.logits(model(pixel_values=batch["pixel_values"])).float()
        weights = classes.weights_of(self.weights, self.labels, logits.device)
        return classes.loss(
            logits, batch["target"], counts, weights, self.options.multi_label, self.options.label_smoothing
        )

    def _reconstruction(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """The summed reconstruction errors of the layer whose turn it is. Raises ModelError if weights are frozen."""
        self.check_frozen(model)  # the head stage freezes too
        done = batch["progress"] / self.options.pretrain
        errors: Tensor = model(pixel_values=batch["pixel_values"], pretraining=done)
        return errors.sum()

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.metrics import classification
        from pipelines.models import pretrained

        logits = pretrained.logits(model(pixel_values=batch["pixel_values"])).detach().float().cpu()
        return classification.records(batch, logits, self.labels, self.options.multi_label)

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import classification

        return classification.statistics(records, self.labels, self.options.multi_label)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import classification

        return classification.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import classification

        return {"per class": classification.per_class(records, self.labels, self.options.multi_label)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import classification as classification_plots

        return classification_plots.figures(records, self.labels, multi_label=self.options.multi_label)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import SURE, MistakeSpec, surest_label

        return MistakeSpec(
            rank=lambda record: surest_label(record, self.options.multi_label), show=self._shown, order=SURE, most=24
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.data.image.reading import thumbnail
        from pipelines.reporting.mistakes import labelled

        return replace(
            labelled(record, self.options.multi_label), picture=thumbnail(row["image"], white=self.options.white)
        )

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        if not hasattr(self.processor, "data_config"):  # the configuration of a timm model holds its preprocessing
            self.processor.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import pretrained, vision

        config = pretrained.read_config(folder, None)
        vision.check_classifies(folder, config)
        if config.model_type == "timm_wrapper":
            config.model_args = {k: v for k, v in (config.model_args or {}).items() if k != "num_classes"}
        self.processor = vision.image_processor(folder, config, None)
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.options = self.options.model_copy(
            update={"multi_label": config.problem_type == "multi_label_classification"}
        )
        return vision.image_classifier(folder, config).eval()

    def infer(self, model: Any, image: Any, top_k: int = 5) -> Iterator[list[dict[str, Any]]]:
        """The `top_k` labels of one image (path, bytes or PIL), best first: [{"label", "score"}]."""
        yield answer_one(self, model, image=image, top_k=top_k)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        from pipelines.data.image.reading import read_image

        white = self.options.white
        found = each(lambda one: read_image(one["image"], white=white), asked, cores())
        examples: list[Example | DataError] = []
        of_size: dict[Any, list[int]] = {}  # the processor takes several images of one size in less time
        for place, image in enumerate(found):
            if isinstance(image, DataError):
                examples.append(image)
            else:
                examples.append({"top_k": asked[place].get("top_k", 5)})
                of_size.setdefault(image.size, []).append(place)
        for places in of_size.values():
            pixels = self.processor([found[place] for place in places], return_tensors="pt")["pixel_values"]
            for place, one in zip(places, pixels, strict=True):
                examples[place] |= {"pixels": one, "like": tuple(one.shape)}  # type: ignore[operator]
        return examples

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.metrics import classification
        from pipelines.models import pretrained

        pixels = torch.stack([e["pixels"] for e in examples]).to(next(model.parameters()).device)
        with torch.inference_mode():
            logits = pretrained.logits(model(pixel_values=pixels)).float().cpu()
        return classification.ranked(logits, self.labels, self.options.multi_label, [e["top_k"] for e in examples])

    def parts(self, model: Any, row: Mapping[str, Any]) -> "Parts":
        """An image in the cells of its heat map. Raises DataError."""
        from pipelines.models import attribution, pretrained

        (example,) = self.prepare([row])
        if isinstance(example, DataError):
            raise example
        pixels = example["pixels"].to(next(model.parameters()).device)
        return attribution.of_image(pixels, lambda inputs: pretrained.logits(model(pixel_values=inputs)).float())

    def map_picture(self, row: Mapping[str, Any], parts: "Parts", values: "np.ndarray") -> "Image":
        """The image as the model reads it, with a heat map over it."""
        from PIL import Image as images

        from pipelines.plots import heat_maps

        # what the model's own processor makes of black and of white shows how it scales colours
        (black, white) = self.processor(
            [images.new("RGB", (64, 64), colour) for colour in ("black", "white")], return_tensors="pt"
        )["pixel_values"]
        low, high = (one.mean((1, 2), keepdim=True) for one in (black, white))
        pixels = ((parts.inputs[0].cpu() - low) / (high - low)).clamp(0, 1)
        picture = images.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
        return heat_maps.over(picture, values)
