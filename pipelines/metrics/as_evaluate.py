"""Graft's metrics as metrics of Hugging Face's `evaluate` library, for Trainer and for `evaluate.combine`.

    wer = as_evaluate("wer", normaliser="basic")
    wer.compute(predictions=["a cat"], references=["the cat sat"])  ->  {"wer": 0.666...}

The library's own `add`, `add_batch` and `compute` do the work. Rows stay in memory: no file is written, no lock is
taken, and nothing is downloaded. The values are computed by `pipelines.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

if TYPE_CHECKING:
    import evaluate

Columns = Mapping[str, Sequence[Any]]
Scores = Mapping[str, float]


# ---- columns to scores: one function for metrics that are computed together ----


def _labels(columns: Columns) -> Scores:
    """One label per row. Without a confidence column every row gets 1.0; `ece` is then not among the metrics."""
    true, predicted = ([str(label) for label in columns[key]] for key in ("references", "predictions"))
    confidence = columns.get("confidence", [1.0] * len(true))
    labels = sorted({*true, *predicted})
    records = [
        {"id": str(row), "true": t, "predicted": p, "confidence": c, "rank": 0}
        for row, (t, p, c) in enumerate(zip(true, predicted, confidence, strict=True))
    ]
    found = classification.statistics(records, labels)
    return {**classification.summarize(found, found.ones()), **classification.matthews(found, found.ones())}


def _ranked_labels(columns: Columns) -> Scores:
    """A score of every class for each row; the reference is the number of the true class. Raises DataError."""
    scores = _table(columns["predictions"], "predictions")
    true = np.asarray(columns["references"])
    if true.min() < 0 or true.max() >= scores.shape[1]:
        raise DataError(
            f"references: the class numbers must be 0 to {scores.shape[1] - 1}, got {true.min()} to {true.max()}"
        )
    rank = (scores > scores[np.arange(len(scores)), true][:, None]).sum(1)
    return {"top_5_accuracy": float((rank < 5).mean())}


def _several_labels(columns: Columns) -> Scores:
    """A score of every class for each row, and 0 or 1 for every class.

    A class is predicted if its score is above 0.5.
    """
    scores, true = (_table(columns[key], key) for key in ("predictions", "references"))
    if scores.shape != true.shape:
        raise DataError(
            f"predictions and references must have one number for each class, got {scores.shape[1]} and {true.shape[1]}"
        )
    labels = [f"{number:06d}" for number in range(scores.shape[1])]
    records = [
        {
            "id": str(number),
            "true": [label for label, is_true in zip(labels, row, strict=True) if is_true],
            "predicted": [label for label, score in zip(labels, given, strict=True) if score > 0.5],
            "scores": dict(zip(labels, given, strict=True)),
        }
        for number, (row, given) in enumerate(zip(true, scores, strict=True))
    ]
    found = classification.scores(records, labels, multi_label=True)
    return {**found, "f1_macro_multi_label": found["f1_macro"]}


def _tags(columns: Columns) -> Scores:
    """A score of every class for each row, and 0 or 1 for every class; the 20 best of each row count."""
    scores, true = (_table(columns[key], key) for key in ("predictions", "references"))
    if scores.shape != true.shape:
        raise DataError(
            f"predictions and references must have one number for each class, got {scores.shape[1]} and {true.shape[1]}"
        )
    labels = [f"{number:06d}" for number in range(scores.shape[1])]
    records = []
    for number, (given, row) in enumerate(zip(scores, true, strict=True)):
        order = np.argsort(-given, kind="stable")  # of equal scores, the first class comes first
        first = order[: np.count_nonzero(row)]
        best = {labels[place]: float(given[place]) for place in order[: tagging.BEST]}
        right = int(np.count_nonzero((row[first] != 0) & (given[first] > 0)))
        records.append({"id": str(number), **tagging.record([labels[k] for k in np.flatnonzero(row)], best, right)})
    found = tagging.scores(records, labels)
    return {**found, "map_at_20": found["map"]}


def _numbers(columns: Columns) -> Scores:
    return regression.scores(_pairs(columns))


def _answers(columns: Columns) -> Scores:
    return question_answering.scores(_pairs(columns))


def _transcripts(columns: Columns, normaliser: str = "none") -> Scores:
    records = _pairs(columns)
    return {**speech_recognition.scores(records, normaliser), **speech_recognition.hallucinations(records, normaliser)}


def _tokens(columns: Columns) -> Scores:
    return language_modelling.scores(_rows(columns))


def _masked_tokens(columns: Columns) -> Scores:
    found = language_modelling.scores(_rows(columns))
    return {"masked_accuracy": found["accuracy"], "masked_top_5_accuracy": found["top_5_accuracy"]}


def _noise(columns: Columns) -> Scores:
    return denoising.scores([{**row, "levels": [row["loss"]]} for row in _rows(columns)])


def _frechet(columns: Columns) -> Scores:
    return {"frechet_distance": generation.frechet_distance(*_features(columns))}


def _kernel(columns: Columns, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Scores:
    return {"kernel_distance": generation.kernel_distance(*_features(columns), subsets, subset_size, seed)[0]}


def _manifolds(columns: Columns, neighbours: int = 3) -> Scores:
    return dict(zip(("precision", "recall"), generation.precision_recall(*_features(columns), neighbours), strict=True))


def _memorised(columns: Columns) -> Scores:
    train, samples = _features(columns)
    return {"memorised": float(generation.memorised(generation.nearest(samples, train)[1]).mean())}


def _images_and_texts(columns: Columns) -> Scores:
    texts, images = _features(columns)
    return {"clip_score": generation.clip_score(images, texts)}


def _spectrograms(columns: Columns, coefficients: int = speech_synthesis.COEFFICIENTS) -> Scores:
    """The log-mel spectrogram of each made recording, and of the real recording of the same words. Means over rows."""
    found: dict[str, list[float]] = {"mel_cepstral_distortion": [], "log_mel_distance": [], "duration_ratio": []}
    for row, (lines, others) in enumerate(zip(columns["predictions"], columns["references"], strict=True)):
        made, real = _table(lines, f"predictions, row {row}"), _table(others, f"references, row {row}")
        path = speech_synthesis.aligned(*(speech_synthesis.cepstra(one, coefficients) for one in (made, real)))
        found["mel_cepstral_distortion"].append(speech_synthesis.mel_cepstral_distortion(made, real, coefficients))
        found["log_mel_distance"].append(speech_synthesis.log_mel_distance(made, real, path))
        found["duration_ratio"].append(speech_synthesis.duration_ratio(len(made), len(real)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _voices(columns: Columns) -> Scores:
    real, made = _features(columns)
    return {"speaker_similarity": float(speech_synthesis.speaker_similarity(made, real).mean())}


def _label_maps(columns: Columns, ignored: int = segmentation.IGNORE) -> Scores:
    """A class number for every pixel; where the reference is `ignored`, no pixel counts. Raises DataError."""
    pairs = [
        (_label_map(predicted, f"predictions, row {row}"), _label_map(true, f"references, row {row}"))
        for row, (predicted, true) in enumerate(zip(columns["predictions"], columns["references"], strict=True))
    ]
    pairs = [(predicted, np.where(true == ignored, np.int16(segmentation.IGNORE), true)) for predicted, true in pairs]
    labels = [
        f"class {number}" for number in range(1 + max(0, *(int(one.max(initial=0)) for pair in pairs for one in pair)))
    ]
    records = [
        {"id": str(row), **segmentation.record(predicted, true, len(labels))}
        for row, (predicted, true) in enumerate(pairs)
    ]
    return segmentation.scores(records, labels)


def _label_map(lines: Sequence[Sequence[int]], name: str) -> np.ndarray:
    table = _table(lines, name).reshape(len(lines), -1)
    if table.size and not -(2**15) <= table.min() <= table.max() < 2**15:
        raise DataError(f"{name}: a class number must be at most {2**15 - 1}, got {table.max()}")
    return table.astype(np.int16)


def _rows(columns: Columns) -> list[dict[str, Any]]:
    return [
        {"id": str(row), **dict(zip(columns, values, strict=True))}
        for row, values in enumerate(zip(*columns.values(), strict=True))
    ]


def _pairs(columns: Columns) -> list[dict[str, Any]]:
    pairs = zip(columns["references"], columns["predictions"], strict=True)
    return [{"id": str(row), "true": true, "predicted": predicted} for row, (true, predicted) in enumerate(pairs)]


def _table(rows: Sequence[Sequence[float]], name: str) -> np.ndarray:
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{name}: every row must have as many numbers as the first, {len(rows[0])}")
    return np.asarray(rows)


def _features(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    return _table(columns["references"], "references"), _table(columns["predictions"], "predictions")


# ---- the table of metrics ----


@dataclass(frozen=True)
class _Kind:
    """Metrics with the same columns. `columns` lists the allowed types; `evaluate` takes the first that fits."""

    metrics: tuple[str, ...]
    score: Callable[..., Scores]
    columns: tuple[Mapping[str, str], ...]  # "[float64]" is a list of numbers in each row, "[[int64]]" a list of lists
    about: str


_FEATURES = {"predictions": "[float64]", "references": "[float64]"}
_KINDS = (
    _Kind(
        ("accuracy", "balanced_accuracy", "f1_macro", "mcc"),
        _labels,
        ({"predictions": "int64", "references": "int64"}, {"predictions": "string", "references": "string"}),
        "predictions and references: one class a row, as a number or a name",
    ),
    _Kind(
        ("ece",),
        _labels,
        tuple({"predictions": kind, "references": kind, "confidence": "float64"} for kind in ("int64", "string")),
        "predictions and references: one class a row, as a number or a name; "
        "confidence: the probability of the predicted class",
    ),
    _Kind(
        ("top_5_accuracy",),
        _ranked_labels,
        ({"predictions": "[float64]", "references": "int64"},),
        "predictions: a score of every class for each row; references: the number of the true class",
    ),
    _Kind(
        ("f1_macro_multi_label", "f1_micro", "map", "subset_accuracy"),
        _several_labels,
        ({"predictions": "[float64]", "references": "[int64]"},),
        "predictions: a probability of every class for each row (above 0.5 the class is predicted); "
        "references: 0 or 1 for every class",
    ),
    _Kind(
        ("gap", "hit_at_1", "map_at_20", "perr"),
        _tags,
        ({"predictions": "[float64]", "references": "[int64]"},),
        "predictions: a score of every class for each row, of which the 20 best count (YouTube-8M); "
        "references: 0 or 1 for every class",
    ),
    _Kind(
        ("pearson", "spearman", "mse"),
        _numbers,
        ({"predictions": "float64", "references": "float64"},),
        "predictions and references: one number a row",
    ),
    _Kind(
        ("exact_match", "f1", "no_answer_accuracy", "has_answer_f1"),
        _answers,
        ({"predictions": "string", "references": "[string]"},),
        "predictions: the answer of each row; "
        "references: every accepted answer of each row, none where the question has no answer",
    ),
    _Kind(
        ("wer", "cer", "insertions", "deletions", "substitutions", "repetition", "overlong", "length_ratio"),
        _transcripts,
        ({"predictions": "string", "references": "string"},),
        "predictions and references: one transcript a row; setting: normaliser (none, basic or whisper-english)",
    ),
    _Kind(
        ("perplexity",),
        _tokens,
        ({"nll": "float64", "tokens": "int64"},),
        "nll: the sum of -log p in nats over the tokens of each row; tokens: how many they are",
    ),
    _Kind(
        ("bits_per_byte",),
        _tokens,
        ({"nll": "float64", "tokens": "int64", "bytes": "int64"},),
        "nll: the sum of -log p in nats over the tokens of each row; tokens: how many they are; "
        "bytes: of the text in UTF-8",
    ),
    _Kind(
        ("masked_accuracy", "masked_top_5_accuracy"),
        _masked_tokens,
        ({"nll": "float64", "tokens": "int64", "top_1": "int64", "top_5": "int64"},),
        "nll and tokens: of the masked tokens of each row; "
        "top_1, top_5: how many the likeliest one and the likeliest five found",
    ),
    _Kind(
        tuple(segmentation.ANY_CLASSES),
        _label_maps,
        ({"predictions": "[[int64]]", "references": "[[int64]]"},),
        "predictions and references: a map of class numbers for each image, as a list of lines of pixels; "
        "setting: ignored (the number of pixels in the references that do not count, by default -1)",
    ),
    _Kind(("denoising_loss",), _noise, ({"loss": "float64"},), "loss: the mean squared error of each image"),
    _Kind(
        ("frechet_distance",),
        _frechet,
        (_FEATURES,),
        "predictions and references: features of one sample and of one real row",
    ),
    _Kind(
        ("kernel_distance",),
        _kernel,
        (_FEATURES,),
        "predictions and references: features of one sample and of one real row; settings: subsets, subset_size, seed",
    ),
    _Kind(
        ("precision", "recall"),
        _manifolds,
        (_FEATURES,),
        "predictions and references: features of one sample and of one real row; setting: neighbours",
    ),
    _Kind(
        ("memorised",),
        _memorised,
        (_FEATURES,),
        "predictions and references: features of one sample and of one training row",
    ),
    _Kind(
        ("clip_score",),
        _images_and_texts,
        (_FEATURES,),
        "predictions: features of each image; references: features of its text",
    ),
    _Kind(
        ("mel_cepstral_distortion", "log_mel_distance", "duration_ratio"),
        _spectrograms,
        ({"predictions": "[[float64]]", "references": "[[float64]]"},),
        "predictions and references: a log-mel spectrogram of each recording (natural logarithms of magnitudes) as a "
        "list of frames, the real recording of the same words in references; setting: coefficients",
    ),
    _Kind(
        ("speaker_similarity",),
        _voices,
        (_FEATURES,),
        "predictions: the speaker embedding of each made recording; references: that of its speaker",
    ),
)
_BY_NAME = {name: kind for kind in _KINDS for name in kind.metrics}


def metric_names() -> list[str]:
    """All names that `as_evaluate` accepts, sorted."""
    return sorted(_BY_NAME)


def as_evaluate(name: str, **settings: Any) -> "evaluate.Metric":
    """One of Graft's metrics as an `evaluate.Metric`; its `compute` returns {name: value}.

    `metric_names()` lists the names. The metric's `features` and `inputs_description` describe its columns. `settings`
    are those of the metric's function, such as `normaliser` of "wer". Raises DataError for an unknown name or setting.
    """
    import inspect

    kind = _BY_NAME.get(name)
    if kind is None:
        raise DataError(f"no metric {name!r}; the metrics are {', '.join(metric_names())}")
    known = [setting for setting in inspect.signature(kind.score).parameters if setting != "columns"]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise DataError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    import datasets
    import evaluate

    def feature(text: str) -> Any:
        return datasets.List(feature(text[1:-1])) if text.startswith("[") else datasets.Value(text)

    features = [datasets.Features({key: feature(text) for key, text in columns.items()}) for columns in kind.columns]
    info = evaluate.MetricInfo(
        description=f"{name} as Graft computes it ({kind.score.__name__.strip('_').replace('_', ' ')}).",
        citation="",
        inputs_description=f"\n{kind.about}\n",
        features=features if len(features) > 1 else features[0],
    )

    def compute(self: Any, **columns: Sequence[Any]) -> dict[str, float]:
        found = kind.score(columns, **settings)
        if name not in found:
            raise DataError(f"{name} has no value here: no row of these is of the kind that it measures")
        return {name: found[name]}

    # The library takes a metric's name from its class. `_build_data_dir` would create a folder that stays empty.
    parts = {
        "_info": lambda self: info,
        "_compute": compute,
        "_build_data_dir": lambda self: "",
        "__doc__": info.description,
    }
    return type(name, (evaluate.Metric,), parts)(keep_in_memory=True)
