"""Memory and time of scoring many labels: 20,000 rows of 527, as AudioSet has them.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.many_labels [--rows 20000] [--labels 527]

A process of its own makes the records of random predictions, hands them over as several processes do (pickled),
computes all scores without intervals and the table of labels, and writes predictions/*.jsonl. `dicts` are the records
of former versions: {label: score} for each row.
"""

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BATCH = 64


def measured(form: str, rows: int, count: int) -> dict[str, Any]:
    """The figures of one form of records, in this process."""
    import numpy as np
    import torch

    from pipelines.metrics import classification
    from pipelines.utils.files import write_records

    labels = [f"label {number}" for number in range(count)]
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    truth = [sorted({labels[i] for i in rng.integers(0, count, 3)}) for _ in range(rows)]
    # what the imports and the first batches take is no part of the records
    classification.records({"id": ["0"], "true": [[]]}, torch.zeros(1, count), labels, True)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {}

    def timed(name: str, work: Any) -> Any:
        since = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - since
        return result

    def predicted() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for first in range(0, rows, BATCH):
            size = min(BATCH, rows - first)
            batch = {"id": [f"{first + i:08}" for i in range(size)], "true": truth[first : first + size]}
            logits = torch.randn(size, count, generator=draw) - 4
            some = classification.records(batch, logits, labels, True)
            found += some if form == "arrays" else [{**one, "scores": dict(one["scores"])} for one in some]
        return found

    records = timed("records", predicted)
    held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    handed = len(timed("handing over", lambda: pickle.dumps(records))) / 2**20
    statistics = timed("statistics", lambda: classification.statistics(records, labels, True))
    scores = timed("scores", lambda: classification.summarize(statistics, statistics.ones()))
    timed("table", lambda: classification.per_class(records, labels, True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.jsonl"
        timed("file", lambda: write_records(path, records))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    return {"held": held, "handed": handed, "peak": peak, "map": scores["map"], **seconds}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--labels", type=int, default=527)
    parser.add_argument("--form", choices=("arrays", "dicts"))
    asked = parser.parse_args()
    if asked.form:
        print(json.dumps(measured(asked.form, asked.rows, asked.labels)))
        return
    found = {}
    for form in ("dicts", "arrays"):
        command = [sys.executable, "-m", "tests.benchmarks.many_labels", "--form", form]
        command += ["--rows", str(asked.rows), "--labels", str(asked.labels)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[form] = SimpleNamespace(**json.loads(done.stdout))
    before, now = (vars(found[form]) for form in ("dicts", "arrays"))
    if before["map"] != now["map"]:
        raise SystemExit("the scores differ")
    print(f"{asked.rows:,} rows of {asked.labels} labels\n")
    print("| | dicts | arrays | |\n| --- | ---: | ---: | ---: |")
    for key, unit in (("held", "MB held"), ("handed", "MB pickled"), ("peak", "MB peak")):
        print(f"| {unit} | {before[key]:,.0f} | {now[key]:,.0f} | {now[key] / before[key]:.2f} |")
    for key in ("records", "handing over", "statistics", "scores", "table", "file"):
        print(f"| seconds: {key} | {before[key]:.2f} | {now[key]:.2f} | {now[key] / before[key]:.2f} |")


if __name__ == "__main__":
    main()
