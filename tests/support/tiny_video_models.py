"""Configurations of video classifiers with few parameters, one of each kind, and model folders of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.models import video
from pipelines.models.source import Weights

LABELS = ["down", "left", "right", "up"]
SIDE, FRAMES = 32, 8
VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VIDEOMAE = {
    "model_type": "videomae",
    **VIT,
    "intermediate_size": 96,
    "image_size": SIDE,
    "patch_size": 8,
    "num_frames": FRAMES,
    "tubelet_size": 2,
}
TIMESFORMER = {
    "model_type": "timesformer",
    **VIT,
    "intermediate_size": 96,
    "image_size": SIDE,
    "patch_size": 8,
    "num_frames": FRAMES,
}
VIVIT = {
    "model_type": "vivit",
    **VIT,
    "intermediate_size": 96,
    "image_size": SIDE,
    "tubelet_size": [2, 8, 8],
    "num_frames": FRAMES,
}
VJEPA2 = {
    "model_type": "vjepa2",
    **VIT,
    "mlp_ratio": 2.0,
    "crop_size": SIDE,
    "patch_size": 8,
    "frames_per_clip": FRAMES,
    "num_pooler_layers": 1,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
R2PLUS1D = {
    "model_type": "torchvision",
    "architecture": "r2plus1d_18",
    "layers": [1, 1, 1, 1],
    "width": 8,
    "frames": FRAMES,
    "rate": 8.0,
    "resize_size": [SIDE, SIDE],
    "crop_size": [SIDE, SIDE],
}
KINDS: dict[str, dict[str, Any]] = {
    "videomae": VIDEOMAE,
    "timesformer": TIMESFORMER,
    "vivit": VIVIT,
    "vjepa2": VJEPA2,
    "r2plus1d": R2PLUS1D,
    "r3d": R2PLUS1D | {"architecture": "r3d_18"},
    "mc3": R2PLUS1D | {"architecture": "mc3_18"},
}


def tiny(kind: str, **options: Any) -> tuple[Any, Any]:
    """A model with random weights and its family; `options` are those of `video.build`."""
    torch.manual_seed(0)
    options = {"labels": LABELS, **options}
    return video.build(Weights(None, dict(KINDS[kind]), True), **options)


def folder(kind: str, path: Path, **options: Any) -> Path:
    """A saved model."""
    model, family = tiny(kind, **options)
    family.save(model, path)
    return path


def videomae(path: Path) -> Path:
    """A saved VideoMAE of these four classes, as the hub has them: its encoder was trained, and it has a head."""
    return folder("videomae", path)


def served(recipe: Any, hub: Any, path: Path) -> str | None:
    """Put a tiny model on the hub under the id of a shipped recipe.

    For a network that the recipe builds itself, the model is in a folder, which is returned.
    """
    ids = {"MCG-NJU/videomae-base": "videomae", "facebook/vjepa2-": "vjepa2", "facebook/timesformer-": "timesformer"}
    kind = next((kind for start, kind in ids.items() if str(recipe.model.id).startswith(start)), None)
    if kind is None:
        return str(folder("r2plus1d", path))
    hub.add_model(recipe.model.id, folder(kind, path))
    return None


def clip(seed: int = 0, frames: int = FRAMES, height: int = 40, width: int = 48) -> np.ndarray:
    """uint8 [T, H, W, 3] of random smooth colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width])


def batch(family: Any, count: int = 2) -> dict[str, Any]:
    """The model's input for some clips."""
    return {"pixel_values": torch.stack([family.pixels(clip(seed, family.frames)) for seed in range(count)])}


def answers_of(model: Any, family: Any, given: dict[str, Any]) -> torch.Tensor:
    """The logits of a batch, in eval mode."""
    with torch.no_grad():
        found: torch.Tensor = family.logits(model.eval(), given)
    return found
