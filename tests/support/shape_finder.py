"""A detector of coloured shapes without weights, in the place of a loaded model, and photos and videos for it.

It finds connected areas of pure red (circle), green (square) and blue (triangle). The score falls with the number of
shapes of a colour: 0.95, 0.75, 0.55, ... for circles, 0.1 less for squares and 0.2 less for triangles.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"circle": (220, 40, 40), "square": (40, 170, 60), "<b>triangle": (40, 80, 220)}
LABELS = [*COLOURS, "unused {{this}} ${that}"]
Shape = tuple[str, int, int, int]  # class, centre, and half of the side
PHOTO: list[Shape] = [
    ("circle", 200, 200, 120),
    ("circle", 700, 150, 60),
    ("square", 500, 500, 140),
    ("<b>triangle", 950, 500, 150),
]


class Finder:
    """Has the members of pipelines.inference.loading.Loaded that a demo uses. `calls` counts its answers."""

    def __init__(self, folder: Path, task: str, masks: bool = False) -> None:
        self.folder, self.masks, self.calls = folder, masks, 0
        self.task = SimpleNamespace(name=task, labels=LABELS)
        self.run, self.recipe, self.results, self.source = None, None, None, str(folder)

    def infer(self, image: Any, threshold: float = 0.5) -> list[dict[str, Any]]:
        from scipy import ndimage

        self.calls += 1
        values, found = np.asarray(image).astype(int), []
        for number, (label, colour) in enumerate(COLOURS.items()):
            areas, _ = ndimage.label(np.abs(values - colour).sum(-1) < 90)
            large = [
                (place, at) for place, at in enumerate(ndimage.find_objects(areas), 1) if at[0].stop - at[0].start > 9
            ]
            for order, (place, (y, x)) in enumerate(large):
                box = {"xmin": float(x.start), "ymin": float(y.start), "xmax": float(x.stop), "ymax": float(y.stop)}
                one = {"label": label, "score": round(0.95 - 0.1 * number - 0.2 * order, 2), "box": box}
                found.append(one | ({"mask": run_lengths(areas == place)} if self.masks else {}))
        return sorted((one for one in found if one["score"] >= threshold), key=lambda one: -one["score"])


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask, by pycocotools."""
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


def scene(size: tuple[int, int], shapes: Sequence[Shape]) -> Image.Image:
    """A grey image with these shapes."""
    image = Image.new("RGB", size, "#888")
    pen = ImageDraw.Draw(image)
    for kind, x, y, half in shapes:
        box, colour = (x - half, y - half, x + half, y + half), COLOURS[kind]
        if kind == "circle":
            pen.ellipse(box, fill=colour)
        elif kind == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=colour)
    return image


def film(frames: int = 30, size: tuple[int, int] = (320, 240), rate: int = 15, form: str = "mp4") -> bytes:
    """A video of a circle that moves to the right; from the middle on, a square is there, too."""
    import av

    out = io.BytesIO()
    codec = {"mp4": "libx264", "webm": "libvpx", "avi": "mpeg4"}[form]
    with av.open(out, "w", format=form) as file:
        track: Any = file.add_stream(codec, rate=rate)
        track.width, track.height, track.pix_fmt = *size, "yuv420p"
        for place in range(frames):
            shapes: list[Shape] = [("circle", 40 + 4 * place, 60, 30)]
            shapes += [("square", 160, 170, 40)] if 2 * place >= frames else []
            file.mux(track.encode(av.VideoFrame.from_ndarray(np.asarray(scene(size, shapes)), format="rgb24")))
        file.mux(track.encode())
    return out.getvalue()
