"""THE loop. `fit` walks the steps and decides when to log, evaluate and save; `step` makes one.

Equal results for equal steps: the step's counts are summed over its micro-batches and processes before the first forward,
each micro-batch's loss is its share of the whole, and gradients are never rescaled after. So neither the micro-batch size
nor the number of processes changes what is learned.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.batching import Micro, Plan, Skips, loader, seeded
from pipelines.errors import RunError
from pipelines.layers import train_mode
from pipelines.optim import Average, rate, set_rate
from pipelines.recipe import TrainSection
from pipelines.task import Task


@dataclass
class State:
    """What a checkpoint must hold beside tensors; plain values."""

    stage: str = "train"
    step: int = 0  # of this stage
    before: int = 0  # steps of earlier stages
    seconds: float = 0.0  # in steps and features; evaluation and saving not counted
    best: float | None = None
    best_step: int = 0
    waited: int = 0  # evaluations since the best
    stopped: str | None = None
    first: dict[str, Any] | None = None  # test scores before the first step


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


def fit(
    run: Fit, evaluate: Callable[[State], bool], save: Callable[[State], None], log: Callable[[dict], None], stopping: Callable[[], bool]
) -> None:  # fmt: skip
    """Train until the plan ends. `evaluate` scores validation and tells whether it is the best yet; `save` checkpoints;
    `stopping` is true once the user asked to stop (it is agreed on by all processes at the end of a step).

    Raises RunError for a loss that is not finite or memory that does not suffice; DataError for too many unreadable rows.
    """
    state, settings, total = run.state, run.settings, run.plan.total_steps
    batches = _batches(run)
    train_mode(run.model)
    since = time.perf_counter()
    while state.step < total and state.stopped is None:
        try:
            report = step(run, batches, stopping())
        except RuntimeError as error:
            batches = _smaller(run, error)
            continue
        state.step += 1
        state.seconds += time.perf_counter() - since
        if report.pop("stop"):
            state.stopped = "signal"
        do_log, do_evaluate, do_save = due(state, settings, run.plan)
        if do_log:
            log(
                {
                    "step": state.step,
                    "epoch": state.step / run.plan.steps_per_epoch,
                    "stage": state.stage,
                    **report,
                    "seconds": state.seconds,
                }
            )
        if do_evaluate:
            better = evaluate(state)
            state.waited = 0 if better else state.waited + 1
            if settings.early_stopping and state.waited >= settings.early_stopping:
                state.stopped = "early"
            do_save = do_save or better or state.stopped is not None
            train_mode(run.model)
        if do_save:
            save(state)
        since = time.perf_counter()


def due(state: State, settings: TrainSection, plan: Plan) -> tuple[bool, bool, bool]:
    """Whether to log, evaluate and save after this step: the one place that decides. The last step does all three."""
    last = state.step == plan.total_steps
    epoch = state.step % plan.steps_per_epoch == 0

    def every(period: int | str) -> bool:
        return last or (epoch if period == "epoch" else state.step % int(period) == 0)

    interrupted = state.stopped == "signal"  # stop soon: a checkpoint, no evaluation
    return every(settings.log_every), every(settings.eval_every) and not interrupted, every(settings.save_every) or interrupted


def step(run: Fit, batches: Iterator[Micro], stop: bool) -> dict[str, Any]:
    """One optimiser step. Returns what is logged: loss, learning rate, gradient norm; and `stop`, agreed on by all."""
    import torch
    from accelerate.utils import send_to_device

    accelerator, number, settings = run.accelerator, run.state.step, run.settings
    began = time.perf_counter()
    micros = [next(batches) for _ in range(run.plan.micro_batches(number))]
    _count_skips(run, micros)
    counts = _sum_counts(run, micros)
    share = rate(number, run.plan.total_steps, settings.schedule, settings.warmup)
    set_rate(run.optimizer, _base_rate(run), share)
    torch.manual_seed(seeded(settings.seed, run.state.stage, number, accelerator.process_index))
    total = torch.zeros((), device=accelerator.device)
    for place, micro in enumerate(micros):
        batch = send_to_device(micro.batch, accelerator.device)
        run.examples.feed(batch)
        final = place == len(micros) - 1
        accelerator.sync_gradients = final
        with torch.autograd.set_grad_enabled(True), _maybe_no_sync(accelerator, run.model, not final):
            loss = run.task.loss(run.model, batch, counts)
            if not micro.real:
                loss = loss * 0.0
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach().float()
    sums = accelerator.reduce(torch.stack([total, torch.tensor(float(stop), device=total.device)]), "sum").tolist()
    if not math.isfinite(sums[0]):
        run.optimizer.zero_grad()
        raise RunError(
            f"step {run.state.before + number + 1}: the loss is {sums[0]}; rows: {_ids(run, number)}. Nothing saved is lost: "
            "lower train.learning_rate, or look at these rows"
        )
    norm = _clip(accelerator, run.model, settings.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update(number)
    speed = len(run.plan.rows(number)) / max(time.perf_counter() - began, 1e-9)
    return {"loss": sums[0], "learning_rate": _base_rate(run) * share, "grad_norm": norm, "examples_per_second": speed, "stop": sums[1] > 0}


# ---- parts of a step ----


def _batches(run: Fit) -> Iterator[Micro]:
    run.plan.first_step = run.state.step
    return iter(loader(run.examples, run.plan, run.workers))


def _base_rate(run: Fit) -> float:
    head = run.settings.head_learning_rate
    return head if run.state.stage == "head" and head is not None else run.settings.learning_rate


def _sum_counts(run: Fit, micros: list[Micro]) -> dict[str, float]:
    import torch

    each = [run.task.counts(m.batch) for m in micros]
    names = sorted(each[0])
    mine = [sum(c[name] for c, m in zip(each, micros, strict=True) if m.real) for name in names]
    summed = run.accelerator.reduce(torch.tensor(mine, dtype=torch.float32, device=run.accelerator.device), "sum").tolist()
    # all rows of a step may be unreadable: the sums are zero then, and so must be the loss
    return {name: value or 1.0 for name, value in zip(names, summed, strict=True)}


def _count_skips(run: Fit, micros: list[Micro]) -> None:
    if run.skips is not None:
        run.skips.add("train", [(str(index), why) for m in micros for index, why in m.skipped])


def _maybe_no_sync(accelerator: Any, model: Any, wait: bool) -> Any:
    import contextlib

    return accelerator.no_sync(model) if wait else contextlib.nullcontext()


def _clip(accelerator: Any, model: Any, limit: float | None) -> float:
    norm = accelerator.clip_grad_norm_(model.parameters(), limit if limit is not None else math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _ids(run: Fit, number: int) -> str:
    encoded = getattr(run.examples, "encoded", None)
    rows = run.plan.rows(number)
    names = [encoded.rows["id"][i] if hasattr(encoded, "rows") else str(i) for i in rows[:8]]
    return ", ".join(names) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def _smaller(run: Fit, error: RuntimeError) -> Iterator[Micro]:
    """Out of memory: halve the micro-batch and take the step again. Anything else goes on up."""
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    if not should_reduce_batch_size(error):
        raise error
    run.optimizer.zero_grad()
    clear_device_cache(garbage_collection=True)
    now = max(len(part) for part in run.plan.step(run.state.step)[0])
    if run.accelerator.num_processes > 1 or now == 1:
        advice = (
            f"set train.micro_batch={max(1, now // 2)}"
            if now > 1
            else "use a smaller model or options.image_size, or train.gradient_checkpointing=true"
        )
        raise RunError(f"out of memory at step {run.state.step + 1} with {now} examples at a time: {advice}, and run again") from None
    run.plan.micro_batch = now // 2
    run.accelerator.print(f"out of memory with {now} examples at a time: going on with {now // 2} (the result is the same)")
    return _batches(run)
