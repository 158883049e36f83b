"""Configurations of transformers' detectors with few parameters, their folders, and made-up examples for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 10,
    "dropout": 0.0,
}
RT_DETR = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "num_queries": 10,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_denoising": 4,
    "num_feature_levels": 3,
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 24, 32],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 24, 32, 40],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False] * 4,
    "stage_kernel_size": [3, 3, 3, 3],
    "hidden_sizes": [16, 24, 32, 40],
    "out_features": ["stage2", "stage3", "stage4"],
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
}
YOLOS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": [64, 64],
    "patch_size": 16,
    "num_detection_tokens": 10,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
GROUPED = {
    "d_model": 16,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "num_queries": 10,
    "group_detr": 3,
    "dropout": 0.0,
}
LW_VIT = {
    "model_type": "lw_detr_vit",
    "pretrain_image_size": 64,
    "num_windows": 4,
    "out_features": ["stage1", "stage2"],
}
DINO = {"model_type": "rf_detr_dinov2", "patch_size": 16, "num_windows": 2, "out_features": ["stage1", "stage2"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "detr": {"backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]}, **DETR},
    "conditional_detr": {"backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]}, **DETR},
    "deformable_detr": {"backbone_config": {"model_type": "resnet", **RESNET}, "num_feature_levels": 4, **DETR},
    "yolos": YOLOS,
    "rt_detr": {"backbone_config": {"model_type": "rt_detr_resnet", **RESNET}, **RT_DETR},
    "rt_detr_v2": {"backbone_config": {"model_type": "rt_detr_resnet", **RESNET}, **RT_DETR},
    "d_fine": {"backbone_config": HGNET, **RT_DETR, "encoder_in_channels": [24, 32, 40]},
    "lw_detr": {"backbone_config": {**VIT, **LW_VIT}, "projector_scale_factors": [1.0], **GROUPED},
    "rf_detr": {"backbone_config": {**VIT, **DINO}, "intermediate_size": 16, **GROUPED},
}
CONFIGS = {kind: {"model_type": kind, **fields} for kind, fields in CONFIGS.items()}


def detector(folder: Path, kind: str, labels: Sequence[str], masks: bool = False, side: int = 128) -> Path:
    """The folder of such a model with random weights."""
    import torch

    from pipelines.models import detection
    from pipelines.models.source import Weights

    torch.manual_seed(0)
    model, family = detection.build(Weights(None, CONFIGS[kind], True), labels, side, masks)
    folder.mkdir(parents=True, exist_ok=True)
    family.save(model, folder)
    return folder


def examples(objects: tuple[int, ...] = (3, 0, 1, 2), seed: int = 0) -> list[dict[str, Any]]:
    """Images of noise, 100 x 80 pixels, with this many boxes of three classes; their masks are rectangles."""
    rng = np.random.default_rng(seed)
    found = []
    for number, count in enumerate(objects):
        corner, sides = rng.uniform(0, 50, (count, 2)), rng.uniform(10, 30, (count, 2))
        boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
        masks = np.zeros((count, 80, 100), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
            mask[top:bottom, left:right] = 1
        found.append(
            {
                "id": str(number),
                "row": number,
                "image": Image.fromarray(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)),
                "boxes": boxes,
                "classes": rng.integers(0, 3, count),
                "crowd": np.zeros(count, dtype=bool),
                "area": sides.prod(1).astype(np.float32),
                "masks": list(masks),
                "size": (80, 100),
            }
        )
    return found
