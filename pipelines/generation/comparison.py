"""Compare generated images with real images, and search them among the training images.

Distances are those of features (see pipelines.generation.feature_extractors). Only distances of Inception's features
are named fid and kid; the others carry the name of their extractor, because numbers of two extractors cannot be
compared.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.image.pixels import to_image
from pipelines.errors import DataError
from pipelines.generation.feature_extractors import Extractor, Fits
from pipelines.metrics import generation, intervals

log = logging.getLogger("graft")

CONFIDENT = 0.9  # a classifier recognises an image if its probability is at least this
FEWEST = 3  # with fewer images, precision and recall have no third neighbour
SIDE = 32  # side in pixels at which training images are searched
ENOUGH = 10_000  # images of either set; with fewer, the distance is biased upwards (Heusel et al. 2017)
Request = Mapping[str, Any]


class Decoded(Sequence[Any]):
    """The images of some examples, decoded at each access: all decoded images together may exceed the memory."""

    def __init__(self, examples: Any, numbers: Sequence[int]) -> None:
        self.examples, self.numbers = examples, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        return to_image(self.examples[self.numbers[place]]["pixels"])


def thumbnails(
    examples: Any, numbers: Sequence[int], tick: Callable[[int], None] = lambda n: None
) -> tuple[np.ndarray, list[int], list[tuple[str, str]]]:
    """Shrink the images with these numbers to thumbnails for `measure` (uint8, at most SIDE pixels a side).

    Returns the thumbnails, the numbers of the readable images, and (number, reason) of the others.
    """
    found: np.ndarray = np.empty((0, 1, 1), dtype=np.uint8)
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    for number in numbers:
        tick(1)
        try:
            small = _small(to_image(examples[number]["pixels"]))
        except DataError as error:
            bad.append((str(number), str(error)))
            continue
        if not kept:
            found = np.empty((len(numbers), *small.shape), dtype=np.uint8)
        found[len(kept)] = small
        kept.append(number)
    return found[: len(kept)], kept, bad


def measure(
    images: Sequence[Any],
    real: Sequence[Any],
    extractor: Extractor | None,
    train: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    *,
    classes: tuple[Sequence[str], Sequence[str]] | None = None,
    flip: bool = False,
    tick: Any = lambda n: None,
) -> dict[str, Any]:
    """Compare `images` with the `real` ones: {metrics, ci95, tables, nearest, copied}.

    `train` and `held_out` are thumbnails of training images and of test images. Test images took no part in training,
    so the share of them that counts as copies is what chance gives. `classes` are the requested class of each image,
    and the classes of the real images. `flip` means that training used mirror images, too. `nearest` lists (number of
    the image, number of the training image, ratio of the nearest to the second-nearest distance), the closest first;
    `copied` marks the copies.
    """
    metrics: dict[str, float] = {}
    ci95: dict[str, list[float] | None] = {}
    about: dict[str, dict[str, Any]] = {
        "samples": {"set": "samples", "images": len(images)},
        "real": {"set": "real", "images": len(real)},
    }
    tables: dict[str, list[dict[str, Any]]] = {}
    if extractor is not None and min(len(images), len(real)) > FEWEST:
        if few := too_few(len(images), len(real), extractor):
            log.warning("%s", few)
        made_features, made_odds = extractor.look(images, tick=tick)
        real_features, real_odds = extractor.look(real, tick=tick)
        metrics |= distances(real_features, made_features, extractor)
        if made_odds is not None and real_odds is not None:
            for row, odds in (("samples", made_odds), ("real", real_odds)):
                sure = odds.max(axis=1) >= CONFIDENT
                about[row] |= {
                    "recognised": float(sure.mean()),
                    "classes": len(set(odds[sure].argmax(axis=1).tolist())),
                }
            metrics["recognised"] = about["samples"]["recognised"]
            ci95["recognised"] = intervals.of_mean(made_odds.max(axis=1) >= CONFIDENT)
            for row, odds, wanted in zip(about, (made_odds, real_odds), classes or ((), ()), strict=True):
                if len(wanted) and (right := _right(extractor, odds, wanted)) is not None:
                    about[row]["class_accuracy"] = float(right.mean())
                    if row == "samples":
                        metrics["class_accuracy"], ci95["class_accuracy"] = (
                            float(right.mean()),
                            intervals.of_mean(right),
                        )
            tables["classes"] = _classes(extractor.labels or [], made_odds, real_odds)
    nearest: list[tuple[int, int, float]] = []
    copied = np.zeros(len(images), dtype=bool)
    if train is not None and len(train) > 1 and len(images):
        nearest, copied = _memorised(np.stack([_small(image) for image in images]), train, flip)
        by_chance = _memorised(held_out, train, flip)[1].mean() if held_out is not None and len(held_out) else None
        about["samples"]["memorised"] = metrics["memorised"] = float(copied.mean())
        about["real"]["memorised"] = None if by_chance is None else float(by_chance)
        ci95["memorised"] = intervals.of_mean(copied)
    known = {name: bounds for name, bounds in ci95.items() if bounds is not None}
    tables = {"samples and real images": list(about.values()), **tables}
    return {"metrics": metrics, "ci95": known, "tables": tables, "nearest": nearest, "copied": copied}


def too_few(made: int, real: int, extractor: Extractor) -> str | None:
    """A warning if an Inception distance of so few images says little; else None."""
    if not extractor.inception or min(made, real) >= ENOUGH:
        return None
    what = f"fid of {made:,} images" if made < ENOUGH else f"fid with {real:,} real images"
    return f"{what}: values of fewer than {ENOUGH:,} are too high and cannot be compared with published ones"


def fit(
    found: dict[str, Any],
    fits: Fits,
    images: Sequence[Any],
    texts: Sequence[str],
    real: Sequence[Any],
    captions: Sequence[str],
) -> None:
    """Add CLIP scores to the result of `measure`: of `images` with their prompts, and of the real images with their
    captions.
    """
    made, known = fits(images, texts), fits(real, captions)
    bounds = intervals.of_mean(made)
    found["metrics"]["clip_score"] = float(made.mean())
    if bounds is not None:
        found["ci95"]["clip_score"] = bounds
    for row, scores in zip(found["tables"]["samples and real images"], (made, known), strict=True):
        row["clip_score"] = float(scores.mean())


def distances(real: np.ndarray, made: np.ndarray, extractor: Extractor) -> dict[str, float]:
    """Frechet and kernel distance, precision and recall. The names state the feature extractor."""
    of = "" if extractor.inception else f" ({extractor.name})"
    precision, recall = generation.precision_recall(real, made)
    return {
        f"{'fid' if extractor.inception else 'frechet_distance'}{of}": generation.frechet_distance(real, made),
        f"{'kid' if extractor.inception else 'kernel_distance'}{of}": generation.kernel_distance(real, made)[0],
        f"precision{of}": precision,
        f"recall{of}": recall,
    }


def _right(extractor: Extractor, odds: np.ndarray, wanted: Sequence[str]) -> np.ndarray | None:
    """For each image, whether the classifier predicts its class in `wanted`.

    None if it does not know all these classes.
    """
    labels = extractor.labels or []
    if unknown := sorted(set(wanted) - set(labels)):
        log.warning(
            "%s does not know the class %s: it cannot tell whether images show their classes",
            extractor.name,
            unknown[0],
        )
        return None
    hits: np.ndarray = odds.argmax(axis=1) == np.array([labels.index(label) for label in wanted])
    return hits


def _classes(labels: list[str], made: np.ndarray, real: np.ndarray) -> list[dict[str, Any]]:
    """How many samples, and how many real images, the classifier assigns to each class."""
    seen = [np.bincount(odds.argmax(axis=1), minlength=len(labels)) for odds in (made, real)]
    return [{"label": label, "samples": int(seen[0][i]), "real": int(seen[1][i])} for i, label in enumerate(labels)]


def _memorised(images: np.ndarray, train: np.ndarray, flip: bool) -> tuple[list[tuple[int, int, float]], np.ndarray]:
    """The training images nearest to the thumbnails, closest pairs first; and which thumbnails count as copies."""
    mirrored = _flat(images[:, :, ::-1]) if flip else None
    where, distances_ = generation.nearest(_flat(images), _flat(train), mirrored=mirrored)
    ratios = generation.ratios(distances_)
    order = np.argsort(ratios)[:8]
    nearest = [(int(number), int(where[number]), float(ratios[number])) for number in order]
    return nearest, generation.memorised(distances_)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _small(image: Any) -> np.ndarray:
    """[height, width] or [height, width, 3] uint8, at most SIDE pixels a side."""
    from PIL import Image

    return np.asarray(image if max(image.size) <= SIDE else image.resize((SIDE, SIDE), Image.Resampling.BOX))
