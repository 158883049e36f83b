"""The training loop of all tasks. `fit` repeats steps and decides when to log, evaluate and save; `step` is one step.

The counts of a step are summed over its micro-batches and processes before the first forward pass. The loss of each
micro-batch is its part of the step's loss, and gradients are never rescaled afterwards. So neither the micro-batch size
nor the number of processes changes what the model learns.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.config.recipe import TrainSection
from pipelines.data.batching import Micro, Plan, loader, on_device
from pipelines.models.layers import train_mode
from pipelines.training import loss_scale, memory
from pipelines.training.checkpoint import State
from pipelines.training.optim import rate, set_rate
from pipelines.training.stage import PhaseTraining, Stage, agreed, check_finite, clip, enable, ready
from pipelines.utils.hardware import trim_memory
from pipelines.utils.seeding import seeded

if TYPE_CHECKING:
    from torch import Tensor


def fit(
    stage: Stage,
    evaluate: Callable[[State], bool],
    save: Callable[[State], None],
    log: Callable[[dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> None:
    """Train until the plan ends, the recipe's patience ends, or a signal stops the run.

    `evaluate` scores the validation split and returns whether the score is the best of this stage. `save` writes a
    checkpoint, `log` writes one entry. `stopping` returns True after a signal; all processes agree on it in each step.

    Raises RunError if the loss or the gradient is not finite, or if memory runs out. Raises DataError if too many rows
    cannot be read.
    """
    state, settings, total = stage.state, stage.settings, stage.plan.total_steps
    loss_scale.begin(state, settings.precision)
    batches = _batches(stage)
    train_mode(stage.model)
    ragged = stage.plan.lengths is not None and stage.accelerator.device.type == "cpu"
    since = time.perf_counter()
    while state.stopped is None and (state.evaluation_due or state.step < total):
        do_save = state.evaluation_due
        if not state.evaluation_due:
            if ragged and state.step % 8 == 0:
                trim_memory()
            try:
                report = step(stage, batches, stopping())
            except RuntimeError as error:
                memory.halve_micro_batch(stage, error)
                batches = _batches(stage)
                continue
            state.step += 1
            state.seconds += time.perf_counter() - since
            stage.tick(report["loss"], report["examples_per_second"])
            state.stopped = "signal" if report.pop("stop") else None
            do_log, state.evaluation_due, do_save = due(state, settings, stage.plan)
            if do_log:
                log({**where(state, stage.plan), **report, "seconds": state.seconds})
            if state.evaluation_due and state.stopped is None and (do_save or state.best is None):
                save(state)  # an error in the evaluation must not lose the step
        # After a signal the run stops soon: a resumed run makes the evaluation.
        if state.evaluation_due and state.stopped is None:
            better = evaluate(state)
            state.evaluation_due, state.evals_since_best = False, 0 if better else state.evals_since_best + 1
            if settings.early_stopping and state.evals_since_best >= settings.early_stopping:
                state.stopped = "early"
            do_save = do_save or state.best_step == state.previous_steps + state.step or state.stopped is not None
            train_mode(stage.model)
        if do_save or state.stopped is not None:
            save(state)
        since = time.perf_counter()


def where(state: State, plan: Plan) -> dict[str, Any]:
    """The first keys of a log entry. Steps and epochs count over all stages."""
    at = state.previous_steps + state.step
    return {"step": at, "epoch": at / plan.steps_per_epoch, "stage": state.stage}


def due(state: State, settings: TrainSection, plan: Plan) -> tuple[bool, bool, bool]:
    """Whether to log, to evaluate and to save after this step. After the last step all three are due."""
    last = state.step == plan.total_steps
    epoch = state.step % plan.steps_per_epoch == 0

    def every(period: int | str) -> bool:
        return last or (epoch if period == "epoch" else state.step % int(period) == 0)

    return every(settings.log_every), every(settings.eval_every), every(settings.save_every)


def step(stage: Stage, batches: Iterator[Micro], stop: bool) -> dict[str, Any]:
    """Take one step: each phase that takes part runs over all micro-batches, and then its optimiser takes its step.

    Returns the entry to log (loss, highest learning rate, gradient norm, examples per second) and `stop`: whether any
    process was asked to stop. In fp16 a step whose gradients overflow changes no weight, and the entry also has the
    loss scale and the number of steps that were skipped so far.
    """
    number, settings = stage.state.step, stage.settings
    began = time.perf_counter()
    micros, counts = ready(stage, batches)
    share = rate(number, stage.plan.total_steps, settings.schedule, settings.warmup)
    stopped, trained = False, False
    for place, part in enumerate(stage.phases):
        # A phase is done already if memory ran out in a later phase and the step is repeated.
        if not part.phase.takes_part(number) or part.phase.name in stage.done:
            continue
        enable(stage, part)
        highest = set_rate(part.optimizer, stage.learning_rate(part.phase), share)
        total = _gradients(stage, part, place, micros, counts)
        loss, norm, stopped = agreed(stage, batches, total, clip(stage, part), stop)
        if loss_scale.fits(stage.state, loss, norm):
            check_finite(stage, part, loss, norm)
            memory.update(stage, part)
            trained = True
        else:
            memory.clear_gradients(stage)
        stage.done[part.phase.name] = {"loss": loss, "learning_rate": highest, "grad_norm": norm}
    enable(stage, None)
    if stage.average is not None and trained:
        stage.average.update(number)
    reports, stage.done = list(stage.done.items()), {}
    found = {"loss": sum(r["loss"] for _, r in reports)}
    found |= {key: max(r[key] for _, r in reports) for key in ("learning_rate", "grad_norm")}
    if len(stage.phases) > 1:
        found |= {f"{name}_{key}": value for name, r in reports for key, value in r.items()}
    if stage.state.loss_scale is not None:
        found |= {"loss_scale": stage.state.loss_scale, "skipped_steps": stage.state.skipped_steps}
    speed = len(stage.plan.rows(number)) / max(time.perf_counter() - began, 1e-9)
    return {**found, "examples_per_second": speed, "stop": stopped}


# ---- parts of a step ----


def _batches(stage: Stage) -> Iterator[Micro]:
    stage.plan.first_step, stage.ahead = stage.state.step, None
    return loader(stage.examples, stage.plan, stage.workers)


def _gradients(
    stage: Stage, part: PhaseTraining, place: int, micros: list[Micro], counts: dict[str, float]
) -> "Tensor":
    """Forward and backward pass of one phase over all micro-batches. Returns this process's part of the loss."""
    import torch

    accelerator, settings = stage.accelerator, stage.settings
    own = (part.phase.name,) if place else ()
    torch.manual_seed(seeded(settings.seed, stage.state.stage, stage.state.step, accelerator.process_index, *own))
    total = torch.zeros((), device=accelerator.device)
    done = 0.0 if stage.state.stage == "head" else stage.state.step / stage.plan.total_steps
    # DDP and FSDP divide gradients by the number of processes.
    factor = accelerator.num_processes * (stage.state.loss_scale or 1.0)
    for number, micro in enumerate(micros):
        batch = on_device(micro.batch, accelerator.device) | {"progress": done}
        stage.examples.feed(batch)
        final = number == len(micros) - 1
        accelerator.sync_gradients = final
        with (
            torch.autograd.set_grad_enabled(True),
            # Under FSDP every micro-batch is synchronised: else each process would hold the complete gradient.
            contextlib.nullcontext() if final or stage.sharded else accelerator.no_sync(stage.model),
        ):
            loss = stage.task.loss(stage.model, batch, counts, part.phase.name, stage.number)
            if not micro.real:
                loss = loss * 0.0
            accelerator.backward(loss * factor)
        total += loss.detach().float()
    return total
