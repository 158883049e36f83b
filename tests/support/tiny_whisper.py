"""A tiny real Whisper on disk, and speech in the layouts of data sets.

The model has 2 layers on each side, one second of sound per window, and letters as its tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import tiny_audio

SHAPE = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "max_target_positions": 48,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


def tokenizer(multilingual: bool = True, texts: Sequence[str] = ()) -> Any:
    """Bytes, or byte pairs of `texts`, and Whisper's own special tokens in its own order.

    Whisper finds a language's token by its place in a list.
    """
    from transformers import WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    found = WhisperTokenizer(**_pairs(texts))
    spoken = [f"<|{code}|>" for code in LANGUAGES] if multilingual else []
    rest = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    found.add_special_tokens({"additional_special_tokens": ["<|startoftranscript|>", *spoken, *rest]})
    found.pad_token = found.eos_token
    return found


def _pairs(texts: Sequence[str]) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1000, initial_alphabet=letters, show_progress=False))
    found = json.loads(bpe.to_str())["model"]
    return {"vocab": found["vocab"], "merges": [tuple(pair) for pair in found["merges"]]}


def whisper(
    folder: Path,
    kind: str = "WhisperForConditionalGeneration",
    multilingual: bool = True,
    seed: int = 0,
    words: Any = None,
    **changes: Any,
) -> Path:
    """A model folder as on the hub: weights, configuration, generation settings, tokenizer, feature extractor."""
    import torch
    import transformers

    words = words or tokenizer(multilingual)
    start, end = words.convert_tokens_to_ids("<|startoftranscript|>"), words.eos_token_id
    ids = {
        "vocab_size": len(words),
        "decoder_start_token_id": start,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), end),
    }
    blank = words.convert_tokens_to_ids("Ġ")
    config = transformers.WhisperConfig(**{**SHAPE, **ids, "begin_suppress_tokens": [blank, end], **changes})
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(config)
    if model.can_generate():
        model.generation_config = generation(words, multilingual, config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // 50
    )
    extractor.save_pretrained(folder)
    return folder


def both(folder: Path) -> dict[str, Path]:
    """A model of many languages, and a model of one."""
    return {"many": whisper(folder / "many"), "one": whisper(folder / "one", multilingual=False)}


def generation(words: Any, multilingual: bool, config: Any) -> Any:
    """Generation settings with the fields of OpenAI's own files."""
    from transformers import GenerationConfig
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    number = words.convert_tokens_to_ids
    found = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        suppress_tokens=[number("("), number("<|startoftranscript|>"), number("<|startoflm|>")],
        begin_suppress_tokens=list(config.begin_suppress_tokens),
        max_length=config.max_target_positions,
        no_timestamps_token_id=number("<|notimestamps|>"),
        is_multilingual=multilingual,
        return_timestamps=False,
    )
    if multilingual:
        found.lang_to_id = {f"<|{code}|>": number(f"<|{code}|>") for code in LANGUAGES}
        found.task_to_id = {name: number(f"<|{name}|>") for name in ("transcribe", "translate")}
    return found


def librispeech(folder: Path) -> Path:
    """Three parts with two speakers each."""
    for number, part in enumerate(("train-clean-100", "dev-clean", "test-clean")):
        for speaker in (10 * number, 10 * number + 1):
            place = folder / part / str(speaker) / "1"
            spoken = tiny_audio.sentences(4, speaker, 3)
            names = [f"{speaker}-1-{place:04}" for place in range(len(spoken))]
            for name, text in zip(names, spoken, strict=True):
                tiny_audio.write(place / f"{name}.flac", tiny_audio.spoken(text, speaker))
            (place / f"{speaker}-1.trans.txt").write_text(
                "".join(f"{n} {t.upper()}\n" for n, t in zip(names, spoken, strict=True))
            )
    return folder


def common_voice(folder: Path) -> Path:
    """clips/ and three lists, with two speakers in each."""
    for number, name in enumerate(("train", "dev", "test")):
        lines = ["client_id\tpath\tsentence"]
        for place, text in enumerate(tiny_audio.sentences(8, number, 3)):
            tiny_audio.write(folder / "clips" / f"{name}_{place}.mp3", tiny_audio.spoken(text, place))
            lines.append(f"{name}{place % 2}\t{name}_{place}.mp3\t{text}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def spoken_digits(folder: Path) -> Path:
    """One speaker says ten digits eight times; five of each are for the test split."""
    for digit in range(10):
        for index in range(8):
            samples = tiny_audio.tone("low", np.random.default_rng(digit * 10 + index), rate=8000)
            tiny_audio.write(folder / "recordings" / f"{digit}_ann_{index}.wav", samples, 8000)
    return folder
