"""Warnings about data that are read as they are, but would make a score or a model worse."""

import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config.recipe import validate
from pipelines.data.image.reading import warn_if_dark
from pipelines.errors import RecipeError
from pipelines.metrics import speech_recognition, text_normalizers
from pipelines.models import ctc_vocabulary

WORD = "één"  # composed
APART = unicodedata.normalize("NFD", WORD)


@pytest.fixture(name="logged")
def what_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("graft"), "propagate", True)
    return caplog


# ---- letters that look the same ----


def test_one_spelling_is_learned() -> None:
    assert len(APART) == 5
    assert ctc_vocabulary.spelled(APART, "keep", "") == ctc_vocabulary.spelled(WORD, "keep", "") == WORD
    made = ctc_vocabulary.made(ctc_vocabulary.spelled(text, "keep", "") for text in (WORD, APART))
    assert sorted(token for token in made.get_vocab() if len(token) == 1) == ["n", "|", "é"]
    speller = ctc_vocabulary.Speller(made, "keep", "")
    assert speller(APART) == speller(WORD) != []
    assert not speller.strange


def test_a_vocabulary_of_letters_and_accents_is_spelled_with() -> None:
    speller = ctc_vocabulary.Speller(ctc_vocabulary.made([APART]), "keep", "")
    assert len(speller(WORD)) == 5
    assert not speller.strange
    assert ctc_vocabulary.Speller(ctc_vocabulary.made(["en"]), "keep", "")(WORD), (
        "what it has no letter for is left out"
    )


@pytest.mark.parametrize("normaliser", text_normalizers.NORMALISERS)
def test_equal_words_are_equal_when_scored(normaliser: str) -> None:
    found = speech_recognition.scores([{"id": "a", "true": WORD, "predicted": APART, "seconds": 1.0}], normaliser)
    assert (found["wer"], found["cer"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("texts", "tells"),
    [
        (["零一二。", "三四"], True),
        (["สวัสดีครับ"], True),
        (["カタカナ", "ひらがな"], True),
        (["zero", "one"], False),
        (["안녕 하세요"], False),
        (["नमस्ते"], False),
        (["he said 一"], False),
        (["1 2 3"], False),
    ],
)
def test_scripts_without_blanks(texts: list[str], tells: bool, logged: pytest.LogCaptureFixture) -> None:
    text_normalizers.warn_of_words(texts)
    assert ("wer says little; train.metric=cer" in logged.text) == tells


def test_letters_in_two_parts_are_counted(logged: pytest.LogCaptureFixture) -> None:
    text_normalizers.warn_of_words([WORD, APART, "n"])
    assert "1 transcripts write letters and their accents as two characters" in logged.text
    logged.clear()
    text_normalizers.warn_of_words([WORD])
    assert not logged.text


# ---- dark images ----


def dark(tmp_path: Path, high: int) -> list[dict[str, str]]:
    """Files of 16 bits whose values reach `high`."""
    for number in range(3):
        values = np.random.default_rng(number).integers(high // 2, high + 1, (8, 8)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
    return [{"image": str(tmp_path / f"{number}.tif")} for number in range(3)]


def test_nearly_black_images_are_reported(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    warn_if_dark(dark(tmp_path, 260), option=True)
    assert "3 of 3 images looked at are files of 16 bits whose values reach 260 of 65,535" in logged.text
    assert "set options.white=1023" in logged.text
    logged.clear()
    warn_if_dark(dark(tmp_path, 4000))
    assert "of 65,535, so they arrive dark: stretch them" in logged.text
    logged.clear()
    warn_if_dark(dark(tmp_path, 4000), 4095, option=True)
    warn_if_dark(dark(tmp_path, 40_000))
    warn_if_dark([*dark(tmp_path, 260), {"image": str(tmp_path / "nowhere.tif")}, *dark(tmp_path, 40_000)])
    assert not logged.text
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    warn_if_dark([{"image": str(tmp_path / "0.png")}] * 2)
    assert "all of 2 images looked at are nearly black: the brightest pixel is 0 of 255" in logged.text


# ---- licence and language ----


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("license", "Apache 2.0", r"hub.license: the hub knows no licence 'Apache 2.0': did you mean 'apache-2.0'\?"),
        ("license", "cc-by-sa-4", r"did you mean 'cc-by-sa-4.0'\?"),
        ("license", "proprietary", "the hub knows no licence 'proprietary'; one that it does not list is `other`"),
        ("license", "", "the hub knows no licence ''"),
        ("language", "English", r"hub.language: the hub knows no language 'English': did you mean 'en' \(english\)\?"),
        ("language", "en-US", r"did you mean 'en' \(english\)\?"),
        ("language", "germen", r"did you mean 'de' \(german\)\?"),
        ("license", "MIT License", r"did you mean 'mit'\?"),
        ("language", ["de", "xx"], "the hub knows no language 'xx'; give a code of two or three small letters"),
        ("language", "EN", r"did you mean 'en' \(english\)\?"),
    ],
)
def test_what_the_hub_would_refuse(key: str, value: str | list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        validate(
            {
                "task": "fill-mask",
                "model": {"id": "x"},
                "data": {"id": "y"},
                "train": {"max_steps": 1},
                "hub": {key: value},
            },
        )


def test_what_the_hub_takes() -> None:
    raw = {"task": "fill-mask", "model": {"id": "x"}, "data": {"id": "y"}, "train": {"max_steps": 1}}
    for hub in (
        {"license": "cc-by-4.0", "language": "no"},
        {"license": "other", "language": ["de", "gsw", "multilingual", "code"]},
        {},
    ):
        found = validate({**raw, "hub": hub}).hub
        assert (found.license, found.language) == (hub.get("license"), hub.get("language"))
