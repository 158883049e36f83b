"""WaveNet: read and check its configuration, load and save it, and draw recordings with it.

The network and its sampler are in wavenet_network, which model cards quote. Configuration and weights of a stranger are
checked here before anything is built.

    model = create({"model_type": "wavenet", "hidden_size": 64}, "model.config")
    model = load(folder)
    recordings = vocode(model, mels, seeds)
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.data.audio.mel import MelSettings
from pipelines.errors import ModelError
from pipelines.models.folders import named_classes, read_folder
from pipelines.models.wavenet_network import Sampler, WaveNet, condition_of
from pipelines.utils.formatting import short

KIND = "wavenet"  # model_type
CONDITIONS = ("none", "label", "speaker", "mel")
OUTPUTS = ("mulaw", "logistics")
RANGES = {  # of the arguments that are numbers
    "hidden_size": (1, 1024),
    "skip_size": (1, 4096),
    "num_layers": (1, 14),
    "stacks": (1, 16),
    "mixtures": (1, 64),
    "conditions": (0, 100_000),
    "condition_size": (1, 1024),
    "sampling_rate": (1000, 48_000),
}
FURTHEST = 2**16  # samples of a receptive field; it is also read before each training crop
MOST_WEIGHTS = 10**8  # the network of the paper's speech has a few million
KEPT = ("model_type", "architectures", "id2label")  # keys of config.json that are no arguments
HUB_KEYS = ("transformers_version", "torch_dtype", "dtype", "_name_or_path", "license", "tags", "pipeline_tag")


def arguments() -> dict[str, Any]:
    """The arguments of the network with their defaults: the keys of its configuration."""
    found = inspect.signature(WaveNet.__init__).parameters
    return {name: one.default for name, one in found.items() if name not in ("self", "kwargs")}


def read_arguments(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments that a configuration gives, checked. Raises ModelError naming `where`."""
    from pipelines.config.validation_errors import suggest

    usual = arguments()
    if unknown := next((key for key in config if key not in (*usual, *KEPT, *HUB_KEYS)), None):
        raise ModelError(
            f"{where}: {short(str(unknown))} is no setting of a WaveNet{suggest(str(unknown), usual)}; it has "
            f"{', '.join(usual)}"
        )
    found = {**usual, **{key: value for key, value in config.items() if key in usual}}
    for name, (least, most) in RANGES.items():
        value = found[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ModelError(f"{where}: {name} is {short(repr(value))}, and must be a number {least:,} to {most:,}")
    for name, known in (("output", OUTPUTS), ("condition", CONDITIONS)):
        if found[name] not in known:
            raise ModelError(f"{where}: {name} is {short(repr(found[name]))}, and must be one of {', '.join(known)}")
    if found["condition"] == "mel":
        mel = MelSettings.read(found["mel"], f"{where}: mel")
        if mel.sampling_rate != found["sampling_rate"]:
            raise ModelError(
                f"{where}: sampling_rate is {found['sampling_rate']}, that of its spectrograms {mel.sampling_rate}: "
                "they must be equal"
            )
        found["mel"] = mel.plain()
    elif found["mel"] is not None:
        raise ModelError(f"{where}: mel is for condition: mel, and the condition is {found['condition']}: leave it out")
    if found["condition"] in ("label", "speaker") and not found["conditions"]:
        raise ModelError(f"{where}: conditions is 0: it must be the number of each {found['condition']}")
    field = 1 + found["stacks"] * (2 ** found["num_layers"] - 1)
    if field > FURTHEST:
        raise ModelError(
            f"{where}: {found['stacks']} stacks of {found['num_layers']} layers look back {field:,} samples, and "
            f"{FURTHEST:,} are allowed: choose fewer layers"
        )
    return found


def create(config: Mapping[str, Any], where: str) -> WaveNet:
    """A network with random weights. Raises ModelError naming `where` for an impossible configuration."""
    given = read_arguments(config, where)
    with torch.device("meta"):
        weights = sum(one.numel() for one in WaveNet(**given).parameters())
    if weights > MOST_WEIGHTS:
        raise ModelError(
            f"{where}: this WaveNet has {weights:,} weights, and {MOST_WEIGHTS:,} are allowed: choose smaller sizes"
        )
    return WaveNet(**given)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a WaveNet: its arguments, and `names` of its classes or speakers. Reads no weights.

    Raises ModelError.
    """
    from pipelines.models.source import read_json_object

    config, where = read_json_object(folder / "config.json"), f"{folder.name}: config.json"
    if config is None:
        raise ModelError(f"{folder}: no config.json")
    if config.get("model_type") != KIND:
        raise ModelError(f"{where}: model_type is {short(repr(config.get('model_type')))}, and a {KIND} is needed")
    found = read_arguments(config, where)
    names = named_classes(config)
    wanted = found["conditions"] if found["condition"] in ("label", "speaker") else 0
    if len(names) != wanted:
        raise ModelError(f"{where}: id2label names {len(names)}, and the network has {wanted} of condition")
    return {**found, "names": names}


def load(folder: Path) -> tuple[WaveNet, list[str]]:
    """The network of a folder in eval mode, and the names of its classes or speakers. Raises ModelError."""
    config = read_config(folder)
    names = config.pop("names")
    model = create(config, f"{folder.name}: config.json")
    _, tensors = read_folder(folder)
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors or tensors[name].shape != value.shape:
            why = "has another shape" if name in tensors else "is missing"
            raise ModelError(f"{folder.name}: its weights do not fit its config.json: {name} {why}")
        if not torch.isfinite(tensors[name]).all():
            raise ModelError(f"{folder.name}: its weights hold no numbers (NaN or infinite) in {name}: train it again")
    if unknown := next((name for name in tensors if name not in own), None):
        raise ModelError(f"{folder.name}: its weights do not fit its config.json: no layer reads {short(unknown)}")
    model.load_state_dict(tensors)
    return model.eval(), names


def configuration(model: WaveNet, names: Sequence[str]) -> dict[str, Any]:
    """What config.json holds of a network: its arguments, and the names of its classes or speakers."""
    layers: Any = model.layers
    frames: Any = model.frames
    dilations = [layer.dilation for layer in layers]
    stacks = dilations.count(1)
    return {
        "model_type": KIND,
        "architectures": ["WaveNet"],
        "hidden_size": layers[0].skip.in_features,
        "skip_size": layers[0].skip.out_features,
        "num_layers": len(dilations) // stacks,
        "stacks": stacks,
        "output": model.output,
        "mixtures": model.mixtures,
        "condition": model.condition,
        "conditions": frames.num_embeddings if model.condition in ("label", "speaker") else 0,
        "condition_size": arguments()["condition_size"] if frames is None else layers[0].condition.in_features,
        "sampling_rate": model.sampling_rate,
        "mel": model.mel,
        **({"id2label": {str(number): name for number, name in enumerate(names)}} if names else {}),
    }


def save(model: WaveNet, names: Sequence[str], folder: Path) -> None:
    """Write config.json and model.safetensors, as PyTorchModelHubMixin reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    config = configuration(model, names)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # the mixin's own card


def mel_of(model: WaveNet) -> MelSettings:
    """The settings of the spectrograms that a vocoder takes. Raises ModelError for a network of another condition."""
    if model.mel is None:
        raise ModelError(f"this WaveNet has condition {model.condition}, and a vocoder needs condition: mel")
    return MelSettings(**model.mel)


def draw(
    model: WaveNet,
    conditions: Sequence[Any],
    lengths: Sequence[int],
    seeds: Sequence[int],
    temperatures: Sequence[float],
) -> list[np.ndarray]:
    """Recordings of `lengths` samples, float32. `conditions` are numbers, spectrograms [frames, bins], or None.

    Each depends on its own condition, seed and temperature only. Under FSDP every process must call this.
    """
    plain = _whole(model)
    device = next(plain.parameters()).device
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(lengths)
    with torch.autocast(device.type, enabled=False):
        own = [condition_of(plain, condition) for condition in conditions]
    sampler = Sampler(plain)
    for temperature in sorted(set(temperatures)):
        places = [place for place, one in enumerate(temperatures) if one == temperature]
        parts = sampler.draw(
            [own[place] for place in places],
            [lengths[place] for place in places],
            [seeds[place] for place in places],
            temperature,
        )
        for place, part in zip(places, parts, strict=True):
            found[place] = part
    return found


def growing(
    model: WaveNet, condition: Any, length: int, seed: int, temperature: float, every: int
) -> Iterator[np.ndarray]:
    """Yield the recording that `draw` makes of one request as it grows, after `every` samples and when it is complete:
    float32 each.
    """
    plain = _whole(model)
    with torch.autocast(next(plain.parameters()).device.type, enabled=False):
        own = condition_of(plain, condition)
    for (part,) in Sampler(plain).pieces([own], [length], [seed], temperature, every):
        yield np.ascontiguousarray(part)


def vocode(
    model: WaveNet, mels: Sequence[np.ndarray], seeds: Sequence[int], temperature: float = 1.0
) -> list[np.ndarray]:
    """Recordings of log-mel spectrograms [frames, bins]: float32 [(frames - 1) * hop_length] each."""
    settings = mel_of(model)
    for mel in mels:
        if mel.ndim != 2 or mel.shape[1] != settings.num_mel_bins or not len(mel):
            raise ModelError(f"a spectrogram of {mel.shape}: this vocoder takes [frames, {settings.num_mel_bins}]")
    lengths = [(len(mel) - 1) * settings.hop_length for mel in mels]
    return draw(model, mels, lengths, seeds, [temperature] * len(mels))


def _whole(model: WaveNet) -> WaveNet:
    """The network with all of its weights in this process: itself, or a copy where FSDP has sharded it."""
    from torch.distributed.tensor import DTensor

    sharded = {name: one for name, one in model.state_dict().items() if isinstance(one, DTensor)}
    if not sharded:
        return model
    given = {key: value for key, value in configuration(model, ()).items() if key not in KEPT}
    copy = WaveNet(**given)
    weights = {
        name: sharded[name].full_tensor() if name in sharded else one for name, one in model.state_dict().items()
    }
    copy.load_state_dict({name: one.detach().float().cpu() for name, one in weights.items()})
    return copy.eval()
