"""THE loop. `fit` walks the steps and decides when to log, evaluate and save; `step` makes one.

Equal results for equal steps: the step's counts are summed over its micro-batches and processes before the first forward,
each micro-batch's loss is its share of the whole, and gradients are never rescaled after. So neither the micro-batch size
nor the number of processes changes what is learned.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.config.recipe import TrainSection
from pipelines.data.batching import Micro, Plan, loader, on_device
from pipelines.data.filtering import Skips
from pipelines.errors import RunError
from pipelines.models.layers import has_batch_norm, train_mode
from pipelines.task import Task
from pipelines.training.checkpoint import State
from pipelines.training.optim import Average, rate, set_rate
from pipelines.utils.hardware import out_of_memory
from pipelines.utils.seeding import seeded


@dataclass
class Fit:
    """One stage of training, ready to go: the model and optimiser are prepared, `state` is fresh or restored."""

    task: Task
    model: Any
    optimizer: Any
    examples: Any
    plan: Plan
    settings: TrainSection
    accelerator: Any
    state: State
    workers: int
    average: Average | None = None
    skips: Skips | None = None
    tick: Callable[[float, float], None] = lambda loss, rate: None


def fit(
    run: Fit, evaluate: Callable[[State], bool], save: Callable[[State], None], log: Callable[[dict], None], stopping: Callable[[], bool]
) -> None:  # fmt: skip
    """Train until the plan ends. `evaluate` scores validation and tells whether it is the stage's best; `save` checkpoints;
    `stopping` is true once the user asked to stop (it is agreed on by all processes at the end of a step).

    Raises RunError for a loss that is not finite or memory that does not suffice; DataError for too many unreadable rows.
    """
    state, settings, total = run.state, run.settings, run.plan.total_steps
    batches = _batches(run)
    train_mode(run.model)
    since = time.perf_counter()
    while state.stopped is None and (state.owed or state.step < total):
        do_save = state.owed
        if not state.owed:
            try:
                report = step(run, batches, stopping())
            except RuntimeError as error:
                batches = _smaller(run, error)
                continue
            state.step += 1
            state.seconds += time.perf_counter() - since
            run.tick(report["loss"], report["examples_per_second"])
            state.stopped = "signal" if report.pop("stop") else None
            do_log, state.owed, do_save = due(state, settings, run.plan)
            if do_log:
                log({**where(state, run.plan), **report, "seconds": state.seconds})
            if state.owed and state.stopped is None and (do_save or state.best is None):
                save(state)  # whatever the evaluation may come to
        if state.owed and state.stopped is None:  # stop soon: the evaluation is made when the run goes on
            better = evaluate(state)
            state.owed, state.waited = False, 0 if better else state.waited + 1
            if settings.early_stopping and state.waited >= settings.early_stopping:
                state.stopped = "early"
            do_save = do_save or state.best_step == state.before + state.step or state.stopped is not None
            train_mode(run.model)
        if do_save or state.stopped is not None:
            save(state)
        since = time.perf_counter()


def where(state: State, plan: Plan) -> dict[str, Any]:
    """How a line of the log begins: steps and epochs over all stages."""
    at = state.before + state.step
    return {"step": at, "epoch": at / plan.steps_per_epoch, "stage": state.stage}


def due(state: State, settings: TrainSection, plan: Plan) -> tuple[bool, bool, bool]:
    """Whether to log, evaluate and save after this step: the one place that decides. The last step does all three."""
    last = state.step == plan.total_steps
    epoch = state.step % plan.steps_per_epoch == 0

    def every(period: int | str) -> bool:
        return last or (epoch if period == "epoch" else state.step % int(period) == 0)

    return every(settings.log_every), every(settings.eval_every), every(settings.save_every)


def step(run: Fit, batches: Iterator[Micro], stop: bool) -> dict[str, Any]:
    """One optimiser step. Returns what is logged: loss, learning rate, gradient norm; and `stop`, agreed on by all."""
    import torch

    accelerator, number, settings = run.accelerator, run.state.step, run.settings
    began = time.perf_counter()
    micros = [next(batches) for _ in range(run.plan.micro_batches(number))]
    counts = _sum_counts(run, micros)
    share = rate(number, run.plan.total_steps, settings.schedule, settings.warmup)
    highest = set_rate(run.optimizer, settings.learning_rate, share)
    torch.manual_seed(seeded(settings.seed, run.state.stage, number, accelerator.process_index))
    total = torch.zeros((), device=accelerator.device)
    for place, micro in enumerate(micros):
        batch = on_device(micro.batch, accelerator.device)
        run.examples.feed(batch)
        final = place == len(micros) - 1
        accelerator.sync_gradients = final
        with torch.autograd.set_grad_enabled(True), contextlib.nullcontext() if final else accelerator.no_sync(run.model):
            loss = run.task.loss(run.model, batch, counts)
            if not micro.real:
                loss = loss * 0.0
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach().float()
    sums = accelerator.reduce(torch.stack([total, torch.tensor(float(stop), device=total.device)]), "sum").tolist()
    norm = _clip(accelerator, run.model, settings.clip_norm)
    for what, value in (("loss", sums[0]), ("norm of the gradient", norm)):
        if not math.isfinite(value):
            rows = run.plan.rows(number)
            raise RunError(
                f"step {run.state.before + number + 1}: the {what} is {value}; rows: {', '.join(map(run.examples.name, rows[:8]))}"
                + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
                + ". Nothing saved is lost: lower train.learning_rate (a run of its own: --run), or look at these rows"
            )
    try:
        run.optimizer.step()
        run.optimizer.zero_grad()
        if run.average is not None:
            run.average.update(number)
    except RuntimeError as error:  # half taken, so it cannot be taken again
        if out_of_memory(error):
            raise RunError(f"out of memory in the optimiser at step {number + 1}: {_LESS}, and run again") from None
        raise
    speed = len(run.plan.rows(number)) / max(time.perf_counter() - began, 1e-9)
    return {"loss": sums[0], "learning_rate": highest, "grad_norm": norm, "examples_per_second": speed, "stop": sums[1] > 0}


# ---- parts of a step ----


def _batches(run: Fit) -> Iterator[Micro]:
    run.plan.first_step = run.state.step
    return iter(loader(run.examples, run.plan, run.workers))


def _sum_counts(run: Fit, micros: list[Micro]) -> dict[str, float]:
    """What the whole step's loss averages over. Rows that could not be read are told to all processes on the way."""
    import torch
    from accelerate.utils import gather_object

    each = [run.task.counts(m.batch) for m in micros]
    names = sorted(each[0])
    skipped = [(str(index), why) for m in micros for index, why in m.skipped]
    mine = [sum(c[name] for c, m in zip(each, micros, strict=True) if m.real) for name in names] + [float(len(skipped))]
    *summed, bad = run.accelerator.reduce(torch.tensor(mine, dtype=torch.float32, device=run.accelerator.device), "sum").tolist()
    if bad and run.skips is not None:
        run.skips.add("train", gather_object(skipped))
    # all rows of a step may be unreadable: the sums are zero then, and so must be the loss
    return {name: value or 1.0 for name, value in zip(names, summed, strict=True)}


def _clip(accelerator: Any, model: Any, limit: float | None) -> float:
    norm = accelerator.clip_grad_norm_(model.parameters(), limit if limit is not None else math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _smaller(run: Fit, error: RuntimeError) -> Iterator[Micro]:
    """Out of memory: halve the micro-batch and take the step again. Anything else goes on up."""
    from accelerate.utils.memory import clear_device_cache

    if not out_of_memory(error):
        raise error
    now = max(len(part) for part in run.plan.step(run.state.step)[0])
    alone = run.accelerator.num_processes == 1
    run.plan.micro_batch = max(1, now // 2) if alone else run.plan.micro_batch
    if max(len(part) for part in run.plan.step(run.state.step)[0]) == now:  # several processes, one row, or two for BatchNorm
        advice = _LESS if alone or now == 1 else f"set train.micro_batch={now // 2}"
        raise RunError(f"out of memory at step {run.state.step + 1} with {now} examples at a time: {advice}, and run again") from None
    run.optimizer.optimizer.zero_grad()  # Accelerate's own does nothing between the micro-batches of a step
    clear_device_cache(garbage_collection=True)
    run.state.micro_batch = run.plan.micro_batch
    means = "BatchNorm sees fewer, so the result changes a little" if has_batch_norm(run.model) else "the result is the same"
    run.accelerator.print(f"out of memory with {now} examples at a time: going on with {now // 2} ({means})")
    return _batches(run)


_LESS = "use a smaller model or image, model.freeze, an adapter or train.gradient_checkpointing=true"
