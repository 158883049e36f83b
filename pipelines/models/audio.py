"""Load audio models with their feature extractors, and prepare their input: raw samples or log-mel spectrograms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.models.classic_kinds import KINDS as CLASSICS
from pipelines.models.pretrained import called, first_line, head, load_model, read_tensor, trunk, with_classes
from pipelines.utils.formatting import short

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

RATE = 16000  # samples per second, if the feature extractor does not give a rate
RATES = (1_000, 192_000)  # the lowest and the highest that is allowed: recordings are resampled to it


def extractor(folder: Path | None, config: Any) -> Any:
    """The feature extractor of a model folder, or the usual one for a recipe's own configuration. Raises ModelError."""
    from transformers import AutoFeatureExtractor

    if folder is None:
        return _usual_extractor(config)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(
            f"{called(folder)}: no feature extractor here (preprocessor_config.json): "
            "copy the one that the model came with"
        )
    try:
        found = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its feature extractor cannot be read: {first_line(error)}") from error
    if config.model_type in CLASSICS:
        usual, names = _usual_extractor(config), ("feature_extractor_type", *LOG_MEL)
        for name in names:
            got, wanted = (one.to_dict().get(name) for one in (found, usual))
            if got != wanted:
                raise ModelError(
                    f"{called(folder)}: preprocessor_config.json: {name} is {got}, and its network reads {wanted}: "
                    "take the file that the model came with"
                )
    given = getattr(found, "sampling_rate", RATE)
    if type(given) is not int or not RATES[0] <= given <= RATES[1]:
        raise ModelError(
            f"{called(folder)}: preprocessor_config.json: sampling_rate is {short(repr(given))}, must be a whole "
            f"number from {RATES[0]:,} to {RATES[1]:,}"
        )
    return found


MOST_BANDS = 120  # with more, a band lies between two frequencies of the spectrum and is empty
LOG_MEL = ("sampling_rate", "num_mel_bins", "feature_size", "stride", "padding_value")  # of the extractor of a classic


def _usual_extractor(config: Any) -> Any:
    from transformers import (
        ASTFeatureExtractor,
        SeamlessM4TFeatureExtractor,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
    )

    if config.model_type in CLASSICS:
        # Log-mel energies as Kaldi computes them, each band with mean 0 and standard deviation 1 over a recording.
        # It pads to the longest recording, and reads the same with and without torchaudio.
        bands = config.num_mel_bins
        if not 1 <= bands <= MOST_BANDS:
            raise ModelError(f"model.config.num_mel_bins: got {bands}, must be 1 to {MOST_BANDS}")
        return SeamlessM4TFeatureExtractor(feature_size=bands, num_mel_bins=bands, stride=STRIDE)
    if config.model_type == "audio-spectrogram-transformer":
        return ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
    if config.model_type == "whisper":
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // 50)
    if hasattr(config, "conv_stride"):  # wav2vec2 and its kin
        # Models with group norm were trained without an attention mask, so their padding counts (Baevski et al. 2020).
        return Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")
    raise ModelError(
        f"model.config: a {config.model_type} model needs a feature extractor: give model.id, and model.weights=random"
    )


def rate(found: Any) -> int:
    """Samples per second that the model expects."""
    return int(getattr(found, "sampling_rate", RATE))


def inputs(recordings: "Sequence[Any]", found: Any) -> "dict[str, Tensor]":
    """Prepare the model's input from recordings, float32 [samples] each.

    For raw samples: `input_values` [n, longest], and `attention_mask` if the model uses one. For spectrograms:
    `input_features` or `input_values`.
    """
    prepared = found(list(recordings), sampling_rate=rate(found), padding="longest", return_tensors="pt")
    return dict(prepared)


def audio_model(auto: Any, folder: Path | None, config: Any, *, random: bool = False) -> "nn.Module":
    """A model of the class that `auto` picks. Raises ModelError.

    Only its head may be missing from the weights, and the mask embedding of wav2vec2.
    """
    return load_model(
        auto, folder, config, head, random=random, may_be_new=("masked_spec_embed",), hint="is it a model for audio?"
    )


# ---- classification ----

AST = "audio-spectrogram-transformer"
FRAME, HOP = 400, 160  # window and hop of a spectrogram in samples, AST's and a classic's: 25 and 10 ms
STRIDE = 2  # frames of a spectrogram that a classic reads as one step
USUAL_SECONDS = 30.0  # how much of a recording a model of raw samples reads, if the recipe does not set it


def check_classifies(folder: Path | None, config: Any) -> None:
    """Raise ModelError if the configuration is not of a supported audio classification model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES as KINDS

    if config.model_type in CLASSICS and hasattr(config, "num_mel_bins"):
        return
    if config.model_type not in KINDS:
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model does not classify audio; "
            "choose a model for audio classification"
        )
    if config.model_type not in (AST, "whisper") and not hasattr(config, "conv_stride"):
        raise ModelError(
            f"{called(folder)}: {config.model_type} models are not supported: "
            "take wav2vec2, HuBERT, WavLM, AST or Whisper, or a network of model_type gru, lstm or transformer"
        )


def prepare(config: Any, found: Any, seconds: float | None) -> None:
    """Set the configuration and the extractor to the length that is read of each recording. Raises ModelError.

    The model's own SpecAugment masks are turned off: they come from numpy's global state, so a run could not be
    repeated. LayerDrop is turned off too.
    """
    for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0), ("encoder_layerdrop", 0.0)):
        if hasattr(config, name):
            setattr(config, name, value)
    if seconds is None:
        return
    if config.model_type == AST:
        config.max_length = found.max_length = round(seconds * rate(found) / HOP)
        if config.max_length < config.patch_size:
            raise ModelError(
                f"options.max_seconds: {seconds:g} seconds are less than one patch of this model: give more"
            )
    elif config.model_type == "whisper" and seconds > found.chunk_length:
        raise ModelError(f"options.max_seconds: a Whisper model reads {found.chunk_length} seconds, got {seconds:g}")


def window(config: Any, found: Any, seconds: float | None) -> int:
    """How many samples are read of each recording."""
    if config.model_type == AST:
        return FRAME + (int(found.max_length) - 1) * HOP
    return round((seconds or (found.chunk_length if config.model_type == "whisper" else USUAL_SECONDS)) * rate(found))


def classifier(folder: Path | None, config: Any, labels: list[str], *, random: bool = False) -> "nn.Module":
    """An AutoModelForAudioClassification with these classes, float32, in its own memory. Raises ModelError.

    A pretrained head that knows all the class names is kept (an AudioSet head knows 527). Otherwise the last layer of
    the head starts from random weights.
    """
    from transformers import AutoModelForAudioClassification

    def load(renew: bool) -> "nn.Module":
        return load_model(
            AutoModelForAudioClassification,
            folder,
            config,
            head,
            random=random,
            may_be_new=("masked_spec_embed", "layer_weights"),
            mend=_fit_positions,
            hint="is it a model for audio, and does options.max_seconds fit it?",
            renew=renew,
        )

    return with_classes(config, labels, load, head, fresh=folder is None or random)


def is_classic(config: Any) -> bool:
    """Whether the model is a network of pipelines.models.classic_audio."""
    return config.model_type in CLASSICS


def steps(samples: int) -> int:
    """How many steps of log-mel energies a classic reads of a recording, at least 1."""
    return max(1, (1 + (samples - FRAME) // HOP) // STRIDE)


def log_mels(recordings: "Sequence[np.ndarray]", found: Any) -> "list[np.ndarray]":
    """What a classic reads of recordings, float32 [steps, bands] each; one that is shorter than a step gets silence."""
    import numpy as np

    least = FRAME + (STRIDE - 1) * HOP
    padded = [np.pad(one, (0, max(0, least - len(one)))) for one in recordings]
    alone = [found(one, sampling_rate=rate(found), return_tensors="np")["input_features"][0] for one in padded]
    return [values[: steps(len(one))] for values, one in zip(alone, recordings, strict=True)]


def feature_encoder(model: Any) -> "nn.Module | None":
    """The convolutions that turn samples into frames; None for a model that reads spectrograms."""
    return getattr(trunk(model), "feature_extractor", None)


def copied(_: "nn.Module", args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward pre-hook for wav2vec2's encoder: pass a copy of its input.

    The encoder sets padding to zero in place, and FSDP does not allow a module to change its input in place.
    """
    return (args[0].clone(), *args[1:])


def layers(model: Any) -> "list[nn.Module]":
    """Stem (for wav2vec2 and its relatives: the feature encoder), transformer blocks, head."""
    from torch import nn

    from pipelines.models.layers import Layers, blocks

    base: Any = trunk(model)
    encoder = feature_encoder(model)
    if encoder is None:
        return [*blocks(base), head(model)]
    stem, *rest = blocks(base.encoder)
    before = [part for name, part in base.named_children() if name != "encoder"]
    return Layers([nn.ModuleList([*before, *stem.children()]), *rest, head(model)], encoder, usually_frozen=True)


def spectrograms(recordings: "Sequence[np.ndarray]", found: Any) -> "tuple[str, np.ndarray, int]":
    """The name of the model's input, float32 [n, ...] of equal size, and the time axis of one recording.

    Spectrograms are computed again each time: AST's takes 20 ms on one core for 10 seconds of audio.
    """
    prepared = found(list(recordings), sampling_rate=rate(found), return_tensors="np")
    name = "input_features" if "input_features" in prepared else "input_values"
    return name, prepared[name], 1 if name == "input_features" else 0


def scaled(samples: "np.ndarray", found: Any) -> "np.ndarray":
    """float32 [samples], scaled as a model of raw samples expects: usually to mean 0 and standard deviation 1."""
    values: np.ndarray = found(samples, sampling_rate=rate(found), return_tensors="np")["input_values"][0]
    return values


def _fit_positions(model: Any, folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Resize AST's position embeddings to another length, in the model's weights. Returns their names."""
    import torch

    keys = [key for key in shapes if key.endswith("position_embeddings")]
    for key in keys:
        bands = (model.config.num_mel_bins - model.config.patch_size) // model.config.frequency_stride + 1
        saved = read_tensor(folder, key, key.partition(".")[2])
        with torch.no_grad():
            model.get_parameter(key).copy_(fit_positions(saved.float(), bands, model.get_parameter(key).shape[1]))
    return keys


def fit_positions(positions: "Tensor", bands: int, length: int) -> "Tensor":
    """Resize AST's position embeddings: [1, 2 + bands * times, size] -> [1, length, size].

    A shorter length takes the middle times, a longer one interpolates, as AST's authors do (Gong et al. 2021,
    section 2.2, and their code). The first two positions, of the class tokens, are kept.
    """
    import torch
    from torch.nn import functional as f

    times = (length - 2) // bands
    grid = positions[:, 2:].transpose(1, 2).unflatten(2, (bands, -1))
    spare = grid.shape[3] - times
    grid = (
        grid[..., spare // 2 : spare // 2 + times]
        if spare >= 0
        else f.interpolate(grid, (bands, times), mode="bilinear")
    )
    return torch.cat([positions[:, :2], grid.flatten(2).transpose(1, 2)], dim=1)
