"""The feature cache: the outputs of a frozen trunk are computed once and stored on disk, and every epoch trains on
them.

`record` returns examples with the interface of batching.Examples, so the loop needs no case for them; or it returns
None and reports why. The cache is in $GRAFT_CACHE (default ~/.cache/graft). Its key covers the frozen weights, the
first examples after preparation, and the data. The oldest entries are removed when it grows beyond `data.cache_gb`.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.batching import Examples, Key, Micro, evaluation_keys, loader, on_device, shares
from pipelines.data.encoding import Budget
from pipelines.errors import RunError
from pipelines.task import Task
from pipelines.training.feature_cache import planner
from pipelines.training.feature_cache.hooks import Edge, Enough, unknown
from pipelines.training.feature_cache.planner import RecordingPlan
from pipelines.training.feature_cache.ragged import Ragged
from pipelines.utils.cache import cache_root, make_room
from pipelines.utils.distributed import whole
from pipelines.utils.files import sync
from pipelines.utils.hardware import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Cached:
    """Recorded examples: indexed by [(epoch, index), ...] like batching.Examples, and replayed through the model's
    Edge.
    """

    edge: Edge
    plan: RecordingPlan
    # the source examples: they still give long inputs, inputs of different lengths, and random inputs
    examples: Examples
    features: "list[Tensor | Ragged]"  # one per spot, [n, ...], mapped from disk
    fields: "dict[str, Tensor]"  # batch tensors that are small or needed, [n, ...]
    # lists of a batch (id, row, ...), one entry per example; None for an unreadable example
    plain: list[dict[str, Any] | None]
    why: dict[int, str]
    least: int = 1  # as in batching.Examples
    lengths: None = None  # they are scored in the order of recording

    @property
    def length_unit(self) -> str:
        return self.examples.length_unit

    @property
    def budget(self) -> Budget:
        return self.examples.budget

    def __len__(self) -> int:
        return len(self.plain)

    @property
    def draws(self) -> bool:
        """Whether its batches hold random values, such as noise."""
        return bool(self.plan.drawn)

    @property
    def ragged(self) -> bool:
        """Whether its batches are padded."""
        return bool(self.plan.ragged or self.plan.anew)

    def __getitem__(self, keys: Sequence[Key]) -> Micro:
        import torch

        good = [index for _, index, *_ in keys if self.plain[index] is not None]
        skipped = [(index, self.why[index]) for _, index, *_ in keys if self.plain[index] is None]
        rows, epochs = list(good), [epoch for epoch, index, *_ in keys if self.plain[index] is not None]
        if len(rows) < max(1, self.least):
            others = [i for i, p in enumerate(self.plain) if p is not None and i not in good] or good
            more = [others[place % len(others)] for place in range(max(1, self.least) - len(rows))]
            rows, epochs = [*rows, *more], [*epochs, *[epochs[0] if epochs else None] * len(more)]
        at, longest = torch.tensor(rows), self._longest(rows)
        batch: dict[str, Any] = {key: [self.plain[i][key] for i in rows] for key in self.plain[rows[0]]}  # type: ignore[index, union-attr]
        batch.update({key: values[at] for key, values in self.fields.items()})
        if self.plan.anew:
            whole = self.examples[[(None, i) for i in rows]].batch
            batch.update({key: whole[key] for key in self.plan.anew})
        batch.update(self.examples.drawn(epochs, batch["id"]))
        batch["features"] = [
            values.take(rows) if isinstance(values, Ragged) else values[at] for values in self.features
        ]
        batch["longest"] = longest
        return Micro(batch, bool(good), skipped)

    def _longest(self, rows: list[int]) -> int:
        return 0 if self.plan.lengths is None else int(self.plan.lengths[rows].max())

    def name(self, index: int) -> str:
        row = self.plain[index]
        return f"row {index}" if row is None else row["id"]

    def row(self, index: int) -> int:
        return self.examples.row(index)

    def feed(self, batch: dict[str, Any]) -> None:
        """Give the model's Edge the features of the rows that come next, and the batch its placeholders.

        A placeholder cannot go through a loader, because its one number cannot be copied to pinned memory.
        """
        features, longest = batch["features"], batch["longest"]
        rows, device = len(features[0]), features[0].device
        for key, (shape, dtype) in self.plan.absent.items():
            batch[key] = unknown(rows, shape, dtype, device, longest)
        self.edge.start("replay", rows, dict(zip(self.plan.spots, features, strict=True)), longest)


def record(
    task: Task,
    model: Any,
    examples: Examples,
    edge: Edge,
    accelerator: Any,
    *,
    split: str,
    fingerprint: str,
    batch_size: int,
    budget: int,
    workers: int,
    cache_gb: float,
    say: Callable[[str], None],
) -> Cached | None:
    """Record the features of every example, or read them from an earlier run.

    Reports why and returns None if it is impossible.

    `model` is prepared (maybe distributed), and its Edge is attached. The examples have no augmentation. `budget`
    limits a batch of examples that have lengths. Raises RunError if the disk is full, memory runs out or the cache
    cannot be read back.
    """
    import torch
    from accelerate.utils import gather_object

    with edge.trial(model):
        plan = planner.find(task, model, edge, examples, accelerator.device, scored=split != "train")
        # rounding may differ between devices, but all processes must decide alike
        views = gather_object([plan and plan.spots])
        if plan is None or any(view != plan.spots for view in views):
            say(
                "features are not cached: what trains is not separable from what is frozen, or something random comes "
                "first"
            )
            return None
        size = plan.bytes(len(examples))
        if size > cache_gb * 1e9:
            say(f"features are not cached: {size / 1e9:.1f} GB, and data.cache_gb is {cache_gb:g}")
            return None
        folder = cache_root() / "features" / f"{split}-{_key(edge, plan, fingerprint, len(examples))}"
        edge.shapes = plan.shapes
        found = _open(folder, edge, plan, examples)
        # Each node has its own disk. If one node lacks the features, all nodes compute them.
        if accelerator.reduce(torch.tensor(float(found is None), device=accelerator.device), "sum") == 0:
            return found
        if accelerator.is_local_main_process:
            if found is None:
                shutil.rmtree(folder, ignore_errors=True)
            make_room(folder.parent, cache_gb * 1e9 - size)
        rank, processes = accelerator.process_index, accelerator.num_processes
        _compute(
            model,
            task,
            examples,
            edge,
            accelerator,
            folder,
            plan,
            _keys(plan, len(examples), batch_size, budget, rank, processes),
            workers,
        )
        edge.shapes = plan.shapes
        found = _open(folder, edge, plan, examples)
        if found is None:
            raise RunError(f"{folder}: the feature cache cannot be read back; run again, or set data.cache_gb=0")
        return found


def _keys(
    plan: RecordingPlan, n: int, batch_size: int, budget: int, rank: int, processes: int
) -> list[list[tuple[None, int]]]:
    """The batches that one process computes; they hold examples of similar length if the examples have lengths."""
    if plan.lengths is None:
        return evaluation_keys(n, batch_size, rank, processes)
    return [
        [(None, int(i)) for i in part]
        for part in shares(np.arange(n), batch_size, processes, plan.lengths, budget)[rank]
    ]


def _key(edge: Edge, plan: RecordingPlan, fingerprint: str, n: int) -> str:
    """A hash of everything that decides the features: weights, prepared inputs, data, precision, version of torch."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    dtypes = [str(plan.tape[s].dtype) for s in plan.spots]
    digest.update(json.dumps([fingerprint, dtypes, n, plan.spots, torch.__version__, plan.batch["id"]]).encode())
    for module in edge.frozen.values():
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(_bytes(value))
    for name, value in plan.batch.items():
        if isinstance(value, torch.Tensor) and name not in plan.drawn:
            digest.update(name.encode() + _bytes(value))
    if plan.lengths is not None:
        digest.update(plan.lengths.tobytes())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    import torch

    return whole(value).reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


# ---- computing and storing ----


def _compute(
    model: Any,
    task: Task,
    examples: Examples,
    edge: Edge,
    accelerator: Any,
    folder: Path,
    plan: RecordingPlan,
    keys: list[Any],
    workers: int,
) -> None:
    """Each process computes its part. The first process of each node writes all parts and then renames the folder."""
    import torch
    from accelerate.utils import gather_object

    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    writes = accelerator.is_local_main_process
    if writes:
        temporary.mkdir(parents=True, exist_ok=True)
        files = _stored(
            plan, len(examples), lambda name, shape, dtype: map_file(temporary / f"{name}.bin", shape, dtype)
        )
    plain: list[dict[str, Any] | None] = [None] * len(examples)
    why: dict[int, str] = {}
    for wanted, micro in zip(keys, loader(examples, keys, workers), strict=True):
        batch = on_device(micro.batch, accelerator.device)
        edge.start("record", len(batch["id"]))
        edge.wanted = set(plan.spots)
        try:
            with torch.no_grad(), contextlib.suppress(Enough):
                task.loss(model, batch, task.counts(batch), task.phases[0].name, 0)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            size = len(batch["id"])
            advice = f"set train.eval_batch_size={size // 2}" if size > 1 else "set data.cache_gb=0"
            raise RunError(
                f"out of memory with {size} rows at a time while features are recorded: {advice}, and run again"
            ) from None
        edge.wanted = None
        values = {f"feature_{i}": edge.tape[s].cpu() for i, s in enumerate(plan.spots)}
        values |= {f"field_{k}": batch[k].cpu() for k in plan.fields}
        lists = {k: v for k, v in batch.items() if isinstance(v, list) and k not in (*plan.anew, *plan.unread)}
        bad = dict(micro.skipped)
        read = [index for _, index in wanted if index not in bad] if micro.real else []
        for indexes, skipped, part_values, part_lists in gather_object([(read, bad, values, lists)]):
            why.update(skipped)
            if indexes and writes:
                for name, value in part_values.items():
                    if isinstance(files[name], Ragged):
                        files[name].put(indexes, value)
                    else:
                        files[name][torch.tensor(indexes)] = value
                for place, index in enumerate(indexes):
                    plain[index] = {k: v[place] for k, v in part_lists.items()}
    if writes:
        _finish(temporary, folder, {"plain": plain, "why": {str(k): v for k, v in why.items()}})
    accelerator.wait_for_everyone()


def _stored(plan: RecordingPlan, n: int, make: "Callable[[str, tuple[int, ...], Any], Tensor]") -> "dict[str, Any]":
    """File name -> tensor or Ragged, each created by `make(name, shape, dtype)`."""
    found: dict[str, Any] = {}
    for place, spot in enumerate(plan.spots):
        name, value, dim = f"feature_{place}", plan.tape[spot], plan.ragged.get(spot)
        if dim is None:
            found[name] = make(name, (n, *value.shape[1:]), value.dtype)
        else:
            assert plan.lengths is not None
            rest = [size for d, size in enumerate(value.shape) if d not in (0, dim)]
            found[name] = Ragged(make(name, (int(plan.lengths.sum()), *rest), value.dtype), plan.lengths, dim)
    return found | {f"field_{k}": make(f"field_{k}", (n, *v.shape[1:]), v.dtype) for k, v in plan.fields.items()}


def _finish(temporary: Path, folder: Path, meta: dict[str, Any]) -> None:
    """Rename the folder to its final name.

    If another run was faster, keep that run's folder: its content is the same.
    """
    try:
        (temporary / "rows.json").write_text(json.dumps(meta))
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise _full(temporary, error) from None
    shutil.rmtree(temporary, ignore_errors=True)


def map_file(path: Path, shape: tuple[int, ...], dtype: Any) -> "Tensor":
    import torch

    try:
        with path.open("wb") as file:
            size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
            # Allocate the space now: if the disk is full, a write to the mapping would kill the process without a
            # message (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    except (OSError, RuntimeError) as error:
        raise _full(path.parent, error) from None


def _full(folder: Path, error: Exception) -> RunError:
    shutil.rmtree(folder, ignore_errors=True)
    return RunError(
        f"{folder.parent}: the feature cache cannot be written ({error}); free some room, or set data.cache_gb=0"
    )


def _open(folder: Path, edge: Edge, plan: RecordingPlan, examples: Examples) -> Cached | None:
    """Read a stored cache; None if there is none, or if it is damaged or differs from what the model computes now."""
    import torch

    try:
        meta = json.loads((folder / "rows.json").read_text())
        n = len(meta["plain"])
        if n != len(examples):
            return None
        os.utime(folder)  # entries are removed in the order of their last use

        def read(name: str, shape: tuple[int, ...], dtype: Any) -> "Tensor":
            return torch.from_file(str(folder / f"{name}.bin"), shared=False, size=math.prod(shape), dtype=dtype).view(
                shape
            )

        stored = _stored(plan, n, read)
    except (OSError, ValueError, RuntimeError):
        return None
    features = [stored[f"feature_{i}"] for i in range(len(plan.spots))]
    first = [i for i in plan.read if meta["plain"][i] is not None]
    for kept, fresh in zip(features, (plan.tape[s].cpu() for s in plan.spots), strict=True):
        # They were computed in batches of another size, so they are not equal to the last bit.
        again = kept.take(first) if isinstance(kept, Ragged) else kept[first]
        if len(first) and not (again - fresh).abs().max() <= 0.05 * fresh.abs().max():
            return None
    fields = {k: stored[f"field_{k}"] for k in plan.fields}
    return Cached(edge, plan, examples, features, fields, meta["plain"], {int(k): v for k, v in meta["why"].items()})
