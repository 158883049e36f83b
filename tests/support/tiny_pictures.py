"""Tiny images to generate, on disk: coloured shapes with their captions, and files in MNIST's format.

    shapes(tmp_path / "shapes", captions="txt"); idx(tmp_path / "mnist")

A seed decides everything.
"""

import csv
import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from pipelines.config.recipe import DataSection
from pipelines.data.image.pixels import caption
from pipelines.data.loading import load_splits
from pipelines.data.schema import SPLITS, DataSpec, Splits

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}
SHAPES = ("disc", "square")
CAPTIONS = tuple(f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES)


def shape(number: int, size: int = 16, seed: int = 0) -> Image.Image:
    """The image of CAPTIONS[number % 6], at a random place on white."""
    rng = np.random.default_rng([seed, number])
    _, colour, kind = CAPTIONS[number % len(CAPTIONS)].split()
    image = Image.new("RGB", (size, size), "white")
    left, top = rng.integers(0, size // 2, 2).tolist()
    box = (left, top, left + size // 2, top + size // 2)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if kind == "disc" else draw.rectangle)(box, fill=COLOURS[colour])
    return image


def save(number: int, file: Path, size: int, seed: int = 0) -> None:
    """A PNG file that holds its number. Few of these shapes differ, and equal files would be kept in one split."""
    about = PngInfo()
    about.add_text("number", str(number))
    shape(number, size, seed).save(file, pnginfo=about)


def shapes(folder: Path, n: int = 12, size: int = 16, captions: str = "none", seed: int = 0) -> Path:
    """PNG files 000.png, 001.png, ...; captions "none", "metadata" (metadata.jsonl) or "txt" (000.txt for 000.png)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(n):
        text = CAPTIONS[number % len(CAPTIONS)]
        save(number, folder / f"{number:03d}.png", size, seed)
        lines.append(json.dumps({"file_name": f"{number:03d}.png", "text": text}) + "\n")
        if captions == "txt":
            (folder / f"{number:03d}.txt").write_text(text + "\n")
    if captions == "metadata":
        (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def shape_classes(folder: Path, n: int = 12, size: int = 16) -> Path:
    """The same images in one folder per colour: red/000.png, green/002.png, ..."""
    for number in range(n):
        file = folder / CAPTIONS[number % len(CAPTIONS)].split()[1] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(number, file, size)
    return folder


def digit(number: int, size: int = 28, seed: int = 0) -> np.ndarray:
    """Grey values [size, size] of the label number % 10: a soft spot whose angle encodes the label."""
    angle = 2 * np.pi * (number % 10) / 10
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    jitter = np.random.default_rng([seed, number]).normal(0, 0.02, 2)
    far = (x - 0.3 * np.cos(angle) - jitter[0]) ** 2 + (y - 0.3 * np.sin(angle) - jitter[1]) ** 2
    return (255 * np.exp(-far / 0.01)).astype(np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    """uint8 values of any shape as an idx file, not compressed."""
    return (
        bytes((0, 0, 8, values.ndim))
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


def idx(folder: Path, n: int = 40, name: str = "train", size: int = 28, seed: int = 0) -> Path:
    """`n` images and their labels 0, 1, ...

    9, 0, ... as the pair of MNIST files called `name` (train, t10k), compressed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([digit(number, size, seed) for number in range(n)])
    for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(n) % 10)):
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(values), mtime=0))
    return folder


# ---- read, and written as lists ----

IMAGE = DataSpec(("image",))
LABEL = DataSpec(("image", "label"))
TEXT = DataSpec(("image", "text"), clean=lambda row: {**row, "text": caption(row)})


def load(path: Path, needs: DataSpec = IMAGE, **section: Any) -> Splits:
    return load_splits(DataSection(id=str(path), **section), needs)


def all_rows(splits: Splits) -> list[dict]:
    return [row for name in SPLITS for row in splits[name]]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(path: Path, header: str, images: list[str]) -> Path:
    lines = [header, *(f"{image},{CAPTIONS[i % 6]}" for i, image in enumerate(images))]
    return write(path, "\n".join(lines) + "\n")


def listed(folder: Path, ending: str, column: str, count: int) -> Path:
    rows = [{"file_name": f"{i:03d}.png", column: CAPTIONS[i % 6]} for i in range(count)]
    shapes(folder, count)
    if ending == "jsonl":
        return write(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", column])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "metadata.csv"
