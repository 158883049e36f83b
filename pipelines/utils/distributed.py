"""Several processes: how many there are, and operations on tensors that are sharded over them."""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# Time that processes wait while the first one downloads and encodes; the default is ten minutes.
PATIENCE = datetime.timedelta(hours=12)


@contextlib.contextmanager
def sharded_by(plugin: Any, model: Any, blocks: list[Any]) -> Iterator[None]:
    """Inside the block, FSDP shards a model by these blocks. `plugin` is Accelerate's; None changes nothing.

    Accelerate's own choice fails for models without text embeddings, such as ViT: it makes the input embeddings a unit
    of their own, but some models have none, and in others they are part of a unit.
    """
    if plugin is None:
        yield
        return
    kinds = {type(block) for block in blocks}
    plugin.transformer_cls_names_to_wrap = sorted(
        kind.__name__ for kind in kinds if not kind.__module__.startswith("torch.nn")
    )
    for parameter in model.parameters():  # FSDP does not accept channels-last memory
        parameter.data = parameter.data.contiguous()
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    yield
    del model.get_input_embeddings, model.get_output_embeddings


def processes() -> Any:
    """Accelerate's view of the processes of this run (PartialState).

    Without a GPU the use of the CPU must be explicit, or each process that torchrun started believes that it is the
    only one.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=PATIENCE)


def decided(decide: Callable[[], T]) -> T:
    """What the main process decides. The other processes receive its answer, or raise its error."""
    found = processes()
    if found.num_processes == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None, None]
    if found.is_main_process:
        try:
            answer[0] = decide()
        except Exception as error:
            answer[1] = error
    value, failure = broadcast_object_list(answer)
    if failure is not None:
        raise failure
    decision: T = value
    return decision


def on_main(items: "list[T]") -> "list[T]":
    """The items of all processes, in their order, on the main process; the others get none. All must call this."""
    from torch import distributed

    if not distributed.is_initialized():
        return items
    parts: list[Any] | None = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(items, parts)
    return [item for part in parts or [] for item in part]


def sharded_again(model: Any) -> None:
    """Shard the outermost module again.

    Under FSDP, a forward pass without backward leaves it unsharded with outdated weights.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def all_ended(mine: bool, device: Any) -> bool:
    """Whether all processes have ended.

    Under DDP and FSDP all take part in a forward pass, so they must stop together.
    """
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        return mine
    left = torch.tensor(float(not mine), device=device)
    distributed.all_reduce(left)
    return float(left) == 0


def whole(tensor: "Tensor") -> "Tensor":
    """The full value of a tensor, on the CPU. Under FSDP every process must call this."""
    import torch
    from torch.distributed.tensor import DTensor

    value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value


def load_into(target: "Tensor", value: "Tensor") -> None:
    """Copy a full value into a tensor that may be sharded."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)
