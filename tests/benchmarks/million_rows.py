"""How long a million rows take: `python -m tests.benchmarks.million_rows [--rows 1000000] [--old FOLDER]`.

The fingerprint, the digests of contents, a stratified cut and a cut by group, first computed and then read from the
cache. `--old` names a checkout of an older Graft (commit aa5dbba), whose functions are timed beside them. Seconds are
processor seconds, so that other programs do not count; the elapsed time is given in brackets.
"""

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from datasets import Dataset

OLD = """
import runpy, sys
sys.path.insert(0, {folder!r})
from pipelines.data import splits
timed, rows = (runpy.run_path({own!r})[name] for name in ("timed", "rows"))
rows = rows({count})
timed("fingerprint", lambda: splits.fingerprint(rows))
timed("cut, stratified", lambda: splits.cut(rows, 0.1, 0, None))
timed("cut by group", lambda: splits.cut(rows, 0.1, 0, "writer"))
"""


def rows(count: int) -> Dataset:
    """Short texts with a label of 20 and a writer of one in five rows."""
    rng = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    return Dataset.from_dict(
        {
            "id": [f"train.csv:{number + 2}" for number in range(count)],
            "text": [" ".join(rng.choices(words, k=12)) for _ in range(count)],
            "label": [f"class {min(int(rng.expovariate(0.5)), 19)}" for _ in range(count)],
            "writer": [f"writer {rng.randrange(count // 5)}" for _ in range(count)],
        }
    )


def timed(name: str, run: Callable[[], Any]) -> None:
    cpu, elapsed = time.process_time(), time.monotonic()
    run()
    print(f"{name}\t{time.process_time() - cpu:.2f}\t{time.monotonic() - elapsed:.1f}", flush=True)


def new(count: int) -> None:
    from pipelines.data.leakage import contents
    from pipelines.data.schema import fingerprint
    from pipelines.data.splitting import cut

    found = rows(count)
    for again in ("", ", from the cache"):
        timed(f"fingerprint{again}", lambda: fingerprint(found))
        timed(f"contents{again}", lambda: contents(found, ["text"]))
        timed(f"cut, stratified{again}", lambda: cut(found, {"test": 0.1}, 0, None))
        timed(f"cut by group{again}", lambda: cut(found, {"test": 0.1}, 0, "writer"))


def measured(program: str) -> dict[str, tuple[str, str]]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "GRAFT_CACHE": cache, "OMP_NUM_THREADS": "1"}
        found = subprocess.run(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    lines = [line.split("\t") for line in found.stdout.splitlines() if "\t" in line]
    return {name: (cpu, elapsed) for name, cpu, elapsed in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--old", help="a checkout of an older version")
    asked = parser.parse_args()
    now = measured(f"from tests.benchmarks import million_rows; million_rows.new({asked.rows})")
    old = measured(OLD.format(folder=asked.old, own=__file__, count=asked.rows)) if asked.old else {}
    about = f"{os.cpu_count()} cores, Python {platform.python_version()}; {asked.rows:,} rows"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {about}\n\n| | now, s | before, s | ratio |\n|---|---|---|---|")
    for name, (cpu, elapsed) in now.items():
        before = old.get(name)
        shown = f"{before[0]} ({before[1]}) | {float(before[0]) / float(cpu):.1f}" if before else "- | -"
        print(f"| {name} | {cpu} ({elapsed}) | {shown} |")


if __name__ == "__main__":
    main()
