"""THE loop. `fit` walks the steps and decides when to log, evaluate and save; `step` makes one.

Equal results for equal steps: the step's counts are summed over its micro-batches and processes before the first forward,
each micro-batch's loss is its share of the whole, and gradients are never rescaled after. So neither the micro-batch size
nor the number of processes changes what is learned.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.config.recipe import TrainSection
from pipelines.data.batching import Micro, Plan, loader, on_device
from pipelines.errors import RunError
from pipelines.models.layers import has_batch_norm, train_mode
from pipelines.training.checkpoint import State
from pipelines.training.optim import rate, set_rate
from pipelines.training.stage import PhaseTraining, Stage, check_finite, clip, enable, sum_counts
from pipelines.utils.hardware import out_of_memory
from pipelines.utils.seeding import seeded


def fit(
    stage: Stage,
    evaluate: Callable[[State], bool],
    save: Callable[[State], None],
    log: Callable[[dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> None:
    """Train until the plan ends. `evaluate` scores validation and tells whether it is the stage's best; `save` checkpoints;
    `stopping` is true once the user asked to stop (it is agreed on by all processes at the end of a step).

    Raises RunError for a loss that is not finite or memory that does not suffice; DataError for too many unreadable rows.
    """
    state, settings, total = stage.state, stage.settings, stage.plan.total_steps
    batches = _batches(stage)
    train_mode(stage.model)
    since = time.perf_counter()
    while state.stopped is None and (state.evaluation_due or state.step < total):
        do_save = state.evaluation_due
        if not state.evaluation_due:
            try:
                report = step(stage, batches, stopping())
            except RuntimeError as error:
                batches = _smaller(stage, error)
                continue
            state.step += 1
            state.seconds += time.perf_counter() - since
            stage.tick(report["loss"], report["examples_per_second"])
            state.stopped = "signal" if report.pop("stop") else None
            do_log, state.evaluation_due, do_save = due(state, settings, stage.plan)
            if do_log:
                log({**where(state, stage.plan), **report, "seconds": state.seconds})
            if state.evaluation_due and state.stopped is None and (do_save or state.best is None):
                save(state)  # whatever the evaluation may come to
        if state.evaluation_due and state.stopped is None:  # stop soon: the evaluation is made when the run goes on
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
    """How a line of the log begins: steps and epochs over all stages."""
    at = state.previous_steps + state.step
    return {"step": at, "epoch": at / plan.steps_per_epoch, "stage": state.stage}


def due(state: State, settings: TrainSection, plan: Plan) -> tuple[bool, bool, bool]:
    """Whether to log, evaluate and save after this step: the one place that decides. The last step does all three."""
    last = state.step == plan.total_steps
    epoch = state.step % plan.steps_per_epoch == 0

    def every(period: int | str) -> bool:
        return last or (epoch if period == "epoch" else state.step % int(period) == 0)

    return every(settings.log_every), every(settings.eval_every), every(settings.save_every)


def step(stage: Stage, batches: Iterator[Micro], stop: bool) -> dict[str, Any]:
    """One step: every phase that takes part in it goes over its micro-batches, and its optimiser takes a step.

    Returns what is logged: loss, learning rate, gradient norm; and `stop`, agreed on by all.
    """
    number, settings = stage.state.step, stage.settings
    began = time.perf_counter()
    micros = [next(batches) for _ in range(stage.plan.micro_batches(number))]
    counts = sum_counts(stage, micros)
    share = rate(number, stage.plan.total_steps, settings.schedule, settings.warmup)
    stopped = False
    for place, part in enumerate(stage.phases):
        if (
            not part.phase.takes_part(number) or part.phase.name in stage.done
        ):  # done: before memory ran out in a later phase
            continue
        enable(stage, part)
        highest = set_rate(part.optimizer, stage.learning_rate(part.phase), share)
        loss, stopped = _gradients(stage, part, place, micros, counts, stop)
        norm = clip(stage, part)
        check_finite(stage, part, loss, norm)
        _update(stage, part)
        stage.done[part.phase.name] = {"loss": loss, "learning_rate": highest, "grad_norm": norm}
    enable(stage, None)
    if stage.average is not None:
        stage.average.update(number)
    reports, stage.done = list(stage.done.items()), {}
    found = {"loss": sum(r["loss"] for _, r in reports)} | {
        k: max(r[k] for _, r in reports) for k in ("learning_rate", "grad_norm")
    }
    found |= (
        {f"{name}_{key}": value for name, r in reports for key, value in r.items()} if len(stage.phases) > 1 else {}
    )
    speed = len(stage.plan.rows(number)) / max(time.perf_counter() - began, 1e-9)
    return {**found, "examples_per_second": speed, "stop": stopped}


# ---- parts of a step ----


def _batches(stage: Stage) -> Iterator[Micro]:
    stage.plan.first_step = stage.state.step
    return iter(loader(stage.examples, stage.plan, stage.workers))


def _gradients(
    stage: Stage, part: PhaseTraining, place: int, micros: list[Micro], counts: dict[str, float], stop: bool
) -> tuple[float, bool]:
    """Forward and backward of one phase over all micro-batches. Returns its loss, and whether any process is to stop."""
    import torch

    accelerator, settings = stage.accelerator, stage.settings
    own = (part.phase.name,) if place else ()
    torch.manual_seed(seeded(settings.seed, stage.state.stage, stage.state.step, accelerator.process_index, *own))
    total = torch.zeros((), device=accelerator.device)
    for number, micro in enumerate(micros):
        batch = on_device(micro.batch, accelerator.device)
        stage.examples.feed(batch)
        final = number == len(micros) - 1
        accelerator.sync_gradients = final
        with (
            torch.autograd.set_grad_enabled(True),
            contextlib.nullcontext() if final else accelerator.no_sync(stage.model),
        ):
            loss = stage.task.loss(stage.model, batch, counts, part.phase.name, stage.number)
            if not micro.real:
                loss = loss * 0.0
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach().float()
    sums = accelerator.reduce(torch.stack([total, torch.tensor(float(stop), device=total.device)]), "sum").tolist()
    return sums[0], sums[1] > 0


def _update(stage: Stage, part: PhaseTraining) -> None:
    try:
        part.optimizer.step()
        for each in stage.phases:
            each.optimizer.zero_grad()
    except RuntimeError as error:  # half taken, so it cannot be taken again
        if out_of_memory(error):
            raise RunError(
                f"out of memory in the optimiser at step {stage.state.step + 1}: {_LESS}, and run again"
            ) from None
        raise


def _smaller(stage: Stage, error: RuntimeError) -> Iterator[Micro]:
    """Out of memory: halve the micro-batch and take the step again. Anything else goes on up."""
    from accelerate.utils.memory import clear_device_cache

    if not out_of_memory(error):
        raise error
    now = max(len(part) for part in stage.plan.step(stage.state.step)[0])
    alone = stage.accelerator.num_processes == 1
    stage.plan.micro_batch = max(1, now // 2) if alone else stage.plan.micro_batch
    if (
        max(len(part) for part in stage.plan.step(stage.state.step)[0]) == now
    ):  # several processes, one row, or two for BatchNorm
        advice = _LESS if alone or now == 1 else f"set train.micro_batch={now // 2}"
        raise RunError(
            f"out of memory at step {stage.state.step + 1} with {now} examples at a time: {advice}, and run again"
        ) from None
    for part in stage.phases:
        part.optimizer.optimizer.zero_grad()  # Accelerate's own does nothing between the micro-batches of a step
    clear_device_cache(garbage_collection=True)
    stage.state.micro_batch = stage.plan.micro_batch
    means = (
        "BatchNorm sees fewer, so the result changes a little"
        if has_batch_norm(stage.model)
        else "the result is the same"
    )
    stage.accelerator.print(f"out of memory with {now} examples at a time: going on with {now // 2} ({means})")
    return _batches(stage)


_LESS = "use a smaller model or image, model.freeze, an adapter or train.gradient_checkpointing=true"
