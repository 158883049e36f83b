"""Task: the interface of one kind of fine-tuning.

Each file in `tasks/` has one subclass; all other code of Graft is the same for all tasks. A task has no code about
devices, processes, moving averages or checkpoints. It imports torch inside its methods.
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

from pipelines.errors import DataError

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
    from pipelines.reporting.mistakes import MistakeSpec

Example = dict[str, Any]
Batch = dict[str, Any]
Record = dict[str, Any]


class Metric(NamedTuple):
    name: str
    direction: str  # "max" or "min"

    def better(self, new: float, old: float | None) -> bool:
        if old is None or math.isnan(old):  # a score may be undefined on few rows, and any number is better than that
            return True
        return new > old if self.direction == "max" else new < old


@dataclass(frozen=True)
class HubSpec:
    """How the hub describes models of a task."""

    pipeline_tag: str
    library_name: str
    architectures: tuple[str, ...]
    """Suffixes of the names of its model classes. They identify a model that Graft did not train."""
    adapter_format: str = "peft"
    """Format of a separate adapter: a key of pipelines.models.adapters.FORMATS."""
    adapter_alone: bool = True
    """Whether an adapter may be published without its base model. Not if the model has more that it learned in files
    beside its weights, such as the voices of text to speech.
    """


@dataclass(frozen=True)
class Phase:
    """A part of a training step with its own optimiser.

    A GAN has a phase for its generator and one for its discriminator.
    """

    name: str = "main"
    """Passed to `loss`; also part of the name of the optimiser's file in a checkpoint."""
    parameters: tuple[str, ...] = ("",)
    """Prefixes of the parameters that it trains, such as ("generator.",). The default is every trainable parameter."""
    share: float = 1.0
    """Fraction of the steps in which it takes part: 0.2 is the first step and every fifth step after it."""
    learning_rate: float | None = None
    """Learning rate of the phase. None: that of the recipe."""
    betas: tuple[float, float] | None = None
    """Betas of AdamW. None: those of the recipe."""
    ema: float | None = None
    """Decay of the moving average of its parameters if the recipe has `train.ema: auto`."""
    new_head: bool = True
    """Whether the last of the task's `layers` starts from random weights. It then trains fully next to an adapter."""

    scored_from: float = 0.0
    """Share of the training that it only prepares, before it learns what the validation scores measure.

    Until then the latest checkpoint counts as the best, and no evaluation uses up `train.early_stopping`.
    """

    def scored(self, progress: float) -> bool:
        """Whether validation scores choose the best checkpoint at this point; `progress` rises from 0 to 1."""
        return not self.scored_from or progress > self.scored_from

    def takes_part(self, step: int) -> bool:
        share = Fraction(self.share).limit_denominator(1000)
        return step == 0 or floor(step * share) > floor((step - 1) * share)

    def trains(self, name: str) -> bool:
        """Whether it trains the parameter with this name, in a model with or without an adapter."""
        return name.removeprefix("base_model.model.").startswith(self.parameters)


@dataclass(frozen=True)
class Augmentation:
    """How a task changes its training examples under its options."""

    enabled: bool = False
    """Whether `augment` or `mix` changes anything. Features are cached only if it is False."""
    mix_partners: int = 0
    """Number of other examples that `mix` gets with each example."""
    switch: str = "options.augment=none"
    """The setting that switches augmentation off, for messages."""
    always: bool = False
    """Whether examples are changed while only a new head trains, too: unchanged ones would be too large or too unlike.

    Features are then never cached.
    """


class Task(ABC):
    """One kind of fine-tuning.

    `options` are those of the recipe. The task keeps what `build` or `load` reads (label names, processor).
    """

    name: ClassVar[str]  # the file name with dashes
    hub: ClassVar[HubSpec]
    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options: Any = options if options is not None else self.Options()
        # What the task learns that is not a weight: plain values, saved in every checkpoint. `augment` cannot read
        # them.
        self.state: dict[str, Any] = {}
        # Modules that never train (VAE, text encoder). They are moved to the device and stay in eval mode.
        self.frozen: dict[str, nn.Module] = {}

    @property
    @abstractmethod
    def data(self) -> "DataSpec":
        """The columns that it needs. They may depend on the options and, after `build` or `load`, on the model."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of a step, in order. At least one takes part in every step."""
        return (Phase(),)

    @property
    def generation(self) -> "GenerationSpec | None":
        """For a task that generates results: how they are requested, written, drawn and measured. Else None."""
        return None

    @property
    def mistakes(self) -> "MistakeSpec | None":
        """How the rows that the model has wrong are ranked and shown in the report. None: it shows none."""
        return None

    @property
    def augmentation(self) -> Augmentation:
        """Whether `augment` and `mix` change anything under these options."""
        return Augmentation()

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, str]:
        """The scores that `summarize` may give under these options, each with its direction: "max" or "min".

        The first one is the headline metric, unless the recipe chooses another (train.metric).
        """

    # ---- before training ----

    @abstractmethod
    def build(self, source: Any, splits: Any) -> "nn.Module":
        """Load processor and weights for `splits` (pipelines.data.schema.Splits), and return the module that trains.

        `source` (pipelines.models.source.Weights) is a local folder, or a configuration for random weights. Raises
        ModelError if weights of anything but the head are missing.
        """

    @abstractmethod
    def layers(self, model: "nn.Module") -> "list[nn.Module]":
        """The blocks of the model from input to output; the head is the last one."""

    @abstractmethod
    def encode(self, rows: "Dataset") -> "Encoded":
        """The examples of the rows, without randomness; lazily or at once. Each example has `id` and `row`.

        The result follows the protocol pipelines.data.encoding.Encoded.
        """

    def augment(self, example: Example, rng: "Random", progress: float) -> Example:
        """Change one training example at random. All randomness comes from `rng`.

        `progress` rises from 0 to 1 over the training.
        """
        return example

    def mix(self, examples: Sequence[Example], rng: "Random") -> Example:
        """Blend the first of these augmented examples with the others (mixup, cutmix, mosaic).

        There are `augmentation.mix_partners` others.
        """
        return examples[0]

    def random_inputs(self, rng: "Random") -> dict[str, Any]:
        """Random values of an example that are no part of its input (noise, time step).

        The batch holds plain values as lists, and tensors stacked. They change in every epoch, also with cached
        features. In scoring they are always the same. They are drawn where examples are loaded, in loader processes if
        there are any, so a GPU does not wait for them.
        """
        return {}

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Examples as a batch: tensors, and lists for plain values (`id`, `row`)."""

    # ---- one step ----

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """The numbers that the loss is divided by (rows, tokens). They are known before the forward pass."""

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch, counts: Mapping[str, float], phase: str, step: int) -> "Tensor":
        """The part of the step's loss that this batch gives in a phase: sums divided by the counts of the complete
        step.

        It calls `model(...)` once. `step` counts from 0 over the training, for work in every k-th step. In training,
        the batch also holds `progress`, which rises from 0 to 1 over the training, for schedules.
        """

    # ---- after training ----

    @abstractmethod
    def predict(self, model: "nn.Module", batch: Batch) -> list[Record]:
        """One small record per example: plain Python values, with the example's `id`."""

    def merge(self, records: Sequence[Record], rows: Any) -> list[Record]:
        """One record per row from the records of examples, for tasks that make several examples from a row.

        `rows` is indexed by number.
        """
        return list(records)

    @abstractmethod
    def statistics(self, records: Sequence[Record], rows: "Dataset | None") -> "Statistics":
        """Arrays with one entry per row that hold everything the scores need.

        The order of the records does not matter.
        """

    @abstractmethod
    def summarize(self, statistics: "Statistics", weights: "np.ndarray") -> dict[str, float]:
        """The metrics with one weight per row, including the headline metric.

        Uses NumPy only, without a loop over rows.

        Weights of 1 give the score; 2 counts a row twice, 0 leaves it out. Weights [draws, rows] give arrays [draws].
        """

    def tables(self, records: Sequence[Record], rows: "Dataset | None") -> dict[str, list[dict[str, Any]]]:
        """Tables for card and report that break the score down (per class, per group): title -> rows."""
        return {}

    def figures(self, records: Sequence[Record], rows: "Dataset | None") -> "dict[str, Figure]":
        """Figures of the predictions of one split: name -> figure."""
        return {}

    def calibrate(self, records: Sequence[Record], rows: "Dataset") -> dict[str, Any]:
        """Values that the validation split decides after training (a threshold).

        The task keeps them, and they are written into the model's configuration.
        """
        return {}

    # ---- the model folder ----

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write weights, configuration and processor in the format that `from_pretrained` reads."""
        model.save_pretrained(folder)  # type: ignore[operator]

    @abstractmethod
    def load(self, folder: Path) -> "nn.Module":
        """Load what `save` wrote, or any model folder of this task's kind. The model is in eval mode."""

    @abstractmethod
    def infer(self, model: "nn.Module", *inputs: Any, **settings: Any) -> Iterator[Any]:
        """Yield the answer for one input. Partial answers may come first; the last one is the answer."""

    # ---- many inputs: `graft predict` answers them in batches ----

    def prepare(self, asked: "Sequence[Mapping[str, Any]]") -> "list[Example | DataError]":
        """Read and encode several inputs, without the model. Each is given as the arguments of `infer`, by name.

        An input that cannot be read gives its error, so that it fails alone. An example may have a `length` (of its
        input with all parts, as in `encode`) or `bytes` (of the model's input, if `answer` reads it), which limit how
        many are answered together, and a value `like`: only examples with equal values are answered together.
        """
        return [dict(one) for one in asked]

    def answer(self, model: "nn.Module", examples: Sequence[Example]) -> list[Any]:
        """The answer to each example of `prepare`: what `infer` gives for it, whatever the other examples are.

        A task without a batch of its own asks `infer` one by one.
        """
        names = (*self.data.input_columns, *self.data.optional_inputs)
        answers = []
        for example in examples:
            settings = {key: value for key, value in example.items() if key not in names}
            *_, last = self.infer(model, *(example[name] for name in names if name in example), **settings)
            answers.append(last)
        return answers


def answer_one(task: Task, model: "nn.Module", **asked: Any) -> Any:
    """The answer to one input by `prepare` and `answer`. Raises DataError."""
    (example,) = task.prepare([asked])
    if isinstance(example, DataError):
        raise example
    return task.answer(model, [example])[0]


def headline(task: Task, chosen: str | None = None) -> Metric:
    """The metric that decides which checkpoint is the best: the `chosen` one (train.metric), else the task's first."""
    known = task.metrics
    name = chosen if chosen is not None and chosen in known else next(iter(known))
    return Metric(name, known[name])
