"""Hand-made features of images, from before deep learning: colour histograms, HOG, and SIFT words.

Each image is decoded once, upright and in RGB, and made smaller so that its longest side has 256 pixels. All features
are computed from this copy.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.baselines.features import FeatureSet, Unreadable
from pipelines.data.image.reading import image_of
from pipelines.errors import DataError, RunError
from pipelines.task import Task
from pipelines.utils.hardware import cores
from pipelines.utils.progress import preparing

if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 256  # pixels of the longest side
BINS = 8  # of each of hue, saturation and value
SQUARE, CELL, BLOCK, ORIENTATIONS = 128, 16, 2, 9  # HOG: pixels a side, pixels of a cell, cells of a block, directions
SMALLEST = 12  # pixels of the shorter side that skimage's SIFT needs
SMALL = 128  # pixels: smaller images are doubled for SIFT, as Lowe 2004 does with all images
DESCRIPTORS = 500  # of one image; photos of 256 pixels have 60 to 250
WORDS = 200  # of the vocabulary
KEPT = 1 << 30  # bytes of decoded images that are kept for the next features; beyond that they are decoded again
ALONE = 4.0  # seconds of work that one process does; the start of others takes as long
PIECE = 8  # images that another process gets at a time

LEARNERS = ("linear_svm", "random_forest")


def feature_sets(task: Task) -> list[FeatureSet]:
    """The hand-made features of a task with one `image` per row. Raises RunError if scikit-image is not installed."""
    check_installed("images")
    pictures = Pictures(task.options.white)
    return [
        FeatureSet(
            "colour histogram",
            partial(pictures.features, colours),
            lambda seed: [],
            LEARNERS,
            about=f"The share of pixels in each of {BINS} x {BINS} x {BINS} bins of hue, saturation and value (Swain "
            "and Ballard 1991), as square roots.",
            shared=lambda: pictures.shared,
            cached=lambda: pictures.bytes,
        ),
        FeatureSet(
            "HOG",
            partial(pictures.features, hog),
            lambda seed: [],
            LEARNERS,
            about=f"Histograms of {ORIENTATIONS} directions of edges in cells of {CELL} pixels, of the image at "
            f"{SQUARE} x {SQUARE} pixels (Dalal and Triggs 2005).",
            shared=lambda: pictures.shared,
            cached=lambda: pictures.bytes,
        ),
        FeatureSet(
            "SIFT words",
            partial(pictures.features, sift),
            words,
            LEARNERS,
            about=f"How often each of {WORDS} visual words occurs among the image's SIFT descriptors (Lowe 2004; "
            "Csurka et al. 2004).",
            shared=lambda: pictures.shared,
            cached=lambda: pictures.bytes,
        ),
    ]


def check_installed(what: str) -> None:
    """Raise RunError if scikit-image, which computes features of `what`, is not installed."""
    try:
        import skimage.feature  # noqa: F401
    except ImportError:
        raise RunError(
            f"hand-made features of {what} need scikit-image: pip install 'graft-pipelines[baseline]'"
        ) from None


def words(seed: int) -> list[tuple[str, Any]]:
    """The step from descriptors to counts of visual words. The words are learned from the training rows."""
    from pipelines.baselines.visual_words import VisualWords

    return [("words", VisualWords(WORDS, seed))]


# ---- images ----


class Pictures:
    """The images of rows at 256 pixels, each decoded once while all fit in KEPT bytes. `white`: see read_image."""

    def __init__(self, white: int | None) -> None:
        self.white = white
        self.kept: dict[Any, np.ndarray] = {}
        self.bytes = 0
        self.decoding: dict[Any, float] = {}  # seconds by the clock of each kept image, its share of the whole work
        self.shared = 0.0  # seconds of the decoding that other features did for the ones that were asked for last

    def features(self, describe: Callable[[np.ndarray], np.ndarray], rows: "Dataset") -> Any:
        """What `describe` gives for every image: an array [rows, numbers], or a list of arrays [any number, numbers].

        Raises Unreadable.
        """
        keys = [_key(row) for row in rows]
        held = [key in self.kept for key in keys]
        self.shared = sum(self.decoding[key] for key, have in zip(keys, held, strict=True) if have)
        found: list[np.ndarray] = []
        bad: dict[int, str] = {}
        with preparing(f"features of images ({describe.__name__})", len(rows)) as advance:
            # whether to keep an image is asked when its turn comes: a full cache needs no more from other processes
            asked = (
                (self.kept[keys[place]], False) if held[place] else (rows[place], self.bytes < KEPT)
                for place in range(len(rows))
            )
            began, decoding, working, new = time.perf_counter(), 0.0, 0.0, []
            for place, (image, seconds, answer) in enumerate(
                _each(partial(described, describe, self.white), asked, len(rows))
            ):
                advance(1)
                decoding, working = decoding + seconds[0], working + sum(seconds)
                if isinstance(answer, str):
                    bad[place] = answer
                    continue
                found.append(answer)
                key = keys[place]
                if image is not None and key is not None and self.bytes + image.nbytes <= KEPT:
                    self.kept[key] = image
                    self.bytes += image.nbytes
                    new.append(key)
            # several processes decode at a time: the clock's share of decoding is that of the work, the same for all
            wall = (time.perf_counter() - began) * decoding / max(working, 1e-9)
            self.decoding |= dict.fromkeys(new, wall / max(1, len(rows) - sum(held)))
        if bad:
            raise Unreadable(bad)
        return np.stack(found) if found[0].ndim == 1 else found


def _key(row: Any) -> Any:
    """What identifies the image of a row: two splits may have rows with the same id. None for an image in memory."""
    image = row["image"]
    if isinstance(image, dict):
        return row["id"], image.get("path"), hash(image.get("bytes")), image.get("page")
    return (row["id"], str(image)) if isinstance(image, (str, Path)) else None


def described(
    describe: Callable[[np.ndarray], np.ndarray], white: int | None, asked: tuple[Any, bool]
) -> tuple[np.ndarray | None, tuple[float, float], np.ndarray | str]:
    """The decoded image of a row if it is to be kept, the seconds of decoding and of describing it, and its description
    or why there is none. `asked` is a row or its decoded image, and whether to keep it.
    """
    image, keep = asked
    began = decoded = time.perf_counter()
    if not isinstance(image, np.ndarray):
        try:
            image = small(image, white)
        except DataError as error:
            return None, (time.perf_counter() - began, 0.0), str(error)
        decoded = time.perf_counter()
    answer = describe(image)
    return image if keep else None, (decoded - began, time.perf_counter() - decoded), answer


def small(row: Any, white: int | None = None) -> np.ndarray:
    """The image of a row, uint8 [height, width, 3], at most 256 pixels a side. Raises DataError naming the row."""
    image = image_of(row, white)
    image.thumbnail((SIDE, SIDE))
    return np.array(image)


def _each(work: Callable[[Any], Any], items: Iterator[Any], count: int) -> Iterator[Any]:
    """`work(item)` for each of `count` items, in their order; by one process per core if it takes several seconds."""
    from joblib import Parallel, delayed

    began = time.perf_counter()
    for number, item in enumerate(items, 1):
        yield work(item)
        if number >= PIECE and (time.perf_counter() - began) / number * (count - number) > ALONE and cores() > 1:
            break
    yield from Parallel(cores(), return_as="generator", batch_size=PIECE)(delayed(work)(item) for item in items)


# ---- what they measure ----


def colours(image: np.ndarray) -> np.ndarray:
    """Square roots of the shares of pixels in bins of hue, saturation and value: float32 [BINS ** 3].

    With square roots, a linear learner compares histograms by their Hellinger distance.
    """
    from PIL import Image

    bins = np.asarray(Image.fromarray(image).convert("HSV"), dtype=np.int64) // (256 // BINS)
    places = (bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]
    return np.sqrt(np.bincount(places.ravel(), minlength=BINS**3) / places.size).astype(np.float32)


def hog(image: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients of the image stretched to a square, because all images need the same grid.

    float32 [1764]: 7 x 7 blocks of 2 x 2 cells with 9 directions each.
    """
    from PIL import Image
    from skimage.feature import hog as histograms

    square = Image.fromarray(image).convert("L").resize((SQUARE, SQUARE), Image.Resampling.BILINEAR)
    found = histograms(np.asarray(square), ORIENTATIONS, (CELL, CELL), (BLOCK, BLOCK))
    return np.asarray(found, dtype=np.float32)


def sift(image: np.ndarray) -> np.ndarray:
    """SIFT descriptors of the image's keypoints: uint8 [keypoints, 128], at most DESCRIPTORS, evenly spaced.

    An image without keypoints (one colour, or a few pixels) has none.
    """
    from PIL import Image
    from skimage.feature import SIFT

    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32) / 255
    doubled = max(grey.shape) < SMALL
    if min(grey.shape) * (2 if doubled else 1) < SMALLEST or grey.min() == grey.max():
        return np.zeros((0, 128), dtype=np.uint8)
    extractor: Any = SIFT(upsampling=2 if doubled else 1)  # type: ignore[no-untyped-call]
    try:
        extractor.detect_and_extract(grey)
    except RuntimeError:  # "SIFT found no features"
        return np.zeros((0, 128), dtype=np.uint8)
    found = extractor.descriptors
    chosen = np.linspace(0, len(found) - 1, min(len(found), DESCRIPTORS)).round().astype(int)
    return np.asarray(found[chosen], dtype=np.uint8)
