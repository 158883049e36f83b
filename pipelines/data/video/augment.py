"""Random changes of a clip; each is a pure function of the clip and a `random.Random`."""

import math
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SCALE = (0.35, 1.0)  # of the area; see pipelines.data.image.augment.random_crop
TRIES = 10


def crop_flip(frames: "np.ndarray", rng: Random, mirror: bool = True) -> "np.ndarray":
    """A random part of uint8 [frames, height, width, 3]. The family of the network resizes it.

    It is mirrored in half of the cases. Part and mirror are the same for all frames, because a class may be a movement.
    With `mirror` off none is mirrored, for classes such as "to the left".
    """
    import numpy as np

    left, top, wide, high = _part(frames.shape[2], frames.shape[1], rng)
    flipped = rng.random() < 0.5 and mirror
    part = frames[:, top : top + high, left : left + wide]
    return np.ascontiguousarray(part[:, :, ::-1] if flipped else part)


def _part(width: int, height: int, rng: Random) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random part, with a ratio of sides between 3:4 and 4:3."""
    for _ in range(TRIES):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            break
    else:
        wide, high = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    return rng.randint(0, width - wide), rng.randint(0, height - high), wide, high
