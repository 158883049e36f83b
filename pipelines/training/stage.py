"""What the loop needs of one stage of training and of its phases, and the small parts of a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.recipe import TrainSection
from pipelines.data.batching import Micro, Plan
from pipelines.data.filtering import Skips
from pipelines.errors import RunError
from pipelines.task import Phase, Task
from pipelines.training.checkpoint import State
from pipelines.training.optim import Average


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


def sum_counts(stage: Stage, micros: list[Micro]) -> dict[str, float]:
    """The counts that divide the loss of the step. Also shares the rows that could not be read with all processes."""
    import torch
    from accelerate.utils import gather_object

    each = [stage.task.counts(m.batch) for m in micros]
    names = sorted(each[0])
    skipped = [(str(index), why) for m in micros for index, why in m.skipped]
    mine = [sum(c[name] for c, m in zip(each, micros, strict=True) if m.real) for name in names] + [float(len(skipped))]
    device = stage.accelerator.device  # float32 would round sums of pixels above 2**24; Apple's GPUs have no float64
    kind = torch.float32 if device.type == "mps" else torch.float64
    *summed, bad = stage.accelerator.reduce(torch.tensor(mine, dtype=kind, device=device), "sum").tolist()
    if bad and stage.skips is not None:
        stage.skips.add("train", gather_object(skipped))
    # All rows of a step may be unreadable. Then the sums are 0, and dividing by 1 gives a loss of 0.
    return {name: value or 1.0 for name, value in zip(names, summed, strict=True)}


def clip(stage: Stage, part: PhaseTraining) -> float:
    """Clip the phase's gradient if the recipe sets a limit. Returns the norm before clipping."""
    limit, whole = stage.settings.clip_norm, len(stage.phases) == 1
    norm = stage.accelerator.clip_grad_norm_(
        stage.model.parameters() if whole else part.parameters, math.inf if limit is None else limit
    )
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


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
