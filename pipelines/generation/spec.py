"""GenerationSpec: how a task that generates results (images, sound) describes its requests and its results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipelines.utils.settings import Setting

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
    publishes_rows: bool  # whether results that may show training rows may be published
    seconds: float = 0.0  # that one device took to make all results


@dataclass(frozen=True)
class GenerationSpec:
    """How a task is asked for results, and how its results are written, drawn and measured."""

    generate: Callable[["nn.Module", Sequence[Request]], list[Any]]
    """One result per request. A result does not depend on the other requests of its batch."""
    requests: Callable[["Dataset", int], list[dict[str, Any]]]
    """The requests for this number of samples from the rows of a split; equal at every call."""
    defaults: Callable[[int], dict[str, Any]]
    """The values that the task sets in a request with this seed if they are missing: steps, guidance, a class."""
    settings: Mapping[str, Setting]
    """The settings that a request may contain in addition to its inputs and its seed."""
    write: Callable[[Any, Path | IO[bytes], dict[str, Any]], None]
    """Write one result and its settings into a file."""
    suffix: str
    """Suffix of the names of such files."""
    one: str
    many: str
    """Singular and plural of the results in messages."""
    grid: "Callable[[Sequence[Any]], Image]"
    """Draw some results as one picture: images side by side, sound as spectrograms."""
    prepare: Callable[[Any], Any]
    """Load what measures the samples, on a device.

    Called before training so that errors surface early. Raises GraftErrors.
    """
    measure: Callable[[Samples], dict[str, Any]]
    """Measure the finished samples: {metrics, ci95, tables, figures, samples}. `samples` are facts for results.json."""
    samples: int
    """Number of results to generate after training."""
    shown: int
    """Number of results to generate before training and at every evaluation."""
    at_once: int
    """Number of results to generate at a time, unless the recipe sets train.eval_batch_size."""
    text: str = "prompt"
    """What a request's `text` is called in the settings of a file."""
    displayed: Callable[[Any], tuple[Any, dict[str, Any]]] = lambda result: (result, {})
    """A result as `graft predict` writes it, and what to say of it: a tiny image is enlarged."""
    kept: bool = False
    """Whether the results of every evaluation are kept as files, because their grid does not show all of them."""
