"""Connectionist temporal classification with wav2vec2 and its relatives: frames, masks, loss and decoding.

Graves et al. 2006; Baevski et al. 2020 (arXiv:2006.11477). A forward pass here gives every utterance the same output,
whatever other utterances are in its batch: the attention mask is always passed, and a norm over time sees one utterance
at a time. (transformers passes no mask to models with group norm, so its outputs depend on the batch.)
Data2Vec's stacked position convolutions are an exception: their outputs still depend on the padding.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.data.audio.spec_augment import spans
from pipelines.errors import ModelError
from pipelines.models.pretrained import called, trunk
from pipelines.utils import shares

log = logging.getLogger("graft")

LONG = 16_000  # samples; longer utterances are encoded one at a time on a CPU


def check_kind(folder: Path | None, config: Any) -> None:
    """Raise ModelError if a model has no CTC head or does not read raw samples."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES as KINDS

    if config.model_type not in KINDS:
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model has no CTC head: "
            "choose wav2vec2, HuBERT, WavLM or Data2Vec-audio"
        )
    if not hasattr(config, "conv_stride"):
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model reads spectrograms: choose wav2vec2 or another of its kin"
        )


def frames(config: Any, samples: int, *, masked: bool = False) -> int:
    """How many outputs the model gives for `samples` input samples; may be 0.

    With `masked`, the outputs of the convolutions alone, which is where SpecAugment masks.
    """
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    if getattr(config, "add_adapter", False) and not masked:
        for _ in range(config.num_adapter_layers):
            samples = (samples - 1) // config.adapter_stride + 1
    return max(0, samples)


def hop(config: Any) -> int:
    """Input samples from one output to the next."""
    adapter: int = config.adapter_stride**config.num_adapter_layers if getattr(config, "add_adapter", False) else 1
    return int(math.prod(config.conv_stride)) * adapter


# ---- the forward pass ----


@dataclass
class Beside:
    """Inputs of a forward pass that a model's arguments cannot carry.

    The arguments differ between models, and wrappers (DDP, PEFT) stand between the caller and the model.
    """

    samples: Sequence[int] = ()  # length of each example, without padding
    time: Tensor | None = None  # bool [n, frames]: frames that SpecAugment replaces by the learned mask embedding
    feature: Tensor | None = None  # bool [n, hidden size]: features that SpecAugment sets to zero


beside = Beside()  # of the current forward pass: `logits` sets it, the hooks that `install` adds read it


def install(model: Any) -> None:
    """Make a model read the masks in `beside`, and keep padding from changing its output.

    Its weights and its saved files do not change. The library's own masks are turned off: they come from numpy's global
    state, so a resumed run could not repeat them. Set `config.apply_spec_augment` again before saving.
    """
    base: Any = trunk(model)
    model.config.apply_spec_augment = False

    def mask(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        if beside.time is not None:
            hidden = torch.where(beside.time[:, :, None], base.masked_spec_embed.to(hidden.dtype), hidden)
        if beside.feature is not None:
            hidden = hidden.masked_fill(beside.feature[:, None, :], 0.0)
        return (hidden, *args[1:])

    base.encoder.register_forward_pre_hook(mask)
    convolutions = base.feature_extractor
    convolutions.over_time = any(isinstance(part, nn.GroupNorm) for part in convolutions.modules())
    convolutions.__class__ = type("OneByOne", (OneByOne, type(convolutions)), {})


class OneByOne:
    """A feature encoder that encodes utterances one at a time where it must, or where that is faster.

    It pads with zeros.

    It must if a group norm averages over time, because padding would count. On a CPU it is faster for long utterances:
    a batch of them takes gigabytes, which do not fit the processor's cache.
    """

    over_time: bool

    def forward(self, input_values: Tensor) -> Tensor:
        run = super().forward  # type: ignore[misc]
        sizes = beside.samples
        long = input_values.device.type == "cpu" and input_values.shape[1] > LONG
        if (
            len(sizes) != len(input_values)
            or len(sizes) == 1
            or not (long or (self.over_time and min(sizes) < max(sizes)))
        ):
            return run(input_values)  # type: ignore[no-any-return]
        encoded = [run(input_values[i : i + 1, :size]) for i, size in enumerate(sizes)]
        longest = max(one.shape[2] for one in encoded)
        return torch.cat([F.pad(one, (0, longest - one.shape[2])) for one in encoded])


def begin_head(model: Any) -> None:
    """Draw new weights for the head. A head for other characters is of no use, even if its size happens to fit."""
    shares.fill(model.lm_head)
    nn.init.normal_(model.lm_head.weight, std=model.config.initializer_range)
    nn.init.zeros_(model.lm_head.bias)


def padding_counts(config: Any) -> bool:
    """Whether the outputs of a model depend on the padding of a batch, through the convolutions of its positions."""
    return config.model_type in ("data2vec-audio", "sew", "sew-d")


def logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """Logits, float32 [n, frames, tokens].

    `batch` has padded `input_values` [n, samples] and `samples`, the lengths; it may have `time_mask` and
    `feature_mask`.
    """
    samples = beside.samples = batch["samples"]
    beside.time, beside.feature = batch.get("time_mask"), batch.get("feature_mask")
    mask = None
    if min(samples) < max(samples):
        places = torch.arange(batch["input_values"].shape[1], device=batch["input_values"].device)
        mask = (places < torch.tensor(samples, device=places.device)[:, None]).long()
    return model(input_values=batch["input_values"], attention_mask=mask).logits.float()  # type: ignore[no-any-return]


def loss(outputs: Tensor, targets: Sequence[Sequence[int]], sizes: Sequence[int], blank: int) -> Tensor:
    """The sum of -log p(target) in nats.

    An empty target counts as 0, and so does one that needs more frames than there are.

    `outputs` are logits [n, frames, tokens]; `sizes` are the numbers of frames without padding.
    """
    tokens = torch.tensor([token for target in targets for token in target], dtype=torch.long, device=outputs.device)
    lengths = torch.tensor([len(target) for target in targets]), torch.tensor(list(sizes))
    # cuDNN's kernel needs blank 0 and short targets, and its sums are not deterministic
    with torch.backends.cudnn.flags(enabled=False):
        each = F.ctc_loss(
            outputs.log_softmax(-1).transpose(0, 1),
            tokens,
            lengths[1],
            lengths[0],
            blank=blank,
            reduction="none",
            zero_infinity=True,
        )
    return each[(lengths[0] > 0).to(each.device)].sum()  # PyTorch scores an empty target as a sequence of blanks


# ---- SpecAugment ----


def set_masks(config: Any, wanted: Mapping[str, Any]) -> None:
    """Set options in a configuration, except those that are None. Raises ModelError for an option without effect."""
    for name, value in wanted.items():
        if value is not None:
            setattr(config, name, value)
    for name, value in wanted.items():
        share = f"mask_{name.split('_')[1]}_prob"
        if value is not None and name != share and not getattr(config, share):
            raise ModelError(
                f"options.{name}: nothing is masked, as {share} is 0: set options.{share}, or leave this out"
            )


def masks(config: Any, outputs: int, rng: Random) -> dict[str, np.ndarray]:
    """SpecAugment masks of one utterance, if they are turned on: `time_mask` [outputs], `feature_mask` [hidden size].

    `outputs` is the number of outputs of the convolutions.
    """
    found = {}
    if config.mask_time_prob:
        found["time_mask"] = spans(
            outputs, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks, rng
        )
    if config.mask_feature_prob:
        share, length, fewest = config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks
        found["feature_mask"] = spans(config.hidden_size, share, length, fewest, rng)
    return found


def check_masks(config: Any, outputs: Sequence[int]) -> None:
    """Warn if SpecAugment masks a large part of every short utterance: the model may then fail on unmasked audio.

    `outputs` holds the number of outputs of each utterance.
    """
    hidden, usual = config.mask_time_min_masks * config.mask_time_length, sorted(outputs)[len(outputs) // 2]
    if config.mask_time_prob and 5 * hidden > usual:
        log.warning(
            "SpecAugment hides at least %d outputs of every utterance, and half of these have no more than %d: "
            "the model may fail where nothing is hidden; set options.mask_time_min_masks=0",
            hidden,
            usual,
        )


def stacked(examples: Sequence[dict[str, Any]], outputs: int, hidden: int) -> dict[str, Tensor]:
    """The masks of a batch: bool [n, outputs] and [n, hidden]; all false for an example without masks."""
    found = {"time_mask": torch.zeros(len(examples), outputs, dtype=torch.bool)}
    found["feature_mask"] = torch.zeros(len(examples), hidden, dtype=torch.bool)
    for name, values in found.items():
        for line, example in zip(values, examples, strict=True):
            if name in example:
                line[: len(example[name])] = torch.from_numpy(example[name])
    return found


# ---- reading ----


@dataclass
class Heard:
    """The most probable token of every output of one utterance."""

    tokens: np.ndarray  # [frames]
    sure: np.ndarray  # [frames], the token's probability


def likeliest(outputs: Tensor, sizes: Sequence[int]) -> list[Heard]:
    """Logits [n, frames, tokens] -> one Heard for each utterance, without padding."""
    sure, tokens = (part.cpu().numpy() for part in outputs.detach().softmax(-1).max(-1))
    return [Heard(tokens[i, :size], sure[i, :size]) for i, size in enumerate(sizes)]


def windows(samples: np.ndarray, config: Any, window: int, margin: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield overlapping windows of a long recording, each with the slice of its outputs that count.

    The outputs in the margins only give context. `window` and `margin` are in samples and are rounded to multiples of
    the hop, so that the outputs of consecutive windows join without a gap.
    """
    step = hop(config)
    edge = margin // step
    inner = max(1, window // step - 2 * edge - 1)  # the last hop of a window has no output of its own
    begin, left = 0, 0
    while len(samples) - begin > (left + inner + edge + 1) * step:
        yield samples[begin : begin + (left + inner + edge + 1) * step], slice(left, left + inner)
        begin += (left + inner - edge) * step
        left = edge
    yield samples[begin:], slice(left, None)


def words(heard: Heard, tokenizer: Any, seconds: float) -> list[dict[str, Any]]:
    """Greedy CTC decoding into words: [{"word", "start", "end", "confidence"}], times in seconds.

    Repeats are merged, blanks are dropped, and words end at the word delimiter. One output lasts `seconds`. A word's
    confidence is the geometric mean over its tokens of each token's highest probability.
    """
    found: list[dict[str, Any]] = []
    letters: list[tuple[str, int, int, float]] = []

    def close() -> None:
        if letters:
            sure = float(np.exp(np.mean(np.log([max(p, 1e-12) for *_, p in letters]))))
            word = "".join(letter for letter, *_ in letters)
            times = {"start": round(letters[0][1] * seconds, 3), "end": round(letters[-1][2] * seconds, 3)}
            found.append({"word": word.lower() if tokenizer.do_lower_case else word, **times, "confidence": sure})
            letters.clear()

    special, delimiter = set(tokenizer.all_special_ids), tokenizer.word_delimiter_token_id
    edges = np.flatnonzero(np.diff(heard.tokens, prepend=-1, append=-1))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        token = int(heard.tokens[start])
        if token == delimiter:
            close()
        elif token not in special:
            letters.append((tokenizer.convert_ids_to_tokens(token), start, end, float(heard.sure[start:end].max())))
    close()
    return found


def confidence(heard: Heard, found: Sequence[dict[str, Any]]) -> float:
    """Confidence of an utterance: the mean over its words; without words, the mean probability of its outputs."""
    return float(np.mean([word["confidence"] for word in found] or [heard.sure.mean() if len(heard.sure) else 0.0]))
