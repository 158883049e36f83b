"""What one stage of training is made of, what one of its phases is, and the small parts of a step."""

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
    """One phase, ready to go: its optimiser is prepared."""

    phase: Phase
    optimizer: Any
    parameters: list[Any]  # that it trains


@dataclass
class Stage:
    """One stage of training, ready to go: the model and optimisers are prepared, `state` is fresh or restored."""

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
    )  # phases of the step under way that took theirs -> what they report

    @property
    def number(self) -> int:
        """Of the step under way, over all stages."""
        return self.state.previous_steps + self.state.step

    def learning_rate(self, phase: Phase) -> float:
        return self.settings.learning_rate if phase.learning_rate is None else phase.learning_rate


def enable(stage: Stage, part: PhaseTraining | None) -> None:
    """Of several phases, let gradients go to the parameters of this one alone; None: to those of all."""
    if len(stage.phases) > 1:
        own = {id(parameter) for each in stage.phases if part is each or part is None for parameter in each.parameters}
        for each in stage.phases:
            for parameter in each.parameters:
                parameter.requires_grad_(id(parameter) in own)


def sum_counts(stage: Stage, micros: list[Micro]) -> dict[str, float]:
    """What the whole step's loss averages over. Rows that could not be read are told to all processes on the way."""
    import torch
    from accelerate.utils import gather_object

    each = [stage.task.counts(m.batch) for m in micros]
    names = sorted(each[0])
    skipped = [(str(index), why) for m in micros for index, why in m.skipped]
    mine = [sum(c[name] for c, m in zip(each, micros, strict=True) if m.real) for name in names] + [float(len(skipped))]
    device = (
        stage.accelerator.device
    )  # in float32 a sum of pixels would be rounded from 2^24 on; Apple's GPUs know no other
    kind = torch.float32 if device.type == "mps" else torch.float64
    *summed, bad = stage.accelerator.reduce(torch.tensor(mine, dtype=kind, device=device), "sum").tolist()
    if bad and stage.skips is not None:
        stage.skips.add("train", gather_object(skipped))
    # all rows of a step may be unreadable: the sums are zero then, and so must be the loss
    return {name: value or 1.0 for name, value in zip(names, summed, strict=True)}


def clip(stage: Stage, part: PhaseTraining) -> float:
    """The norm of the phase's gradient, clipped if the recipe says so."""
    limit, whole = stage.settings.clip_norm, len(stage.phases) == 1
    norm = stage.accelerator.clip_grad_norm_(
        stage.model.parameters() if whole else part.parameters, math.inf if limit is None else limit
    )
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def check_finite(stage: Stage, part: PhaseTraining, loss: float, norm: float) -> None:
    """Raises RunError for what is not finite, naming step and rows."""
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
