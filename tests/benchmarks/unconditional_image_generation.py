"""Unconditional image generation against the loop of diffusers' example, in one run.

    python -m tests.benchmarks.unconditional_image_generation [IMAGES] [--rounds N] [--rows N] [--epochs N] > table.md

Both train the same U-Net on the same images, with the same batch and epochs. IMAGES is a folder of images; without it,
shapes are drawn. Both keep a moving average of the weights. Graft chooses its precision. The example runs in fp32, its
default, and in bf16. Each figure is the median of the rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.support import tiny_pictures

SIZE, BATCH = 32, 16
CONFIG: dict[str, Any] = {
    "sample_size": SIZE,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": [32, 64, 64],
    "norm_num_groups": 8,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
}


def chosen(source: Path, folder: Path, count: int) -> Path:
    """Copy `count` images of a folder into one flat folder, and some more for the splits that are not measured."""
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    folder.mkdir(parents=True)
    for number, file in enumerate(Random(0).sample(files, min(len(files), count))):
        shutil.copyfile(file, folder / f"{number:05}{file.suffix}")
    return folder


def split_folders(images: Path, folder: Path, held_out: int = 8) -> Path:
    """The same images for Graft as train/, validation/ and test/.

    The held-out images are scored, which is not timed.
    """
    files = sorted(p for p in images.iterdir() if p.is_file() and p.suffix != ".jsonl")
    for split, part in {"test": files[:held_out], "validation": files[held_out : 2 * held_out], "train": files}.items():
        (folder / split).mkdir(parents=True)
        for file in part:
            shutil.copyfile(file, folder / split / f"{split}{file.name}")
    return folder


def theirs(settings: dict[str, Any], work: Path) -> dict[str, float]:
    path = work / "settings.json"
    path.write_text(json.dumps(settings))
    # waiting threads sleep, as in Graft: otherwise the example would look slower on a busy machine than it is
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "10000",
        **os.environ,
        "HF_DATASETS_CACHE": str(work / "datasets"),
    }
    return json.loads(output(["-m", "tests.benchmarks.diffusers_loops", str(path)], environment).splitlines()[-1])


def ours(recipe: dict[str, Any], work: Path) -> dict[str, float]:
    """Run the command once, with a cold cache."""
    path, run = work / "recipe.yaml", work / f"run{time.time_ns()}"
    path.write_text(yaml.safe_dump(recipe))
    output(
        ["-m", "pipelines", "train", str(path), "--run", str(run)],
        {**os.environ, "GRAFT_CACHE": str(work / f"cache{time.time_ns()}")},
    )
    results = json.loads((run / "results.json").read_text())
    last = [line["loss"] for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in line][
        -1
    ]
    return {**{key: results["train"][key] for key in ("examples_per_second", "peak_memory_mb")}, "loss": last}


def output(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout.strip()


def table(title: str, what: str, rounds: int, mine: Any, others: dict[str, Any]) -> None:
    """Run the rounds by turns, and give the medians as a line of Markdown for each of the `others`."""
    print(machine(title))
    print("| | Graft | diffusers' example | ratio | peak memory, MB: Graft / example | last loss |")
    print("|---|---|---|---|---|---|", flush=True)
    ran = [(mine(), *(other() for other in others.values())) for _ in range(rounds)]
    graft, *examples = (
        {key: statistics.median(r[i][key] for r in ran) for key in ran[0][i]} for i in range(1 + len(others))
    )
    for label, example in zip(others, examples, strict=True):
        ratio = graft["examples_per_second"] / example["examples_per_second"]
        memory = " / ".join(f"{one['peak_memory_mb']:.0f}" for one in (graft, example))
        losses = " / ".join(f"{one['loss']:.3f}" for one in (graft, example))
        speeds = f"{graft['examples_per_second']:.1f} images/s | {example['examples_per_second']:.1f}"
        print(f"| {what}; the example in {label} | {speeds} | {ratio:.2f} | {memory} | {losses} |", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("images", nargs="?", type=Path, help="left out: shapes drawn for the purpose")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--rows", type=int, default=320)
    arguments.add_argument("--epochs", type=int, default=3)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = asked.images or tiny_pictures.shapes(work / "drawn", n=asked.rows, size=SIZE)
        images = chosen(source, work / "images", asked.rows)
        count = len(list(images.iterdir()))
        settings = {
            "task": "unconditional",
            "images": str(images),
            "size": SIZE,
            "batch_size": BATCH,
            "epochs": asked.epochs,
        }
        settings |= {"config": CONFIG, "ema": True}
        recipe = {
            "task": "unconditional-image-generation",
            "model": {"config": {"model_type": "UNet2DModel", **CONFIG}},
            "data": {"id": str(split_folders(images, work / "splits"))},
            "options": {"flip": True, "samples": 0, "grid": 0},
            "train": {"epochs": asked.epochs, "batch_size": BATCH, "learning_rate": 1e-4, "log_every": 1},
        }
        title = f"{count:,} images of {SIZE} px, batch {BATCH}, U-Net 32-64-64"
        what = f"DDPM, all trains, {asked.epochs} epochs"
        others = {
            "fp32": lambda: theirs({**settings, "precision": "no"}, work),
            "bf16": lambda: theirs({**settings, "precision": "bf16"}, work),
        }
        table(title, what, asked.rounds, lambda: ours(recipe, work), others)


if __name__ == "__main__":
    main()
