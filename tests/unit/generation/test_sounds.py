"""What a run says of the recordings that it generated: samples built by hand, measured beside real recordings."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from pipelines.data.audio.mel import log_mel
from pipelines.data.filtering import Skips
from pipelines.data.schema import Splits
from pipelines.generation import sounds
from pipelines.generation.audio import Sound, Sounding
from pipelines.generation.recognisers import Recogniser
from pipelines.generation.sounds import Judges
from pipelines.generation.speakers import SpeakerModel
from pipelines.generation.spec import Samples
from pipelines.metrics import intervals
from pipelines.plots.style import AGGREGATE, ROWS
from tests.support import tiny_audio

RATE = 8000
NAMES = ("ann", "bob")
PITCH = {"ann": 1.0, "bob": 1.6}
TEXTS = ("low high", "mid low", "high mid low", "low low high")


class Options(Sounding):
    vocoder: str | None = None


def voice(name: str, text: str, seed: int) -> np.ndarray:
    """A sentence of tones; bob's are higher than ann's."""
    samples = tiny_audio.spoken(text, seed, rate=round(RATE / PITCH[name]))
    return samples


def split(folder: Path, name: str, takes: int) -> Dataset:
    rows = []
    for take in range(takes):
        for who in NAMES:
            for text in TEXTS:
                number = len(rows)
                file = tiny_audio.write(folder / f"{name}_{number}.wav", voice(who, text, 100 * takes + number), RATE)
                rows.append({"id": str(number), "audio": str(file), "text": text, "speaker": who, "take": take})
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    folder = tmp_path_factory.mktemp("spoken")
    train, validation, test = (split(folder, name, takes) for name, takes in (("t", 3), ("v", 1), ("e", 2)))
    return Splits(train, validation, test, None, {}, {}, {}, "spoken")


class Progress:
    @contextlib.contextmanager
    def item(self, name: str, size: int) -> Iterator[Any]:
        yield SimpleNamespace(advance=lambda n=1: None)


def embed(some: Any) -> np.ndarray:
    """A voice by its pitch: the mean frequency, as an angle."""
    found = []
    for one in some:
        power = np.abs(np.fft.rfft(one.samples, 4096)) ** 2
        angle = (power * np.linspace(0, np.pi / 2, len(power))).sum() / max(power.sum(), 1e-9)
        found.append((np.cos(angle), np.sin(angle)))
    return np.array(found)


def opinions(some: Any) -> dict[str, np.ndarray]:
    return {"dnsmos": np.array([float(np.abs(one.samples).max()) for one in some])}


def samples(
    splits: Splits, results: list[np.ndarray], requests: list[dict[str, Any]], judged: Judges, **more: Any
) -> Samples:
    totals = {name: len(splits[name]) for name in ("train", "validation", "test")}
    return Samples(
        [Sound(one, RATE) for one in results],
        requests,
        splits,
        lambda rows: rows,
        judged,
        Skips(0.5, {}, totals),
        Progress(),
        more.get("grids", []),
        False,
        seconds=3.0,
    )


def asked(splits: Splits, numbers: range) -> list[dict[str, Any]]:
    return [
        {"seed": number, "row": number, "text": splits.test[number]["text"], "speaker": splits.test[number]["speaker"]}
        for number in numbers
    ]


NOBODY = Judges(None, None, None)


def test_good_samples_are_near_and_bad_ones_far(splits: Splits) -> None:
    requests = asked(splits, range(8))
    good = [voice(one["speaker"], one["text"], 900 + one["row"]) for one in requests]
    rng = np.random.default_rng(0)
    bad = [(0.1 * rng.standard_normal(len(one))).astype(np.float32) for one in good]
    near = sounds.measured(samples(splits, good, requests, NOBODY), Options())
    far = sounds.measured(samples(splits, bad, requests, NOBODY), Options())
    for name in ("mel_cepstral_distortion", "log_mel_distance"):
        assert near["metrics"][name] < 0.7 * far["metrics"][name]
        low, high = near["ci95"][name]
        assert low <= near["metrics"][name] <= high
    assert near["metrics"]["duration_ratio"] == pytest.approx(1, abs=0.1)
    made, real = near["tables"]["samples and real recordings"]
    assert (made["set"], made["recordings"], real["set"], real["recordings"]) == ("samples", 8, "real", 8)
    assert made["mel_cepstral_distortion"] == near["metrics"]["mel_cepstral_distortion"]
    assert real["memorised"] == 0
    about = near["samples"]
    seconds = sum(map(len, good)) / RATE
    assert about["seconds"] == pytest.approx(seconds)
    assert about["real_time_factor"] == pytest.approx(3.0 / seconds)
    assert (about["n"], about["compared"], about["reference"], about["vocoder"]) == (8, 8, "test", "Griffin-Lim")
    assert about["metrics"] == list(near["metrics"])
    assert about["searched"] == 24
    assert about["copies"] == 0
    assert [row["speaker"] for row in near["tables"]["by speaker"]] == ["ann", "bob"]
    assert [row["recordings"] for row in near["tables"]["by text"]] == [2, 2, 2, 2]


def test_other_takes_of_the_same_words_are_the_measure_of_real_speech(splits: Splits) -> None:
    requests = asked(splits, range(8))  # the other takes are rows 8 to 15
    good = [voice(one["speaker"], one["text"], 900 + one["row"]) for one in requests]
    made, real = sounds.measured(samples(splits, good, requests, NOBODY), Options())["tables"][
        "samples and real recordings"
    ]
    assert real["mel_cepstral_distortion"] == pytest.approx(made["mel_cepstral_distortion"], rel=0.5)
    assert real["duration_ratio"] == pytest.approx(1, abs=0.2)
    single = Splits(splits.train, splits.validation, splits.test.select(range(8)), None, {}, {}, {}, "spoken")
    real = sounds.measured(samples(single, good, requests, NOBODY), Options())["tables"]["samples and real recordings"][
        1
    ]
    assert real["mel_cepstral_distortion"] is None


def test_a_real_recording_is_no_distance_from_itself_and_slower_is_as_near(splits: Splits) -> None:
    requests = asked(splits, range(4))
    same = [voice("ann", one["text"], 200 + one["row"]) for one in requests]
    found = sounds.measured(samples(splits, same, requests, NOBODY), Options())
    assert found["metrics"]["mel_cepstral_distortion"] == pytest.approx(0, abs=0.3)  # files have 16 bits
    quiet = [np.pad(0.3 * one, (RATE // 2, RATE)).astype(np.float32) for one in same]  # silence and loudness
    found = sounds.measured(samples(splits, quiet, requests, NOBODY), Options())
    assert found["metrics"]["duration_ratio"] == pytest.approx(1, abs=0.15)
    assert found["metrics"]["mel_cepstral_distortion"] < 3


def test_copies_of_training_rows_are_found_and_not_shown(splits: Splits) -> None:
    from pipelines.data.audio.reading import read_audio

    requests = asked(splits, range(3))
    results = [voice("ann", "high high", 77), read_audio(splits.train[5]["audio"], RATE), voice("bob", "mid", 78)]
    found = sounds.measured(samples(splits, results, requests, NOBODY), Options())
    assert found["metrics"]["memorised"] == pytest.approx(1 / 3)
    assert found["tables"]["samples and real recordings"][1]["memorised"] == 0
    assert found["samples"]["copies"] == 1
    assert found["samples"]["published"] == [0, 2]
    assert "without copies" in found["figures"]["samples"].get_label()
    assert "2 generated recordings" in found["figures"]["samples"].get_label()


def test_what_is_heard(splits: Splits) -> None:
    requests = asked(splits, range(4))
    results = [voice("ann", one["text"], 5) for one in requests]
    answers = iter([["low high", "mid", None, "low low high"], [one["text"] for one in requests]])
    judged = Judges(Recogniser("listener", lambda some: next(answers), None), None, None)
    found = sounds.measured(samples(splits, results, requests, judged), Options())
    # of 10 words, one of "mid low" and all three of "high mid low" are missing
    assert found["metrics"]["wer"] == pytest.approx(4 / 10)
    assert found["ci95"]["wer"][0] < 0.4 < found["ci95"]["wer"][1]
    made, real = found["tables"]["samples and real recordings"]
    assert (made["wer"], real["wer"]) == (pytest.approx(0.4), 0)
    assert {row["text"]: row["heard"] for row in found["tables"]["by text"]}["high mid low"] == "nothing"
    assert found["samples"]["recogniser"] == "listener"
    assert found["samples"]["normaliser"] == "basic"


def test_a_classifier_recognises_classes(splits: Splits, caplog: pytest.LogCaptureFixture) -> None:
    named = (one.add_column("label", one["speaker"]) for one in (splits.train, splits.validation, splits.test))
    labelled = Splits(*named, None, {}, {}, {}, "spoken")
    requests = [{"seed": number, "label": "ann"} for number in range(4)]
    results = [voice("ann", "low", number) for number in range(4)]
    answers = iter([["ann", "ann", "bob", None], list(labelled.test["label"])[:4]])
    judged = Judges(Recogniser("judge", lambda some: next(answers), ("ann", "bob")), None, None)
    found = sounds.measured(samples(labelled, results, requests, judged), Options())
    assert found["metrics"]["recognised"] == 0.5
    assert "mel_cepstral_distortion" not in found["metrics"]  # another recording of a class is no reference
    strange = Judges(Recogniser("judge", lambda some: ["x"] * len(some), ("x", "y")), None, None)
    found = sounds.measured(samples(labelled, results, requests, strange), Options())
    assert "recognised" not in found["metrics"]
    assert "judge does not know the class ann" in caplog.text


def test_voices_and_opinions(splits: Splits) -> None:
    requests = asked(splits, range(8))
    judged = Judges(None, SpeakerModel("pitch", embed), opinions)
    own = [voice(one["speaker"], one["text"], 50 + one["row"]) for one in requests]
    other = [voice("bob" if one["speaker"] == "ann" else "ann", one["text"], 50 + one["row"]) for one in requests]
    right = sounds.measured(samples(splits, own, requests, judged), Options())
    wrong = sounds.measured(samples(splits, other, requests, judged), Options())
    assert right["metrics"]["speaker_similarity"] > wrong["metrics"]["speaker_similarity"]
    assert right["metrics"]["right_speaker"] > 0.7 > 0.3 > wrong["metrics"]["right_speaker"]
    real = right["tables"]["samples and real recordings"][1]
    assert real["right_speaker"] > 0.7
    assert 0 < right["metrics"]["dnsmos"] < 1
    assert real["dnsmos"] is not None


def test_resynthesis_is_compared_frame_by_frame(splits: Splits) -> None:
    from pipelines.data.audio.reading import read_audio

    requests = [{"seed": number, "row": number, "audio": splits.test[number]["audio"]} for number in range(3)]
    same = [read_audio(one["audio"], RATE) for one in requests]
    late = [np.pad(one, (400, 0)) for one in same]  # 50 ms: a shift counts, where warping would hide it
    assert sounds.measured(samples(splits, same, requests, NOBODY), Options())["metrics"]["log_mel_distance"] == 0
    shifted = sounds.measured(samples(splits, late, requests, NOBODY), Options())
    assert shifted["metrics"]["log_mel_distance"] > 5


def test_silence_and_nothing_and_noughts_are_measured(splits: Splits) -> None:
    requests = asked(splits, range(3))
    results = [np.zeros(0, np.float32), np.zeros(4000, np.float32), np.full(4000, np.nan, np.float32)]
    judged = Judges(None, None, None)
    found = sounds.measured(samples(splits, results, requests, judged), Options())
    assert np.isfinite(list(found["metrics"].values())).all()
    assert sounds.grid([Sound(one, RATE) for one in results]).height > 2 * sounds.HEIGHT


def test_an_unreadable_row_is_left_out_and_counted(splits: Splits, tmp_path: Path) -> None:
    rows = splits.test.to_list()
    rows[1]["audio"] = str(tmp_path / "gone.wav")
    hurt = Splits(splits.train, splits.validation, Dataset.from_list(rows), None, {}, {}, {}, "spoken")
    requests = asked(hurt, range(4))
    given = samples(hurt, [voice("ann", one["text"], 3) for one in requests], requests, NOBODY)
    found = sounds.measured(given, Options())
    assert found["samples"]["compared"] == 3
    assert list(given.skips.found["test"]) == ["1"]


def test_figures_that_show_rows_stay(splits: Splits, tmp_path: Path) -> None:
    requests = asked(splits, range(2))
    results = [voice("ann", one["text"], 3) for one in requests]
    grids = []
    for step in (0, 100):
        grids.append(tmp_path / f"step_{step:06}.png")
        sounds.grid([Sound(one, RATE) for one in results]).save(grids[-1])
    found = sounds.measured(samples(splits, results, requests, NOBODY, grids=grids), Options())
    shows = {name: figure.get_gid() for name, figure in found["figures"].items()}
    assert shows == {"samples": AGGREGATE, "beside_real_recordings": ROWS, "over_training": AGGREGATE}
    assert not any(text in found["figures"]["samples"].get_label() for text in TEXTS)
    assert not found["samples"]["resynthesised"]
    requests = [{**one, "audio": splits.test[one["row"]]["audio"]} for one in requests]
    found = sounds.measured(samples(splits, results, requests, NOBODY, grids=grids), Options())
    assert {figure.get_gid() for figure in found["figures"].values()} == {ROWS}, "a vocoder's samples sound as the rows"
    assert found["samples"]["resynthesised"]


def test_a_second_is_as_wide_in_all_pictures() -> None:
    short, long = (sounds.picture(Sound(voice("ann", "low high", 0)[: round(RATE * s)], RATE)) for s in (0.25, 0.4))
    assert isinstance(short, Image.Image)
    assert (short.width, long.width) == (40, 64)
    assert short.height == sounds.HEIGHT


def test_without_samples_nothing_is_loaded() -> None:
    assert sounds.judges(Options(samples=0, recogniser="no/such", speaker_model="resemblyzer"), "cpu") == NOBODY


# ---- what must not flatter or blame ----


def measured_with(splits: Splits, results: list[np.ndarray], requests: list[dict[str, Any]], judged: Judges) -> Any:
    return sounds.measured(samples(splits, results, requests, judged), Options())


def test_durations_of_long_recordings_are_of_all_of_them(splits: Splits, tmp_path: Path) -> None:
    """Only 30 seconds of a real recording are compared; the sample was 40 seconds long as well."""
    tone = np.sin(np.arange(40 * RATE) * 0.3).astype(np.float32) * 0.3
    file = tiny_audio.write(tmp_path / "long.wav", tone, RATE)
    rows = [{**splits.test[0], "audio": str(file)}, *splits.test.to_list()[1:3]]
    long = Splits(splits.train, splits.validation, Dataset.from_list(rows), None, {}, {}, {}, "spoken")
    answers = iter([[TEXTS[0], TEXTS[1]], ["nothing of it", TEXTS[1]]])
    judged = Judges(Recogniser("listener", lambda some: next(answers), None), None, None)
    results = [tone, voice("ann", TEXTS[1], 5)]
    found = measured_with(long, results, asked(long, range(2)), judged)
    texts = {row["text"]: row for row in found["tables"]["by text"]}
    assert texts[TEXTS[0]]["duration_ratio"] == pytest.approx(1, abs=0.001)
    assert texts[TEXTS[0]]["mel_cepstral_distortion"] is None, "two that were cut end at different words"
    assert found["tables"]["samples and real recordings"][1]["wer"] == 0, "half of a recording does not say all words"


def test_frames_of_speech_are_counted_over_parts() -> None:
    rng = np.random.default_rng(0)
    loud = (0.1 * rng.standard_normal(62 * RATE)).astype(np.float32)
    loud[: 2 * RATE] = loud[61 * RATE :] = 0
    assert sounds.spoken_frames(Sound(loud, RATE)) == pytest.approx(59 * 100, abs=5)
    for short in (loud[: 5 * RATE], loud[2 * RATE : 32 * RATE]):
        mels = log_mel(short, sounds.settings(RATE))
        assert sounds.spoken_frames(Sound(short, RATE)) == len(sounds.spoken_part(mels))


def test_digits_that_are_heard_are_no_errors_where_texts_are_written_out(splits: Splits) -> None:
    class Speaks(Options):
        language: str = "en"

    rows = [{**row, "text": "it was forty-two"} for row in splits.test.to_list()[:2]]
    told = Splits(splits.train, splits.validation, Dataset.from_list(rows), None, {}, {}, {}, "spoken")
    results = [voice("ann", "low", 5), voice("bob", "low", 6)]
    for options, wrong in ((Speaks(), 0.0), (Options(), 0.5)):
        judged = Judges(Recogniser("listener", lambda some: ["It was 42."] * 2, None), None, None)
        found = sounds.measured(samples(told, results, asked(told, range(2)), judged), options)
        made, real = found["tables"]["samples and real recordings"]
        assert (made["wer"] > 0.1, real["wer"] > 0.1) == (wrong > 0, wrong > 0)
        assert found["samples"]["spelled"] == (wrong == 0)


def test_the_nearest_voice_is_looked_for_among_all_speakers_of_train(splits: Splits) -> None:
    """Samples of one speaker are not right because nobody else was asked for."""
    judged = Judges(None, SpeakerModel("pitch", embed), None)
    requests = [one for one in asked(splits, range(8)) if one["speaker"] == "ann"]
    wrong = [voice("bob", one["text"], 50 + one["row"]) for one in requests]
    found = measured_with(splits, wrong, requests, judged)
    assert found["metrics"]["right_speaker"] < 0.3
    assert found["samples"]["voices"] == 2
    unknown = [{**one, "speaker": "eve"} for one in requests[:1]]  # no training recording is hers
    found = measured_with(splits, wrong, unknown + requests[1:], judged)
    assert found["samples"]["measured"]["right_speaker"] == 3
    assert found["samples"]["measured"]["speaker_similarity"] == 3


def test_a_sample_without_a_voice_is_a_failure_and_missing_figures_are_counted(splits: Splits) -> None:
    def deaf(some: Any) -> np.ndarray:
        return np.array([embed([one])[0] if np.abs(one.samples).max() > 0 else (0.0, 0.0) for one in some])

    def strict(some: Any) -> dict[str, np.ndarray]:
        return {"dnsmos": np.array([1.0 if np.abs(one.samples).max() > 0 else np.nan for one in some])}

    requests = [one for one in asked(splits, range(8)) if one["speaker"] == "ann"]
    results = [voice("ann", one["text"], 50 + one["row"]) for one in requests]
    judged = Judges(None, SpeakerModel("pitch", deaf), strict)
    whole = measured_with(splits, results, requests, judged)
    assert whole["samples"]["measured"] == {}
    found = measured_with(splits, [np.zeros(4000, np.float32), *results[1:]], requests, judged)
    assert found["metrics"]["right_speaker"] <= whole["metrics"]["right_speaker"] - 0.2
    assert found["samples"]["measured"] == {"dnsmos": 3}


def test_samples_of_one_row_are_drawn_together(splits: Splits) -> None:
    requests = [one for one in asked(splits, range(3)) for _ in range(6)]
    results = [voice("ann", one["text"], 900 + one["row"]) for one in requests]
    answers = iter([[TEXTS[0]] * 18, [one["text"] for one in asked(splits, range(3))]])
    judged = Judges(Recogniser("listener", lambda some: next(answers), None), None, None)
    found = measured_with(splits, results, requests, judged)
    low, high = found["ci95"]["wer"]
    assert high - low > 0.9 * found["metrics"]["wer"], "three rows decide little, however often each was said"
    assert found["ci95"]["memorised"] == pytest.approx(intervals.all_alike(3, False))
