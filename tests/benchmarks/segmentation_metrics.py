"""How long scores of segmentation take, with intervals: `python -m tests.benchmarks.segmentation_metrics`.

The first table has 2,000 images of 21 and of 150 classes with 1,000 resamples. The second has one image of 2,000 pixels
a side: the counts that Graft's record keeps, the same without boundaries, torchmetrics' MeanIoU, and histograms of each
class as in the mean_iou of the evaluate library. The maps are made up: smooth regions, and a shifted copy of them with
some noise.
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.metrics import intervals, segmentation

COPIES = 20  # the counts of so many images are used again for the 2,000 rows


def maps(classes: int, side: int, seed: int, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth [side, side]; about a tenth of the pixels is ignored."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    cells = side // 20
    smooth = ndimage.gaussian_filter(rng.random((classes, cells, cells), dtype=np.float32), (0, 2, 2))
    true = np.kron(smooth.argmax(0), np.ones((20, 20), dtype=int)).astype(np.int16)
    predicted = np.roll(true, 7, 1)
    wrong = rng.random(true.shape) < noise
    predicted[wrong] = rng.integers(0, classes, int(wrong.sum()))
    true[: side // 10] = segmentation.IGNORE
    return predicted, true


def made_up(classes: int, count: int = 2_000) -> list[dict[str, Any]]:
    few = [segmentation.record(*maps(classes, 500, seed), classes) for seed in range(count // COPIES)]
    return [{"id": f"{number:06}", **few[number % len(few)]} for number in range(count)]


def seconds(run: Callable[[], object], times: int = 5) -> float:
    """The shortest of a few runs."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def histograms(predicted: np.ndarray, true: np.ndarray, classes: int) -> float:
    """Mean IoU by three histograms over the classes, as evaluate's mean_iou computes it."""
    keep = true != segmentation.IGNORE
    guesses, labels = predicted[keep], true[keep]
    shared, first, second = (
        np.histogram(of, bins=classes, range=(0, classes - 1))[0]
        for of in (guesses[guesses == labels], guesses, labels)
    )
    return float(np.nanmean(shared / np.maximum(first + second - shared, 1)))


def main() -> None:
    print("| 2,000 images | statistics | 1,000 resamples | together | peak memory |\n| --- | --- | --- | --- | --- |")
    for classes in (2, 21, 150):
        records, labels = made_up(classes), [f"class {number}" for number in range(classes)]
        began = time.perf_counter()
        found = segmentation.statistics(records, labels)
        read = time.perf_counter()
        values = intervals.resampled(
            lambda weights, of=found: segmentation.summarize(of, weights), np.arange(len(records))
        )
        done = time.perf_counter()
        assert intervals.bounds(values["mean_iou"], len(records)) is not None
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        times = f"{read - began:.2f} s | {done - read:.2f} s | {done - began:.2f} s"
        print(f"| {classes} classes | {times} | {memory:.0f} MB |", flush=True)

    import torch
    from torchmetrics.segmentation import MeanIoU

    print("\n| one image of 2,000 pixels a side | record | without boundaries | torchmetrics MeanIoU | histograms |")
    print("| --- | --- | --- | --- | --- |")
    for classes, noise in ((2, 0.0), (2, 0.02), (21, 0.0), (21, 0.02), (150, 0.0), (150, 0.02)):
        predicted, true = maps(classes, 2_000, 0, noise)
        tensors = [torch.from_numpy(np.maximum(of, 0).astype(np.int64))[None] for of in (predicted, true)]
        few = seconds(lambda p=predicted, t=true, c=classes: segmentation.record(p, t, c), 3)
        confusion = seconds(lambda p=predicted, t=true, c=classes: segmentation.confusion_of(p, t, c))
        their = MeanIoU(num_classes=classes, input_format="index")
        theirs = seconds(lambda m=their, of=tensors: m.update(*of), 1)
        counted = seconds(lambda p=predicted, t=true, c=classes: histograms(p, t, c))
        times = " | ".join(f"{value:.2f} s" for value in (few, confusion, theirs, counted))
        print(f"| {classes} classes, {noise:.0%} noise | {times} |", flush=True)


if __name__ == "__main__":
    main()
