"""What the families share whose models give a score for every pixel and class: their input, their loss, and how a model
for other classes keeps the rows that it knows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from pipelines.errors import ModelError
from pipelines.losses import segmentation as losses
from pipelines.models.pretrained import rows_of
from pipelines.models.segmentation import Batch
from pipelines.utils import shares
from pipelines.utils.formatting import short

AUXILIARY = 0.4  # the weight of an auxiliary head's loss, as of PSPNet, DeepLab and UperNet


class Dense(ABC):
    """The loss is that of pipelines.losses.segmentation, plus 0.4 times that of an auxiliary head, if there is one.

    The losses and gradients of micro-batches add up to those of the step if no BatchNorm is live. Dice and Lovasz are
    those of each image, averaged over images; with them, too, the sums are exact.
    """

    library = ""
    things: list[str] | None = None
    padded = False
    resize = "square"
    fixed = False
    stride = 1

    def __init__(self, labels: Sequence[str], loss: str, weights: Mapping[str, float] | None, side: int) -> None:
        self.labels, self.side = list(labels), side
        self.criterion = losses.Criterion(loss, self.labels, weights)
        self.scale = 1 / 255
        self.mean: Sequence[float] = (0.0, 0.0, 0.0)
        self.spread: Sequence[float] = (1.0, 1.0, 1.0)
        self.flipped = False  # whether the channels are blue, green, red

    def pixels(self, image: Any) -> Tensor:
        pixels = np.asarray(image, np.float32)
        if self.flipped:
            pixels = pixels[:, :, ::-1]
        spread = np.asarray(self.spread, np.float32)
        # one multiplication and one sum: (pixels * scale - mean) / spread
        pixels = pixels * (np.float32(self.scale) / spread) - np.asarray(self.mean, np.float32) / spread
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def counts(self, batch: Batch) -> dict[str, float]:
        return self.criterion.counts(batch["map"])

    def loss(self, model: nn.Module, batch: Batch, counts: Mapping[str, float], step: int) -> Tensor:
        logits, more = self.outputs(model, batch["pixel_values"], True)
        total = self.criterion(logits, batch["map"], counts)
        for one in more:
            total = total + AUXILIARY * self.criterion(one, batch["map"], counts)
        return total

    def scores(self, model: nn.Module, pixels: Tensor) -> Tensor:
        return torch.stack(list(self.probabilities(model, pixels)))

    @torch.no_grad()
    def probabilities(self, model: nn.Module, pixels: Tensor) -> Iterator[Tensor]:
        logits, _ = self.outputs(model, pixels, False)
        for of_image in logits:
            with torch.autocast(logits.device.type, enabled=False):
                yield enlarged(of_image[None].float(), pixels.shape[-2:])[0].softmax(0)

    @abstractmethod
    def outputs(self, model: nn.Module, pixels: Tensor, auxiliary: bool) -> tuple[Tensor, list[Tensor]]:
        """The logits [n, classes, h, w] of a model, at any size, and those of its auxiliary heads."""


def enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits at the size of the image."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return f.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


# ---- classes ----


def of_classes(make: Callable[[int], nn.Module], count: int) -> set[str]:
    """The names of the parameters and buffers with a row for each class: their shape changes with the classes.

    `make(n)` gives the network for n classes.
    """
    with torch.device("meta"):
        one, other = (make(n).state_dict() for n in (count, count + 1))
    return {name for name, tensor in one.items() if tensor.shape != other[name].shape}


def rows(known: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """(row in a model with the classes `known`, row for `labels`) of the classes that both have by name."""
    if all_of := rows_of(list(known), list(labels)):
        return list(zip(all_of, range(len(labels)), strict=True))
    found = [(rows_of(list(known), [label]), place) for place, label in enumerate(labels)]
    return [(row[0], place) for row, place in found if row]


def about(known: Sequence[str], labels: Sequence[str], pairs: Sequence[tuple[int, int]]) -> str:
    """What happens to the head of a model with the classes `known`."""
    if len(pairs) == len(labels):
        return f"kept, the model knows the {len(labels)} classes of the data"
    missing = [label for place, label in enumerate(labels) if place not in {place for _, place in pairs}]
    named = short(missing[0], 40)
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    if not pairs:
        knows = f"; it knows {short(', '.join(known[:5]), 100)}" if known else ""
        return f"new, because the model does not know the class {named!r}{more}{knows}"
    return f"kept for {len(pairs)} classes that the model knows by name, new for {named!r}{more}"


def choose(model: nn.Module, names: set[str], known: int, count: int, pairs: Sequence[tuple[int, int]]) -> None:
    """Change a model from `known` to `count` classes. Rows without a pair are drawn as a new layer's."""
    for name in sorted(names):
        owner, _, own = name.rpartition(".")
        layer: Any = model.get_submodule(owner)
        shares.fill(layer)
        old: Tensor = getattr(layer, own)
        new = old.new_zeros(count, *old.shape[1:])
        if new.dim() > 1:
            nn.init.kaiming_normal_(new, nonlinearity="linear")
        with torch.no_grad():
            for before, after in pairs:
                new[after] = old[before]
        setattr(layer, own, nn.Parameter(new, requires_grad=old.requires_grad))
        for size in ("out_channels", "out_features"):
            if getattr(layer, size, None) == known:
                setattr(layer, size, count)


def take(model: Any, make: Callable[[int], nn.Module], known: Sequence[str], labels: Sequence[str]) -> None:
    """Give a model with the classes `known` the classes `labels`; `make(n)` gives the network for n classes."""
    pairs = rows(known, labels)
    if list(known) != list(labels):
        choose(model, of_classes(make, len(known)), len(known), len(labels), pairs)
    model.about_head = about(known, labels, pairs)


# ---- networks that are not of transformers ----


def laid_out(model: Any) -> Any:
    """In channels-last memory, where convolutions are faster; FSDP does not accept it."""
    return model if shares.asked() else model.to(memory_format=torch.channels_last)


def check_side(side: Any) -> None:
    """Raise ModelError if the image_size of a configuration is no size."""
    if type(side) is not int or not 32 <= side <= 4096:
        raise ModelError(f"image_size: got {short(repr(side))}, must be a number without decimals from 32 to 4096")


def save(model: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """Write config.json and model.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: Any) -> None:
    """Load the weights of a folder into a network of the same shape. Raises ModelError if they are of another."""
    own = model.state_dict()
    wrong = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    wrong += [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise ModelError(
            f"{where}: its weights are not those of its config.json: {short(wrong[0], 80)} and {len(wrong) - 1} more"
        )
    model.load_state_dict(dict(tensors), strict=False)
