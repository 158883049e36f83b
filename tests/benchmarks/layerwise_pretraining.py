"""Layer-wise pretraining against a random start: a denoising autoencoder on MNIST, with 100 labelled digits.

    python -m tests.benchmarks.layerwise_pretraining MNIST --run runs/layerwise

For each seed, the layers of one network learn to reconstruct all train digits, without labels (options.pretrain=1), and
the network then learns the labels of 100 digits. Another network learns the same 100 labels from random weights, with
the same settings, as many steps and the same seed. The digits of training and test are the same for all; nothing is
chosen by validation: the last step counts. The interval of the mean difference is that of Student's t over the seeds.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.recipe import validate
from pipelines.errors import GraftError
from pipelines.training.run import train

LABELLED = 100


def recipe(data: str, seed: int, model: dict[str, Any], steps: int, **changes: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": model,
        "data": {"id": data, "format": "mnist", "max_train_rows": changes.get("rows")},
        "options": {"image_size": 28, "pretrain": changes.get("pretrain", 0.0)},
        "train": {
            "max_steps": steps,
            "batch_size": changes["batch_size"],
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "eval_every": steps,
            "save_every": steps,
            "baseline": False,
            "seed": seed,
        },
    }


def accuracy(raw: dict[str, Any], folder: Path) -> float:
    """The test accuracy of a run, which trains unless it is finished. Raises GraftErrors, and SystemExit if stopped."""
    results = train(validate(raw), folder, quiet=True)
    if results is None:
        sys.exit("stopped; the same command goes on from there")
    return float(results["test"]["metrics"]["accuracy"])


def interval(differences: list[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by Student's t."""
    from scipy import stats

    values = np.array(differences)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", help="a folder with MNIST's files")
    parser.add_argument("--run", default="runs/layerwise_pretraining", help="where the runs go (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretrain-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=300, help="steps with labels (%(default)s)")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--activation", default="sigmoid", choices=("sigmoid", "relu"))
    given = parser.parse_args()
    root = Path(given.run) / f"{given.activation}_{given.layers}"
    network = {"model_type": "autoencoder", "num_hidden_layers": given.layers, "activation": given.activation}
    print("| seed | random start | pretrained | difference |\n|---|---|---|---|")

    def labelled(seed: int, model: dict[str, Any]) -> dict[str, Any]:
        return recipe(given.data, seed, model, given.steps, rows=LABELLED, batch_size=50)

    differences, columns = [], []
    for seed in range(given.seeds):
        base = root / f"{seed}_layers"
        accuracy(recipe(given.data, seed, {"config": network}, given.pretrain_steps, pretrain=1.0, batch_size=64), base)
        found = [
            accuracy(labelled(seed, model), root / f"{seed}_{name}")
            for name, model in (("random", {"config": network}), ("pretrained", {"id": str(base)}))
        ]
        columns.append(found)
        differences.append(found[1] - found[0])
        print(f"| {seed} | {found[0]:.3f} | {found[1]:.3f} | {differences[-1]:+.3f} |", flush=True)
    means = np.mean(columns, 0)
    print(f"| mean | {means[0]:.3f} | {means[1]:.3f} | {np.mean(differences):+.3f} |")
    if len(differences) > 1:
        low, high = interval(differences)
        print(f"\nmean difference and its 95 % interval: {np.mean(differences):+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    try:
        main()
    except GraftError as error:
        sys.exit(f"error: {error}")
