"""How close generated samples are to real ones, from features of both: float arrays [rows, D] of one feature extractor.

    frechet_distance(real, made)  ->  12.3        kernel_distance(real, made)  ->  (0.0041, 0.0002)
    precision_recall(real, made)  ->  (0.71, 0.55)

With Inception features, the first two are FID and KID. Everything is computed in float64 and in blocks of rows, so that
10,000 times 10,000 distances are never in memory at once. Raises DataError for features that are not a table, that are
too few or that are not finite.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.errors import DataError

MEMORISED = 1 / 3  # ratio of nearest to second nearest distance, below which a sample counts as a copy
ROWS, COLUMNS = 1024, 4096  # of one block of distances: 32 MB
# Share of the squared lengths below which a distance counts as 0. Float32 features do not differ less, and the
# difference of large squares is rarely exactly 0.
SAME = 1e-12


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians (Heusel et al. 2017).

    m and S are the mean and covariance of each set. With S = R'R, the trace of the root is the sum of the singular
    values of R1 R2'. This avoids the square root of a matrix, and it also holds for fewer rows than features.
    """
    real, made = _pair(real, made, at_least=2)
    (mean, root), (other_mean, other_root) = _gaussian(real), _gaussian(made)
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    distance = ((mean - other_mean) ** 2).sum() + (root**2).sum() + (other_root**2).sum() - 2 * shared
    return max(float(distance), 0.0)  # for equal sets, rounding may give a value just below 0


def kernel_distance(
    real: np.ndarray, made: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The unbiased squared MMD with the kernel (x'y / D + 1)^3: mean and standard deviation over subsets.

    Binkowski et al. 2018. A subset holds at most as many rows as the smaller set. A value near 0 may be negative.
    """
    real, made = _pair(real, made, at_least=2)
    size = min(subset_size, len(real), len(made))
    if size < 2 or subsets < 1:
        raise DataError(f"the kernel distance needs a subset of 2 rows or more, got {subsets} subsets of {size}")
    if size == len(real) == len(made):
        subsets = 1  # there is only one subset of this size
    rng = np.random.default_rng(seed)
    values = [_mmd(_some(real, size, rng), _some(made, size, rng)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def precision_recall(real: np.ndarray, made: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Precision and recall of samples (Kynkaanniemi et al. 2019).

    Precision is the share of samples inside the manifold of the real rows, recall the share of real rows inside the
    manifold of the samples. A manifold is the union of balls around its rows; each ball reaches to the row's k-th
    neighbour.
    """
    real, made = _pair(real, made, at_least=neighbours + 1)
    reach, other_reach = _closest(real, None, neighbours)[1][:, -1], _closest(made, None, neighbours)[1][:, -1]
    real_hit, made_hit = np.zeros(len(real), dtype=bool), np.zeros(len(made), dtype=bool)
    for here in _blocks(len(real), ROWS):
        for there in _blocks(len(made), COLUMNS):
            squared = _squared(real[here], made[there])
            made_hit[there] |= (squared <= reach[here, None]).any(0)
            real_hit[here] |= (squared <= other_reach[there]).any(1)
    return float(made_hit.mean()), float(real_hit.mean())


def nearest(
    made: np.ndarray, train: np.ndarray, neighbours: int = 2, mirrored: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training row of each sample: its index [M], and the distances [M, neighbours], ascending.

    L2 distance in the space of the rows: features, or flattened pixels. With `mirrored`, the mirror images of the
    samples, the distance to a training row is the smaller of the two; a symmetric row still counts once.
    """
    train, made = _pair(train, made, at_least=neighbours, at_least_made=1, names=("training", "made"))
    index, exact = _neighbours(made, train, neighbours)
    if mirrored is not None:
        index, exact = (
            np.concatenate(both, axis=1)
            for both in zip((index, exact), _neighbours(mirrored, train, neighbours), strict=True)
        )
        order = np.argsort(exact, axis=1, kind="stable")
        index, exact = np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1)
        for column in range(1, index.shape[1]):
            exact[(index[:, :column] == index[:, column : column + 1]).any(axis=1), column] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :neighbours]
        index, exact = np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1)
    return index[:, 0], exact


def ratios(distances: np.ndarray) -> np.ndarray:
    """Distance to the nearest row divided by that to the second nearest, [M], 0 to 1.

    It is 0 if both are 0: the sample is a copy of a row that occurs twice.
    """
    first, second = distances[:, 0], distances[:, 1]
    ratios: np.ndarray = np.divide(first, second, out=np.zeros(len(first)), where=second > 0)
    return ratios


def memorised(distances: np.ndarray) -> np.ndarray:
    """Which samples are copies of a training row: bool [M].

    The nearest row must be less than a third as far away as the second nearest (Yoon et al. 2023, "Diffusion
    probabilistic models generalize when they fail to memorize"; Gu et al. 2023). Near-copies of a row that occurs twice
    in the training data are not found, because both rows are equally near.
    """
    return ratios(distances) < MEMORISED


def clip_score(image_features: np.ndarray, text_features: np.ndarray) -> float:
    """CLIP score: the mean of 100 max(cosine, 0) over images and their texts, features [rows, D] each.

    Hessel et al. 2021; their factor is 2.5, 100 is usual today. Raises DataError.
    """
    images, texts = _pair(image_features, text_features, at_least=1, names=("image", "text"))
    if len(images) != len(texts):
        raise DataError(f"{len(images)} images and {len(texts)} texts: each image needs its text")
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    if not lengths.all():
        raise DataError("features of length 0 have no direction to compare")
    return float(100 * np.maximum((images * texts).sum(1) / lengths, 0).mean())


# ---- helpers ----


def _pair(
    real: np.ndarray,
    made: np.ndarray,
    at_least: int,
    at_least_made: int | None = None,
    names: tuple[str, str] = ("real", "made"),
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays. Raises DataError if they cannot be compared."""
    both = np.asarray(real), np.asarray(made)
    for rows, name, need in zip(
        both, names, (at_least, at_least if at_least_made is None else at_least_made), strict=True
    ):
        if rows.ndim != 2:
            raise DataError(f"{name} features: a table of rows is needed, got the shape {rows.shape}")
        if len(rows) < need:
            raise DataError(f"{name} features: {need} row{'s' if need > 1 else ''} or more are needed, got {len(rows)}")
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise DataError(f"{name} features: some numbers are not finite")
    if both[0].shape[1] != both[1].shape[1]:
        raise DataError(
            f"{both[0].shape[1]} {names[0]} and {both[1].shape[1]} {names[1]} features a row: "
            "both must be of one extractor"
        )
    return both


def _blocks(rows: int, size: int) -> Iterator[slice]:
    yield from (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and an R [<= D, D] with R'R = covariance, from a QR decomposition of one block of rows after another."""
    mean = rows.mean(0, dtype=np.float64)
    root: np.ndarray = np.empty((0, rows.shape[1]))
    for part in _blocks(len(rows), COLUMNS):
        root = np.asarray(np.linalg.qr(np.concatenate([root, rows[part] - mean]), mode="r"))
    return mean, root / np.sqrt(len(rows) - 1)


def _some(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return (rows if size == len(rows) else rows[rng.choice(len(rows), size, replace=False)]).astype(np.float64)


def _mmd(one: np.ndarray, two: np.ndarray) -> float:
    n, scale = len(one), one.shape[1]
    within = sum(
        ((rows @ rows.T / scale + 1) ** 3).sum() - (((rows**2).sum(1) / scale + 1) ** 3).sum() for rows in (one, two)
    )
    return float(within / (n * (n - 1)) - 2 * ((one @ two.T / scale + 1) ** 3).mean())


def _squared(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs, [n, m]."""
    one, two = one.astype(np.float64), two.astype(np.float64)
    lengths = (one**2).sum(1)[:, None] + (two**2).sum(1)
    distances = lengths - 2 * (one @ two.T)
    distances[distances < SAME * lengths] = 0
    found: np.ndarray = distances
    return found


def _neighbours(made: np.ndarray, train: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and distance of each sample's nearest training rows, ascending, [M, count] each."""
    index, _ = _closest(made, train, count)
    exact = np.empty(index.shape)
    for column in range(count):
        for part in _blocks(len(made), ROWS):  # computed again from differences, so that a copy has distance 0 exactly
            exact[part, column] = np.linalg.norm(made[part].astype(np.float64) - train[index[part, column]], axis=1)
    order = np.argsort(exact, axis=1, kind="stable")
    return np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1)


def _closest(rows: np.ndarray, others: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and squared distance of each row's nearest `others`, ascending, [n, count] each.

    Without `others` they are the nearest other rows of the same set.
    """
    to = rows if others is None else others
    index, squared = np.empty((len(rows), count), dtype=np.int64), np.empty((len(rows), count))
    for here in _blocks(len(rows), ROWS):
        best = np.full((here.stop - here.start, count), np.inf)
        where = np.zeros(best.shape, dtype=np.int64)
        for there in _blocks(len(to), COLUMNS):
            found = _squared(rows[here], to[there])
            if others is None:
                own = np.arange(max(here.start, there.start), min(here.stop, there.stop))
                found[own - here.start, own - there.start] = np.inf
            here_and_before = np.concatenate([best, found], axis=1)
            kept = np.argpartition(here_and_before, count - 1, axis=1)[:, :count]
            before = np.take_along_axis(where, np.minimum(kept, count - 1), 1)
            best, where = (
                np.take_along_axis(here_and_before, kept, 1),
                np.where(kept < count, before, kept - count + there.start),
            )
        order = np.argsort(best, axis=1, kind="stable")
        index[here], squared[here] = np.take_along_axis(where, order, 1), np.take_along_axis(best, order, 1)
    return index, squared
