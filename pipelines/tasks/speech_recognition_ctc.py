"""Speech recognition with a CTC head: audio -> text, character by character, with times for every word.

Any `AutoModelForCTC` that reads raw samples: wav2vec2 (Baevski et al. 2020, arXiv:2006.11477), HuBERT, WavLM,
Data2Vec-audio. Rows hold `audio` and `text`, and optionally `speaker`: LibriSpeech (Panayotov et al. 2015), Common
Voice. A word error rate depends on its normaliser (`options.normaliser`). Decoding is greedy, without a language model,
because pyctcdecode needs numpy < 2.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipelines.config.recipe import Float, Int, Strict
from pipelines.data.audio.reading import read_audio
from pipelines.data.schema import DataSpec
from pipelines.data.text.rows import transcribed
from pipelines.errors import DataError, ModelError
from pipelines.metrics.text_normalizers import Normaliser, warn_of_words
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.data.audio.transcripts import Utterances
    from pipelines.metrics.statistics import Statistics
    from pipelines.models.ctc import Heard
    from pipelines.reporting.mistakes import MistakeSpec

log = logging.getLogger("graft")

Share = Annotated[Float, Field(ge=0, le=1)]
Length = Annotated[Int, Field(ge=1, le=1000)]

MASKS = {"mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob", "mask_feature_length"}
WINDOW, MARGIN = 30.0, 4.0  # seconds; longer recordings are read in windows, and results in the margins are dropped


class Options(Strict):
    of_the_model: ClassVar[tuple[str, ...]] = ("vocabulary",)

    normaliser: Normaliser = "none"
    """How transcripts are normalised before they are scored. Scores without it are reported, too."""
    vocabulary: Literal["auto", "model", "data"] = "auto"
    """Characters that transcripts are spelled with: the `model`'s own, or those of the training `data`.

    `auto`: the model's if it has a CTC head.
    """
    case: Literal["auto", "keep", "lower", "upper"] = "auto"
    """Case of the training transcripts. `auto`: the case of a model's own vocabulary, else unchanged."""
    ignore: str = ""
    """Characters to remove from the training transcripts, such as ,.?!;:"""
    max_seconds: Annotated[Float, Field(gt=0, le=3600)] = 40.0
    """Longest recording in seconds. Longer ones are left out of training and scores, and counted."""
    augment: Literal["none", "wave"] = "none"
    """`wave`: change the speed by up to 10 %, add noise 10 to 40 dB below the signal, and change the level by up to 6
    dB.
    """
    mask_time_prob: Share | None = None
    """SpecAugment: fraction of the frames that is masked, in spans of `mask_time_length`. Left out: the model's own."""
    mask_time_length: Length | None = None
    """Frames per span of `mask_time_prob`. Left out: the model's own."""
    mask_time_min_masks: Annotated[Int, Field(ge=0, le=100)] | None = None
    """Smallest number of masked spans per utterance, in most models 2.

    Set 0 for short utterances, which such masks would mostly hide.
    """
    mask_feature_prob: Share | None = None
    """SpecAugment: fraction of the features that is masked, in spans of `mask_feature_length`.

    Left out: the model's own.
    """
    mask_feature_length: Length | None = None
    """Features per span of `mask_feature_prob`. Left out: the model's own."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Dropout of hidden states, attention and the last layer. Left out: the model's own."""
    layerdrop: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the layers that a step skips.

    It must be 0 with several processes, which could not average the gradients.
    """


class SpeechRecognitionCTC(Task):
    name = "speech-recognition-ctc"
    hub = HubSpec("automatic-speech-recognition", "transformers", ("ForCTC",))
    Options = Options
    tokenizer: Any
    extractor: Any
    config: Any
    trains: bool = False

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
        from pipelines.metrics import speech_recognition

        return speech_recognition.directions(self.options.normaliser)

    @property
    def rate(self) -> int:
        """Sampling rate that the model reads, in samples per second."""
        from pipelines.models import audio as sound

        return sound.rate(self.extractor)

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import audio as sound
        from pipelines.models import ctc, ctc_vocabulary, pretrained

        self.trains = True
        warn_of_words(splits.train["text"])
        config = pretrained.read_config(source.folder, source.config)
        ctc.check_kind(source.folder, config)
        self.extractor = sound.extractor(source.folder, config)
        heads = [name for name in config.architectures or [] if name.endswith("ForCTC")]
        own = self.options.vocabulary == "model" or (
            self.options.vocabulary == "auto" and heads and source.folder is not None
        )
        case = "keep" if self.options.case == "auto" else self.options.case
        if own:
            self.tokenizer = ctc_vocabulary.read(source.folder)
            case = ctc_vocabulary.own_case(self.tokenizer) if self.options.case == "auto" else case
        else:
            self.tokenizer = ctc_vocabulary.made(
                ctc_vocabulary.spelled(t, case, self.options.ignore) for t in splits.train["text"]
            )
        config.vocab_size, config.pad_token_id = len(self.tokenizer), self.tokenizer.pad_token_id
        config.ctc_case = case
        self._regularise(config)
        model = self._model(source.folder, config, random=source.random)
        if not own and source.folder is not None and not source.random:
            ctc.begin_head(model)
        return model

    def _regularise(self, config: Any) -> None:
        """Set masks and dropout from the options, or else from the model's configuration."""
        from pipelines.models import ctc

        if self.options.layerdrop and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ModelError(
                "options.layerdrop: several processes train, and each would leave out layers of its own: set it to 0"
            )
        config.layerdrop = self.options.layerdrop
        ctc.set_masks(config, self.options.model_dump(include=MASKS))
        if self.options.dropout is not None:
            for name in (
                "hidden_dropout",
                "attention_dropout",
                "activation_dropout",
                "feat_proj_dropout",
                "final_dropout",
            ):
                setattr(config, name, self.options.dropout)

    def _model(self, folder: Path | None, config: Any, random: bool = False) -> "nn.Module":
        from transformers import AutoModelForCTC

        from pipelines.models import audio as sound
        from pipelines.models import ctc

        model = sound.audio_model(AutoModelForCTC, folder, config, random=random)
        self.config = model.config
        ctc.install(model)
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import audio as sound

        return sound.layers(model)

    def encode(self, rows: Any) -> "Utterances":
        from pipelines.data.audio.transcripts import Utterances
        from pipelines.models import ctc, ctc_vocabulary

        speller = ctc_vocabulary.Speller(self.tokenizer, self.config.ctc_case, self.options.ignore)
        found = Utterances(rows, self.rate, self.options.max_seconds, partial(ctc.frames, self.config), speller)
        speller.tell()
        if self.trains:
            found.check()
            ctc.check_masks(self.config, found.lengths)
        return found

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self._masks() or self.options.augment != "none")

    def _masks(self) -> bool:
        return bool(self.config.mask_time_prob or self.config.mask_feature_prob)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.audio.augment import perturbed
        from pipelines.data.audio.transcripts import frames_for
        from pipelines.models import ctc

        config, audio = self.config, example["audio"]
        if self.options.augment == "wave":
            made = perturbed(audio, self.rate, rng)
            if ctc.frames(config, len(made)) >= max(
                1, frames_for(example["target"])
            ):  # at this speed there would be fewer frames than characters
                audio = made
        return {**example, "audio": audio, **ctc.masks(config, ctc.frames(config, len(audio), masked=True), rng)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        from pipelines.models import audio as sound
        from pipelines.models import ctc

        # Scale each recording alone: an extractor without a mask would treat padding as sound.
        values = [torch.from_numpy(sound.scaled(e["audio"], self.extractor)) for e in examples]
        samples = [len(v) for v in values]
        batch = {
            "id": [e["id"] for e in examples],
            "row": [e["row"] for e in examples],
            "samples": samples,
            **{key: [e[key] for e in examples] for key in ("target", "true", "speaker", "seconds")},
            "input_values": torch.nn.utils.rnn.pad_sequence(values, batch_first=True),
        }
        if self._masks():  # the mask embedding takes part in every step, or processes could not average its gradient
            batch |= ctc.stacked(examples, ctc.frames(self.config, max(samples), masked=True), self.config.hidden_size)
        return batch

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"characters": float(sum(map(len, batch["target"])))}

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        from pipelines.models import ctc

        outputs = ctc.logits(model, batch)
        return ctc.loss(outputs, batch["target"], self._sizes(batch), self.config.pad_token_id) / max(
            counts["characters"], 1.0
        )

    def _sizes(self, batch: Batch) -> list[int]:
        from pipelines.models import ctc

        return [ctc.frames(self.config, samples) for samples in batch["samples"]]

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.models import ctc

        decoded = ctc.likeliest(ctc.logits(model, batch), self._sizes(batch))
        records = []
        for place, one in enumerate(decoded):
            words = ctc.words(one, self.tokenizer, self._seconds())
            record = {
                key: batch[key][place] for key in ("id", "true", "seconds", "speaker") if batch[key][place] is not None
            }
            records.append(
                {**record, "predicted": " ".join(w["word"] for w in words), "confidence": ctc.confidence(one, words)}
            )
        return records

    def _seconds(self) -> float:
        """Seconds from one output of the model to the next."""
        from pipelines.models import ctc

        return ctc.hop(self.config) / self.rate

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import speech_recognition

        return speech_recognition.statistics(records, self.options.normaliser)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import speech_recognition

        return speech_recognition.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import speech_recognition

        return speech_recognition.tables(records, self.options.normaliser)

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import speech as speech_plots

        return speech_plots.figures(records, self.options.normaliser)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import wrong_transcripts

        return wrong_transcripts(self.options.normaliser)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from transformers import Wav2Vec2Processor

        model.config.apply_spec_augment = True
        model.save_pretrained(folder)
        model.config.apply_spec_augment = False
        Wav2Vec2Processor(self.extractor, self.tokenizer).save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import audio as sound
        from pipelines.models import ctc, ctc_vocabulary, pretrained

        config = pretrained.read_config(folder, None)
        ctc.check_kind(folder, config)
        self.extractor = sound.extractor(folder, config)
        self.tokenizer = ctc_vocabulary.read(folder)
        config.ctc_case = getattr(
            config, "ctc_case", ctc_vocabulary.own_case(self.tokenizer)
        )  # only models that Graft trained state it
        return self._model(folder, config).eval()

    def infer(self, model: Any, audio: Any) -> Iterator[dict[str, Any]]:
        """Transcribe a recording of any length: {"text", "words": [{"word", "start", "end", "confidence"}], "seconds"}.

        A long recording is read in windows of 30 seconds; after each window comes the transcript so far.
        """
        import numpy as np

        from pipelines.models import ctc

        samples = self._asked({"audio": audio})["samples"]
        tokens, sure = np.zeros(0, dtype=int), np.zeros(0)
        for piece, counting in self._pieces(samples):
            (decoded,) = self._read(model, [piece])
            tokens, sure = np.append(tokens, decoded.tokens[counting]), np.append(sure, decoded.sure[counting])
            yield self._transcript(ctc.Heard(tokens, sure), samples)

    def _pieces(self, samples: "np.ndarray") -> "Iterator[tuple[np.ndarray, slice]]":
        from pipelines.models import ctc

        return ctc.windows(samples, self.config, round(WINDOW * self.rate), round(MARGIN * self.rate))

    def _read(self, model: Any, pieces: "Sequence[np.ndarray]") -> "list[Heard]":
        """The likeliest tokens of each of several pieces of recordings."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from pipelines.models import audio as sound
        from pipelines.models import ctc

        values = [torch.from_numpy(sound.scaled(piece, self.extractor)) for piece in pieces]
        batch = {"samples": [len(piece) for piece in pieces]}
        read = pad_sequence(values, batch_first=True).to(next(model.parameters()).device)
        with torch.inference_mode():
            return ctc.likeliest(ctc.logits(model, {"input_values": read, **batch}), self._sizes(batch))

    def _transcript(self, heard: "Heard", samples: "np.ndarray") -> dict[str, Any]:
        from pipelines.models import ctc

        words = ctc.words(heard, self.tokenizer, self._seconds())
        return {"text": " ".join(w["word"] for w in words), "words": words, "seconds": len(samples) / self.rate}

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked, cores())

    def _asked(self, one: Mapping[str, Any]) -> Example:
        from pipelines.models import ctc

        samples = read_audio(one["audio"], self.rate)
        length = ctc.frames(self.config, len(samples))
        if length == 0:
            raise DataError(f"{len(samples) / self.rate:.2f} seconds are too short for this model")
        return {"samples": samples, "length": length, "like": len(samples) if ctc.padding_counts(self.config) else 0}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import numpy as np

        from pipelines.models import ctc

        pieces = [(number, *piece) for number, e in enumerate(examples) for piece in self._pieces(e["samples"])]
        heard: dict[int, Heard] = {}
        order = sorted(range(len(pieces)), key=lambda place: -len(pieces[place][1]))
        if ctc.padding_counts(self.config):  # the last window of a long recording is shorter than the others
            groups = [[place] for place in order] if len(pieces) > len(examples) else [order]
        else:
            groups = [order[start : start + len(examples)] for start in range(0, len(order), len(examples))]
        for group in groups:
            heard |= zip(group, self._read(model, [pieces[place][1] for place in group]), strict=True)
        answers = []
        for number, e in enumerate(examples):
            own = [(heard[place], counting) for place, (of, _, counting) in enumerate(pieces) if of == number]
            tokens = np.concatenate([one.tokens[counting] for one, counting in own])
            sure = np.concatenate([one.sure[counting] for one, counting in own])
            answers.append(self._transcript(ctc.Heard(tokens, sure), e["samples"]))
        return answers
