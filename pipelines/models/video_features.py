"""Networks that read features of videos, as YouTube-8M gives them away: of each frame, or the mean over a video.

`video-features/logistic`, `moe`, `lstm`, `gru` and `transformer`. A folder holds config.json (`"model_type":
"video_features"`, `"architecture": "moe"`, `features`, `id2label`, ...) and model.safetensors. Keys of a configuration:

    features    names and sizes of the features that are read, in their order: {"rgb": 1024, "audio": 128} (usual), or
                one of them
    normalize   l2 (usual: the features of each frame get the length 1, as in google/youtube-8m's train.py) or none
    mixtures    experts of each class (usual 2); 0 is a logistic head. Not for `logistic`
    hidden      size of the state (lstm, gru: usual 1024) or of the blocks (transformer: usual 512)
    layers      number of layers (usual 2)
    heads       heads of attention (transformer; usual 8)
    dropout     between the layers (usual 0)

`logistic` and `moe` read the mean over the frames of a video; `lstm` and `gru` the last state, `transformer` the mean
of the last block. The mixture of experts is the MoeModel of google/youtube-8m (Abu-El-Haija et al. 2016,
arXiv:1609.08675): for each class a gate chooses among its experts and one more that always answers no. No answer
depends on the padding of a batch.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models import folders
from pipelines.models.segmentation_dense import about, rows, save
from pipelines.utils.formatting import short

SIZES = {"rgb": 1024, "audio": 128}  # of YouTube-8M
RECURRENT = {"hidden": 1024, "layers": 2, "dropout": 0.0, "mixtures": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {  # with the usual values of their keys
    "logistic": {},
    "moe": {"mixtures": 2},
    "lstm": RECURRENT,
    "gru": RECURRENT,
    "transformer": {"hidden": 512, "layers": 2, "heads": 8, "dropout": 0.0, "mixtures": 2},
}
BOUNDS = {"mixtures": (0, 1000), "hidden": (1, 4096), "layers": (1, 24), "heads": (1, 64)}
MOST_WEIGHTS = 2 * 10**9
SHARED = ("features", "normalize")
PROBLEMS = ("single_label_classification", "multi_label_classification")


# ---- networks ----


class Exact(nn.Linear):
    """A layer of the head. In mixed precision, too, it keeps and multiplies its weights in float32.

    In bf16 many of thousands of classes would get equal scores. (models.layers.keep_in_half leaves a subclass as it
    is.)
    """


class Mixture(nn.Module):
    """For each class the mixture of `mixtures` logistic experts, and one that always answers no.

    It gives the logit of the mixed probability, computed from logarithms: it is finite where the probability is 0 or 1
    in float32.
    """

    def __init__(self, inputs: int, classes: int, mixtures: int) -> None:
        super().__init__()
        self.mixtures = mixtures
        self.gates = Exact(inputs, classes * (mixtures + 1), bias=False)
        self.experts = Exact(inputs, classes * mixtures)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates(x).unflatten(-1, (-1, self.mixtures + 1)).log_softmax(-1)
        experts = self.experts(x).unflatten(-1, (-1, self.mixtures))
        yes = (gates[..., :-1] + f.logsigmoid(experts)).logsumexp(-1)
        no = torch.cat([gates[..., :-1] + f.logsigmoid(-experts), gates[..., -1:]], -1).logsumexp(-1)
        logits: Tensor = yes - no
        return logits


class Block(nn.Module):
    """A block of a Transformer, with norms before its parts."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = f.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        x = x + self._dropped(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self._dropped(self.down(f.gelu(self.up(self.norm2(x)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return f.dropout(x, self.dropout, self.training)


def positions(frames: int, hidden: int, like: Tensor) -> Tensor:
    """Sines and cosines of the number of each frame (Vaswani et al. 2017): [frames, hidden]."""
    place = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None]
    speed = torch.exp(torch.arange(0, hidden, 2, device=like.device) * (-math.log(10_000) / hidden))
    return torch.stack([(place * speed).sin(), (place * speed).cos()], -1).flatten(1)[:, :hidden]


class Network(nn.Module):
    """Features [n, frames, inputs] and the number of frames of each video [n] -> logits [n, classes] in float32."""

    def __init__(self, config: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        kind, size = config["architecture"], sum(config["features"].values())
        self.kind, self.normalize = kind, config["normalize"] == "l2"
        if kind in ("lstm", "gru"):
            recurrent = nn.LSTM if kind == "lstm" else nn.GRU
            dropout = config["dropout"] if config["layers"] > 1 else 0.0
            self.trunk = recurrent(size, config["hidden"], config["layers"], batch_first=True, dropout=dropout)
            size = config["hidden"]
            if kind == "lstm":  # a new LSTM remembers, as that of google/youtube-8m (forget_bias=1.0)
                for layer in range(config["layers"]):
                    bias = self.trunk.get_parameter(f"bias_ih_l{layer}")
                    nn.init.ones_(bias.data[size : 2 * size])
        elif kind == "transformer":
            hidden, heads, dropout = config["hidden"], config["heads"], config["dropout"]
            self.project = nn.Linear(size, hidden)
            self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(config["layers"]))
            self.norm = nn.LayerNorm(hidden)
            size = hidden
        mixtures = config.get("mixtures", 0)
        head: Mixture | Exact = Mixture(size, classes, mixtures) if mixtures else Exact(size, classes)
        bias = head.experts.bias if isinstance(head, Mixture) else head.bias
        # A new head begins with probabilities of 1 / classes, but not below 0.02. With 0.5, the first epochs would only
        # teach that each of thousands of classes is rare; with less, they would only raise the frequent ones.
        nn.init.constant_(bias.data, -min(4.0, math.log(classes)))
        self.head = head

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        there = torch.arange(features.shape[1], device=features.device) < frames[:, None]
        x = features.float().masked_fill(~there[..., None], 0.0)
        if self.normalize:
            x = f.normalize(x, dim=-1, eps=1e-6)
        x = self._read(x, there, frames)
        with torch.autocast(x.device.type, enabled=False):  # see Exact
            logits: Tensor = self.head(x.float())
        return logits

    def _read(self, x: Tensor, there: Tensor, frames: Tensor) -> Tensor:
        """The numbers that the head reads: [n, size]."""
        if self.kind in ("lstm", "gru"):
            # A state knows only the frames before it: that of the last frame does not see the padding.
            states, _ = self.trunk(x)
            last: Tensor = states[torch.arange(len(x), device=x.device), frames - 1]
            return last
        if self.kind == "transformer":
            x = self.project(x)
            x = x + positions(x.shape[1], x.shape[2], x).to(x.dtype)
            for block in self.blocks:
                x = block(x, there)
            x = self.norm(x)
        # In float32, because up to hundreds of frames are added.
        return x.float().masked_fill(~there[..., None], 0.0).sum(1) / frames[:, None]


# ---- the family ----


class VideoFeatures:
    """How these networks read videos (see pipelines.models.video.Family)."""

    library = "pytorch"
    reads = "features"
    frames = 0
    rate = 0.0
    size = (0, 0)

    def __init__(
        self,
        config: Mapping[str, Any],
        labels: Sequence[str],
        multi_label: bool,
        of_data: Mapping[str, int] | None = None,
    ) -> None:
        self.config, self.labels, self.multi_label = dict(config), list(labels), multi_label
        self.sizes: dict[str, int] = dict(config["features"])
        self.of_data = dict(of_data or SIZES)  # the features of the data, of which a network may read a part

    def _own(self, features: Tensor) -> Tensor:
        """The features that the network reads, of all those of the data."""
        known = self.sizes.items() <= self.of_data.items()
        if not known or features.shape[-1] != sum(self.of_data.values()) or list(self.sizes) == list(self.of_data):
            return features
        parts = dict(zip(self.of_data, features.split(list(self.of_data.values()), -1), strict=True))
        return torch.cat([parts[name] for name in self.sizes], -1)

    def pixels(self, frames: Any) -> Tensor:
        raise ModelError("this model reads features of videos, not frames: set options.input=features")

    def scaled(self, frames: Any) -> Tensor:
        return self.pixels(frames)

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """[n, classes] float32. Raises ModelError if the features are others than the model reads."""
        features, wanted = self._own(batch["features"]), sum(self.sizes.values())
        if features.shape[-1] != wanted:
            named = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
            raise ModelError(
                f"the data have {features.shape[-1]:,} numbers for each frame, and the model reads {wanted:,} "
                f"({named}): model.config.features states what a new model reads"
            )
        logits: Tensor = model(features, batch["frames"])
        return logits

    def layers(self, model: nn.Module) -> list[nn.Module]:
        network: Any = model
        if network.kind == "transformer":
            blocks = list(network.blocks)
            return [network.project, *blocks[:-1], nn.ModuleList([blocks[-1], network.norm]), network.head]
        return [network.trunk if hasattr(network, "trunk") else nn.ModuleList(), network.head]

    def save(self, model: nn.Module, folder: Path) -> None:
        named = {str(number): label for number, label in enumerate(self.labels)}
        problem = PROBLEMS[self.multi_label]
        config = {**self.config, "model_type": "video_features", "problem_type": problem, "id2label": named}
        save(model, config, folder)


def build(
    source: Any, labels: Sequence[str], multi_label: bool, sizes: Mapping[str, int] | None = None
) -> tuple[nn.Module, VideoFeatures]:
    """A network for these classes; `sizes` are those of the data's features, in their order. Raises ModelError.

    The head of a saved network keeps the rows of classes that it knows by name; other rows start from random weights.
    """
    given, tensors = dict(source.config or {}), None
    if source.folder is not None:
        given, tensors = folders.read_folder(source.folder)
    config = _checked(given, source.folder is None, sizes)
    labels = list(labels)
    if tensors is None or source.random:
        _check_size(config, len(labels))
        return Network(config, len(labels)), VideoFeatures(config, labels, multi_label, sizes)
    known = folders.named_classes(given)
    model: Any = _filled(config, tensors, len(known), source.folder)
    pairs = rows(known, labels)
    model.about_head = about(known, labels, pairs)
    if known != labels:
        _check_size(config, len(labels))
        old, model.head = model.head, Network(config, len(labels)).head
        with torch.no_grad():
            for name, new in model.head.named_parameters():  # a class has as many rows as experts or gates
                before, after = (
                    one.unflatten(0, (n, -1)) for one, n in ((old.get_parameter(name), len(known)), (new, len(labels)))
                )
                for place, row in pairs:
                    after[row] = before[place]
    return model, VideoFeatures(config, labels, multi_label, sizes)


def load(folder: Path) -> tuple[nn.Module, VideoFeatures]:
    """A saved network, in eval mode. Raises ModelError."""
    given, tensors = folders.read_folder(folder)
    labels, problem = folders.named_classes(given), given.get("problem_type")
    if problem not in PROBLEMS:
        raise ModelError(f"config.json: problem_type: got {short(repr(problem))}; it is one of {', '.join(PROBLEMS)}")
    config = _checked(given, False, None)
    model = _filled(config, tensors, len(labels), folder)
    return model.eval(), VideoFeatures(config, labels, problem == PROBLEMS[1])


def _filled(config: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, folder: Path) -> Network:
    _check_size(config, classes)
    with torch.device("meta"):  # a configuration may claim more than the memory holds
        shapes = {name: tensor.shape for name, tensor in Network(config, classes).state_dict().items()}
    wrong = [name for name, shape in shapes.items() if name not in tensors or tensors[name].shape != shape]
    wrong += [name for name in tensors if name not in shapes]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(f"{folder}: its weights are not those of its config.json: {short(wrong[0], 80)}{more}")
    model = Network(config, classes)
    model.load_state_dict(dict(tensors))
    return model


def _check_size(config: Mapping[str, Any], classes: int) -> None:
    """Raise ModelError for a network without a class, or one that is too large."""
    if not classes:
        raise ModelError("config.json: id2label names no class")
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Network(config, classes).parameters())
    if count > MOST_WEIGHTS:
        raise ModelError(
            f"model: {config['architecture']} has {count:,} weights for {classes:,} classes, and {MOST_WEIGHTS:,} are "
            "allowed: choose fewer mixtures, or a smaller hidden size"
        )


# ---- configurations ----


def _checked(given: Mapping[str, Any], own: bool, sizes: Mapping[str, int] | None) -> dict[str, Any]:
    """A complete configuration without classes. One's `own`, of a recipe, has no unknown key. Raises ModelError."""
    config = {key: value for key, value in given.items() if value is not None}
    kind = config.get("architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        near = suggest(kind, ARCHITECTURES) if isinstance(kind, str) else ""
        known = f"{' Networks' if near else '; networks'} for features are {', '.join(ARCHITECTURES)}"
        raise ModelError(f"architecture: got {short(repr(kind), 60)}{near}{known}")
    usual = ARCHITECTURES[kind]
    takes = [*usual, *SHARED]
    unknown = [key for key in config if key not in (*takes, "model_type", "architecture", "id2label", "problem_type")]
    if own and unknown:
        name = short(str(unknown[0]))
        near = suggest(name, takes) or "."
        raise ModelError(f"model.config: {kind} takes no {name}{near} It takes {', '.join(takes)}")
    made: dict[str, Any] = {"architecture": kind, "features": _sizes(config.get("features"), sizes)}
    made["normalize"] = config.get("normalize", "l2")
    if made["normalize"] not in ("l2", "none"):
        raise ModelError(f"normalize: got {short(repr(made['normalize']))}, must be l2 or none")
    for key, value in usual.items():
        made[key] = config.get(key, value)
        if key == "dropout":
            if type(made[key]) not in (int, float) or not 0 <= made[key] < 1:
                raise ModelError(f"dropout: got {short(repr(made[key]))}, must be a number from 0 and below 1")
            if own and made[key] and kind in ("lstm", "gru") and config.get("layers", usual["layers"]) == 1:
                raise ModelError(f"dropout: it is between the layers of {kind}, and layers: 1 has none: leave it out")
            continue
        low, high = BOUNDS[key]
        low = 1 if kind == "moe" else low
        if type(made[key]) is not int or not low <= made[key] <= high:
            raise ModelError(f"{key}: got {short(repr(made[key]))}, must be a whole number from {low} to {high:,}")
    if kind == "transformer" and made["hidden"] % made["heads"]:
        raise ModelError(f"hidden: got {made['hidden']}, must be divisible by the {made['heads']} heads")
    return made


def _sizes(stated: Any, of_data: Mapping[str, int] | None) -> dict[str, int]:
    """The names and sizes of the features. Raises ModelError."""
    if stated is not None:
        right = isinstance(stated, dict) and 1 <= len(stated) <= 16
        if not right or any(
            # a card shows the names in its code
            not re.fullmatch(r"\w{1,40}", str(name), re.ASCII) or type(size) is not int or not 1 <= size <= 65_536
            for name, size in stated.items()
        ):
            raise ModelError(
                f"features: got {short(repr(stated), 80)}, must be names with sizes from 1 to 65,536, as in "
                f"{json.dumps(SIZES)}"
            )
        if of_data is not None and not stated.items() <= of_data.items():
            raise ModelError(
                f"the model reads the features {short(json.dumps(stated), 100)}, "
                f"the data have {short(json.dumps(dict(of_data)), 100)}"
            )
        return {str(name): size for name, size in stated.items()}
    return dict(of_data or SIZES)
