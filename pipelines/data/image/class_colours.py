"""Colours of classes in label maps: the same class number has the same colour in pictures, apps and PNG files.

The first 16 differ for people with every kind of colour blindness as far as so many colours can; eight of them are
those of Okabe and Ito. None of them is grey: that is the colour of ignored pixels.
"""

import colorsys
from functools import cache

import numpy as np

from pipelines.data.image.label_maps import IGNORE

Colour = tuple[int, int, int]

FIRST = (
    "0072b2",
    "e69f00",
    "009e73",
    "d55e00",
    "56b4e9",
    "cc79a7",
    "f0e442",
    "882255",
    "14239b",
    "e61450",
    "6e3214",
    "c5b0ff",
    "5fe6b9",
    "f5a97f",
    "236e41",
    "8a63e8",
)
IGNORED = (150, 150, 150)


@cache
def colour(number: int) -> Colour:
    """Red, green and blue (0 to 255) of a class; of IGNORE grey."""
    if number == IGNORE:
        return IGNORED
    if number < len(FIRST):
        red, green, blue = bytes.fromhex(FIRST[number])
        return red, green, blue
    # hues by the golden ratio are far apart; three saturations and three brightnesses take turns
    hue, saturation, value = number * 0.618034 % 1, (0.85, 0.5, 0.7)[number % 3], (0.9, 0.6, 0.75)[number // 3 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def hexadecimal(number: int) -> str:
    """The colour of a class as "#0072b2"."""
    return "#{:02x}{:02x}{:02x}".format(*colour(number))


def palette() -> list[int]:
    """The palette of a PNG file of class numbers: red, green and blue of 0 to 255, where 255 is for ignored pixels."""
    return [part for number in [*range(255), IGNORE] for part in colour(number)]


def coloured(label_map: np.ndarray) -> np.ndarray:
    """A label map [height, width] as colours [height, width, 3] of uint8."""
    most = int(label_map.max(initial=0))
    table = np.array([colour(number) for number in [*range(most + 1), IGNORE]], dtype=np.uint8)
    return np.asarray(table[label_map])  # IGNORE is -1, and so the last one
