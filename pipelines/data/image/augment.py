"""Random changes of an image; each is a pure function of the image and a `random.Random`."""

import math
from random import Random
from typing import Any


def random_crop(image: Any, size: tuple[int, int], rng: Random, scale: tuple[float, float] = (0.35, 1.0)) -> Any:
    """A random part of a PIL image, resized to `size` (height, width) and flipped in half of the cases.

    It covers `scale` of the area with a ratio of sides between 3:4 and 4:3. The scale starts above the 0.08 that is
    usual for ImageNet, because fine-tuning uses few images, and a twelfth of an image often lacks the object.
    """
    from PIL import Image

    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    box = (left, top, left + w, top + h)
    out = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else out


def distort(image: Any, size: tuple[int, int], rng: Random) -> Any:
    """A PIL image, resized to `size` (height, width), with a small random affine change and not mirrored.

    It is turned by up to 12 degrees, moved by up to a twelfth of its sides, and made up to 15 % larger, smaller or
    slanted, as LeCun et al. 1998 (section III.A) distorted digits. What comes into view has the median colour of the
    image's border.
    """
    import numpy as np
    from PIL import Image

    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).reshape(2 * (height + width), -1)
    colour = tuple(round(value) for value in np.median(border, axis=0).tolist())
    angle, slant = math.radians(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    larger, wider = (math.exp(rng.uniform(-0.15, 0.15)) for _ in range(2))
    x, y = (0.5 + rng.uniform(-1 / 12, 1 / 12) for _ in range(2))
    # the matrix from a place of the result to a place of the image, about the centre
    a, b = math.cos(angle) / (larger * wider), (math.sin(angle) + slant) / larger
    c, d = -math.sin(angle) / larger, math.cos(angle) * wider / larger
    move = (width * 0.5 - a * width * x - b * height * y, height * 0.5 - c * width * x - d * height * y)
    matrix = (a, b, move[0], c, d, move[1])
    fill = colour if len(colour) > 1 else colour[0]
    return image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


def rand_augment(image: Any, rng: Random) -> Any:
    """RandAugment (Cubuk et al. 2020) of a PIL image: torchvision's, with 2 operations of magnitude 9."""
    import torch
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.getrandbits(63))
        return v2.RandAugment(num_ops=2, magnitude=9)(image)


def mixup(first: Any, second: Any, alpha: float, rng: Random) -> tuple[Any, float]:
    """Mixup (Zhang et al. 2018): a weighted mean of two [C, H, W] tensors, and the weight of the first."""
    weight = rng.betavariate(alpha, alpha)
    return first * weight + second * (1 - weight), weight


def cutmix(first: Any, second: Any, alpha: float, rng: Random) -> tuple[Any, float]:
    """CutMix (Yun et al. 2019): the first [C, H, W] tensor with a box of the second, and the share of the first."""
    height, width = first.shape[-2:]
    side = math.sqrt(1 - rng.betavariate(alpha, alpha))
    h, w = round(height * side), round(width * side)
    y, x = rng.randint(0, height - h), rng.randint(0, width - w)
    out = first.clone()
    out[:, y : y + h, x : x + w] = second[:, y : y + h, x : x + w]
    return out, 1 - h * w / (height * width)
