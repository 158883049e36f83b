"""Whisper: its prompt tokens, its settings, and greedy decoding.

Radford et al. 2022, arXiv:2212.04356. A transcript is <|startoftranscript|>; then, if the model has several languages,
a language token and <|transcribe|>; then <|notimestamps|>, the text and <|endoftext|>. The audio is always a window of
30 seconds as a log-mel spectrogram, padded with silence.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.validation_errors import suggest
from pipelines.errors import ModelError
from pipelines.models.pretrained import called
from pipelines.utils.distributed import all_ended

if TYPE_CHECKING:
    from torch import Tensor, nn

START, SILENT = "<|startoftranscript|>", "<|notimestamps|>"
BLANK = "\u0120"  # a space, as a byte-level tokenizer writes it
TASKS = ("transcribe", "translate")
MARKS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", SILENT)
HOP = 2  # log-mel columns of 10 ms per position of the encoder

Token = tuple[int, float]  # token id, and its log probability

# ---- tokens ----


def tokenizer(folder: Path | None, config: Any) -> Any:
    """The folder's Whisper tokenizer; for a model from a recipe's own configuration, one whose tokens are bytes.

    Raises ModelError.
    """
    from pipelines.models import text

    if folder is None:
        return _letters()
    found = text.tokenizer(folder, config)
    if START not in found.get_vocab() or SILENT not in found.get_vocab():
        raise ModelError(
            f"{called(folder)}: its tokenizer has no {START}: it is none of Whisper's; "
            "copy the one that the model came with"
        )
    return found


def _letters() -> Any:
    from tokenizers import pre_tokenizers
    from transformers import WhisperTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = WhisperTokenizer(vocab={letter: place for place, letter in enumerate(letters)}, merges=[])
    found.add_special_tokens({"additional_special_tokens": [START, *MARKS]})
    found.pad_token = found.eos_token
    return found


def languages(words: Any, config: Any, settings: Any) -> dict[str, int]:
    """Language code -> token, of the languages that a model distinguishes; empty for a model of one language.

    English-only models have the tokens too, but never learned them. Their settings say so, or the size of their
    vocabulary.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if not getattr(settings, "is_multilingual", config.vocab_size > 51864):
        return {}
    known = words.get_vocab()
    return {code: known[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in known}


def code_of(asked: str | None, known: dict[str, int]) -> str | None:
    """`options.language` (a code or an English name) as a code that this model knows; None if it is not set.

    Raises ModelError.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    if asked is None:
        return None
    if not known:
        raise ModelError(
            f"options.language: got {asked!r}, but this model knows one language and has no token for any: leave it out"
        )
    code = TO_LANGUAGE_CODE.get(asked.lower(), asked.lower())
    if code not in known:
        names = [*known, *(name for name, short in TO_LANGUAGE_CODE.items() if short in known)]
        raise ModelError(
            f"options.language: this model knows no {asked!r}{suggest(asked, names)} (known: {', '.join(known)})"
        )
    return code


def opening(words: Any, code: str | None, known: dict[str, int]) -> list[int]:
    """The tokens that every transcript begins with."""
    number = words.convert_tokens_to_ids
    language = [known[code], number("<|transcribe|>")] if code is not None else []
    return [number(START), *language, number(SILENT)]


# ---- the model ----


def read_config(folder: Path | None, fields: dict[str, Any] | None) -> Any:
    """The configuration of a Whisper model. Raises ModelError."""
    from pipelines.models.pretrained import read_config

    found = read_config(folder, fields)
    if found.model_type != "whisper":
        name = called(folder)
        raise ModelError(
            f"{name}: a {found.model_type} model is no Whisper: task speech-recognition-ctc fits wav2vec2 and its kin"
        )
    return found


def whisper(folder: Path | None, config: Any, words: Any, *, random: bool = False) -> Any:
    """A WhisperForConditionalGeneration with the folder's generation settings. Raises ModelError."""
    from torch import nn
    from transformers import AutoModelForSpeechSeq2Seq, GenerationConfig

    from pipelines.models.pretrained import load_model

    config.apply_spec_augment = False  # it would draw from numpy's global state, which a resumed run cannot repeat
    config.encoder_layerdrop = config.decoder_layerdrop = 0.0
    model: Any = load_model(
        AutoModelForSpeechSeq2Seq, folder, config, lambda _: nn.ModuleList(), random=random, hint="is it a Whisper?"
    )
    if folder is not None and random and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    # the encoder's positions are sinusoids and do not train; the library forgets this when it loads weights
    model.model.encoder.embed_positions.requires_grad_(False)
    return model


def own_config(config: Any, words: Any) -> Any:
    """Fit a recipe's own configuration to its tokenizer."""
    config.vocab_size, config.decoder_start_token_id = len(words), words.convert_tokens_to_ids(START)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = words.eos_token_id
    config.begin_suppress_tokens = config.suppress_tokens = None
    return config


def check_window(folder: Path | None, config: Any, extractor: Any) -> None:
    """Raise ModelError if the feature extractor's output does not have the shape of the model's input."""
    shape = (extractor.feature_size, extractor.nb_max_frames)
    wanted = (config.num_mel_bins, HOP * config.max_source_positions)
    if shape != wanted:
        raise ModelError(
            f"{called(folder)}: its feature extractor makes {shape[0]} x {shape[1]:g} numbers of a recording, "
            f"the model reads {wanted[0]} x {wanted[1]}: they do not belong together"
        )


def layers(model: Any) -> "list[nn.Module]":
    """The encoder's convolutions and blocks, the decoder's blocks (the first with the embeddings) and its last norm."""
    from torch import nn

    from pipelines.models.layers import Layers

    encoder, decoder = model.model.encoder, model.model.decoder
    first, *others = decoder.layers
    stem = nn.ModuleList([encoder.conv1, encoder.conv2, encoder.embed_positions])
    below = nn.ModuleList([decoder.embed_tokens, decoder.embed_positions, first])
    return Layers([stem, *encoder.layers, below, *others, decoder.layer_norm], encoder)


def settings(own: Any, words: Any, code: str | None, known: dict[str, int], most: int) -> Any:
    """Generation settings for transformers that give the transcripts that are scored here.

    Decoding is greedy, with the same prompt tokens and the same forbidden tokens. `most` is the maximum of new tokens.
    """
    from transformers import GenerationConfig

    number, kept, end = words.convert_tokens_to_ids, own.to_dict(), words.eos_token_id
    names = ("alignment_heads", "suppress_tokens", "begin_suppress_tokens", "prev_sot_token_id", "median_filter_width")
    extra: dict[str, Any] = {name: kept[name] for name in names if kept.get(name) is not None}
    if known:
        extra |= {"language": code, "task": "transcribe", "task_to_id": {name: number(f"<|{name}|>") for name in TASKS}}
        extra["lang_to_id"] = {f"<|{name}|>": token for name, token in known.items()}
    return GenerationConfig(
        decoder_start_token_id=number(START),
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        max_new_tokens=most,
        no_timestamps_token_id=number(SILENT),
        is_multilingual=bool(known),
        return_timestamps=False,
        num_beams=1,
        do_sample=False,
        **extra,
    )


# ---- decoding ----


def likeliest(
    model: Any, found: Any, opening: int, end: int, most: int, never: Sequence[int], never_first: Sequence[int]
) -> Iterator[list[Token | None]]:
    """Greedy decoding after a forward pass (`found`) over transcripts that all begin with the same `opening` tokens.

    Yields the most probable token of each row, up to `most` times; None for a row that has ended. The encoder's output
    and the cached keys and values of that forward pass are reused. `never` lists forbidden tokens; `never_first` lists
    tokens that are forbidden at the first position.
    """
    import torch

    kept, encoded = found.past_key_values, (found.encoder_last_hidden_state,)
    kept.self_attention_cache.crop(opening - found.logits.shape[1])
    scores = found.logits[:, opening - 1].float()
    ended = torch.zeros(len(scores), dtype=torch.bool)
    for number in range(most):
        forbidden = torch.tensor(
            [*never, *(never_first if number == 0 else ())], dtype=torch.long, device=scores.device
        )
        scores = scores.index_fill(1, forbidden, -torch.inf)
        sure, chosen = scores.log_softmax(-1).max(-1)
        ended |= chosen.cpu() == end
        rows = zip(chosen.tolist(), sure.tolist(), ended.tolist(), strict=True)
        yield [None if over else (token, log_p) for token, log_p, over in rows]
        if number + 1 == most or all_ended(bool(ended.all()), scores.device):
            return
        ids = chosen.masked_fill(ended.to(chosen.device), end)[:, None]
        with torch.no_grad():
            after = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=kept, use_cache=True)
        kept, scores = after.past_key_values, after.logits[:, -1].float()


def detect_languages(model: Any, features: "Tensor", words: Any, known: dict[str, int]) -> list[str]:
    """The code of the most probable spoken language of each recording; `features` are of their first pieces."""
    import torch

    start = torch.full((len(features), 1), words.convert_tokens_to_ids(START), device=features.device)
    with torch.no_grad():
        scores = model(input_features=features, decoder_input_ids=start, use_cache=False).logits[:, -1]
    return [max(known, key=lambda code: float(row[known[code]])) for row in scores.float().cpu()]


def written(steps: Iterator[list[Token | None]], rows: int) -> list[list[Token]]:
    """Collect the tokens of each row, with their log-probabilities."""
    found: list[list[Token]] = [[] for _ in range(rows)]
    for step in steps:
        for row, token in zip(found, step, strict=True):
            if token is not None:
                row.append(token)
    return found


def confidence(tokens: Sequence[Token]) -> float:
    """Confidence of a transcript: the geometric mean of its tokens' probabilities; 0 without tokens."""
    return math.exp(sum(log_p for _, log_p in tokens) / len(tokens)) if tokens else 0.0


def transcript(steps: Iterator[list[Token | None]], words: Any) -> Iterator[dict[str, Any]]:
    """Yield the transcript of one recording after every token: {"text", "words": [{"word", "confidence"}]}.

    A word's confidence is the geometric mean of its tokens' probabilities. In a language without spaces the transcript
    is one word.
    """
    tokens: list[Token] = []
    for (token,) in steps:
        if token is not None:
            tokens.append(token)
        yield spelled(tokens, words)


def spelled(tokens: Sequence[Token], words: Any) -> dict[str, Any]:
    """The transcript of a recording's tokens: {"text", "words": [{"word", "confidence"}]}."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if words.convert_ids_to_tokens(token[0]).startswith(BLANK):
            parts.append([])
        parts[-1].append(token)
    text = words.decode([number for number, _ in tokens], skip_special_tokens=True).strip()
    return {"text": text, "words": [word for part in parts if (word := _word(part, words))]}


def _word(part: list[Token], words: Any) -> dict[str, Any] | None:
    text = words.decode([number for number, _ in part], skip_special_tokens=True).strip()
    return {"word": text, "confidence": math.exp(sum(log_p for _, log_p in part) / len(part))} if text else None
