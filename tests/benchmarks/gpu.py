"""Graft on one GPU: the tests of the marker `gpu`, then five comparisons with Trainer at its best and diffusers' loop.

    make bench-gpu                                   at most 8 minutes, no network
    make bench-gpu ARGS="--tiny --device cpu"        the same with tiny models, on any machine
    python -m tests.benchmarks.gpu [--only photos questions] [--seconds 25] [--table FILE]

All weights are random and all data are made up. Each program trains for `--seconds` after its first steps. Graft gets
SIGTERM then, as a scheduler would send it, and its speed is read from the run's log. The share of the device's rate is
the multiplications that the model needs (forward and backward, without what is computed again) over the rate of one
large matrix product in bf16 on the same device.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import machine
from tests.benchmarks.gpu_inputs import Case, cases

WARM = 5  # steps before the clock starts
MOST = 180.0  # seconds of one program, in which it must have taken its first steps


def environment(device: str, work: Path) -> dict[str, str]:
    own = {"GRAFT_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "huggingface")}
    return {
        **os.environ,
        **own,
        **({"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
    }


# ---- one program ----


def graft(case: Case, work: Path, device: str, seconds: float) -> dict[str, float]:
    """Train by the command line until `seconds` have passed after the first steps, then send SIGTERM."""
    log_every = 1 if seconds < 10 else 5
    train = {"max_steps": 1_000_000, "eval_every": 1_000_000, "save_every": 1_000_000, "log_every": log_every}
    train |= {"batch_size": case.batch, "learning_rate": 1e-4, "precision": "bf16"}
    path, run = work / "recipe.yaml", work / f"run of {case.kind}"
    path.write_text(yaml.safe_dump({**case.recipe, "train": train}))
    command = [sys.executable, "-m", "pipelines", "train", str(path), "--run", str(run)]
    with (work / "graft.txt").open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(device, work))
        _stop_after(process, run / "log.jsonl", seconds)
        output.seek(0)
        if process.wait() != 130:
            raise SystemExit(f"{case.name}: exit code {process.returncode}\n{output.read()[-3000:]}")
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "loss" in line and line["step"] >= WARM]
    first, last = steps[0], steps[-1]
    taken = last["step"] - first["step"]
    state = json.loads(
        (run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip() / "state.json").read_text()
    )
    return {
        "examples_per_second": case.batch * taken / (last["seconds"] - first["seconds"]),
        "steps": taken,
        "peak_memory_mb": state["peak_memory_mb"],
    }


def _stop_after(process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> None:
    """Send SIGTERM when the log has a step that is `seconds` later than the end of the first steps."""
    began = time.monotonic()
    since: float | None = None
    while process.poll() is None:
        steps = [json.loads(line) for line in log.read_text().splitlines() if '"loss"' in line] if log.exists() else []
        after = [line["seconds"] for line in steps if line["step"] >= WARM]
        since = after[0] if after else None
        if since is not None and len(after) > 1 and after[-1] - since >= seconds:
            process.send_signal(signal.SIGTERM)
            return
        if time.monotonic() - began > MOST + seconds:
            process.kill()
        time.sleep(0.05)


def theirs(case: Case, work: Path, device: str, seconds: float) -> dict[str, float]:
    settings = {"kind": case.kind, "batch": case.batch, "seconds": seconds, "warm": WARM, "device": device}
    path = work / "settings.json"
    path.write_text(json.dumps({**settings, **case.rows, "folder": str(work / "trainer")}))
    command = [sys.executable, "-m", "tests.benchmarks.gpu_theirs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(device, work))
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# ---- the rate of the device ----


def matrix_rate(device: str, size: int) -> float:
    """Multiplications and additions per second of a square product in bf16, the best of some rounds."""
    import torch

    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - began))
    return best


def operations(case: Case) -> float:
    """Multiplications and additions that one mean training example needs, forward and backward.

    The backward pass of what trains takes twice the forward pass. Below LoRA only the gradient of the inputs is
    computed, which takes it once, and frozen layers before the first trained one take none.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def count(call: Any) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return float(counter.get_total_flops())

    with torch.device("meta"), torch.no_grad():
        if case.kind == "photos":
            model = _model(case)
            size = case.rows["config"]["image_size"]
            return 3 * count(lambda: model(torch.zeros(1, 3, size, size)))
        if case.kind == "diffusion":
            model = _model(case)
            return 3 * count(lambda: model(torch.zeros(1, 3, 32, 32), torch.zeros(1)))
        if case.kind == "questions":
            model = _model(case)
            return 3 * count(lambda: model(input_ids=torch.zeros(1, _mean_length(case), dtype=torch.long)))
        if case.kind == "language-model":
            model = _model(case)
            return 2 * count(lambda: model(input_ids=torch.zeros(1, case.rows["length"], dtype=torch.long)))
        model = _model(case)
        samples = torch.zeros(1, _mean_length(case))
        return 3 * count(lambda: model(samples)) - 2 * count(lambda: model.wav2vec2.feature_extractor(samples))


def _model(case: Case) -> Any:
    import transformers

    if case.kind == "diffusion":
        from diffusers import UNet2DModel

        return UNet2DModel(**case.rows["config"])
    if case.kind == "photos":
        fields = dict(case.rows["config"])
        config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=2)
        return transformers.AutoModelForImageClassification.from_config(config)
    kinds = {"questions": "QuestionAnswering", "speech": "CTC", "language-model": "CausalLM"}
    config = transformers.AutoConfig.from_pretrained(case.rows["model"])
    return getattr(transformers, f"AutoModelFor{kinds[case.kind]}").from_config(config, dtype="float32")


def _mean_length(case: Case) -> int:
    """Tokens of a mean question with its passage, or samples of a mean recording."""
    from tests.benchmarks.gpu_inputs import read

    rows = read(Path(case.rows["data"]), "train")
    if case.kind == "questions":
        return round(sum(len(f"{row['question']} {row['context']}".split()) + 3 for row in rows) / len(rows))
    import soundfile

    return round(sum(soundfile.info(Path(case.rows["data"]) / row["audio"]).frames for row in rows) / len(rows))


# ---- the table ----


def tests(device: str, tiny: bool) -> str:
    """Run the tests of the marker `gpu` on the device; returns their last line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "tests/integration/test_gpu.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GRAFT_TEST_DEVICE": device})
    print(done.stdout, file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"the tests on {device} failed\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1].strip("= ")


def title(device: str) -> str:
    import torch

    if device == "cpu":
        return machine("on the CPU: figures of no meaning, to try the command")
    name = torch.cuda.get_device_name()
    return machine(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")


def main(given: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(prog="make bench-gpu")
    asked.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked.add_argument("--tiny", action="store_true", help="tiny models and a second a measurement")
    asked.add_argument("--seconds", type=float, help="of one measurement (25; tiny: 1)")
    asked.add_argument("--only", nargs="+", default=[], help="photos questions speech diffusion language-model")
    asked.add_argument("--no-tests", action="store_true", help="without the tests of the marker gpu")
    asked.add_argument("--table", type=Path, help="write the table to this file, too")
    arguments = asked.parse_args(given)
    import torch

    device, tiny = arguments.device, arguments.tiny
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit('there is no GPU here; to try the command itself: make bench-gpu ARGS="--tiny --device cpu"')
    seconds = arguments.seconds or (1.0 if tiny else 25.0)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if arguments.table is not None:
            arguments.table.write_text("\n".join(lines) + "\n")

    say(title(device))
    if not arguments.no_tests:
        say(f"Tests of the marker `gpu`: {tests(device, tiny)}.\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rate = matrix_rate(device, 256 if tiny else 8192)
        say(f"A product of square matrices in bf16: {rate / 1e12:.2f} TFLOP/s.\n")
        shares_of_both = "share of the rate: Graft / best | peak memory, MB: Graft / best |"
        say(f"| | batch | Graft, examples/s | at its best | ratio | {shares_of_both}")
        say("|---|---|---|---|---|---|---|")
        for case in cases(work, tiny, device, arguments.only):
            ours, other = graft(case, work, device, seconds), theirs(case, work, device, seconds)
            each = operations(case)
            mine, best = ours["examples_per_second"], other["examples_per_second"]
            shares = " / ".join(f"{speed * each / rate:.1%}" for speed in (mine, best))
            memory = " / ".join(f"{one['peak_memory_mb']:.0f}" for one in (ours, other))
            say(f"| {case.name} | {case.batch} | {mine:.1f} | {best:.1f} | {mine / best:.2f} | {shares} | {memory} |")


if __name__ == "__main__":
    main()
