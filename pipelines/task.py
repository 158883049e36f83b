"""Task: what one kind of fine-tuning is.

One subclass per file in `tasks/`; everything else in Graft is the same for all.

A task knows nothing of devices, processes, averages or checkpoints. It imports torch inside its methods.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    from datasets import Dataset
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from pipelines.data.encoding import Encoded
    from pipelines.data.schema import DataSpec
    from pipelines.generation.spec import GenerationSpec
    from pipelines.metrics.statistics import Statistics

Example = dict[str, Any]
Batch = dict[str, Any]
Record = dict[str, Any]


class Metric(NamedTuple):
    name: str
    direction: str  # "max" or "min"

    def better(self, new: float, old: float | None) -> bool:
        if old is None or math.isnan(old):  # a score may be undefined on few rows: any number is better
            return True
        return new > old if self.direction == "max" else new < old


@dataclass(frozen=True)
class HubSpec:
    """What the hub knows models of a task by."""

    pipeline_tag: str
    library_name: str
    architectures: tuple[str, ...]
    """How the names of its model classes end: by them a model is known that Graft did not train."""
    adapter_format: str = "peft"
    """How an adapter alone is written: a key of pipelines.models.adapters.FORMATS."""


@dataclass(frozen=True)
class Phase:
    """A part of every step that has an optimiser of its own: a GAN has one for its generator, and one for its
    discriminator.
    """

    name: str = "main"
    """Given to `loss`; the name of the optimiser's file in a checkpoint."""
    parameters: tuple[str, ...] = ("",)
    """How the names of the parameters begin that it trains, of those that train at all: all of them, or
    ("generator.",).
    """
    share: float = 1.0
    """In which share of the steps it takes part: 0.2 is the first step and every fifth after it."""
    learning_rate: float | None = None
    """Left out: the recipe's."""
    betas: tuple[float, float] | None = None
    """AdamW's; left out: the recipe's."""
    ema: float | None = None
    """Decay of the moving average of its parameters where the recipe leaves it to the task (`train.ema: auto`)."""
    new_head: bool = True
    """Whether the last of the task's `layers` begins new, and so trains whole with an adapter."""

    def takes_part(self, step: int) -> bool:
        share = Fraction(self.share).limit_denominator(1000)
        return step == 0 or floor(step * share) > floor((step - 1) * share)

    def trains(self, name: str) -> bool:
        """Whether it trains the parameter of this name, in a model that may have an adapter."""
        return name.removeprefix("base_model.model.").startswith(self.parameters)


@dataclass(frozen=True)
class Augmentation:
    """What a task does to its training examples under its options."""

    enabled: bool = False
    """Whether `augment` or `mix` changes anything: cached features need False."""
    mix_partners: int = 0
    """How many further examples `mix` gets with each."""
    switch: str = "options.augment=none"
    """Under which setting it does nothing, as it stands in a message."""


class Task(ABC):
    """One kind of fine-tuning.

    `options` are the recipe's. What `build` or `load` reads (label names, processor) stays in the task.
    """

    name: ClassVar[str]  # the file name with dashes
    hub: ClassVar[HubSpec]
    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options: Any = options if options is not None else self.Options()
        self.state: dict[
            str, Any
        ] = {}  # what it learns beside weights: plain values, in every checkpoint; `augment` does not see them
        self.frozen: dict[
            str, nn.Module
        ] = {}  # what only runs forward (VAE, text encoder): moved, kept in eval, never trained

    @property
    @abstractmethod
    def data(self) -> "DataSpec":
        """What it asks of its rows; may depend on the options, and on the model once it is built or loaded."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What a step is made of, in order. At least one takes part in every step."""
        return (Phase(),)

    @property
    def generation(self) -> "GenerationSpec | None":
        """For a task that makes something: how it is asked, how results are written, shown and measured."""
        return None

    @property
    def augmentation(self) -> Augmentation:
        """What `augment` and `mix` do under these options."""
        return Augmentation()

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """The headline metric, by which the best checkpoint is chosen."""

    # ---- before training ----

    @abstractmethod
    def build(self, source: Any, splits: Any) -> "nn.Module":
        """Load processor and weights for `splits` (see pipelines.data.schema.Splits) and return the one module that
        trains.

        `source` says from where (see pipelines.models.source.Weights): a local folder, or a configuration and random
        weights. Raises ModelError where anything but the head is missing.
        """

    @abstractmethod
    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks from input to output, the new head last."""

    @abstractmethod
    def encode(self, rows: "Dataset") -> "Encoded":
        """Rows -> examples, deterministic, lazily or not; each has `id` and `row`.

        See pipelines.data.encoding.Encoded.
        """

    def augment(self, example: Example, rng: "Random", progress: float) -> Example:
        """Everything random about one training example, from `rng` alone.

        `progress` goes from 0 to 1 over the training.
        """
        return example

    def mix(self, examples: Sequence[Example], rng: "Random") -> Example:
        """The first of these augmented examples, blended with the others (mixup, cutmix, mosaic):
        `augmentation.mix_partners` of them.
        """
        return examples[0]

    def random_inputs(self, rng: "Random") -> dict[str, Any]:
        """What is random about an example beside its input (noise seed, time step): plain values, which join its batch
        as lists.

        They are new in every epoch, cached features or not; for scoring always the same.
        """
        return {}

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Examples -> a batch: tensors, and under plain keys (`id`, `row`) lists."""

    # ---- one step ----

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """What the loss averages over, known before the forward."""

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """This batch's share of the step's loss in a phase: sums divided by the counts of the whole step.

        Through one `model(...)`.

        `step` counts from 0 over the training, for what is done on a schedule or every k-th time.
        """

    # ---- after training ----

    @abstractmethod
    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """One small record per example, plain Python values, with the example's `id`."""

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """Records of examples -> one per row, for tasks that make several examples of one.

        `rows` is indexed by number.
        """
        return list(records)

    @abstractmethod
    def statistics(self, records: Sequence[Record], rows: "Dataset | None") -> "Statistics":
        """Arrays with one entry per row, which hold all that the scores need; the order of the records does not matter."""

    @abstractmethod
    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        """The metrics under a weight per row, the headline metric among them; NumPy only, without a loop over rows.

        Weights of 1 give the score, 2 counts a row twice, 0 leaves it out. Weights [draws, rows] give arrays [draws].
        """

    def tables(self, records: Sequence[Record], rows: "Dataset | None") -> dict[str, list[dict[str, Any]]]:
        """Breakdowns of the score for card and report: title -> rows (per class, per group)."""
        return {}

    def figures(self, records: Sequence[Record], rows: "Dataset | None") -> "dict[str, Figure]":
        """Pictures of one split's predictions: name -> figure."""
        return {}

    def calibrate(self, records: Sequence[Record], rows: "Dataset") -> dict[str, Any]:
        """What is chosen by the validation split after training (a threshold): kept here, and written into the model's
        configuration.
        """
        return {}

    # ---- the model folder ----

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write weights, configuration and processor so that plain `from_pretrained` reads them."""
        model.save_pretrained(folder)  # type: ignore[operator]

    @abstractmethod
    def load(self, folder: Path) -> "nn.Module":
        """Read back what `save` wrote, or any model folder of this task's kind; in eval mode."""

    @abstractmethod
    def infer(self, model: "nn.Module", *inputs: Any, **settings: Any) -> Iterator[Any]:
        """Answer for one input; may yield partial answers, the last one is the answer."""
