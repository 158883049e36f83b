"""Audio classification: one label per recording, or several (`options.multi_label`), as in ESC-50 (Piczak 2015) and
AudioSet.

Any `AutoModelForAudioClassification` that reads samples (wav2vec2, HuBERT, WavLM, Data2Vec, SEW) or a log-mel
spectrogram of fixed size (AST, Whisper's encoder), and small networks that read log-mel energies of a recording's own
length (GRU, LSTM, Transformer). Rows hold `audio` and `label`; labels are matched by name, never by
number. If a recording is longer than the model reads, training with augmentation takes a random part; everything else
takes the middle.

The answer for a recording does not depend on the padding of its batch. With a GroupNorm (wav2vec2-base) that is not
true of the library's own batches. Data2Vec and SEW still depend on it, in the convolutions that encode positions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float, Strict
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, ModelError
from pipelines.task import Augmentation, Batch, Example, HubSpec, Record, Task, answer_one
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor, nn

    from pipelines.data.audio.clips import Clips
    from pipelines.metrics.statistics import Statistics
    from pipelines.models.attribution import Parts
    from pipelines.reporting.mistakes import Mistake, MistakeSpec

SPEECH = (
    "Wav2Vec2",
    "Wav2Vec2Conformer",
    "Hubert",
    "WavLM",
    "Data2VecAudio",
    "SEW",
    "SEWD",
    "UniSpeech",
    "UniSpeechSat",
)


class Options(Strict):
    of_the_model: ClassVar[tuple[str, ...]] = ("multi_label",)

    max_seconds: Annotated[Float, Field(ge=0.1, le=600)] | None = None
    """Seconds that are read of a recording.

    Left out: the spectrogram's own length (AST 10, Whisper 30), or 30. AST's window is resized to it.
    """
    augment: Literal["none", "wave"] = "none"
    """`wave`: change the speed by up to 10 %, add noise 10 to 40 dB below the signal, change the level by up to 6 dB,
    and take any part of a long recording.
    """
    time_mask: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Longest masked stretch of time, as a fraction of the recording (AST: of its window); 0 is off."""
    frequency_mask: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Widest masked frequency band, as a fraction of the spectrogram; only for models that read a spectrogram."""
    mixup: Annotated[Float, Field(ge=0, le=50)] = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread over all classes (Szegedy et al. 2016)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the loss weighs each class by n / (classes * n of the class), so rare classes weigh more."""
    multi_label: bool = False
    """A recording may have several labels, or no label."""

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.multi_label and (self.label_smoothing or self.class_weights != "none"):
            raise ValueError(
                "label_smoothing and class_weights are for one label per recording: leave them out with multi_label"
            )
        return self


class AudioClassification(Task):
    name = "audio-classification"
    hub = HubSpec(
        "audio-classification",
        "transformers",
        ("ForAudioClassification", *(f"{kind}ForSequenceClassification" for kind in SPEECH)),
    )
    Options = Options
    extractor: Any
    window: int  # number of samples that the model reads
    # number of samples -> number of frames; None if all inputs have one size
    frames: Any = None
    spectral: bool = False  # whether the model reads spectrograms, not samples
    padding_counts: bool = False  # whether the answers of the model depend on the padding of a batch

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []
        self.weights: dict[str, float] = {}  # class -> weight in the loss, if it is not 1

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"audio": "audio", "label": "label"},
            input_columns=("audio",),
            label_kind="classes" if self.options.multi_label else "class",
            labels=tuple(self.labels),
            example=self._example,
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.metrics import classification

        return classification.SEVERAL_LABELS if self.options.multi_label else classification.ONE_LABEL

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data import labels
        from pipelines.models import audio as sound
        from pipelines.models import pretrained

        self.labels = labels.names(splits, self.options.multi_label)
        if self.options.class_weights == "balanced":
            self.weights = labels.balanced(splits.train["label"], self.labels)
        config = pretrained.read_config(source.folder, source.config)
        sound.check_classifies(source.folder, config)
        config.problem_type = (
            "multi_label_classification" if self.options.multi_label else "single_label_classification"
        )
        self.extractor = sound.extractor(source.folder, config)
        sound.prepare(config, self.extractor, self.options.max_seconds)
        model = self._model(source.folder, config, random=source.random)
        if self.options.frequency_mask and not self.spectral:
            raise ModelError(f"options.frequency_mask: a {config.model_type} model reads no spectrogram: leave it out")
        return model

    def _model(self, folder: Path | None, config: Any, random: bool = False) -> "nn.Module":
        from pipelines.models import audio as sound
        from pipelines.models import ctc, pretrained

        model = sound.classifier(folder, config, self.labels, random=random)
        self.window = sound.window(config, self.extractor, self.options.max_seconds)
        self.spectral = sound.feature_encoder(model) is None
        if sound.is_classic(config):
            self.frames = sound.steps
        if not self.spectral:
            self.frames = partial(ctc.frames, config)
            ctc.install(model)
            self.padding_counts = ctc.padding_counts(config)
            pretrained.trunk(model).encoder.register_forward_pre_hook(sound.copied)  # type: ignore[union-attr]
        return model

    def layers(self, model: Any) -> "list[nn.Module]":
        from pipelines.models import audio as sound

        return sound.layers(model)

    def encode(self, rows: Any) -> "Clips":
        from pipelines.data.audio.clips import Clips
        from pipelines.models import audio as sound

        return Clips(rows, self.labels, self.options.multi_label, sound.rate(self.extractor), self.window, self.frames)

    @property
    def augmentation(self) -> Augmentation:
        partners = 1 if self.options.mixup else 0
        masks = self.options.time_mask or self.options.frequency_mask
        return Augmentation(bool(self.options.augment != "none" or masks or partners), partners)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.audio import augment as change
        from pipelines.data.audio import spec_augment
        from pipelines.models import audio as sound

        audio = example["audio"]
        if self.options.augment == "wave":
            enough = math.ceil(change.SPEED[1] * self.window)  # of a long recording, change only what is read
            audio = change.perturbed(change.cropped(audio, enough, rng), sound.rate(self.extractor), rng)
        audio = change.cropped(audio, self.window, rng)
        masks = {
            name: spec_augment.stretch(share, rng)
            for name in ("time_mask", "frequency_mask")
            if (share := getattr(self.options, name))
        }
        return {**example, "audio": audio, **masks}

    def mix(self, examples: Sequence[Example], rng: Random) -> Example:
        from pipelines.data.audio import augment as change

        example, partner = examples
        audio, share = change.mixup(example["audio"], partner["audio"], self.options.mixup, rng)
        return {**example, "audio": audio, "target": example["target"] * share + partner["target"] * (1 - share)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        return {
            **{key: [e[key] for e in examples] for key in ("id", "row", "true")},
            "target": torch.stack([e["target"] for e in examples]),
            **self._read(examples),
        }

    def _read(self, examples: Sequence[Example]) -> dict[str, Any]:
        """The model's input, masked: `input_values` [n, longest] with `samples` [n], or spectrograms.

        Spectrograms have one size, or are `input_features` [n, longest, bands] with `steps` [n].
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from pipelines.data.audio.spec_augment import mask_stretch
        from pipelines.models import audio as sound

        audio = [self.part(e["audio"]) for e in examples]
        if self.frames is None:
            name, made, time = sound.spectrograms(audio, self.extractor)
            for value, e in zip(made, examples, strict=True):
                for mask, axis in (("time_mask", time), ("frequency_mask", 1 - time)):
                    value[:] = mask_stretch(value, e[mask], axis) if mask in e else value
            return {name: torch.from_numpy(made)}
        if self.spectral:
            found = sound.log_mels(audio, self.extractor)
            for value, e in zip(found, examples, strict=True):
                spectrum = value.reshape(len(value), sound.STRIDE, -1)  # a view: a band of all frames of a step
                for mask, axis in (("time_mask", 0), ("frequency_mask", 2)):
                    spectrum[:] = mask_stretch(spectrum, e[mask], axis) if mask in e else spectrum
            return {
                "input_features": pad_sequence([torch.from_numpy(one) for one in found], batch_first=True),
                "steps": [len(one) for one in found],
            }
        # Scale each recording alone, so that its level does not depend on the other recordings of its batch.
        values = [sound.scaled(a, self.extractor) for a in audio]
        values = [
            mask_stretch(v, e["time_mask"], 0) if "time_mask" in e else v for v, e in zip(values, examples, strict=True)
        ]
        return {
            "input_values": pad_sequence([torch.from_numpy(v) for v in values], batch_first=True),
            "samples": [len(v) for v in values],
        }

    def part(self, audio: "np.ndarray") -> "np.ndarray":
        """The part of a recording that is read: all of it, or the middle."""
        from pipelines.data.audio.augment import cropped

        return cropped(audio, self.window)

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        from pipelines.losses import classification as classes

        return classes.counts(
            batch["target"], classes.weights_of(self.weights, self.labels, "cpu"), self.options.multi_label
        )

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        from pipelines.losses import classification as classes

        logits = self._logits(model, batch)
        weights = classes.weights_of(self.weights, self.labels, logits.device)
        return classes.loss(
            logits, batch["target"], counts, weights, self.options.multi_label, self.options.label_smoothing
        )

    def _logits(self, model: "nn.Module", batch: Batch) -> "Tensor":
        """[batch, classes], float32."""
        import torch

        from pipelines.models import ctc, pretrained

        read: dict[str, Any] = {key: batch[key] for key in ("input_values", "input_features") if key in batch}
        samples = ctc.beside.samples = batch.get("samples", ())
        ctc.beside.time = ctc.beside.feature = None
        sizes = batch.get("steps", samples)
        if sizes and ("steps" in batch or min(sizes) < max(sizes)):
            # The length is that of the longest recording, not of the input: with cached features it is a stand-in.
            device = next(iter(read.values())).device
            read["attention_mask"] = (
                torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
            ).long()
        logits: Tensor = pretrained.logits(model(**read)).float()
        return logits

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.metrics import classification

        return classification.records(
            batch, self._logits(model, batch).detach().cpu(), self.labels, self.options.multi_label
        )

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import classification

        return classification.statistics(records, self.labels, self.options.multi_label)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import classification

        return classification.summarize(statistics, weights)

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import classification

        return {"per class": classification.per_class(records, self.labels, self.options.multi_label)}

    def figures(self, records: Sequence[Record], rows: Any) -> dict[str, Any]:
        from pipelines.plots import classification as classification_plots

        return classification_plots.figures(records, self.labels, multi_label=self.options.multi_label)

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import SURE, MistakeSpec, surest_label

        return MistakeSpec(
            rank=lambda record: surest_label(record, self.options.multi_label), show=self._shown, order=SURE
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import audible, labelled

        return audible(labelled(record, self.options.multi_label), row["audio"], middle=True, picture=True)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import audio as sound
        from pipelines.models import pretrained

        config = pretrained.read_config(folder, None)
        sound.check_classifies(folder, config)
        self.extractor = sound.extractor(folder, config)
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.options = self.options.model_copy(
            update={"multi_label": config.problem_type == "multi_label_classification"}
        )
        return self._model(folder, config).eval()

    def _example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the recording that the model reads, and its label."""
        from pipelines.data.audio.reading import read_audio
        from pipelines.models import audio as sound

        rate = sound.rate(self.extractor)
        return {"audio": (rate, self.part(read_audio(row["audio"], rate, silent_ok=True))), "label": row["label"]}

    def infer(self, model: Any, audio: Any, top_k: int = 5) -> Iterator[list[dict[str, Any]]]:
        """The `top_k` labels of one recording (path, bytes, or (rate, samples)), best first: [{"label", "score"}]."""
        yield answer_one(self, model, audio=audio, top_k=top_k)

    def prepare(self, asked: Sequence[Mapping[str, Any]]) -> list[Example | DataError]:
        return each(self._asked, asked, cores())

    def _asked(self, one: Mapping[str, Any]) -> Example:
        from pipelines.data.audio.reading import read_audio
        from pipelines.models import audio as sound

        audio = self.part(read_audio(one["audio"], sound.rate(self.extractor), silent_ok=True))
        example = {"audio": audio, "top_k": one.get("top_k", 5)}
        if self.frames is None:
            return example
        like = len(audio) if self.padding_counts else 0
        return {**example, "length": max(1, self.frames(len(audio))), "like": like}

    def answer(self, model: Any, examples: Sequence[Example]) -> list[Any]:
        import torch

        from pipelines.metrics import classification

        device = next(model.parameters()).device
        read = {k: v if isinstance(v, list) else v.to(device) for k, v in self._read(examples).items()}
        with torch.inference_mode():
            logits = self._logits(model, read).cpu()
        return classification.ranked(logits, self.labels, self.options.multi_label, [e["top_k"] for e in examples])

    def parts(self, model: Any, row: Mapping[str, Any]) -> "Parts":
        """The part of a recording that is read, in stretches of time; a hidden one is silent. Raises DataError.

        The empty input of samples is quiet noise, 40 dB below the recording. Networks of samples normalise their first
        layer over time, so on a path from digital silence all of the change would happen in its very first step.
        """
        import numpy as np
        import torch

        from pipelines.models import attribution

        (example,) = self.prepare([row])
        if isinstance(example, DataError):
            raise example
        device = next(model.parameters()).device
        read, silent = self._read([example]), self._read([{"audio": np.zeros_like(example["audio"])}])
        name = next(key for key, value in read.items() if isinstance(value, torch.Tensor))
        samples = read.get("samples")
        axis = 2 if name == "input_features" else 1  # Whisper's spectrograms are [bands, time], AST's [time, bands]
        share = 1.0 if samples else len(example["audio"]) / self.window

        def logits(inputs: "Tensor") -> "Tensor":
            return self._logits(model, {name: inputs, **({"samples": samples * len(inputs)} if samples else {})})

        inputs, hidden = read[name].to(device), silent[name].to(device)
        empty = hidden
        if samples:
            noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
            empty = hidden + 0.01 * inputs.square().mean().sqrt() * noise.to(device)
        return attribution.over_time(inputs, logits, axis, hidden, empty, attribution.STRETCHES, share)

    def map_picture(self, row: Mapping[str, Any], parts: "Parts", values: "np.ndarray") -> "Image":
        """The spectrogram of what the model reads, with a heat map over its time."""
        from pipelines.data.audio.spectrogram import picture
        from pipelines.models import audio as sound
        from pipelines.plots import heat_maps

        samples = self._asked(row)["audio"]
        drawn = picture(samples, sound.rate(self.extractor)).resize((320, 120))
        return heat_maps.over(drawn, values[None])
