"""A finished run over real photos with invented predictions, so that no network is trained: for `graft baseline`."""

import json
from pathlib import Path
from typing import Any

from pipelines.config.recipe import dump_recipe, validate
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS
from pipelines.tasks.image_classification import ImageClassification, Options
from pipelines.utils.files import write_json
from tests.support import tiny
from tests.support.fake_run import fake_run, keep_statistics, write_lines
from tests.support.runs import settings

FEW = {"train": 8, "validation": 5, "test": 6}  # photos of each class


def finished(run: Path, data: Path, model: Path, right: float = 0.8, group: str | None = None, **options: Any) -> Path:
    """The folder of a run that started from `model`. Its network has the share `right` of the test rows right.

    `options` are those of the task.
    """
    raw = settings(model, data)
    raw["options"] |= options
    recipe = validate(raw)
    splits = load_splits(recipe.data, ImageClassification(Options(**raw["options"])).data)
    many = bool(options.get("multi_label"))
    labels = tuple(sorted({part for row in splits.train["label"] for part in (row if many else [row])}))
    fake_run(run, labels, n=8, multi_label=many, pictures=False)
    found = {split: answers(splits[split], labels, right, many) for split in ("validation", "test")}
    for split, records in found.items():
        write_lines(run / "predictions" / f"{split}.jsonl", records)
    keep_statistics(run, found["test"], labels, many, group)
    tiny.vit(run / "model", labels=labels)
    config = json.loads((run / "model" / "config.json").read_text())
    kind = "multi_label_classification" if many else "single_label_classification"
    write_json(run / "model" / "config.json", config | {"problem_type": kind})
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    results = json.loads((run / "results.json").read_text())
    for split in SPLITS:
        results["data"][split] |= {"rows": len(splits[split]), "fingerprint": splits.fingerprint[split]}
    results["model"]["revision"] = None  # of a folder
    write_json(run / "results.json", results)
    return run


def answers(rows: Any, labels: tuple[str, ...], right: float, many: bool = False) -> list[dict[str, Any]]:
    """Records of rows, of which the first ones are right."""
    found = []
    for place, (id_, true) in enumerate(zip(rows["id"], rows["label"], strict=True)):
        good = place < right * len(rows)
        if many:
            guess = true if good else [label for label in labels if label not in true]
            scores = {label: 0.9 if label in guess else 0.1 for label in labels}
            found.append({"id": id_, "true": true, "predicted": guess, "scores": scores})
            continue
        guess = true if good else next(label for label in labels if label != true)
        record = {"id": id_, "true": true, "predicted": guess, "confidence": 0.9, "rank": 0 if good else 1}
        found.append(record | {"scores": {guess: 0.9}, "group": f"g{place // 3}"})
    return found
