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
    ],
)
def test_a_folder_of_a_detector_tells_its_task(kind: str, architecture: str, task: str, tmp_path: Path) -> None:
    """`architecture` names a model of timm only in a configuration of timm."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architecture": architecture}))
    assert locate(tmp_path).task.name == task
