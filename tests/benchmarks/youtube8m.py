"""Logistic regression and a mixture of experts on features of YouTube-8M, against the most frequent labels.

    python -m tests.benchmarks.youtube8m FOLDER [--epochs N] [--keep RUNS]

FOLDER holds shards of features of videos. All of them are cut at random into train, validation and test rows (55, 20
and 25 %), whatever their names say. Printed are the scores of the test rows with 95 % intervals, and the paired
difference to the prior: the 20 most frequent labels of the train rows, each with its share, for every video.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.evaluation import compare
from pipelines.metrics import intervals, tagging
from pipelines.utils.files import read_records

MODELS = {
    "logistic": {"model": "video-features/logistic", "rate": 0.01},
    "mixture of 2 experts": {"model": "video-features/moe", "rate": 0.01},
}


def trained(name: str, folder: Path, runs: Path, epochs: int) -> Path:
    """Train through the command line, and return the run."""
    run = runs / name.replace(" ", "_")
    recipe = {
        "task": "video-classification",
        "model": {"id": MODELS[name]["model"]},
        "data": {"id": str(folder), "format": "youtube8m", "holdout": 0.25, "workers": 0},
        "options": {"input": "features", "multi_label": True},
        "train": {"epochs": epochs, "batch_size": 64, "learning_rate": MODELS[name]["rate"], "weight_decay": 0.0},
    }
    path = runs / f"{run.name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return run


def renamed(folder: Path, place: Path) -> Path:
    """Links to the shards under names of train shards, so that the splits are cut at random."""
    place.mkdir()
    shards = sorted(folder.rglob("*.tfrecord"))
    if not shards:
        raise SystemExit(f"{folder}: no .tfrecord here")
    for number, shard in enumerate(shards):
        (place / f"train{number:04}.tfrecord").symlink_to(shard.resolve())
    return place


def train_labels(folder: Path, test: set[str], validation: set[str]) -> list[list[str]]:
    """The labels of the rows that are neither validation nor test rows."""
    from pipelines.data.video import tfrecord

    found = []
    for shard in sorted(folder.iterdir()):
        for _, data in tfrecord.records(shard):
            example: Any = tfrecord.read_example(data)
            if example.id not in test | validation:
                found.append([str(label) for label in example.labels])
    return found


def line(name: str, values: dict[str, float], draws: dict[str, np.ndarray], count: int) -> str:
    cells = []
    for key in tagging.METRICS:
        around = values[key] if key in tagging.LIFTED else None
        low, high = intervals.bounds(draws[key], count, around) or (values[key], values[key])
        cells.append(f"{values[key]:.3f} ({low:.3f} to {high:.3f})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="a folder for the runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = given.keep or Path(place) / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        folder = renamed(given.folder, Path(place) / "shards")
        print(f"| | {' | '.join(tagging.METRICS)} |\n|---|{'---|' * len(tagging.METRICS)}")
        for name in MODELS:
            run = trained(name, folder, runs, given.epochs)
            of_model = compare.read_run(run).kept
            ids = set(of_model.statistics.ids)
            validation = {one["id"] for one in read_records(run / "predictions" / "validation.jsonl")}
            best = tagging.prior(train_labels(folder, ids, validation))
            prior = []
            for one in read_records(run / "predictions" / "test.jsonl"):
                first = list(best)[: len(one["true"])]  # of a video with more than 20 labels, the rest is a miss
                right = len(set(first) & set(one["true"]))
                prior.append({"id": one["id"], **tagging.record(one["true"], best, right)})
            labels = list(json.loads((run / "model" / "config.json").read_text())["id2label"].values())
            both = of_model.statistics, tagging.statistics(prior, labels)
            values: list[Any] = [tagging.summarize(one, one.ones()) for one in both]
            draws: list[Any] = [
                intervals.resampled(lambda weights, one=one: tagging.summarize(one, weights), of_model.units)
                for one in both
            ]
            count = int(of_model.units.max()) + 1
            print(line(name, values[0], draws[0], count))
            print(line("most frequent labels", values[1], draws[1], count))
            difference = [{key: two[0][key] - two[1][key] for key in tagging.METRICS} for two in (values, draws)]
            print(line("difference", difference[0], difference[1], count), flush=True)


if __name__ == "__main__":
    main()
