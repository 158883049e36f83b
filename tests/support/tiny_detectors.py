"""Configurations of transformers' detectors with few parameters, and made-up examples for them."""

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
}
CONFIGS: dict[str, dict[str, Any]] = {
    "detr": {"backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]}, **DETR},
    "conditional_detr": {"backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]}, **DETR},
    "deformable_detr": {"backbone_config": {"model_type": "resnet", **RESNET}, "num_feature_levels": 4, **DETR},
    "yolos": YOLOS,
    "rt_detr": {"backbone_config": {"model_type": "rt_detr_resnet", **RESNET}, **RT_DETR},
    "rt_detr_v2": {"backbone_config": {"model_type": "rt_detr_resnet", **RESNET}, **RT_DETR},
    "d_fine": {"backbone_config": HGNET, **RT_DETR, "encoder_in_channels": [24, 32, 40]},
}
CONFIGS = {kind: {"model_type": kind, **fields} for kind, fields in CONFIGS.items()}


def examples(objects: tuple[int, ...] = (3, 0, 1, 2), seed: int = 0) -> list[dict[str, Any]]:
    """Images of noise, 100 x 80 pixels, with this many boxes of three classes."""
    rng = np.random.default_rng(seed)
    found = []
    for number, count in enumerate(objects):
        corner, sides = rng.uniform(0, 50, (count, 2)), rng.uniform(10, 30, (count, 2))
        found.append(
            {
                "id": str(number),
                "row": number,
                "image": Image.fromarray(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)),
                "boxes": np.concatenate([corner, corner + sides], 1).astype(np.float32),
                "classes": rng.integers(0, 3, count),
                "crowd": np.zeros(count, dtype=bool),
                "area": sides.prod(1).astype(np.float32),
                "masks": None,
                "size": (80, 100),
            }
        )
    return found
