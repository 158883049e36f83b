"""What a model folder says of its own: the kind of model, its classes, and weights that transformers does not read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.models.source import read_json_object

if TYPE_CHECKING:
    from torch import Tensor


def stated(folder: Path | None, config: Any) -> dict[str, Any]:
    """The fields of a folder's config.json, or of a configuration. Raises ModelError for a damaged file."""
    if folder is not None and (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_text())
        except (ValueError, RecursionError):
            raise ModelError(f"{folder / 'config.json'}: not JSON") from None
    if isinstance(config, Mapping):
        return dict(config)
    return {"model_type": kind} if (kind := getattr(config, "model_type", None)) is not None else {}


def kind_of(folder: Path | None, config: Any, what: str) -> str:
    """The `model_type` of a configuration; `what` is a word for such a model. Raises ModelError if there is none."""
    kind = stated(folder, config).get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"{folder}: its config.json names no model_type, so the kind of {what} is unknown")
    return kind


def named_classes(config: Mapping[str, Any]) -> list[str]:
    """The classes of a configuration in their order; none if it names none. Raises ModelError."""
    named = config.get("id2label") or {}
    if not isinstance(named, dict) or sorted(named, key=str) != sorted(map(str, range(len(named)))):
        raise ModelError("config.json: id2label must name the classes 0, 1, 2, ...")
    return [str(named[str(index)]) for index in range(len(named))]


def read_folder(folder: Path) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """The configuration and the weights of a folder that is not of transformers. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json_object(folder / "config.json") or {}
    try:
        return config, load_file(folder / "model.safetensors")
    except FileNotFoundError:
        raise ModelError(f"{folder}: no model.safetensors; a .pth is not read: save its tensors as one") from None
    except SafetensorError as error:
        raise ModelError(f"{folder / 'model.safetensors'}: damaged: {error}") from None
