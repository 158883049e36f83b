"""The order of training: which examples form each step, on which process and in which micro-batch; and their loader.

Everything here is a pure function of (seed, epoch, example). So there is no state to save and nothing to skip on
resume, and neither the number of workers nor that of processes changes the examples of a step.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import numpy as np

from pipelines.data.encoding import Budget, Encoded, Lengths
from pipelines.errors import DataError
from pipelines.task import Batch, Example, Task
from pipelines.utils.seeding import seeded

Key = tuple[int | None, int] | tuple[int | None, int, float]  # epoch, index of the example, share of training done

POOL = 50  # steps whose examples are sorted by length together
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


# ---- the plan ----


def steps_per_epoch(n: int, batch_size: int, least: int = 1) -> int:
    """The number of steps in an epoch of `n` examples, if a step holds at least `least` of them where possible."""
    return max(1, min(math.ceil(n / batch_size), n // min(least, batch_size)))


def epoch_steps(
    n: int, batch_size: int, seed: int, epoch: int, lengths: Lengths | None = None, least: int = 1
) -> list[np.ndarray]:
    """One epoch of `n` examples as steps: index arrays of size `batch_size`; the last may be smaller.

    With `lengths`, pools of 50 steps are sorted by length and then the steps are shuffled, so that a step holds similar
    lengths. A last step of fewer than `least` examples is merged with the one before it and split: 32 and 1 become 17
    and 16.
    """
    rng = np.random.default_rng(seeded(seed, epoch, "order"))
    order = rng.permutation(n)
    if lengths is None:
        return _last_shared([order[start : start + batch_size] for start in range(0, n, batch_size)], batch_size, least)
    steps: list[np.ndarray] = []
    for start in range(0, n, POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(np.asarray(lengths)[pool], kind="stable")]
        steps += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    steps = _last_shared(steps, batch_size, least)
    return [steps[i] for i in rng.permutation(len(steps))]


def _last_shared(steps: list[np.ndarray], batch_size: int, least: int) -> list[np.ndarray]:
    """The steps of an epoch; if the last is too small, the last two are split into steps of similar size."""
    if len(steps) < 2 or len(steps[-1]) >= min(least, batch_size):
        return steps
    together = np.concatenate(steps[-2:])
    count = steps_per_epoch((len(steps) - 1) * batch_size + len(steps[-1]), batch_size, least)
    return [*steps[:-2], *np.array_split(together, count - len(steps) + 2)]


def shares(
    step: np.ndarray,
    micro_batch: int,
    processes: int,
    lengths: Lengths | None = None,
    budget: int | None = None,
    least: int = 1,
) -> list[list[np.ndarray]]:
    """Split one step into the micro-batches of each process: [process][micro-batch] -> indices of examples.

    Every process gets the same number of micro-batches of nearly equal size; some may be empty. With `lengths`, a
    micro-batch holds similar lengths; with a `budget` too, its size padded to the longest example is limited. No
    micro-batch holds fewer than `least` examples unless it is empty; it may rather hold one more than `micro_batch`.
    The budget takes precedence over `least`, because there every token is a value of its own.
    """
    if lengths is not None:
        step = step[np.argsort(np.asarray(lengths)[step], kind="stable")]
    if lengths is None or budget is None:
        each = max(1, math.ceil(len(step) / (micro_batch * processes)))
        parts = np.array_split(step, each * processes)
        if least > 1 and any(0 < len(part) < least for part in parts):
            filled = max(1, min(each * processes, len(step) // least))
            each = math.ceil(filled / processes)
            parts = [*np.array_split(step, filled), *[step[:0]] * (each * processes - filled)]
    else:
        parts = _within(step, micro_batch, processes, np.asarray(lengths), budget)
    return [parts[rank::processes] for rank in range(processes)]


def _within(order: np.ndarray, most: int, processes: int, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Parts of ascending length within `most` examples and the `budget`; equally many for each process."""
    parts = filled(order, most, lengths[order], budget)
    while len(parts) % processes:  # split the part with most examples
        largest = max(range(len(parts)), key=lambda i: len(parts[i]))
        parts[largest : largest + 1] = np.array_split(parts[largest], 2)
    return parts


def filled(step: np.ndarray, micro_batch: int, sizes: np.ndarray, budget: int) -> list[np.ndarray]:
    """Split ascending `sizes` before the example that would exceed the padded `budget`.

    A single example always fits.
    """
    cuts = [0]
    for place, size in enumerate(sizes):
        count = place - cuts[-1] + 1
        if count > 1 and (count > micro_batch or count * size > budget):
            cuts.append(place)
    return np.split(step, cuts[1:])


# ---- examples ----


class Micro(NamedTuple):
    """One micro-batch. `real` is false for a placeholder that keeps processes in step and does not count."""

    batch: Batch
    real: bool
    skipped: list[tuple[int, str]]  # (index of the example, why)


@dataclass
class Examples:
    """A task's encoded examples, fetched by [(epoch, index), ...]; epoch None means without augmentation.

    A key may have a third part: the share of training that is done, 0 to 1.
    """

    task: Task
    encoded: Encoded
    seed: int = 0
    augmented: bool = False
    least: int = 1  # fewest examples of a batch; rows that cannot be read are replaced to reach it

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def lengths(self) -> np.ndarray | None:
        """The lengths of all examples; None if they are equal."""
        found = self.encoded.lengths
        return None if found is None else np.asarray(found)

    @property
    def length_unit(self) -> str:
        return self.encoded.length_unit

    @property
    def budget(self) -> Budget:
        return self.encoded.budget

    def __getitem__(self, keys: Sequence[Key]) -> Micro:
        good: list[Example] = []
        skipped: list[tuple[int, str]] = []
        for epoch, index, *progress in keys:
            try:
                good.append(self._example(epoch, index, *progress))
            except DataError as error:
                skipped.append((index, str(error)))
        real = bool(good)
        bad = {index for index, _ in skipped}
        epochs = [epoch for epoch, index, *_ in keys if index not in bad]
        if len(good) < max(1, self.least):
            epoch = epochs[0] if epochs else None
            more = self._readable(epoch, [index for _, index, *_ in keys], max(1, self.least) - len(good))
            good, epochs = [*good, *more], [*epochs, *[epoch] * len(more)]
        batch = self.task.collate(good)
        return Micro(batch | self.drawn(epochs, [example["id"] for example in good]), real, skipped)

    def drawn(self, epochs: Sequence[int | None], ids: Sequence[str]) -> dict[str, Any]:
        """The task's random inputs for these examples: key -> one value for each, in a list or a tensor."""
        draws = [
            self.task.random_inputs(Random(seeded(self.seed if e is not None else "score", e, "draw", i)))
            for e, i in zip(epochs, ids, strict=True)
        ]
        found = {key: [draw[key] for draw in draws] for key in draws[0]}
        return {key: _stacked(values) for key, values in found.items()}

    def name(self, index: int) -> str:
        """The name of an example for messages."""
        try:
            return str(self.encoded[index]["id"])
        except DataError:
            return f"row {index}"

    def row(self, index: int) -> int:
        """The number under which an example that cannot be read is counted."""
        return self.encoded.row(index)

    def feed(self, batch: Batch) -> None:
        """Called before each forward pass. Only cached features need it (see training.feature_cache)."""

    def _example(self, epoch: int | None, index: int, progress: float = 0.0) -> Example:
        if epoch is None or not self.augmented:
            return self.encoded[index]
        example = self.encoded.to_augment(index)
        rng = Random(seeded(self.seed, epoch, example["id"]))
        example = self.task.augment(example, rng, progress)
        partners = []
        for _ in range(self.task.augmentation.mix_partners):
            other = rng.randrange(len(self))
            partner_rng = Random(rng.getrandbits(63))
            try:
                partners.append(self.task.augment(self.encoded.to_augment(other), partner_rng, progress))
            except DataError:
                return example  # the partner cannot be read; it is counted when its own turn comes
        return self.task.mix([example, *partners], rng) if partners else example

    def _readable(self, epoch: int | None, taken: list[int], count: int) -> list[Example]:
        """The next readable examples, for a micro-batch that would hold too few.

        `taken` ones are used only as a last resort.
        """
        last: DataError | None = None
        found: list[Example] = []
        start = taken[-1] + 1 if taken else 0
        tried = [(start + offset) % len(self) for offset in range(min(len(self), 100))]
        for index in sorted(tried, key=lambda index: index in taken):
            try:
                found.append(self._example(epoch, index))
            except DataError as error:
                last = error
            if len(found) == count:
                return found
        if not found:
            raise DataError(f"no readable example among {len(tried)}; the last: {last}")
        return [found[place % len(found)] for place in range(count)]


def _stacked(values: list[Any]) -> Any:
    """A tensor of the values if they are tensors, else the list."""
    import torch

    return torch.stack(values) if isinstance(values[0], torch.Tensor) else values


def on_device(batch: Batch, device: Any) -> Batch:
    """A batch with its tensors on `device`.

    Other lists are kept as they are; Accelerate's own function would walk all of them.
    """
    import torch

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, non_blocking=True)
        return (
            [move(v) for v in value]
            if isinstance(value, list) and value and isinstance(value[0], torch.Tensor)
            else value
        )

    return {key: move(value) for key, value in batch.items()}


# ---- loaders ----


@dataclass
class Plan:
    """The training order from one step on, as a sampler that yields the keys of this process's micro-batches."""

    n: int
    batch_size: int
    micro_batch: int
    seed: int
    first_step: int
    total_steps: int
    rank: int = 0
    processes: int = 1
    lengths: Lengths | None = None
    budget: int | None = None  # limit of a micro-batch in length units, padding included
    pooled: bool = True  # whether a step holds similar lengths
    least: int = 1  # fewest examples of a micro-batch that is not empty
    _cache: tuple[int, list[np.ndarray]] = field(default=(-1, []), repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.n, self.batch_size, self.least)

    def step(self, number: int) -> list[list[np.ndarray]]:
        """The micro-batches of one step, for every process."""
        epoch, place = divmod(number, self.steps_per_epoch)
        if self._cache[0] != epoch:
            lengths = self.lengths if self.pooled else None
            self._cache = (epoch, epoch_steps(self.n, self.batch_size, self.seed, epoch, lengths, self.least))
        return shares(self._cache[1][place], self.micro_batch, self.processes, self.lengths, self.budget, self.least)

    def rows(self, number: int) -> list[int]:
        return [int(i) for share in self.step(number) for part in share for i in part]

    def micro_batches(self, number: int) -> int:
        return len(self.step(number)[0])

    def __iter__(self) -> Iterator[list[Key]]:
        for number in range(self.first_step, self.total_steps):
            epoch = number // self.steps_per_epoch
            for part in self.step(number)[self.rank]:
                yield [(epoch, int(i), number / self.total_steps) for i in part]

    def __len__(self) -> int:
        return sum(self.micro_batches(number) for number in range(self.first_step, self.total_steps))


def evaluation_keys(
    n: int, batch_size: int, rank: int, processes: int, lengths: Lengths | None = None, budget: int = 2**62
) -> list[list[tuple[None, int]]]:
    """Every example once, over all processes.

    Each process gets the same number of batches (FSDP's forward is a collective).

    With `lengths` the longest come first, and a batch padded to its longest example is limited by `budget`.
    """
    if lengths is None:
        parts = np.array_split(np.arange(n), math.ceil(n / (batch_size * processes)) * processes)
    else:
        parts = _within(
            np.argsort(np.asarray(lengths), kind="stable"), batch_size, processes, np.asarray(lengths), budget
        )[::-1]
    return [[(None, int(i)) for i in part] for part in parts[rank::processes]]


def loader(examples: Any, keys: Any, workers: int) -> Iterator["Micro"]:
    """One Micro per entry of `keys`, in that order, for any number of loader processes.

    Where there is a GPU, batches of loader processes lie in pinned memory: they are copied while it computes.
    """
    import torch
    from torch.utils.data import DataLoader

    batches = DataLoader(
        examples,
        sampler=keys,
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_signals,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )
    if not workers:
        return iter(batches)
    # A process that has just started would end at a signal that reaches the whole group, so the signals wait until it
    # ignores them. A new process inherits the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return iter(batches)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_is(value: Any) -> Any:
    return value


def _ignore_signals(_: int) -> None:
    """Ignore signals to stop in a loader process.

    Such a signal reaches all processes at once (Ctrl-C, torchrun, Slurm), but only the main process handles it: it ends
    its step with the batches that the loader processes still send, saves, and then ends them.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
