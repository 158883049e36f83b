"""Load audio models with their feature extractors, and make what they read: raw samples, or log-mel spectrograms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.pretrained import called, first_line, head, load_model

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE = 16000  # samples a second, where a model does not say


def extractor(folder: Path | None, config: Any) -> Any:
    """The feature extractor of a model folder, or for a recipe's own configuration the one of its kind. Raises ModelError."""
    from transformers import AutoFeatureExtractor

    if folder is None:
        return _made(config)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(f"{called(folder)}: no feature extractor here (preprocessor_config.json): copy the one that the model came with")
    try:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its feature extractor cannot be read: {first_line(error)}") from error


def _made(config: Any) -> Any:
    from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

    if config.model_type == "audio-spectrogram-transformer":
        return ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
    if config.model_type == "whisper":
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    if hasattr(config, "conv_stride"):  # wav2vec2 and its kin
        # a model with group norm was trained without a mask, its padding zeros among the rest (Baevski et al. 2020)
        return Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")
    raise ModelError(f"model.config: a {config.model_type} model needs a feature extractor: give model.id, and model.weights=random")


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
    return load_model(auto, folder, config, head, random=random, may_be_new=("masked_spec_embed",), hint="is it a model for audio?")
