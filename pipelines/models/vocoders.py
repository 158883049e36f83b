"""Vocoders: what makes recordings of log-mel spectrograms.

    speak = vocoder("microsoft/speecht5_hifigan", mel, "cpu")     HiFi-GAN (Kong et al. 2020, arXiv:2010.05646)
    speak = vocoder("runs/.../wavenet", mel, "cpu")               a WaveNet of Graft that reads spectrograms
    speak = vocoder(None, mel, "cpu")                             Griffin-Lim, which needs no model
    recordings = speak([mels], [seed])

A vocoder must have been trained on spectrograms with the settings of those it reads.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.data.audio.mel import SPEECHT5, MelSettings, griffin_lim
from pipelines.errors import ModelError, of_key
from pipelines.models import folders
from pipelines.models.pretrained import called, first_line
from pipelines.models.source import local_model

if TYPE_CHECKING:
    import numpy as np

GRIFFIN_LIM = "Griffin-Lim"
HIFI_GAN, WAVENET = ("hifigan", "speecht5_hifigan"), "wavenet"  # values of `model_type`
FOLDER, FILES = "vocoder", ("config.json", "model.safetensors")  # of a model folder
MOST_WEIGHTS = 100_000_000  # of a HiFi-GAN; the published ones have 14 million
MOST_LAYERS, MOST_SIZE = 64, 4096  # the longest list and the largest number that a configuration may hold


class Vocoder(Protocol):
    """Makes a recording of each spectrogram, whatever the other spectrograms are."""

    @property
    def name(self) -> str:
        """What it is, for results and cards."""

    @property
    def mel(self) -> MelSettings:
        """The settings of the spectrograms that it reads."""

    def __call__(self, mels: "Sequence[np.ndarray]", seeds: Sequence[int]) -> "list[np.ndarray]":
        """Spectrograms float32 [frames, bins] -> recordings float32 [samples]."""


@dataclass(frozen=True)
class Made:
    """A vocoder of one function."""

    name: str
    mel: MelSettings
    make: "Callable[[Sequence[np.ndarray], Sequence[int]], list[np.ndarray]]"

    def __call__(self, mels: "Sequence[np.ndarray]", seeds: Sequence[int]) -> "list[np.ndarray]":
        return self.make(mels, seeds)


def vocoder(source: str | None, mel: MelSettings, device: Any) -> Vocoder:
    """The vocoder at a folder, run folder or hub id, for spectrograms with these settings; None: Griffin-Lim.

    Raises ModelError, HubError.
    """
    if source is None:
        return Made(
            GRIFFIN_LIM,
            mel,
            lambda mels, seeds: [griffin_lim(one, mel, seed=seed) for one, seed in zip(mels, seeds, strict=True)],
        )
    with of_key("options.vocoder"):
        folder = local_model(source)
        if folder is None:
            from pipelines.hub.download import download

            folder = download(source, None)
        kind = folders.kind_of(folder, None, "vocoder")
        if kind in HIFI_GAN:
            return _hifi_gan(folder, source, mel, device)
        if kind == WAVENET:
            return _wavenet(folder, source, mel, device)
    raise ModelError(f"options.vocoder: {source}: {kind} is no vocoder: it must be a {HIFI_GAN[-1]} or a {WAVENET}")


def keep(source: str | None, folder: Path) -> None:
    """Copy a vocoder that is on this machine only into a model's folder, as `vocoder/`, so that it is published too."""
    place = local_model(source) if source is not None else None
    if place is None or place.resolve() == (folder / FOLDER).resolve():
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (place / name).is_file():
            shutil.copy(place / name, folder / FOLDER / name)
    if not (folder / FOLDER / "model.safetensors").is_file():  # its weights are in an older file
        from transformers import SpeechT5HifiGan

        SpeechT5HifiGan.from_pretrained(place, local_files_only=True).save_pretrained(folder / FOLDER)


def kept(folder: Path) -> str | None:
    """The vocoder that `keep` put into a model's folder; None if there is none."""
    return str(folder / FOLDER) if all((folder / FOLDER / name).is_file() for name in FILES) else None


def check_equal(source: str, own: MelSettings, wanted: MelSettings) -> None:
    """Raise ModelError naming the first setting in which a vocoder differs from the spectrograms that it is to read."""
    mine, theirs = own.plain(), wanted.plain()
    for key in mine:
        if mine[key] != theirs[key]:
            raise ModelError(
                f"options.vocoder: {source} was trained on spectrograms with {key}={mine[key]}, and the model makes "
                f"them with {key}={theirs[key]}: choose another vocoder, or leave it out"
            )


def _wavenet(folder: Path, source: str, mel: MelSettings, device: Any) -> Vocoder:
    import pipelines.models.wavenet as wavenet

    model, *_ = wavenet.load(folder)
    check_equal(source, wavenet.mel_of(model), mel)
    model = model.to(device).eval()
    return Made(f"WaveNet ({Path(source).name})", mel, lambda mels, seeds: list(wavenet.vocode(model, mels, seeds)))


# ---- HiFi-GAN ----


def _hifi_gan(folder: Path, source: str, mel: MelSettings, device: Any) -> Vocoder:
    """A SpeechT5HifiGan of transformers. Its config.json tells the rate and the bands; the rest is SpeechT5's."""
    import torch
    from transformers import SpeechT5HifiGan

    config = _hifi_gan_config(folder)
    with torch.device("meta"):
        weights = sum(one.numel() for one in SpeechT5HifiGan(config).parameters())
    if weights > MOST_WEIGHTS:
        raise ModelError(f"{called(folder)}: config.json: {weights:,} weights, and {MOST_WEIGHTS:,} are allowed")
    hop = math.prod(config.upsample_rates)
    own = replace(SPEECHT5, sampling_rate=config.sampling_rate, num_mel_bins=config.model_in_dim, hop_length=hop)
    check_equal(source, own, mel)
    try:
        kind: Any = SpeechT5HifiGan
        found, info = kind.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except Exception as error:  # a damaged file raises many kinds
        raise ModelError(f"options.vocoder: {source}: its weights cannot be read: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"options.vocoder: {source}: {missing[0]} is missing ({len(missing)} in all)")
    model: Any = found.to(device).eval()

    @torch.no_grad()
    def make(mels: "Sequence[np.ndarray]", seeds: Sequence[int]) -> "list[np.ndarray]":
        # one by one: padding would change the last samples of the shorter ones
        with torch.autocast(torch.device(device).type, enabled=False):
            return [model(torch.from_numpy(one).float().to(device)).float().cpu().numpy() for one in mels]

    return Made(f"HiFi-GAN ({Path(source).name})", mel, make)


def _hifi_gan_config(folder: Path) -> Any:
    """The configuration of a SpeechT5HifiGan. Raises ModelError for sizes that no vocoder has."""
    from transformers import SpeechT5HifiGanConfig

    try:
        config = SpeechT5HifiGanConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library's own checks raise many kinds
        raise ModelError(f"{called(folder)}: config.json: {first_line(error)}") from error
    whole = {
        "model_in_dim": [config.model_in_dim],
        "upsample_initial_channel": [config.upsample_initial_channel],
        "upsample_rates": config.upsample_rates,
        "upsample_kernel_sizes": config.upsample_kernel_sizes,
        "resblock_kernel_sizes": config.resblock_kernel_sizes,
        "resblock_dilation_sizes": config.resblock_dilation_sizes,
    }
    for key, found in whole.items():
        values = [one for part in found for one in (part if isinstance(part, list | tuple) else [part])]
        if not 0 < len(values) <= MOST_LAYERS or not all(type(one) is int and 1 <= one <= MOST_SIZE for one in values):
            raise ModelError(
                f"{called(folder)}: config.json: {key} must hold 1 to {MOST_LAYERS} numbers from 1 to 4096"
            )
    ups, kernels = config.upsample_rates, config.upsample_kernel_sizes
    if len(ups) != len(kernels) or len(config.resblock_kernel_sizes) != len(config.resblock_dilation_sizes):
        raise ModelError(f"{called(folder)}: config.json: its lists of rates, kernels and dilations differ in length")
    if config.upsample_initial_channel % 2 ** len(ups):
        raise ModelError(f"{called(folder)}: config.json: upsample_initial_channel cannot be halved {len(ups)} times")
    if type(config.sampling_rate) is not int or not 1000 <= config.sampling_rate <= 192_000:
        raise ModelError(f"{called(folder)}: config.json: sampling_rate must be a whole number from 1,000 to 192,000")
    return config
