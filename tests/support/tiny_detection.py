"""Tiny untrained detectors in folders, as Graft saves them."""

from pathlib import Path

LABELS = ("cat", "dog")
SMALL = {"fpn_channels": 16, "proposals": 30, "samples": 16, "backbone": "mobilenetv3_small_050", "image_size": 96}


def faster_rcnn(folder: Path, masks: bool = False) -> Path:
    """A Faster R-CNN, or a Mask R-CNN, with a small timm backbone and random weights."""
    import torch

    from pipelines.models import detection
    from pipelines.models.source import Weights

    torch.manual_seed(0)
    config = {"model_type": "torchvision", "architecture": "maskrcnn" if masks else "fasterrcnn", **SMALL}
    model, family = detection.build(Weights(None, config, True), list(LABELS), masks=masks)
    folder.mkdir(parents=True, exist_ok=True)
    family.save(model, folder)
    return folder


def mask_rcnn(folder: Path) -> Path:
    return faster_rcnn(folder, masks=True)
