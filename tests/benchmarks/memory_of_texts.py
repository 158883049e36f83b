"""How memory grows with the texts: `python -m tests.benchmarks.memory_of_texts [--megabytes 1000] [--form csv]`.

Made-up texts of about 1,000 characters with one of two labels, 10 MB and then as many as asked for. `graft check` and
`graft train` (two steps, a tiny model) run on each. The peak is that of the largest process of a command, as the system
counts it: with the pages of mapped files that were read, which the system takes back when it needs room.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.support import tiny_text

SMALL = 10  # megabytes
WORDS = (*tiny_text.PEOPLE, *tiny_text.THINGS, *tiny_text.PLACES, "the", "was", "made", "by", "in", "year", "sold")


def texts(megabytes: int) -> Iterator[tuple[str, str]]:
    """Texts with their labels."""
    rng = random.Random(0)
    some = [" ".join(rng.choices(WORDS, k=40)) for _ in range(500)]
    size = 0
    while size < megabytes * 1_000_000:
        good = rng.random() < 0.5
        text = f"{'good' if good else 'bad'} {rng.randrange(10**9)} " + " ".join(rng.choices(some, k=5))
        size += len(text)
        yield text, "good" if good else "bad"


def write(path: Path, megabytes: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".csv":
            file.write("text,label\n")
        for text, label in texts(megabytes):
            row = json.dumps({"text": text, "label": label}) if path.suffix == ".jsonl" else f'"{text}",{label}'
            file.write(row + "\n")


def peak(command: list[str], home: Path) -> tuple[float, float]:
    """Megabytes of the largest process of a command, and its seconds."""
    began = time.monotonic()
    environment = {**os.environ, "GRAFT_CACHE": str(home), "HF_HUB_OFFLINE": "1"}
    with (home / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *command], env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((home / "log.txt").read_text()[-3000:])
    return usage.ru_maxrss / 1024, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--form", choices=["csv", "jsonl"], default="csv")
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = tiny_text.bert(home / "model", "BertModel")
        for megabytes in (SMALL, asked.megabytes):
            data = home / f"texts{megabytes}.{asked.form}"
            write(data, megabytes)
            recipe = home / f"recipe{megabytes}.yaml"
            recipe.write_text(
                f"task: text-classification\nmodel: {{id: {model}}}\n"
                f"data: {{id: {data}, max_eval_rows: 50}}\noptions: {{max_length: 32}}\n"
                "train: {max_steps: 2, batch_size: 8}\n"
            )
            run = ["train", str(recipe), "--run", str(home / f"run{megabytes}")]
            for name, command in {
                "check": ["check", str(recipe)],
                "train": run,
                "check again": ["check", str(recipe)],
            }.items():
                found.setdefault(name, []).append(peak(command, home))
                print(f"{megabytes:,} MB, {name}: {found[name][-1][0]:,.0f} MB, {found[name][-1][1]:.0f} s", flush=True)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}; {asked.form}\n")
    print(f"| command | peak at {SMALL} MB of text | at {asked.megabytes:,} MB | difference | seconds |")
    print("|---|---|---|---|---|")
    for name, ((small, before), (large, after)) in found.items():
        row = f"{small:,.0f} MB | {large:,.0f} MB | {large - small:,.0f} MB | {before:.0f} / {after:.0f}"
        print(f"| `graft {name}` | {row} |")


if __name__ == "__main__":
    main()
