"""COCO's run lengths, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco

from pipelines.data.image import run_lengths


def masks(seed: int, count: int = 200) -> list[np.ndarray]:
    """Empty, full and noisy masks, and boxes that reach the edges of the image."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        mask = np.zeros(tuple(rng.integers(1, 30, 2)), bool)
        top, left = (int(rng.integers(side)) for side in mask.shape)
        mask[top : top + rng.integers(0, 31), left : left + rng.integers(0, 31)] = True
        if number % 3 == 0:
            mask &= rng.random(mask.shape) < rng.choice([0.1, 0.5, 0.9])
        found.append(mask if number % 20 else np.full(mask.shape, number % 40 == 0))
    return found


def encoded(mask: np.ndarray) -> dict:
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def test_a_box_gives_the_run_lengths_of_the_image() -> None:
    rng = np.random.default_rng(2)
    for mask in masks(0):
        height, width = mask.shape
        left, top, right, bottom = box(mask)
        more = rng.integers(0, 4, 4)  # a box may be larger than what is inside
        left, top = max(0, left - int(more[0])), max(0, top - int(more[1]))
        right, bottom = min(width, right + int(more[2])), min(height, bottom + int(more[3]))
        part = mask[top:bottom, left:right]
        assert run_lengths.of_box(part, left, top, height, width) == encoded(mask)


def test_parts_of_a_mask_are_joined() -> None:
    for mask in masks(1):
        height, width = mask.shape
        cuts = range(0, width, 3)
        parts = [run_lengths.edges_of_columns(mask.T[left : left + 3], left, 0, height) for left in cuts]
        edges = run_lengths.joined(parts)
        assert run_lengths.packed(edges, height, width) == encoded(mask)
        if mask.any():
            assert run_lengths.around(edges, height) == box(mask)


def test_counts_are_read() -> None:
    for mask in masks(3):
        counts = run_lengths.counts(encoded(mask)["counts"])
        assert counts is not None
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        assert (mask == inside.reshape(mask.T.shape).T).all()


@pytest.mark.parametrize("text", ["é", " ", "0oooooooooooooo", "o", "0@"])
def test_texts_that_are_no_counts(text: str) -> None:
    assert run_lengths.counts(text) is None


def test_no_text_has_no_counts() -> None:
    assert run_lengths.counts("").tolist() == []
