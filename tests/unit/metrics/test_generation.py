"""Distances between real and generated samples: equal to torch-fidelity's and torchmetrics', and to known answers."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.metrics import generation

Sets = tuple[np.ndarray, np.ndarray]


def noise(real: int, made: int, width: int, seed: int = 0) -> Sets:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(real, width)).astype(np.float32), rng.normal(0.2, 1.3, size=(made, width)).astype(
        np.float32
    )


def structured(real: int, made: int, width: int, rank: int, seed: int = 0) -> Sets:
    """Rectified mixtures of a few directions, like the last layer of a network. Generated rows lack one mode."""
    rng = np.random.default_rng(seed)
    mix, modes = rng.normal(size=(rank, width)), rng.normal(0, 2, size=(4, rank))
    found = []
    for n, known in ((real, 4), (made, 3)):
        hidden = modes[rng.integers(known, size=n)] + rng.normal(size=(n, rank))
        found.append(np.maximum(hidden @ mix + 0.1, 0).astype(np.float32))
    return found[0], found[1]


CASES = {
    "noise": noise(600, 500, 24),
    "structured": structured(500, 400, 48, rank=6),
    "fewer rows than features": structured(40, 30, 64, rank=5),
    "far apart": (noise(200, 200, 16)[0], noise(200, 200, 16)[1] * 3 + 50),
}
each_case = pytest.mark.parametrize(("real", "made"), CASES.values(), ids=CASES.keys())


# ---- against other implementations ----


@each_case
def test_frechet_distance_is_that_of_torch_fidelity_and_torchmetrics(real: np.ndarray, made: np.ndarray) -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    ours = generation.frechet_distance(real, made)
    stats = [fid_features_to_statistics(torch.tensor(rows, dtype=torch.float64)) for rows in (real, made)]
    assert ours == pytest.approx(fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID], rel=1e-5)
    parts = [torch.tensor(stat[name]) for stat in stats for name in ("mu", "sigma")]
    assert ours == pytest.approx(float(_compute_fid(*parts)), rel=1e-5)


@each_case
def test_kernel_distance_is_that_of_torch_fidelity(real: np.ndarray, made: np.ndarray) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    size = min(len(real), len(made))
    theirs = kid_features_to_metric(
        *(torch.tensor(rows[:size], dtype=torch.float64) for rows in (real, made)),
        kid_subsets=1,
        kid_subset_size=size,
        verbose=False,
    )
    assert generation.kernel_distance(real[:size], made[:size]) == (
        pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-6),
        0,
    )
    several = kid_features_to_metric(
        *(torch.tensor(rows, dtype=torch.float64) for rows in (real, made)),
        kid_subsets=60,
        kid_subset_size=size // 2,
        verbose=False,
    )
    mean, deviation = generation.kernel_distance(real, made, 60, size // 2)  # other subsets: as near as chance allows
    assert abs(mean - several[KEY_METRIC_KID_MEAN]) < deviation
    assert 0.5 < deviation / several[KEY_METRIC_KID_STD] < 2


@each_case
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(real: np.ndarray, made: np.ndarray, neighbours: int) -> None:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    tensors = [torch.tensor(rows, dtype=torch.float64) for rows in (made, real)]
    theirs = prc_features_to_metric(
        *tensors, prc_neighborhood=neighbours, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    ours = generation.precision_recall(real, made, neighbours)
    assert ours == pytest.approx((theirs[KEY_METRIC_PRECISION], theirs[KEY_METRIC_RECALL]), rel=1e-6)


def test_clip_score_is_that_of_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    # the package exports a function with the name of its module
    theirs: Any = import_module("torchmetrics.functional.multimodal.clip_score")
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(20, 16)).astype(np.float32)
    images = (texts + rng.normal(size=(20, 16))).astype(np.float32)
    given = {"image": torch.tensor(images), "text": torch.tensor(texts)}
    monkeypatch.setattr(theirs, "_get_features", lambda data, kind, device, model, processor: given[kind])
    model: Any = torch.nn.Identity()
    scores, n = theirs._clip_score_update(list(torch.zeros(20, 3, 4, 4)), ["a text"] * 20, model, model)
    assert (scores > 0).all()  # theirs lets one negative cosine lower the others; the paper's does not
    assert generation.clip_score(images, texts) == pytest.approx(float(scores.sum() / n), rel=1e-5)
    assert generation.clip_score(-texts, texts) == 0
    assert generation.clip_score(np.concatenate([texts, -texts]), np.concatenate([texts, texts])) == pytest.approx(50)
    assert generation.clip_score(7 * texts, texts) == pytest.approx(100)


# ---- against known answers ----


def test_frechet_distance_of_known_gaussians() -> None:
    """Whitened rows that get a mean and a covariance: the closed form is exact, whether or not covariances commute."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    white = rng.normal(size=(300, 6))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False)).T)
    widths, other = rng.uniform(0.2, 3, 6), rng.uniform(0.2, 3, 6)
    shift = rng.normal(size=6)
    closed = (shift**2).sum() + ((widths - other) ** 2).sum()
    assert generation.frechet_distance(white * widths, white * other + shift) == pytest.approx(closed, rel=1e-9)
    one, two = rng.normal(size=(6, 6)), rng.normal(size=(6, 6))
    closed = np.trace(one.T @ one + two.T @ two - 2 * sqrtm(one.T @ one @ two.T @ two).real) + (shift**2).sum()
    assert generation.frechet_distance(white @ one, white @ two + shift) == pytest.approx(closed, rel=1e-7)
    flat = white * [1, 1, 1, 0, 0, 0]
    assert generation.frechet_distance(flat, flat @ np.eye(6)[::-1]) == pytest.approx(
        6, rel=1e-9
    )  # on planes that share no direction


@given(st.integers(2, 60), st.integers(1, 40), st.floats(0, 100), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_shift_is_measured_exactly(n: int, width: int, shift: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, width))
    assert generation.frechet_distance(rows, rows + shift) == pytest.approx(shift**2 * width, rel=1e-7, abs=1e-9)


@each_case
def test_order_and_sides_do_not_matter_and_equal_sets_are_at_zero(real: np.ndarray, made: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    distance = generation.frechet_distance(real, made)
    assert generation.frechet_distance(rng.permutation(real), rng.permutation(made)) == pytest.approx(
        distance, rel=1e-9
    )
    assert generation.frechet_distance(made, real) == pytest.approx(distance, rel=1e-9)
    assert 0 <= generation.frechet_distance(real, rng.permutation(real)) < 1e-9 * real.var(0).sum()
    size = min(len(real), len(made))
    kernel = generation.kernel_distance(real[:size], made[:size])[0]
    assert generation.kernel_distance(rng.permutation(made[:size]), rng.permutation(real[:size]))[0] == pytest.approx(
        kernel, rel=1e-9
    )
    assert generation.kernel_distance(real, real)[0] < 0 < kernel  # unbiased: below 0 for two equal sets
    precision, recall = generation.precision_recall(real, made)
    assert generation.precision_recall(rng.permutation(real), rng.permutation(made)) == (precision, recall)
    assert generation.precision_recall(made, real) == (recall, precision)
    assert generation.precision_recall(real, rng.permutation(real)) == (1, 1)


def test_distances_grow_with_a_shift_and_a_lost_mode_costs_recall() -> None:
    real, _ = noise(300, 300, 12)
    again = np.random.default_rng(7).normal(size=(300, 12))
    shifts = [0.0, 0.5, 1.0, 2.0, 4.0]
    for measure in (generation.frechet_distance, lambda a, b: generation.kernel_distance(a, b)[0]):
        values = [measure(real, again + shift) for shift in shifts]
        assert values == sorted(values)
    assert generation.precision_recall(real, again + 50) == (0, 0)
    precision, recall = generation.precision_recall(np.concatenate([real, real + 30]), again)
    assert precision == generation.precision_recall(real, again)[0] > 0.7
    assert 0.4 < recall <= 0.5


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = structured(90, 70, 20, rank=5)
    expected = [generation.frechet_distance(real, made), *generation.precision_recall(real, made)]
    index, distances = generation.nearest(made, real, 3)
    monkeypatch.setattr(generation, "ROWS", 7)
    monkeypatch.setattr(generation, "COLUMNS", 11)
    assert [generation.frechet_distance(real, made), *generation.precision_recall(real, made)] == pytest.approx(
        expected, rel=1e-9
    )
    in_blocks = generation.nearest(made, real, 3)
    assert (in_blocks[0] == index).all()
    assert (in_blocks[1] == distances).all()


# ---- the nearest training row ----


def test_nearest_is_scikit_learns() -> None:
    from sklearn.neighbors import NearestNeighbors

    train, made = noise(300, 80, 10)
    theirs, places = NearestNeighbors(n_neighbors=4).fit(train).kneighbors(made)
    index, distances = generation.nearest(made, train, 4)
    assert (index == places[:, 0]).all()
    np.testing.assert_allclose(distances, theirs, rtol=1e-6)


def test_copies_are_told_from_new_samples() -> None:
    train = (
        np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32) + 1000
    )  # far from 0, where squares lose digits
    twice = np.concatenate([train, train[:1]])
    made = np.concatenate(
        [train[:1], train[5:6], train[9:10] + 0.01, np.random.default_rng(1).normal(size=(3, 64)) + 1000]
    )
    index, distances = generation.nearest(made, twice)
    assert index[1:3].tolist() == [5, 9]
    assert distances[0].tolist() == [0, 0]  # exactly 0, because its row is there twice
    assert generation.memorised(distances).tolist() == [True, True, True, False, False, False]
    assert generation.ratios(distances)[:2].tolist() == [0, 0]
    assert generation.memorised(np.array([[1.0, 3.1], [1.0, 2.9], [0.0, 0.0], [0.0, 1.0], [2.0, 2.0]])).tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]


# ---- what cannot be measured ----


@pytest.mark.parametrize(
    ("real", "made", "message"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "real features: 2 rows or more are needed, got 1"),
        (np.zeros((5, 4)), np.zeros((0, 4)), "made features: 2 rows or more are needed, got 0"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "4 real and 3 made features a row"),
        (np.zeros((5, 4, 2)), np.zeros((5, 4)), "a table of rows is needed"),
        (np.zeros((5, 4)), np.full((5, 4), np.nan), "made features: some numbers are not finite"),
    ],
)
def test_sets_that_cannot_be_compared(real: np.ndarray, made: np.ndarray, message: str) -> None:
    for measure in (generation.frechet_distance, generation.kernel_distance):
        with pytest.raises(DataError, match=message):
            measure(real, made)


def test_too_few_rows_say_so() -> None:
    with pytest.raises(DataError, match="4 rows or more are needed, got 3"):
        generation.precision_recall(np.zeros((3, 4)), np.zeros((9, 4)))
    with pytest.raises(DataError, match="training features: 2 rows or more"):
        generation.nearest(np.zeros((3, 4)), np.zeros((1, 4)))
    with pytest.raises(DataError, match="2 images and 3 texts"):
        generation.clip_score(np.ones((2, 4)), np.ones((3, 4)))
    with pytest.raises(DataError, match="length 0"):
        generation.clip_score(np.zeros((2, 4)), np.ones((2, 4)))
    with pytest.raises(DataError, match="a subset of 2 rows or more"):
        generation.kernel_distance(np.ones((4, 2)), np.ones((4, 2)), subset_size=1)
