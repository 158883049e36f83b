"""The classical learners: scores in the order of the labels, probabilities, and data that are odd."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pipelines.baselines import learners
from pipelines.baselines.features import FeatureSet
from pipelines.baselines.learners import LEARNERS, UNSEEN, fit, logits, targets
from pipelines.metrics import classification

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5))
CLASS = np.where(X[:, 0] > 0.4, 2, np.where(X[:, 1] > 0, 0, 1))  # of four classes, of which the last has no rows
CLASSES = np.stack([X[:, 0] > 0, X[:, 1] > 0, np.ones(90) > 0, np.zeros(90) > 0], 1)
NUMBER = 3 * X[:, 0] - X[:, 1] + 2
TARGETS: dict[Any, Any] = {"class": CLASS, "classes": CLASSES, "number": NUMBER}
PAIRS = [(key, kind) for key, one in LEARNERS.items() for kind in one.kinds]


def fitted(key: str, kind: Any = "class", x: Any = X, y: Any = None, setting: int = -1, seed: int = 0) -> Any:
    learner = LEARNERS[key]
    return fit(learner, learner.grid[setting], kind, seed, x, TARGETS[kind] if y is None else y, 4)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "TREES", 20)


@pytest.mark.parametrize(("key", "kind"), PAIRS)
def test_it_learns_what_is_there_and_scores_in_the_order_of_the_labels(key: str, kind: Any) -> None:
    for x in (X, sp.csr_matrix(X)):
        found = logits(fitted(key, kind, x), x)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        if kind == "number":
            assert found.shape == (90, 1)
            error = np.square(found[:, 0] - NUMBER).mean()
            assert error == pytest.approx(NUMBER.var(), rel=1e-6) if key == "mean" else error < 0.3 * NUMBER.var()
            continue
        assert found.shape == (90, 4)
        if kind == "class":
            right = (found.argmax(1) == CLASS).mean()
            assert right == np.bincount(CLASS).max() / 90 if key == "majority" else right > 0.95
            assert (found[:, 3] < found[:, :3].min(1)).all()
        else:
            right = ((found > 0) == CLASSES).mean()
            assert right > 0.95 or key == "majority"
            assert (found[:, 2] > 0).all()
            assert (found[:, 3] == UNSEEN).all()


@pytest.mark.parametrize("key", [key for key, kind in PAIRS if kind == "class" and key != "majority"])
def test_labels_in_another_order_give_the_same_scores_in_that_order(key: str) -> None:
    order = np.array([2, 0, 3, 1])  # the new place of each class
    usual, other = logits(fitted(key), X), logits(fitted(key, y=order[CLASS]), X)
    np.testing.assert_allclose(other[:, order], usual, atol=2e-2 if key == "logistic" else 1e-3)


@pytest.mark.parametrize(
    ("key", "kind"), [pair for pair in PAIRS if pair[0] not in ("random_forest", "linear_svm")]
)  # both draw rows by their places
def test_the_order_of_the_training_rows_does_not_matter(key: str, kind: Any) -> None:
    order = np.random.default_rng(1).permutation(90)
    usual = logits(fitted(key, kind, setting=0), X)
    other = logits(fitted(key, kind, X[order], TARGETS[kind][order], setting=0), X)
    np.testing.assert_allclose(other, usual, atol=5e-3)


@pytest.mark.parametrize("key", ["random_forest", "linear_svm", "logistic"])
def test_one_seed_gives_one_result(key: str) -> None:
    np.testing.assert_array_equal(logits(fitted(key), X), logits(fitted(key), X))


@pytest.mark.parametrize("key", ["logistic", "random_forest", "nearest_neighbours", "majority"])
def test_softmax_and_sigmoid_give_the_probabilities_back(key: str) -> None:
    one = fitted(key, y=np.where(CLASS == 2, 3, CLASS), setting=0)
    shown = one.scaler.transform(X) if one.scaler is not None else X
    expected = np.zeros((90, 4))
    expected[:, [0, 1, 3]] = one.estimator.predict_proba(shown)
    found = torch.from_numpy(logits(one, X)).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)

    several = fitted(key, "classes", setting=0)
    parts = (several.estimator.estimators_[0] if key == "logistic" else several.estimator).predict_proba(shown)
    first = (parts[0] if isinstance(parts, list) else parts)[:, 1]
    np.testing.assert_allclose(torch.from_numpy(logits(several, X)).sigmoid()[:, 0].numpy(), first, atol=1e-4)


def test_margins_keep_order_and_sign_however_large_they_are() -> None:
    one = fitted("linear_svm", x=X * np.array([1e6, 1, 1, 1, 1]))
    one.scaler.scale_ = np.ones(5)
    one.scaler.mean_ = np.zeros(5)
    margins = one.estimator.decision_function(X * 1e6)
    found = logits(one, X * 1e6)[:, :3]
    assert np.abs(margins).max() > 1e4
    np.testing.assert_array_equal(found.argsort(1), margins.argsort(1))
    np.testing.assert_array_equal(np.sign(found), np.sign(margins))
    probabilities = torch.from_numpy(found).softmax(-1)
    assert probabilities.unique(dim=1).shape[1] == 3
    assert not LEARNERS["linear_svm"].probabilities


def test_two_classes_have_two_scores() -> None:
    y = (X[:, 0] > 0).astype(int)
    for key in ("linear_svm", "logistic"):
        one = fit(LEARNERS[key], {"C": 10.0}, "class", 0, X, y, 2)
        assert ((logits(one, X).argmax(1) == y).mean()) > 0.95


def test_equal_scores_count_as_one_rank_each() -> None:
    """A true class that ties with all others is not among the best five by that."""
    classes = [f"c{number}" for number in range(10)]
    y = np.repeat(np.arange(10), 3)
    one = fit(LEARNERS["majority"], {}, "class", 0, np.zeros((30, 1)), y, 10)
    scores = torch.from_numpy(logits(one, np.zeros((30, 1))))
    batch = {"id": [f"{number:02}" for number in range(30)], "true": [classes[label] for label in y]}
    found = classification.scores(classification.records(batch, scores, classes, False), classes)
    assert found["accuracy"] == 0.1
    assert found["top_5_accuracy"] == 0.5
    assert found["ece"] < 1e-4  # a tenth of the rows is right, and it says so


def test_of_equal_scores_the_more_frequent_class_comes_first() -> None:
    x = np.zeros((6, 1))
    one = fit(LEARNERS["nearest_neighbours"], {"n_neighbors": 6}, "class", 0, x, np.array([2, 2, 1, 1, 0, 0]), 4)
    assert logits(one, x)[0].argsort()[::-1].tolist() == [0, 1, 2, 3]
    some = learners.separate_ties(np.zeros((1, 4)), np.array([1, 3, 2, 3]))
    assert some[0].argsort()[::-1].tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize(("key", "kind"), PAIRS)
def test_constant_features_and_one_class_work(key: str, kind: Any) -> None:
    constant = logits(fitted(key, kind, np.ones((90, 3))), np.ones((2, 3)))
    assert np.isfinite(constant).all()
    assert (constant[0] == constant[1]).all()
    y = {"class": np.full(90, 1), "classes": np.zeros((90, 4), bool), "number": np.full(90, 2.5)}[kind]
    found = logits(fitted(key, kind, y=y), X)
    if kind == "class":
        assert (found.argmax(1) == 1).all()
        assert (found[:, [0, 2, 3]] < found[:, [1]]).all()
    else:
        np.testing.assert_allclose(found, 2.5 if kind == "number" else UNSEEN, rtol=1e-5)


@pytest.mark.parametrize("key", [key for key, kind in PAIRS if kind == "class"])
def test_three_rows_with_one_row_of_a_label_are_enough(key: str) -> None:
    for setting in range(len(LEARNERS[key].grid)):
        found = logits(fitted(key, x=X[:3], y=np.array([0, 0, 2]), setting=setting), X)
        assert found.shape == (90, 4)
        assert (found[:, [1, 3]] < found[:, [0, 2]].min(1, keepdims=True)).all()


def test_ridge_and_mean_are_exact() -> None:
    found = logits(fit(LEARNERS["ridge"], {"alpha": 1e-9}, "number", 0, X, NUMBER, 0), X)
    np.testing.assert_allclose(found[:, 0], NUMBER, atol=1e-5)
    assert logits(fitted("mean", "number"), X)[0, 0] == pytest.approx(NUMBER.mean())


def test_the_size_of_a_learner_is_its_numbers() -> None:
    forest = fitted("random_forest")
    sizes = {
        key: learners.parameters(fitted(key)) for key in ("logistic", "linear_svm", "nearest_neighbours", "majority")
    }
    assert sizes == {"logistic": 3 * 6, "linear_svm": 3 * 6, "nearest_neighbours": 90 * 5, "majority": 3}
    assert learners.parameters(forest) == sum(tree.tree_.node_count for tree in forest.estimator.estimators_)
    assert learners.parameters(fitted("logistic", "classes")) == 2 * 6 + 2  # two labels that agree in all rows
    assert learners.parameters(fitted("ridge", "number")) == 6
    assert learners.parameters(fitted("mean", "number")) == 1


def test_a_forest_of_thousands_of_classes_has_few_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "FOREST_BYTES", 20 * 2 * 8 * 4 * 10)  # ten leaves with four counts
    forest = fitted("random_forest").estimator
    assert max(tree.get_n_leaves() for tree in forest.estimators_) <= 10 < 90
    assert learners.most_leaves(rows=1000, counts=10) == 10 * 4 // 10


def test_dense_features_are_standardised_to_rows_of_length_one() -> None:
    one = fitted("logistic", x=X * np.array([1, 10, 100, 1000, 0]) + 5)
    scaled = one.scaler.transform(X * np.array([1, 10, 100, 1000, 0]) + 5)
    assert np.square(scaled).sum(1).mean() == pytest.approx(4 / 5)  # the constant one is 0
    assert fitted("logistic", x=sp.csr_matrix(X)).scaler is None
    assert fitted("random_forest").scaler is None


def test_an_optimiser_that_did_not_come_to_its_end_says_so() -> None:
    from sklearn.linear_model import LogisticRegression

    short = learners.Learner("short", lambda kind, seed, settings: LogisticRegression(max_iter=1), ({},))
    assert not fit(short, {}, "class", 0, X, CLASS, 4).converged
    assert fitted("logistic").converged


def test_steps_are_learned_from_the_training_rows_alone() -> None:
    from sklearn.preprocessing import StandardScaler

    features = FeatureSet("numbers", lambda rows: X, lambda seed: [("scale", StandardScaler())], ("logistic",))
    ids = [str(number) for number in range(90)]
    learned = learners.learn_steps(features, X[:50], ids[:50], 0)
    assert learned.numbers.mean(0) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(learned.of(X, ids)[:50], learned.numbers)
    plain = learners.learn_steps(FeatureSet("numbers", lambda rows: X, lambda seed: [], ()), X, ids, 0)
    assert plain.numbers is plain.of(X, ids) is X


def test_targets_stand_in_the_order_of_the_labels() -> None:
    assert targets(["b", "a", "b"], ["b", "a"], "class").tolist() == [0, 1, 0]
    assert targets([["a"], [], ["b", "a"]], ["b", "a"], "classes").tolist() == [
        [False, True],
        [False, False],
        [True, True],
    ]
    assert targets([1, 2.5], [], "number").tolist() == [1.0, 2.5]
    assert learners.keys_for(("logistic", "ridge", "random_forest"), "number") == ("ridge", "random_forest")


def test_fewer_leaves_are_among_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "TREES", 2)
    X, target = np.arange(40.0).reshape(20, 2), np.arange(20) % 4
    forest = learners.LEARNERS["random_forest"]
    assert "max_leaf_nodes" not in learners.fit(forest, {}, "class", 0, X, target, 4).settings
    monkeypatch.setattr(learners, "FOREST_BYTES", 2 * 2 * 8 * 4 * 3)
    fitted = learners.fit(forest, {"min_samples_leaf": 1}, "class", 0, X, target, 4)
    assert fitted.settings == {"min_samples_leaf": 1, "max_leaf_nodes": 3}
    again = learners.fit(forest, fitted.settings, "class", 0, X[:2], target[:2], 4)  # fewer rows need no limit
    assert again.settings == {"min_samples_leaf": 1}


@pytest.mark.parametrize("key", ["logistic", "linear_svm", "random_forest"])
def test_large_data_are_fitted_on_fewer_rows(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "TREES", 300)

    def large(rows: int) -> Any:
        return np.broadcast_to(np.float32(0), (rows, 1764))

    learner = learners.LEARNERS[key]
    assert learners.most_rows(learner, large(3000), 37) == 3000
    most = learners.most_rows(learner, large(1_000_000), 37)
    assert 5_000 < most < 200_000
    assert learners.most_rows(learner, large(1_000_000), 1000) <= most
