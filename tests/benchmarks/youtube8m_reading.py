"""Videos of YouTube-8M that one core reads in a second: `python -m tests.benchmarks.youtube8m_reading SHARDS [TIMES]`.

SHARDS is a folder of video-level shards, such as `video` with 1,202 videos. Their records are repeated TIMES (25) in a
temporary folder, each time with ids of their own, so that the index is as large as that of many shards. Both checksums
of each record are compared whenever it is read. Seconds are processor seconds of one thread, with the files in the
memory of the system. The best of three is shown.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.recipe import DataSection
from pipelines.data.formats import youtube8m
from pipelines.data.video import tfrecord
from pipelines.data.video.feature_sets import FeatureSets
from tests.support import tiny_tfrecords as tiny

WANTED = 20_000  # videos per second


def enlarged(shards: Path, folder: Path, times: int) -> int:
    """Write the records `times` times, with other ids. Returns their number."""
    count = 0
    for path in sorted(shards.rglob("*.tfrecord")):
        read = [tfrecord.parse(data) for _, data in tfrecord.records(path) if isinstance(data, bytes)]
        for again in range(times):
            records = []
            for one in read:
                records.append(tiny.video(f"{count:08d}", one.labels, one.features["rgb"], one.features["audio"]))
                count += 1
            tiny.shard(folder / f"train{path.stem[-4:]}x{again}.tfrecord", records)
    return count


def rate(do: Callable[[], int]) -> float:
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        count = do()
        best = max(best, count / (time.process_time() - began))
    return best


def main() -> None:
    times = int(sys.argv[2]) if sys.argv[2:] else 25
    with tempfile.TemporaryDirectory() as name:
        os.environ["GRAFT_CACHE"] = f"{name}/cache"
        folder = Path(name) / "video"
        count = enlarged(Path(sys.argv[1]), folder, times)
        section = DataSection(id=str(folder))
        rows: Any = None

        def checksums() -> int:
            return sum(1 for path in folder.iterdir() for _ in tfrecord.records(path))

        def index() -> int:
            nonlocal rows
            source = youtube8m.read(section, youtube8m.COLUMNS)
            rows = source.splits["train"]
            assert not source.skipped["train"]
            return len(rows)

        found = {"both checksums alone": rate(checksums), "index: rows with digests": rate(index)}
        names = [str(number) for number in range(youtube8m.CLASSES)]
        encoded = FeatureSets(rows, names, True, None)

        def examples(order: Any) -> int:
            for number in order:
                encoded[number]
            return len(encoded)

        shuffled = np.random.default_rng(0).permutation(len(encoded)).tolist()
        found["examples, in order"] = rate(lambda: examples(range(len(encoded))))
        found["examples, in random order"] = rate(lambda: examples(shuffled))
        assert len(encoded) == count
    print(f"{count:,} videos; Python {platform.python_version()}; wanted: {WANTED:,} videos/s per core\n")
    print("| | videos/s of one core |\n|---|---|")
    for what, videos in found.items():
        print(f"| {what} | {videos:,.0f} |")


if __name__ == "__main__":
    main()
