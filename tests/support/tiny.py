"""Tiny real things on disk: photos that a model can learn, and models with random weights, each well under 1 MB.

    photos(tmp_path / "data"); vit(tmp_path / "model")

A seed decides everything. No function touches torch's global generator.
"""

import colorsys
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = (
    "ant",
    "bee",
    "wasp",
)  # labels of the models' "pretraining"; the data never have them, so the head is new


# ---- data ----


def picture(label: int, classes: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A soft blob on noise. Its hue is that of its class."""
    hue = colorsys.hsv_to_rgb(label / classes, 0.9, 1.0)
    y, x = np.mgrid[:size, :size] / size
    centre = rng.uniform(0.3, 0.7, 2)
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * rng.uniform(0.15, 0.3) ** 2))[..., None]
    noise = rng.uniform(0, 1, (size, size, 3)) * rng.uniform(0.3, 0.7)
    return Image.fromarray((255 * (blob * hue + (1 - blob) * noise)).clip(0, 255).astype("uint8"))


def photos(
    folder: Path,
    classes: Sequence[str] = ("cat", "dog"),
    n: int | Mapping[str, int] = 8,
    splits: Sequence[str] = ("train", "validation", "test"),
    size: int = 40,
    seed: int = 0,
) -> Path:
    """JPEG files in class folders: `n` per class and split, or by split name. Without splits: class folders only."""
    for part in splits or ("",):
        for label, name in enumerate(classes):
            where = folder / part / name
            where.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([seed, label, *part.encode()])
            for i in range(n if isinstance(n, int) else n[part]):
                picture(label, len(classes), size, rng).save(where / f"{i:03d}.jpg", quality=92)
    return folder


def dataset_repo(
    folder: Path,
    classes: Sequence[str] = ("cat", "dog"),
    n: int = 8,
    splits: Sequence[str] = ("train", "test"),
    columns: Mapping[str, str] | None = None,
    size: int = 40,
    seed: int = 0,
) -> Path:
    """The same photos as a hub data set repo: one parquet file per split, an Image and a ClassLabel column.

    `columns` renames them: {"image": "img", "label": "fine_label"}.
    """
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    names = {"image": "image", "label": "label", **(columns or {})}
    features = Features({names["image"]: ImageFeature(), names["label"]: ClassLabel(names=list(classes))})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part in splits:
        rng = np.random.default_rng([seed, *part.encode()])
        labels = [i % len(classes) for i in range(n * len(classes))]
        images = [picture(label, len(classes), size, rng) for label in labels]
        rows = Dataset.from_dict({names["image"]: images, names["label"]: labels}, features=features)
        rows.to_parquet(folder / "data" / f"{part}-00000-of-00001.parquet")
    return folder


# ---- models ----


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _warm_up_batch_norm(model: Any, size: int) -> None:
    """Give BatchNorm the statistics of pretraining: with fresh ones, the signal fades out within a few layers."""
    import torch

    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
    rng = np.random.default_rng(0)
    images = np.stack([np.asarray(picture(i % 7, 7, size, rng)) for i in range(16)])
    with torch.no_grad():
        model.train()(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
    model.eval()


def label_config(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def _save(folder: Path, kind: str, config: Any, size: int, seed: int) -> Path:
    """A model of class `kind` with random weights, and a processor that resizes to `size` and scales to -1..1."""
    import transformers

    with seeded_torch(seed):
        model = getattr(transformers, kind)(config)
        _warm_up_batch_norm(model, size)
    model.save_pretrained(folder)
    edge = {"height": size, "width": size}
    transformers.ViTImageProcessor(size=edge, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return folder


def vit(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0, **config: Any) -> Path:
    from transformers import ViTConfig

    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "patch_size": 8,
        **config,
    }
    return _save(
        folder, "ViTForImageClassification", ViTConfig(image_size=size, **shape, **label_config(labels)), size, seed
    )


def resnet(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """A ResNet without bottlenecks: the model with BatchNorm."""
    from transformers import ResNetConfig

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **label_config(labels)
    )
    return _save(folder, "ResNetForImageClassification", config, size, seed)


def mobilenet(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """MobileNetV2 at a tenth of its width. Its configuration has a classifier dropout of 0.8, as the real ones do."""
    from transformers import MobileNetV2Config

    config = MobileNetV2Config(
        image_size=size, depth_multiplier=0.1, min_depth=4, finegrained_output=True, **label_config(labels)
    )
    return _save(folder, "MobileNetV2ForImageClassification", config, size, seed)


def convnext(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    from transformers import ConvNextConfig

    config = ConvNextConfig(
        image_size=size, patch_size=2, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], **label_config(labels)
    )
    return _save(folder, "ConvNextForImageClassification", config, size, seed)


def swin(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    from transformers import SwinConfig

    shape = {"patch_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return _save(
        folder, "SwinForImageClassification", SwinConfig(image_size=size, **shape, **label_config(labels)), size, seed
    )


def dinov2(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """Its mask token takes no part in classification: a parameter without a gradient."""
    from transformers import Dinov2Config

    shape = {"patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    return _save(
        folder,
        "Dinov2ForImageClassification",
        Dinov2Config(image_size=size, **shape, **label_config(labels)),
        size,
        seed,
    )


def clip(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """Its trunk does not have the name that transformers gives to trunks."""
    from transformers import CLIPConfig

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={"image_size": size, "patch_size": 8, **shape}, text_config=shape, **label_config(labels)
    )
    return _save(folder, "CLIPForImageClassification", config, size, seed)


def poolformer(folder: Path, size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """Its head has two parts, a norm and a classifier."""
    from transformers import PoolFormerConfig

    shape = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "mlp_ratio": 2.0}
    return _save(
        folder, "PoolFormerForImageClassification", PoolFormerConfig(**shape, **label_config(labels)), size, seed
    )


def timm_model(
    folder: Path,
    architecture: str = "test_efficientnet",
    size: int = 32,
    labels: Sequence[str] = LABELS,
    seed: int = 0,
    model_args: bool = True,
) -> Path:
    """A repo as timm's `save_for_hf` writes it. Without `model_args`, it is as the `timm/...` repos on the hub are."""
    import timm
    from timm.models import save_for_hf

    with seeded_torch(seed):
        model = timm.create_model(architecture, num_classes=len(labels))
        _warm_up_batch_norm(model, size)
    # transformers' image processor for timm reads these
    scaling = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}
    model.pretrained_cfg.update(input_size=(3, size, size), num_classes=len(labels), **scaling)
    save_for_hf(model, str(folder), model_config={"label_names": list(labels)}, safe_serialization=True)
    if not model_args:
        config = json.loads((folder / "config.json").read_text())
        del config["model_args"]
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def timm_wrapper(
    folder: Path, architecture: str = "test_efficientnet", size: int = 32, labels: Sequence[str] = LABELS, seed: int = 0
) -> Path:
    """The same model saved by transformers' TimmWrapper: this is the form of a fine-tuned timm model."""
    from transformers import AutoModelForImageClassification

    timm_model(folder, architecture, size, labels, seed, model_args=False)
    AutoModelForImageClassification.from_pretrained(folder).save_pretrained(folder)
    return folder
