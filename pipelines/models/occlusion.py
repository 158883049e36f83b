"""What decides an answer: how much its score falls when a part of the input is hidden (Zeiler and Fergus 2014,
arXiv:1311.2901).

The demos hide every part. `deciding_frames` hides one stretch of a video after the other. `deciding_words` hides a few
words of a text, those with the largest gradient times input (Shrikumar et al. 2017, arXiv:1704.02685), so its cost does
not grow with the length of the text.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Input = TypeVar("Input")
Part = TypeVar("Part")
Texts = tuple[str, ...]

REGIONS = 80  # largest number of regions, hidden one at a time; in a longer text neighbouring words form one region


class Region(NamedTuple):
    """Some words of one text: the number of the text, and the characters from `start` to `end`."""

    text: int
    start: int
    end: int


class Stretch(NamedTuple):
    """Neighbouring frames of a clip, from number `first` to the one before `last`."""

    first: int
    last: int


def occlusion(
    score: Callable[[Sequence[Input]], Sequence[float]],
    whole: Input,
    regions: Sequence[Part],
    hide: Callable[[Input, Part], Input],
    *,
    batch: int = 8,
    tick: Callable[[int, int], Any] | None = None,
) -> list[float]:
    """How much the score falls when each region is hidden; positive if the region supports the answer.

    `score` takes up to `batch` inputs at a time. `hide(whole, region)` returns the input without that region (a patch
    of an image, a word of a text). `tick(done, all)` reports progress. Takes len(regions) + 1 forward passes.
    """
    base = score([whole])[0]
    drops: list[float] = []
    for start in range(0, len(regions), batch):
        hidden = [hide(whole, region) for region in regions[start : start + batch]]
        drops += [base - value for value in score(hidden)]
        if tick:
            tick(len(drops), len(regions))
    return drops


# ---- videos ----


def deciding_frames(
    score: "Callable[[Sequence[np.ndarray]], Sequence[float]]",
    frames: "np.ndarray",
    parts: int = 8,
    *,
    batch: int = 4,
    tick: Callable[[int, int], Any] | None = None,
) -> list[tuple[Stretch, float]]:
    """Which frames decide: how much the score of a clip falls when one stretch of its time is hidden, in order of time.

    `frames` are uint8 [T, height, width, 3], of one clip or of several one after the other. `score` takes up to `batch`
    of them. A hidden stretch shows the mean of all frames: the place stays, and nothing moves. Black frames would be a
    cut of the film, to which a model may react.
    """
    count = max(1, min(parts, len(frames)))
    edges = [round(len(frames) * place / count) for place in range(count + 1)]
    stretches = [Stretch(first, last) for first, last in pairwise(edges)]
    still = frames.mean(0).round().astype(frames.dtype)

    def hide(whole: "np.ndarray", stretch: Stretch) -> "np.ndarray":
        hidden = whole.copy()
        hidden[stretch.first : stretch.last] = still
        return hidden

    drops = occlusion(score, frames, stretches, hide, batch=batch, tick=tick)
    return list(zip(stretches, drops, strict=True))


# ---- texts ----


def regions(texts: Sequence[str], read: Sequence[int], most: int = REGIONS) -> list[Region]:
    """The words that are read; neighbours are merged if there are more than `most`.

    A Han or kana character is a word.
    """
    # Neither script has spaces between words.
    words = [
        [
            match.span()
            for match in re.finditer(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+", text[:end])
        ]
        for text, end in zip(texts, read, strict=True)
    ]
    size = max(1, math.ceil(sum(map(len, words)) / most))
    return [
        Region(number, found[i][0], found[min(i + size, len(found)) - 1][1])
        for number, found in enumerate(words)
        for i in range(0, len(found), size)
    ]


def hide(texts: Texts, region: Region) -> Texts:
    """The texts without some words; a text never becomes empty."""
    text = texts[region.text]
    left = text[: region.start] + text[region.end :]
    return (*texts[: region.text], left if left.strip() else "…", *texts[region.text + 1 :])


def deciding_words(
    model: Any,
    encode: "Callable[[Sequence[Texts]], dict[str, Any]]",
    score: "Callable[[dict[str, Any]], Tensor]",
    texts: Texts,
    places: Sequence[tuple[int | None, int, int]],
    tokens: int,
) -> list[tuple[Region, float]]:
    """The words that decide a score, with how much it falls without each; the strongest first.

    `encode` turns texts into the model's input, `score` gives the score of each of them, [texts]. `places` has the
    number of the text (None: none of them) and the characters of every token. At most about `tokens` tokens are read
    to hide words, and at least four words are tried. A model without an embedding of tokens has no deciding words.
    """
    import torch

    read = [max((end for number, _, end in places if number == text), default=0) for text in range(len(texts))]
    words = regions(texts, read, most=max(1, sum(read)))
    strength = _strength(model, lambda: score(encode([texts])))
    if len(words) < 2 or len(strength) != len(places):
        return []
    share = dict.fromkeys(words, 0.0)
    for (number, start, end), value in zip(places, strength, strict=True):
        place = bisect_right(words, (number, end - 1, math.inf)) - 1 if number is not None and end > start else -1
        if place >= 0 and words[place].text == number:  # a token belongs to the word of its last character
            share[words[place]] += value
    count = min(len(words), max(4, min(16, tokens // len(places))))
    best = sorted(words, key=lambda word: -share[word])[:count]

    def scores(inputs: Sequence[Texts]) -> list[float]:
        with torch.no_grad():
            found: list[float] = score(encode(inputs)).float().cpu().tolist()
        return found

    drops = occlusion(scores, texts, best, hide)
    return sorted(zip(best, drops, strict=True), key=lambda pair: -abs(pair[1]))


def _strength(model: Any, score: "Callable[[], Tensor]") -> list[float]:
    """The size of gradient times input of every token of one text; empty without an embedding of tokens."""
    import torch
    from torch import nn

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if not tables:
        return []
    embedding = max(tables, key=lambda table: table.num_embeddings)  # the others are of positions and segments
    found: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: "Tensor") -> "Tensor":
        found.append(output.detach().requires_grad_())
        return found[-1]

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hook = embedding.register_forward_hook(keep)
    try:
        for parameter in trained:  # their gradients are not needed
            parameter.requires_grad_(False)
        with torch.enable_grad():
            score().sum().backward()
    finally:
        hook.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    if len(found) != 1 or found[0].grad is None:
        return []
    strength: list[float] = (found[0].grad * found[0]).detach().float()[0].norm(dim=-1).tolist()
    return strength
