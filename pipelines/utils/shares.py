"""Weights of which every process holds only a share: what stands for them while a model is built.

A weight that is read from a file begins as a placeholder: a tensor of the right shape that takes no memory, whose
attribute `stored` says where its values are. `distributed.shard` then reads the rows of this process alone.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_asked = False


@contextlib.contextmanager
def placeholders(asked: bool = True) -> Iterator[None]:
    """Inside the block, models that are loaded get placeholders for the weights of their files, if `asked`."""
    global _asked
    before, _asked = _asked, asked
    if asked:  # transformers would leave the weights of all processes but the first one empty
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    try:
        yield
    finally:
        _asked = before


def asked() -> bool:
    return _asked


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file."""

    file: Path
    name: str
    shape: tuple[int, ...]

    def rows(self, start: int = 0, end: int | None = None) -> "Tensor":
        """The rows from `start` to `end`, in their own memory. The file is not mapped: mapped pages would count."""
        import torch
        from safetensors import safe_open

        end = self.shape[0] if self.shape and end is None else end
        with safe_open(self.file, "pt", backend="pread") as file:
            found = file.get_slice(self.name)
            if not self.shape:
                value: Tensor = file.get_tensor(self.name)
            elif end is not None and start < end:
                value = found[start:end]
            else:
                value = torch.zeros((0, *self.shape[1:]))
        return value.clone() if value._base is not None else value


def placeholder(shape: Sequence[int], dtype: "torch.dtype") -> "Tensor":
    """A tensor of zeros that takes no memory. It must not be written to."""
    import torch

    return torch.zeros((), dtype=dtype).expand(tuple(shape))


def stored(tensor: "Tensor") -> Stored | None:
    """Where the values of a placeholder are; None for a tensor that holds its values."""
    return getattr(tensor, "stored", None)


def put(parameter: Any, source: Stored) -> None:
    """Mark a parameter as a placeholder for the values in `source`."""
    parameter.stored = source


def values(tensor: "Tensor") -> "Tensor":
    """The values of a tensor, or those that a placeholder stands for."""
    source = stored(tensor)
    return tensor.detach() if source is None else source.rows().to(tensor.dtype)


def any_in(module: "nn.Module") -> bool:
    """Whether a module has placeholders."""
    return any(stored(parameter) is not None for parameter in module.parameters())


def fill(module: "nn.Module") -> None:
    """Read the values of a module's placeholders, all of them: for a head, whose rows are chosen or drawn again."""
    parameter: Any
    for parameter in module.parameters():
        if (source := stored(parameter)) is not None:
            parameter.data = source.rows().to(parameter.dtype)
            del parameter.stored


def cast(parameter: "Tensor", dtype: "torch.dtype") -> None:
    """Change the dtype of a parameter. The values of a placeholder are converted when they are read."""
    if stored(parameter) is None:
        parameter.data = parameter.data.to(dtype)
    else:
        parameter.data = placeholder(parameter.shape, dtype)


@contextlib.contextmanager
def streamed(model: "nn.Module", blocks: "Sequence[nn.Module]") -> Iterator[None]:
    """Inside the block, a forward pass has the right weights: each of the `blocks`, and each module outside of them,
    reads its own before it runs and drops them afterwards."""
    inside = {id(module) for block in blocks for module in block.modules()}
    parts = [(block, True) for block in blocks] + [(m, False) for m in model.modules() if id(m) not in inside]
    hooks = []
    for module, deep in parts:
        held = [(p, source) for p in module.parameters(recurse=deep) if (source := stored(p)) is not None]
        if not held:
            continue

        def read(_: Any, __: Any, held: list[Any] = held) -> None:
            for parameter, source in held:
                parameter.data = source.rows().to(parameter.dtype)

        def drop(_: Any, __: Any, ___: Any, held: list[Any] = held) -> None:
            for parameter, source in held:
                parameter.data = placeholder(source.shape, parameter.dtype)

        hooks += [module.register_forward_pre_hook(read), module.register_forward_hook(drop)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
