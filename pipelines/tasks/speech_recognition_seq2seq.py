"""Speech recognition with Whisper: audio -> text, token by token.

Whisper (Radford et al. 2022, arXiv:2212.04356) always reads a window of 30 seconds, so the cost of a step depends on
the number of recordings, not on their length. Longer recordings are left out of training and scores, and reported;
`infer` cuts them at quiet places. Rows hold `audio` and `text`, and optionally `speaker`: LibriSpeech (Panayotov et al.
2015), Common Voice. A model of several languages needs the spoken language. A word error rate depends on its
normaliser. Transcripts are greedy and have no time stamps.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.audio.reading import SILENT, read_audio
from pipelines.data.schema import DataSpec
from pipelines.data.text.packing import IGNORED
from pipelines.data.text.rows import SpecialTokens, transcribed
from pipelines.errors import DataError, ModelError
from pipelines.metrics.text_normalizers import Normaliser, warn_of_words
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.data.audio.log_mel import LogMels
    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import MistakeSpec

Share = Annotated[Float, Field(ge=0, le=1)]

ROOM = 5e8  # largest size in bytes of a split's log-mels in memory; 20 minutes of speech need 50 MB


class Options(Strict):
    language: str | None = None
    """The spoken language, as a code or an English name: en, german.

    Required for models of several languages; models of one language have none.
    """
    normaliser: Normaliser = "basic"
    """How transcripts are normalised before they are scored. Scores without it are reported, too."""
    case: Literal["keep", "lower"] = "keep"
    """Case of the training transcripts."""
    max_seconds: Annotated[Float, Field(gt=0, le=30)] | None = None
    """Longest recording in seconds.

    Longer ones are left out of training and scores, and counted. Left out: the model's window, 30.
    """
    max_new_tokens: Annotated[Int, Field(ge=1, le=448)] | None = None
    """Longest transcript that the model writes, in tokens. Left out: the model's own setting, else 224."""
    augment: Literal["none", "wave"] = "none"
    """`wave`: change the speed by up to 10 %, add noise 10 to 40 dB below the signal, and change the level by up to 6
    dB.
    """
    mask_time_prob: Share = 0.0
    """SpecAugment: fraction of a recording that is masked, in spans of 0.1 seconds."""
    mask_feature_prob: Share = 0.0
    """SpecAugment: fraction of the frequency bands that is masked, in groups of 10 neighbouring bands."""
    special_tokens: SpecialTokens = "text"
    """How special tokens of the model in a transcript (<|0.00|>) are read: as ordinary `text`, or `keep` their meaning.
    """


class SpeechRecognitionSeq2Seq(Task):
    name = "speech-recognition-seq2seq"
    hub = HubSpec("automatic-speech-recognition", "transformers", ("WhisperForConditionalGeneration",))
    Options = Options
    tokenizer: Any
    reader: Any  # the tokenizer that reads transcripts (models.special_tokens)
    extractor: Any
    config: Any
    languages: dict[str, int]  # languages that the model knows, with their tokens
    language: str | None  # code of the spoken language; None if the model knows one language, or must detect it
    opening: list[int]  # the tokens at the start of a transcript

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"audio": "audio", "text": "text"},
            optional_columns={"speaker": "text"},
            group_column="speaker",
            input_columns=("audio",),
            clean=transcribed,
            example=lambda row: {"audio": (self.rate, read_audio(row["audio"], self.rate)), "text": row["text"]},
            record_fields=("predicted",),
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import language_modelling, speech_recognition

        return {**speech_recognition.directions(self.options.normaliser), **language_modelling.TOKENS}

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import special_tokens

        warn_of_words(splits.train["text"])
        model: nn.Module = self._read(source.folder, source.config, source.random)
        special_tokens.warn(self.tokenizer, [splits.train["text"]], self.options.special_tokens)
        return model

    def _read(self, folder: Path | None, config: dict[str, Any] | None, random: bool = False) -> Any:
        from pipelines.models import audio as sound
        from pipelines.models import special_tokens, whisper

        found = whisper.read_config(folder, config)
        self.tokenizer = whisper.tokenizer(folder, found)
        self.reader = special_tokens.reader(self.tokenizer, self.options.special_tokens)
        self.config = found = whisper.own_config(found, self.tokenizer) if folder is None else found
        self.extractor = sound.extractor(folder, found)
        whisper.check_window(folder, found, self.extractor)
        model = whisper.whisper(folder, found, self.tokenizer, random=random)
        own = model.generation_config
        self.languages = whisper.languages(self.tokenizer, found, own) if folder is not None else {}
        self.language = whisper.code_of(self.options.language or getattr(own, "language", None), self.languages)
        self.opening = whisper.opening(self.tokenizer, self.language, self.languages)
        most = self.options.max_new_tokens or own.max_new_tokens or 224
        self.most = min(most, found.max_target_positions - len(self.opening))
        self.never, self.never_first = own.suppress_tokens or [], own.begin_suppress_tokens or []
        return model

    @property
    def rate(self) -> int:
        """Sampling rate that the model reads, in samples per second."""
        return int(self.extractor.sampling_rate)

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import whisper

        return whisper.layers(model)

    def encode(self, rows: Any) -> "LogMels":
        from pipelines.data.audio.log_mel import LogMels, Transcribed

        window = self.config.max_source_positions / 50
        longest = self.options.max_seconds or window
        if longest > window:
            raise ModelError(f"options.max_seconds: got {longest:g}, but this model reads {window:g} seconds at once")
        if self.languages and self.language is None:
            known = ", ".join(self.languages)
            raise ModelError(
                f"options.language: this model knows {len(self.languages)} languages: say which one is spoken ({known})"
            )
        recordings = Transcribed(rows, self.rate, longest, self._labels, self.config.max_target_positions)
        return LogMels(
            recordings, self.extractor, self.config.max_source_positions, ROOM, raw=self.options.augment != "none"
        )

    def _labels(self, text: str) -> list[int]:
        """The tokens of a transcript that follow <|startoftranscript|>."""
        text = unicodedata.normalize("NFC", text.lower() if self.options.case == "lower" else text)
        tokens = self.reader(text.strip(), add_special_tokens=False)["input_ids"]
        return [*self.opening[1:], *tokens, self.tokenizer.eos_token_id]

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(
            bool(self.options.augment != "none" or self.options.mask_time_prob or self.options.mask_feature_prob)
        )

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.audio.augment import perturbed
        from pipelines.data.audio.log_mel import log_mel
        from pipelines.data.audio.spec_augment import mask_spans

        features = example.get("input_features")
        if features is None:
            audio = perturbed(example["audio"], self.rate, rng)
            fits = len(audio) <= self.extractor.n_samples  # a slower copy may not fit, and its last words would be lost
            features = log_mel(audio if fits else example["audio"], self.extractor)
        shares = (self.options.mask_time_prob, self.options.mask_feature_prob)
        return {**example, "input_features": mask_spans(features, round(100 * example["seconds"]), *shares, rng)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.data.audio.log_mel import log_mel

        features = [
            e["input_features"] if "input_features" in e else log_mel(e["audio"], self.extractor) for e in examples
        ]
        # All batches have one size, so cached features need no recording; `loss` cuts the padding.
        labels = torch.full((len(examples), self.config.max_target_positions), IGNORED)
        for line, example in zip(labels, examples, strict=True):
            line[: len(example["labels"])] = torch.tensor(example["labels"])
        lists = {key: [e[key] for e in examples] for key in ("id", "row", "seconds")}
        return {**lists, "labels": labels, "input_features": torch.stack(list(map(torch.from_numpy, features)))}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"tokens": float((batch["labels"] != IGNORED).sum())}

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """Mean cross-entropy of the tokens after <|startoftranscript|>, without padding."""
        return self._surprise(model, batch)[0].sum() / counts["tokens"]

    def _surprise(self, model: Any, batch: Batch, use_cache: bool = False) -> "tuple[Tensor, Tensor, Any]":
        """-log p of every label in nats, [labels]; the places of the labels, bool [batch, longest]; and the model's
        outputs.
        """
        import torch
        from torch.nn import functional as f

        labels = batch["labels"]
        labels = labels[:, : int((labels != IGNORED).sum(1).max())]
        wanted = labels != IGNORED
        ids = torch.cat([torch.full_like(labels[:, :1], self.opening[0]), labels[:, :-1]], 1)
        ids = ids.masked_fill(ids == IGNORED, self.tokenizer.pad_token_id)
        outputs = model(input_features=batch["input_features"], decoder_input_ids=ids, use_cache=use_cache)
        return f.cross_entropy(outputs.logits[wanted].float(), labels[wanted], reduction="none"), wanted, outputs

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """The loss of each true transcript, and the greedy transcript. The encoder runs once for both."""
        import torch

        from pipelines.models import whisper

        nats, wanted, outputs = self._surprise(model, batch, use_cache=True)
        spread = torch.zeros(wanted.shape, dtype=torch.float64)
        spread[wanted.cpu()] = nats.detach().double().cpu()
        written = whisper.written(self._go_on(model, outputs, self.opening), len(wanted))
        texts = self.tokenizer.batch_decode([[token for token, _ in one] for one in written], skip_special_tokens=True)
        costs = zip(spread.sum(1).tolist(), wanted.sum(1).tolist(), strict=True)
        return [
            {
                "id": id_,
                "row": row,
                "seconds": seconds,
                "predicted": text.strip(),
                "confidence": whisper.confidence(one),
                "nll": nll,
                "tokens": tokens,
            }
            for id_, row, seconds, text, one, (nll, tokens) in zip(
                batch["id"], batch["row"], batch["seconds"], texts, written, costs, strict=True
            )
        ]

    def _go_on(self, model: Any, outputs: Any, opening: Sequence[int]) -> Iterator[list[Any]]:
        """The tokens that follow an `opening`.

        It may be longer than the task's own, because `infer` takes a language.
        """
        from pipelines.models.whisper import likeliest

        most = min(self.most, self.config.max_target_positions - len(opening))
        return likeliest(model, outputs, len(opening), self.tokenizer.eos_token_id, most, self.never, self.never_first)

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        # without the audio
        texts = rows.select_columns([name for name in ("text", "speaker") if name in rows.column_names])
        merged = []
        for record in sorted(records, key=lambda r: r["row"]):
            row = texts[record["row"]]
            speaker = {"speaker": row["speaker"]} if row.get("speaker") is not None else {}
            merged.append(
                {**{key: value for key, value in record.items() if key != "row"}, "true": row["text"], **speaker}
            )
        return merged

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import language_modelling, speech_recognition

        return speech_recognition.statistics(records, self.options.normaliser) | language_modelling.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import language_modelling, speech_recognition

        return {
            **speech_recognition.summarize(statistics, weights),
            **language_modelling.summarize(statistics, weights),
        }

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics.speech_recognition import hallucinations, tables

        signs = {"signs of invention": [hallucinations(records, self.options.normaliser)]}
        return {**tables(records, self.options.normaliser), **signs}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import speech as speech_plots

        return speech_plots.figures(records, self.options.normaliser)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_transcripts

        return wrong_transcripts(self.options.normaliser)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from transformers import WhisperProcessor

        from pipelines.models import whisper

        task = "transcribe" if self.languages else None
        self.tokenizer.set_prefix_tokens(language=self.language, task=task, predict_timestamps=False)
        own, known = model.generation_config, (self.language, self.languages, self.most)
        model.generation_config = whisper.settings(own, self.tokenizer, *known)
        model.save_pretrained(folder)
        WhisperProcessor(self.extractor, self.tokenizer).save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        model: nn.Module = self._read(folder, None).eval()
        return model

    def infer(self, model: Any, audio: Any, language: str | None = None) -> Iterator[dict[str, Any]]:
        """Transcribe a recording of any length, piece by piece; the last result is the answer.

        {"text", "parts": [{"text", "words": [{"word", "confidence"}], "start", "end"}], "language", "seconds"}, with
        one part per piece of up to 30 seconds. Without a language, a model of several languages detects it in the first
        piece. Raises DataError.
        """
        from pipelines.models import whisper

        asked = self._asked({"audio": audio, "language": language})
        code: str | None = asked["code"]
        parts: list[dict[str, Any]] = []

        for place, features in asked["pieces"]:
            if self.languages and code is None:
                code = self._detect(model, [features])[0]
            opening = whisper.opening(self.tokenizer, code, self.languages)
            outputs = self._start(model, [features], [opening])
            for part in whisper.transcript(self._go_on(model, outputs, opening), self.tokenizer):
                yield self._answer([*parts, {**part, **place}], code, asked["seconds"])
            parts.append({**part, **place})
        yield self._answer(parts, code, asked["seconds"])

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked, cores())

    def _asked(self, one: Mapping[str, Any]) -> Example:
        """The pieces of a recording that are not silent, each with its place, and the code of its language."""
        from pipelines.data.audio.log_mel import cut_where_quiet, log_mel
        from pipelines.models import whisper

        rate, samples = self.rate, read_audio(one["audio"], self.rate)
        code = whisper.code_of(one.get("language"), self.languages) or self.language
        pieces = [
            ({"start": begin / rate, "end": end / rate}, log_mel(samples[begin:end], self.extractor))
            for begin, end in cut_where_quiet(samples, rate, self.config.max_source_positions / 50)
            if abs(samples[begin:end]).max() >= SILENT  # for silence the model would invent text
        ]
        length = max(1, len(pieces)) * (self.config.max_source_positions + self.most)
        return {"pieces": pieces, "code": code, "seconds": len(samples) / rate, "length": length}

    def _features(self, model: Any, pieces: "Sequence[np.ndarray]") -> "Tensor":
        import torch

        return torch.stack([torch.from_numpy(piece) for piece in pieces]).to(next(model.parameters()).device)

    def _detect(self, model: Any, pieces: "Sequence[np.ndarray]") -> list[str]:
        from pipelines.models import whisper

        return whisper.detect_languages(model, self._features(model, pieces), self.tokenizer, self.languages)

    def _start(self, model: Any, pieces: "Sequence[np.ndarray]", openings: Sequence[list[int]]) -> Any:
        """The model's outputs for the opening tokens of each piece."""
        import torch

        features = self._features(model, pieces)
        ids = torch.tensor(list(openings), device=features.device)
        with torch.no_grad():
            return model(input_features=features, decoder_input_ids=ids, use_cache=True)

    def _answer(self, parts: list[dict[str, Any]], code: str | None, seconds: float) -> dict[str, Any]:
        text = " ".join(part["text"] for part in parts if part["text"])
        return {"text": text, "parts": parts, "language": code, "seconds": seconds}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        from pipelines.models import whisper

        codes = [e["code"] for e in examples]
        unknown = [place for place, e in enumerate(examples) if self.languages and e["code"] is None and e["pieces"]]
        if unknown:  # as in `infer`, the first piece decides for the recording
            found = self._detect(model, [examples[place]["pieces"][0][1] for place in unknown])
            for place, code in zip(unknown, found, strict=True):
                codes[place] = code
        parts: list[list[dict[str, Any]]] = [[] for _ in examples]
        pieces = [(number, *piece) for number, e in enumerate(examples) for piece in e["pieces"]]
        for start in range(0, len(pieces), len(examples)):
            some = pieces[start : start + len(examples)]
            openings = [whisper.opening(self.tokenizer, codes[number], self.languages) for number, _, _ in some]
            outputs = self._start(model, [features for _, _, features in some], openings)
            written = whisper.written(self._go_on(model, outputs, openings[0]), len(some))
            for (number, place, _), tokens in zip(some, written, strict=True):
                parts[number].append({**whisper.spelled(tokens, self.tokenizer), **place})
        return [self._answer(own, code, e["seconds"]) for own, code, e in zip(parts, codes, examples, strict=True)]
