"""Models of transformers that give every pixel its class: every AutoModelForSemanticSegmentation (SegFormer, UperNet,
BEiT, Data2Vec, DPT, MobileViT, DeepLab on MobileNetV2).

Their logits have a quarter or less of the image's sides and are enlarged to it (bilinear). The loss does not come from
transformers: its mean over pixels does not add up over micro-batches, and it is NaN if no pixel counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipelines.errors import ModelError
from pipelines.models import batch_norm, pretrained, segmentation_dense, vision
from pipelines.models import layers as model_layers
from pipelines.models.segmentation_dense import Dense

KINDS = (
    *("segformer", "upernet", "beit", "data2vec-vision", "dpt"),
    *("mobilenet_v2", "mobilevit", "mobilevitv2"),
)
SIDE = 512  # pixels, of a model whose configuration and processor name no size
ANY_SIZE = {"interpolate_pos_encoding": True}  # of BEiT and Data2Vec, whose positions are those of one size
HINT = "is it a model for semantic segmentation?"


class Transformers(Dense):
    """The family of transformers' models for semantic segmentation (see pipelines.models.segmentation.Family)."""

    library = "transformers"

    def __init__(
        self, config: Any, processor: Any, loss: str, weights: Mapping[str, float] | None, image_size: int | None
    ) -> None:
        labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        one_size = config.model_type == "data2vec-vision"  # its code takes the size of its configuration only
        side = _side(config, None if one_size else processor)
        if one_size and image_size not in (None, side):
            raise ModelError(f"options.image_size: got {image_size}: this model takes images of {side} x {side} only")
        super().__init__(labels, loss, weights, image_size or side)
        self.config, self.processor = config, processor
        self.stride = _stride(config)
        self.fixed = one_size or config.model_type == "dpt"  # transformers' code takes squares only
        self.more = ANY_SIZE if config.model_type in ("beit", "data2vec-vision") else {}
        self.scale = float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0
        if getattr(processor, "do_normalize", False):
            self.mean, self.spread = processor.image_mean, processor.image_std
        self.flipped = bool(getattr(processor, "do_flip_channel_order", False))

    def outputs(self, model: nn.Module, pixels: Tensor, auxiliary: bool) -> tuple[Tensor, list[Tensor]]:
        found: list[Tensor] = []
        heads = [part for name, part in model.named_modules() if name.rpartition(".")[2] == "auxiliary_head"]
        hooks = [head.register_forward_hook(lambda _, __, output: found.append(output)) for head in heads if auxiliary]
        try:
            output = model(pixel_values=pixels, **self.more)
        finally:
            for hook in hooks:
                hook.remove()
        return output.logits, found

    def layers(self, model: nn.Module) -> list[nn.Module]:
        return [*model_layers.blocks(_trunk(model)), _head(model)]

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        # transformers' pipeline lets these models take squares only
        vision.set_resizing(self.processor, self.side, "square" if self.fixed or self.more else self.resize)
        self.processor.save_pretrained(folder)


def build(
    source: Any, labels: list[str], loss: str, weights: Mapping[str, float] | None, image_size: int | None
) -> tuple[nn.Module, Transformers]:
    """A model of a folder, or of a configuration with random weights. Raises ModelError."""
    from transformers import AutoModelForSemanticSegmentation

    config = _checked(pretrained.read_config(source.folder, source.config), source.folder)
    known = [str(config.id2label[index]) for index in range(config.num_labels)]
    fresh = source.folder is None or source.random
    if fresh:
        pretrained.name_classes(config, labels)
    try:
        model: Any = pretrained.load_model(
            AutoModelForSemanticSegmentation,
            source.folder,
            config,
            _head,
            random=source.random,
            hint=HINT,
        )
    except ModelError:
        raise
    except Exception as error:  # the libraries of backbones raise many kinds
        what = "model.config" if source.folder is None else pretrained.called(source.folder)
        raise ModelError(f"{what}: no model can be built: {pretrained.first_line(error)}") from error
    if not fresh:
        _take(model, config, known, labels)
        batch_norm.keep_folded(model)
    model = vision.laid_out(model)
    family = Transformers(model.config, _processor(source.folder, config, image_size), loss, weights, image_size)
    return model, family


def load(folder: Path, loss: str, weights: Mapping[str, float] | None) -> tuple[nn.Module, Transformers]:
    """Load a model folder in eval mode. Raises ModelError."""
    from transformers import AutoModelForSemanticSegmentation

    config = _checked(pretrained.read_config(folder, None), folder)
    model: Any = pretrained.load_model(
        AutoModelForSemanticSegmentation, folder, config, lambda model: nn.ModuleList(), hint=HINT
    )
    return vision.laid_out(model).eval(), Transformers(config, _processor(folder, config, None), loss, weights, None)


def _trunk(model: Any) -> nn.Module:
    """The encoder. UperNet's is smaller than its head."""
    found: nn.Module = model.backbone if hasattr(model, "backbone") else pretrained.trunk(model)
    return found


def _head(model: Any) -> nn.Module:
    """All that is not the encoder."""
    trunk = _trunk(model)
    return nn.ModuleList([part for part in model.children() if part is not trunk])


def _take(model: Any, config: Any, known: list[str], labels: list[str]) -> None:
    """Give a loaded model the classes `labels`: rows of those that it knows by name are kept.

    The names of a model without this head are those of other outputs: a classifier's are of images.
    """
    from transformers import AutoModelForSemanticSegmentation

    def make(count: int) -> nn.Module:
        other = type(config).from_dict(config.to_dict())
        pretrained.name_classes(other, [str(index) for index in range(count)])
        made: nn.Module = AutoModelForSemanticSegmentation.from_config(other)
        return made

    names = segmentation_dense.of_classes(make, len(known))
    headless = names <= model.unread
    pairs = [] if headless else segmentation_dense.rows(known, labels)
    if headless or known != labels:
        segmentation_dense.choose(model, names, len(known), len(labels), pairs)
    pretrained.name_classes(model.config, labels)
    model.num_labels = len(labels)
    model.about_head = pretrained.NO_HEAD if headless else segmentation_dense.about(known, labels, pairs)


def _checked(config: Any, folder: Path | None) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as NAMES

    kind, what = config.model_type, pretrained.called(folder)
    if kind not in NAMES:
        raise ModelError(f"{what}: a {kind} model gives no class to every pixel; choose one of {', '.join(KINDS)}")
    return config


def _side(config: Any, processor: Any) -> int:
    given = {key: value for key, value in dict(getattr(processor, "size", None) or {}).items() if value}
    side = min(given.get("height", 0), given.get("width", 0)) or given.get("shortest_edge")
    found = side or getattr(config, "image_size", None) or SIDE
    return int(found[0] if isinstance(found, (list, tuple)) else found)


def _stride(config: Any) -> int:
    """What the sides of an input must be divisible by."""
    if config.model_type in ("beit", "data2vec-vision", "dpt"):
        return int(config.patch_size)
    return 1 if config.model_type == "mobilenet_v2" else 32


def _processor(folder: Path | None, config: Any, image_size: int | None) -> Any:
    """The image processor, set to give the images to the model as they are trained on: nothing is cut off."""
    from transformers import IMAGE_PROCESSOR_MAPPING, AutoImageProcessor

    processor: Any
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        try:
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a damaged file raises many kinds
            what = f"{pretrained.called(folder)}: preprocessor_config.json cannot be read"
            raise ModelError(f"{what}: {pretrained.first_line(error)}") from error
    else:
        kinds: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
        processor = kinds["torchvision"]()
        own = getattr(config, "image_size", None)
        image_size = image_size or (own if isinstance(own, int) else None) or SIDE
    side = image_size or _side(config, processor)
    processor.size = {"height": int(side), "width": int(side)}
    processor.do_center_crop = False
    for name in ("do_reduce_labels", "do_pad"):
        if hasattr(processor, name):
            setattr(processor, name, False)
    return processor
