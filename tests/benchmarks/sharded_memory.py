"""Memory of one, two and four processes that share a model (FSDP2): `python -m tests.benchmarks.sharded_memory`.

A BERT of 200 M parameters, random weights in a safetensors file, is fine-tuned by `train`, on the CPU and in float32:
the score before training, the steps, a checkpoint, the export and the final scores. Each process first runs a tiny
model in the same way, so that everything is imported. What the large run adds to that is measured in two ways: the peak
of the resident memory (VmHWM, which also counts mapped files and memory shared between the processes), and the
peak of the anonymous memory alone, sampled every 10 ms. `--layers` and `--size` change the model.

With one process, the model is not sharded. Accelerate shards on a CPU only if it believes that it has GPUs: see
tests/support/distributed_worker.py.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.runs import ROOT, losses, without_pictures

WORDS = 30_522  # the vocabulary of BERT


def status(name: str) -> float:
    """A value of this process's status file in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


class Anonymous:
    """The peak of the anonymous memory, sampled by a thread."""

    def __init__(self) -> None:
        self.peak, self.ended = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Anonymous":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.ended.wait(0.01):
            self.peak = max(self.peak, status("RssAnon"))


def recipe(place: Path, model: str, steps: int) -> Any:
    from pipelines.config.recipe import validate

    columns = {"text": "text", "label": "label"}
    return validate(
        {
            "task": "text-classification",
            "model": {"id": str(place / model)},
            "data": {"id": str(place / "data"), "columns": columns, "workers": 0},
            "options": {"max_length": 32},
            "train": {
                "max_steps": steps,
                "batch_size": 8,
                "micro_batch": 2,
                "learning_rate": 1e-5,
                "precision": "fp32",
                "log_every": 1,
                "eval_every": steps,
                "save_every": steps,
                "keep": 1,
            },
        }
    )


def work(place: Path, count: int, steps: int) -> None:
    """What each of `count` processes does."""
    from unittest import mock

    import torch
    from accelerate import PartialState

    from pipelines.training.run import train
    from tests.support.distributed_worker import shim

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with without_pictures(), mock.patch.object(PartialState, "destroy_process_group"):
        with shim(count > 1):
            train(recipe(place, "small", 2), place / f"small by {count}")
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
        before, began = (status("VmRSS"), status("RssAnon")), time.perf_counter()
        with Anonymous() as anonymous, shim(count > 1):
            train(recipe(place, "large", steps), place / f"large by {count}")
        found = {
            "resident": status("VmHWM") - before[0],
            "anonymous": anonymous.peak - before[1],
            "imports": before[0],
            "seconds": time.perf_counter() - began,
        }
    rank = int(os.environ.get("RANK", "0"))
    (place / f"by {count}, process {rank}.json").write_text(json.dumps(found))
    if count > 1:
        torch.distributed.barrier()
    os._exit(0)  # see distributed_worker.py


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=25)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(Path(asked.work[0]), int(asked.work[1]), asked.steps)
        return
    from tests.support import tiny_text

    with tempfile.TemporaryDirectory(prefix="sharded_memory") as name:
        place = Path(name)
        tiny_text.labelled(place / "data", "single", n=24)
        kind = "BertForSequenceClassification"
        tiny_text.bert(place / "small", kind)
        shape = {"hidden_size": asked.size, "num_attention_heads": asked.size // 64, "num_hidden_layers": asked.layers}
        tiny_text.bert(place / "large", kind, intermediate_size=4 * asked.size, vocab_size=WORDS, **shape)
        size = (place / "large" / "model.safetensors").stat().st_size / 4e6
        table(place, size, asked)


def table(place: Path, size: float, asked: argparse.Namespace) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d}, BERT of {size:.0f} M parameters, fp32, {asked.steps} steps of 8 texts\n")
    print("| processes | peak resident memory above the imports, MB | share | anonymous memory, MB | share | loss |")
    print("|---|---|---|---|---|---|")
    alone: dict[str, float] = {}
    first: list[float] = []
    for count in asked.processes:
        run = ["-m", "tests.benchmarks.sharded_memory", "--steps", str(asked.steps), "--work", str(place), str(count)]
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
        here = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GRAFT_CACHE": str(place / "cache")}
        done = subprocess.run([sys.executable, *start, *run], cwd=ROOT, env=here, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-6000:])
        each = [json.loads((place / f"by {count}, process {rank}.json").read_text()) for rank in range(count)]
        found = losses(place / f"large by {count}")
        first = first or found
        cells = []
        for what in ("resident", "anonymous"):
            peaks = [one[what] for one in each]
            alone.setdefault(what, max(peaks))
            cells += [" / ".join(f"{peak:,.0f}" for peak in peaks), f"{max(peaks) / alone[what]:.2f}"]
        apart = max(abs(a - b) for a, b in zip(first, found, strict=True))
        print(f"| {count} | {' | '.join(cells)} | {found[-1]:.6f}, differs by {apart:.0e} |", flush=True)
        imports = max(one["imports"] for one in each)
        print(f"{count}: {max(one['seconds'] for one in each):.0f} s; imports take {imports:,.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
