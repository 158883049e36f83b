"""Out of memory: what training does about it in the forward and backward pass, and in the optimiser."""

from pipelines.errors import RunError
from pipelines.models.layers import has_batch_norm
from pipelines.training.stage import PhaseTraining, Stage
from pipelines.utils.hardware import out_of_memory

ADVICE = "use a smaller model or image, model.freeze, an adapter or train.gradient_checkpointing=true"


def halve_micro_batch(stage: Stage, error: RuntimeError) -> None:
    """Halve the micro-batch after a forward or backward pass ran out of memory, so that the step can be repeated.

    Raises RunError if the micro-batch cannot be halved; raises `error` itself if it is not about memory.
    """
    from accelerate.utils.memory import clear_device_cache

    if not out_of_memory(error):
        raise error
    now = max(len(part) for part in stage.plan.step(stage.state.step)[0])
    alone = stage.accelerator.num_processes == 1
    stage.plan.micro_batch = max(1, now // 2) if alone else stage.plan.micro_batch
    # The size stays with several processes, with one row, and with the two rows that BatchNorm needs.
    if max(len(part) for part in stage.plan.step(stage.state.step)[0]) == now:
        advice = ADVICE if alone or now == 1 else f"set train.micro_batch={now // 2}"
        raise RunError(
            f"out of memory at step {stage.state.step + 1} with {now} examples at a time: {advice}, and run again"
        ) from None
    clear_gradients(stage)
    clear_device_cache(garbage_collection=True)
    stage.state.micro_batch = stage.plan.micro_batch
    means = (
        "BatchNorm sees fewer, so the result changes a little"
        if has_batch_norm(stage.model)
        else "the result is the same"
    )
    stage.accelerator.print(f"out of memory with {now} examples at a time: going on with {now // 2} ({means})")


def clear_gradients(stage: Stage) -> None:
    """Clear the gradients of all phases. In the middle of a step, Accelerate's own zero_grad does nothing."""
    for part in stage.phases:
        part.optimizer.optimizer.zero_grad()


def update(stage: Stage, part: PhaseTraining) -> None:
    """Take the step of the optimiser for one phase, and clear the gradients of all phases.

    Raises RunError if memory runs out: some parameters are updated by then, so the step cannot be repeated.
    """
    try:
        part.optimizer.step()
        for each in stage.phases:
            each.optimizer.zero_grad()
    except RuntimeError as error:
        if out_of_memory(error):
            raise RunError(
                f"out of memory in the optimiser at step {stage.state.step + 1}: {ADVICE}, and run again"
            ) from None
        raise
