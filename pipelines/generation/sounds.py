"""Measure and draw the recordings that a run generated, each figure beside the same figure of real recordings.

Real recordings are those of the test rows that the requests came from (`row` of a request), or else of as many test
rows. Where both say the same words, or one was made of the other's spectrogram, they are also compared in pairs.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.data.audio import spectrogram
from pipelines.data.audio.mel import MelSettings, log_mel
from pipelines.data.audio.reading import read_audio
from pipelines.data.text.spoken import spoken
from pipelines.errors import DataError, GraftError, of_key
from pipelines.generation import opinion, recognisers, speakers
from pipelines.generation.audio import Sound
from pipelines.generation.spec import Request, Samples
from pipelines.metrics import generation, intervals, speech_recognition, speech_synthesis
from pipelines.plots import image_grids, recordings
from pipelines.plots.style import AGGREGATE, ROWS
from pipelines.utils.hardware import cores
from pipelines.utils.sequences import each, evenly_spaced

log = logging.getLogger("graft")

SHOWN = 8  # samples with a player on the card and in the report
LONGEST = 30.0  # seconds of a recording that are compared with others; what follows is left out
QUIET = 40.0  # dB below the loudest frame: frames so quiet at both ends are no part of a comparison
SEARCHED = 5000  # training recordings, evenly spread, among which copies are looked for
TAKES = 5  # training recordings of a speaker whose mean is the speaker's voice
VOICES = 100  # speakers of train among whom the nearest voice is looked for; more only if the samples have more
FRAMES, BANDS, DEPTH = 32, 40, 80.0  # of the small spectrogram by which copies are found; dB below its maximum
PIXELS, HEIGHT = 160, 96  # of a grid: columns for a second, lines
WIDEST = 480  # columns of a grid's recording
ROWS_TABLE = "by text"  # the table that shows texts of rows


class Judges(NamedTuple):
    """The models that measure recordings; None for what the recipe does not ask for."""

    recogniser: recognisers.Recogniser | None
    speakers: speakers.SpeakerModel | None
    opinions: opinion.Opinions | None


def judges(options: Any, device: Any) -> Judges:
    """Load the models that the recipe measures recordings by. Loaded before training so that errors surface early.

    Raises GraftErrors.
    """
    if not options.samples:
        return Judges(None, None, None)
    recogniser = speaker_model = None
    if options.recogniser is not None:
        with of_key("options.recogniser"):
            recogniser = recognisers.recogniser(options.recogniser, device)
    if options.speaker_model is not None:
        with of_key("options.speaker_model"):
            speaker_model = speakers.speaker_model(options.speaker_model, device)
    return Judges(recogniser, speaker_model, opinion.dnsmos() if options.dnsmos else None)


# ---- pictures ----


def grid(sounds: Sequence[Sound]) -> Any:
    """Recordings as spectrograms in two columns (a PIL image); a second is as wide in all of them."""
    return image_grids.grid([picture(sound) for sound in sounds], columns=2)


def picture(sound: Sound) -> Any:
    """The spectrogram of a recording as an RGB image: HEIGHT pixels high, PIXELS for a second."""
    import matplotlib
    from PIL import Image

    width = max(PIXELS // 4, min(WIDEST, round(PIXELS * len(sound.samples) / sound.rate)))
    loud = _loudness(sound, width)
    share = np.clip((loud - loud.max() + spectrogram.RANGE) / spectrogram.RANGE, 0, 1)
    colours = matplotlib.colormaps["magma"](share[::-1], bytes=True)[..., :3]
    return Image.fromarray(np.ascontiguousarray(colours)).resize((width, HEIGHT), Image.Resampling.BILINEAR)


def _loudness(sound: Sound, columns: int = 200) -> np.ndarray:
    """Decibels [bands, columns] for a picture, also of a recording without samples."""
    samples = np.nan_to_num(sound.samples) if len(sound.samples) else np.zeros(sound.rate // 20, np.float32)
    return spectrogram.decibels(samples, sound.rate, columns)


def _panel(title: str, sound: Sound) -> recordings.Panel:
    return title, _loudness(sound), len(sound.samples) / sound.rate


# ---- spectrograms that are compared ----


def settings(rate: int) -> MelSettings:
    """The spectrograms by which recordings of this rate are compared, whatever their model works on: windows of 32 ms
    every 10 ms, 40 bands up to 8 kHz, 80 above.
    """
    window = max(16, round(0.032 * rate))
    hop = max(1, round(0.010 * rate))
    return MelSettings(rate, 1 << (window - 1).bit_length(), window, hop, BANDS if rate <= 8000 else 2 * BANDS)


def spoken_part(mels: np.ndarray) -> np.ndarray:
    """A log-mel spectrogram without the quiet frames at both ends; all of it if it is quiet everywhere."""
    loud = mels.max(1)
    kept = np.flatnonzero(loud >= loud.max() - QUIET / speech_synthesis.DECIBELS)
    return mels[kept[0] : kept[-1] + 1]


def small(sound: Sound) -> np.ndarray:
    """The recording's spectrogram at a fixed size, [FRAMES * BANDS] float32, by which copies are found: as long as its
    speech lasts, in dB from its maximum, at least -DEPTH.
    """
    mels = spoken_part(_mels(sound))
    bands = mels.reshape(len(mels), BANDS, -1).mean(2)
    places = np.linspace(0, len(bands) - 1, FRAMES)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(bands) - 1)
    rest = (places - before)[:, None]
    even = (1 - rest) * bands[before] + rest * bands[after]
    found: np.ndarray = np.maximum(speech_synthesis.DECIBELS * (even - even.max()), -DEPTH).astype(np.float32).ravel()
    return found


class Take(NamedTuple):
    """A recording as it is compared."""

    sound: Sound
    """At most its first LONGEST seconds."""
    whole: bool
    """Whether that is all of it."""
    frames: int
    """From the first loud frame to the last one, of all of it."""


def take(sound: Sound) -> Take:
    most = round(LONGEST * sound.rate)
    return Take(Sound(sound.samples[:most], sound.rate), len(sound.samples) <= most, spoken_frames(sound))


def spoken_frames(sound: Sound) -> int:
    """The number of frames of `spoken_part`, of a recording of any length: LONGEST seconds are in memory at a time."""
    hop = settings(sound.rate).hop_length
    step = hop * round(LONGEST * sound.rate / hop)
    parts = [
        _mels(Sound(sound.samples[start : start + step], sound.rate)).max(1)
        for start in range(0, max(1, len(sound.samples)), step)
    ]
    loud = np.concatenate([*(part[: step // hop] for part in parts[:-1]), parts[-1]])  # ends of parts are there twice
    return len(spoken_part(loud[:, None]))


def _mels(sound: Sound) -> np.ndarray:
    """The log-mel spectrogram of a recording that may be empty or hold values that are no numbers."""
    return log_mel(np.nan_to_num(sound.samples, nan=0.0, posinf=1.0, neginf=-1.0), settings(sound.rate))


# ---- the measurements ----


@dataclass
class Scores:
    """One figure of all samples, and of all real recordings. NaN: this recording has none."""

    made: np.ndarray
    """[samples]; bool for a share."""
    real: np.ndarray | None = None
    """[real recordings], or None if there is no such figure of them."""
    share: bool = False
    """Whether each value is right or wrong."""


@dataclass
class Found:
    """What is known so far."""

    scores: dict[str, Scores] = field(default_factory=dict)
    records: tuple[list[dict[str, Any] | None], list[dict[str, Any] | None]] | None = None
    """Transcripts of samples and of real recordings, as pipelines.metrics.speech_recognition takes them. None for a
    real recording that was cut: its text says more than can be heard.
    """
    heard: list[str | None] | None = None
    voices: int = 0
    """Number of voices among which the nearest was looked for."""


@dataclass
class Material:
    """The samples, and the real recordings that they are compared with."""

    made: list[Sound]
    requests: Sequence[Request]
    numbers: list[int]
    """The test rows of the real recordings, each once."""
    takes: list[Take]
    """The real recordings."""
    rows: Any
    """The test split."""
    place: list[int | None]
    """For each sample the place of its own row in `takes`; None if it has none."""

    @property
    def real(self) -> list[Sound]:
        return [one.sound for one in self.takes]

    @property
    def units(self) -> np.ndarray:
        """[samples]: a number for each row; samples of one row say the same, so intervals draw them together."""
        rows = [request.get("row") for request in self.requests]
        return np.array([-1 - number if row is None else int(row) for number, row in enumerate(rows)])

    def column(self, name: str) -> list[Any] | None:
        """This column of the rows of the real recordings; None if the data have no such column."""
        if name not in self.rows.column_names:
            return None
        return [self.rows[number][name] for number in self.numbers]

    def asked(self, name: str) -> list[Any] | None:
        """What each request says of this; None if some request does not say it."""
        found = [request.get(name) for request in self.requests]
        return None if any(one is None for one in found) else found


def measured(samples: Samples, options: Any) -> dict[str, Any]:
    """Results of a run's generated recordings: {metrics, ci95, tables, figures, samples}."""
    judged: Judges = samples.judges
    rate = samples.results[0].rate
    material = _material(samples, rate)
    found = Found()
    with samples.progress.item("recordings to compare", len(material.made) + len(material.real)) as shown:
        _pairs(found, material, samples, rate)
        if judged.recogniser is not None:
            _recognised(found, material, judged.recogniser, getattr(options, "language", None))
        if judged.speakers is not None:
            _voices(found, material, samples, judged.speakers, rate)
        if judged.opinions is not None:
            made, real = judged.opinions(material.made), judged.opinions(material.real)
            found.scores |= {name: Scores(made[name], real[name]) for name in made}
        shown.advance(len(material.made) + len(material.real))
    copied, searched = _copies(found, material, samples, rate)
    metrics, ci95 = _metrics(found, material.units)
    seconds = sum(len(sound.samples) for sound in material.made) / rate
    published = [number for number in range(len(material.made)) if not copied[number]][:SHOWN]
    vocoder = getattr(options, "vocoder", None)
    about = {
        "n": len(material.made),
        "copies": int(copied.sum()),
        "compared": len(material.real),
        "reference": "test",
        "metrics": list(metrics),
        "rate": rate,
        "seconds": seconds,
        "real_time_factor": samples.seconds / seconds if seconds else None,
        "vocoder": recognisers.called(vocoder) if vocoder else "Griffin-Lim" if _speaks(options) else None,
        "recogniser": judged.recogniser.name if judged.recogniser is not None else None,
        "normaliser": recognisers.NORMALISER if found.records is not None else None,
        "spelled": found.records is not None and getattr(options, "language", None) is not None,
        "speaker_model": judged.speakers.name if judged.speakers is not None else None,
        "voices": found.voices,
        "measured": _measured(found, len(material.made)),
        "searched": searched,
        "published": published,
        "resynthesised": resynthesised(material.requests),
        "of_rows": any(place is not None for place in material.place),
        "rows": [ROWS_TABLE] if material.asked("text") else [],  # tables that show texts of rows
    }
    return {
        "metrics": metrics,
        "ci95": ci95,
        "tables": _tables(found, material, metrics),
        "figures": _figures(samples, material, copied),
        "samples": about,
    }


def resynthesised(requests: Sequence[Request]) -> bool:
    """Whether samples were made of recordings of rows, as a vocoder does: whoever hears them hears these rows."""
    return any(request.get("audio") is not None for request in requests)


def _speaks(options: Any) -> bool:
    """Whether the task makes recordings of spectrograms, so that a vocoder is part of it."""
    return "vocoder" in type(options).model_fields


def _material(samples: Samples, rate: int) -> Material:
    """The samples with the real recordings of their rows; without rows, of as many test rows. Raises DataError."""
    rows, requests = samples.splits.test, samples.requests
    asked = [request.get("row") for request in requests]
    if all(row is None for row in asked):
        wanted = evenly_spaced(_readable(samples, "test"), max(2, len(requests)))
    else:
        wanted = sorted({int(row) for row in asked if row is not None})
    numbers, real = _recordings(samples, "test", wanted, rate, take)
    places = {number: place for place, number in enumerate(numbers)}
    place = [None if row is None else places.get(int(row)) for row in asked]
    return Material(list(samples.results), requests, numbers, real, rows, place)


def _recordings(
    samples: Samples, split: str, numbers: Sequence[int], rate: int, use: Callable[[Sound], Any]
) -> tuple[list[int], list[Any]]:
    """What `use` makes of the recordings with these numbers that can be read; the others are counted as skipped."""
    rows, known = samples.splits[split], set(_readable(samples, split))

    def read(number: int) -> Any:
        return use(Sound(read_audio(rows[number]["audio"], rate, silent_ok=True), rate))

    wanted = [number for number in numbers if number in known]
    found = each(read, wanted, cores())
    bad = [(str(number), str(one)) for number, one in zip(wanted, found, strict=True) if isinstance(one, DataError)]
    samples.skips.add(split, bad)
    kept = [(number, one) for number, one in zip(wanted, found, strict=True) if not isinstance(one, DataError)]
    return [number for number, _ in kept], [one for _, one in kept]


def _readable(samples: Samples, split: str) -> list[int]:
    """Numbers of the readable rows, as `Skips` counts them."""
    skipped = samples.skips.found.get(split, {})
    return [number for number in range(len(samples.splits[split])) if str(number) not in skipped]


# ---- the same words, or the same recording ----


def _pairs(found: Found, material: Material, samples: Samples, rate: int) -> None:
    """Distances of each sample from the real recording of its row, where both say the same words. Beside them: of real
    recordings from another take of the same words by the same speaker, where the test rows have one.
    """
    kinds = ["audio" if "audio" in request else "text" if "text" in request else "" for request in material.requests]
    pairs = [
        None if place is None or not kind else (take(material.made[number]), material.takes[place], kind == "audio")
        for number, (place, kind) in enumerate(zip(material.place, kinds, strict=True))
    ]
    if not any(pairs):
        return
    takes = [
        None if other is None else (material.takes[place], other, False)
        for place, other in enumerate(_other_takes(material, samples, rate))
    ]
    names = ("mel_cepstral_distortion", "log_mel_distance", "duration_ratio")
    made, real = (
        np.array([_distances(*pair) if pair is not None else [math.nan] * len(names) for pair in some])
        for some in (pairs, takes)
    )
    for column, name in enumerate(names):
        found.scores[name] = Scores(made[:, column], real[:, column])


def _distances(made: Take, real: Take, same_time: bool) -> list[float]:
    """Mel-cepstral distortion, log-mel distance and ratio of durations of two recordings of one rate.

    `same_time`: one was made of the other's spectrogram, so frames of the same time are compared, and both are equally
    long. Otherwise recordings that were cut have no distance: they end at different words.
    """
    one, two = _mels(made.sound), _mels(real.sound)
    if same_time:
        frames = min(len(one), len(two))
        cut = one[:frames], two[:frames]
        cepstra = [speech_synthesis.cepstra(part) for part in cut]
        distortion = float(speech_synthesis.distortions(*cepstra).mean())
        return [distortion, speech_synthesis.log_mel_distance(*cut), math.nan]
    ratio = made.frames / real.frames
    if not (made.whole and real.whole):
        return [math.nan, math.nan, ratio]
    one, two = spoken_part(one), spoken_part(two)
    try:
        path = speech_synthesis.aligned(speech_synthesis.cepstra(one), speech_synthesis.cepstra(two))
    except DataError:  # too long to align
        return [math.nan, math.nan, ratio]
    apart = speech_synthesis.distortions(
        speech_synthesis.cepstra(one)[path[:, 0]], speech_synthesis.cepstra(two)[path[:, 1]]
    )
    return [float(apart.mean()), speech_synthesis.log_mel_distance(one, two, path), ratio]


def _other_takes(material: Material, samples: Samples, rate: int) -> list[Take | None]:
    """For each real recording another one of the same words by the same speaker, from the test rows; None if there is
    none. Of several it is the next one.
    """
    rows = material.rows
    if "text" not in rows.column_names:
        return [None] * len(material.real)
    texts = rows["text"]
    voices = rows["speaker"] if "speaker" in rows.column_names else [None] * len(rows)
    groups: dict[Any, list[int]] = {}
    for number in _readable(samples, "test"):
        groups.setdefault((texts[number], voices[number]), []).append(number)
    other: dict[int, int] = {}
    for number in material.numbers:
        group = groups.get((texts[number], voices[number]), [])
        if len(group) > 1 and number in group:
            other[number] = group[(group.index(number) + 1) % len(group)]
    numbers, found = _recordings(samples, "test", sorted(set(other.values())), rate, take)
    heard = dict(zip(numbers, found, strict=True))
    return [heard.get(other[number]) if number in other else None for number in material.numbers]


# ---- what is heard ----


def _recognised(found: Found, material: Material, judge: recognisers.Recogniser, language: str | None) -> None:
    """Error rates of transcripts, or the share of recordings whose first class is the one that was asked for.

    `language`: the texts were written out as they are spoken in it (None: they were not), and so are transcripts.
    """
    column = "text" if judge.labels is None else "label"
    wanted, true = material.asked(column), material.column(column)
    if wanted is None or true is None:
        log.warning("%s cannot judge these recordings: they have no %s", judge.name, column)
        return
    heard, real = judge.hear(material.made), judge.hear(material.real)
    found.heard = heard
    if judge.labels is None:
        found.records = (
            _transcripts([str(one) for one in wanted], heard, language),
            [
                record if one.whole else None
                for one, record in zip(
                    material.takes, _transcripts([str(one) for one in true], real, language), strict=True
                )
            ],
        )
        return
    unknown = sorted({str(one) for one in wanted} - set(judge.labels))
    if unknown:
        log.warning("%s does not know the class %s: it cannot tell what recordings say", judge.name, unknown[0])
        return
    found.scores["recognised"] = Scores(
        np.array([str(one) == other for one, other in zip(wanted, heard, strict=True)]),
        np.array([str(one) == other for one, other in zip(true, real, strict=True)]),
        share=True,
    )


def _transcripts(true: Sequence[str], heard: Sequence[str | None], language: str | None) -> list[dict[str, Any] | None]:
    """Records of transcripts; where nothing could be read, nothing was heard."""
    return [
        {"id": f"{number:06}", "true": one, "predicted": _as_spoken(other or "", language)}
        for number, (one, other) in enumerate(zip(true, heard, strict=True))
    ]


def _as_spoken(heard: str, language: str | None) -> str:
    """A transcript written out as the texts are: `42` that was heard is no error where the text is `forty-two`."""
    if language is None:
        return heard
    try:
        return spoken(heard, language)
    except GraftError:  # nothing but signs, or the library that writes numbers is not installed
        return heard


# ---- voices ----


def _voices(found: Found, material: Material, samples: Samples, judge: speakers.SpeakerModel, rate: int) -> None:
    """Cosines with the voice of the speaker, from training recordings; with several voices also who is nearest.

    All speakers of train are candidates; of more than VOICES those of the samples, and others, evenly spread.
    """
    train = samples.splits.train
    names = (
        [None if one is None else str(one) for one in train["speaker"]]
        if "speaker" in train.column_names
        else [""] * len(train)
    )
    true = material.column("speaker") if "speaker" in train.column_names else [""] * len(material.real)
    wanted = material.asked("speaker") if "speaker" in train.column_names else [""] * len(material.made)
    if wanted is None or true is None:
        log.warning("voices are not compared: the recordings have no speaker")
        return
    own = {str(one) for one in (*wanted, *true)}
    spoken_by: dict[str, list[int]] = {}
    for number in _readable(samples, "train"):
        if (name := names[number]) is not None:
            spoken_by.setdefault(name, []).append(number)
    own &= set(spoken_by)
    others = evenly_spaced(sorted(set(spoken_by) - own), max(2, VOICES - len(own)))
    chosen = {name: spoken_by[name] for name in sorted([*own, *others])}
    voices: dict[str, np.ndarray] = {}
    for name, numbers in chosen.items():
        _, heard = _recordings(samples, "train", evenly_spaced(numbers, TAKES), rate, take)
        if heard:
            voices[name] = speech_synthesis.voice(judge.embed([one.sound for one in heard]))
    if not voices:
        return
    made, real = judge.embed(material.made), judge.embed(material.real)
    found.scores["speaker_similarity"] = Scores(_alike(made, wanted, voices), _alike(real, true, voices))
    if len(voices) > 1:
        found.voices = len(voices)
        found.scores["right_speaker"] = Scores(_right(made, wanted, voices), _right(real, true, voices), share=True)


def _alike(embeddings: np.ndarray, names: Sequence[Any], voices: Mapping[str, np.ndarray]) -> np.ndarray:
    """The cosine of each embedding with its speaker's voice; NaN for a speaker without training recordings."""
    return np.array(
        [
            float(speech_synthesis.speaker_similarity(one, voices[str(name)])) if str(name) in voices else math.nan
            for one, name in zip(embeddings, names, strict=True)
        ]
    )


def _right(embeddings: np.ndarray, names: Sequence[Any], voices: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether the nearest voice is the speaker's; NaN for a speaker without training recordings.

    A recording without a voice, such as silence, is like nobody: wrong.
    """
    return np.array(
        [
            float(np.isfinite(one).all() and one.any() and speech_synthesis.nearest_speaker(one, voices) == str(name))
            if str(name) in voices
            else math.nan
            for one, name in zip(embeddings, names, strict=True)
        ]
    )


# ---- copies ----


def _copies(found: Found, material: Material, samples: Samples, rate: int) -> tuple[np.ndarray, int]:
    """Which samples are near copies of a training recording, [samples], and how many of these were searched."""
    numbers = evenly_spaced(_readable(samples, "train"), SEARCHED)
    with samples.progress.item("training recordings to search", len(numbers)) as shown:
        _, train = _recordings(samples, "train", numbers, rate, lambda sound: small(_begin(sound)))
        shown.advance(len(numbers))
    if len(train) < 2:
        return np.zeros(len(material.made), bool), 0
    known = np.stack(train)

    def near(sounds: Sequence[Sound]) -> np.ndarray:
        if not sounds:
            return np.zeros(0, bool)
        return generation.memorised(generation.nearest(np.stack([small(_begin(one)) for one in sounds]), known)[1])

    copied = near(material.made)
    found.scores["memorised"] = Scores(copied, near(material.real), share=True)
    return copied, len(train)


def _begin(sound: Sound) -> Sound:
    """The first LONGEST seconds."""
    return Sound(sound.samples[: round(LONGEST * sound.rate)], sound.rate)


# ---- figures and tables ----


def _metrics(found: Found, units: np.ndarray) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Means over the samples that have a value (`_measured` counts them), and error rates of transcripts.

    Intervals are from resamples of `units` [samples].
    """
    metrics: dict[str, float] = {}
    ci95: dict[str, list[float] | None] = {}
    if found.records is not None:
        made = [record for record in found.records[0] if record is not None]
        statistics = speech_recognition.statistics(made, recognisers.NORMALISER)
        own = speech_recognition.summarize(statistics, statistics.ones())
        groups = np.unique(units, return_inverse=True)[1]
        count = int(groups.max()) + 1
        drawn = intervals.resampled(lambda weights: speech_recognition.summarize(statistics, weights), groups)
        for name in ("wer", "cer"):
            metrics[name] = own[name]
            ci95[name] = intervals.bounds(drawn[name], count) if count > 1 else None
    for name, scores in found.scores.items():
        there = np.isfinite(scores.made)
        known = scores.made[there]
        if len(known):
            metrics[name] = float(known.mean())
            ci95[name] = intervals.of_mean(known.astype(bool) if scores.share else known, units[there])
    return metrics, {name: bounds for name, bounds in ci95.items() if bounds is not None}


def _measured(found: Found, count: int) -> dict[str, int]:
    """The number of samples that each figure is of, where that is not all of them: silence has no voice."""
    have = {name: int(np.isfinite(scores.made).sum()) for name, scores in found.scores.items()}
    return {name: number for name, number in have.items() if 0 < number < count}


def _tables(found: Found, material: Material, metrics: Mapping[str, float]) -> dict[str, list[dict[str, Any]]]:
    both = [
        {"set": "samples", "recordings": len(material.made), **_row(found, 0, np.arange(len(material.made)), metrics)},
        {"set": "real", "recordings": len(material.real), **_row(found, 1, np.arange(len(material.real)), metrics)},
    ]
    tables = {"samples and real recordings": both}
    for title, key in (("by speaker", "speaker"), (ROWS_TABLE, "text")):
        asked = material.asked(key)
        if asked is None:
            continue
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(asked):
            groups.setdefault(str(name), []).append(number)
        tables[title] = [
            {
                key: name,
                "recordings": len(places),
                **({"heard": _heard(found, places)} if key == "text" and found.heard is not None else {}),
                **_row(found, 0, np.array(places), metrics),
            }
            for name, places in sorted(groups.items())
        ]
    return tables


def _heard(found: Found, places: Sequence[int]) -> str:
    """The different things that were heard, the first three."""
    assert found.heard is not None
    return " / ".join(list(dict.fromkeys(found.heard[place] or "nothing" for place in places))[:3])


def _row(found: Found, side: int, places: np.ndarray, metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics of some samples (side 0) or real recordings (side 1); None where they have no such figure."""
    row: dict[str, float | None] = {}
    for name in metrics:
        if found.records is not None and name in ("wer", "cer"):
            some = [record for place in places if (record := found.records[side][place]) is not None]
            row[name] = speech_recognition.scores(some, recognisers.NORMALISER)[name] if some else None
            continue
        scores = found.scores[name]
        values = scores.made if side == 0 else scores.real
        known = values[places] if values is not None else np.zeros(0)
        known = known[np.isfinite(known)]
        row[name] = float(known.mean()) if len(known) else None
    return row


def _figures(samples: Samples, material: Material, copied: np.ndarray) -> dict[str, Any]:
    """Spectrograms of the samples without copies; of samples over the real ones of their rows; and over training."""
    figures: dict[str, Any] = {}
    shows = ROWS if resynthesised(material.requests) else AGGREGATE
    shown = [number for number in range(len(material.made)) if not copied[number]][: recordings.SHOWN]
    if shown:
        panels = [
            _panel(f"sample {number + 1}, seed {material.requests[number].get('seed', 0)}", material.made[number])
            for number in shown
        ]
        without = ", without copies of training recordings" if copied.any() else ""
        figures["samples"] = recordings.spectrograms_figure(panels, f"{len(panels)} samples{without}", shows)
    pairs = [
        (_panel(_called(material.requests[number]), material.made[number]), _panel("real", material.real[place]))
        for number, place in enumerate(material.place)
        if place is not None
    ]
    if pairs:
        figures["beside_real_recordings"] = recordings.beside_real_figure(pairs)
    if len(samples.grids) > 1:
        some = evenly_spaced(samples.grids, image_grids.MOMENTS)
        steps = [(f"step {int(path.stem[5:]):,}", _opened(path)) for path in some]
        shows = ROWS if copied.any() and not samples.publishes_rows else shows
        figures["over_training"] = image_grids.over_training(steps, shows, same="The same requests")
    return figures


def _called(request: Request) -> str:
    parts = [str(request[key]) for key in ("speaker", "label", "text") if request.get(key) is not None]
    return ": ".join(parts) or f"seed {request.get('seed', 0)}"


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")
