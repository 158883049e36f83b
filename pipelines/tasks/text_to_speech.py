"""Text to speech: a text becomes a recording, in one of the voices that the model learned.

A model makes a log-mel spectrogram of the text, and a vocoder makes a recording of it. Models: SpeechT5 (Ao et al.
2022, arXiv:2110.07205), fine-tuned or from random weights, and a small model of flow matching from random weights.
Rows hold `audio` and `text`, and optionally `speaker`: each speaker is a voice. The score is the loss on held-out rows,
whose true spectrogram the model sees (teacher forcing), with the same random numbers every time. Recordings are made
and measured after training. They are synthetic, and only voices whose owners agreed may be learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pipelines.config.recipe import Float
from pipelines.data.audio.reading import read_audio
from pipelines.data.schema import DataSpec
from pipelines.data.text.rows import readable
from pipelines.errors import DataError
from pipelines.generation.audio import Sound, Sounding, audio_generation
from pipelines.generation.spec import GenerationSpec, Request
from pipelines.task import Batch, Example, HubSpec, Record, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from pipelines.data.audio.spoken_rows import Spoken
    from pipelines.metrics.statistics import Statistics
    from pipelines.models.speech_synthesis import Family
    from pipelines.models.vocoders import Vocoder
    from pipelines.reporting.mistakes import MistakeSpec

MOST_CHARACTERS = 5000  # of one request; about six minutes of speech
PAUSE = 0.2  # seconds between the pieces of a long text


class Options(Sounding):
    models: ClassVar[tuple[str, ...]] = (*Sounding.models, "vocoder", "speaker_embeddings")
    learned: ClassVar[tuple[str, ...]] = ("language", "trim", "loudness")

    language: str = "en"
    """The language of the texts, as a code: en, nl. It decides how numbers and abbreviations are spelled out."""
    trim: bool = True
    """Cut off the silence at both ends of recordings."""
    loudness: bool = True
    """Bring recordings to one loudness."""
    max_seconds: Annotated[Float, Field(gt=0, le=60)] = 20.0
    """Longest recording in seconds. Longer ones are left out of training and scores, and counted."""
    vocoder: str | None = None
    """The model that makes recordings of spectrograms: HiFi-GAN (microsoft/speecht5_hifigan) or a WaveNet of Graft, as
    a hub id, run folder or model folder. Left out: Griffin-Lim, which needs no model and sounds worse.
    """
    speaker_embeddings: str | None = None
    """SpeechT5 only. How a voice is described: `learned`, an embedding of each speaker that trains beside the model, or
    the x-vectors of a speaker verification model (folder or hub id of transformers' ...ForXVector), averaged over each
    speaker's training rows. Left out: learned.
    """
    freeze_batch_norm: bool | None = None
    """SpeechT5 only. Whether batch norms keep their statistics in training. Left out: true, unless weights are random.
    If false, the loss depends on how a step is split into batches.
    """


class TextToSpeech(Task):
    name = "text-to-speech"
    hub = HubSpec("text-to-speech", "transformers", ("ForTextToSpeech",), adapter_alone=False)
    Options = Options
    family: "Family | None" = None  # after `build` or `load`

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.speakers: list[str] = []  # the voices that the model knows
        self.vocoder: str | None = self.options.vocoder
        self.voiced: tuple[str, Vocoder] | None = None  # on a device

    @property
    def data(self) -> DataSpec:
        return DataSpec(
            columns={"audio": "audio", "text": "text"},
            optional_columns={"speaker": "text", "label": "label"},
            input_columns=("text",),
            optional_inputs=("speaker",) if len(self.speakers) > 1 else (),
            from_model=self._read_inputs,
            clean=self._clean,
            example=self._shown,
        )

    @property
    def generation(self) -> GenerationSpec:
        known = self.family
        return audio_generation(
            self.options,
            generate=self._generate,
            requests=self._requests,
            defaults=lambda seed: {
                **(dict(known.defaults) if known is not None else {}),
                **({"speaker": self.speakers[seed % len(self.speakers)]} if self.speakers else {}),
            },
            settings=known.settings if known is not None else {},
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        from pipelines.models.speech_synthesis import PARTS

        return PARTS if self.family is None else self.family.parts

    # ---- before training ----

    def _clean(self, row: dict[str, Any]) -> dict[str, Any]:
        from pipelines.data.text.spoken import spoken

        speaker = {"speaker": None if row["speaker"] in (None, "") else str(row["speaker"])} if "speaker" in row else {}
        return {**row, "text": spoken(readable(row, "text", numbers=True), self.options.language), **speaker}

    def _shown(self, row: dict[str, Any]) -> dict[str, Any]:
        rate = self._known.mel.sampling_rate
        speaker = {"speaker": row["speaker"]} if row.get("speaker") is not None else {}
        return {"audio": (rate, read_audio(row["audio"], rate)), "text": row["text"], **speaker}

    @property
    def _known(self) -> "Family":
        """The family of the model. `build` or `load` comes first."""
        assert self.family is not None
        return self.family

    def build(self, source: Any, splits: Any) -> "nn.Module":
        from pipelines.models import speaker_vectors, speech_synthesis

        rows = splits.train
        names = {one for one in rows["speaker"][:] if one is not None} if "speaker" in rows.column_names else set()
        speakers, vectors = sorted(names), None
        if self.options.speaker_embeddings not in (None, "learned"):
            vectors = speaker_vectors.of_speakers(rows, speakers, self.options.speaker_embeddings)
        model, self.family = speech_synthesis.build(source, rows["text"][:], speakers, self.options, vectors)
        self._know()
        return model

    def _know(self) -> None:
        self.speakers = list(self._known.speakers)
        self._vocoder("cpu")  # so that a vocoder that does not fit is found before the training

    def _vocoder(self, device: Any) -> "Vocoder":
        from pipelines.models import vocoders

        if self.voiced is None or self.voiced[0] != str(device):
            self.voiced = str(device), vocoders.vocoder(self.vocoder, self._known.mel, device)
        return self.voiced[1]

    def layers(self, model: Any) -> "list[nn.Module]":
        return self._known.layers(model)

    def encode(self, rows: Any) -> "Spoken":
        from pipelines.data.audio.recordings import Recordings
        from pipelines.data.audio.speech import implausible
        from pipelines.data.audio.spoken_rows import Spoken

        family = self._known

        def fields(row: dict[str, Any], seconds: float) -> dict[str, Any]:
            why = implausible(len(row["text"]), seconds)
            if why:
                raise DataError(why)
            if self.speakers and row.get("speaker") is None:
                raise DataError("no speaker is named, so nobody knows whose voice it is")
            return {"tokens": family.tokens(row["text"]), "speaker": self._number(row.get("speaker"))}

        recordings = Recordings(rows, family.mel.sampling_rate, self.options.max_seconds, fields)
        return Spoken(
            recordings,
            family.mel,
            family.frames,
            trim=self.options.trim,
            loudness=self.options.loudness,
            tokens_have_frames=family.tokens_have_frames,
        )

    def _number(self, speaker: Any) -> int:
        """The number of a voice. Raises DataError for a speaker that the model does not know."""
        from pipelines.config.validation_errors import suggest
        from pipelines.utils.formatting import short

        if not self.speakers:
            if speaker is not None:
                raise DataError(f"speaker={short(str(speaker))}: this model has one voice: leave the speaker out")
            return 0
        if speaker is None:
            if len(self.speakers) == 1:
                return 0
            raise DataError("no speaker is named, and this model has several voices")
        if str(speaker) not in self.speakers:
            raise DataError(
                f"speaker={short(str(speaker))}: this model knows {short(', '.join(self.speakers), 200)}"
                f"{suggest(str(speaker), self.speakers)}"
            )
        return self.speakers.index(str(speaker))

    def random_inputs(self, rng: Random) -> dict[str, Any]:
        return self._known.random_inputs(rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        return self._known.collate(examples)

    # ---- one step ----

    def counts(self, batch: Batch) -> dict[str, float]:
        return self._known.counts(batch)

    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        return self._known.loss(model, batch, counts)

    # ---- after training ----

    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        from pipelines.metrics import mean_loss

        found = self._known.scores(model, batch)
        return [mean_loss.record(id_, parts) for id_, parts in zip(batch["id"], found, strict=True)]

    def statistics(self, records: Sequence[Record], rows: Any) -> "Statistics":
        from pipelines.metrics import mean_loss

        return mean_loss.statistics(records)

    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        from pipelines.metrics import mean_loss

        return mean_loss.summarize(statistics, weights, mean_loss.names(statistics))

    def tables(self, records: Sequence[Record], rows: Any) -> dict[str, list[dict[str, Any]]]:
        from pipelines.metrics import mean_loss

        if rows is None or "speaker" not in rows.column_names or len(self.speakers) < 2:
            return {}
        return {"by speaker": mean_loss.table(records, dict(zip(rows["id"], rows["speaker"], strict=True)), "speaker")}

    @property
    def mistakes(self) -> "MistakeSpec":
        from pipelines.reporting.mistakes import hardest_recordings

        return hardest_recordings()

    # ---- the model folder ----

    def save(self, model: Any, folder: Path) -> None:
        from pipelines.models import vocoders

        self._known.save(model, folder)
        vocoders.keep(self.vocoder, folder)

    def _read_inputs(self, folder: Path) -> None:
        from pipelines.models import speech_synthesis

        self.speakers = speech_synthesis.speakers_of(folder)

    def load(self, folder: Path) -> "nn.Module":
        from pipelines.models import speech_synthesis, vocoders

        self.vocoder = vocoders.kept(folder) or self.options.vocoder
        model, self.family = speech_synthesis.load(folder, self.options)
        self._know()
        ready: nn.Module = model.eval()
        return ready

    # ---- recordings ----

    def _requests(self, rows: Any, count: int) -> list[dict[str, Any]]:
        """Texts of rows, each with its speaker and label; the speakers in turn, and other labels each time."""
        columns = [name for name in ("text", "speaker", "label") if name in rows.column_names]
        table = [
            (number, {key: value for key, value in row.items() if value is not None})
            for number, row in enumerate(rows.select_columns(columns))
        ]
        known = [(number, row) for number, row in table if not self.speakers or row.get("speaker") in self.speakers]
        voices: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
        for number, row in known or [(number, {"text": row["text"]}) for number, row in table]:
            voices.setdefault(row.get("speaker"), []).append((number, row))
        turns = []
        for place, name in enumerate(sorted(voices, key=str)):
            own = _in_turn(voices[name])
            turns.append(cycle(own[place % len(own) :] + own[: place % len(own)]))
        found = []
        for seed in range(count):
            for _ in table:
                number, row = next(turns[seed % len(turns)])
                speaker = {} if self.speakers else {"speaker": None}
                request = {key: value for key, value in {**row, **speaker}.items() if value is not None}
                request |= {"seed": seed, "row": number}
                if self._can_be_said(request):
                    found.append(request)
                    break
        if count and not found:
            raise DataError("samples: no text of the split can be said (set options.samples=0 and options.grid=0)")
        return found

    def _can_be_said(self, request: Request) -> bool:
        """Whether a row has a text that the model reads. Other rows are counted as skipped where they are scored."""
        try:
            self._asked(request)
        except DataError:
            return False
        return True

    def _generate(self, model: Any, requests: Sequence[Request]) -> list[Any]:
        """The recordings of several requests. Their pieces are spoken together."""
        asked = [self._asked(request) for request in requests]
        parts: list[list[np.ndarray]] = [[] for _ in requests]
        for place in range(max(map(len, asked), default=0)):
            numbers = [number for number, pieces in enumerate(asked) if place < len(pieces)]
            sounds = self._spoken(model, [asked[number][place] for number in numbers])
            for number, samples in zip(numbers, sounds, strict=True):
                parts[number].append(samples)
        return [self._joined(own) for own in parts]

    def _asked(self, request: Request) -> list[dict[str, Any]]:
        """A request as the family takes it, once for each piece of its text. Raises DataError."""
        from pipelines.data.text.spoken import spoken
        from pipelines.data.text.spoken_pieces import pieces
        from pipelines.generation import requests

        family, text = self._known, request.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError("no text: write what is to be said")
        if len(text) > MOST_CHARACTERS:
            raise DataError(f"{len(text):,} characters are too much at once: give at most {MOST_CHARACTERS:,}")
        words = spoken(text, self.options.language)
        if len(words) > MOST_CHARACTERS:  # numbers and symbols become words
            raise DataError(
                f"{len(words):,} characters, as the text is spoken, are too much: give at most {MOST_CHARACTERS:,}"
            )
        settings = dict(family.defaults)
        for key in ("speed", "temperature", "steps"):
            value = request.get(key)
            if value is None:
                continue
            if key not in family.settings:
                known = f"it has {', '.join(family.settings)}" if family.settings else "it has none"
                raise DataError(f"{key}={value}: this model has no such setting ({known}): leave it out")
            settings[key] = requests.number(key, str(value), family.settings[key])
        seed, speaker = requests.check_seed(request.get("seed", 0)), request.get("speaker")
        if speaker is None and self.speakers:
            speaker = self.speakers[seed % len(self.speakers)]
        number = self._number(speaker)
        return [
            {"tokens": family.tokens(piece), "speaker": number, "seed": (seed + place) % 2**63, **settings}
            for place, piece in enumerate(pieces(words))
        ]

    def _spoken(self, model: Any, asked: Sequence[Mapping[str, Any]]) -> "list[np.ndarray]":
        mels = self._known.speak(model, asked)
        return self._vocoder(next(model.parameters()).device)(mels, [one["seed"] for one in asked])

    def _joined(self, parts: "Sequence[np.ndarray]") -> Sound:
        """The pieces of a text with pauses between them."""
        import numpy as np

        rate = self._known.mel.sampling_rate
        pause = np.zeros(round(PAUSE * rate), np.float32)
        spaced = [one for part in parts for one in (pause, part)][1:]
        return Sound(np.concatenate(spaced), rate)

    def infer(
        self,
        model: Any,
        text: Any,
        speaker: str | None = None,
        seed: Any = 0,
        label: str | None = None,
        speed: float | None = None,
        temperature: float | None = None,
        steps: int | None = None,
    ) -> Iterator[Sound]:
        """Yield the recording of a text, which grows piece by piece if the text is long; the last one is complete.

        `speaker` is one of the model's voices; without it, the seeds take the voices in turn. `speed`, `temperature`
        and `steps` are for models that have such a setting. `label` is the class of the text in the data, which a
        recogniser is to hear; it changes nothing. Raises DataError.
        """
        request = {"text": text, "speaker": speaker, "seed": seed}
        request |= {"speed": speed, "temperature": temperature, "steps": steps}
        parts: list[np.ndarray] = []
        for piece in self._asked(request):
            parts += self._spoken(model, [piece])
            yield self._joined(parts)


def _in_turn(rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Numbered rows in an order in which neighbours have other labels; without labels, other texts."""
    kinds: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in rows:
        kinds.setdefault(str(row.get("label", row["text"])), []).append((number, row))
    longest = max(map(len, kinds.values()))
    return [own[turn] for turn in range(longest) for own in kinds.values() if turn < len(own)]
