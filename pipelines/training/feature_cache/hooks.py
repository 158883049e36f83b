"""Hooks at the edge between the frozen part of a model and the part that trains: they record there and replay there.

While the trunk is frozen and nothing random comes before the edge, the trunk's outputs are the same in every epoch. Two
kinds of tensors can be recorded: the inputs of modules that train (or drop out), and the outputs of the outermost
frozen modules. The first kind is smaller (one pooled vector where a trunk outputs 197 tokens), so it is tried first.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.models.layers import frozen_modules

if TYPE_CHECKING:
    from torch import Tensor, nn

# (module name plus "<" for its input or ">" for its output, index of the call in this forward, index of the tensor)
Spot = tuple[str, int, int]


class Enough(Exception):
    """Ends a forward pass early, once all wanted tensors are recorded."""


class Edge:
    """The hooks on one model. `mode` is "off", "record" or "replay"; `tape` holds the tensors of one batch by spot.

    With `inner`, the hooks also look one level into the modules that train: a head that receives all tokens but uses
    only the first passes that token to its submodules. `beside` are frozen modules of the task that are not part of the
    model (a VAE, a text encoder). If they are given, only they are recorded, because the task may add noise to their
    outputs before the model.
    """

    def __init__(
        self, model: "nn.Module", inner: bool = False, beside: "Mapping[str, nn.Module] | None" = None
    ) -> None:
        self.mode = "off"
        self.tape: dict[Spot, Tensor] = {}
        self.wanted: set[Spot] | None = None  # spots to record; None: all
        # call of a frozen module -> structure of its output, without the batch size
        self.shapes: dict[tuple[str, int], Any] = {}
        # calls of frozen modules whose output carries gradient: they also run in replay
        self.live: set[tuple[str, int]] = set()
        self.calls: dict[str, int] = {}
        self.batch = 0
        self.longest = 0  # length of the longest example of this batch, which stands for every None in `shapes`
        self.beside = bool(beside)
        self.frozen: dict[str, nn.Module] = dict(beside or {})
        self.training: dict[str, nn.Module] = {}
        if beside is not None:
            return
        names = {id(m): n for n, m in model.named_modules()}
        self.frozen = {names[id(m)]: m for m in frozen_modules(model)}
        training = _training_modules(model)
        training += [part for module in training for part in module.children() if inner]
        self.training = {names[id(m)]: m for m in training}

    @contextlib.contextmanager
    def attached(self) -> Iterator["Edge"]:
        """The hooks are active inside the block."""
        undo = [(m, m.__dict__.get("forward")) for m in [*self.frozen.values(), *self.training.values()]]
        for name, module in self.frozen.items():
            module.forward = self._stub(name, module.forward)
        for name, module in self.training.items():
            module.forward = self._tap(name, module.forward)
        try:
            yield self
        finally:
            self.mode = "off"
            for module, own in undo:
                if own is None:
                    del module.forward
                else:
                    module.forward = own

    @contextlib.contextmanager
    def trial(self, model: "nn.Module") -> Iterator[None]:
        """For forward passes that are not training: afterwards the hooks are off and the buffers have their former
        values.

        A BatchNorm that trains updates its buffers in every forward pass. Without this, a run that computes its
        features would differ from a run that reads them from disk.
        """
        import torch

        before = [(buffer, buffer.clone()) for buffer in model.buffers()]
        try:
            yield
        finally:
            self.start("off", 0)
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)

    def start(self, mode: str, batch: int, tape: "dict[Spot, Tensor] | None" = None, longest: int = 0) -> None:
        """Begin one forward pass of `batch` rows.

        In "replay", `tape` has the tensors; all other spots are filled with NaN.

        `longest` is the length of the longest row, if rows have different lengths.
        """
        self.mode, self.batch, self.calls, self.longest = mode, batch, {}, longest
        if mode == "record":
            self.shapes = {}
        self.tape = {} if tape is None else tape

    def _count(self, name: str) -> int:
        self.calls[name] = self.calls.get(name, -1) + 1
        return self.calls[name]

    def _stub(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        from torch.utils import _pytree as tree

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.mode == "off":
                return forward(*args, **kwargs)
            call = self._count(name)
            if self.mode == "replay" and (name, call) not in self.live:
                leaves, spec = self.shapes[name, call]
                return tree.tree_unflatten(
                    [self._leaf((f"{name}>", call, i), leaf) for i, leaf in enumerate(leaves)], spec
                )
            output = forward(*args, **kwargs)
            if self.mode == "record":
                leaves, spec = tree.tree_flatten(output)
                if any(_is_tensor(leaf) and leaf.requires_grad for leaf in leaves):
                    self.live.add((name, call))
                self.shapes[name, call] = (
                    [self._record((f"{name}>", call, i), leaf) for i, leaf in enumerate(leaves)],
                    spec,
                )
                if self.beside and self.wanted is not None and self.wanted <= self.tape.keys():
                    raise Enough
            return output

        return run

    def _tap(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        from torch.utils import _pytree as tree

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.mode == "off":
                return forward(*args, **kwargs)
            call = self._count(name)
            leaves, spec = tree.tree_flatten((args, kwargs))
            for i, leaf in enumerate(leaves):
                spot = (f"{name}<", call, i)
                if self.mode == "record":
                    self._record(spot, leaf)
                elif spot in self.tape:
                    leaves[i] = self.tape[spot]
            args, kwargs = tree.tree_unflatten(leaves, spec)
            return forward(*args, **kwargs)

        return run

    def _record(self, spot: Spot, leaf: Any) -> Any:
        """Record a float tensor that has one row per example and no gradient. Returns the shape that replay needs."""
        if not _is_tensor(leaf):
            return leaf
        if not (leaf.is_floating_point() and leaf.ndim and leaf.shape[0] == self.batch):
            return leaf.detach()
        if not leaf.requires_grad and (self.wanted is None or spot in self.wanted):
            self.tape[spot] = leaf.detach().clone()  # later operations may work in place (MobileNet's dropout does)
        return (tuple(leaf.shape[1:]), leaf.dtype, leaf.device)

    def _leaf(self, spot: Spot, leaf: Any) -> Any:
        if spot in self.tape:
            return self.tape[spot]
        if not _is_shape(leaf):
            return leaf
        shape, dtype, device = leaf
        return unknown(self.batch, shape, dtype, device, self.longest)


def unknown(batch: int, shape: tuple[int | None, ...], dtype: Any, device: Any, longest: int = 0) -> "Tensor":
    """A tensor of NaN that takes the memory of one number.

    A NaN in the loss then shows that something reads the tensor.

    Types without NaN are filled with zero. None in `shape` stands for `longest`.
    """
    import torch

    nothing = torch.full((), float("nan") if dtype.is_floating_point else 0, dtype=dtype, device=device)
    return nothing.expand(batch, *[longest if size is None else size for size in shape])


def ragged_dims(one: Sequence[int], other: Sequence[int], longest: tuple[int, int]) -> list[int] | None:
    """The dimensions in which two shapes differ exactly as the longest examples do; None if they differ in any other
    way.
    """
    if len(one) != len(other):
        return None
    differ = [(place, pair) for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
    return [place for place, _ in differ] if all(pair == longest for _, pair in differ) else None


def merged(
    one: dict[tuple[str, int], Any], other: dict[tuple[str, int], Any], longest: tuple[int, int]
) -> dict[tuple[str, int], Any] | None:
    """Merge `Edge.shapes` of two batches. A dimension that follows the longest row is None in the result.

    Returns None if the two differ in any other way.
    """
    if set(one) != set(other):
        return None
    found = {}
    for call, (leaves, spec) in one.items():
        others, other_spec = other[call]
        pairs = [_merged(*pair, longest) for pair in zip(leaves, others, strict=False)]
        if spec != other_spec or not all(same for same, _ in pairs):
            return None
        found[call] = ([leaf for _, leaf in pairs], spec)
    return found


def _merged(one: Any, other: Any, longest: tuple[int, int]) -> tuple[bool, Any]:
    """Whether one leaf can describe both, and that leaf."""
    if _is_shape(one) and _is_shape(other):
        dims = ragged_dims(one[0], other[0], longest)
        if dims is None or one[1:] != other[1:]:
            return False, None
        return True, (tuple(None if place in dims else size for place, size in enumerate(one[0])), *one[1:])
    if _is_tensor(one) and _is_tensor(other):
        return one.shape == other.shape and bool((one == other).all()), one
    return not _is_shape(one) and not _is_shape(other) and type(one) is type(other), one


def _is_shape(leaf: Any) -> bool:
    """Whether `_record` left this in place of a tensor with one row per example: (shape of a row, dtype, device)."""
    return isinstance(leaf, tuple) and len(leaf) == 3 and isinstance(leaf[0], tuple)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _training_modules(model: "nn.Module") -> "list[nn.Module]":
    """The outermost modules of which all parameters train, and the dropouts outside frozen modules."""
    from torch import nn

    found: list[nn.Module] = []
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            continue
        if (parameters and all(p.requires_grad for p in parameters)) or isinstance(
            child, nn.modules.dropout._DropoutNd
        ):
            found.append(child)
        else:
            found += _training_modules(child)
    return found
