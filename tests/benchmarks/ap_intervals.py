"""How often a 95 % interval of AP holds the true AP: `python -m tests.benchmarks.ap_intervals`.

Detections are simulated; the AP of 20,000 images is taken for the true one. Each repetition draws new images.
"""

from typing import Any

import numpy as np

from pipelines.metrics import detection, intervals

CLASSES, REPETITIONS, RESAMPLES = 10, 60, 200
NAMES = [f"class {number}" for number in range(CLASSES)]


def records(seed: int, count: int) -> list[dict[str, Any]]:
    """Images with three objects on average, of which 80 % are found, and ten wrong detections."""
    rng, made = np.random.default_rng(seed), []
    for number in range(count):
        n, wrong = int(rng.poisson(3)), 10
        corners, sides = rng.random((n, 2)) * 400, np.exp(rng.normal(4, 0.9, (n, 2)))
        true, labels = np.concatenate([corners, corners + sides], 1), rng.integers(0, CLASSES, n)
        seen = rng.random(n) < 0.8
        near = (true + rng.normal(0, 0.06, (n, 4)) * np.tile(sides, 2))[seen]
        others = rng.random((wrong, 2)) * 400
        far = np.concatenate([others, others + np.exp(rng.normal(4, 0.9, (wrong, 2)))], 1)
        made.append(
            {
                "id": f"{number:06}",
                "size": [640, 640],
                "boxes": np.concatenate([near, far]).tolist(),
                "scores": np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1.5, 4, wrong)]).tolist(),
                "classes": np.concatenate([labels[seen], rng.integers(0, CLASSES, wrong)]).tolist(),
                "true": {
                    "boxes": true.tolist(),
                    "classes": labels.tolist(),
                    "crowd": [False] * n,
                    "area": sides.prod(1).tolist(),
                },
            }
        )
    return made


def main() -> None:
    right = detection.scores(records(99_999, 20_000), NAMES)
    for count in (50, 200):
        held = dict.fromkeys([("ap", False), ("ap", True), ("ap50", False), ("ap50", True)], 0)
        for repetition in range(REPETITIONS):
            found = detection.statistics(records(repetition, count), NAMES)
            own = detection.summarize(found, found.ones())

            def scores(weights: np.ndarray, found: Any = found) -> Any:
                return detection.summarize(found, weights)

            values = intervals.resampled(scores, np.arange(count), RESAMPLES, seed=repetition)
            for name, moved in held:
                low, high = intervals.bounds(values[name], count, float(own[name]) if moved else None) or (0, 1)
                held[name, moved] += low <= right[name] <= high
        for (name, moved), times in held.items():
            how = "moved to the score" if moved else "as resampled"
            print(f"{count} images, {name} (true {right[name]:.3f}), {how}: {times / REPETITIONS:.1%} hold it")


if __name__ == "__main__":
    main()
