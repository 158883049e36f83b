"""LoRA on models whose code looks at the layers that it wraps."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    MobileNetV1Config,
    MobileNetV1ForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2ForSemanticSegmentation,
)

from pipelines.models.adapters import add_adapter

ADAPTER = SimpleNamespace(kind="lora", rank=2, alpha=None, dropout=0.0, targets=None)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (MobileNetV1ForImageClassification, MobileNetV1Config(depth_multiplier=0.25)),
        (MobileNetV2ForImageClassification, MobileNetV2Config(depth_multiplier=0.35)),
        (MobileNetV2ForSemanticSegmentation, MobileNetV2Config(depth_multiplier=0.35)),
    ],
)
def test_padding_as_in_tensorflow_reads_the_wrapped_convolution(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):  # the library's own weights are so small that no signal comes through
            torch.nn.init.kaiming_normal_(part.weight)
    pixels = torch.randn(2, 3, 65, 64)
    with torch.no_grad():
        before = model(pixel_values=pixels).logits
    assert before.std() > 1e-3
    adapted: Any = add_adapter(model, None, ADAPTER).eval()
    logits = adapted(pixel_values=pixels).logits
    torch.testing.assert_close(logits.detach(), before)
    logits.square().mean().backward()
    trained = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    wrapped = {name for name in trained if "convolution" in name and "lora_B" in name}
    assert len(wrapped) > 10
    without = {name for name in wrapped if trained[name] is None or not trained[name].any()}
    assert all("mobilenet_v2.conv_1x1." in name for name in without)  # DeepLab does not use it
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(pixel_values=pixels).logits, before)
