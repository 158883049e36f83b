"""How long the headers of many small recordings take: `python -m tests.benchmarks.recording_headers [COUNT]`.

Noise of a second is written as wav, flac and m4a (m4a needs the extra audio-formats). The benchmark times one column of
them three ways: every header read, as each run did up to 0.1; the first time with an empty cache; and the second time.
Seconds are processor seconds, so that other programs do not count; the files are in the memory of the system, and a
slow disk adds to the first two columns. The best of three is shown.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipelines.data.audio.headers import Headers
from pipelines.data.audio.reading import header
from tests.support import tiny_containers

RATE = 16_000


def recordings(folder: Path, suffix: str, count: int) -> Any:
    """Rows with this many copies of one recording; they are older than the cache's doubt about fresh files."""
    from datasets import Dataset

    folder.mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    first = folder / f"first{suffix}"
    if suffix == ".m4a":
        tiny_containers.write(first, noise, RATE)
    else:
        soundfile.write(first, noise, RATE)
    files = []
    for number in range(count):
        files.append(folder / f"{number}{suffix}")
        files[-1].write_bytes(first.read_bytes())
        os.utime(files[-1], (1e9, 1e9))
    audio = [{"path": str(file), "bytes": None} for file in files]
    return Dataset.from_dict({"id": [file.name for file in files], "audio": audio})


def seconds(do: Callable[[], Any]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def every_header(rows: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        for some in rows.select_columns("audio").iter(256):
            list(pool.map(header, some["audio"]))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {count:,} recordings of a second\n")
    print("| | every header, s | first time, s | second time, s | ratio |\n|---|---|---|---|---|")
    for suffix in (".wav", ".flac", ".m4a"):
        with tempfile.TemporaryDirectory() as folder:
            rows = recordings(Path(folder) / "files", suffix, count)
            read = min(seconds(lambda rows=rows: every_header(rows)) for _ in range(3))
            firsts, seconds_ = [], []
            for number in range(3):
                os.environ["GRAFT_CACHE"] = str(Path(folder) / f"cache{number}")
                firsts.append(seconds(lambda rows=rows: Headers(rows)))
                seconds_.append(seconds(lambda rows=rows: Headers(rows)))
        first, second = min(firsts), min(seconds_)
        print(f"| {suffix} | {read:.2f} | {first:.2f} | {second:.2f} | {read / second:.1f} |")


if __name__ == "__main__":
    main()
