"""Configurations of models that find masks with queries, with few parameters, and folders of such models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SWIN = {
    "model_type": "swin",
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 2],
    "window_size": 4,
    "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
POINTS = {"train_num_points": 256}
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 8,
    "num_blocks": 2,
    "num_upscale_blocks": 1,
    "num_queries": 10,
    "num_register_tokens": 1,
    **POINTS,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "mask2former": {
        "backbone_config": SWIN,
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 16,
        "encoder_layers": 1,
        "decoder_layers": 4,
        "num_attention_heads": 2,
        "dim_feedforward": 16,
        "num_queries": 10,
        **POINTS,
    },
    "maskformer": {
        "backbone_config": SWIN,
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
        "decoder_config": {
            "model_type": "detr",
            "d_model": 32,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 16,
            "num_queries": 10,
            "dropout": 0.0,
        },
    },
    "eomt": VIT,
    "eomt_dinov3": {**VIT, "intermediate_size": 64},
}
CONFIGS = {kind: {"model_type": kind, **fields} for kind, fields in CONFIGS.items()}
# learns shapes of 128 to 160 pixels in a quarter of an hour of a core
LEARNS: dict[str, Any] = {
    "model_type": "mask2former",
    "backbone_config": {**RESNET, "embedding_size": 32, "hidden_sizes": [32, 64, 96, 128]},
    "feature_size": 64,
    "mask_feature_size": 64,
    "hidden_dim": 64,
    "encoder_feedforward_dim": 128,
    "encoder_layers": 1,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "dim_feedforward": 128,
    "num_queries": 12,
    "train_num_points": 1024,
}


def segmenter(folder: Path, kind: str, labels: Sequence[str], side: int = 64) -> Path:
    """The folder of an instance segmenter with random weights."""
    import torch

    from pipelines.models import detection
    from pipelines.models.source import Weights

    torch.manual_seed(0)
    model, family = detection.build(Weights(None, CONFIGS[kind], True), labels, side, masks=True)
    folder.mkdir(parents=True, exist_ok=True)
    family.save(model, folder)
    return folder
