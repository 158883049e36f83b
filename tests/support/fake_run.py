"""A run folder as `graft train` leaves it, without training: real metrics and figures over invented predictions."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipelines.config.recipe import DataSection, HubSection, ModelSection, TrainSection, without_newer
from pipelines.data.image.reading import thumbnail
from pipelines.data.origin import Origin
from pipelines.evaluation import row_statistics
from pipelines.metrics import classification
from pipelines.plots import classification as classification_plots
from pipelines.reporting import mistakes
from pipelines.reporting.mistakes import Mistake, Mistakes, Piece
from pipelines.reporting.report import save_figures
from pipelines.utils.files import write_json

LABELS = ("cat", "dog")
MODEL, DATA = "google/vit-base-patch16-224-in21k", "timm/oxford-iiit-pet"
ENVIRONMENT = {
    "graft": "0.1.0",
    "python": "3.11.9",
    "torch": "2.15.0",
    "transformers": "5.23.0",
    "hardware": "2 cores, 24 GB, no accelerator",
    "processes": 1,
    "precision": "bf16",
}


def predictions(labels: tuple[str, ...], n: int, skill: float = 0.93, seed: int = 0) -> list[dict[str, Any]]:
    """Records of one label per row: right with probability `skill`, and about as confident as that."""
    rng, records = random.Random(seed), []
    for i in range(n):
        true = rng.randrange(len(labels))
        right = rng.random() < skill
        guess = true if right else rng.choice([other for other in range(len(labels)) if other != true])
        confidence = min(
            max(rng.betavariate(14, 2) if right else rng.betavariate(6, 3), 1 / len(labels) + 1e-6), 0.9999
        )
        rank = 0 if right else min(1 + int(rng.expovariate(0.6)), len(labels) - 1)
        second = labels[true] if not right else labels[(guess + 1) % len(labels)]
        scores = {labels[guess]: confidence, second: 1 - confidence}
        line = {
            "id": f"{labels[true]}/{i}.jpg",
            "true": labels[true],
            "predicted": labels[guess],
            "confidence": confidence,
            "rank": rank,
        }
        records.append({**line, "scores": scores})
    return records


def many_labels(labels: tuple[str, ...], n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of several labels per row."""
    rng, records = random.Random(seed), []
    for i in range(n):
        true = [label for label in labels if rng.random() < 0.3]
        scores = {label: rng.betavariate(5, 2) if label in true else rng.betavariate(2, 5) for label in labels}
        guess = [label for label in labels if scores[label] >= 0.5]
        records.append({"id": str(i), "true": true, "predicted": guess, "scores": scores})
    return records


def measured(
    records: list[dict[str, Any]], labels: tuple[str, ...], split: str, multi_label: bool, tables: bool = True
) -> dict[str, Any]:
    """A `test` section of results.json. Its intervals are normal ones, which is enough for a figure."""
    metrics = classification.scores(records, labels, multi_label)
    n = len(records)
    half = {name: 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / n) for name, value in metrics.items()}
    ci95 = {name: [max(value - half[name], 0.0), min(value + half[name], 1.0)] for name, value in metrics.items()}
    section: dict[str, Any] = {"split": split, "n": n, "groups": None, "metrics": metrics, "ci95": ci95}
    section["interval"] = {"unit": "rows", "resamples": 1000, "exact": []}
    if tables:
        section["tables"] = {"per class": classification.per_class(records, labels, multi_label)}
    return section


def recipe(model: str, data: str, hub: dict[str, Any] | None = None, multi_label: bool = False) -> dict[str, Any]:
    options = {"image_size": 224, "augment": "crop-flip", "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    options |= {"class_weights": "none", "multi_label": multi_label, "dropout": 0.0}
    raw = {
        "task": "image-classification",
        "model": ModelSection(id=model).model_dump(mode="json"),
        "data": DataSection(id=data, columns={"image": "image", "label": "label"}).model_dump(mode="json"),
        "options": options,
        "train": TrainSection(epochs=5, batch_size=64, layer_decay=0.75).model_dump(mode="json"),
        "hub": HubSection(**(hub or {"license": "apache-2.0"})).model_dump(mode="json"),
    }
    return without_newer(raw)


def log(steps: int, head: bool, metric: str, best: float, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of log.jsonl; steps count over both stages."""
    rng, lines, before = random.Random(seed), [], 0
    for stage, count in [("head", steps // 5), ("train", steps)] if head else [("train", steps)]:
        for step in range(10, count + 1, 10):
            done = step / count
            at = {"step": before + step, "epoch": 5 * done, "stage": stage}
            loss = (
                (0.8 if stage == "head" else 0.4 if head else 0.65) * math.exp(-3 * done) + 0.06 + 0.04 * rng.random()
            )
            rate = 5e-5 * min(done / 0.1, (1 - done) / 0.9)
            speed = {"examples_per_second": 41.0, "seconds": (before + step) * 1.5}
            lines.append({**at, "loss": loss, "learning_rate": rate, "grad_norm": 1.0 + rng.random(), **speed})
            if step % (count // 5 // 10 * 10 or 10) == 0:
                value = best - 0.35 * math.exp(-5 * done) - 0.01 * rng.random()
                lines.append({**at, "validation": {metric: value, "f1_macro": value - 0.01}})
        before = count
    return lines


def photos(n: int) -> list[Image.Image]:
    rng = random.Random(0)
    return [
        Image.linear_gradient("L").resize((96 + 12 * (i % 4), 96)).rotate(rng.randrange(360)).convert("RGB")
        for i in range(n)
    ]


def results(
    records: dict[str, list[dict[str, Any]]], labels: tuple[str, ...], steps: int, multi_label: bool, local: bool
) -> dict[str, Any]:
    """results.json with the scores of records under `test`, `validation` and the baseline."""
    n = len(records["test"])
    return {
        "schema": 2,
        "task": "image-classification",
        "recipe": "pets_vit_base",
        "metric": {"name": "map" if multi_label else "accuracy", "direction": "max"},
        "test": measured(records["test"], labels, "test", multi_label),
        "validation": measured(records["validation"], labels, "validation", multi_label),
        "baseline": measured(records["baseline"], labels, "test", multi_label, tables=False),
        "train": {
            "steps": steps,
            "epochs": 5,
            "examples": steps * 64,
            "seconds": 780.4,
            "examples_per_second": 41.0,
            "peak_memory_mb": 1810,
            "stopped": None,
        },
        "data": {
            "name": "cats_dogs" if local else DATA,
            "hub_id": None if local else DATA,
            "revision": None if local else "3f8b2c1d0e9a",
            "license": None if local else "cc-by-sa-4.0",
            "train": {"rows": 8 * n, "skipped": 2, "fingerprint": "9f86d081884c7d65", "source": "train"},
            "validation": {
                "rows": len(records["validation"]),
                "skipped": 0,
                "fingerprint": "60303ae22b998861",
                "source": "cut from train",
            },
            "test": {"rows": n, "skipped": 0, "fingerprint": "fd61a03af4f77d87", "source": "test"},
        },
        "model": {
            "id": "my_weights" if local else MODEL,
            "base_model": None if local else MODEL,
            "revision": None if local else "b4569560a39a0f1af58e3ddaf17facf20ab919b0",
            "parameters": 85_800_194,
            "trainable_parameters": 85_800_194,
            "license": None if local else "apache-2.0",
        },
        "labels": list(labels),
        "environment": ENVIRONMENT,
    }


def fake_run(
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    n: int = 150,
    *,
    skill: float = 0.93,
    steps: int = 500,
    head: bool = False,
    multi_label: bool = False,
    local: bool = False,
    hub: dict[str, Any] | None = None,
    examples: int = 0,
    pictures: bool = True,
) -> Path:
    """Write a finished run into `folder`. `local`: model and data are folders of this machine, not hub ids."""
    recipe_ids = (
        (str(folder / "secret" / "my_weights"), str(folder / "secret" / "cats_dogs")) if local else (MODEL, DATA)
    )
    metric = "map" if multi_label else "accuracy"
    draw = many_labels if multi_label else lambda labels, n, seed=0: predictions(labels, n, skill, seed)
    test, validation = draw(labels, n, seed=1), draw(labels, n // 2, seed=2)
    untrained = many_labels(labels, n, seed=9) if multi_label else predictions(labels, n, 1 / len(labels), seed=3)
    found = results({"test": test, "validation": validation, "baseline": untrained}, labels, steps, multi_label, local)
    (folder / "model").mkdir(parents=True)
    (folder / "predictions").mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(*recipe_ids, hub, multi_label), sort_keys=False))
    write_json(folder / "results.json", found)
    (folder / "model" / "config.json").write_text(
        json.dumps({"model_type": "vit", "id2label": dict(enumerate(labels))})
    )
    best = found["validation"]["metrics"][metric]
    write_lines(folder / "log.jsonl", log(steps, head, metric, best))
    write_lines(folder / "predictions" / "test.jsonl", test)
    write_lines(folder / "predictions" / "validation.jsonl", validation)
    keep_statistics(folder, test, labels, multi_label)
    if pictures:
        draw_figures(folder / "figures", test, labels, multi_label)
    if examples:
        _examples(folder / "model" / "examples", labels, examples)
    return folder


def keep_statistics(
    folder: Path,
    records: list[dict[str, Any]],
    labels: tuple[str, ...] = LABELS,
    multi_label: bool = False,
    group: str | None = None,
) -> None:
    """The statistics of the test rows as a run keeps them.

    Rows are grouped by the value of `group` in their records.
    """
    found = classification.statistics(records, labels, multi_label)
    values = [record[group] if group else record["id"] for record in sorted(records, key=lambda record: record["id"])]
    units = np.unique(values, return_inverse=True)[1]
    row_statistics.write(folder / "predictions" / row_statistics.FILE, found, units, group)


def draw_figures(folder: Path, records: list[dict[str, Any]], labels: tuple[str, ...], multi_label: bool) -> None:
    sizes = {"train": 40, "validation": 5, "test": 10}
    balance = {split: {label: (i + 2) * size for i, label in enumerate(labels)} for split, size in sizes.items()}
    save_figures(classification_plots.figures(records, labels, multi_label, balance), folder)


def add_mistakes(run: Path, texts: tuple[str, ...] = ("a secret word",)) -> None:
    """Wrong rows with a picture and a text each, in the run folder alone."""
    photo = thumbnail(photos(1)[0])
    shown = tuple(
        Mistake(
            "cat",
            "dog",
            0.9,
            facts={"Note": text},
            texts={"Text": [Piece(text), Piece(text, "for", 0.7)]},
            picture=photo,
            origin=Origin(f"secret {place}.jpg", run / "recipe.yaml"),
        )
        for place, text in enumerate(texts)
    )
    mistakes.save(Mistakes("Surest mistakes", mistakes.SURE, "", "test", True, len(shown), 60, shown), run / "mistakes")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _examples(folder: Path, labels: tuple[str, ...], n: int) -> None:
    folder.mkdir(parents=True)
    for i, photo in enumerate(photos(n)):
        photo.save(folder / f"{i}.jpg")
    rows = [{"image": f"{i}.jpg", "label": labels[i % len(labels)]} for i in range(n)]
    (folder / "examples.json").write_text(json.dumps(rows))


def change(run: Path, section: str, **values: Any) -> None:
    """Alter one section of results.json."""
    path = run / "results.json"
    results = json.loads(path.read_text())
    results[section] |= values
    path.write_text(json.dumps(results))
