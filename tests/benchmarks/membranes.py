"""Membranes in electron micrographs (ISBI 2012): a U-Net against a random forest on the features of every pixel.

    python -m tests.benchmarks.membranes ../shared/data/isbi2012-membrane --run runs/membranes

Both learn from slices 0 to 23 and are tested on 24 to 29. The forest (scikit-learn) gets the intensity, edges and
texture of each pixel at several scales (scikit-image's `multiscale_basic_features`), as ilastik and Trainable Weka
Segmentation do. Its threshold is the one with the best Dice on slices 20 to 23, and then it learns from all 24.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.data.image.label_maps import unpacked
from pipelines.metrics import intervals, segmentation

LABELS = ["membrane", "cell"]
TRAIN, TEST = range(24), range(24, 30)
PIXELS = 4000  # of each slice that the forest learns from
SIGMAS = (1, 16)  # smallest and largest scale of the features, in pixels


def slices(folder: Path, numbers: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images as float32 from 0 to 1, and maps in which 0 is a membrane and 1 a cell."""
    images = [np.asarray(Image.open(folder / f"train/image/{n}.png"), np.float32) / 255 for n in numbers]
    maps = [(np.asarray(Image.open(folder / f"train/label/{n}.png")) > 127).astype(np.int16) for n in numbers]
    return images, maps


def features(image: np.ndarray) -> np.ndarray:
    """[pixels, features] of one slice."""
    from skimage.feature import multiscale_basic_features

    found = multiscale_basic_features(image, sigma_min=SIGMAS[0], sigma_max=SIGMAS[1])
    return np.asarray(found.reshape(-1, found.shape[-1]), np.float32)


def fitted(images: list[np.ndarray], maps: list[np.ndarray], seed: int = 0) -> Any:
    """A forest that learned from random pixels of these slices."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(seed)
    picked = [rng.choice(image.size, PIXELS, replace=False) for image in images]
    x = np.concatenate([features(image)[places] for image, places in zip(images, picked, strict=True)])
    y = np.concatenate([of.ravel()[places] for of, places in zip(maps, picked, strict=True)])
    forest = RandomForestClassifier(200, min_samples_leaf=5, n_jobs=-1, random_state=seed)
    return forest.fit(x, y)


def dice(membrane: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (membrane & true).sum() / (membrane.sum() + true.sum()))


def forest(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """The forest's records of the test slices, and its threshold."""
    images, maps = slices(folder, TRAIN)
    first = fitted(images[:20], maps[:20])
    chances = np.concatenate([first.predict_proba(features(image))[:, 0] for image in images[20:]])
    true = np.concatenate([of.ravel() == 0 for of in maps[20:]])
    threshold = max(np.linspace(0.2, 0.8, 25), key=lambda t: dice(chances >= t, true))
    final = fitted(images, maps)
    records = []
    for number, image, of in zip(TEST, *slices(folder, TEST), strict=True):
        membrane = final.predict_proba(features(image))[:, 0].reshape(of.shape) >= threshold
        records.append({"id": str(number), **segmentation.record((~membrane).astype(np.int16), of, 2)})
    return records, float(threshold)


def of_run(run: Path, folder: Path) -> list[dict[str, Any]]:
    """A run's records of the test slices, from its saved predictions, with the same truth as the forest's."""
    found = {}
    for line in (run / "predictions/test.jsonl").read_text().splitlines():
        record = json.loads(line)
        found[int(Path(record["id"]).stem)] = unpacked(record["map"])
    _, maps = slices(folder, TEST)
    return [
        {"id": str(number), **segmentation.record(found[number], of, 2)} for number, of in zip(TEST, maps, strict=True)
    ]


def as_splits(folder: Path, target: Path) -> Path:
    """The slices as Graft reads them: links in target/{train,test}/{image,label}."""
    for name, numbers in (("train", TRAIN), ("test", TEST)):
        for kind in ("image", "label"):
            (target / name / kind).mkdir(parents=True)
            for number in numbers:
                (target / name / kind / f"{number}.png").symlink_to((folder / f"train/{kind}/{number}.png").resolve())
    return target


def gain(records: list[dict[str, Any]], than: list[dict[str, Any]]) -> tuple[float, list[float] | None]:
    """The difference of the membranes' Dice, and its interval: both are scored on the same resampled slices."""
    units = np.arange(len(TEST))
    drawn = []
    for one in (records, than):
        of = segmentation.statistics(one, LABELS)
        values = intervals.resampled(lambda weights, of=of: segmentation.summarize(of, weights), units)
        own = segmentation.summarize(of, of.ones())["foreground_dice"]
        drawn.append((own, values["foreground_dice"]))
    return drawn[0][0] - drawn[1][0], intervals.bounds(drawn[0][1] - drawn[1][1], len(units))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="a run of the recipe isbi2012_unet on `as_splits`")
    asked = parser.parse_args()
    start = time.process_time()
    records, threshold = forest(asked.folder)
    print(f"forest: {time.process_time() - start:.0f} processor seconds, threshold {threshold:.2f}")
    both = {"forest": records} | ({"run": of_run(asked.run, asked.folder)} if asked.run else {})
    for name, one in both.items():
        of = segmentation.statistics(one, LABELS)
        own = segmentation.summarize(of, of.ones())
        print(name, *(f"{key} {own[key]:.3f}" for key in ("foreground_dice", "foreground_iou", "boundary_f1")))
    if "run" in both:
        more, interval = gain(both["run"], records)
        low, high = interval or (more, more)
        print(f"run - forest: foreground_dice {more:+.3f} ({low:+.3f} to {high:+.3f}, paired over 6 slices)")


if __name__ == "__main__":
    main()
