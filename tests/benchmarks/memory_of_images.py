"""The memory that a parquet of images takes: `python -m tests.benchmarks.memory_of_images [MEGABYTES]`.

It writes parquet files of 10 and of 1,000 MB, as other programs write them and as the hub's library does, each as one
row group, and runs `graft check` and `graft train` for two steps on each, with a tiny ViT. The table gives the peak
memory of each process, and by how much it is above that of the small file. The pages of the Arrow file that is mapped
count, although the system takes them back when it needs them.
"""

import io
import json
import os
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.support import tiny

NAMES = ["cat", "dog"]
SETTINGS = ["options.image_size=32", "options.augment=none", "train.max_steps=2", "train.head_epochs=0"]


def main() -> None:
    large = int(sys.argv[1]) if sys.argv[1:] else 1000
    print(f"| parquet | command | 10 MB: peak, MB | {large:,} MB: peak, MB | above, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.vit(Path(folder) / "vit")
        for form in ("with bytes", "of the hub"):
            peaks: dict[str, list[float]] = {"check": [], "train, 2 steps": []}
            for megabytes in (10, large):
                path = Path(folder) / f"{megabytes}.parquet"
                # in a process of its own: a command's peak begins with the memory of the process that starts it
                writer = get_context("spawn").Process(target=write, args=(path, megabytes, form))
                writer.start()
                writer.join()
                os.environ["GRAFT_CACHE"] = f"{folder}/cache of {form} {megabytes}"
                for verb in peaks:
                    run = ["--run", f"{folder}/run of {form} {megabytes}"] if verb != "check" else []
                    command = [verb.partition(",")[0], "photos_efficientnet_b0", "--data", str(path), "--model"]
                    peaks[verb].append(peak([*command, str(model), *SETTINGS, *run]))
                path.unlink()
            for verb, (small, big) in peaks.items():
                print(f"| {form} | {verb} | {small:,.0f} | {big:,.0f} | {big - small:,.0f} |", flush=True)


def write(path: Path, megabytes: int, form: str) -> None:
    """One row group of images that cannot be compressed; each differs from the others."""
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(out, "PNG")
    count = megabytes * 1_000_000 // len(out.getvalue())
    images = [{"bytes": out.getvalue() + rng.bytes(16), "path": f"{number}.png"} for number in range(count)]
    labels = [number % 2 for number in range(count)]
    hub = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    table = pyarrow.table(
        {"image": images, "label": labels if form == "of the hub" else [NAMES[label] for label in labels]}
    )
    if form == "of the hub":
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": hub}})})
    pyarrow.parquet.write_table(table, path, row_group_size=count)


def peak(arguments: list[str]) -> float:
    """The peak memory of a command in MB."""
    program = [sys.executable, "-m", "pipelines", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(os.devnull, "w") as nowhere:
        files = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2)]
        child = os.posix_spawn(program[0], program, environment, file_actions=files)
        _, status, usage = os.wait4(child, 0)
    assert status == 0, f"{' '.join(arguments)}: status {status}"
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
