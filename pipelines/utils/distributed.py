"""Several processes: how many there are, and operations on tensors that are sharded over them."""

import datetime
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import ModelError
from pipelines.utils import shares

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

LARGE = 2**16  # numbers of an embedding that is gathered alone, and not with the rest of the model

# Time that processes wait while the first one downloads and encodes; the default is ten minutes.
PATIENCE = datetime.timedelta(hours=12)


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


def leave() -> None:
    """Leave the group of processes after a command that went well.

    Its threads would otherwise run on while Python takes the process apart, which aborts the process now and then
    ("terminate called without an active exception"). After an error, other processes may still wait in the group, so
    nothing is done then.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def sharding() -> bool:
    """Whether the processes of this run share one model (FSDP). Accelerate decides alike; on a CPU it never does."""
    from accelerate.utils import DistributedType, parse_flag_from_env

    found = processes()
    if found.num_processes == 1 or found.distributed_type == DistributedType.MULTI_CPU:
        return False
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def shard(model: "nn.Module", blocks: "Sequence[nn.Module]", accelerator: Any) -> None:
    """Give every process its share of a model's weights: FSDP2, in place. A forward pass gathers one block at a time.

    Placeholders are filled, and each process reads its own rows only.

    Accelerate could shard a model only together with its optimisers, so never before the first step. Its choice of
    units also fails for models without text embeddings, such as ViT. Raises ModelError for a weight that is a single
    number (SpeechT5's scale of positions), which FSDP2 does not take.
    """
    import torch
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    if single := [name for name, parameter in model.named_parameters() if not parameter.ndim]:
        raise ModelError(
            f"FSDP2 cannot part {single[0]}, which is a single number: train this model without sharding, with "
            "`accelerate launch --multi_gpu`"
        )
    plugin = accelerator.state.fsdp_plugin
    mesh = accelerator.torch_device_mesh
    options = {
        "offload_policy": plugin.cpu_offload,
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        "mesh": mesh[tuple(accelerator.parallelism_config.fsdp_dim_names)] if mesh is not None else None,
    }
    sources = {name: shares.stored(p) for name, p in model.named_parameters(remove_duplicate=False)}
    _on_meta(model)
    for parameter in model.parameters():  # FSDP does not accept channels-last memory
        parameter.data = parameter.data.contiguous()
    # A container has no forward pass of its own, and single layers of torch are too small to be gathered alone.
    own = [block for block in blocks if not type(block).__module__.startswith("torch.nn")]
    for unit in [*own, *_large_ends(model, own)]:
        fully_shard(unit, reshard_after_forward=plugin.reshard_after_forward, **options)
    fully_shard(model, **options)
    if hasattr(model, "speak"):  # a model of text to speech runs outside of `forward` too
        register_fsdp_forward_method(model, "speak")
    device = torch.device("cpu") if isinstance(plugin.cpu_offload, CPUOffloadPolicy) else accelerator.device
    read: dict[int, Any] = {}
    values = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (source := sources[name]) is not None:
            if id(parameter) not in read:
                read[id(parameter)] = _own_rows(parameter, source, device)
            values[name] = read[id(parameter)]
    if values:
        model.load_state_dict(values, strict=False, assign=True)


def _on_meta(model: "nn.Module") -> None:
    """Replace the placeholders by parameters on the meta device, which FSDP can shard. Shared weights stay shared."""
    import torch

    replaced: dict[int, Any] = {}
    kept = []  # so that no id is used twice
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and shares.stored(parameter) is not None:
                kept.append(parameter)
                if id(parameter) not in replaced:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                    replaced[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = replaced[id(parameter)]


def _large_ends(model: Any, blocks: "Sequence[nn.Module]") -> "list[nn.Module]":
    """The input and the output embedding of a text model, if they are large and share no weight."""
    from torch import nn

    inside = {id(module) for block in blocks for module in block.modules()}
    found: list[nn.Module] = []
    end: Any
    for get in ("get_input_embeddings", "get_output_embeddings"):
        try:
            end = getattr(model, get, lambda: None)()
        except (AttributeError, RuntimeError):  # how models without text refuse
            continue
        if type(end) in (nn.Embedding, nn.Linear) and id(end) not in inside and end.weight.numel() >= LARGE:
            owners = [m for m in model.modules() if any(p is end.weight for p in m.parameters(recurse=False))]
            if len(owners) == 1 and end not in found:
                found.append(end)
    return found


def _own_rows(parameter: Any, source: "shares.Stored", device: Any) -> "nn.Parameter":
    """This process's share of a parameter, read from its file."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    start, count = own_rows(parameter)
    rows = source.rows(start, start + count).to(device, parameter.dtype)
    own = DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return nn.Parameter(own, requires_grad=parameter.requires_grad)


def own_rows(tensor: Any) -> tuple[int, int]:
    """The first row of this process's share of a sharded tensor, and the number of rows."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return int(offset[0]), int(shape[0])


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

    if isinstance(tensor, DTensor):  # the full tensor is a new one
        full: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
        return full.cpu().contiguous()
    return tensor.detach().to("cpu", copy=True).contiguous() if isinstance(tensor, torch.Tensor) else tensor
