"""U-Net and its kin of segmentation-models-pytorch, on any of its encoders or of timm's.

A folder holds what `save_pretrained` of the library writes: config.json and model.safetensors, which
`segmentation_models_pytorch.from_pretrained` reads. Names of classes and the like have keys that begin with `_`,
because the library passes all other keys to the network.

Keys of a configuration: `architecture` (unet, fpn, ...), `encoder` (resnet34, or the name of a timm model),
`encoder_weights` (a folder or hub repo of the timm model, read once), `image_size`, and the arguments of the library's
class (`decoder_channels`, `encoder_depth`, ...). In ids: smp/unet/resnet34.

The mean and the standard deviation of the pixels are those of the encoder's weights, which the `pretrained_cfg` of the
timm model states; ImageNet's if nothing states them.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models import batch_norm, folders, segmentation_dense, timm_weights
from pipelines.models import layers as model_layers
from pipelines.models.pretrained import first_line
from pipelines.models.segmentation_dense import Dense
from pipelines.utils.formatting import short

ARCHITECTURES = {  # our names, as in an id, and those of the library
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "upernet": "UPerNet",
    "segformer": "Segformer",
}
SIDE = 512
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, and of most encoders
OWN = ("model_type", "architecture", "encoder", "encoder_weights", "image_size", "id2label")
FIXED = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs", "self")
NAME = re.compile(r"[\w.-]+")  # no path and no hub id: timm would open or download it
TIMM = "tu-"  # begins the library's name of a timm encoder


class SMP(Dense):
    """The family of segmentation-models-pytorch (see pipelines.models.segmentation.Family)."""

    library = "segmentation-models-pytorch"

    def __init__(
        self,
        config: Mapping[str, Any],
        labels: Sequence[str],
        loss: str,
        weights: Mapping[str, float] | None,
        stride: int,
    ) -> None:
        super().__init__(labels, loss, weights, config.get("_image_size") or SIDE)
        self.config, self.stride = dict(config), stride
        self.mean, self.spread = config.get("_mean") or MEAN, config.get("_std") or SPREAD

    def outputs(self, model: nn.Module, pixels: Tensor, auxiliary: bool) -> tuple[Tensor, list[Tensor]]:
        found = model(pixels)
        return found[0] if isinstance(found, tuple) else found, []  # the second would be classes of the image

    def layers(self, model: nn.Module) -> list[nn.Module]:
        network: Any = model
        return [*model_layers.blocks(network.encoder), nn.ModuleList([network.decoder, network.segmentation_head])]

    def save(self, model: nn.Module, folder: Path) -> None:
        named = {str(index): label for index, label in enumerate(self.labels)}
        segmentation_dense.save(model, {**self.config, "_model_type": "smp", "_id2label": named}, folder)


def build(
    source: Any, labels: list[str], loss: str, weights: Mapping[str, float] | None, image_size: int | None
) -> tuple[nn.Module, SMP]:
    """A model for these classes. Raises ModelError or HubError."""
    _library()
    if source.folder is not None:
        config, tensors = folders.read_folder(source.folder)
        known = _classes(config)
        config = _checked(config)
    else:
        config, tensors, known = _own(source.config), {}, []
    place = config.pop("_encoder_weights", None)
    config["classes"] = len(labels)
    if image_size is not None:
        config["_image_size"] = image_size
    if source.folder is not None and not source.random:
        model = _network(config, len(known))
        segmentation_dense.fill(model, tensors, source.folder)
        segmentation_dense.take(model, lambda count: _network(config, count), known, labels)
        batch_norm.keep_folded(model)
    else:
        model = _network(config, len(labels))
        if place is not None:
            inner = model.encoder.model if str(config["encoder_name"]).startswith(TIMM) else model.encoder
            read = timm_weights.read_into(inner, place, "encoder_weights")
            config |= {f"_{key}": [float(one) for one in read[key]] for key in ("mean", "std") if read.get(key)}
            batch_norm.keep_folded(model)
    return segmentation_dense.laid_out(model), SMP(config, labels, loss, weights, int(model.encoder.output_stride))


def load(folder: Path, loss: str, weights: Mapping[str, float] | None) -> tuple[nn.Module, SMP]:
    """A saved model, in eval mode. Raises ModelError."""
    _library()
    config, tensors = folders.read_folder(folder)
    labels = _classes(config)
    config = _checked(config)
    model = _network(config, len(labels))
    segmentation_dense.fill(model, tensors, folder)
    return segmentation_dense.laid_out(model).eval(), SMP(
        config, labels, loss, weights, int(model.encoder.output_stride)
    )


def _library() -> Any:
    """The library. Raises ModelError if it is not installed."""
    try:
        import segmentation_models_pytorch
    except ImportError:
        raise ModelError(
            "U-Net and its kin need segmentation-models-pytorch: pip install 'graft-pipelines[segmentation]'"
        ) from None
    return segmentation_models_pytorch


def _network(config: Mapping[str, Any], classes: int) -> Any:
    """The network of a checked configuration, with random weights. Raises ModelError."""
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    arguments |= {"classes": classes, "encoder_weights": None, "activation": None, "aux_params": None}
    try:
        return getattr(_library(), config["_model_class"])(**arguments)
    except Exception as error:  # encoders raise many kinds for what they do not have
        name = f"{config['_model_class']} with the encoder {config['encoder_name']}"
        raise ModelError(f"{name} cannot be built: {first_line(error)}") from error


def _classes(config: Mapping[str, Any]) -> list[str]:
    """The classes of a folder; 0, 1, ... if it does not name them. Raises ModelError."""
    named = folders.named_classes({"id2label": config.get("_id2label")})
    count = config.get("classes", 1)
    if named and len(named) != count:
        raise ModelError(f"config.json: {len(named)} classes have names, but `classes` is {short(repr(count))}")
    if type(count) is not int or not 1 <= count <= 100_000:
        raise ModelError(f"config.json: classes: got {short(repr(count))}, must be a number from 1 on")
    return named or [str(index) for index in range(count)]


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    """A folder's configuration, from that of a recipe. Raises ModelError."""
    kind, encoder = given.get("architecture"), given.get("encoder", "resnet34")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        near = suggest(kind, list(ARCHITECTURES)) if isinstance(kind, str) else ""
        allowed = ", ".join(ARCHITECTURES)
        raise ModelError(f"architecture: got {short(repr(kind), 60)}{near}; segmentation-models-pytorch has {allowed}")
    side = given.get("image_size", SIDE)
    segmentation_dense.check_side(side)
    more = {key: value for key, value in given.items() if key not in OWN}
    config = {"_model_class": ARCHITECTURES[kind], "encoder_name": _encoder(encoder), "_image_size": side, **more}
    if given.get("encoder_weights") is not None:
        config["_encoder_weights"] = str(given["encoder_weights"])
    return _checked(config)


def _encoder(name: Any) -> str:
    """The library's name of an encoder. Raises ModelError."""
    import timm

    known = _library().encoders.encoders
    if isinstance(name, str) and NAME.fullmatch(name):
        if name in known:
            return name
        plain = name.removeprefix(TIMM)
        if timm.is_model(plain):
            return f"{TIMM}{plain}"
    near = suggest(str(name), list(known)) if isinstance(name, str) else ""
    raise ModelError(
        f"encoder: got {short(repr(name), 60)}{near}; must be an encoder of segmentation-models-pytorch, such as "
        "resnet34, or a model of timm, such as tf_efficientnet_lite0"
    )


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose arguments the library's class takes. Raises ModelError.

    A configuration of the hub comes from a stranger: arguments for timm could name files.
    """
    kind = given.get("_model_class")
    if not isinstance(kind, str) or kind not in ARCHITECTURES.values():
        allowed = ", ".join(ARCHITECTURES.values())
        raise ModelError(f"config.json: _model_class: got {short(repr(kind), 60)}; this task takes {allowed}")
    if given.get("in_channels", 3) != 3:
        raise ModelError(f"config.json: in_channels: got {short(repr(given['in_channels']))}, must be 3 (colours)")
    takes = [key for key in inspect.signature(getattr(_library(), kind).__init__).parameters if key not in FIXED]
    for key in given:
        if not key.startswith("_") and key not in takes and key not in FIXED:
            allowed = ", ".join((*OWN[1:5], *takes))
            raise ModelError(f"{kind} takes no {short(str(key))}{suggest(str(key), takes)}. It takes {allowed}")
    config = {key: given[key] for key in takes if key in given}
    config |= {key: value for key, value in given.items() if key.startswith("_") and key not in ("_id2label",)}
    config |= {"encoder_name": _encoder(given.get("encoder_name", "resnet34")), "encoder_weights": None}
    return config | {"in_channels": 3, "classes": given.get("classes", 1), "activation": None, "aux_params": None}
