"""Configurations of segmentation models with few parameters, one of each kind, and made-up batches for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.models import segmentation
from pipelines.models.source import Weights

SEGFORMER = {
    "model_type": "segformer",
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 4],
    "decoder_hidden_size": 16,
}
UPERNET = {
    "model_type": "upernet",
    "backbone_config": {
        "model_type": "convnext",
        "hidden_sizes": [8, 12, 16, 20],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "hidden_size": 16,
    "auxiliary_in_channels": 16,
    "auxiliary_channels": 16,
    "pool_scales": [1, 2],
}
VIT = {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64, "patch_size": 16}
BEIT = {
    "model_type": "beit",
    "hidden_size": 16,
    **VIT,
    "out_indices": [1, 2, 3, 4],
    "pool_scales": [1, 2],
    "auxiliary_channels": 16,
    "use_relative_position_bias": True,
}
DATA2VEC = {**BEIT, "model_type": "data2vec-vision"}
DPT = {
    "model_type": "dpt",
    "hidden_size": 16,
    **VIT,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "is_hybrid": False,
}
MOBILEVIT = {
    "model_type": "mobilevit",
    "hidden_sizes": [16, 16, 16],
    "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
    "num_attention_heads": 2,
    "image_size": 64,
    "aspp_out_channels": 16,
}
MOBILEVIT2 = {"model_type": "mobilevitv2", "width_multiplier": 0.25, "image_size": 64, "aspp_out_channels": 16}
DEEPLAB = {
    "model_type": "mobilenet_v2",
    "depth_multiplier": 0.35,
    "image_size": 65,
    "output_stride": 16,
    "classifier_dropout_prob": 0.0,
}
LRASPP = {"model_type": "torchvision", "architecture": "lraspp_mobilenet_v3_large", "image_size": 64}
DEEPLABV3 = {"model_type": "torchvision", "architecture": "deeplabv3_mobilenet_v3_large", "image_size": 64}
UNET = {
    "model_type": "smp",
    "architecture": "unet",
    "encoder": "test_efficientnet",
    "decoder_channels": [16, 16, 8, 8, 8],
    "image_size": 64,
}
# without batch norm, so that micro-batches change nothing
PLAIN_UNET = {
    "model_type": "smp",
    "architecture": "unet",
    "encoder": "test_efficientnet_ln",
    "decoder_channels": [16, 16, 8, 8, 8],
    "decoder_use_norm": False,
    "image_size": 64,
}
FPN = {
    "model_type": "smp",
    "architecture": "fpn",
    "encoder": "resnet18",
    "decoder_pyramid_channels": 16,
    "decoder_segmentation_channels": 32,
    "image_size": 64,
}
OF_TRANSFORMERS = {
    "segformer": SEGFORMER,
    "upernet": UPERNET,
    "beit": BEIT,
    "data2vec": DATA2VEC,
    "dpt": DPT,
    "mobilevit": MOBILEVIT,
    "mobilevitv2": MOBILEVIT2,
    "deeplab": DEEPLAB,
}
KINDS: dict[str, dict[str, Any]] = {
    **OF_TRANSFORMERS,
    "lraspp": LRASPP,
    "deeplabv3": DEEPLABV3,
    "unet": UNET,
    "fpn": FPN,
}
LABELS = ["sky", "road", "tree"]


def tiny(kind: str, labels: list[str] | None = None, **options: Any) -> tuple[Any, Any]:
    """A model of this kind with random weights, and its family."""
    torch.manual_seed(0)
    return segmentation.build(Weights(None, KINDS[kind], True, name=kind), labels or LABELS, **options)


def tiny_folder(kind: str, folder: Path, labels: list[str] | None = None) -> Path:
    """A folder with such a model."""
    model, family = tiny(kind, labels)
    family.save(model, folder)
    return folder


def classifier_folder(kind: str, folder: Path, labels: list[str]) -> Path:
    """A folder with a classifier of images on the same encoder."""
    from transformers import AutoConfig, AutoModelForImageClassification

    fields = {key: value for key, value in KINDS[kind].items() if key != "model_type"}
    named = dict(enumerate(labels))
    config = AutoConfig.for_model(
        KINDS[kind]["model_type"], **fields, id2label=named, label2id={label: index for index, label in named.items()}
    )
    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return folder


def vary(model: Any, family: Any = None, image: Any = None) -> None:
    """Give a fresh model other statistics, and with the `image` a map of it with several classes.

    A fresh model gives all pixels the same class, which says nothing of where a class is.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        if image is not None and hasattr(model, "class_predictor"):
            _draw_queries(model, family, image)
        elif image is not None:
            logits = family.outputs(model, family.pixels(image)[None], False)[0]
            layer = [part for part in model.modules() if getattr(part, "out_channels", None) == len(family.labels)][-1]
            layer.weight /= logits.std()
            layer.bias.sub_(logits.mean((0, 2, 3))).div_(logits.std())


def _draw_queries(model: Any, family: Any, image: Any) -> None:
    """Weights of a model with queries that give two classes a tenth of the image each, or more."""
    for seed in range(100):
        drawing = torch.Generator().manual_seed(seed)
        for name, value in model.named_parameters():
            if value.dim() > 1:
                spread = 1.0 if "quer" in name else 1.3 * value[0].numel() ** -0.5
                value.normal_(0, spread, generator=drawing)
        found = family.scores(model, family.pixels(image)[None]).argmax(1)
        if int((found.flatten().bincount() > found.numel() / 10).sum()) > 1:
            return
    raise AssertionError("no such weights")


def made_up(n: int = 3, side: int = 64, classes: int = 3, ignored: float = 0.2) -> dict[str, Tensor]:
    """A batch of random pixels and label maps, some pixels of which are ignored."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(classes, (n, side // 8, side // 8), generator=generator)
    label_map = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    label_map = label_map.masked_fill(torch.rand(label_map.shape, generator=generator) < ignored, -1)
    pixels = torch.randn(n, 3, side, side, generator=generator)
    return {"pixel_values": pixels, "map": label_map.to(torch.int16)}


def parts(batch: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """A batch in micro-batches of this size."""
    n = len(batch["map"])
    return [{name: value[start : start + size] for name, value in batch.items()} for start in range(0, n, size)]
