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
from pipelines.errors import DataError
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
LONGEST = 30.0  # seconds of a real recording that are compared; what follows is left out
QUIET = 40.0  # dB below the loudest frame: frames so quiet at both ends are no part of a comparison
SEARCHED = 5000  # training recordings, evenly spread, among which copies are looked for
TAKES = 5  # training recordings of a speaker whose mean is the speaker's voice
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
    return Judges(
        recognisers.recogniser(options.recogniser, device) if options.recogniser is not None else None,
        speakers.speaker_model(options.speaker_model, device) if options.speaker_model is not None else None,
        opinion.dnsmos() if options.dnsmos else None,
    )


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


@dataclass
class Found:
    """What is known so far."""

    scores: dict[str, Scores] = field(default_factory=dict)
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None
    """Transcripts of samples and of real recordings, as pipelines.metrics.speech_recognition takes them."""
    heard: list[str | None] | None = None


@dataclass
class Material:
    """The samples, and the real recordings that they are compared with."""

    made: list[Sound]
    requests: Sequence[Request]
    numbers: list[int]
    """The test rows of the real recordings, each once."""
    real: list[Sound]
    rows: Any
    """The test split."""
    place: list[int | None]
    """For each sample the place of its own row in `real`; None if it has none."""

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
            _recognised(found, material, judged.recogniser)
        if judged.speakers is not None:
            _voices(found, material, samples, judged.speakers, rate)
        if judged.opinions is not None:
            made, real = judged.opinions(material.made), judged.opinions(material.real)
            found.scores |= {name: Scores(made[name], real[name]) for name in made}
        shown.advance(len(material.made) + len(material.real))
    copied, searched = _copies(found, material, samples, rate)
    metrics, ci95 = _metrics(found)
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
        "speaker_model": judged.speakers.name if judged.speakers is not None else None,
        "searched": searched,
        "published": published,
        "resynthesised": resynthesised(material.requests),
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
    numbers, real = _recordings(samples, "test", wanted, rate)
    places = {number: place for place, number in enumerate(numbers)}
    place = [None if row is None else places.get(int(row)) for row in asked]
    return Material(list(samples.results), requests, numbers, real, rows, place)


def _recordings(
    samples: Samples, split: str, numbers: Sequence[int], rate: int, use: Callable[[Sound], Any] = lambda sound: sound
) -> tuple[list[int], list[Any]]:
    """Recordings with these numbers that can be read, or what `use` makes of each; the others are counted as skipped.

    At most LONGEST seconds of each.
    """
    rows, known = samples.splits[split], set(_readable(samples, split))

    def read(number: int) -> Any:
        return use(Sound(read_audio(rows[number]["audio"], rate, silent_ok=True)[: round(LONGEST * rate)], rate))

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
        None if place is None or not kind else (material.made[number], material.real[place], kind == "audio")
        for number, (place, kind) in enumerate(zip(material.place, kinds, strict=True))
    ]
    if not any(pairs):
        return
    takes = [
        None if other is None else (material.real[place], other, False)
        for place, other in enumerate(_other_takes(material, samples, rate))
    ]
    names = ("mel_cepstral_distortion", "log_mel_distance", "duration_ratio")
    made, real = (
        np.array([_distances(*pair) if pair is not None else [math.nan] * len(names) for pair in some])
        for some in (pairs, takes)
    )
    for column, name in enumerate(names):
        found.scores[name] = Scores(made[:, column], real[:, column])


def _distances(made: Sound, real: Sound, same_time: bool) -> list[float]:
    """Mel-cepstral distortion, log-mel distance and ratio of durations of two recordings of one rate.

    `same_time`: one was made of the other's spectrogram, so frames of the same time are compared.
    """
    one, two = _mels(made), _mels(real)
    if same_time:
        frames = min(len(one), len(two))
        cut = one[:frames], two[:frames]
        cepstra = [speech_synthesis.cepstra(part) for part in cut]
        distortion = float(speech_synthesis.distortions(*cepstra).mean())
        return [distortion, speech_synthesis.log_mel_distance(*cut), len(one) / len(two)]
    one, two = spoken_part(one), spoken_part(two)
    try:
        path = speech_synthesis.aligned(speech_synthesis.cepstra(one), speech_synthesis.cepstra(two))
    except DataError:  # too long to align
        return [math.nan, math.nan, len(one) / len(two)]
    apart = speech_synthesis.distortions(
        speech_synthesis.cepstra(one)[path[:, 0]], speech_synthesis.cepstra(two)[path[:, 1]]
    )
    return [float(apart.mean()), speech_synthesis.log_mel_distance(one, two, path), len(one) / len(two)]


def _other_takes(material: Material, samples: Samples, rate: int) -> list[Sound | None]:
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
    numbers, found = _recordings(samples, "test", sorted(set(other.values())), rate)
    heard = dict(zip(numbers, found, strict=True))
    return [heard.get(other[number]) if number in other else None for number in material.numbers]


# ---- what is heard ----


def _recognised(found: Found, material: Material, judge: recognisers.Recogniser) -> None:
    """Error rates of transcripts, or the share of recordings whose first class is the one that was asked for."""
    column = "text" if judge.labels is None else "label"
    wanted, true = material.asked(column), material.column(column)
    if wanted is None or true is None:
        log.warning("%s cannot judge these recordings: they have no %s", judge.name, column)
        return
    heard, real = judge.hear(material.made), judge.hear(material.real)
    found.heard = heard
    if judge.labels is None:
        found.records = (
            _transcripts([str(one) for one in wanted], heard),
            _transcripts([str(one) for one in true], real),
        )
        return
    unknown = sorted({str(one) for one in wanted} - set(judge.labels))
    if unknown:
        log.warning("%s does not know the class %s: it cannot tell what recordings say", judge.name, unknown[0])
        return
    found.scores["recognised"] = Scores(
        np.array([str(one) == other for one, other in zip(wanted, heard, strict=True)]),
        np.array([str(one) == other for one, other in zip(true, real, strict=True)]),
    )


def _transcripts(true: Sequence[str], heard: Sequence[str | None]) -> list[dict[str, Any]]:
    """Records of transcripts; where nothing could be read, nothing was heard."""
    return [
        {"id": f"{number:06}", "true": one, "predicted": other or ""}
        for number, (one, other) in enumerate(zip(true, heard, strict=True))
    ]


# ---- voices ----


def _voices(found: Found, material: Material, samples: Samples, judge: speakers.SpeakerModel, rate: int) -> None:
    """Cosines with the voice of the speaker, from training recordings; with several voices also who is nearest."""
    train = samples.splits.train
    names = [str(one) for one in train["speaker"]] if "speaker" in train.column_names else [""] * len(train)
    true = material.column("speaker") if "speaker" in train.column_names else [""] * len(material.real)
    wanted = material.asked("speaker") if "speaker" in train.column_names else [""] * len(material.made)
    if wanted is None or true is None:
        log.warning("voices are not compared: the recordings have no speaker")
        return
    own = {str(one) for one in (*wanted, *true)}
    chosen: dict[str, list[int]] = {name: [] for name in sorted(own)}
    for number in _readable(samples, "train"):
        if names[number] in own:
            chosen[names[number]].append(number)
    voices: dict[str, np.ndarray] = {}
    for name, numbers in chosen.items():
        _, heard = _recordings(samples, "train", evenly_spaced(numbers, TAKES), rate)
        if heard:
            voices[name] = speech_synthesis.voice(judge.embed(heard))
    if not voices:
        return
    made, real = judge.embed(material.made), judge.embed(material.real)
    found.scores["speaker_similarity"] = Scores(_alike(made, wanted, voices), _alike(real, true, voices))
    if len(voices) > 1:
        found.scores["right_speaker"] = Scores(_right(made, wanted, voices), _right(real, true, voices))


def _alike(embeddings: np.ndarray, names: Sequence[Any], voices: Mapping[str, np.ndarray]) -> np.ndarray:
    """The cosine of each embedding with its speaker's voice; NaN for a speaker without training recordings."""
    return np.array(
        [
            float(speech_synthesis.speaker_similarity(one, voices[str(name)])) if str(name) in voices else math.nan
            for one, name in zip(embeddings, names, strict=True)
        ]
    )


def _right(embeddings: np.ndarray, names: Sequence[Any], voices: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array(
        [
            speech_synthesis.nearest_speaker(one, voices) == str(name)
            for one, name in zip(embeddings, names, strict=True)
        ]
    )


# ---- copies ----


def _copies(found: Found, material: Material, samples: Samples, rate: int) -> tuple[np.ndarray, int]:
    """Which samples are near copies of a training recording, [samples], and how many of these were searched."""
    numbers = evenly_spaced(_readable(samples, "train"), SEARCHED)
    with samples.progress.item("training recordings to search", len(numbers)) as shown:
        _, train = _recordings(samples, "train", numbers, rate, small)
        shown.advance(len(numbers))
    if len(train) < 2:
        return np.zeros(len(material.made), bool), 0
    known = np.stack(train)

    def near(sounds: Sequence[Sound]) -> np.ndarray:
        if not sounds:
            return np.zeros(0, bool)
        return generation.memorised(generation.nearest(np.stack([small(one) for one in sounds]), known)[1])

    copied = near(material.made)
    found.scores["memorised"] = Scores(copied, near(material.real))
    return copied, len(train)


# ---- figures and tables ----


def _metrics(found: Found) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Means over the samples that have a value, with intervals from resamples of them; error rates of transcripts."""
    metrics: dict[str, float] = {}
    ci95: dict[str, list[float] | None] = {}
    if found.records is not None:
        statistics = speech_recognition.statistics(found.records[0], recognisers.NORMALISER)
        own = speech_recognition.summarize(statistics, statistics.ones())
        units = np.arange(len(found.records[0]))
        drawn = intervals.resampled(lambda weights: speech_recognition.summarize(statistics, weights), units)
        for name in ("wer", "cer"):
            metrics[name] = own[name]
            ci95[name] = intervals.bounds(drawn[name], len(units)) if len(units) > 1 else None
    for name, scores in found.scores.items():
        known = scores.made[np.isfinite(scores.made)]
        if len(known):
            metrics[name] = float(known.mean())
            ci95[name] = intervals.of_mean(known)
    return metrics, {name: bounds for name, bounds in ci95.items() if bounds is not None}


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
            some = [found.records[side][place] for place in places]
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
