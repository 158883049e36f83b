"""The weights of an encoder that the configuration of a new model names."""

from collections.abc import Mapping
from typing import Any

KEYS = {"smp": "encoder_weights", "torchvision": "backbone_weights"}  # of each kind of model


def place(config: Mapping[str, Any] | None) -> str | None:
    """The folder or hub id of these weights; None if the encoder is new, too."""
    found = (config or {}).get(KEYS.get(str((config or {}).get("model_type")), ""))
    return None if found is None else str(found)
