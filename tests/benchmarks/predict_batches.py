"""`graft predict` in batches against one input at a time: time, memory, and the largest difference of an answer.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.predict_batches [--images 200] [--photos 24] [--rows 100000]

The models have random weights: a ViT like that of digits_vit_pretrain at 32 pixels, a ViT-Tiny at 224 pixels, and a
tiny BERT for a table of many rows, whose answers go to a file (`--rows 0` leaves it out). The ways of answering take
turns, and the best of three counts. The time is that of the processor (CPU seconds of this process), because others
may use the machine, too.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import tiny, tiny_text

SIZES = {
    32: {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128},
    224: {
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "patch_size": 16,
    },
}


def photos(folder: Path, count: int, side: int) -> list[str]:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        file = folder / f"{number:04}.png"
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(file)
        found.append(str(file))
    return found


def compared(folder: Path, side: int, count: int) -> str:
    """A line of the table: one size of images."""
    from pipelines.inference.batches import Request, answered
    from pipelines.inference.loading import load

    loaded = load(tiny.vit(folder / f"vit{side}", size=side, **SIZES[side]), device="cpu")
    files = photos(folder / f"photos{side}", count, side)
    requests = [Request(file, {"image": file}, None) for file in files]
    best = {"one": float("inf"), "batch": float("inf")}
    answers: dict[str, list[Any]] = {}
    for _ in range(3):
        for name, work in (
            ("one", lambda: [loaded.infer(file) for file in files]),
            ("batch", lambda: [answer for _, answer in answered(loaded, requests)]),
        ):
            since = time.process_time()
            answers[name] = work()
            best[name] = min(best[name], time.process_time() - since)
    apart = max(
        abs(a["score"] - {o["label"]: o["score"] for o in second}[a["label"]])
        for first, second in zip(*answers.values(), strict=True)
        for a in first
    )
    each = {name: 1000 * seconds / count for name, seconds in best.items()}
    return (
        f"| ViT, {side} px, {count} images | {each['one']:.2f} | {each['batch']:.2f} | "
        f"{each['one'] / each['batch']:.1f} | {apart:.0e} |"
    )


def table(folder: Path, rows: int) -> str:
    """Answer a table in a process of its own, and check the order. Returns what it took."""
    model = folder / "bert"
    if not model.exists():
        tiny_text.bert(model, "BertForSequenceClassification", reads_pairs=False)
    source, out = folder / f"rows{rows}.csv", folder / f"answers{rows}.jsonl"
    lines = (f"the song was made by Ada in Rome {'again ' * (number % 20)}" for number in range(rows))
    source.write_text("text\n" + "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "tests.benchmarks.predict_batches", "--table", str(model), str(source), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    took = json.loads(done.stdout)
    with out.open() as file:
        found = [json.loads(line)["input"] for line in file]
    assert found == [f"{source.name}:{number}" for number in range(2, rows + 2)]
    return f"{rows:,} rows: {took['seconds']:.0f} CPU seconds, peak memory {took['peak']:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--table", nargs=3)
    asked = parser.parse_args()
    if asked.table:
        from pipelines.inference.predict import answers

        since, (model, source, out) = time.process_time(), asked.table
        for _ in answers(model, source, out=out, device="cpu"):
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.process_time() - since, "peak": peak}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| | CPU ms an image, one by one | in batches | times as fast | largest difference |")
        print("| --- | ---: | ---: | ---: | ---: |")
        print(compared(folder, 32, asked.images), compared(folder, 224, asked.photos), sep="\n", flush=True)
        if asked.rows:
            print("", table(folder, asked.rows // 10), table(folder, asked.rows), sep="\n")


if __name__ == "__main__":
    main()
