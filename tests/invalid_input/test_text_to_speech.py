"""Unusable input for text to speech: texts and recordings that do not fit, options, models, and requests."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipelines.config.recipe import DataSection, ModelSection, validate
from pipelines.data.loading import load_splits
from pipelines.errors import DataError, GraftError, ModelError, RecipeError
from pipelines.models.source import resolve
from pipelines.tasks.text_to_speech import Options, TextToSpeech
from tests.support import tiny_audio, tiny_speech
from tests.support.command import graft, refused

FLOW: dict[str, Any] = {
    "model_type": "flow_speech",
    "hidden_size": 8,
    "encoder_layers": 1,
    "duration_layers": 1,
    "decoder_size": 8,
    "decoder_layers": 1,
}
RAW: dict[str, Any] = {
    "task": "text-to-speech",
    "model": {"config": FLOW},
    "data": {"id": "c/d"},
    "train": {"epochs": 1},
}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right data of two voices; a test that changes it takes a copy."""
    return tiny_speech.speech(tmp_path_factory.mktemp("speech"))


def changed(folder: Path, change: Callable[[Path, list[Row]], list[Row] | None]) -> Path:
    """Right data whose training rows and clips `change` makes wrong."""
    tiny_speech.speech(folder)
    listing = folder / "train.jsonl"
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    rows = change(folder, rows) or rows
    listing.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def started(folder: Path, model: dict[str, Any] | None = None, **options: Any) -> tuple[TextToSpeech, Any, Any]:
    """The task with a model for these data, the model, and the splits."""
    task = TextToSpeech(Options(**options))
    splits = load_splits(DataSection(id=str(folder), max_skipped=1.0), task.data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = task.build(resolve(ModelSection.model_validate(model or {"config": FLOW})), splits).eval()
    return task, net, splits


def first(**cells: Any) -> Callable[[Path, list[Row]], None]:
    """The first row with other cells."""
    return lambda folder, rows: rows[0].update(cells)


def heard(samples: Any, rate: int = 16_000, **cells: Any) -> Callable[[Path, list[Row]], None]:
    """The first row with another recording (32-bit floats), and other cells."""

    def change(folder: Path, rows: list[Row]) -> None:
        tiny_audio.write(folder / "clips" / "other.wav", np.asarray(samples, np.float32), rate, subtype="FLOAT")
        rows[0].update({"audio": "clips/other.wav", **cells})

    return change


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)


# ---- rows ----


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("?! … ", "no text that can be spoken: it has neither a letter nor a digit"),
        ("😀🎉", "no text that can be spoken"),
        ("\u200b\u202e\x07", "text is empty"),
        ("\u20ac % &", "no text that can be spoken"),
        ("", "text is empty"),
        (None, "text is empty"),
        ("   ", "text is empty"),
        ("a" * 200_000, "a text of 200,000 characters; at most 100,000 are read: part it"),
        (["low"], "text holds list, and most other rows hold string"),
    ],
)
def test_a_text_that_cannot_be_said(text: Any, why: str, tmp_path: Path) -> None:
    splits = load_splits(
        DataSection(id=str(changed(tmp_path, first(text=text))), max_skipped=1.0), TextToSpeech(Options()).data
    )
    [(id_, reason)] = splits.skipped["train"]
    assert id_ == "train.jsonl:1"
    assert len(splits.train) == 11
    assert why in reason


def cut_off(folder: Path, rows: list[Row]) -> None:
    file = folder / "clips" / "train_0.wav"
    file.write_bytes(file.read_bytes()[:30])


def no_recording(folder: Path, rows: list[Row]) -> None:
    (folder / "clips" / "train_0.wav").write_text("a text that is called a recording")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            heard(noise(0.06), text="low mid high " * 30),
            "389 characters in 0.06 s: nobody speaks more than 40 per second",
        ),
        (heard(noise(15.0), text="low"), "15.0 s for 3 characters: the text is a part of what is said, or there is"),
        (heard(noise(0.001)), "1 milliseconds are too short: at least 50 are needed"),
        (heard(noise(21.0), text="low mid high " * 10), "at most 20 are read (options.max_seconds)"),
        (heard(np.full(8000, np.nan)), "other.wav"),
        (heard(np.full(8000, np.inf)), "other.wav"),
        (heard(np.zeros(8000)), "other.wav"),
        (cut_off, "Error in WAV file"),
        (no_recording, "not readable audio"),
        (first(speaker=None), "no speaker is named, so nobody knows whose voice it is"),
    ],
)
def test_a_recording_that_cannot_be_learned(
    change: Callable[[Path, list[Row]], None], why: str, tmp_path: Path
) -> None:
    task, _, splits = started(changed(tmp_path, change))
    encoded = task.encode(splits.train)
    assert encoded[1]["id"]  # the others can
    with pytest.raises(DataError) as error:
        _ = encoded[0]
    assert why in str(error.value)


def test_a_speaker_that_training_does_not_have(tmp_path: Path) -> None:
    task, _, splits = started(changed(tmp_path, lambda folder, rows: [{**row, "speaker": "ada"} for row in rows]))
    encoded, known = task.encode(splits.test), 0
    for number, speaker in enumerate(splits.test["speaker"]):
        if speaker == "ada":
            known += len(encoded[number]["mel"]) > 0
        else:
            with pytest.raises(DataError, match="speaker=bob: this model knows ada"):
                _ = encoded[number]
    assert known


def test_clipped_recordings_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    square = np.sign(np.sin(np.arange(16_000) / 5))
    task, _, splits = started(changed(tmp_path, heard(square)))
    with caplog.at_level(logging.WARNING, logger="graft"):
        assert len(task.encode(splits.train)[0]["mel"])
    assert "1 of 12 recordings looked at are clipped" in caplog.text


# ---- options and models ----


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_seconds": 0}, "options.max_seconds: must be above 0, got 0"),
        ({"max_seconds": float("nan")}, "options.max_seconds"),
        ({"language": 5}, "options.language: must be text"),
        ({"speed": 2}, "options.speed: unknown key"),
        ({"samples": -1}, "options.samples"),
    ],
)
def test_options_that_fit_no_model(options: dict[str, Any], error: str) -> None:
    with pytest.raises(RecipeError, match=error):
        validate({**RAW, "options": options})


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"hidden_size": 10**6}, "hidden_size: got 1000000, must be a whole number from 8 to 1,024"),
        ({"encoder_layers": -1}, "encoder_layers: got -1"),
        ({"dropout": float("nan")}, "dropout"),
        ({"what": 1}, "what is no key of flow_speech"),
        ({"speakers": ["a", "a"]}, "speakers comes from the data: leave it out"),
        ({"mel": "x"}, "mel: no settings of spectrograms"),
        ({"mel": {"hop_length": 0}}, "spectrograms need hop_length <= win_length <= n_fft"),
        ({"mel": {"sampling_rate": float("nan")}}, "mel: sampling_rate=nan is no setting of spectrograms"),
    ],
)
def test_a_configuration_that_makes_no_model(config: dict[str, Any], error: str, speech: Path) -> None:
    with pytest.raises(ModelError, match=f"model.config.*{error}"):
        started(speech, {"config": {**FLOW, **config}})


def test_vocoders_that_do_not_fit(speech: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"options\.vocoder: .* was trained on spectrograms with sampling_rate=16000, and the model makes them "
        "with sampling_rate=8000: choose another vocoder",
    ):
        started(speech, vocoder=str(tiny_speech.hifi_gan(tmp_path / "gan")))
    with pytest.raises(ModelError):
        started(speech, vocoder=str(speech))  # a folder of recordings
    with pytest.raises(GraftError):
        started(speech, vocoder=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"options\.speaker_embeddings: this is for SpeechT5"):
        started(speech, speaker_embeddings="learned")


def test_a_folder_of_a_stranger(speech: Path, tmp_path: Path) -> None:
    task, net, _ = started(speech)
    task.save(net, tmp_path / "right")
    right = json.loads((tmp_path / "right" / "config.json").read_text())
    assert TextToSpeech(Options()).load(tmp_path / "right")
    hostile: list[Any] = [
        {**right, "speakers": "abc"},
        {**right, "speakers": ["ada", "ada"]},
        {**right, "speakers": [["ada"]]},
        {**right, "speakers": [str(number) for number in range(200_000)]},
        {**right, "hidden_size": 10**9},
        {**right, "hidden_size": "8"},
        {**right, "decoder_layers": 1e308},
        {**right, "symbols": 5},
        {**right, "mel": {**right["mel"], "n_fft": 2**40}},
        {**right, "mel": None},
        {**right, "mel_mean": "nan"},
        {**right, "model_type": "../../flow_speech"},
        {key: value for key, value in right.items() if key != "model_type"},
        [right],
        None,
    ]
    for config in hostile:
        (tmp_path / "right" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError) as error:
            TextToSpeech(Options()).load(tmp_path / "right")
        assert len(str(error.value)) < 1000
    (tmp_path / "right" / "config.json").write_text("{")
    with pytest.raises(ModelError):
        TextToSpeech(Options()).load(tmp_path / "right")


# ---- requests ----


@pytest.fixture(scope="module")
def speaker(speech: Path) -> tuple[TextToSpeech, Any]:
    task, net, _ = started(speech)
    return task, net


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"text": ""}, "no text: write what is to be said"),
        ({"text": None}, "no text"),
        ({"text": 5}, "no text"),
        ({"text": "?!"}, "no text that can be spoken"),
        ({"text": "low " * 2000}, "8,000 characters are too much at once: give at most 5,000"),
        ({"speaker": "nobody"}, "speaker=nobody: this model knows ada, bob"),
        ({"speaker": "adda"}, "did you mean 'ada'"),
        ({"seed": "x"}, "'x' is no seed"),
        ({"seed": -1}, "seed -1: give a number from 0"),
        ({"speed": 9}, "speed=9: give a number from 0.25 to 4"),
        ({"speed": float("nan")}, "speed=nan: give a number"),
        ({"steps": 0}, "steps=0: give a whole number from 1 to 200"),
        ({"temperature": -1}, "temperature=-1: give a number from 0 to 2"),
    ],
)
def test_a_request_that_cannot_be_met(request_: dict[str, Any], error: str, speaker: tuple[TextToSpeech, Any]) -> None:
    task, net = speaker
    with pytest.raises(DataError, match=error):
        list(task.infer(net, **{"text": "low", **request_}))


# ---- as a user meets it ----


def recipe(folder: Path, data: Path, **options: Any) -> Path:
    raw = {**RAW, "data": {"id": str(data), "workers": 0}, "options": {"samples": 0, "grid": 0, **options}}
    path = folder / "voice.yaml"
    path.write_text(yaml.safe_dump({**raw, "train": {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-3}}))
    return path


def test_the_command_line_says_what_to_do(speech: Path, tmp_path: Path) -> None:
    def without_texts(folder: Path, rows: list[Row]) -> list[Row]:
        return [{key: value for key, value in row.items() if key != "text"} for row in rows]

    def of_one_each(folder: Path, rows: list[Row]) -> list[Row]:
        return [{**row, "speaker": f"s{number}"} for number, row in enumerate(rows)]

    def train(data: Path, *words: str, **options: Any) -> None:
        done = graft("train", recipe(tmp_path, data, **options), "--run", tmp_path / "run")
        refused(done, 2, *words)

    train(changed(tmp_path / "a", without_texts), "no column 'text'", "data.columns.text=NAME")
    train(changed(tmp_path / "b", of_one_each), "8 rows of validation cannot be read", "speaker=ada: this model knows")
    train(speech, "options.vocoder: ", "no model here", vocoder=str(tmp_path))
    train(speech, "options.recogniser: ", str(tmp_path), samples=1, recogniser=str(tmp_path))
    checked = graft("check", recipe(tmp_path, changed(tmp_path / "c", first(text="?!"))))
    assert "train.jsonl:1: no text that can be spoken" in checked.out + checked.err
    assert "Traceback" not in checked.out + checked.err
