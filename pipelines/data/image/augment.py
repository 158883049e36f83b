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
