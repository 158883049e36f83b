"""Which task a model folder is for."""

import json
from pathlib import Path

import pytest

from pipelines.inference.loading import locate


@pytest.mark.parametrize(
    ("kind", "architecture", "task"),
    [
        ("libreyolo", "yolox", "object-detection"),
        ("torchvision", "ssd300_vgg16", "object-detection"),
        ("torchvision", "maskrcnn_resnet50_fpn", "instance-segmentation"),
        ("torchvision", "deeplabv3_resnet50", "image-segmentation"),
        ("torchvision", "lraspp_mobilenet_v3_large", "image-segmentation"),
    ],
)
def test_a_folder_of_a_library_tells_its_task(kind: str, architecture: str, task: str, tmp_path: Path) -> None:
    """`architecture` names a model of timm only in a configuration of timm."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architecture": architecture}))
    assert locate(tmp_path).task.name == task


def test_a_folder_of_segmentation_models_pytorch_tells_its_task(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_model_class": "Unet", "encoder_name": "resnet34"}))
    assert locate(tmp_path).task.name == "image-segmentation"


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("SegformerForSemanticSegmentation", "image-segmentation"),
        ("Mask2FormerForUniversalSegmentation", "image-segmentation"),
        ("RfDetrForInstanceSegmentation", "instance-segmentation"),
    ],
)
def test_two_tasks_have_one_tag(architecture: str, task: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\npipeline_tag: image-segmentation\n---\n")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert locate(tmp_path).task.name == task
