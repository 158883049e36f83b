"""The family of our own small text-to-speech model, whose network is in pipelines.models.flow_network.

    model, family = build(source, texts, speakers, options)     # for the characters of these texts
    model, family = load(folder, options)

A recipe chooses it as `model: {config: {model_type: flow_speech}}`. A folder holds config.json and model.safetensors,
as huggingface_hub's PyTorchModelHubMixin reads them, and the card shows the code of the network.
"""

import inspect
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config.validation_errors import suggest
from pipelines.data.audio.mel import MelSettings
from pipelines.errors import DataError, ModelError
from pipelines.models import folders
from pipelines.models.flow_network import FlowSpeechForTextToSpeech
from pipelines.utils.formatting import short
from pipelines.utils.settings import Setting

KIND = "flow_speech"
STRATA = 4  # times at which a held-out row is scored
MOST_CHARACTERS = 1000  # of one text; a longer one is spoken in sentences
MOST_WEIGHTS = 10**8  # the default has 1.6 million
MOST_SYMBOLS, MOST_SPEAKERS, MOST_NAME = 10_000, 10_000, 200
OF_DATA = ("symbols", "speakers")  # what a recipe leaves to the data
BOUNDS: dict[str, tuple[float, float]] = {
    "hidden_size": (8, 1024),
    "encoder_layers": (1, 24),
    "duration_layers": (1, 12),
    "decoder_size": (8, 1024),
    "decoder_layers": (1, 48),
    "dropout": (0.0, 0.9),
    "mel_mean": (-30.0, 30.0),
    "mel_deviation": (0.01, 30.0),
}

Batch = dict[str, Any]


class Family:
    """How this model takes texts and speakers (see pipelines.models.speech_synthesis.Family)."""

    library = "pytorch"
    tokens_have_frames = True
    parts: Mapping[str, str] = dict.fromkeys(("loss", "duration", "prior", "flow"), "min")
    settings: Mapping[str, Setting] = {
        "speed": Setting(float, 0.25, 4),
        "temperature": Setting(float, 0, 2),
        "steps": Setting(int, 1, 200),
    }
    defaults: Mapping[str, float] = {"speed": 1.0, "temperature": 0.7, "steps": 10}

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.mel = MelSettings.read(config["mel"], "config.json: mel")
        self.speakers: list[str] = list(config["speakers"])
        self.numbers = {symbol: number for number, symbol in enumerate(config["symbols"], 1)}

    def tokens(self, text: str) -> list[int]:
        """The characters of a text with token 0 before, between and after them. Signs that no training text has are
        left out. Raises DataError for letters and digits that no training text has, and for a text that is too long.
        """
        found = characters(text)
        if not any(one.isalnum() for one in found):
            raise DataError(f"{short(repr(text))}: no letter in it can be spoken")
        strange = sorted({one for one in found if one not in self.numbers and one.isalnum()})
        if strange:
            known = "".join(one for one in self.numbers if one.isalnum())
            raise DataError(
                f"{short(repr(text))}: this model has not learned to speak {short(' '.join(strange), 60)}: it knows "
                f"{short(known, 120)}"
            )
        ids = [self.numbers[one] for one in found if one in self.numbers]
        if len(ids) > MOST_CHARACTERS:
            raise DataError(
                f"{short(repr(text), 60)}: {len(ids):,} characters, and {MOST_CHARACTERS:,} are spoken at a time: "
                "split it into sentences"
            )
        return [0, *(one for id_ in ids for one in (id_, 0))]

    def frames(self, frames: int) -> int:
        return frames

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        return {"time": rng.random(), "noise_seed": rng.getrandbits(62)}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        tokens = [torch.tensor(example["tokens"], dtype=torch.long) for example in examples]
        mels = [torch.as_tensor(example["mel"], dtype=torch.float32) for example in examples]
        return {
            "id": [example["id"] for example in examples],
            "row": [example["row"] for example in examples],
            "tokens": nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "lengths": torch.tensor([len(one) for one in tokens]),
            "mels": nn.utils.rnn.pad_sequence(mels, batch_first=True),
            "frames": torch.tensor([len(one) for one in mels]),
            "voices": torch.tensor([int(example["speaker"]) for example in examples]),
        }

    def counts(self, batch: Batch) -> dict[str, float]:
        values = float(batch["frames"].sum()) * self.mel.num_mel_bins
        return {"tokens": float(batch["lengths"].sum()), "values": values}

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        """The sum of the losses of durations (per token), mean frames and velocities (per frame and bin)."""
        times = torch.tensor([batch["time"]], dtype=torch.float32)
        duration, prior, flow = self._losses(model, batch, times)
        found: Tensor = duration.sum() / counts["tokens"] + (prior.sum() + flow.sum()) / counts["values"]
        return found

    def scores(self, model: nn.Module, batch: Batch) -> list[dict[str, tuple[float, float]]]:
        """The velocity is scored at STRATA times, with the same offset in each stratum."""
        start = torch.tensor(batch["time"], dtype=torch.float32)
        times = (start + torch.arange(STRATA)[:, None]) / STRATA
        losses = self._losses(model, batch, times)
        duration, prior, flow = (one.double().cpu().tolist() for one in (*losses[:2], losses[2].mean(0)))
        rows = []
        for n, (tokens, frames) in enumerate(zip(batch["lengths"].tolist(), batch["frames"].tolist(), strict=True)):
            values = frames * self.mel.num_mel_bins
            mean = duration[n] / tokens + (prior[n] + flow[n]) / values
            rows.append(
                {
                    "loss": (mean * frames, frames),
                    "duration": (duration[n], tokens),
                    "prior": (prior[n], values),
                    "flow": (flow[n], values),
                }
            )
        return rows

    def _losses(self, model: nn.Module, batch: Batch, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of each row, with noise of its own seed, which does not depend on the padding."""
        mels, frames = batch["mels"], batch["frames"].tolist()
        noise = torch.zeros(len(times), *mels.shape)
        for n, seed in enumerate(batch["noise_seed"]):
            generator = torch.Generator().manual_seed(int(seed))
            noise[:, n, : frames[n]] = torch.randn(len(times), frames[n], mels.shape[2], generator=generator)
        times, noise = times.to(mels.device), noise.to(mels.device)
        given = (batch[name] for name in ("tokens", "lengths", "mels", "frames", "voices"))
        found: tuple[Tensor, Tensor, Tensor] = model(*given, times, noise)
        return found

    def speak(self, model: nn.Module, requests: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """One after the other: so a result has the same bits whatever is beside it."""
        network: Any = model
        made = []
        for request in requests:
            settings = {**self.defaults, **{key: request[key] for key in self.settings if request.get(key) is not None}}
            mel = network.speak(
                list(request["tokens"]),
                int(request.get("speaker") or 0),
                int(request.get("seed") or 0),
                speed=float(settings["speed"]),
                temperature=float(settings["temperature"]),
                steps=int(settings["steps"]),
            )
            made.append(mel.cpu().numpy())
        return made

    def layers(self, model: nn.Module) -> list[nn.Module]:
        own: Any = model
        return [
            nn.ModuleList([own.embedding, own.voices]),
            *own.encoder,
            nn.ModuleList([own.norm, own.mean]),
            *own.durations,
            nn.ModuleList([own.duration, own.time, own.decoder.stem]),
            *own.decoder.blocks,
            nn.ModuleList([own.decoder.norm, own.decoder.out]),
        ]

    def save(self, model: nn.Module, folder: Path) -> None:
        network: Any = model
        config = {**self.config, "model_type": KIND, "architectures": [FlowSpeechForTextToSpeech.__name__]}
        network.save_pretrained(folder, config=config)


def characters(text: str) -> str:
    """The characters of a text in small letters, with one blank between words."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def build(source: Any, texts: Sequence[str], speakers: Sequence[str], options: Any) -> tuple[nn.Module, Family]:
    """A model for the characters of these texts and for these speakers. Raises ModelError.

    A saved one keeps what it knows: the rows of its characters, and of the speakers that it knows by name. A new
    speaker starts as the mean of the known ones.
    """
    given, tensors = dict(source.config or {}), None
    if source.folder is not None:
        given, tensors = folders.read_folder(source.folder)
    own = source.folder is None  # a recipe's
    config = _checked(given, "model.config" if own else f"{source.folder.name}: config.json", own)
    known = dict(config) if tensors is not None else {}
    config["symbols"] = config["symbols"] + _new_symbols(texts, config)
    config["speakers"] = list(speakers)
    config = _checked(config, "the data")
    if tensors is None or source.random:
        return _network(config, "model.config"), Family(config)
    old = _filled(known, tensors, source.folder.name)
    model = _network(config, source.folder.name)
    tables = ("embedding.weight", "voices.weight")
    model.load_state_dict({name: one for name, one in old.state_dict().items() if name not in tables}, strict=False)
    with torch.no_grad():
        model.embedding.weight[: len(old.embedding.weight)] = old.embedding.weight
        model.voices.weight[:] = old.voices.weight.mean(0)
        for number, name in enumerate(config["speakers"]):
            if name in known["speakers"]:
                model.voices.weight[number] = old.voices.weight[known["speakers"].index(name)]
    return model, Family(config)


def load(folder: Path, options: Any) -> tuple[nn.Module, Family]:
    """A saved model, in eval mode. Raises ModelError."""
    given, tensors = folders.read_folder(folder)
    config = _checked(given, f"{folder.name}: config.json")
    if not config["symbols"]:
        raise ModelError(f"{folder.name}: config.json: symbols: it names no character that the model can speak")
    return _filled(config, tensors, folder.name).eval(), Family(config)


def _new_symbols(texts: Sequence[str], config: Mapping[str, Any]) -> str:
    """The characters of the texts that the configuration does not have yet, in order."""
    found = {one for text in set(texts) for one in characters(text)}
    if not found and not config["symbols"]:
        raise ModelError("no text of the training data can be spoken, so the model has no characters to learn")
    return "".join(sorted(found - set(config["symbols"])))


def _network(config: Mapping[str, Any], where: str) -> FlowSpeechForTextToSpeech:
    """Random weights. Raises ModelError for a network that is too large for its task."""
    with torch.device("meta"):  # a configuration may ask for more than the memory holds
        weights = sum(parameter.numel() for parameter in FlowSpeechForTextToSpeech(**config).parameters())
    if weights > MOST_WEIGHTS:
        raise ModelError(
            f"{where}: this model has {weights:,} weights, and {MOST_WEIGHTS:,} are allowed: choose smaller sizes"
        )
    return FlowSpeechForTextToSpeech(**config)


def _filled(config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> FlowSpeechForTextToSpeech:
    model = _network(config, f"{name}: config.json")
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    wrong = [key for key, shape in shapes.items() if key not in tensors or tensors[key].shape != shape]
    wrong += [key for key in tensors if key not in shapes]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(f"{name}: its weights are not those of its config.json: {short(wrong[0], 80)}{more}")
    if broken := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ModelError(f"{name}: model.safetensors: {broken[0]} has values that are not finite")
    model.load_state_dict(dict(tensors))
    return model


# ---- configurations ----


def _checked(given: Mapping[str, Any], where: str, own: bool = False) -> dict[str, Any]:
    """The arguments of the network of a configuration, complete. One's `own`, of a recipe, has nothing that comes from
    the data. Raises ModelError.
    """
    usual = {
        name: one.default for name, one in inspect.signature(FlowSpeechForTextToSpeech.__init__).parameters.items()
    }
    del usual["self"]
    usual |= {"symbols": "", "speakers": [], "mel": MelSettings().plain()}
    known = (*usual, "model_type", "architectures")
    for key in given:
        if own and key in OF_DATA:
            raise ModelError(f"{where}: {key} comes from the data: leave it out")
        if key not in known:
            takes = [name for name in usual if name not in OF_DATA]
            near = suggest(str(key), takes) or f". It takes {', '.join(takes)}"
            raise ModelError(f"{where}: {short(str(key), 60)} is no key of {KIND}{near}")
    config = {key: given.get(key, value) for key, value in usual.items()}
    for key, (least, most) in BOUNDS.items():
        value, whole = config[key], isinstance(usual[key], int)
        number = type(value) is int or (type(value) is float and math.isfinite(value) and not whole)
        if not number or not least <= value <= most:
            what = "a whole number" if whole else "a number"
            raise ModelError(f"{where}: {key}: got {short(repr(value), 60)}, must be {what} from {least:,} to {most:,}")
    symbols, speakers = config["symbols"], config["speakers"]
    # A lone half of a surrogate pair is no character, and neither a file nor a page can hold it.
    if not isinstance(symbols, str) or len(symbols) > MOST_SYMBOLS or re.search("[\ud800-\udfff]", symbols):
        raise ModelError(f"{where}: symbols: must be a text of at most {MOST_SYMBOLS:,} characters")
    if len(set(symbols)) < len(symbols):
        raise ModelError(f"{where}: symbols: {short(repr(symbols), 80)} has a character twice")
    if not isinstance(speakers, list) or not all(
        isinstance(one, str) and 0 < len(one) <= MOST_NAME for one in speakers
    ):
        raise ModelError(f"{where}: speakers: must be a list of names of at most {MOST_NAME} characters")
    if len(speakers) > MOST_SPEAKERS or len(set(speakers)) < len(speakers):
        raise ModelError(f"{where}: speakers: must be at most {MOST_SPEAKERS:,} names, each of them once")
    config["mel"] = MelSettings.read(config["mel"], f"{where}: mel").plain()
    return config
