"""Several processes: how many there are, and what is sharded over them."""

import contextlib
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# that processes wait for the first one to download and encode; by default they give up after ten minutes
PATIENCE = datetime.timedelta(hours=12)


@contextlib.contextmanager
def sharded_by(plugin: Any, model: Any, blocks: list[Any]) -> Iterator[None]:
    """While a model is prepared: FSDP shards by these blocks. `plugin` is Accelerate's; None changes nothing.

    Accelerate's own choice fails for models without text embeddings, ViT among them: it shards the input embeddings apart, which
    some models do not have, and others inside of a unit.
    """
    if plugin is None:
        yield
        return
    kinds = {type(block) for block in blocks}
    plugin.transformer_cls_names_to_wrap = sorted(
        kind.__name__ for kind in kinds if not kind.__module__.startswith("torch.nn")
    )
    for parameter in model.parameters():  # FSDP takes none in channels-last memory
        parameter.data = parameter.data.contiguous()
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    yield
    del model.get_input_embeddings, model.get_output_embeddings


def processes() -> Any:
    """Accelerate's view of the processes of this run (PartialState).

    Where there is no accelerator it has to be told to use the CPU, or each process that torchrun started thinks it is alone.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=PATIENCE)


def sharded_again(model: Any) -> None:
    """After forwards without a backward: under FSDP the outermost module stays whole, and would not see its weights change."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def all_ended(mine: bool, device: Any) -> bool:
    """Of all processes: under DDP and FSDP a forward is a matter of all of them, so they stop together."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        return mine
    left = torch.tensor(float(not mine), device=device)
    distributed.all_reduce(left)
    return float(left) == 0


def whole(tensor: "Tensor") -> "Tensor":
    """A tensor's full value on the CPU. Under FSDP every process must call."""
    import torch
    from torch.distributed.tensor import DTensor

    value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value


def load_into(target: "Tensor", value: "Tensor") -> None:
    """Copy a whole value into a tensor that may be sharded."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)
