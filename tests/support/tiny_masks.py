"""Tiny images with label maps: squares and discs that overlap, in folders of images and of masks.

    shapes(tmp_path / "shapes")      images/train/000.png   masks/train/000.png   classes.txt
    binary(tmp_path / "cells")       images/train/000.png   masks/train/000.png   with the values 0 and 255

A seed decides everything. The class of a shape shows in its colour, so that a small model learns it quickly.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ((40, 60, 200), (210, 60, 50), (60, 200, 80), (220, 200, 60), (200, 70, 200))  # of the classes, in turn
BACKGROUND = (110, 110, 110)
SHARES = {"train": 4, "validation": 1, "test": 1}  # how many of six images a split gets


def scene(number: int, side: int = 64, kinds: int = 2, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """An image and its map of classes (uint8, 0 is the background). Later shapes cover earlier ones.

    Odd classes are squares and even ones discs.
    """
    rng = np.random.default_rng([seed, number])
    image = Image.new("RGB", (side, side), BACKGROUND)
    classes = Image.new("L", (side, side), 0)
    for place in range(int(rng.integers(2, 5))):
        kind = 1 + (number + place) % kinds
        width = int(rng.integers(side // 5, side // 2))
        left, top = (int(value) for value in rng.integers(-width // 4, side - width // 2, 2))
        box = (left, top, left + width, top + width)
        for target, fill in ((image, COLOURS[(kind - 1) % len(COLOURS)]), (classes, kind)):
            draw = ImageDraw.Draw(target)
            (draw.rectangle if kind % 2 else draw.ellipse)(box, fill=fill)
    noise = rng.integers(-20, 21, (side, side, 3))
    return Image.fromarray((np.asarray(image, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8)), np.array(classes)


def shapes(
    folder: Path,
    n: int = 24,
    side: int = 64,
    classes: Sequence[str] = ("background", "square", "disc"),
    splits: bool = True,
    seed: int = 0,
) -> Path:
    """Folders of images and of grey masks whose value n is line n of classes.txt."""
    for name, image, values in _scenes(n, side, len(classes) - 1, splits, seed):
        save(image, folder / "images" / name)
        save(Image.fromarray(values), folder / "masks" / name)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return folder


def binary(folder: Path, n: int = 24, side: int = 64, white: int = 255, splits: bool = True, seed: int = 0) -> Path:
    """Folders of images and of masks with the values 0 and `white`."""
    for name, image, values in _scenes(n, side, 1, splits, seed):
        save(image, folder / "images" / name)
        save(Image.fromarray((values > 0).astype(np.uint8) * np.uint8(white)), folder / "masks" / name)
    return folder


def save(image: Image.Image, path: Path) -> Path:
    """Write an image where its folder may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def _scenes(n: int, side: int, kinds: int, splits: bool, seed: int) -> list[tuple[str, Image.Image, np.ndarray]]:
    turns = [split for split, share in SHARES.items() for _ in range(share)]
    names = [f"{turns[number % len(turns)]}/{number:03d}.png" if splits else f"{number:03d}.png" for number in range(n)]
    return [(name, *scene(number, side, kinds, seed)) for number, name in enumerate(names)]
