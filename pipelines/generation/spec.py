"""GenerationSpec: how a task that generates results (images, sound) describes its requests and its results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
    from torch import nn

    from pipelines.data.encoding import Encoded
    from pipelines.data.filtering import Skips
    from pipelines.data.schema import Splits
    from pipelines.utils.progress import Progress

Request = Mapping[str, Any]  # keyword arguments of the task's `infer`, including a `seed`


@dataclass(frozen=True)
class Setting:
    """A number that the user may set; an integer if `kind` is int."""

    kind: type[int] | type[float]
    least: float
    most: float


@dataclass(frozen=True)
class Samples:
    """The samples of a finished run, and what they may be compared with."""

    results: Sequence[Any]
    requests: Sequence[Request]
    splits: "Splits"
    encode: "Callable[[Dataset], Encoded]"
    judges: Any  # what the spec's `prepare` returned
    skips: "Skips"
    progress: "Progress"
    grids: Sequence[Path]  # grids of the evaluations, in order
    publishes_rows: bool  # whether images that may show training rows may be published


@dataclass(frozen=True)
class GenerationSpec:
    """How a task is asked for results, and how its results are written, drawn and measured."""

    generate: Callable[["nn.Module", Sequence[Request]], list[Any]]
    """One result for each request, whatever else is asked in the same batch."""
    requests: Callable[["Dataset", int], list[dict[str, Any]]]
    """What is asked of the model for so many samples of a split's rows, the same every time."""
    defaults: Callable[[int], dict[str, Any]]
    """What a request with this seed leaves to the task: steps, guidance, a class."""
    settings: Mapping[str, Setting]
    """What may be set in a request, beside its inputs and its seed."""
    write: Callable[[Any, Path | IO[bytes], dict[str, Any]], None]
    """Write one result into a file, with the settings that made it."""
    suffix: str
    """How the names of such files end."""
    one: str
    many: str
    """What results are called in messages."""
    grid: "Callable[[Sequence[Any]], Image]"
    """Some results as one picture: images side by side, sound as spectrograms."""
    prepare: Callable[[Any], Any]
    """Load what measures the samples, on a device.

    Called before training so that errors surface early. Raises GraftErrors.
    """
    measure: Callable[[Samples], dict[str, Any]]
    """Of the finished samples {metrics, ci95, tables, figures, samples}; `samples` are facts for results.json."""
    samples: int
    """How many are made after training."""
    shown: int
    """How many are made at the start and at every evaluation."""
    at_once: int
    """How many are made at a time, unless the recipe says (train.eval_batch_size)."""
