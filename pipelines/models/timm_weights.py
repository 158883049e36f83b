"""Weights of a timm model for the encoder of another model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from pipelines.errors import ModelError
from pipelines.models import source as sources
from pipelines.models.folders import read_folder

WRAPPED = "timm_model."  # begins the names of a timm model that transformers saved


def read_into(module: nn.Module, place: str, key: str) -> dict[str, Any]:
    """Read an encoder's weights from a timm folder or hub id, which the configuration's `key` names.

    Weights that the encoder lacks (of the classifier) are left out. Returns the `pretrained_cfg` of the timm model.
    Raises ModelError or HubError.
    """
    folder = sources.local_model(place)
    if folder is None:
        from pipelines.hub.download import download

        folder = download(place, None)
    config, weights = read_folder(folder)
    weights = {name.removeprefix(WRAPPED): tensor for name, tensor in weights.items()}
    own = module.state_dict()
    # features_only flattens the names of some models: blocks.0 is blocks_0 there or stays as it is
    given = {name if name in own else name.replace(".", "_", 1): tensor for name, tensor in weights.items()}
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    if missing or any(given[name].shape != own[name].shape for name in own if name in given):
        raise ModelError(f"{key}: {place} is not of this backbone (timm): {(missing or ['a shape'])[0]}")
    module.load_state_dict({name: given[name] for name in own if name in given}, strict=False)
    found = config.get("pretrained_cfg")
    return dict(found) if isinstance(found, Mapping) else {}
