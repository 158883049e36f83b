"""A segmenter of coloured areas without weights, in the place of a loaded model.

Pixels of pure red are `road`, green `<b>tree`, blue `car`; all others are `sky & clouds`. With `things`, each connected
car is a segment of its own.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.shape_finder import run_lengths

COLOURS = {"road": (220, 40, 40), "<b>tree": (40, 170, 60), "car": (40, 80, 220)}
LABELS = [*COLOURS, "sky & clouds", "unused {{this}} ${that}"]


def segments(masks: list[tuple[str, np.ndarray]], score: float = 0.9) -> list[dict[str, Any]]:
    """The answer of `infer` for masks that do not overlap: the largest comes first. The score falls by 0.1 each."""
    kept = sorted(((label, mask) for label, mask in masks if mask.any()), key=lambda one: -one[1].sum())
    return [
        {
            "label": label,
            "score": round(score - 0.1 * place, 3),
            "share": float(mask.mean()),
            "mask": run_lengths(mask),
        }
        for place, (label, mask) in enumerate(kept)
    ]


class Segmenter:
    """Has the members of pipelines.inference.loading.Loaded that a demo uses. `calls` counts its answers."""

    def __init__(self, folder: Path, things: bool = False) -> None:
        self.folder, self.things, self.calls = folder, things, 0
        self.task = SimpleNamespace(name="image-segmentation", labels=LABELS)
        self.run, self.recipe, self.results, self.source = None, None, None, str(folder)

    def infer(self, image: Any) -> list[dict[str, Any]]:
        from scipy import ndimage

        self.calls += 1
        values = np.asarray(image).astype(int)
        areas = {label: np.abs(values - colour).sum(-1) < 90 for label, colour in COLOURS.items()}
        areas["sky & clouds"] = ~np.any(list(areas.values()), axis=0)
        found = list(areas.items())
        if self.things:
            cars, count = ndimage.label(areas["car"])
            found = [one for one in found if one[0] != "car"]
            found += [("car", cars == number) for number in range(1, count + 1)]
        return segments(found)
