"""D-FINE against transformers.Trainer: the same network, photos, batch and steps, by turns in one run.

    python -m tests.benchmarks.object_detection [--rounds N] [--side 320] > table.md

The photos are made up: 640 x 480, JPEG, up to eight shapes each. Each figure is the median of the rounds.
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
from tests.support import tiny_boxes

BATCH, STEPS, RATE = 8, 24, 1e-4
HGNET = {  # HGNetv2-B0 with half of its channels
    "model_type": "hgnet_v2",
    "stem_channels": [3, 16, 16],
    "embedding_size": 16,
    "stage_in_channels": [16, 32, 64, 128],
    "stage_mid_channels": [16, 32, 48, 64],
    "stage_out_channels": [32, 64, 128, 256],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 1, 2, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
DFINE = {
    "model_type": "d_fine",
    "backbone_config": HGNET,
    "encoder_in_channels": [64, 128, 256],
    "encoder_hidden_dim": 96,
    "encoder_ffn_dim": 256,
    "hidden_expansion": 0.5,
    "depth_mult": 0.34,
    "d_model": 96,
    "num_queries": 100,
    "num_denoising": 50,
    "decoder_in_channels": [96, 96, 96],
    "decoder_ffn_dim": 256,
    "decoder_layers": 3,
}


def trainer(best: bool, work: Path, data: Path, side: int) -> dict[str, float]:
    settings = {"config": DFINE, "best": best, "folder": str(work / "trainer"), "data": str(data), "side": side}
    settings |= {"steps": STEPS, "batch_size": BATCH, "learning_rate": RATE}
    path = work / "settings.json"
    path.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "tests.benchmarks.trainer_boxes", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def graft(precision: str, work: Path, data: Path, side: int) -> dict[str, float]:
    train = {"max_steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "clip_norm": 0.1, "precision": precision}
    recipe = {
        "task": "object-detection",
        "model": {"config": DFINE},
        "data": {"id": str(data), "max_eval_rows": 2},
        "options": {"image_size": side, "augment": "flip"},
        "train": {**train, "baseline": False},
    }
    path, run = work / "recipe.yaml", work / f"run{time.time_ns()}"
    path.write_text(yaml.safe_dump(recipe))
    environment = {**os.environ, "GRAFT_CACHE": str(work / f"cache{time.time_ns()}")}
    command = [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    results = json.loads((run / "results.json").read_text())
    return {key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}


def photos(folder: Path, count: int) -> Path:
    """Shapes on noise that was smoothed, as JPEG files of 640 x 480, in COCO's layout."""
    from PIL import Image

    tiny_boxes.shapes(folder, n=count, size=160, most=8)
    coco = json.loads((folder / "annotations.json").read_text())
    for about in coco["images"]:
        path = folder / "images" / about["file_name"]
        about["file_name"] = f"{path.stem}.jpg"
        with Image.open(path) as image:
            image.resize((640, 480), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
        across, down = 640 / about["width"], 480 / about["height"]
        for one in coco["annotations"]:
            if one["image_id"] == about["id"]:
                x, y, width, height = one["bbox"]
                one["bbox"] = [x * across, y * down, width * across, height * down]
                one["area"] *= across * down
                del one["segmentation"]
        about |= {"width": 640, "height": 480}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--side", type=int, default=320)
    asked = arguments.parse_args()
    print(machine(f"D-FINE, batch {BATCH}, {STEPS} steps, photos of 640 x 480 at {asked.side} px"))
    print("| | Graft | transformers.Trainer | ratio | peak memory, MB: Graft / Trainer |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = photos(work / "photos", BATCH * STEPS // 2)
        cases = [("as in the example, both fp32", False, "fp32"), ("at its best, both bf16", True, "bf16")]
        for name, best, precision in cases:
            rounds: list[tuple[Any, Any]] = []
            for _ in range(asked.rounds):
                rounds.append((trainer(best, work, data, asked.side), graft(precision, work, data, asked.side)))
            theirs, ours = ({k: statistics.median(r[i][k] for r in rounds) for k in rounds[0][i]} for i in range(2))
            speeds = [one["examples_per_second"] for one in (ours, theirs)]
            ratios = [mine["examples_per_second"] / other["examples_per_second"] for other, mine in rounds]
            print(
                f"| {name} | {speeds[0]:.2f} ex/s | {speeds[1]:.2f} ex/s "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"| {ours['peak_memory_mb']:.0f} / {theirs['peak_memory_mb']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
