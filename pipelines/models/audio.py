"""Load audio models with their feature extractors, and make what they read: raw samples, or log-mel spectrograms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.models.pretrained import called, first_line, head, load_model, read_tensor, trunk, with_classes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

RATE = 16000  # samples a second, where a model does not say


def extractor(folder: Path | None, config: Any) -> Any:
    """The feature extractor of a model folder, or for a recipe's own configuration the one of its kind. Raises ModelError."""
    from transformers import AutoFeatureExtractor

    if folder is None:
        return _made(config)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(
            f"{called(folder)}: no feature extractor here (preprocessor_config.json): copy the one that the model came with"
        )
    try:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its feature extractor cannot be read: {first_line(error)}") from error


def _made(config: Any) -> Any:
    from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

    if config.model_type == "audio-spectrogram-transformer":
        return ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
    if config.model_type == "whisper":
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // 50)
    if hasattr(config, "conv_stride"):  # wav2vec2 and its kin
        # a model with group norm was trained without a mask, its padding zeros among the rest (Baevski et al. 2020)
        return Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")
    raise ModelError(
        f"model.config: a {config.model_type} model needs a feature extractor: give model.id, and model.weights=random"
    )


def rate(found: Any) -> int:
    """Samples per second that the model reads."""
    return int(getattr(found, "sampling_rate", RATE))


def inputs(recordings: "Sequence[Any]", found: Any) -> "dict[str, Tensor]":
    """What the model reads, from float32 [samples] each: `input_values` [n, longest] with `attention_mask` where the model
    wants one, or the `input_features` or `input_values` of a spectrogram."""
    made = found(list(recordings), sampling_rate=rate(found), padding="longest", return_tensors="pt")
    return dict(made)


def audio_model(auto: Any, folder: Path | None, config: Any, *, random: bool = False) -> "nn.Module":
    """A model of `auto`'s kind; only its head may be new (a pretrained wav2vec2's mask embedding, too). Raises ModelError."""
    return load_model(
        auto, folder, config, head, random=random, may_be_new=("masked_spec_embed",), hint="is it a model for audio?"
    )


# ---- classification ----

AST = "audio-spectrogram-transformer"
FRAME, HOP = 400, 160  # samples of an AST spectrogram's frame, and from one to the next: 25 and 10 ms
USUAL_SECONDS = 30.0  # that a model of raw samples reads of a recording, where the recipe does not say


def check_classifies(folder: Path | None, config: Any) -> None:
    """Raises ModelError for a configuration of another kind of model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES as KINDS

    if config.model_type not in KINDS:
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model does not classify audio; choose a model for audio classification"
        )
    if config.model_type not in (AST, "whisper") and not hasattr(config, "conv_stride"):
        raise ModelError(
            f"{called(folder)}: {config.model_type} models are not supported: take wav2vec2, HuBERT, WavLM, AST or Whisper"
        )


def prepare(config: Any, found: Any, seconds: float | None) -> None:
    """Fit configuration and extractor to what is read of a recording. Raises ModelError.

    Masks inside of the model are off: numpy's global state draws them, so that no run could be repeated. So are dropped layers.
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
    """Samples that are read of a recording."""
    if config.model_type == AST:
        return FRAME + (int(found.max_length) - 1) * HOP
    return round((seconds or (found.chunk_length if config.model_type == "whisper" else USUAL_SECONDS)) * rate(found))


def classifier(folder: Path | None, config: Any, labels: list[str], *, random: bool = False) -> "nn.Module":
    """An AutoModelForAudioClassification of these classes, float32, in fresh memory. Raises ModelError.

    A head that knows all of them by name is kept (AudioSet's knows 527); any other begins anew.
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


def feature_encoder(model: Any) -> "nn.Module | None":
    """The convolutions that make frames of samples; None where a model reads spectrograms."""
    return getattr(trunk(model), "feature_extractor", None)


def copied(_: "nn.Module", args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook before wav2vec2's encoder: it silences the padding in place, and FSDP allows no such change to what it hands in."""
    return (args[0].clone(), *args[1:])


def layers(model: Any) -> "list[nn.Module]":
    """Stem (of wav2vec2 and its kin the whole feature encoder), transformer blocks, head."""
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
    """The input's name, float32 [n, ...] of one size, and which axis of a recording's is time.

    They are made anew each time: AST's takes 20 ms of a core for 10 seconds of sound.
    """
    made = found(list(recordings), sampling_rate=rate(found), return_tensors="np")
    name = "input_features" if "input_features" in made else "input_values"
    return name, made[name], 1 if name == "input_features" else 0


def scaled(samples: "np.ndarray", found: Any) -> "np.ndarray":
    """float32 [samples] as a model of raw samples wants them, most often with mean 0 and deviation 1."""
    values: np.ndarray = found(samples, sampling_rate=rate(found), return_tensors="np")["input_values"][0]
    return values


def _fit_positions(model: Any, folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Fit AST's position embeddings to another length, in the weights. Returns their names."""
    import torch

    keys = [key for key in shapes if key.endswith("position_embeddings")]
    for key in keys:
        bands = (model.config.num_mel_bins - model.config.patch_size) // model.config.frequency_stride + 1
        saved = read_tensor(folder, key, key.partition(".")[2])
        with torch.no_grad():
            model.get_parameter(key).copy_(fit_positions(saved.float(), bands, model.get_parameter(key).shape[1]))
    return keys


def fit_positions(positions: "Tensor", bands: int, length: int) -> "Tensor":
    """[1, 2 + bands * times, size] -> [1, length, size]: fewer times are the middle ones, more are interpolated.

    As AST's authors do (Gong et al. 2021, section 2.2, and their code). The first two, of the class tokens, stay.
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
