"""What decides for a classical learner: planted words and parts are found."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from pipelines.baselines import explanations, learners, texts
from pipelines.baselines.features import FeatureSet
from pipelines.models import attribution
from pipelines.plots.baselines import Beside

TEXTS = ["meow purr the", "purr the meow", "bark the", "the woof bark"] * 3
LABELS = ["cat", "dog"]


def of_words() -> FeatureSet:
    task: Any = SimpleNamespace(data=SimpleNamespace(input_columns=("text",), labels=("cat", "dog")))
    return texts.feature_sets(task)[0]


def of_numbers(count: int = 3) -> FeatureSet:
    return FeatureSet(
        "numbers", lambda rows: rows, lambda seed: [], (), names=lambda steps: [f"number {i}" for i in range(count)]
    )


def fitted(key: str, kind: Any, numbers: Any, target: np.ndarray, classes: int = 2) -> learners.Fitted:
    one = learners.LEARNERS[key]
    return learners.fit(one, one.grid[-1], kind, 0, numbers, target, classes)


def explained(key: str, kind: Any, target: np.ndarray, labels: list[str] = LABELS) -> dict[str, Any]:
    """Of a learner of TEXTS, or of three numbers of which the first decides."""
    if key == "random_forest":
        features = of_numbers()
        entries: Any = np.random.default_rng(0).normal(size=(len(target), 3))
        entries[:, 0] = target if target.ndim == 1 else target[:, 0]
    else:
        features, entries = of_words(), [(text,) for text in TEXTS]
    learned = learners.learn_steps(features, entries, [str(i) for i in range(len(target))], 0)
    found = explanations.explain(features, learned, fitted(key, kind, learned.numbers, target, len(labels)), labels)
    assert found is not None
    return found


ONE = np.array([0, 0, 1, 1] * 3)


@pytest.mark.parametrize("key", ["logistic", "linear_svm"])
def test_words_of_two_classes(key: str) -> None:
    found = explained(key, "class", ONE)
    assert found["content"]
    cat, dog = found["answers"]
    assert (cat["answer"], dog["answer"]) == ("cat", "dog")
    assert {"purr", "meow"} <= {name for name, _ in cat["for"]}
    assert "bark" in {name for name, _ in cat["against"]}
    assert [weight for _, weight in cat["for"]] == sorted((weight for _, weight in cat["for"]), reverse=True)
    assert dict(cat["against"]) == {name: -weight for name, weight in dog["for"]}


def test_a_class_without_rows_and_one_label_for_all() -> None:
    found = explained("logistic", "class", ONE, ["cat", "dog", "yak"])
    assert [one["answer"] for one in found["answers"]] == ["cat", "dog"]
    several = np.stack([ONE == 0, np.ones(12, dtype=bool)], 1)
    cat, every = explained("linear_svm", "classes", several)["answers"]
    assert "purr" in {name for name, _ in cat["for"]}
    assert every == {"answer": "dog", "for": [], "against": []}  # all rows have it, so no word decides


def test_words_of_a_number() -> None:
    (found,) = explained("ridge", "number", np.where(ONE == 0, 5.0, 1.0))["answers"]
    assert found["answer"] is None
    assert "purr" in {name for name, _ in found["for"]}
    assert "bark" in {name for name, _ in found["against"]}


def test_the_feature_that_decides_for_a_forest() -> None:
    found = explained("random_forest", "class", ONE)
    assert found["features"][0][0] == "number 0"
    assert "trees" in found["about"]
    assert not found["content"]
    assert not found["answers"]


def test_features_without_names_have_no_list() -> None:
    features = FeatureSet("HOG", lambda rows: rows, lambda seed: [], ())
    numbers = np.arange(24, dtype=float).reshape(12, 2)
    learned = learners.learn_steps(features, numbers, list("abcdefghijkl"), 0)
    learner = fitted("logistic", "class", numbers, ONE)
    assert explanations.explain(features, learned, learner, LABELS) is None
    photo = Beside(np.zeros((2, 2, 3), np.uint8), "cat", ("cat", "cat"), (np.zeros((1, 1)),) * 2)
    found = explanations.explain(features, learned, learner, LABELS, [photo])
    assert found is not None
    assert (found["about"], found["maps"]) == ("", explanations.MAPS)


def test_names_are_one_printable_line() -> None:
    assert explanations.readable(" th") == "␣th"
    assert explanations.readable("a\x1b[31m") == "a�[31m"
    assert len(explanations.readable("x" * 999)) == 40
    assert explanations.readable("") == "(no word)"


# ---- maps ----


class Halves:
    """A stand-in for an image classifier: its class 1 is bright on the right."""

    labels = LABELS
    options = SimpleNamespace(white=None)

    def prepare(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"pixels": torch.tensor(np.asarray(one["image"]) / 255.0).permute(2, 0, 1).float()} for one in asked]

    def parts(self, model: Any, row: dict[str, Any]) -> attribution.Parts:
        (example,) = self.prepare([row])

        def logits(inputs: torch.Tensor) -> torch.Tensor:
            bright = inputs[..., inputs.shape[-1] // 2 :].mean((1, 2, 3))
            return torch.stack([-bright, bright], 1)

        return attribution.of_image(example["pixels"], logits)


def left(rows: Any) -> np.ndarray:
    return np.stack([np.asarray(row["image"])[:, :16].mean(keepdims=True).ravel() / 255 for row in rows])


def test_both_maps_show_what_each_looks_at() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[12:20, 4:12] = pixels[12:20, 20:28] = 255
    rows = Dataset.from_dict({"id": ["a"], "image": [Image.fromarray(pixels)]})
    features = FeatureSet("left half", left, lambda seed: [], ())
    numbers = np.linspace(0, 0.25, 12)[:, None]
    learned = learners.learn_steps(features, numbers, list("abcdefghijkl"), 0)
    learner = fitted("logistic", "class", numbers, np.array([0] * 6 + [1] * 6))
    records = [{"id": "a", "true": "dog", "predicted": "dog"}]
    (found,) = explanations.beside(
        Halves(), torch.nn.Identity(), features, learned, learner, rows, records, [{**records[0], "predicted": "cat"}]
    )
    assert (found.true, found.answers) == ("dog", ("cat", "dog"))
    classical, network = found.maps
    assert np.abs(classical[:, :4]).sum() > 10 * np.abs(classical[:, 5:]).sum()
    assert np.abs(network[:, 4:]).sum() > 10 * np.abs(network[:, :3]).sum()
    assert network.max() > 0  # the bright square supports "dog"
    assert classical.min() < 0  # and speaks against "cat"


def test_rows_are_chosen_from_all_kinds() -> None:
    answers = {"right": "cat", "wrong": "dog"}
    kinds = [("right", "right")] * 9 + [("right", "wrong"), ("wrong", "right"), ("wrong", "wrong")]
    ids = [str(place) for place in range(len(kinds))]
    network, classical = (
        {
            name: {"id": name, "true": "cat", "predicted": answers[kind[who]]}
            for name, kind in zip(ids, kinds, strict=True)
        }
        for who in (0, 1)
    )
    assert explanations.chosen(ids, network, classical) == [9, 0, 10, 11, 1, 2]
    assert explanations.chosen(ids, {}, classical) == []


def test_several_labels_per_row() -> None:
    record = {"id": "a", "true": ["dog"], "predicted": []}
    assert explanations.in_words(record, LABELS, "classes") == ("dog", "not dog", 1)
    assert explanations.in_words({"id": "a", "true": [], "predicted": []}, LABELS, "classes")[2] == 0
