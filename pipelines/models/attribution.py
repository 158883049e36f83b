"""The heat map of a network for one row: how much each part of it speaks for the answer, or against it.

    found = heat_map(task, model, {"image": "cat.jpg"}, "occlusion")     found.values [rows, columns]

There are two methods. `occlusion` hides one part after the other, and measures how much the score falls (Zeiler and
Fergus 2014, arXiv:1311.2901). `integrated gradients` adds up the gradients of the score along a straight path from an
empty input to the row (Sundararajan, Taly and Yan 2017, arXiv:1703.01365; captum computes them). It needs no
convolutions, so it fits every architecture, and its values add up to the difference of the two scores.

The score is the log-odds of a class, or the number of a regression. Nothing here is random, and the number of forward
passes has a limit that does not depend on the row: 50 for an image, 81 for a text, 33 for a recording, 9 for a video,
and STEPS forward and backward passes for the gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from pipelines.errors import ModelError
from pipelines.models.occlusion import Region, occlusion

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

METHODS = ("occlusion", "integrated gradients")
STEPS = 24  # of the path from the empty input to the row; Sundararajan et al. advise 20 to 300
CELLS = 8  # the map of an image has CELLS x CELLS cells; a window of 2 x 2 cells is hidden at a time
STRETCHES = 32  # of time in a recording
FILM = 8  # stretches of time in a video
AT_ONCE = 2**20  # numbers of the model's input in one forward pass

Logits = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Parts:
    """A row as a network reads it, and the parts of its map."""

    inputs: "Tensor"
    """float32 [1, ...]: pixels, samples, a spectrogram, or the embeddings of tokens."""
    empty: "Tensor"
    """An input of the same shape that says nothing: the path of integrated gradients begins there."""
    cells: "Tensor"
    """int64 [...]: the part to which each number of `inputs[0]` belongs, -1 for none; dimensions may be 1."""
    logits: Logits
    """Inputs [n, ...] -> logits [n, classes]."""
    shape: tuple[int, ...]
    """The shape of the map; its number of elements is that of the parts."""
    hidden: Sequence[Any]
    """What is hidden, one after the other: parts or groups of neighbouring parts."""
    without: Callable[[Sequence[Any]], "Tensor"]
    """Some of `hidden` -> the logits without each of them, [n, classes]."""
    spread: "Callable[[Sequence[float]], np.ndarray]"
    """How much the score falls without each of `hidden` -> the map."""
    places: tuple[Any, ...] = ()
    """Where the parts are: the Region of each word, or start and end of each stretch as fractions of the time read."""


class Map(NamedTuple):
    """A heat map."""

    method: str
    values: "np.ndarray"
    """float64, positive if the part supports the answer: [rows, columns] of an image, [words], or [stretches]."""
    places: tuple[Any, ...]
    """Those of `Parts`."""
    number: int
    """The class that is explained."""
    score: float
    """Its log-odds, or the number of a regression."""


@runtime_checkable
class Classifier(Protocol):
    """What a task must offer."""

    data: Any

    def parts(self, model: "nn.Module", row: Mapping[str, Any]) -> Parts:
        """The row (its input columns) as the model reads it."""


def heat_map(
    task: Classifier, model: "nn.Module", row: Mapping[str, Any], method: str, *, number: int | None = None
) -> Map:
    """The heat map of one row for one class: the class `number`, or the likeliest one.

    The model must be in eval mode; it is not changed. Raises DataError if the row cannot be read, ModelError if the
    method does not fit the model.
    """
    return map_of(task.parts(model, row), method, task.data.label_kind, number=number)


def map_of(
    parts: Parts,
    method: str,
    kind: str | None,
    *,
    number: int | None = None,
    tick: Callable[[int, int], Any] | None = None,
) -> Map:
    """The heat map of a row that is in parts. `kind` is that of the labels: class, classes or number."""
    import torch

    with torch.no_grad():
        base = parts.logits(parts.inputs)
        if number is None:
            number = 0 if kind == "number" else int(base[0].argmax())
        whole = float(log_odds(base, number, kind)[0])
    batch = max(1, min(64, AT_ONCE // max(1, parts.inputs.numel())))
    if method == "occlusion":
        values = _occluded(parts, whole, number, kind, batch, tick)
    else:
        values = _integrated(parts, number, kind, batch)
    return Map(method, values, parts.places, number, whole)


def log_odds(logits: "Tensor", number: int, kind: str | None) -> "Tensor":
    """[n, classes] -> [n]: the log-odds of a class against all others, or the number of a regression.

    A confident probability stays near 1 when a part is hidden, but its log-odds still change.
    """
    import torch

    chosen = logits[:, number].float()
    if kind != "class" or logits.shape[1] < 2:
        return chosen
    others = torch.arange(logits.shape[1], device=logits.device) != number
    return chosen - logits[:, others].float().logsumexp(-1)


def _occluded(
    parts: Parts, whole: float, number: int, kind: str | None, batch: int, tick: Callable[[int, int], Any] | None
) -> "np.ndarray":
    import torch

    def score(several: Sequence[Any]) -> list[float]:
        if several[0] is None:
            return [whole]
        with torch.no_grad():
            found: list[float] = log_odds(parts.without(several), number, kind).cpu().tolist()
        return found

    return parts.spread(occlusion(score, None, parts.hidden, lambda _, part: part, batch=batch, tick=tick))


def _integrated(parts: Parts, number: int, kind: str | None, batch: int) -> "np.ndarray":
    import numpy as np
    import torch
    from captum.attr import IntegratedGradients

    def score(inputs: "Tensor") -> "Tensor":
        return log_odds(parts.logits(inputs), number, kind)

    method = IntegratedGradients(score)
    with torch.enable_grad():
        found = method.attribute(parts.inputs, parts.empty, n_steps=STEPS, internal_batch_size=batch)
    cells = parts.cells.expand(parts.inputs.shape[1:]).reshape(-1).cpu()
    inside = cells >= 0
    total = np.bincount(
        cells[inside].numpy(),
        weights=found.detach().reshape(-1).double().cpu()[inside].numpy(),
        minlength=int(np.prod(parts.shape)),
    )
    values: np.ndarray = total.reshape(parts.shape)
    return values


# ---- parts of images ----


def of_image(pixels: "Tensor", logits: Logits) -> Parts:
    """Pixels float32 [3, height, width], normalised. A hidden window is blurred, with soft edges.

    The model would react to a patch with hard edges. The empty input is the mean colour of the model's normalisation.
    """
    import numpy as np
    import torch
    from torchvision.transforms.v2.functional import gaussian_blur

    height, width = pixels.shape[1:]
    rows, columns = min(CELLS, height), min(CELLS, width)
    ys, xs = (np.linspace(0, side, count + 1).round().astype(int) for side, count in ((height, rows), (width, columns)))
    y, x = (np.searchsorted(edges[1:], np.arange(edges[-1]), side="right") for edges in (ys, xs))
    cells = torch.from_numpy(y[:, None] * columns + x[None, :])[None]
    windows = [(row, column) for row in range(max(1, rows - 1)) for column in range(max(1, columns - 1))]
    blurred = _blur(gaussian_blur, pixels, max(height, width) / 8)
    soft = max(height, width) / CELLS / 6

    def without(several: Sequence[tuple[int, int]]) -> "Tensor":
        masks = torch.zeros(len(several), 1, height, width)
        for mask, (row, column) in zip(masks, several, strict=True):
            mask[:, ys[row] : ys[min(row + 2, rows)], xs[column] : xs[min(column + 2, columns)]] = 1
        masks = _blur(gaussian_blur, masks, soft).to(pixels.device)
        return logits(pixels + (blurred - pixels) * masks)

    def spread(drops: Sequence[float]) -> "np.ndarray":
        total, times = np.zeros((rows, columns)), np.zeros((rows, columns))
        for (row, column), drop in zip(windows, drops, strict=True):
            total[row : row + 2, column : column + 2] += drop
            times[row : row + 2, column : column + 2] += 1
        values: np.ndarray = total / times
        return values

    whole = pixels[None]
    return Parts(whole, torch.zeros_like(whole), cells, logits, (rows, columns), windows, without, spread)


def _blur(gaussian_blur: Any, images: "Tensor", sigma: float) -> "Tensor":
    """Gaussian blur; a border is reflected, so the kernel is at most as wide as the image."""
    widest = 2 * min(images.shape[-2:]) - 1
    size = min(2 * round(2 * sigma) + 1, widest)
    blurred: Tensor = gaussian_blur(images, [size, size], [sigma, sigma])
    return blurred


# ---- parts of time ----


def over_time(
    inputs: "Tensor",
    logits: Logits,
    axis: int,
    hidden: "Tensor",
    empty: "Tensor",
    stretches: int,
    share: float = 1.0,
) -> Parts:
    """An input [1, ...] that has time along `axis`. A hidden stretch of time shows `hidden` [1, ...].

    The row fills the first `share` of the time; padding follows.
    """
    import numpy as np
    import torch

    length = inputs.shape[axis]
    filled = max(1, min(length, round(length * share)))
    count = min(stretches, filled)
    edges = np.linspace(0, filled, count + 1).round().astype(int).tolist()
    cells = torch.full((length,), -1)
    for number, (start, end) in enumerate(pairwise(edges)):
        cells[start:end] = number
    cells = cells.reshape([length if place == axis else 1 for place in range(1, inputs.ndim)])

    def without(several: Sequence[int]) -> "Tensor":
        there = torch.stack([cells == number for number in several]).to(inputs.device)
        return logits(torch.where(there, hidden, inputs))

    places = tuple((start / filled, end / filled) for start, end in pairwise(edges))
    return Parts(inputs, empty, cells, logits, (count,), range(count), without, np.asarray, places)


# ---- parts of texts ----


def of_text(
    model: "nn.Module",
    encode: "Callable[[Sequence[tuple[str, ...]]], dict[str, Tensor]]",
    classify: "Callable[[dict[str, Tensor]], Tensor]",
    texts: tuple[str, ...],
    tokens: Sequence[tuple[int | None, int, int]],
    filler: int,
) -> Parts:
    """Words of one text or pair. A hidden word is taken out; gradients are taken of the embeddings of the tokens.

    `encode` turns texts into the model's input, `classify` gives its logits. `tokens` has the number of the text
    (None: none of them) and the characters of every token. `filler` is the token of padding: in the empty text it
    stands for every token of the texts. Raises ModelError if the model has no embedding of tokens.
    """
    import numpy as np
    import torch

    from pipelines.models.occlusion import hide, regions

    own = encode([texts])
    ids = own["input_ids"]
    table = _table_of(model, ids, lambda: classify(own))
    if table is None:
        raise ModelError("this model has no embedding of tokens, so its gradients cannot be given to words")
    read = [max((end for number, _, end in tokens if number == text), default=0) for text in range(len(texts))]
    words = regions(texts, read)
    cells = torch.tensor([_word(words, *token) for token in tokens])
    inside = (cells >= 0).to(ids.device)
    with torch.no_grad():
        inputs, empty = table(ids), table(torch.where(inside, filler, ids))

    def logits(embedded: "Tensor") -> "Tensor":
        calls: list[Any] = []

        def replaced(module: Any, given: Any, output: "Tensor") -> "Tensor":
            calls.append(None)
            if output.shape != embedded.shape:
                raise ModelError("this model does not read the embeddings of its tokens in one piece")
            return embedded

        hook = table.register_forward_hook(replaced)
        try:
            found = classify({key: value.expand(len(embedded), *value.shape[1:]) for key, value in own.items()})
        finally:
            hook.remove()
        if len(calls) != 1:
            raise ModelError("this model reads the embeddings of its tokens more than once")
        return found

    def without(several: Sequence[Region]) -> "Tensor":
        return classify(encode([hide(texts, word) for word in several]))

    shape = (len(words),)
    return Parts(inputs, empty, cells[:, None], logits, shape, words, without, np.asarray, tuple(words))


def _table_of(model: "nn.Module", ids: "Tensor", run: Callable[[], Any]) -> "nn.Module | None":
    """The embedding in which the model looks up the tokens; others hold positions and segments."""
    import torch
    from torch import nn

    found: list[nn.Module] = []

    def keep(module: Any, given: Any, output: Any) -> None:
        if given and given[0].shape == ids.shape and torch.equal(given[0], ids):
            found.append(module)

    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Embedding)]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _word(words: Sequence[Region], text: int | None, start: int, end: int) -> int:
    """The number of the word to which a token belongs: that of its last character; -1 if there is none."""
    from bisect import bisect_right
    from math import inf

    if text is None or end <= start:
        return -1
    place = bisect_right(words, (text, end - 1, inf)) - 1
    return place if place >= 0 and words[place].text == text else -1
