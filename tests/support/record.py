"""Record losses, scores and weights of training runs, to check that a refactoring does not change them.

    python -m tests.support.record FOLDER OUT.json [BEFORE.json]

The first call writes the tiny models, data and recipes of every task into FOLDER; a later version trains from the same
files. OUT.json gets the losses, the scores and a hash of the weights of every run. With BEFORE.json, every difference
is printed, and the exit code is 1 if there is one. `--relative 1e-6` allows numbers (never hashes) to differ by that
much.
"""

import argparse
import hashlib
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

DIGITS = ("digits_vit_pretrain", "digits_vit_transfer")  # the second run starts from the first
SPLITS = ("validation", "test")


def contracts() -> Iterator[tuple[str, Any]]:
    """The contract of each task, and the further contracts of tasks that have several."""
    for path in sorted(Path(__file__).parents[1].glob("tasks/test_*.py")):
        module = importlib.import_module(f"tests.tasks.{path.stem}")
        for name, kind in vars(module).items():
            if name.startswith("TestContract"):
                yield f"{path.stem.removeprefix('test_')}-{name.removeprefix('TestContract') or 'first'}".lower(), kind


def prepare(folder: Path) -> None:
    """The recipes of every task with fixed micro-batches.

    If the task allows it, each is also there with a frozen trunk.
    """
    for name, contract in contracts():
        place = folder / name
        if place.exists():
            continue
        place.mkdir(parents=True)
        recipe = contract().recipe(place)
        recipe["train"] = {**recipe["train"], "micro_batch": 3, "log_every": 1}
        recipe["train"].pop("examples", None)
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def train(folder: Path, runs: Path) -> dict[str, Any]:
    """{name: the result of its run}.

    Every run is a process of its own with one thread, so it is equal to the bit every time.
    """
    commands = {
        f"{p.parent.name}{kind}": [str(p), *more]
        for p in sorted(folder.glob("*/recipe.yaml"))
        for kind, more in KINDS.items()
    }
    commands |= {name: [name, "train.epochs=2", "train.micro_batch=16"] for name in DIGITS}
    commands["digits_vit_transfer"] += ["--model", str(runs / "digits_vit_pretrain")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = {}
    for name, command in commands.items():
        run = runs / name
        shutil.rmtree(run, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", "train", *command, "--run", str(run)],
            capture_output=True,
            text=True,
            env=environment,
        )
        found[name] = read(run) if done.returncode == 0 else {"error": done.stderr.strip().splitlines()[-1]}
        print(f"{name}: {found[name].get('error', 'done')}", flush=True)
    return found


KINDS = {"": (), "-frozen": ("model.freeze=backbone",)}


def read(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    results = json.loads((run / "results.json").read_text())
    hashes = {}
    for path in sorted((run / "model").rglob("*.safetensors")):
        digest = hashlib.sha256()
        for name, tensor in sorted(load_file(path).items()):
            digest.update(f"{name}{tensor.shape}{tensor.dtype}".encode() + tensor.tobytes())
        hashes[str(path.relative_to(run))] = digest.hexdigest()
    before = results.get("baseline") or results.get("before")
    scores = {split: results.get(split) for split in SPLITS} | {"baseline": before}
    return {"losses": [line["loss"] for line in lines if "loss" in line], "scores": scores, "weights": hashes}


def differences(before: Any, after: Any, relative: float, at: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{at}/{key}: only {'after' if key in after else 'before'}"
            else:
                yield from differences(before[key], after[key], relative, f"{at}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, relative, f"{at}/{i}")
    elif isinstance(before, float) and isinstance(after, float):
        if (
            before != after
            and not (math.isnan(before) and math.isnan(after))
            and not math.isclose(before, after, rel_tol=relative)
        ):
            yield f"{at}: {before} -> {after}"
    elif before != after:
        yield f"{at}: {before} -> {after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--relative", type=float, default=0.0)
    asked = parser.parse_args()
    prepare(asked.folder)
    found = train(asked.folder, asked.folder.parent / f"{asked.folder.name}-runs")
    asked.out.write_text(json.dumps(found, indent=1))
    if asked.before:
        lines = list(differences(json.loads(asked.before.read_text()), found, asked.relative))
        print("\n".join(lines) or f"{len(found)} runs: no difference")
        sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
