"""`graft baseline` on odd texts, recordings and numbers: done right, or a clear error that names the row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from pipelines.baselines import learners, texts
from pipelines.baselines.baseline import baseline
from pipelines.baselines.features import FeatureSet
from pipelines.config.recipe import validate
from pipelines.errors import DataError
from pipelines.training.run import train
from tests.support import tiny_audio, tiny_text
from tests.support.runs import without_pictures

GOOD = np.ones((3, 2))
IDS = ["first", "second", "third"]


def with_value(value: float) -> np.ndarray:
    changed = GOOD.copy()
    changed[1, 1] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_a_number_that_is_not_finite_is_named_by_its_row(value: float, form: Any) -> None:
    with pytest.raises(DataError, match=r"second: HOG gives a number that is not finite"):
        learners.check_finite(form(with_value(value)), IDS, "HOG")


def test_huge_numbers_are_right() -> None:
    huge = np.full((3, 2), 1e308)
    assert learners.check_finite(huge, IDS, "HOG") is huge


def test_test_rows_are_checked_as_the_training_rows_are() -> None:
    features = FeatureSet("numbers", lambda rows: GOOD, lambda seed: [], ("logistic",))
    learned = learners.learn_steps(features, GOOD, IDS, 0)
    with pytest.raises(DataError, match="second: numbers gives"):
        learned.of(with_value(np.nan), IDS)


def test_no_training_rows() -> None:
    features = FeatureSet("numbers", lambda rows: GOOD, lambda seed: [], ("logistic",))
    with pytest.raises(DataError, match="numbers: there are no training rows"):
        learners.learn_steps(features, GOOD[:0], [], 0)
    with pytest.raises(DataError, match="linear SVM: there are no training rows"):
        learners.fit(learners.LEARNERS["linear_svm"], {"C": 1.0}, "class", 0, GOOD[:0], np.zeros(0, int), 2)


@pytest.mark.parametrize(
    ("labels", "kind", "says"),
    [
        (["cat", "wolf"], "class", "label 'wolf' is not one of the model's"),
        ([["cat"], ["cat", "wolf"]], "classes", "label 'wolf' is not one of the model's"),
        ([1.0, float("nan")], "number", "row 2: its label is not a number"),
    ],
)
def test_labels_that_cannot_be_learned(labels: list[Any], kind: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        learners.targets(labels, ["cat", "dog"], kind)


@pytest.mark.parametrize("text", ["?" * 50, "\u200b", "é" * 30_000, "x " * 30_000, "👍👎", "\n\t a", "ا ب ت", "𠮷野家"])
@pytest.mark.parametrize("kind", [texts.words, texts.characters])
def test_odd_texts_have_terms(text: str, kind: Any) -> None:
    (_, step), *_ = texts.steps(("text", "text_pair"), kind, texts.MOST, 0)
    numbers = step.fit_transform([(text, ""), ("a word", text)])
    assert np.isfinite(numbers.data).all()
    assert (numbers.getnnz(1) > 0).all()
    assert step.transform([("quite other", "words")]).shape == (1, numbers.shape[1])


@pytest.mark.integration
def test_a_run_whose_recordings_are_gone_says_so(tmp_path: Path) -> None:
    data = tiny_audio.labelled(tmp_path / "data")
    model = {"id": str(tiny_audio.wav2vec2(tmp_path / "model"))}
    settings = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
    section = {"id": str(data), "workers": 0}
    with without_pictures():
        train(
            validate({"task": "audio-classification", "model": model, "data": section, "train": settings}),
            tmp_path / "run",
        )
    results = (tmp_path / "run" / "results.json").read_bytes()
    (data / "clips" / "test_3.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"test.*(changed|other rows|cannot)"):
        baseline(tmp_path / "run")
    assert (tmp_path / "run" / "results.json").read_bytes() == results


@pytest.mark.integration
def test_texts_without_any_word_are_compared_too(tmp_path: Path) -> None:
    """All texts are signs: there is one term at most, and the run is still compared with the majority class."""
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": "!" * (1 + number % 7), "label": "odd" if number % 2 else "even"} for number in range(24)]
        (data / f"{split}.jsonl").write_text(
            "".join(json.dumps({**row, "id": f"{split}{i}"}) + "\n" for i, row in enumerate(rows))
        )
    model = {"id": str(tiny_text.bert(tmp_path / "model", "BertForSequenceClassification"))}
    settings = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
    section = {"id": str(data), "workers": 0}
    raw = {"task": "text-classification", "model": model, "data": section, "train": settings}
    with without_pictures():
        train(validate(raw), tmp_path / "run")
    found = baseline(tmp_path / "run")
    assert found["learners"][0]["name"] == "majority class"
    assert "TF-IDF of words" in {one["name"] for one in found["skipped"]}
    assert "TF-IDF of characters + linear SVM" in {one["name"] for one in found["learners"]}
