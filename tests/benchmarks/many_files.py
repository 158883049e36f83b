"""How long 100,000 images in folders take: `python -m tests.benchmarks.many_files [CHECKOUT]`.

It makes 100 class folders of 1,000 tiny images, and times the listing of the folders and all of `load_splits`, each in
a process of its own. CHECKOUT is a folder with commit aa5dbba, which is then timed too, by turns. The second reading
finds the digests that the first one kept. Seconds are processor seconds, so that other programs do not count. The
elapsed time is given in brackets.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

CLASSES, EACH = 100, 1000
CLOCKS = "time.process_time(), time.perf_counter()"
NOW = """
from pipelines.config.recipe import DataSection
from pipelines.data.loading import format_module, load_splits
from pipelines.data.schema import DataSpec
section, needs = DataSection(id=FOLDER), DataSpec(("image", "label"))
listing = lambda: format_module(section).read(section, ("image", "label"))
loading = lambda: load_splits(section, needs)
"""
BEFORE = """
from pipelines import data
from pipelines.recipe import DataSection
from pipelines.tasks.image_classification import ImageClassification
section, needs = DataSection(id=FOLDER), data.needs_of(ImageClassification(ImageClassification.Options()))
listing = lambda: data._read(section, needs)
loading = lambda: data.load_splits(section, needs)
"""
TIMED = f"""
import json, sys, time
import datasets, torch
def timed(call):
    began = {CLOCKS}
    found = call()
    return [now - then for now, then in zip(({CLOCKS}), began)], found
first, _ = timed(listing)
second, splits = timed(loading)
print(json.dumps([first, second, splits.fingerprint]))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder) / "photos")
        here = str(Path(__file__).parents[2])
        found = {}
        for name, root in (("aa5dbba", sys.argv[1] if sys.argv[1:] else None), ("now", here), ("now, again", here)):
            if root is not None:
                code = (BEFORE if name == "aa5dbba" else NOW).replace("FOLDER", repr(f"{folder}/photos")) + TIMED
                found[name] = measured(root, code, f"{folder}/cache")
        prints = {json.dumps(one[2], sort_keys=True) for one in found.values()}
        assert len(prints) == 1, "the same images have several fingerprints"
    print("| | listing, s | listing and all that `load_splits` does, s |\n|---|---|---|")
    for name, (listing, loading, _) in found.items():
        print(f"| {name} | {listing[0]:.2f} ({listing[1]:.2f}) | {loading[0]:.2f} ({loading[1]:.2f}) |")


def photos(root: Path) -> None:
    """Images that differ in their bytes."""
    for label in range(CLASSES):
        folder = root / f"class {label:03d}"
        folder.mkdir(parents=True)
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (label * 2, 100, 255 - label)).save(out, "JPEG")
        for number in range(EACH):
            (folder / f"{number:05d}.jpg").write_bytes(out.getvalue() + f"{label}/{number}".encode())


def measured(root: str, code: str, cache: str) -> tuple[list[float], list[float], dict[str, str]]:
    environment = {**os.environ, "PYTHONPATH": root, "GRAFT_CACHE": cache, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"]
    done = subprocess.run(command, env=environment, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    listing, loading, prints = json.loads(done.stdout.splitlines()[-1])
    return listing, loading, prints


if __name__ == "__main__":
    main()
