"""Whether every parameter that trains takes part in every loss.

DDP waits for the gradients of all parameters. If some are unused, it must search for them in every step
(`find_unused_parameters`), which takes time. DINOv2 has a parameter that classification does not use; most models have
none. So this is found once, before the training.
"""

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pipelines.data.batching import Examples, on_device
from pipelines.models.layers import train_mode
from pipelines.task import Task

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("graft")

# Keys of a configuration by which a model skips layers at random, or sends tokens to some of its experts only.
VARYING = (
    "layerdrop",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
)


def may_exist(
    task: Task, model: "nn.Module", examples: Examples, device: Any, autocast: "AbstractContextManager[Any]"
) -> bool:
    """Whether a step may leave a trainable parameter without gradient. `model` is not wrapped yet.

    It is found by the graph of one loss, computed in `autocast`, because frozen weights are stored in the precision of
    the training. It is True without a trial if the phases of a task take turns, or if the used parameters vary; and if
    the trial fails, because its batch may be too large: the steps have their own remedies and messages.
    Afterwards the model's buffers have their former values.
    """

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    config = getattr(base, "config", None)
    if len(task.phases) > 1 or any(getattr(config, key, None) for key in VARYING):
        return True
    model.to(device)
    train_mode(model)
    try:
        used = _used(task, model, examples, device, autocast)
    except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        log.debug("which parameters a step uses is not known, because the trial failed", exc_info=error)
        return True
    return any(parameter.requires_grad and id(parameter) not in used for parameter in model.parameters())


def _used(
    task: Task, model: "nn.Module", examples: Examples, device: Any, autocast: "AbstractContextManager[Any]"
) -> set[int]:
    """The ids of the parameters in the graph of the loss of two rows."""
    import torch

    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        batch = on_device(examples[[(0, i) for i in range(min(2, len(examples)))]].batch, device)
        with autocast:
            return _leaves(task.loss(model, batch, task.counts(batch), task.phases[0].name, 0))
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _leaves(loss: Any) -> set[int]:
    """The ids of the parameters in the graph of a loss."""
    found, seen, open_nodes = set(), set(), [loss.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        open_nodes += [following for following, _ in node.next_functions]
    return found
