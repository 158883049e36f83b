"""Audio generation by WaveNet (van den Oord et al. 2016): sound, sample by sample.

A network of dilated causal convolutions learns the distribution of each sample given the samples before it. Rows hold
`audio`; `options.condition` decides what else it knows: nothing, the `label` or the `speaker` of a recording, or its
log-mel spectrogram. A model of log-mel spectrograms is a vocoder: it makes a recording of a spectrogram. The score is
the negative log-likelihood of held-out recordings, in nats a sample.

Training takes random stretches of recordings. The network also reads the samples before a stretch, as far as it looks
back, so the loss of a stretch is exactly its part of the loss of the whole recording.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.recipe import Float
from pipelines.data.schema import DataSpec
from pipelines.errors import DataError, ModelError
from pipelines.generation.audio import Sound, Sounding, audio_generation
from pipelines.generation.spec import GenerationSpec
from pipelines.task import Augmentation, Batch, Example, HubSpec, Phase, Record, Task
from pipelines.utils.settings import Setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.metrics.statistics import Statistics
    from pipelines.reporting.mistakes import Mistake, MistakeSpec

SECONDS = Setting(float, 0.05, 60)
TEMPERATURE = Setting(float, 0, 2)
PIECES = 20  # results of `infer` for each second of sound, which grows


class Options(Sounding):
    of_the_model: ClassVar[tuple[str, ...]] = ("condition", "mel")

    condition: Literal["none", "label", "speaker", "mel"] = "none"
    """What the network knows of a recording: nothing, its label or speaker, or its log-mel spectrogram (a vocoder)."""
    mel: dict[str, int | float | str | None] = Field(default_factory=dict)
    """Settings of the spectrograms, if `condition` is mel: hop_length, num_mel_bins and others.

    Those left out are for speech at 8 kHz; sampling_rate is the model's.
    """
    crop_seconds: Annotated[Float, Field(ge=0.01, le=60)] | None = 0.5
    """Seconds of a recording that are learned at a time, at a random place. Null: all of it, up to `max_seconds`."""
    max_seconds: Annotated[Float, Field(ge=0.05, le=600)] = 30.0
    """Most seconds of a recording that are scored: the middle of a longer one."""
    seconds: Annotated[Float, Field(ge=SECONDS.least, le=SECONDS.most)] = 1.0
    """Seconds of a sample. A vocoder's samples are as long as their spectrograms."""
    temperature: Annotated[Float, Field(ge=TEMPERATURE.least, le=TEMPERATURE.most)] = 1.0
    """Of sampling: below 1 makes likely values more likely, and sound less noisy; 0 always takes the likeliest."""

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.mel and self.condition != "mel":
            raise ValueError("mel: these are settings of spectrograms: set condition: mel, or leave mel out")
        return self


class AudioGenerationWavenet(Task):
    name = "audio-generation-wavenet"
    hub = HubSpec("text-to-audio", "pytorch", ("WaveNet",))
    Options = Options
    rate: int = 8000  # samples per second, after `build` or `load`
    context: int = 0  # samples that the network looks back

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.labels: list[str] = []  # the classes that the model knows
        self.speakers: list[str] = []  # or its speakers
        self.mel: Any = None  # MelSettings of a vocoder
        self.output = "mulaw"

    @property
    def data(self) -> DataSpec:
        known = self.options.condition
        own = {known: "label" if known == "label" else "text"} if known in ("label", "speaker") else {}
        return DataSpec(
            columns={"audio": "audio", **own},
            # not learned, but used to stratify the splits, and to measure what samples say
            optional_columns={} if known == "label" else {"label": "label"},
            input_columns=("audio",) if known == "mel" else ("seed",),
            optional_inputs=(known,) if own else (),
            from_model=self._read_inputs,
            labels=tuple(self.labels),
            example=self._example,
        )

    @property
    def generation(self) -> GenerationSpec:
        names = self.labels or self.speakers
        vocodes = self.options.condition == "mel"
        return audio_generation(
            self.options,
            generate=self._generate,
            requests=self._requests,
            defaults=lambda seed: {
                "temperature": self.options.temperature,
                **({} if vocodes else {"seconds": self.options.seconds}),
                **({self.options.condition: names[seed % len(names)]} if names else {}),
            },
            settings={"temperature": TEMPERATURE, **({} if vocodes else {"seconds": SECONDS})},
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(ema=0.999, new_head=False),)

    @property
    def metrics(self) -> Mapping[str, str]:
        return {"loss": "min", "bits_per_sample": "min"}

    # ---- before training ----

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.data.audio.mel import MelSettings
        from pipelines.models import wavenet

        known = self.options.condition
        self.labels = self._names(splits, "label") if known == "label" else []
        self.speakers = self._names(splits, "speaker") if known == "speaker" else []
        names = self.labels or self.speakers
        if source.folder is not None:
            model, own = wavenet.load(source.folder)
            if source.random:
                config = wavenet.configuration(model, own)
                model = wavenet.create(config, source.name)
            if model.condition != known or (known != "mel" and own != names):
                raise ModelError(
                    f"{source.name}: a WaveNet of condition {model.condition}"
                    f"{' with other names' if model.condition == known else f', and options.condition is {known}'}: "
                    "train one from model.config"
                )
            if self.options.mel and MelSettings.read(
                {**(model.mel or {}), **self.options.mel}, "options.mel"
            ) != wavenet.mel_of(model):
                raise ModelError(f"options.mel: {source.name} has other settings of spectrograms: leave mel out")
        else:
            config = dict(source.config)
            if config.get("model_type") != wavenet.KIND:
                raise ModelError(f"model.config.model_type: got {config.get('model_type')}, must be {wavenet.KIND}")
            if set_here := [key for key in ("condition", "conditions", "mel") if key in config]:
                raise ModelError(
                    f"model.config.{set_here[0]}: options.condition and options.mel decide it: leave it out"
                )
            config |= {"condition": known, "conditions": len(names)}
            if known == "mel":
                rate = config.get("sampling_rate", wavenet.arguments()["sampling_rate"])
                config["mel"] = MelSettings.read({"sampling_rate": rate, **self.options.mel}, "options.mel").plain()
            model = wavenet.create(config, "model.config")
        self._know(model)
        return model

    def _names(self, splits: Any, column: str) -> list[str]:
        values = [str(value) for value in splits.train[column] if value is not None]
        if any(isinstance(value, list) for value in splits.train[:1][column]):
            raise DataError(f"{splits.name}: the {column} column holds lists: give one {column} per row")
        # in the data set's own order, if it has one
        names = list(splits.labels or []) if column == "label" else []
        names = names or sorted(set(values))
        if len(names) < 2:
            raise DataError(
                f"{splits.name}: {len(names)} {column} found ({', '.join(names)}): there is nothing to tell apart; "
                "leave out options.condition"
            )
        return names

    def _know(self, model: Any) -> None:
        from pipelines.models import wavenet

        self.rate, self.context, self.output = model.sampling_rate, model.receptive_field, model.output
        self.mel = None if model.mel is None else wavenet.mel_of(model)

    def layers(self, model: Any) -> "list[nn.Module]":
        from torch import nn

        first = [model.first, *([] if model.frames is None else [model.frames])]
        return [nn.ModuleList(first), *model.layers, nn.ModuleList([model.hidden, model.head])]

    def encode(self, rows: Any) -> Any:
        from pipelines.data.audio.stretches import Stretches

        crop = self.options.crop_seconds
        return Stretches(
            rows,
            self.rate,
            self._number_of_row,
            longest=round(self.options.max_seconds * self.rate),
            context=self.context,
            crop=None if crop is None else round(crop * self.rate),
        )

    def _number_of_row(self, row: Mapping[str, Any]) -> int:
        known = self.options.condition
        if known not in ("label", "speaker"):
            return 0
        if row[known] is None:
            raise DataError(f"the row has no {known}, and the model learns one of each row")
        return self._number(0, {known: row[known]})

    @property
    def augmentation(self) -> Augmentation:
        crops = self.options.crop_seconds is not None
        return Augmentation(crops, switch="options.crop_seconds=null", always=True)

    def augment(self, example: Example, rng: Random, progress: float) -> Example:
        from pipelines.data.audio.stretches import cropped

        crop = self.options.crop_seconds
        return example if crop is None else cropped(example, round(crop * self.rate), rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`inputs` and `targets` [batch, time], `valid` [batch, time] of bool, and the condition: `number` [batch] or
        `mels` [batch, frames + 2 + 3, bins].
        """
        import numpy as np
        import torch

        from pipelines.data.audio.mel import log_mel
        from pipelines.data.audio.stretches import piece
        from pipelines.models.wavenet_network import margins, mu_law

        hop = 1 if self.mel is None else self.mel.hop_length
        pieces = [piece(e["audio"], e["start"], e["stop"], self.context, hop) for e in examples]
        longest = -(-max(len(one.valid) for one in pieces) // hop) * hop
        coded = self.output == "mulaw"
        samples = np.zeros((len(pieces), longest + 1), np.float32)
        valid = np.zeros((len(pieces), longest), bool)
        for row, one in enumerate(pieces):
            samples[row, : len(one.samples)] = one.samples
            valid[row, : len(one.valid)] = one.valid
        values = torch.from_numpy(mu_law(samples) if coded else samples.clip(-1, 1))
        batch = {
            "id": [e["id"] for e in examples],
            "row": [e["row"] for e in examples],
            "inputs": values[:, :-1].contiguous(),
            "targets": values[:, 1:].contiguous(),
            "valid": torch.from_numpy(valid),
        }
        if self.mel is None:
            return {**batch, "number": torch.tensor([e["number"] for e in examples])}
        frames = longest // hop + 1 + 5  # with those around the first and the last one
        mels = np.full((len(pieces), frames, self.mel.num_mel_bins), self.mel.silence, np.float32)
        for row, (e, one) in enumerate(zip(examples, pieces, strict=True)):
            own = margins(log_mel(e["audio"], self.mel), self.mel.plain())[one.frame :][:frames]
            mels[row, : len(own)] = own
        return {**batch, "mels": torch.from_numpy(mels)}

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"samples": float(batch["valid"].sum())}

    def loss(self, model: Any, batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        return self._nats(model, batch).sum() / counts["samples"]

    def _nats(self, model: Any, batch: Batch) -> "Tensor":
        """float32 [batch]: the nats of the samples that count."""
        from pipelines.losses import waveforms

        outputs = model(batch["inputs"], batch["number"] if self.mel is None else batch["mels"])
        return waveforms.nats(outputs, batch["targets"], batch["valid"], self.output)

    # ---- after training ----

    def predict(self, model: Any, batch: Batch) -> list[Record]:
        from pipelines.metrics import mean_loss

        sums, counts = self._nats(model, batch).detach().cpu().tolist(), batch["valid"].sum(1).tolist()
        return [
            mean_loss.record(id_, {"loss": (own, count)})
            for id_, own, count in zip(batch["id"], sums, counts, strict=True)
        ]

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import mean_loss

        return mean_loss.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import mean_loss

        found: dict[str, Any] = mean_loss.summarize(statistics, weights, ["loss"])
        return {**found, "bits_per_sample": found["loss"] / math.log(2)}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import MistakeSpec

        return MistakeSpec(
            rank=lambda record: _per_sample(record) or None,
            show=self._shown,
            order="The test recordings with the highest loss a sample come first: they are noisy, or least like what "
            "the model learned.",
            title="Hardest recordings",
            graded=False,
        )

    def _shown(self, record: Record, row: Mapping[str, Any], model: Any) -> "Mistake":
        from pipelines.reporting.mistakes import Mistake, audible

        facts = {"Loss": f"{_per_sample(record):.3f} nats a sample"}
        known = {name.capitalize(): str(row[name]) for name in ("label", "speaker") if row.get(name) is not None}
        return audible(Mistake(facts={**facts, **known}), row["audio"], middle=True, picture=True)

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from pipelines.models import wavenet

        wavenet.save(model, self.labels or self.speakers, folder)

    def _read_inputs(self, folder: Path) -> None:
        from pipelines.models import wavenet

        config = wavenet.read_config(folder)
        self._read_condition(config["condition"], config["names"])

    def _read_condition(self, condition: str, names: list[str]) -> None:
        self.options = self.options.model_copy(update={"condition": condition})
        self.labels = names if condition == "label" else []
        self.speakers = names if condition == "speaker" else []

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import wavenet

        model, names = wavenet.load(folder)
        self._read_condition(model.condition, names)
        self._know(model)
        return model

    def _example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The recording at the model's rate, and what the model knows of it."""
        from pipelines.data.audio.reading import read_audio

        known = self.options.condition
        most = round(self.options.max_seconds * self.rate)
        own = {known: row[known]} if known in ("label", "speaker") else {}
        return {"audio": (self.rate, read_audio(row["audio"], self.rate)[:most]), **own}

    # ---- sound ----

    def _requests(self, rows: Any, count: int) -> list[dict[str, Any]]:
        from pipelines.data.labels import labels_in_proportion

        known = self.options.condition
        if known == "mel":
            said = "label" in rows.column_names
            return [
                {"seed": seed, "audio": audio, "row": row, **({"label": str(rows[row]["label"])} if said else {})}
                for seed, (row, audio) in enumerate(self._readable(rows, count))
            ]
        if known == "none":
            return [{"seed": seed} for seed in range(count)]
        names = self.labels or self.speakers
        found = [str(value) for value in rows[known] if str(value) in names]  # a split may hold others
        return [{"seed": seed, known: name} for seed, name in enumerate(labels_in_proportion(found or names, count))]

    def _readable(self, rows: Any, count: int) -> list[tuple[int, Any]]:
        """Numbers of at most `count` rows, and the first SECONDS.most seconds of their recordings, which can be read.

        They are evenly spread, because many data sets are sorted. If a row cannot be read, the next one of its part of
        the split takes its place. Raises DataError if none can be read.
        """
        from pipelines.data.audio.reading import header, read_audio

        found: list[tuple[int, Any]] = []
        most, why = min(count, len(rows)), ""
        for place in range(most):
            for number in range(place * len(rows) // most, (place + 1) * len(rows) // most):
                audio = rows[number]["audio"]
                try:
                    if header(audio).seconds > SECONDS.most:
                        given: dict[str, Any] = audio if isinstance(audio, dict) else {"path": str(audio)}
                        start = float(given.get("start") or 0)
                        audio = {**given, "start": start, "end": start + SECONDS.most}
                    read_audio(audio, self.rate)
                except DataError as error:
                    why = why or f"row {number}: {error}"
                    continue
                found.append((number, audio))
                break
        if most and not found:
            raise DataError(f"none of {len(rows)} rows can be made anew; the first: {why}")
        return found

    def _generate(self, model: Any, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        from pipelines.models import wavenet

        asked = [self._asked(request) for request in requests]
        conditions, lengths, seeds, temperatures = map(list, zip(*asked, strict=True))
        return [Sound(one, self.rate) for one in wavenet.draw(model, conditions, lengths, seeds, temperatures)]

    def _asked(self, request: Mapping[str, Any]) -> tuple[Any, int, int, float]:
        """Condition, number of samples, seed and temperature of a request. Raises DataError."""
        from pipelines.data.audio.mel import log_mel
        from pipelines.data.audio.reading import read_audio
        from pipelines.generation import requests

        def number(name: str, setting: Setting) -> float:
            value = request.get(name)
            return requests.number(name, str(getattr(self.options, name) if value is None else value), setting)

        seed, temperature = requests.check_seed(request.get("seed", 0)), number("temperature", TEMPERATURE)
        if self.mel is None:
            samples = round(number("seconds", SECONDS) * self.rate)
            return self._number(seed, request), samples, seed, temperature
        if request.get("audio") is None:
            raise DataError("audio is missing: this model makes a recording from the spectrogram of another one")
        if request.get("seconds") is not None:
            raise DataError("seconds: a vocoder's recording is as long as its spectrogram: leave seconds out")
        called = "audio" if request.get("row") is None else f"row {request['row']}"
        try:
            given = read_audio(request["audio"], self.rate)
        except DataError as error:
            raise DataError(f"{called}: {error}") from None
        most = round(SECONDS.most * self.rate)
        if len(given) > most + 2:  # resampling rounds lengths
            raise DataError(
                f"{called}: {len(given) / self.rate:.0f} seconds, at most {SECONDS.most:g} are made: cut it"
            )
        given = given[:most]
        return log_mel(given, self.mel), len(given), seed, temperature

    def _number(self, seed: int, request: Mapping[str, Any]) -> int:
        """The number of a class or speaker; without one, each seed has the next. Raises DataError."""
        from pipelines.config.validation_errors import suggest
        from pipelines.utils.formatting import short

        known, names = self.options.condition, self.labels or self.speakers
        for key in ("label", "speaker"):
            if key != known and request.get(key) is not None:
                raise DataError(f"{key}={short(str(request[key]))}: this model knows no {key}: leave it out")
        if not names:
            return 0
        value = request.get(known)
        if value is None:
            return seed % len(names)
        if str(value) not in names:
            raise DataError(
                f"{known}={short(str(value))}: this model knows {short(', '.join(names), 200)}"
                f"{suggest(str(value), names)}"
            )
        return names.index(str(value))

    def infer(
        self,
        model: Any,
        seed: Any = 0,
        label: str | None = None,
        speaker: str | None = None,
        seconds: float | None = None,
        temperature: float | None = None,
        audio: Any = None,
    ) -> Iterator[Sound]:
        """Yield the recording of one seed as it grows, every twentieth of a second; the last one is complete.

        `label` or `speaker` say what it is, if the model knows them; without it, the seeds take them in turn. A vocoder
        takes `audio` (path, bytes, or (rate, samples)) as its first argument, and makes a recording of its spectrogram.
        """
        if self.mel is not None and audio is None and not isinstance(seed, int):
            seed, audio = 0, seed
        from pipelines.models import wavenet

        asked = {"seed": seed, "label": label, "speaker": speaker, "seconds": seconds, "temperature": temperature}
        request = self._asked({**asked, "audio": audio})
        for samples in wavenet.growing(model, *request, every=max(1, self.rate // PIECES)):
            yield Sound(samples, self.rate)


def _per_sample(record: Record) -> float:
    """Nats of each sample of a row."""
    nats, samples = record["parts"]["loss"]
    return float(nats / samples)
