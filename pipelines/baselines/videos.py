"""Hand-made features of videos, and what a simple learner makes of features that were computed before."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.baselines.features import FeatureSet, Unreadable
from pipelines.baselines.images import SIDE, check_installed, colours, hog
from pipelines.errors import DataError
from pipelines.task import Task
from pipelines.utils.hardware import cores
from pipelines.utils.progress import preparing
from pipelines.utils.sequences import each

if TYPE_CHECKING:
    from datasets import Dataset

FRAMES = 4  # of a video, evenly spread
AT_ONCE = 64  # videos that are read before the next ones: only their features are kept


def feature_sets(task: Task) -> list[FeatureSet]:
    """The features of a task with one video per row, or with features of a video (`options.input: features`).

    Raises RunError if scikit-image is not installed, which videos need and features do not.
    """
    if task.options.input == "features":
        return [
            FeatureSet(
                "mean features",
                partial(mean_features, task),
                lambda seed: [],
                ("logistic",),
                about="The given features of a video, averaged over its frames.",
            )
        ]
    check_installed("videos")
    return [
        FeatureSet(
            "colours and HOG of frames",
            read,
            lambda seed: [],
            ("logistic", "linear_svm"),
            about=f"Colour histogram (Swain and Ballard 1991) and histograms of oriented gradients (Dalal and Triggs "
            f"2005) of {FRAMES} frames, averaged: what a video shows, without its motion.",
        )
    ]


def mean_features(task: Task, rows: "Dataset") -> np.ndarray:
    """The features of each video averaged over its frames, float32 [rows, numbers]. Raises Unreadable."""
    examples: Any = task.encode(rows)
    return read_all(lambda place: examples[place]["features"].mean(0), range(len(rows)), "features of videos")


def read(rows: "Dataset") -> np.ndarray:
    """Colours and HOG of frames, float32 [rows, numbers]. Raises Unreadable."""
    return read_all(lambda place: described(rows[place]["video"]), range(len(rows)), "frames of videos")


def described(video: Any) -> np.ndarray:
    """The mean over FRAMES frames of a video of colour histogram and HOG, float32 [numbers]. Raises DataError."""
    from PIL import Image

    from pipelines.data.video.reading import header, read_frames

    seconds = header(video).seconds
    found = []
    for frame in read_frames(video, [(place + 0.5) * seconds / FRAMES for place in range(FRAMES)]):
        image = Image.fromarray(frame)
        image.thumbnail((SIDE, SIDE))
        found.append(np.concatenate([colours(np.asarray(image)), hog(np.asarray(image))]))
    return np.asarray(np.mean(found, axis=0), dtype=np.float32)


def read_all(describe: Any, places: Sequence[int], what: str) -> np.ndarray:
    """`describe(place)` of all places, float32 [places, numbers], by several threads. Raises Unreadable."""
    found: list[np.ndarray] = []
    bad: dict[int, str] = {}
    with preparing(what, len(places)) as advance:
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            for place, one in zip(some, each(describe, some, cores()), strict=True):
                advance(1)
                if isinstance(one, DataError):
                    bad[place] = str(one)
                else:
                    found.append(one)
    if bad:
        raise Unreadable(bad)
    return np.stack(found).astype(np.float32, copy=False)
