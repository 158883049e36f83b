"""Segmentation against a plain loop and against transformers.Trainer, by turns in one run.

    python -m tests.benchmarks.image_segmentation [--rounds N] [--more] [--cases PART] > table.md

The network, the photos, batch, epochs, precision, memory format, threads and loader processes are equal. The photos are
made up: 480 x 360 pixels, as CamVid's, with a label map. Each figure is the median of the rounds, with the range of the
ratios. See loops_of_pixels.py for the loops.
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

UNET = {"model_type": "smp", "architecture": "unet", "encoder": "tf_efficientnet_lite0"}
DEEPLAB = {"model_type": "smp", "architecture": "deeplabv3plus", "encoder": "resnet34"}
SEGFORMER = {"model_type": "segformer"}  # the defaults are those of B0
FROZEN = {"frozen": True, "epochs": 10, "mirror": False, "side": 256, "classes": 12, "rows": 96, "batch": 4}
FROZEN |= {"loops": ["plain"]}
B0 = {"config": SEGFORMER, "side": 512}
CASES: dict[str, dict[str, Any]] = {
    "U-Net, 256 px, 2 classes, fp32": {"config": UNET, "batch": 8, "rows": 48},
    "U-Net, 256 px, 2 classes, bf16": {"config": UNET, "batch": 8, "rows": 48, "bf16": True},
    "SegFormer-B0, 512 px, 150 classes, fp32": {**B0, "classes": 150},
    "SegFormer-B0, 512 px, 150 classes, bf16": {**B0, "classes": 150, "bf16": True},
    "SegFormer-B0, 256 px, encoder frozen, 10 epochs, fp32": {"config": SEGFORMER, **FROZEN},
}
MORE: dict[str, dict[str, Any]] = {  # with --more
    "SegFormer-B0, 512 px, 3 classes, fp32": {**B0, "classes": 3},
    "SegFormer-B0, 512 px, 3 classes, bf16": {**B0, "classes": 3, "bf16": True},
    "DeepLabV3+ with ResNet-34, 256 px, encoder frozen, 10 epochs, fp32": {"config": DEEPLAB, **FROZEN},
    "U-Net, 256 px, encoder frozen, 10 epochs, fp32": {"config": UNET, **FROZEN},
}
USUAL = {"side": 256, "classes": 2, "rows": 12, "batch": 2, "epochs": 1, "rate": 1e-4}
USUAL |= {"bf16": False, "frozen": False, "mirror": True, "loops": ["plain", "trainer"]}


def photos(folder: Path, rows: int, classes: int) -> Path:
    """Smooth noise with regions of each class, in folders of images and of masks."""
    names = [f"class {number}" for number in range(classes)]
    random = np.random.default_rng(0)
    for number in range(rows + 2):
        split = "train" if number < rows else "validation" if number == rows else "test"
        coarse = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC)
        image = np.asarray(image, np.int16) + random.integers(-12, 13, (360, 480, 3))
        regions = np.arange(12 * 16).reshape(12, 16) % classes  # every class is in every photo
        regions = np.roll(regions, number, (0, 1)).astype(np.uint8)
        mask = Image.fromarray(regions).resize((480, 360), Image.Resampling.NEAREST)
        for kind, what in (("images", Image.fromarray(image.clip(0, 255).astype(np.uint8))), ("masks", mask)):
            path = folder / kind / split / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            what.save(path)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def theirs(case: dict[str, Any], loop: str, work: Path, data: Path) -> dict[str, float]:
    settings = {**case, "loop": loop, "data": str(data), "folder": str(work / "trainer")}
    settings["processor"] = case["config"]["model_type"] == "segformer"
    path = work / "settings.json"
    path.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "tests.benchmarks.loops_of_pixels", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def graft(case: dict[str, Any], work: Path, data: Path) -> dict[str, float]:
    """Run the command once, with a cold cache of features."""
    recipe = {
        "task": "image-segmentation",
        "model": {"config": case["config"], "freeze": "backbone" if case["frozen"] else "none"},
        "data": {"id": str(data), "workers": case["workers"]},
        "options": {"image_size": case["side"], "augment": "flip" if case["mirror"] else "none"},
        "train": {
            "epochs": case["epochs"],
            "batch_size": case["batch"],
            "learning_rate": case["rate"],
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


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--workers", type=int, default=2, help="loader processes of each side")
    arguments.add_argument("--more", action="store_true", help="more cases")
    arguments.add_argument("--cases", default="", help="only the cases whose names have this part")
    asked = arguments.parse_args()
    print(machine(f"photos of 480 x 360, {asked.workers} loader processes, {asked.rounds} rounds by turns"))
    print("| | Graft | plain loop | ratio | Trainer | ratio | peak memory, MB: Graft / plain / Trainer |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, case in {**CASES, **(MORE if asked.more else {})}.items():
        if asked.cases in name:
            with tempfile.TemporaryDirectory() as folder:
                print(line(name, {**USUAL, **case, "workers": asked.workers}, Path(folder), asked.rounds), flush=True)


def line(name: str, case: dict[str, Any], work: Path, turns: int) -> str:
    """The line of the table of one case."""
    data = photos(work / "photos", case["rows"], case["classes"])
    found: dict[str, list[dict[str, float]]] = {side: [] for side in ("graft", *case["loops"])}
    for turn in range(turns):
        for side in found if turn % 2 else reversed(found):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                where = Path(folder)
                found[side].append(graft(case, where, data) if side == "graft" else theirs(case, side, where, data))
        print(name, {side: [round(one["loss"], 4) for one in of] for side, of in found.items()}, file=sys.stderr)
    speeds = {side: [one["examples_per_second"] for one in of] for side, of in found.items()}
    cells = [f"{statistics.median(speeds['graft']):.2f} ex/s"]
    for loop in ("plain", "trainer"):
        if loop not in found:
            cells += ["-", "-"]
            continue
        ratios = [ours / other for ours, other in zip(speeds["graft"], speeds[loop], strict=True)]
        middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells += [f"{statistics.median(speeds[loop]):.2f} ex/s", middle]
    memory = " / ".join(f"{statistics.median(one['peak_memory_mb'] for one in of):.0f}" for of in found.values())
    return f"| {name} | {' | '.join(cells)} | {memory} |"


if __name__ == "__main__":
    main()
