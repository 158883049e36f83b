"""What the loop needs of one stage of training and of its phases, and the small parts of a step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import TrainSection
from pipelines.data.batching import Micro, Plan
from pipelines.data.filtering import Skips
from pipelines.errors import RunError
from pipelines.task import Phase, Task
from pipelines.training.checkpoint import State
from pipelines.training.optim import Average

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class PhaseTraining:
    """One phase of a stage, with its prepared optimiser."""

    phase: Phase
    optimizer: Any
    parameters: list[Any]  # the parameters that this phase trains


@dataclass
class Stage:
    """One stage of training, with prepared model and optimisers. `state` is new or restored from a checkpoint."""

    task: Task
    model: Any
    phases: list[PhaseTraining]
    examples: Any
    plan: Plan
    settings: TrainSection
    accelerator: Any
    state: State
    workers: int
    average: Average | None = None
    skips: Skips | None = None
    tick: Callable[[float, float], None] = lambda loss, rate: None
    # the next step's micro-batches and counts, if they were read and summed in the step before
    ahead: tuple[list[Micro], dict[str, float]] | None = None
    done: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # phases that finished in the current step -> what they report

    @property
    def sharded(self) -> bool:
        return str(self.accelerator.distributed_type).endswith("FSDP")

    @property
    def number(self) -> int:
        """Index of the current step, counted over all stages."""
        return self.state.previous_steps + self.state.step

    def learning_rate(self, phase: Phase) -> float:
        return self.settings.learning_rate if phase.learning_rate is None else phase.learning_rate


def enable(stage: Stage, part: PhaseTraining | None) -> None:
    """Let only the parameters of this phase receive gradients; None: those of all phases."""
    if len(stage.phases) > 1:
        own = {id(parameter) for each in stage.phases if part is each or part is None for parameter in each.parameters}
        for each in stage.phases:
            for parameter in each.parameters:
                parameter.requires_grad_(id(parameter) in own)


def ready(stage: Stage, batches: Iterator[Micro]) -> tuple[list[Micro], dict[str, float]]:
    """The micro-batches of the step, and the counts that divide its loss.

    One process knows the counts from its own batches. With several, they come with `agreed` of the step before.
    """
    import torch

    if stage.ahead is not None:
        found, stage.ahead = stage.ahead, None
        return found
    micros, names, mine, skipped = _read(stage, batches, stage.state.step)
    if stage.accelerator.num_processes > 1:
        values = torch.tensor(mine, dtype=_kind(stage), device=stage.accelerator.device)
        mine = stage.accelerator.reduce(values, "sum").tolist()
    return micros, _counts(stage, names, mine, skipped)


def agreed(
    stage: Stage, batches: Iterator[Micro], loss: "Tensor", norm: "Tensor", stop: bool
) -> tuple[float, float, bool]:
    """The loss summed over all processes, the norm of the gradient, and whether any process must stop.

    Here the CPU waits for the GPU: once in a step (of one phase). With several processes, the counts of the next step
    are summed in the same message, so its batches are read now, while the GPU computes.
    """
    import torch

    if stage.accelerator.num_processes == 1:
        total, size = torch.stack([loss, norm.to(loss)]).tolist()
        return total, size, stop
    upcoming = stage.state.step + 1
    following = None  # of several phases, the first one reads
    if stage.ahead is None and upcoming < stage.plan.total_steps:
        following = _read(stage, batches, upcoming)
    mine = following[2] if following else []
    values = torch.tensor([float(stop), *mine], dtype=_kind(stage), device=loss.device)
    summed = stage.accelerator.reduce(torch.cat([loss.to(values)[None], values]), "sum")
    size, total, stops, *counted = torch.cat([norm.to(values)[None], summed]).tolist()
    if following:
        micros, names, _, skipped = following
        stage.ahead = micros, _counts(stage, names, counted, skipped)
    return total, size, stops > 0


def _read(
    stage: Stage, batches: Iterator[Micro], number: int
) -> tuple[list[Micro], list[str], list[float], list[tuple[str, str]]]:
    """This process's micro-batches of one step, the names and values of their counts, and the unreadable rows.

    The last value is the number of these rows.
    """
    micros = [next(batches) for _ in range(stage.plan.micro_batches(number))]
    each = [stage.task.counts(m.batch) for m in micros]
    names = sorted(each[0])
    skipped = [(str(index), why) for m in micros for index, why in m.skipped]
    mine = [sum(c[name] for c, m in zip(each, micros, strict=True) if m.real) for name in names]
    return micros, names, [*mine, float(len(skipped))], skipped


def _counts(stage: Stage, names: list[str], values: list[float], skipped: list[tuple[str, str]]) -> dict[str, float]:
    """The summed counts by name. Also shares the rows that could not be read with all processes."""
    from accelerate.utils import gather_object

    *summed, bad = values
    if bad and stage.skips is not None:
        stage.skips.add("train", gather_object(skipped))
    # All rows of a step may be unreadable. Then the sums are 0, and dividing by 1 gives a loss of 0.
    return {name: value or 1.0 for name, value in zip(names, summed, strict=True)}


def _kind(stage: Stage) -> Any:
    """The type of sums: float32 would round counts of pixels above 2**24, but Apple's GPUs have no float64."""
    import torch

    return torch.float32 if stage.accelerator.device.type == "mps" else torch.float64


def clip(stage: Stage, part: PhaseTraining) -> "Tensor":
    """Undo the scale of fp16, and clip the phase's gradient if the recipe sets a limit.

    Returns the norm before clipping, which may still be computed on the GPU.
    """
    limit, whole = stage.settings.clip_norm, len(stage.phases) == 1
    if stage.state.loss_scale is not None:
        for parameter in part.parameters:
            if parameter.grad is not None:
                parameter.grad.div_(stage.state.loss_scale)
    norm = stage.accelerator.clip_grad_norm_(
        stage.model.parameters() if whole else part.parameters, math.inf if limit is None else limit
    )
    found: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return found


def check_finite(stage: Stage, part: PhaseTraining, loss: float, norm: float) -> None:
    """Raise RunError if loss or gradient norm is not finite. The message names the step and its rows."""
    for what, value in (("loss", loss), ("norm of the gradient", norm)):
        if not math.isfinite(value):
            rows = stage.plan.rows(stage.state.step)
            named = ", ".join(map(stage.examples.name, rows[:8])) + (
                f" and {len(rows) - 8} more" if len(rows) > 8 else ""
            )
            of = f" of the phase {part.phase.name}" if len(stage.phases) > 1 else ""
            raise RunError(
                f"step {stage.number + 1}: the {what}{of} is {value}; rows: {named}"
                ". Nothing saved is lost: lower train.learning_rate (a run of its own: --run), or look at these rows"
            )
