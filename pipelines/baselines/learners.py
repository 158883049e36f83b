"""The classical learners: how each is made, fitted, and asked for scores in the order of a task's labels.

    learned = learn_steps(features, entries, ids, seed)  # once for all learners and settings
    target = targets(rows["label"], labels, "class")
    fitted = fit(LEARNERS["logistic"], {"C": 1.0}, "class", seed, learned.numbers, target, len(labels))
    logits(fitted, learned.of(other_entries, other_ids))  # float32 [rows, labels]

The kind of a learner's target is pipelines.data.schema.DataSpec.label_kind: one "class" per row, any number of
"classes" (one classifier per label), or a "number".
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.baselines.features import FeatureSet
from pipelines.errors import DataError

Kind = Literal["class", "classes", "number"]
Settings = Mapping[str, Any]

TREES = 300
FOREST_BYTES = 1 << 30  # memory for the class counts that the nodes of a forest keep
# The most work of one fit, in the units of `Learner.work`: minutes on two cores. Larger data are fitted on fewer rows.
MOST_WORK = 5e8
LEAST = 1e-9  # the lowest probability of a class with training rows; its logarithm must stay above UNSEEN
UNSEEN = -30.0  # the logit of a class without training rows
STEP = 1e-5  # between the logits of two classes that score the same: float32 still tells them apart at UNSEEN


@dataclass(frozen=True)
class Learner:
    """A classical learner with the settings to choose from."""

    name: str
    """For people: "linear SVM"."""
    make: Callable[[Kind, int, Settings], Any]
    """Kind, seed and settings -> a scikit-learn estimator, not fitted."""
    grid: tuple[dict[str, Any], ...]
    """The settings that are tried, the simplest model first: it wins if two settings score the same."""
    kinds: tuple[Kind, ...] = ("class", "classes", "number")
    scaled: bool = False
    """Whether dense features are standardised first (see `_scaler`). Sparse ones stay as they are."""
    probabilities: bool = True
    """Whether its scores are probabilities. The margins of an SVM are not: only their order and their sign mean
    something, so metrics of calibration (CALIBRATION) say nothing about it and are left out.
    """
    trivial: bool = False
    """Whether it reads no features."""
    work: Callable[[float, float, int], float] = lambda rows, numbers, labels: 0.0
    """Training rows, numbers of each row that are not 0, labels -> how long a fit takes, in multiplications of one pass
    over the rows.
    """


CALIBRATION = ("ece",)


def _logistic(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _one_per_label(kind, LogisticRegression(max_iter=1000, random_state=seed, **settings))


def _passes(rows: float, numbers: float, labels: int) -> float:
    """Of a linear learner, which has one classifier for each label."""
    return rows * numbers * (labels if labels > 2 else 1)


def _splits(rows: float, numbers: float, labels: int) -> float:
    """Of a forest: each tree sorts the rows by some numbers at each depth, which takes a 40th of the seconds."""
    return TREES * rows * math.sqrt(numbers) * math.log2(rows + 2) / 40


def _linear_svm(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.svm import LinearSVC

    return _one_per_label(kind, LinearSVC(max_iter=2000, random_state=seed, **settings))


def _one_per_label(kind: Kind, estimator: Any) -> Any:
    return OnePerLabel(estimator) if kind == "classes" else estimator


class OnePerLabel:
    """One linear classifier for each label that some of the training rows have and others lack.

    scikit-learn's OneVsRestClassifier asks each label's classifier in turn, which takes seconds for the thousands of
    labels of YouTube-8M.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, numbers: Any, target: np.ndarray) -> "OnePerLabel":
        """`target` is bool [rows, labels]."""
        from sklearn.base import clone

        varied = np.asarray(target.any(0) & ~target.all(0))
        self.estimators_ = [
            clone(self.estimator).fit(numbers, column) if varies else None
            for column, varies in zip(target.T, varied, strict=True)
        ]
        size, fitted = numbers.shape[1], [one for one in self.estimators_ if one is not None]
        self.coefficients = np.stack([one.coef_[0] for one in fitted], 1) if fitted else np.zeros((size, 0))
        self.intercepts = np.array([one.intercept_[0] for one in fitted])
        # a label that all training rows have gets the highest score, one that no row has the lowest
        self.margins = np.where(varied, 0.0, np.where(target.all(0), -UNSEEN, UNSEEN))
        self.varied = varied
        return self

    def decision_function(self, numbers: Any) -> np.ndarray:
        """[rows, labels]."""
        found = np.tile(self.margins, (numbers.shape[0], 1))
        found[:, self.varied] = numbers @ self.coefficients + self.intercepts
        return found


def _random_forest(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    made = RandomForestRegressor if kind == "number" else RandomForestClassifier
    return made(n_estimators=TREES, max_features="sqrt", random_state=seed, **settings)


def _nearest_neighbours(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return (KNeighborsRegressor if kind == "number" else KNeighborsClassifier)(**settings)


def _ridge(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(random_state=seed, **settings)


def _prior(kind: Kind, seed: int, settings: Settings) -> Any:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return DummyRegressor(strategy="mean") if kind == "number" else DummyClassifier(strategy="prior")


def _powers(name: str, first: int, end: int) -> tuple[dict[str, Any], ...]:
    return tuple({name: 10.0**power} for power in range(first, end))


_CLASSES: tuple[Kind, ...] = ("class", "classes")

LEARNERS: dict[str, Learner] = {
    # With one class per row it predicts the most frequent one; with several, each label that most rows have.
    "majority": Learner("majority class", _prior, ({},), _CLASSES, trivial=True),
    "mean": Learner("mean", _prior, ({},), ("number",), trivial=True),
    "logistic": Learner("logistic regression", _logistic, _powers("C", 0, 4), _CLASSES, scaled=True, work=_passes),
    "linear_svm": Learner(
        "linear SVM", _linear_svm, _powers("C", -1, 2), _CLASSES, scaled=True, probabilities=False, work=_passes
    ),
    "ridge": Learner(
        "ridge regression",
        _ridge,
        tuple({"alpha": alpha} for alpha in (10.0, 1.0, 0.1, 0.01)),
        ("number",),
        scaled=True,
    ),
    "random_forest": Learner(
        "random forest", _random_forest, ({"min_samples_leaf": 3}, {"min_samples_leaf": 1}), work=_splits
    ),
    "nearest_neighbours": Learner(
        "k nearest neighbours", _nearest_neighbours, tuple({"n_neighbors": k} for k in (15, 5, 1))
    ),
}


def keys_for(keys: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """Those of the keys of LEARNERS that learn this kind of target."""
    return tuple(key for key in keys if kind in LEARNERS[key].kinds)


def most_rows(learner: Learner, numbers: Any, labels: int) -> int:
    """The training rows of `numbers` [rows, numbers] that are fitted: all, or as many as MOST_WORK allows."""
    rows = int(numbers.shape[0])
    each = numbers.nnz / max(1, rows) if hasattr(numbers, "tocsr") else numbers.shape[1]
    work = learner.work(rows, each, labels)
    return rows if work <= MOST_WORK else max(1, int(rows * MOST_WORK / work))


def targets(labels: Sequence[Any], classes: Sequence[str], kind: Kind) -> np.ndarray:
    """Labels of rows as a learner reads them, in the order of `classes`, the task's labels.

    int [rows] for "class", bool [rows, classes] for "classes", float [rows] for "number". Raises DataError for a label
    that is not in `classes`, or that is no finite number.
    """
    if kind == "number":
        numbers = np.array([float(label) for label in labels], dtype=float)
        if not np.isfinite(numbers).all():
            raise DataError(f"row {int(np.flatnonzero(~np.isfinite(numbers))[0]) + 1}: its label is not a number")
        return numbers
    place = {label: number for number, label in enumerate(classes)}
    parts = [label if kind == "classes" else [label] for label in labels]
    unknown = next((part for row in parts for part in row if part not in place), None)
    if unknown is not None:
        raise DataError(f"label {unknown!r} is not one of the model's: a learner cannot be fitted on its rows")
    if kind == "class":
        return np.array([place[part] for (part,) in parts], dtype=np.int64)
    matrix = np.zeros((len(parts), len(classes)), dtype=bool)
    for number, row in enumerate(parts):
        matrix[number, [place[part] for part in row]] = True
    return matrix


# ---- features ----


@dataclass(frozen=True)
class LearnedSteps:
    """The steps of a feature set, fitted on training rows."""

    name: str
    pipeline: Any  # a scikit-learn pipeline; None if the feature set has no steps
    numbers: Any  # of the training rows: an array [rows, numbers], or a sparse matrix

    def of(self, entries: Any, ids: Sequence[str]) -> Any:
        """The numbers of other rows, from what the feature set's `read` returned. Raises DataError."""
        return check_finite(
            _dense(entries) if self.pipeline is None else self.pipeline.transform(entries), ids, self.name
        )


def learn_steps(features: FeatureSet, entries: Any, ids: Sequence[str], seed: int) -> LearnedSteps:
    """Fit the steps of a feature set on training rows. Raises DataError, as `check_finite` does."""
    from sklearn.pipeline import Pipeline

    if not len(ids):
        raise DataError(f"{features.name}: there are no training rows")
    steps = features.steps(seed)
    if not steps:
        return LearnedSteps(features.name, None, check_finite(_dense(entries), ids, features.name))
    pipeline = Pipeline(steps)
    return LearnedSteps(features.name, pipeline, check_finite(pipeline.fit_transform(entries), ids, features.name))


def _dense(entries: Any) -> np.ndarray:
    return np.asarray(entries)


def check_finite(numbers: Any, ids: Sequence[str], name: str) -> Any:
    """The numbers of rows, [rows, numbers], if all are finite. Raises DataError naming the first row that is not."""
    sparse = hasattr(numbers, "tocsr")
    numbers = numbers.tocsr() if sparse else numbers
    values = numbers.data if sparse else numbers
    known = np.isfinite(values)
    if not known.all():
        at = int(np.flatnonzero(~known)[0]) if sparse else 0
        row = int(np.searchsorted(numbers.indptr, at, side="right") - 1) if sparse else int((~known).any(1).argmax())
        raise DataError(f"{ids[row]}: {name} gives a number that is not finite: look at this row, or take it out")
    return numbers


# ---- fitting ----


@dataclass(frozen=True)
class Fitted:
    """A learner that was fitted on the numbers of training rows."""

    learner: Learner
    settings: dict[str, Any]
    kind: Kind
    scaler: Any  # of dense numbers; None if there is none
    estimator: Any
    rows: np.ndarray  # training rows of each of the task's labels; empty for numbers
    converged: bool
    """Whether its optimiser came to an end. If not, its steps were used up, and more would change the scores a bit."""


def fit(
    learner: Learner, settings: Settings, kind: Kind, seed: int, numbers: Any, target: np.ndarray, classes: int
) -> Fitted:
    """Fit a learner on `numbers` [rows, numbers] (an array or a sparse matrix) and `target` (see `targets`).

    `classes` is the number of the task's labels; labels without rows are allowed. If all rows have one class, every
    learner can only predict this class, and the majority class does. Raises DataError if there are no rows.
    """
    from sklearn.exceptions import ConvergenceWarning

    if kind not in learner.kinds:
        raise ValueError(f"{learner.name} does not learn {kind}")
    if not len(target):
        raise DataError(f"{learner.name}: there are no training rows")
    rows = _rows_of(target, classes, kind)
    usable = dict(settings)
    if "n_neighbors" in usable:
        usable["n_neighbors"] = min(usable["n_neighbors"], len(target))
    estimator = learner.make(kind, seed, usable)
    if kind == "class" and (rows > 0).sum() == 1:
        estimator = _prior(kind, seed, {})
    used = dict(settings)
    if hasattr(estimator, "max_leaf_nodes") and kind != "number":
        used.pop("max_leaf_nodes", None)  # that of another number of rows
        leaves = most_leaves(len(target), classes * (2 if kind == "classes" else 1))
        estimator.set_params(max_leaf_nodes=leaves)
        used |= {} if leaves is None else {"max_leaf_nodes": leaves}
    scaler = _scaler(numbers) if learner.scaled and not hasattr(numbers, "tocsr") else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        estimator.fit(numbers if scaler is None else scaler.transform(numbers), target)
    late = [one for one in caught if issubclass(one.category, ConvergenceWarning)]
    for one in caught:
        if one not in late:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return Fitted(learner, used, kind, scaler, estimator, rows, not late)


def _rows_of(target: np.ndarray, classes: int, kind: Kind) -> np.ndarray:
    """The number of training rows of each label."""
    if kind == "number":
        return np.zeros(0, dtype=np.int64)
    return target.sum(0) if kind == "classes" else np.bincount(target, minlength=classes)


def _scaler(numbers: np.ndarray) -> Any:
    """Standardise each number, then divide all by the root of their count, so that a row has a length of about 1.

    Rows of TF-IDF have this length, too. So the same strengths of regularisation suit features of any number, hand-made
    or TF-IDF. A number that is constant becomes 0.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(numbers)
    scaler.scale_ = scaler.scale_ * math.sqrt(max(1, numbers.shape[1]))
    return scaler


def most_leaves(rows: int, counts: int) -> int | None:
    """The most leaves of a tree: each node keeps one count per class, and thousands of classes would fill the memory.

    None if a tree with one leaf per row fits.
    """
    most = FOREST_BYTES // (TREES * 2 * 8 * counts)  # a tree has twice as many nodes as leaves
    return None if rows <= most else max(2, most)


# ---- scores ----


def logits(fitted: Fitted, numbers: Any) -> np.ndarray:
    """What a network's logits are: float32 [rows, labels], in the order of the task's labels; [rows, 1] for numbers.

    "class": logarithms of probabilities, so their softmax gives the probabilities back; "classes": log-odds, so their
    sigmoid does. A margin m of an SVM becomes sign(m) log(1 + |m|), which keeps order and sign within what float32 can
    tell apart; its softmax or sigmoid is no probability (see Learner.probabilities). A label without training rows has
    the lowest score of all. Classes that score the same follow each other with the more frequent one first, then by
    their place: a true class among equals would otherwise count as the best one in `top_5_accuracy`.
    """
    used = numbers if fitted.scaler is None else fitted.scaler.transform(numbers)
    if fitted.kind == "number":
        return np.asarray(fitted.estimator.predict(used), dtype=np.float32).reshape(-1, 1)
    if isinstance(fitted.estimator, OnePerLabel):
        margins = fitted.estimator.decision_function(used)  # those of logistic regression are log-odds
        scores = np.clip(margins, np.log(LEAST), -np.log(LEAST)) if fitted.learner.probabilities else _squashed(margins)
    elif fitted.learner.probabilities:
        raw = _probabilities(fitted, used)
        scores = np.log(np.maximum(raw, LEAST))
        if fitted.kind == "classes":
            scores -= np.log(np.maximum(1 - raw, LEAST))
    elif hasattr(fitted.estimator, "decision_function"):
        margins = np.asarray(fitted.estimator.decision_function(used), dtype=float)
        scores = _squashed(np.stack([-margins, margins], 1) if margins.ndim == 1 else margins)
    else:  # an SVM whose training rows have one class
        scores = np.zeros((used.shape[0], 1))
    seen = fitted.rows > 0
    if fitted.kind == "classes":
        return np.where(seen, scores, UNSEEN).astype(np.float32)
    full = np.full((len(scores), len(seen)), UNSEEN)
    full[:, seen] = scores
    return separate_ties(full, fitted.rows).astype(np.float32)


def _squashed(margins: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(margins) * np.log1p(np.abs(margins)))


def _probabilities(fitted: Fitted, numbers: Any) -> np.ndarray:
    """[rows, classes that have training rows] for "class", [rows, labels] for "classes"."""
    found = fitted.estimator.predict_proba(numbers)
    if not isinstance(found, list):
        return np.asarray(found, dtype=float)
    # scikit-learn gives [rows, 2] per label, or [rows, 1] where all training rows agree
    every = (fitted.rows > 0).astype(float)
    columns = [
        one[:, 1] if one.shape[1] == 2 else np.full(len(one), have) for one, have in zip(found, every, strict=True)
    ]
    return np.stack(columns, 1)


def separate_ties(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Lower equal scores of a row so that no two are equal: more training rows first, then the first label."""
    places = np.broadcast_to(np.arange(len(rows)), scores.shape)
    order = np.lexsort((places, np.broadcast_to(-rows, scores.shape), -scores), axis=1)
    down = STEP * np.arange(len(rows))
    lowered = np.minimum.accumulate(np.take_along_axis(scores, order, 1) + down, axis=1) - down
    result = np.empty_like(scores)
    np.put_along_axis(result, order, lowered, 1)
    return result


def parameters(fitted: Fitted) -> int:
    """The size of a fitted learner in numbers: coefficients, nodes of trees, values of the rows that it keeps."""
    return _size(fitted.estimator)


def _size(estimator: Any) -> int:
    if estimator is None:  # a label that all rows have, or none
        return 1
    if hasattr(estimator, "estimators_"):
        return sum(_size(one) for one in estimator.estimators_)
    if hasattr(estimator, "tree_"):
        return int(estimator.tree_.node_count)
    if hasattr(estimator, "coef_"):
        return int(np.size(estimator.coef_) + np.size(estimator.intercept_))
    if hasattr(estimator, "_fit_X"):  # nearest neighbours
        return int(estimator._fit_X.nnz if hasattr(estimator._fit_X, "nnz") else np.size(estimator._fit_X))
    if hasattr(estimator, "class_prior_"):
        return int(sum(np.size(one) for one in estimator.class_prior_))
    return int(np.size(estimator.constant_))  # the mean
