"""Load text models and their tokenizers, and pad their input.

Any encoder or decoder of transformers. The tokenizer must be a fast one: only fast tokenizers give the position of each
token in the text.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.losses.language_modelling import Head, head_of
from pipelines.models.classic_kinds import KINDS as CLASSICS
from pipelines.models.layers import blocks
from pipelines.models.pretrained import called, first_line, head, load_model, trunk, with_classes
from pipelines.utils import shares

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def tokenizer(
    folder: Path | None, config: Any, texts: Callable[[], Iterable[str]] | None = None, *, begins: bool = False
) -> Any:
    """The fast tokenizer of a model folder. Raises ModelError, also if it has more tokens than the model.

    Without a folder, a classic's one is learned from `texts()`, the training rows; `begins` is of `learn`.
    """
    from transformers import AutoTokenizer

    if folder is None and texts is not None and config.model_type in CLASSICS and hasattr(config, "tokenizer"):
        from pipelines.models import learned_tokenizer

        return learned_tokenizer.learn(config, texts(), begins=begins)
    if folder is None:
        raise ModelError(
            "model.config: a text model needs a tokenizer: give model.id, and model.weights=random for random weights"
        )
    if not any((folder / name).is_file() for name in FILES):
        raise ModelError(f"{called(folder)}: no tokenizer here (tokenizer.json): copy the one that the model came with")
    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its tokenizer cannot be read: {first_line(error)}") from error
    if not found.is_fast:
        raise ModelError(
            f"{called(folder)}: its tokenizer has no fast form (tokenizer.json), "
            "which tells where a token stands in the text"
        )
    vocabulary = found.get_vocab()
    last = max(vocabulary, key=vocabulary.__getitem__, default="")
    known = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(known, int) and vocabulary and vocabulary[last] >= known:
        raise ModelError(
            f"{called(folder)}: its tokenizer has {vocabulary[last] + 1:,} tokens (the last is {last!r}), "
            f"the model {known:,}: take the tokenizer that the model came with, or enlarge the model "
            "(resize_token_embeddings) and save both"
        )
    return found


def tokenizer_fingerprint(found: Any) -> str:
    """A tokenizer as text, for cache keys: its tokenizer.json, and what tokenizer_config.json adds to it.

    Models with one vocabulary may begin, end and fill up their texts with different tokens. Calling a tokenizer with
    truncation or padding changes its settings, so these two are left out.
    """
    settings = json.loads(found.backend_tokenizer.to_str())
    kept = {key: value for key, value in settings.items() if key not in ("truncation", "padding")}
    special = [found.special_tokens_map, found.all_special_ids]
    return json.dumps([kept, special, found.truncation_side, found.split_special_tokens])


# Types of models whose outputs depend on the padding of the batch, although an attention mask hides it: they mix
# neighbouring or all positions without a mask (Fourier transform, pooling, convolution, landmarks, random hashes).
READ_PADDING = ("canine", "convbert", "fnet", "funnel", "nystromformer", "yoso")


def check_kind(folder: Path | None, config: Any, mapping: dict[str, Any], does: str, suffix: str = "") -> None:
    """Raise ModelError if the model type is not in `mapping`, one of transformers' mappings by model type.

    It is also raised if a text would get other answers next to longer texts. `does` completes the message "a ... model
    does not ...". `suffix` ends the names of the classics that are for the task, and is empty if there are none.
    """
    if config.model_type not in mapping:
        from pipelines.models import classics

        own = classics.kinds(suffix) if suffix else []
        if config.model_type not in own:
            choice = f"one of {', '.join(own)}, or " if config.model_type in CLASSICS and own else ""
            raise ModelError(
                f"{called(folder)}: a {config.model_type} model does not {does}; choose {choice}another model"
            )
    if _reads_padding(config):
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model reads the padding of short texts, so that an answer would "
            "depend on the texts in the same batch; choose another model"
        )


def _reads_padding(config: Any) -> bool:
    if config.model_type in ("xlnet", "xlm", "flaubert"):  # a classifier reads the first position, the last or a mean
        return getattr(config, "summary_type", "first") != "first" and not summarises_last(config)
    return config.model_type in READ_PADDING


def longest(found: Any, config: Any) -> int:
    """The number of tokens that the model can read at once, special tokens included. Raises ModelError."""
    limits = [found.model_max_length]
    if isinstance(limits[0], bool) or not isinstance(limits[0], (int, float)) or limits[0] < 4:
        raise ModelError(
            f"tokenizer_config.json: model_max_length is {limits[0]!r}: "
            "a number of tokens is needed that a text can have"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its relatives number positions from the padding token on
        taken = (
            config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer") else 0
        )
        limits.append(positions - taken)
    return int(min(limits))


def length(asked: int | None, found: Any, config: Any, usual: int) -> int:
    """`options.max_length`, or else the usual length, limited to what the model can read.

    Raises ModelError if it asks for more.
    """
    most = longest(found, config)
    if asked is not None and asked > most:
        raise ModelError(f"options.max_length: got {asked}, but this model reads at most {most} tokens")
    return asked or min(usual, most)


def text_model(
    auto: Any, folder: Path | None, config: Any, *, random: bool = False, labels: list[str] | None = None
) -> "nn.Module":
    """A model of the class that `auto` picks. Raises ModelError.

    Besides the head, a pooler may be missing: many models were pretrained without one. With `labels` the model is a
    classifier of these classes: a head that knows all of them by name is kept, the last layer of any other head starts
    from random weights.
    """

    def load(renew: bool) -> "nn.Module":
        hint = "is it a model for text?"
        return load_model(auto, folder, config, head, random=random, may_be_new=("pooler",), hint=hint, renew=renew)

    return load(False) if not labels else with_classes(config, labels, load, head, fresh=folder is None or random)


def layers(model: Any) -> "list[nn.Module]":
    """From input to output: embeddings, blocks, head."""
    return [*blocks(trunk(model)), head(model)]


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> "Tensor":
    """Pad rows of unequal length with `value` to int64 [rows, longest], on the right or on the left."""
    import torch

    longest = max(map(len, rows))
    filled = torch.full((len(rows), longest), value)
    for line, row in zip(filled, rows, strict=True):
        start = longest - len(row) if left else 0
        line[start : start + len(row)] = torch.tensor(row)
    return filled


def in_context(found: Any, before: Sequence[int], true: int, after: Sequence[int], guess: int) -> dict[str, str]:
    """A predicted token in its text: {"before", "true", "after", "predicted"}.

    `before` has at most 40 tokens, `after` at most 20.
    """
    before, after = list(before[-40:]), list(after[:20])

    def written(ids: Sequence[int]) -> str:
        return str(found.decode(ids, skip_special_tokens=True))

    start, known = written(before), written([*before, true])
    texts = {"before": start, "true": _rest(known, start, written([true]))}
    texts["after"] = _rest(written([*before, true, *after]), known, written(after))
    texts["predicted"] = _rest(written([*before, guess]), start, written([guess]))
    return {name: text.strip("\ufffd") for name, text in texts.items()}  # a cut may part the bytes of a character


def _rest(text: str, start: str, alone: str) -> str:
    """The text after `start`, as it is written there; `alone` if the tokenizer writes the start in another way."""
    return text[len(start) :] if text.startswith(start) else alone


def inputs(examples: Sequence[dict[str, Any]], found: Any, left: bool = False) -> "dict[str, Tensor]":
    """The model's input, int64 [examples, longest] each: input_ids, attention_mask and, if given, token_type_ids."""
    ids = [e["input_ids"] for e in examples]
    batch = {
        "input_ids": padded(ids, found.pad_token_id, left),
        "attention_mask": padded([[1] * len(row) for row in ids], 0, left),
    }
    if "token_type_ids" in examples[0]:
        batch["token_type_ids"] = padded([e["token_type_ids"] for e in examples], found.pad_token_type_id, left)
    return batch


def summarises_last(config: Any) -> bool:
    """Whether a classifier reads the last position, padding or not (XLNet): padding must then be on the left."""
    return config.model_type == "xlnet" and getattr(config, "summary_type", "last") == "last"


def reads_end(config: Any) -> bool:
    """Whether a classifier reads the end tokens of its texts, of which every text must have equally many (BART, T5)."""
    return config.model_type in ("bart", "mbart", "plbart", "mvp", "bigbird_pegasus", "t5", "mt5", "umt5")


def set_attention_dropout(config: Any, asked: float | None) -> None:
    """Set `options.attention_dropout` under the name that the configuration uses; None changes nothing.

    Raises ModelError.
    """
    names = [
        name for name in ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop") if name in config.to_dict()
    ]
    if asked is not None and not names:
        raise ModelError(
            f"options.attention_dropout: a {config.model_type} model has no dropout on its attention: leave it out"
        )
    for name in names if asked is not None else ():
        setattr(config, name, asked)


# ---- language models ----


def language_model(
    auto: Any, folder: Path | None, config: Any, *, random: bool = False, new_head: bool = False
) -> "nn.Module":
    """A model that scores a vocabulary.

    With `new_head` its head may be missing, as in a plain encoder. Raises ModelError.
    """
    from torch import nn

    hint = "is it a language model?"
    return load_model(auto, folder, config, head if new_head else lambda _: nn.ModuleList(), random=random, hint=hint)


def language_model_layers(model: Any) -> "list[nn.Module]":
    """From input to output: embeddings, blocks, and the remaining layers.

    The output embedding is left out, because it often is the input embedding.
    """
    from torch import nn

    base, output = trunk(model), model.get_output_embeddings()
    stem, *found = blocks(base)
    rest = [m for m in model.modules() if _own(m) and m is not output and not _inside(m, base)]
    if not rest:
        taken = {id(m) for block in (stem, *found) for m in block.modules()}
        rest = [m for m in base.modules() if _own(m) and id(m) not in taken]
    return [stem, *found, nn.ModuleList(rest)] if rest else [stem, *found]


def _own(module: "nn.Module") -> bool:
    """Whether a module is a leaf with parameters."""
    return next(module.children(), None) is None and next(module.parameters(), None) is not None


def _inside(module: "nn.Module", of: "nn.Module") -> bool:
    return any(module is part for part in of.modules())


def keeps_apart(model: Any) -> bool:
    """Whether a causal model attends only within a document, given positions that restart at 0 for each document.

    It compares the logits of a document that follows another one with those of the same document by itself.
    """
    import torch

    device = next(model.parameters()).device
    one, two = torch.tensor([[1, 2, 3]], device=device), torch.tensor([[3, 1]], device=device)
    places = torch.tensor([[0, 1, 2, 0, 1]], device=device)
    before = model.training
    model.eval()
    with torch.no_grad(), shares.streamed(model, blocks(trunk(model))[1:]):
        together = model(input_ids=torch.cat([one, two], 1), position_ids=places, use_cache=False).logits[:, 3:]
        alone = model(input_ids=two, position_ids=places[:, 3:], use_cache=False).logits
    model.train(before)
    return bool(torch.allclose(together, alone, rtol=1e-3, atol=1e-4))


def scores_of(model: Any) -> Head | None:
    """The layer that scores the vocabulary (see losses.language_modelling)."""
    import torch

    return head_of(model, {"input_ids": torch.tensor([[1, 2, 3]], device=next(model.parameters()).device)})
