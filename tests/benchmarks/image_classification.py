"""Image classification against transformers.Trainer: the same model, photos, batch and epochs, by turns in one run.

    python -m tests.benchmarks.image_classification [PHOTOS MOBILENET_V2] [--rounds N] > table.md

PHOTOS is an image folder of two classes with a test split. MOBILENET_V2 is a model folder. Each figure is the median
of the rounds. Trainer runs once with its defaults and once at its best (bf16, loader processes kept alive).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.support import tiny

VIT = {
    "model_type": "vit",
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
}
CASES: dict[str, dict[str, Any]] = {
    "MobileNetV2, trunk frozen, 10 epochs": {
        "frozen": True,
        "epochs": 10,
        "rows": 450,
        "precision": "fp32",
        "rate": 1e-3,
        "defaults": False,
    },
    "ViT-S/16, all trains": {"config": VIT, "epochs": 1, "rows": 96, "precision": "bf16", "rate": 1e-4},
    "MobileNetV2, all trains": {"epochs": 1, "rows": 192, "precision": "bf16", "rate": 1e-4},
    "MobileNetV2, all trains, both with defaults": {
        "epochs": 1,
        "rows": 192,
        "precision": "auto",
        "rate": 1e-4,
        "best": False,
    },
}


def trainer(case: dict[str, Any], best: bool, work: Path, data: dict[str, list]) -> dict[str, float]:
    settings = {key: case.get(key) for key in ("config", "model", "frozen", "epochs")}
    settings |= {"batch_size": 16, "learning_rate": case["rate"], "best": best, "folder": str(work / "trainer"), **data}
    path = work / "settings.json"
    path.write_text(json.dumps(settings))
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.trainer", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def graft(case: dict[str, Any], work: Path, photos: str) -> dict[str, float]:
    """Run the command once, with a cold feature cache. The time of the first step is on the first line of the log."""
    model = {"config": case["config"]} if case.get("config") else {"id": case["model"]}
    if case.get("frozen"):
        model["freeze"] = "backbone"
    settings = {
        "epochs": case["epochs"],
        "batch_size": 16,
        "learning_rate": case["rate"],
        "precision": case["precision"],
    }
    path = _recipe(work / "recipe.yaml", model, {"id": photos, "max_train_rows": case["rows"]}, settings)
    run = work / f"run{time.time_ns()}"
    environment = {**os.environ, "GRAFT_CACHE": str(work / f"cache{time.time_ns()}")}
    command = [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    results = json.loads((run / "results.json").read_text())
    kept = {key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}
    return {**kept, "accuracy": results["test"]["metrics"]["accuracy"]}


def _recipe(path: Path, model: dict, data: dict, settings: dict) -> Path:
    path.write_text(yaml.safe_dump({"task": "image-classification", "model": model, "data": data, "train": settings}))
    return path


def first_step(case: dict[str, Any], work: Path, photos: str, data: dict[str, list]) -> tuple[float, float]:
    """Seconds from the command to the end of the first step, for Graft and for Trainer at its best.

    The test split has one row, so that scoring the baseline takes no time.
    """
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4, "precision": "bf16", "log_every": 1}
    data_section = {"id": photos, "max_train_rows": 32, "max_eval_rows": 1}
    path, run = (
        _recipe(work / "start.yaml", {"id": case["model"]}, data_section, settings),
        work / f"start{time.time_ns()}",
    )
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (run / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    ours = time.time() - began
    process.wait()
    few = {**data, "train": data["train"][:32], "test": data["test"][:2]}
    return ours, trainer({**case, "epochs": 1}, True, work, few)["first_step"]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("photos", nargs="?", help="left out: pictures made for the purpose")
    arguments.add_argument("model", nargs="?", help="left out: MobileNetV2 with random weights")
    arguments.add_argument("--rounds", type=int, default=1)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = asked.photos or str(
            tiny.photos(Path(folder) / "photos", n={"train": 250, "test": 50}, splits=("train", "test"), size=320)
        )
        _table(photos, str(Path(asked.model or _mobilenet(Path(folder) / "mobilenet")).resolve()), asked.rounds)


def _mobilenet(folder: Path) -> Path:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

    MobileNetV2ForImageClassification(MobileNetV2Config()).save_pretrained(folder)
    MobileNetV2ImageProcessor().save_pretrained(folder)
    return folder


def _table(photos: str, model: str, turns: int) -> None:
    print(machine("batch 16, 224 px"))
    print(
        "| | Graft | Trainer at its best | ratio | Trainer's defaults | ratio "
        "| peak memory, MB: Graft / best / defaults | accuracy |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, case in CASES.items():
        rounds = [_round(case | {"model": model}, photos) for _ in range(turns)]
        ours, best, plain = ({k: statistics.median(r[i][k] for r in rounds) for k in rounds[0][i]} for i in range(3))
        ran = (ours, best, plain)
        memory = " / ".join(f"{one['peak_memory_mb']:.0f}" if one else "-" for one in ran)
        accuracy = " / ".join(f"{one['accuracy']:.2f}" if one else "-" for one in ran)
        speed = ours["examples_per_second"]
        theirs = [
            f"{one['examples_per_second']:.1f} | {speed / one['examples_per_second']:.2f}" if one else "- | -"
            for one in (best, plain)
        ]
        cells = f"{speed:.1f} ex/s | {' | '.join(theirs)}"
        print(f"| {name} | {cells} | {memory} | {accuracy} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        case = {"model": model, "rate": 1e-4}
        starts = [first_step(case, Path(folder), photos, rows(photos, 32)) for _ in range(max(3, turns))]
    ours_, theirs = (statistics.median(s[i] for s in starts) for i in range(2))
    print(f"| command to first step, MobileNetV2 | {ours_:.1f} s | {theirs:.1f} s | {theirs / ours_:.2f} | | | | |")


def _round(case: dict[str, Any], photos: str) -> tuple[dict, dict, dict]:
    with tempfile.TemporaryDirectory() as folder:
        data = rows(photos, case["rows"])
        work = Path(folder)
        theirs = [
            trainer(case, best, work, data) if case.get("best" if best else "defaults", True) else {}
            for best in (True, False)
        ]
        return graft(case, work, photos), theirs[0], theirs[1]


def rows(photos: str, most: int) -> dict[str, list]:
    """The rows that Graft trains and tests on, as (path, class number)."""
    from pipelines.config.recipe import DataSection
    from pipelines.data.loading import load_splits
    from pipelines.data.schema import DataSpec

    splits = load_splits(DataSection(id=photos, max_train_rows=most), DataSpec(("image", "label")))
    labels = splits.labels or []
    return {
        name: [(row["image"]["path"], labels.index(row["label"])) for row in splits[name]] for name in ("train", "test")
    }


if __name__ == "__main__":
    main()
