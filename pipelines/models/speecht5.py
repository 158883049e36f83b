"""SpeechT5 (Ao et al. 2022, arXiv:2110.07205): the family of pipelines.models.speech_synthesis that transformers has.

The loss is that of transformers' SpeechT5ForTextToSpeech: the absolute error of the spectrogram before and after the
postnet, the cross-entropy of the last frame, and guided attention (Tachibana et al. 2017, arXiv:1710.08969). Here each
row has its own, whatever the rows beside it: padding is zero at every layer of the postnet, and the dropout of the
decoder's prenet, which is always on, is drawn for each row. One recording is the same as from `generate_speech` of
transformers after `torch.manual_seed(seed)`.

transformers keeps a unit of the prenet with probability `speech_decoder_prenet_dropout` and divides by 1 minus it. This
is followed here, because published weights know no other; with 0 the prenet gives nothing at all.
"""

import logging
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as f
from transformers import SpeechT5ForTextToSpeech

from pipelines.data.audio.mel import SPEECHT5
from pipelines.errors import DataError, ModelError
from pipelines.models import speech_synthesis
from pipelines.models.batch_norm import Fixed
from pipelines.models.layers import Layers
from pipelines.models.pretrained import called, first_line, load_model, read_config

log = logging.getLogger("graft")

PARTS = dict.fromkeys(("loss", "spectrogram", "stop", "attention"), "min")
STOP_WEIGHT = 5.0  # of a last frame in the cross-entropy, as in transformers
THRESHOLD, LONGEST = 0.5, 20  # when a recording ends, and its frames per token, as in transformers' generate_speech
VOICES = "speaker_embeddings.safetensors"
SPM = "spm_char.model"
SPACE = "\u2581"  # as sentencepiece writes it
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # tokens 0 to 3 of the published models
MOST_SIZE, MOST_LAYERS = 16_384, 100  # larger numbers in a configuration are an attack or a mistake

Batch = dict[str, Any]


# ---- the network ----


class Voices(nn.Module):
    """A vector [size] for each speaker: parameters that train, or x-vectors that do not."""

    def __init__(self, vectors: Tensor, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(vectors) if learned else nn.Buffer(vectors)

    def forward(self, speakers: Tensor) -> Tensor:
        return f.embedding(speakers, self.weight)


class Speaking(SpeechT5ForTextToSpeech):
    """A SpeechT5ForTextToSpeech with `voices`. What it computes goes through `forward`, as DDP and FSDP need it."""

    voices: Voices

    def forward(self, part: str, **given: Any) -> Any:
        parts: dict[str, Any] = {
            "learn": self._learn,
            "encode": self._encode,
            "step": self._step,
            "finish": self._finish,
        }
        return parts[part](**given)

    def _encode(self, ids: Tensor, mask: Tensor, speakers: Tensor) -> tuple[Tensor, Tensor]:
        """Texts [rows, tokens] as states [rows, tokens, hidden], and the speakers' vectors of length 1."""
        states = self.speecht5.encoder(input_values=ids, attention_mask=mask, return_dict=True).last_hidden_state
        return states, f.normalize(self.voices(speakers))

    def _prenet(self, frames: Tensor, kept: Sequence[Tensor], voices: Tensor, start: int = 0) -> Tensor:
        """Frames [rows, steps, bins] as states; `kept` [rows, steps, units] are the units of each layer that stay."""
        prenet: Any = self.speecht5.decoder.prenet
        scale = 1 / (1 - self.config.speech_decoder_prenet_dropout)
        states = frames
        for layer, own in zip(prenet.layers, kept, strict=True):
            states = torch.where(own, f.relu(layer(states)), 0) * scale
        states = prenet.final_layer(states)
        places: Any = prenet.encode_positions
        states = places.dropout(states + places.alpha * places.pe[:, start : start + states.shape[1]])
        voices = voices[:, None].expand(-1, states.shape[1], -1)
        return f.relu(prenet.speaker_embeds_layer(torch.cat([states, voices], -1)))

    def _learn(
        self,
        ids: Tensor,
        mask: Tensor,
        speakers: Tensor,
        mels: Tensor,
        lengths: Tensor,
        kept: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The sums of the loss's parts, [rows] each, for spectrograms [rows, frames, bins] with these lengths."""
        config, factor = self.config, self.config.reduction_factor
        states, voices = self._encode(ids, mask, speakers)
        seen = f.pad(mels[:, factor - 1 :: factor], (0, 0, 1, 0))[:, :-1]
        guided = config.use_guided_attention_loss
        decoder: Any = self.speecht5.decoder
        found = decoder.wrapped_decoder(
            hidden_states=self._prenet(seen, kept, voices),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
            output_attentions=guided,
            return_dict=True,
        )
        valid = torch.arange(mels.shape[1], device=mels.device) < lengths[:, None]
        after, before, logits = self._frames(found.last_hidden_state, valid)
        errors = (after.float() - mels).abs() + (before.float() - mels).abs()
        last = (torch.arange(mels.shape[1], device=mels.device) == lengths[:, None] - 1).float()
        weight = torch.tensor(STOP_WEIGHT, device=mels.device)
        stops = f.binary_cross_entropy_with_logits(logits.float(), last, pos_weight=weight, reduction="none")
        sums = {"spectrogram": (errors.sum(-1) * valid).sum(-1), "stop": (stops * valid).sum(-1)}
        if guided:
            away = self._away(mask, lengths // factor, seen.shape[1])
            heads = config.guided_attention_loss_num_heads
            each = [(own[:, :heads].float().sum(1) * away).sum((1, 2)) for own in found.cross_attentions]
            sums["attention"] = config.guided_attention_loss_scale * torch.stack(each).sum(0)
        return sums

    def _away(self, mask: Tensor, steps: Tensor, most: int) -> Tensor:
        """How far each attention [rows, steps, tokens] is from the diagonal, from 0 to 1; 0 for padding."""
        tokens, sigma = mask.sum(1), self.config.guided_attention_loss_sigma
        across = torch.arange(mask.shape[1], device=mask.device) / tokens[:, None]
        along = torch.arange(most, device=mask.device) / steps[:, None]
        far = 1 - torch.exp(-((across[:, None] - along[:, :, None]) ** 2) / (2 * sigma**2))
        return far * mask[:, None] * (along < 1)[:, :, None]

    def _frames(self, states: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames after and before the postnet [rows, frames, bins], and the logits of the end [rows, frames]."""
        end: Any = self.speech_decoder_postnet
        rows = len(states)
        before = end.feat_out(states).view(rows, -1, self.config.num_mel_bins)
        return self._postnet(before, valid), before, end.prob_out(states).view(rows, -1)

    def _postnet(self, before: Tensor, valid: Tensor) -> Tensor:
        inside = valid[:, None].to(before.dtype)
        states = before.transpose(1, 2) * inside
        layers: Any = self.speech_decoder_postnet.layers
        for layer in layers:
            states = layer.conv(states)
            if layer.batch_norm.training:  # its statistics are those of frames, not of padding
                normal = layer.batch_norm(states.transpose(1, 2)[valid])
                states = torch.zeros_like(states.transpose(1, 2), dtype=normal.dtype).masked_scatter(
                    valid[:, :, None], normal
                ).transpose(1, 2)  # fmt: skip
            else:
                states = layer.batch_norm(states)
            if layer.activation is not None:
                states = layer.activation(states)
            states = layer.dropout(states) * inside
        return before + states.transpose(1, 2)

    def _step(
        self, frame: Tensor, kept: Sequence[Tensor], voices: Tensor, states: Tensor, mask: Tensor, start: int, past: Any
    ) -> tuple[Tensor, Tensor, Any]:
        """The next frames [rows, factor, bins], the probability of the end [rows], and keys and values."""
        decoder: Any = self.speecht5.decoder
        found = decoder.wrapped_decoder(
            hidden_states=self._prenet(frame, kept, voices, start),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=past,
            use_cache=True,
            return_dict=True,
        )
        end: Any = self.speech_decoder_postnet
        last = found.last_hidden_state[:, 0]
        frames = end.feat_out(last).view(len(last), -1, self.config.num_mel_bins)
        return frames, torch.sigmoid(end.prob_out(last)).sum(-1), found.past_key_values

    def _finish(self, frames: Tensor) -> Tensor:
        return self._postnet(frames[None], torch.ones(1, len(frames), dtype=torch.bool, device=frames.device))[0]


# ---- the family ----


class SpeechT5:
    """How SpeechT5 takes texts, and what it gives: a Family of pipelines.models.speech_synthesis."""

    library = "transformers"
    tokens_have_frames = False
    settings: Mapping[str, Any] = {}  # it has none
    defaults: Mapping[str, float] = {}

    def __init__(self, config: Any, tokenizer: Any, speakers: list[str]) -> None:
        self.config, self.tokenizer, self.speakers = config, tokenizer, speakers
        self.mel = replace(SPEECHT5, num_mel_bins=config.num_mel_bins)
        self.vocabulary = tokenizer.get_vocab()
        self.parts = {name: way for name, way in PARTS.items() if name != "attention" or self._guided}

    @property
    def _guided(self) -> bool:
        return bool(self.config.use_guided_attention_loss)

    def tokens(self, text: str) -> list[int]:
        """Characters as tokens, and the end. One that the model does not know is written small, without accents, or
        left out.
        """
        known = "".join(filter(None, map(self._written, text)))
        found: list[int] = self.tokenizer(" ".join(known.split()))["input_ids"]
        if len(found) < 2:
            raise DataError(f"{text[:60]!r}: this model knows none of these characters")
        if len(found) > self.config.max_text_positions:
            raise DataError(
                f"{len(found):,} characters, and this model reads {self.config.max_text_positions:,} at most"
            )
        return found

    def _written(self, character: str) -> str:
        if character.isspace():
            return " "
        bare = unicodedata.normalize("NFKD", character)[:1]
        tried = (character, character.lower(), bare, bare.lower())
        return next((one for one in tried if one in self.vocabulary), "")

    def frames(self, frames: int) -> int:
        return frames - frames % int(self.config.reduction_factor)

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        return {"prenet": rng.getrandbits(62)}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        lengths = [len(e["mel"]) for e in examples]
        mels = np.zeros((len(examples), max(lengths), self.config.num_mel_bins), np.float32)
        for line, example in zip(mels, examples, strict=True):
            line[: len(example["mel"])] = example["mel"]
        return {
            "id": [e["id"] for e in examples],
            "row": [e["row"] for e in examples],
            **_padded([e["tokens"] for e in examples], self.config.pad_token_id),
            "speakers": torch.tensor([e["speaker"] for e in examples]),
            "mels": torch.from_numpy(mels),
            "lengths": torch.tensor(lengths),
        }

    def counts(self, batch: Batch) -> dict[str, float]:
        return {name: float(own.sum()) for name, own in self._counts(batch).items()}

    def _counts(self, batch: Batch) -> dict[str, Tensor]:
        """What the sums of each part are divided by, [rows]: values of the spectrogram, frames, attentions."""
        config, frames = self.config, batch["lengths"].double()
        found = {"spectrogram": frames * config.num_mel_bins, "stop": frames}
        if self._guided:
            heads = min(config.guided_attention_loss_num_heads, config.decoder_attention_heads) * config.decoder_layers
            found["attention"] = frames / config.reduction_factor * batch["mask"].sum(1) * heads
        return found

    def _sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        inputs = {name: batch[name] for name in ("ids", "mask", "speakers", "mels", "lengths")}
        steps = batch["mels"].shape[1] // self.config.reduction_factor
        kept = self.kept(batch["prenet"], steps, batch["mels"].device)
        found: dict[str, Tensor] = model(part="learn", kept=kept, **inputs)
        return found

    def kept(self, seeds: Sequence[int], steps: int, device: Any) -> list[Tensor]:
        """The units of the prenet's layers that stay, bool [rows, steps, units]: a function of each row's seed."""
        config = self.config
        share, layers = config.speech_decoder_prenet_dropout, config.speech_decoder_prenet_layers
        drawn = np.empty((layers, len(seeds), steps, config.speech_decoder_prenet_units), bool)
        for row, seed in enumerate(seeds):
            rng = np.random.Generator(np.random.SFC64(int(seed)))
            # steps first, so that the first ones are equal whatever the padding is
            numbers = rng.random((steps, layers, config.speech_decoder_prenet_units), np.float32)
            drawn[:, row] = (numbers < share).transpose(1, 0, 2)
        return list(torch.from_numpy(drawn).to(device, non_blocking=True))

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float]) -> Tensor:
        parts = [own.sum() / counts[name] for name, own in self._sums(model, batch).items()]
        return torch.stack(parts).sum()

    def scores(self, model: nn.Module, batch: Batch) -> list[dict[str, tuple[float, float]]]:
        """`loss` is a mean over frames; that of guided attention counts a row's mean for each of its frames."""
        counts = {name: own.tolist() for name, own in self._counts(batch).items()}
        sums = {name: own.detach().double().cpu().tolist() for name, own in self._sums(model, batch).items()}
        found = []
        for row, frames in enumerate(batch["lengths"].tolist()):
            parts = {name: (sums[name][row], counts[name][row]) for name in sums}
            whole = sum(part / count for part, count in parts.values())
            found.append({"loss": (whole * frames, float(frames)), **parts})
        return found

    @torch.no_grad()
    def speak(self, model: nn.Module, requests: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        config, device = self.config, next(model.parameters()).device
        texts = _padded([one["tokens"] for one in requests], config.pad_token_id)
        ids, mask = texts["ids"].to(device), texts["mask"].to(device)
        states, voices = model(
            part="encode",
            ids=ids,
            mask=mask,
            speakers=torch.tensor([one["speaker"] for one in requests], device=device),
        )
        draws = [torch.Generator().manual_seed(int(one["seed"])) for one in requests]
        tokens = [len(one["tokens"]) for one in requests]
        most = [
            max(1, min(int(count * LONGEST / config.reduction_factor), config.max_speech_positions)) for count in tokens
        ]
        frame = torch.zeros(len(requests), 1, config.num_mel_bins, device=device)
        made: list[Tensor] = []
        lengths, past = [0] * len(requests), None
        for step in range(max(most)):
            kept = [own.to(device) for own in self._drawn(draws, step + 1)]
            frames, ended, past = model(
                part="step", frame=frame, kept=kept, voices=voices, states=states, mask=mask, start=step, past=past
            )
            made.append(frames)
            frame = frames[:, -1:]
            for row, sure in enumerate(ended.tolist()):
                if not lengths[row] and (sure >= THRESHOLD or step + 1 >= most[row]):
                    lengths[row] = (step + 1) * config.reduction_factor
            if all(lengths):  # under FSDP all processes speak the same texts, so they end together
                break
        whole = torch.cat(made, 1)
        return [
            model(part="finish", frames=own[:length]).float().cpu().numpy()
            for own, length in zip(whole, lengths, strict=True)
        ]

    def _drawn(self, draws: Sequence[torch.Generator], steps: int) -> list[Tensor]:
        """The units of each layer that stay in the last of `steps`, bool [rows, 1, units].

        transformers draws those of all steps again in each; so does this, and gives the same recording.
        """
        shape = (steps, self.config.speech_decoder_prenet_units)
        share = self.config.speech_decoder_prenet_dropout
        drawn = []
        for one in draws:
            own = [
                torch.empty(shape).bernoulli_(share, generator=one)[-1:] == 1
                for _ in range(self.config.speech_decoder_prenet_layers)
            ]
            drawn.append(own)
        return [torch.stack(layer) for layer in zip(*drawn, strict=True)]

    def layers(self, model: Any) -> list[nn.Module]:
        """The encoder's blocks, then those of the decoder; the head is the postnet, and the voices, which are new."""
        encoder, decoder, end = model.speecht5.encoder, model.speecht5.decoder, model.speech_decoder_postnet
        inner = encoder.wrapped_encoder
        stem = nn.ModuleList([encoder.prenet, inner.layer_norm, inner.embed_positions])
        blocks = [stem, *inner.layers, decoder.prenet, *decoder.wrapped_decoder.layers]
        return Layers([*blocks, nn.ModuleList([model.voices, end])], encoder)

    def save(self, model: Any, folder: Path) -> None:
        from transformers import SpeechT5FeatureExtractor, SpeechT5Processor

        voices, kind = model.voices, type(model)
        model.config.speakers, model.config.learned_voices = self.speakers, isinstance(voices.weight, nn.Parameter)
        del model.voices
        model.__class__ = SpeechT5ForTextToSpeech
        try:
            model.save_pretrained(folder)
        finally:
            model.__class__ = kind
            model.voices = voices
        save_file({"embeddings": voices.weight.detach().float().cpu().contiguous()}, folder / VOICES)
        extractor = SpeechT5FeatureExtractor(num_mel_bins=self.config.num_mel_bins)
        SpeechT5Processor(extractor, self.tokenizer).save_pretrained(folder)


def _padded(tokens: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """`ids` and `mask` [rows, tokens]."""
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), pad)
    mask = torch.zeros((len(tokens), longest), dtype=torch.long)
    for row, own in enumerate(tokens):
        ids[row, : len(own)], mask[row, : len(own)] = torch.tensor(list(own)), 1
    return {"ids": ids, "mask": mask}


# ---- building and loading ----


def build(
    source: Any, texts: Sequence[str], speakers: Sequence[str], options: Any, vectors: np.ndarray | None = None
) -> tuple[nn.Module, SpeechT5]:
    """A model for these speakers, whose vectors are given or learned. Raises ModelError.

    A learned vector is that of the same speaker in a model that has one, else random.
    """
    model, config, tokenizer = _read(source.folder, source.config, source.random, texts)
    size = config.speaker_embedding_dim
    if vectors is not None and vectors.shape[1] != size:
        raise ModelError(
            f"options.speaker_embeddings: its vectors have {vectors.shape[1]} numbers, and {source.name} reads {size}: "
            "choose another speaker model, or learn them"
        )
    if vectors is None:
        drawn = f.normalize(torch.randn(max(1, len(speakers)), size))
        if source.folder is not None and not source.random and (source.folder / VOICES).is_file():
            known, names = _voices(source.folder, config), speech_synthesis.speakers_of(source.folder)
            for place, name in enumerate(speakers):
                if name in names:
                    drawn[place] = known[names.index(name)]
            if not speakers and not names:
                drawn[0] = known[0]
        model.voices = Voices(drawn, learned=True)
    else:
        model.voices = Voices(torch.from_numpy(vectors), learned=False)
    scratch = source.folder is None or source.random
    if options.freeze_batch_norm if options.freeze_batch_norm is not None else not scratch:
        for layer in model.speech_decoder_postnet.layers:
            kind = type(layer.batch_norm)
            layer.batch_norm.__class__ = type(kind.__name__, (Fixed, kind), {"__module__": kind.__module__})
            layer.batch_norm.train(False)
    return model, SpeechT5(config, tokenizer, list(speakers))


def load(folder: Path, options: Any) -> tuple[nn.Module, SpeechT5]:
    """A model folder, in eval mode; one without `speaker_embeddings.safetensors` has a single voice that is random.

    Raises ModelError.
    """
    model, config, tokenizer = _read(folder, None, False, ())
    if (folder / VOICES).is_file():
        speakers = speech_synthesis.speakers_of(folder)
        vectors = _voices(folder, config)
        if len(vectors) != max(1, len(speakers)):
            raise ModelError(f"{folder / VOICES}: {len(vectors)} vectors, and config.json has {len(speakers)} speakers")
    else:
        log.warning("%s has no %s: its voice is a random one", called(folder), VOICES)
        random = torch.randn(1, config.speaker_embedding_dim, generator=torch.Generator().manual_seed(0))
        speakers, vectors = [], f.normalize(random)
    model.voices = Voices(vectors, bool(getattr(config, "learned_voices", True)))
    return model.eval(), SpeechT5(config, tokenizer, speakers)


def _voices(folder: Path, config: Any) -> Tensor:
    """The vectors [speakers, size] of a folder. Raises ModelError."""
    try:
        found = load_file(folder / VOICES).get("embeddings")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / VOICES}: damaged: {error}") from None
    if found is None or found.ndim != 2 or found.shape[1] != config.speaker_embedding_dim or not len(found):
        raise ModelError(f"{folder / VOICES}: must hold `embeddings` [speakers, {config.speaker_embedding_dim}]")
    if not bool(torch.isfinite(found.float()).all()):
        raise ModelError(f"{folder / VOICES}: its numbers are not finite")
    return found.float().clone()


def _read(folder: Path | None, fields: dict[str, Any] | None, random: bool, texts: Sequence[str]) -> Any:
    """The network without voices, its configuration and its tokenizer."""
    from transformers import AutoModelForTextToSpectrogram

    config = read_config(folder, fields)
    if config.model_type != "speecht5":
        raise ModelError(
            f"{called(folder)}: a {config.model_type} model: text to speech trains speecht5 and flow_speech "
            "(VITS cannot be trained with transformers)"
        )
    _check(folder, config)
    tokenizer = _tokenizer(folder) if folder is not None else learned_tokenizer(texts)
    if folder is None:
        config.vocab_size = len(tokenizer)
        config.bos_token_id, config.pad_token_id, config.eos_token_id = 0, 1, 2
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{called(folder)}: its tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}: take the one "
            "that the model came with"
        )
    # a layer that is left out at random is drawn for the batch, which a resumed or shared step cannot repeat
    config.encoder_layerdrop = config.decoder_layerdrop = 0.0
    model = load_model(
        AutoModelForTextToSpectrogram,
        folder,
        config,
        lambda _: nn.ModuleList(),
        random=random,
        hint="is it a SpeechT5ForTextToSpeech?",
    )
    model.__class__ = Speaking
    return model, config, tokenizer


def _check(folder: Path | None, config: Any) -> None:
    """Raise ModelError for a configuration of sizes that no SpeechT5 has."""
    sizes: tuple[str, ...] = (
        "hidden_size",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "speech_decoder_prenet_units",
        "num_mel_bins",
    )
    sizes += ("speaker_embedding_dim", "speech_decoder_postnet_units", "max_text_positions", "max_speech_positions")
    counts: tuple[str, ...] = (
        "encoder_layers",
        "decoder_layers",
        "speech_decoder_prenet_layers",
        "speech_decoder_postnet_layers",
    )
    counts += ("encoder_attention_heads", "decoder_attention_heads", "guided_attention_loss_num_heads")
    limits = [*((name, MOST_SIZE) for name in sizes), *((name, MOST_LAYERS) for name in counts)]
    limits += [
        ("reduction_factor", 16),
        ("speech_decoder_postnet_kernel", 101),
        ("encoder_max_relative_position", 4096),
    ]
    where = "model.config" if folder is None else f"{called(folder)}: config.json"
    for name, most in limits:
        value = getattr(config, name)
        if type(value) is not int or not 1 <= value <= most:
            raise ModelError(f"{where}: {name} is {value!r}, and must be a whole number from 1 to {most:,}")
    for name, least, most_ in (
        ("speech_decoder_prenet_dropout", 0.0, 0.99),
        ("guided_attention_loss_sigma", 1e-3, 1e3),
        ("guided_attention_loss_scale", 0.0, 1e6),
    ):
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not least <= value <= most_:
            raise ModelError(f"{where}: {name} is {value!r}, and must be a number from {least:g} to {most_:g}")
    if config.speech_decoder_postnet_kernel % 2 == 0:
        raise ModelError(f"{where}: speech_decoder_postnet_kernel must be odd")
    if config.speech_decoder_prenet_dropout == 0:
        log.warning(
            "%s: speech_decoder_prenet_dropout is 0: transformers then keeps no unit of the prenet, so a frame knows "
            "nothing of those before it; published models have 0.5",
            called(folder),
        )


def _tokenizer(folder: Path) -> Any:
    from transformers import SpeechT5Tokenizer

    if not (folder / SPM).is_file():
        raise ModelError(f"{called(folder)}: no tokenizer here ({SPM}): copy the one that the model came with")
    _need_sentencepiece()
    try:
        return SpeechT5Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f"{called(folder)}: its tokenizer cannot be read: {first_line(error)}") from error


def _need_sentencepiece() -> None:
    try:
        import sentencepiece  # noqa: F401 (transformers uses it; a Space requires what its modules import)
    except ImportError:
        raise ModelError("SpeechT5 reads texts with sentencepiece: pip install 'graft-pipelines[speech]'") from None


def learned_tokenizer(texts: Sequence[str]) -> Any:
    """A tokenizer of the characters of these texts, for a model from a recipe's own configuration."""
    import io
    import tempfile

    from transformers import SpeechT5Tokenizer

    _need_sentencepiece()
    import sentencepiece

    characters = sorted({one for text in texts for one in text if not one.isspace()})
    if not characters:
        raise ModelError("the texts of train have no characters to learn")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(characters), *("".join(characters) for _ in range(2))]),
        model_writer=written,
        model_type="char",
        vocab_size=len(characters) + 1 + len(SPECIAL),  # and the space
        character_coverage=1.0,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        max_sentence_length=10_000_000,
        minloglevel=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SPM
        path.write_bytes(written.getvalue())
        return SpeechT5Tokenizer(str(path))
