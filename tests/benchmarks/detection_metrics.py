"""How long COCO's metrics with intervals take for 5,000 images: `python -m tests.benchmarks.detection_metrics`.

The detections are made up: 80 classes, about 7 objects and 100 detections an image, most of them of low score.
"""

import resource
import time
from typing import Any

import numpy as np

from pipelines.metrics import detection, intervals


def records(count: int = 5_000, classes: int = 80) -> list[dict[str, Any]]:
    """Objects, most of them found about right, and many detections of low score that are wrong."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        n = int(rng.poisson(7.3))
        corners, sides = rng.random((n, 2)) * 400, np.exp(rng.normal(4, 0.9, (n, 2)))
        boxes, labels = np.concatenate([corners, corners + sides], 1), rng.integers(0, classes, n)
        found = boxes + rng.normal(0, 0.06, (n, 4)) * np.tile(sides, 2)
        rest = max(0, 100 - n)
        others = rng.random((rest, 2)) * 400
        far = np.concatenate([others, others + np.exp(rng.normal(4, 0.9, (rest, 2)))], 1)
        made.append(
            {
                "id": f"{number:06}",
                "size": [640, 640],
                "boxes": np.concatenate([found, far]).round(2).tolist(),
                "scores": np.concatenate([rng.random(n), rng.random(rest) ** 4]).round(5).tolist(),
                "classes": np.concatenate([labels, rng.integers(0, classes, rest)]).tolist(),
                "true": {
                    "boxes": boxes.round(2).tolist(),
                    "classes": labels.tolist(),
                    "crowd": (rng.random(n) < 0.01).tolist(),
                    "area": (sides.prod(1) * 0.7).tolist(),
                },
            }
        )
    return made


def main() -> None:
    made, labels = records(), [f"class {number}" for number in range(80)]
    began = time.perf_counter()
    found = detection.statistics(made, labels)
    once = time.perf_counter()
    one = detection.summarize(found, found.ones())
    scored = time.perf_counter()
    values = intervals.resampled(lambda weights: detection.summarize(found, weights), np.arange(len(made)))
    done = time.perf_counter()
    print(f"statistics {once - began:.1f} s, scores {scored - once:.1f} s, 1,000 resamples {done - scored:.1f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    for name in detection.METRICS:
        around = one[name] if name in found.lifted else None
        print(name, round(one[name], 4), intervals.bounds(values[name], len(made), around))


if __name__ == "__main__":
    main()
