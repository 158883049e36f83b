"""How long ImageNet's 1.28 million files take to list: `python -m tests.benchmarks.imagenet_listing [EACH]`.

It makes 1,000 folders of synsets with EACH names (1,281) in a temporary folder, each a link to one tiny JPEG of the
folder, because files of no bytes would all be skipped. It lists a tenth of the folders and all of them, each in a
process of its own, and shows the memory that the listing added at its peak. Seconds are processor seconds, so that
other programs do not count; the elapsed time is given in brackets.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

CLASSES = 1000
TIMED = """
import json, resource, sys, time
import datasets
from pipelines.config.recipe import DataSection
from pipelines.data.loading import format_module
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
section = DataSection(id=sys.argv[1])
format_module(section)
before, cpu, began = peak(), time.process_time(), time.perf_counter()
source = format_module(section).read(section, ("image", "label"))
found = [len(source.splits["train"]), len(source.labels)]
print(json.dumps([*found, time.process_time() - cpu, time.perf_counter() - began, peak() - before]))
"""


def main() -> None:
    each = int(sys.argv[1]) if sys.argv[1:] else 1281
    print("| images | classes | listing, s | memory, MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        tree(few, CLASSES // 10, each)
        tree(many, CLASSES, each)
        for root in (few, many):
            environment = {**os.environ, "GRAFT_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", TIMED, str(root)]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            count, labels, cpu, elapsed, memory = json.loads(done.stdout.splitlines()[-1])
            assert (count, labels) == (labels * each, CLASSES if root is many else CLASSES // 10)
            print(f"| {count:,} | {labels:,} | {cpu:.1f} ({elapsed:.1f}) | {memory:.0f} |")


def tree(root: Path, classes: int, each: int) -> None:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(out, "JPEG")
    for number in range(classes):
        synset = f"n{number + 1440764:08d}"
        folder = root / "ILSVRC/Data/CLS-LOC/train" / synset
        folder.mkdir(parents=True)
        first = folder / f"{synset}_0.JPEG"
        first.write_bytes(out.getvalue())
        for place in range(1, each):
            os.link(first, folder / f"{synset}_{place}.JPEG")


if __name__ == "__main__":
    main()
