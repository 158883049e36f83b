"""Models that compare voices: Resemblyzer's speaker encoder, or a speaker verification model of transformers.

    embeddings = resemblyzer("cpu").embed([Sound(samples, rate), ...])     float64 [n, D], each of length 1 (or 0)

An embedding depends on its recording alone, not on the others of the call.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.data.audio.reading import resampled
from pipelines.errors import ModelError, RunError
from pipelines.generation.audio import Sound
from pipelines.models.source import local_model

if TYPE_CHECKING:
    from torch import nn

RATE = 16_000  # samples per second that Resemblyzer's encoder reads
WINDOW, HOP, BANDS = 400, 160, 40  # of its spectrograms: samples, samples, bands of power
PART, STEP = 160, 77  # frames of a part of a recording (1.6 s), and from one part to the next (1.3 a second)
COVERED = 0.75  # share of the last part that must be recording, not padding
LOUDNESS = -30.0  # dB of full scale to which quiet recordings are raised
SIZE, LAYERS = 256, 3  # of its LSTM
LEAST = 1.0  # seconds that a model of transformers gets; shorter recordings are repeated


class SpeakerModel(NamedTuple):
    """A model that compares voices."""

    name: str
    embed: Callable[[Sequence[Sound]], np.ndarray]
    """Recordings -> embeddings, float64 [n, D], each of length 1; of length 0 for silence."""


def speaker_model(source: str, device: Any) -> SpeakerModel:
    """The model of `options.speaker_model`: `resemblyzer`, a folder, or a hub id. Raises GraftErrors."""
    if source == "resemblyzer":
        return resemblyzer(device)
    folder = local_model(source)
    if folder is None:
        from pipelines.hub.download import download

        folder = download(source)
    return verification(folder, device, source if local_model(source) is None else folder.resolve().name)


# ---- Resemblyzer ----


def resemblyzer(device: Any, weights: Path | None = None) -> SpeakerModel:
    """The speaker encoder of Resemblyzer 0.1.4 (Apache-2.0; Wan et al. 2018, "Generalized end-to-end loss").

    Only the file of weights is read from the package, because the package itself needs librosa, numba and webrtcvad.
    Long silences inside a recording stay, where Resemblyzer cuts them out. Raises RunError if the package is not
    installed, ModelError if the file does not hold its weights.
    """
    import torch

    model = _encoder(weights or _resemblyzer_weights()).to(device)

    def embed(sounds: Sequence[Sound]) -> np.ndarray:
        found = np.zeros((len(sounds), SIZE))
        for number, sound in enumerate(sounds):
            parts = _parts(raised(resampled(sound.samples, sound.rate, RATE)))
            with torch.inference_mode():
                _, (hidden, _) = model.lstm(torch.from_numpy(parts).to(device))
                embeddings = model.linear(hidden[-1]).relu().double().cpu().numpy()
            found[number] = _unit(_unit(embeddings).mean(0))
        return found

    return SpeakerModel("Resemblyzer", embed)


def _resemblyzer_weights() -> Path:
    spec = importlib.util.find_spec("resemblyzer")  # finds the package without importing it
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders)), "pretrained.pt") if folders else None
    if path is None or not path.is_file():
        raise RunError(
            "options.speaker_model=resemblyzer needs its weights, which are not installed: "
            "pip install --no-deps resemblyzer"
        )
    return path


def _encoder(weights: Path) -> Any:
    import torch
    from torch import nn

    model = nn.ModuleDict({"lstm": nn.LSTM(BANDS, SIZE, LAYERS, batch_first=True), "linear": nn.Linear(SIZE, SIZE)})
    try:
        saved = torch.load(weights, weights_only=True, map_location="cpu")["model_state"]
        model.load_state_dict({name: saved[name] for name in model.state_dict()})
    except Exception as error:  # a damaged file, or one of another kind, can raise any error
        raise ModelError(
            f"{weights}: not the weights of Resemblyzer's speaker encoder: pip install --no-deps resemblyzer"
        ) from error
    return model.eval()


def raised(samples: np.ndarray) -> np.ndarray:
    """Quiet samples at LOUDNESS; loud ones and silence as they are."""
    level = np.sqrt(np.mean(samples.astype(np.float64) ** 2)) if len(samples) else 0.0
    wanted = 10 ** (LOUDNESS / 20)
    return samples * np.float32(wanted / level) if 0 < level < wanted else samples


def _parts(samples: np.ndarray) -> np.ndarray:
    """float32 [n] -> mel spectrograms of power of overlapping parts, [parts, PART, BANDS]."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    frames = (len(samples) + 1 + HOP - 1) // HOP
    starts = list(range(0, max(1, frames - PART + STEP + 1), STEP))
    last = starts[-1] * HOP
    if len(starts) > 1 and (len(samples) - last) / (PART * HOP) < COVERED:
        starts = starts[:-1]
    padded = np.pad(samples, (0, max(0, (starts[-1] + PART) * HOP - len(samples))))
    mels = spectrogram(
        padded.astype(np.float64),
        window_function(WINDOW, "hann"),
        WINDOW,
        HOP,
        fft_length=WINDOW,
        power=2.0,
        center=True,
        pad_mode="constant",
        mel_filters=mel_filter_bank(WINDOW // 2 + 1, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney"),
        mel_floor=0.0,
    ).T
    return np.stack([mels[start : start + PART] for start in starts]).astype(np.float32)


# ---- transformers ----


def verification(folder: Path, device: Any, name: str) -> SpeakerModel:
    """A speaker verification model of transformers (WavLMForXVector and others). Raises ModelError for other models."""
    import torch
    from transformers import AutoModelForAudioXVector
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES as KINDS

    from pipelines.models import audio, pretrained

    config = pretrained.read_config(folder, None)
    trained = any(kind.endswith("ForXVector") for kind in config.architectures or ())
    if config.model_type not in KINDS or not trained:
        kind = " ".join(config.architectures or [config.model_type])
        raise ModelError(
            f"options.speaker_model: {pretrained.called(folder)} is a {kind}, which does not compare voices: choose "
            "resemblyzer, or a model for speaker verification (microsoft/wavlm-base-plus-sv)"
        )
    extractor = audio.extractor(folder, config)
    rate = audio.rate(extractor)
    model: Any = pretrained.load_model(AutoModelForAudioXVector, folder, config, _no_head).eval().to(device)

    def embed(sounds: Sequence[Sound]) -> np.ndarray:
        found = []
        for sound in sounds:  # one by one: padding would count in the statistics of the pooling
            samples = resampled(sound.samples, sound.rate, rate)
            if not len(samples):
                samples = np.zeros(1, np.float32)
            samples = (
                np.tile(samples, -(-round(LEAST * rate) // len(samples))) if len(samples) < LEAST * rate else samples
            )
            given = {key: value.to(device) for key, value in audio.inputs([samples], extractor).items()}
            with torch.inference_mode():
                found.append(model(**given).embeddings[0].double().cpu().numpy())
        return _unit(np.stack(found)) if found else np.zeros((0, 0))

    return SpeakerModel(name, embed)


def _no_head(model: Any) -> "nn.Module":
    """All weights must be in the file."""
    from torch import nn

    return nn.Identity()


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows, or one row, of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    found: np.ndarray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return found
