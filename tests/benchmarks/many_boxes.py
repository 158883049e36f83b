"""List, split and check COCO's JSON of many images and boxes with polygons: time and memory of a new process.

    python -m tests.benchmarks.many_boxes [IMAGES] [BOXES]        default: 100,000 images, 1,000,000 boxes of 20 points

The images are tiny files of 8 x 6 pixels, because their pixels are not what is measured.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import resource, sys, time
from pipelines.config.recipe import DataSection
from pipelines.data.loading import load_splits
from pipelines.data.schema import DataSpec

start = time.perf_counter()
spec = DataSpec(
    columns={"image": "image", "objects": "boxes"}, classes_of=lambda row: [one["label"] for one in row["objects"]]
)
found = load_splits(DataSection(id=sys.argv[1]), spec)
rows = sum(len(found[name]) for name in ("train", "validation", "test"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(f"| {rows:,} | {time.perf_counter() - start:.0f} s | {peak:.2f} GB |")
"""


def make(folder: Path, images: int, boxes: int) -> None:
    """Write the images and the JSON file."""
    from PIL import Image

    draw = random.Random(0)
    (folder / "images").mkdir()
    for number in range(images):
        Image.new("RGB", (8, 6), (number % 256, number // 256 % 256, number // 65536)).save(
            folder / "images" / f"{number:06}.png", compress_level=1
        )
    with (folder / "annotations.json").open("w") as file:
        entries = (
            {"id": n * 3 + 7, "file_name": f"{n:06}.png", "width": 8, "height": 6, "license": 1} for n in range(images)
        )
        file.write('{"images": [' + ", ".join(map(json.dumps, entries)) + '], "annotations": [')
        for number in range(boxes):
            x, y = draw.uniform(0, 4), draw.uniform(0, 3)
            polygon = [round(value, 3) for _ in range(20) for value in (x + draw.random() * 3, y + draw.random() * 2)]
            entry = {"id": number, "image_id": draw.randrange(images) * 3 + 7, "category_id": draw.randrange(80) + 1}
            entry |= {"bbox": [x, y, 3, 2], "area": 4.5, "iscrowd": 0, "segmentation": [polygon]}
            file.write((", " if number else "") + json.dumps(entry))
        classes = [{"id": number + 1, "name": f"class {number}"} for number in range(80)]
        file.write(f'], "categories": {json.dumps(classes)}}}')


def main() -> None:
    """Make the data, and print the table."""
    images, boxes = [int(word) for word in sys.argv[1:3]] or [100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), images, boxes)
        size = (Path(name) / "annotations.json").stat().st_size / 1e6
        print(f"{images:,} images, {boxes:,} boxes with 20-point polygons, {size:.0f} MB of JSON\n", flush=True)
        print("| rows | time | peak memory |\n|---|---|---|", flush=True)
        subprocess.run([sys.executable, "-c", CODE, name], check=True)


if __name__ == "__main__":
    main()
