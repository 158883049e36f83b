"""Every metric of Graft in the form of the evaluate library gives Graft's own score, however rows are batched."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.metrics import (
    classification,
    denoising,
    generation,
    language_modelling,
    question_answering,
    regression,
    segmentation,
    speech_recognition,
    speech_synthesis,
    tagging,
)
from pipelines.metrics.as_evaluate import as_evaluate, metric_names

N = 60
WORDS = ("the", "cat", "sat", "on", "a", "mat")
LABELS = [f"class {i}" for i in range(8)]

Made = tuple[dict[str, list[Any]], dict[str, float]]  # the inputs of each metric, and Graft's own scores for them


def pairs(true: list, predicted: list) -> list[dict[str, Any]]:
    return [{"id": str(i), "true": true[i], "predicted": predicted[i]} for i in range(N)]


def one_label(rng: random.Random) -> Made:
    logits = np.random.default_rng(rng.randrange(9999)).random((N, len(LABELS)))
    true = [rng.randrange(len(LABELS)) for _ in range(N)]
    guess = [t if rng.random() < 0.7 else int(row.argmax()) for t, row in zip(true, logits, strict=True)]
    sure = [rng.random() for _ in range(N)]
    rank = [int((row > row[t]).sum()) for t, row in zip(true, logits, strict=True)]
    records = [
        {"id": str(i), "true": LABELS[true[i]], "predicted": LABELS[guess[i]], "confidence": sure[i], "rank": rank[i]}
        for i in range(N)
    ]
    found = classification.statistics(records, LABELS)
    own = classification.scores(records, LABELS) | classification.matthews(found, found.ones())
    return {"predictions": guess, "references": true, "confidence": sure, "scores": logits.tolist()}, own


def several_labels(rng: random.Random) -> Made:
    true = [[int(rng.random() < 0.3) for _ in LABELS] for _ in range(N)]
    sure = [[rng.random() for _ in LABELS] for _ in range(N)]
    records = [
        {
            "id": str(i),
            "true": [label for label, t in zip(LABELS, true[i], strict=True) if t],
            "predicted": [label for label, p in zip(LABELS, sure[i], strict=True) if p > 0.5],
            "scores": dict(zip(LABELS, sure[i], strict=True)),
        }
        for i in range(N)
    ]
    own = classification.scores(records, LABELS, multi_label=True)
    return {"predictions": sure, "references": true}, own | {"f1_macro_multi_label": own["f1_macro"]}


def tags(rng: random.Random) -> Made:
    true = [[int(rng.random() < 0.2) for _ in range(30)] for _ in range(N)]
    sure = [[rng.random() for _ in range(30)] for _ in range(N)]
    records = []
    for number, (row, given) in enumerate(zip(true, sure, strict=True)):
        ranked = sorted(range(30), key=lambda k: -given[k])
        right = sum(row[k] for k in ranked[: sum(row)])
        best = {str(k): given[k] for k in ranked[:20]}
        named = [str(k) for k, one in enumerate(row) if one]
        records.append({"id": f"{number:03}", **tagging.record(named, best, right)})
    own = tagging.scores(records, [str(k) for k in range(30)])
    return {"predictions": sure, "references": true}, own | {"map_at_20": own["map"]}


def numbers(rng: random.Random) -> Made:
    true = [rng.gauss(3, 2) for _ in range(N)]
    predicted = [t + rng.gauss(0, 1) for t in true]
    return {"predictions": predicted, "references": true}, regression.scores(pairs(true, predicted))


def answers(rng: random.Random) -> Made:
    true = [[" ".join(rng.choices(WORDS, k=3)) for _ in range(rng.randrange(3))] for _ in range(N)]
    predicted = [" ".join(rng.choices(WORDS, k=rng.randrange(4))) for _ in range(N)]
    own = question_answering.scores(pairs(true, predicted))
    assert 0 < own["f1"] < 100
    return {"predictions": predicted, "references": true}, own


def transcripts(rng: random.Random) -> Made:
    true = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 8))) for _ in range(N)]
    predicted = [" ".join(rng.choices(WORDS, k=rng.randrange(0, 40))) for _ in range(N)]
    records = pairs(true, predicted)
    own = speech_recognition.scores(records, "none") | speech_recognition.hallucinations(records, "none")
    return {"predictions": predicted, "references": true}, own


def tokens(rng: random.Random) -> Made:
    counts = [rng.randrange(1, 30) for _ in range(N)]
    columns: dict[str, list[Any]] = {
        "nll": [3 * c * rng.random() for c in counts],
        "tokens": counts,
        "bytes": [4 * c for c in counts],
    }
    columns |= {"top_1": [c // 2 for c in counts], "top_5": [c - 1 for c in counts]}
    records = [{"id": str(i), **{key: values[i] for key, values in columns.items()}} for i in range(N)]
    own = language_modelling.scores(records)
    return columns, own | {"masked_accuracy": own["accuracy"], "masked_top_5_accuracy": own["top_5_accuracy"]}


def label_maps(rng: random.Random) -> Made:
    draw = np.random.default_rng(rng.randrange(9999))
    sizes = draw.integers(3, 9, (N, 2))
    true = [draw.integers(-1, 3, size) for size in sizes]
    predicted = [np.where(draw.random(one.shape) < 0.6, np.maximum(one, 0), 1) for one in true]
    records = [{"id": str(i), **segmentation.record(predicted[i], true[i], 3)} for i in range(N)]
    own = segmentation.scores(records, ["a", "b", "c"])
    return {"predictions": [one.tolist() for one in predicted], "references": [one.tolist() for one in true]}, own


def noise(rng: random.Random) -> Made:
    losses = [rng.random() for _ in range(N)]
    return {"loss": losses}, denoising.scores(
        [{"id": str(i), "loss": loss, "levels": [loss]} for i, loss in enumerate(losses)]
    )


def features(rng: random.Random) -> Made:
    draw = np.random.default_rng(rng.randrange(9999))
    real, generated = draw.normal(size=(N, 6)).astype("float32"), draw.normal(0.3, 1, size=(N, 6)).astype("float32")
    generated[:5] = real[:5]
    precision, recall = generation.precision_recall(real, generated)
    own = {
        "frechet_distance": generation.frechet_distance(real.astype("float64"), generated.astype("float64")),
        "kernel_distance": generation.kernel_distance(real, generated)[0],
        "precision": precision,
        "recall": recall,
        "memorised": float(generation.memorised(generation.nearest(generated, real)[1]).mean()),
        "clip_score": generation.clip_score(generated, real),
        "speaker_similarity": float(speech_synthesis.speaker_similarity(generated, real).mean()),
    }
    assert own["memorised"] > 0
    return {"predictions": generated.tolist(), "references": real.tolist()}, own


def spectrograms(rng: random.Random) -> Made:
    draw = np.random.default_rng(rng.randrange(9999))
    made, real = ([draw.normal(size=(size, 15)) for size in draw.integers(2, 6, N)] for _ in range(2))
    both = list(zip(made, real, strict=True))
    paths = [speech_synthesis.aligned(*map(speech_synthesis.cepstra, pair)) for pair in both]
    distances = [speech_synthesis.log_mel_distance(*pair, path) for pair, path in zip(both, paths, strict=True)]
    own = {
        "mel_cepstral_distortion": np.mean([speech_synthesis.mel_cepstral_distortion(*pair) for pair in both]),
        "log_mel_distance": np.mean(distances),
        "duration_ratio": np.mean([len(one) / len(two) for one, two in both]),
    }
    columns = {"predictions": [one.tolist() for one in made], "references": [one.tolist() for one in real]}
    return columns, {name: float(value) for name, value in own.items()}


CASES: dict[str, Callable[[random.Random], Made]] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "f1_macro", "mcc", "ece", "top_5_accuracy"), one_label),
    **dict.fromkeys(("f1_macro_multi_label", "f1_micro", "map", "subset_accuracy"), several_labels),
    **dict.fromkeys(("gap", "hit_at_1", "map_at_20", "perr"), tags),
    **dict.fromkeys(("pearson", "spearman", "mse"), numbers),
    **dict.fromkeys(("exact_match", "f1", "no_answer_accuracy", "has_answer_f1"), answers),
    **dict.fromkeys(
        ("wer", "cer", "insertions", "deletions", "substitutions", "repetition", "overlong", "length_ratio"),
        transcripts,
    ),
    **dict.fromkeys(("perplexity", "bits_per_byte", "masked_accuracy", "masked_top_5_accuracy"), tokens),
    **dict.fromkeys(segmentation.ANY_CLASSES, label_maps),
    "denoising_loss": noise,
    **dict.fromkeys(
        ("frechet_distance", "kernel_distance", "precision", "recall", "memorised", "clip_score", "speaker_similarity"),
        features,
    ),
    **dict.fromkeys(("mel_cepstral_distortion", "log_mel_distance", "duration_ratio"), spectrograms),
}


def taken(name: str, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns that a metric asks for; the features say which."""
    features: Any = as_evaluate(name).features
    if name == "top_5_accuracy":
        return {"predictions": columns["scores"], "references": columns["references"]}
    return {key: columns[key] for key in (features[0] if isinstance(features, list) else features)}


def test_every_metric_is_tested() -> None:
    assert metric_names() == sorted(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_equals_grafts_own_score_however_rows_are_batched(name: str) -> None:
    columns, own = CASES[name](random.Random(name))
    given = taken(name, columns)
    metric = as_evaluate(name)
    assert metric.compute(**given) == {name: pytest.approx(own[name], rel=1e-12)}
    for size in (1, 7, N):
        for start in range(0, N, size):
            metric.add_batch(**{key: values[start : start + size] for key, values in given.items()})
        assert metric.compute() == {name: pytest.approx(own[name], rel=1e-12)}, f"batches of {size}"
    assert metric.name == name
    assert metric.description.startswith(name)
    assert all(key in metric.inputs_description for key in given)


def test_labels_may_be_names_or_numbers() -> None:
    named = as_evaluate("accuracy").compute(predictions=["cat", "dog", "cat"], references=["cat", "cat", "cat"])
    numbered = as_evaluate("accuracy").compute(predictions=[0, 1, 0], references=[0, 0, 0])
    assert named == numbered == {"accuracy": pytest.approx(2 / 3)}


def test_ignored_pixels_of_label_maps_may_have_any_number() -> None:
    given = {"predictions": [[[0, 1], [1, 1]]], "references": [[[0, 1], [255, 0]]]}
    assert as_evaluate("pixel_accuracy", ignored=255).compute(**given) == {"pixel_accuracy": pytest.approx(2 / 3)}
    assert as_evaluate("pixel_accuracy").compute(**given) == {"pixel_accuracy": 0.5}


def test_one_row_at_a_time() -> None:
    metric = as_evaluate("wer", normaliser="basic")
    metric.add(prediction="A cat!", reference="a cat")
    metric.add(prediction="a dog", reference="a cat")
    assert metric.compute() == {"wer": 0.25}
    assert as_evaluate("wer").compute(predictions=["A cat!", "a dog"], references=["a cat", "a cat"]) == {"wer": 0.75}


def test_combined() -> None:
    import evaluate

    both = evaluate.combine([as_evaluate("accuracy"), as_evaluate("f1_macro")])
    both.add_batch(predictions=[0, 1], references=[0, 1])
    both.add_batch(predictions=[1], references=[0])
    assert both.compute() == {"accuracy": pytest.approx(2 / 3), "f1_macro": pytest.approx(2 / 3)}
    prefixed = evaluate.combine({"mine": as_evaluate("accuracy"), "yours": as_evaluate("accuracy")}, force_prefix=True)
    assert prefixed.compute(predictions=[0, 1], references=[0, 0]) == {"mine_accuracy": 0.5, "yours_accuracy": 0.5}


def test_in_the_trainer_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=3
    )
    model = BertForSequenceClassification(config)
    rows = [{"input_ids": torch.randint(20, (4,)), "labels": i % 3} for i in range(12)]
    accuracy = as_evaluate("accuracy")
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=5, report_to=[], use_cpu=True, dataloader_pin_memory=False
        ),
        eval_dataset=rows,
        compute_metrics=lambda found: accuracy.compute(
            predictions=found.predictions.argmax(-1), references=found.label_ids
        ),
    )
    with torch.no_grad():
        guessed = model.eval()(input_ids=torch.stack([row["input_ids"] for row in rows])).logits.argmax(-1).tolist()
    right = sum(guess == row["labels"] for guess, row in zip(guessed, rows, strict=True))
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(right / 12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: as_evaluate("acuracy"), ["no metric 'acuracy'", "accuracy, balanced_accuracy"]),
        (lambda: as_evaluate("wer", normalizer="basic"), ["no setting 'normalizer'", "normaliser"]),
        (lambda: as_evaluate("mse", bins=3), ["no setting 'bins'", "none"]),
        (
            lambda: as_evaluate("top_5_accuracy").compute(predictions=[[0.1, 0.9]], references=[2]),
            ["class numbers must be 0 to 1"],
        ),
        (
            lambda: as_evaluate("map").compute(predictions=[[0.1, 0.9], [0.5]], references=[[0, 1], [1, 0]]),
            ["as many numbers"],
        ),
        (lambda: as_evaluate("map").compute(predictions=[[0.1, 0.9]], references=[[0, 1, 0]]), ["2 and 3"]),
        (
            lambda: as_evaluate("dice").compute(predictions=[[[0], [1]]], references=[[[0, 1]]]),
            ["a prediction of 2x1 pixels does not fit a label map of 1x2"],
        ),
        (
            lambda: as_evaluate("dice").compute(predictions=[[[0, 99999]]], references=[[[0, 1]]]),
            ["predictions, row 0", "at most 32767, got 99999"],
        ),
        (
            lambda: as_evaluate("no_answer_accuracy").compute(predictions=["x"], references=[["x"]]),
            ["no_answer_accuracy has no value here"],
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(call: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_asks_no_network_and_writes_no_file(tmp_path: Path) -> None:
    """It works in a process whose caches are empty folders and whose connections all fail."""
    code = """
import socket
def refuse(*a, **k): raise AssertionError("a connection was asked for")
socket.socket.connect = socket.create_connection = refuse
import pipelines
metric = pipelines.as_evaluate("accuracy")
metric.add_batch(predictions=[1, 0], references=[1, 1])
print(metric.compute()["accuracy"])
"""
    home = {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "TMPDIR": str(tmp_path),
        "GRAFT_CACHE": str(tmp_path / "graft"),
    }
    settings = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | home
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=settings, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "0.5", done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in str(path)]
    assert not [path for path in written if path.suffix in (".arrow", ".lock", ".py")], written
