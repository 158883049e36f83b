"""Video classification against transformers.Trainer: the same model, videos, batch and epochs, by turns in one run.

    python -m tests.benchmarks.video_classification [--rounds N] [--cases PART] > table.md

The videos are made up: 320 x 240 pixels, 10 seconds at 30 frames per second, h264 with a key frame every 250 frames at
most, as x264 sets it. Both sides decode one clip of 16 frames of each video. Trainer is at its best: see
trainer_videos.py. Each figure is the median of the rounds, with the range of the ratios.
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

import numpy as np
import yaml
from PIL import Image

from tests.benchmarks import machine
from tests.support import tiny_videos

TINY = {  # VideoMAE with the width of ViT-Ti, 5.6 million parameters
    "model_type": "videomae",
    "image_size": 112,
    "patch_size": 16,
    "num_frames": 16,
    "tubelet_size": 2,
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
}
USUAL = {"config": TINY, "frames": 16, "rate": 7.5, "batch": 8, "epochs": 1, "rows": 64, "frozen": False, "bf16": True}
CASES: dict[str, dict[str, Any]] = {
    "VideoMAE-Ti, 112 px, all trains, bf16": {},
    "VideoMAE-Ti, 112 px, all trains, fp32": {"bf16": False},
    "VideoMAE-Ti, 112 px, trunk frozen, 10 epochs, bf16": {"frozen": True, "epochs": 10, "rows": 48},
    "VideoMAE-Ti, 112 px, trunk frozen, 10 epochs, fp32": {"frozen": True, "epochs": 10, "rows": 48, "bf16": False},
}


def theirs(case: dict[str, Any], work: Path, data: Path) -> dict[str, float]:
    classes = sorted(child.name for child in (data / "train").iterdir())
    rows = [(str(file), classes.index(file.parent.name)) for file in sorted((data / "train").rglob("*.mp4"))]
    settings = {**case, "train": rows, "classes": len(classes), "folder": str(work / "trainer")}
    settings["random_clip"] = not case["frozen"]
    path = work / "settings.json"
    path.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "tests.benchmarks.trainer_videos", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def graft(case: dict[str, Any], work: Path, data: Path) -> dict[str, float]:
    """Run the command once, with a cold cache of features."""
    recipe = {
        "task": "video-classification",
        "model": {"config": case["config"], "freeze": "backbone" if case["frozen"] else "none"},
        "data": {"id": str(data), "workers": case["workers"]},
        "options": {
            "frames": case["frames"],
            "frame_rate": case["rate"],
            "clips": 1,
            "augment": "none" if case["frozen"] else "clip",
        },
        "train": {
            "epochs": case["epochs"],
            "batch_size": case["batch"],
            "learning_rate": 1e-4,
            "precision": "bf16" if case["bf16"] else "fp32",
            "baseline": False,
            "eval_every": 10**6,
            "save_every": 10**6,
        },
    }
    path, run = work / "recipe.yaml", work / f"run{time.time_ns()}"
    path.write_text(yaml.safe_dump(recipe))
    environment = {**os.environ, "GRAFT_CACHE": str(work / "cache")}
    command = [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    results = json.loads((run / "results.json").read_text())
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = next(entry["loss"] for entry in reversed(entries) if "loss" in entry)
    return {**{key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}, "loss": last}


def videos(folder: Path, rows: int) -> Path:
    """Class folders of train, with one video of each class for validation and for the test."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    for split, count in (("train", rows), ("validation", 4), ("test", 4)):
        for number in range(count):
            coarse = random.integers(0, 200, (9, 12, 3), dtype=np.uint8)
            ground = np.asarray(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC))
            far, across = (1 if number % 4 in (0, 2) else -1), number % 4 > 1
            frames = []
            for time_ in range(300):
                where = (far * 2 * time_ + 7 * number) % (320 if across else 240)
                inside = abs((x if across else y) - where) < 20
                shown = np.where(inside[..., None], 255, ground) + random.integers(-4, 5, (240, 320, 1))
                frames.append(shown.clip(0, 255).astype(np.uint8))
            place = folder / split / f"direction_{number % 4}" / f"{number:04}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            tiny_videos.write(place, frames, rate=30, key=250)
    return folder


def line(name: str, case: dict[str, Any], work: Path, turns: int) -> str:
    """The line of the table of one case."""
    data = videos(work / "videos", case["rows"])
    found: dict[str, list[dict[str, float]]] = {"graft": [], "trainer": []}
    for turn in range(turns):
        for side in found if turn % 2 else reversed(found):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                found[side].append((graft if side == "graft" else theirs)(case, Path(folder), data))
        print(name, {side: [round(one["loss"], 4) for one in of] for side, of in found.items()}, file=sys.stderr)
    ours, other = ([one["examples_per_second"] for one in found[side]] for side in found)
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    memory = " / ".join(f"{statistics.median(one['peak_memory_mb'] for one in of):.0f}" for of in found.values())
    return f"| {name} | {statistics.median(ours):.2f} ex/s | {statistics.median(other):.2f} ex/s | {ratio} | {memory} |"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--workers", type=int, default=2, help="loader processes of each side")
    arguments.add_argument("--cases", default="", help="only the cases whose names have this part")
    asked = arguments.parse_args()
    print(machine(f"videos of 320 x 240, {asked.workers} loader processes, {asked.rounds} rounds by turns"))
    print("| | Graft | Trainer at its best | ratio | peak memory, MB: Graft / Trainer |")
    print("|---|---|---|---|---|", flush=True)
    for name, case in CASES.items():
        if asked.cases in name:
            with tempfile.TemporaryDirectory() as folder:
                print(line(name, {**USUAL, **case, "workers": asked.workers}, Path(folder), asked.rounds), flush=True)


if __name__ == "__main__":
    main()
