"""Find by trial which tensors at a model's Edge must be recorded so that the part behind it trains as the full model
would.

Two small batches are enough to see which tensors have different lengths. A set of tensors is right if it gives the same
loss as the full model, to the last bit.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.batching import Examples, on_device
from pipelines.task import Task
from pipelines.training.feature_cache.hooks import Edge, Spot, merged, ragged_dims, unknown
from pipelines.training.feature_cache.ragged import without_padding

if TYPE_CHECKING:
    from torch import Tensor

# an input with this many numbers per row, or a list with this many characters per row, may be dropped if unused
BIG = 1024

Shape = tuple[int | None, ...]  # shape of one example; None stands for its length


@dataclass
class RecordingPlan:
    """What to record of every example, and how a batch is put together from it."""

    spots: list[Spot]
    tape: "dict[Spot, Tensor]"  # tensors of the probe batch, with zeros in the padding
    batch: dict[str, Any]  # the probe batch
    read: list[int]  # the examples in the probe batch
    lengths: np.ndarray | None  # lengths of all examples; None if all tensors have equal lengths
    shapes: dict[tuple[str, int], Any]  # for Edge.shapes
    ragged: dict[Spot, int] = field(default_factory=dict)  # spot -> the dimension that follows the example's length
    absent: dict[str, tuple[Shape, Any]] = field(
        default_factory=dict
    )  # inputs that only frozen modules read: shape, dtype
    drawn: frozenset[str] = frozenset()  # random inputs, which are drawn again for each batch
    anew: list[str] = field(
        default_factory=list
    )  # what is fetched from the examples every time: ragged inputs, long lists
    unread: list[str] = field(default_factory=list)  # lists of arrays that the loss does not read

    @property
    def fields(self) -> "dict[str, Tensor]":
        """The inputs that are stored, one value per example."""
        import torch

        return {
            k: v
            for k, v in self.batch.items()
            if isinstance(v, torch.Tensor) and not (k in self.absent or k in self.anew or k in self.drawn)
        }

    def bytes(self, n: int) -> int:
        """Size on disk in bytes for `n` examples."""
        every = [v for s, v in self.tape.items() if s not in self.ragged] + list(self.fields.values())
        size = n * sum(v[0].numel() * v.element_size() for v in every)
        for spot, dim in self.ragged.items():
            value = self.tape[spot]
            size += int(self.lengths.sum()) * (value[0].numel() // value.shape[dim]) * value.element_size()  # type: ignore[union-attr]
        return size


def find(
    task: Task, model: Any, edge: Edge, examples: Examples, device: Any, scored: bool = True
) -> RecordingPlan | None:
    """The plan; None if the frozen part cannot be separated from what trains, or if something random comes first.

    `scored`: whether these examples are also predicted. Otherwise only what the loss reads is kept of the lists.
    """
    lengths = examples.lengths
    picks, short = _picks(lengths, len(examples))
    batch, read = _batch(examples, picks, device)
    if any(isinstance(values, list) and _hold_tensors(values) for values in batch.values()):
        return None  # a detector matches its objects with features of several layers
    drawn = frozenset(examples.drawn([None], ["probe"]))
    trial = _Trial(task, model, edge, batch, drawn)
    if not short or lengths is None:
        spots = trial.spots(None)
        if spots is None:
            return None
        found = RecordingPlan(spots, {s: trial.first[s] for s in spots}, batch, read, None, dict(edge.shapes))
    else:
        other, read_other = _batch(examples, short, device)
        _Trial(task, model, edge, other, drawn).record()
        tape, shapes = edge.tape, edge.shapes
        longest = (int(lengths[read].max()), int(lengths[read_other].max()))
        trial.record()
        both = merged(edge.shapes, shapes, longest)
        dims = {s: ragged_dims(v.shape[1:], tape[s].shape[1:], longest) for s, v in edge.tape.items() if s in tape}
        usable = {s: d[0] + 1 if d else 0 for s, d in dims.items() if d is not None and len(d) < 2}
        trial.cut = {s: (lengths[read].tolist(), d) for s, d in usable.items() if d}
        spots = trial.spots(usable)
        if spots is None or both is None:
            return None
        found = RecordingPlan(spots, {s: trial.first[s] for s in spots}, batch, read, lengths, both)
        found.ragged = {s: usable[s] for s in spots if usable[s]}
        _without_long_inputs(found, other, longest, trial)
    found.drawn = drawn
    for key in trial.big:
        found.absent.setdefault(key, (tuple(batch[key].shape[1:]), batch[key].dtype))
    lists = {k: v for k, v in batch.items() if isinstance(v, list)}
    arrays = [k for k, v in lists.items() if _hold_arrays(v)]  # such as the label map of each photo
    found.unread = [] if scored else [k for k in arrays if trial.trains_without(found.tape, k)]
    arrays = [k for k in arrays if k not in found.unread]
    found.anew += [k for k, v in lists.items() if k in arrays or (k not in found.unread and _is_long(v))]
    return found


def _is_long(values: list[Any]) -> bool:
    return len(json.dumps(values)) > BIG * len(values)


def _hold_arrays(values: list[Any]) -> bool:
    """Whether a list has something for each example that JSON cannot hold: arrays, images."""
    try:
        json.dumps(values)
    except TypeError:
        return True
    return False


def _hold_tensors(values: list[Any]) -> bool:
    """Whether a list has tensors for each example, such as its boxes."""
    import torch

    parts = [part for value in values for part in (value.values() if isinstance(value, dict) else [value])]
    return any(isinstance(part, torch.Tensor) for part in parts)


def _picks(lengths: np.ndarray | None, n: int) -> tuple[list[int], list[int]]:
    """The examples of the probe batch, and shorter examples to compare with (none if all have the same length)."""
    if lengths is None or lengths.min() == lengths.max():
        return list(range(min(4, n))), []
    order = np.argsort(lengths, kind="stable")
    picks = sorted({int(order[place]) for place in np.linspace(0, n - 1, 4).round().astype(int)})
    return picks, [int(i) for i in order[:3] if lengths[i] < lengths.max()]


def _batch(examples: Examples, picks: list[int], device: Any) -> tuple[dict[str, Any], list[int]]:
    micro = examples[[(None, i) for i in picks]]
    bad = {index for index, _ in micro.skipped}
    return on_device(micro.batch, device), [i for i in picks if i not in bad]


def _without_long_inputs(plan: RecordingPlan, other: dict[str, Any], longest: tuple[int, int], trial: "_Trial") -> None:
    """Drop inputs that are as long as the text (input_ids) if only frozen modules read them; else fetch them for each
    batch.
    """
    import torch

    batch = plan.batch
    whole = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and v.ndim > 1}
    dims = {k: ragged_dims(v.shape[1:], other[k].shape[1:], longest) for k, v in whole.items()}
    long = [k for k, d in dims.items() if d != [] and k not in trial.big]
    unread = long if trial.unread(plan.tape, long) else [k for k in long if trial.unread(plan.tape, [k])]
    if unread != long and not trial.unread(plan.tape, unread):
        unread = []
    for key in [*long, *trial.big]:
        if key in trial.big or (key in unread and dims[key] is not None):
            shape: Shape = tuple(
                None if place in (dims[key] or ()) else size for place, size in enumerate(batch[key].shape[1:])
            )
            plan.absent[key] = (shape, batch[key].dtype)
        else:
            plan.anew.append(key)


class _Trial:
    """One batch, run through the model in different ways."""

    def __init__(
        self, task: Task, model: Any, edge: Edge, batch: dict[str, Any], drawn: frozenset[str] = frozenset()
    ) -> None:
        import torch

        self.task, self.model, self.edge, self.batch, self.n = task, model, edge, batch, len(batch["id"])
        self.counts = task.counts(batch)
        self.cut: dict[
            Spot, tuple[Sequence[int], int]
        ] = {}  # spot -> lengths and dimension by which its padding is zeroed
        self.first: dict[Spot, Tensor] = {}
        self.big = [
            k
            for k, v in batch.items()
            if k not in drawn and isinstance(v, torch.Tensor) and v.is_floating_point() and v[0].numel() > BIG
        ]
        self.blank = batch | {
            k: unknown(self.n, tuple(batch[k].shape[1:]), batch[k].dtype, batch[k].device) for k in self.big
        }

    def record(self, seed: int = 0) -> float:
        return self._loss("record", seed, None, self.batch)

    def replay(self, spots: Sequence[Spot]) -> float:
        return self._loss("replay", 0, {s: self.first[s] for s in spots}, self.blank)

    def _loss(self, mode: str, seed: int, tape: "dict[Spot, Tensor] | None", inputs: dict[str, Any]) -> float:
        import torch

        torch.manual_seed(seed)
        self._start(mode, tape, inputs)
        try:
            return float(self.task.loss(self.model, inputs, self.counts, self.task.phases[0].name, 0).detach())
        except RuntimeError:
            if mode == "record":
                raise
            return math.nan  # an in-place operation met a stand-in tensor, so this tensor is needed

    def _start(self, mode: str, tape: "dict[Spot, Tensor] | None", inputs: dict[str, Any]) -> None:
        copies = None if tape is None else {s: v.clone() for s, v in tape.items()}
        self.edge.start(mode, self.n, copies)

    def spots(self, usable: dict[Spot, int] | None) -> list[Spot] | None:
        """The smallest set of spots that gives the uncached loss; from `usable` if rows have different lengths."""
        import torch

        self.want = self.record()
        first = dict(self.edge.tape)
        self.record(1)
        stable = {s: v for s, v in first.items() if s in self.edge.tape and torch.equal(v, self.edge.tape[s])}
        if usable is not None:
            stable = {s: v for s, v in stable.items() if s in usable}
        self.first = {s: without_padding(v, *self.cut[s]) if s in self.cut else v for s, v in stable.items()}
        if not math.isfinite(self.want) or not self.edge.frozen:
            return None
        spots = [s for s in stable if s[0].endswith("<")]
        if not spots or self.replay(spots) != self.want:
            spots = list(stable)
            if self.replay(spots) != self.want:
                return None
        for spot in sorted(spots, key=lambda s: -stable[s].numel()):
            fewer = [s for s in spots if s != spot]
            if fewer and self.replay(fewer) == self.want:
                spots = fewer
        return spots

    def trains_without(self, tape: "dict[Spot, Tensor]", key: str) -> bool:
        """Whether loss and counts stay the same without this list."""
        inputs = {name: value for name, value in self.blank.items() if name != key}
        try:
            return self.task.counts(inputs) == self.counts and self._loss("replay", 0, tape, inputs) == self.want
        except KeyError:
            return False

    def unread(self, tape: "dict[Spot, Tensor]", keys: list[str]) -> bool:
        """Whether loss, counts and predictions stay the same if these inputs are all zeros and all ones."""
        import torch

        def predictions(inputs: dict[str, Any]) -> Any:
            torch.manual_seed(0)
            self._start("replay", tape, inputs)
            with torch.no_grad():
                return self.task.predict(self.model, inputs)

        for value in (0, 1):
            inputs = self.blank | {k: torch.full_like(self.batch[k], value) for k in keys}
            try:
                same = self.task.counts(inputs) == self.counts and self._loss("replay", 0, tape, inputs) == self.want
                if not same or predictions(inputs) != predictions(self.blank):
                    return False
            except (RuntimeError, IndexError):  # zero may not be a valid index there
                return False
        return True
