"""The frozen fast path: what a frozen trunk gives is computed once, kept on disk, and every epoch trains on it alone.

`record` returns examples that look like batching.Examples, or None and says why: the loop does not know the difference.
The cache lies in $GRAFT_CACHE (default ~/.cache/graft), keyed by the frozen weights, the first examples as prepared, and
the data; the oldest entries leave when it grows beyond `data.cache_gb`.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.batching import Examples, Micro, evaluation_keys, loader
from pipelines.cache import cache_root, make_room
from pipelines.checkpoint import sync, whole
from pipelines.errors import RunError
from pipelines.stubs import Edge, Spot, unknown

if TYPE_CHECKING:
    from torch import Tensor

BIG = 1024  # numbers per row from which an input of the model is tried without


@dataclass
class Cached:
    """Recorded examples: fetched by [(epoch, index), ...] like batching.Examples, and fed to the model's Edge."""

    edge: Edge
    spots: list[Spot]
    features: "list[Tensor]"  # one per spot, [n, ...], mapped from disk
    fields: "dict[str, Tensor]"  # batch tensors that are small or needed, [n, ...]
    absent: dict[str, tuple]  # batch tensors that only frozen modules read: (shape, dtype)
    plain: list[dict[str, Any] | None]  # batch lists (id, row, ...), one per example; None where it could not be read
    why: dict[int, str]

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, keys: list[tuple[int | None, int]]) -> Micro:
        import torch

        good = [index for _, index in keys if self.plain[index] is not None]
        skipped = [(index, self.why[index]) for _, index in keys if self.plain[index] is None]
        rows = good or [next(i for i, p in enumerate(self.plain) if p is not None)]
        at = torch.tensor(rows)
        batch: dict[str, Any] = {key: [self.plain[i][key] for i in rows] for key in self.plain[rows[0]]}  # type: ignore[index, union-attr]
        batch.update({key: values[at] for key, values in self.fields.items()})
        batch.update({key: unknown(len(rows), shape, dtype, "cpu") for key, (shape, dtype) in self.absent.items()})
        batch["features"] = [values[at] for values in self.features]
        return Micro(batch, bool(good), skipped)

    def name(self, index: int) -> str:
        row = self.plain[index]
        return f"row {index}" if row is None else row["id"]

    def feed(self, batch: dict[str, Any]) -> None:
        """Tell the model's Edge which rows come next."""
        features = batch["features"]
        self.edge.start("replay", len(features[0]), dict(zip(self.spots, features, strict=True)))


def record(
    task: Any, model: Any, examples: Examples, edge: Edge, accelerator: Any, *, split: str, fingerprint: str,
    batch_size: int, workers: int, cache_gb: float, say: Callable[[str], None],
) -> Cached | None:  # fmt: skip
    """Record every example's features, or read them from an earlier run. None (and one line why) where that is impossible.

    `model` is prepared (maybe distributed) and its Edge attached. Examples are taken unaugmented.
    """
    import torch
    from accelerate.utils import gather_object

    with edge.trial(model):
        probe = examples[[(None, i) for i in range(min(4, len(examples)))]]
        batch = _to(probe.batch, accelerator.device)
        plan = _probe(task, model, edge, batch)
        views = gather_object([plan and plan[0]])  # rounding may differ between devices, the decision may not
        if plan is None or any(view != plan[0] for view in views):
            say("features are not cached: what trains is not separable from what is frozen, or something random comes first")
            return None
        spots, tape, absent = plan
        fields = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in absent}
        size = len(examples) * sum(v[0].numel() * v.element_size() for v in [*tape.values(), *fields.values()])
        if size > cache_gb * 1e9:
            say(f"features are not cached: {size / 1e9:.1f} GB, and data.cache_gb is {cache_gb:g}")
            return None
        key = _key(edge, batch, fingerprint, [tape[s].dtype for s in spots], len(examples), spots)
        folder = cache_root() / "features" / f"{split}-{key}"
        dropped = {k: (tuple(batch[k].shape[1:]), batch[k].dtype) for k in absent}
        found = _open(folder, edge, spots, tape, fields, dropped)
        # each node has a disk of its own, and what one lacks all compute
        if accelerator.reduce(torch.tensor(float(found is None), device=accelerator.device), "sum") == 0:
            return found
        if accelerator.is_local_main_process:
            if found is None:
                shutil.rmtree(folder, ignore_errors=True)
            make_room(folder.parent, cache_gb * 1e9 - size)
        shapes = {f"feature_{i}": tape[s] for i, s in enumerate(spots)} | {f"field_{k}": v for k, v in fields.items()}
        _compute(model, task, examples, edge, accelerator, folder, spots, shapes, batch_size, workers)
        found = _open(folder, edge, spots, tape, fields, dropped)
        if found is None:
            raise RunError(f"{folder}: the feature cache cannot be read back; run again, or set data.cache_gb=0")
        return found


# ---- what to record ----


def _probe(task: Any, model: Any, edge: Edge, batch: dict) -> Any:
    """Find the smallest set of spots that gives the uncached loss. Returns (spots, one batch's tensors, absent inputs)."""
    import torch

    n = len(batch["id"])
    counts = task.counts(batch)

    def loss(mode: str, seed: int, tape: dict | None, inputs: dict) -> float:
        torch.manual_seed(seed)
        edge.start(mode, n, None if tape is None else {s: v.clone() for s, v in tape.items()})
        try:
            return float(task.loss(model, inputs, counts).detach())
        except RuntimeError:
            if mode == "record":
                raise
            return math.nan  # an operation in place met a stand-in: it is needed

    want = loss("record", 0, None, batch)
    first = dict(edge.tape)
    loss("record", 1, None, batch)
    stable = {s: v for s, v in first.items() if s in edge.tape and torch.equal(v, edge.tape[s])}
    if not math.isfinite(want) or not edge.frozen:
        return None
    big = [k for k, v in batch.items() if isinstance(v, torch.Tensor) and v.is_floating_point() and v[0].numel() > BIG]
    blank = batch | {k: unknown(n, tuple(batch[k].shape[1:]), batch[k].dtype, batch[k].device) for k in big}
    spots = [s for s in stable if s[0].endswith("<")]
    if not spots or loss("replay", 0, {s: stable[s] for s in spots}, blank) != want:
        spots = list(stable)
        if loss("replay", 0, {s: stable[s] for s in spots}, blank) != want:
            return None
    for spot in sorted(spots, key=lambda s: -stable[s].numel()):
        fewer = [s for s in spots if s != spot]
        if fewer and loss("replay", 0, {s: stable[s] for s in fewer}, blank) == want:
            spots = fewer
    return spots, {s: stable[s] for s in spots}, big


def _key(edge: Edge, batch: dict, fingerprint: str, dtypes: list, n: int, spots: list[Spot]) -> str:
    """Of everything that decides the features: weights, preprocessing (by its result), data, precision, library."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([fingerprint, [str(d) for d in dtypes], n, spots, torch.__version__, batch["id"]]).encode())
    for module in edge.frozen.values():
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            digest.update(_bytes(value))
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode() + _bytes(value))
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    import torch

    return whole(value).reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


# ---- computing and storing ----


def _compute(
    model: Any, task: Any, examples: Examples, edge: Edge, accelerator: Any, folder: Path, spots: list[Spot], shapes: dict,
    batch_size: int, workers: int,
) -> None:  # fmt: skip
    """Every process computes its share; each node's first process writes all of it, then the folder is renamed."""
    import torch
    from accelerate.utils import gather_object

    beside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    writes = accelerator.is_local_main_process
    if writes:
        beside.mkdir(parents=True, exist_ok=True)
        files = {name: _map(beside / f"{name}.bin", (len(examples), *v.shape[1:]), v.dtype) for name, v in shapes.items()}
    plain: list[dict[str, Any] | None] = [None] * len(examples)
    why: dict[int, str] = {}
    keys = evaluation_keys(len(examples), batch_size, accelerator.process_index, accelerator.num_processes)
    for wanted, micro in zip(keys, loader(examples, keys, workers), strict=True):
        batch = _to(micro.batch, accelerator.device)
        edge.start("record", len(batch["id"]))
        with torch.no_grad():
            task.loss(model, batch, task.counts(batch))
        values = {f"feature_{i}": edge.tape[s].cpu() for i, s in enumerate(spots)}
        values |= {f"field_{k[6:]}": batch[k[6:]].cpu() for k in shapes if k.startswith("field_")}
        lists = {k: v for k, v in batch.items() if isinstance(v, list)}
        bad = dict(micro.skipped)
        read = [index for _, index in wanted if index not in bad] if micro.real else []
        for indexes, skipped, part_values, part_lists in gather_object([(read, bad, values, lists)]):
            why.update(skipped)
            if indexes and writes:
                for name, value in part_values.items():
                    files[name][torch.tensor(indexes)] = value
                for place, index in enumerate(indexes):
                    plain[index] = {k: v[place] for k, v in part_lists.items()}
    if writes:
        _finish(beside, folder, {"plain": plain, "why": {str(k): v for k, v in why.items()}})
    accelerator.wait_for_everyone()


def _finish(beside: Path, folder: Path, meta: dict) -> None:
    """Give it its name, unless another run was quicker: theirs may be in use, and is the same."""
    try:
        (beside / "rows.json").write_text(json.dumps(meta))
        for path in (*beside.iterdir(), beside):
            sync(path)
        with contextlib.suppress(FileExistsError):
            beside.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise _full(beside, error) from None
    shutil.rmtree(beside, ignore_errors=True)


def _map(path: Path, shape: tuple[int, ...], dtype: Any) -> "Tensor":
    import torch

    try:
        with path.open("wb") as file:
            size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
            # room is taken now: a disk found full through the mapping ends the process without a word (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    except (OSError, RuntimeError) as error:
        raise _full(path.parent, error) from None


def _full(folder: Path, error: Exception) -> RunError:
    shutil.rmtree(folder, ignore_errors=True)
    return RunError(f"{folder.parent}: the feature cache cannot be written ({error}); free some room, or set data.cache_gb=0")


def _open(folder: Path, edge: Edge, spots: list[Spot], tape: dict, fields: dict, absent: dict) -> Cached | None:
    """What the disk holds, or None: nothing, something damaged, or something that is not what was just computed."""
    import torch

    try:
        meta = json.loads((folder / "rows.json").read_text())
        n = len(meta["plain"])
        folder.touch()  # the newest use decides what leaves first

        def read(name: str, like: Any) -> Any:
            shape = (n, *like.shape[1:])
            return torch.from_file(str(folder / f"{name}.bin"), shared=False, size=math.prod(shape), dtype=like.dtype).view(shape)

        features = [read(f"feature_{i}", tape[s]) for i, s in enumerate(spots)]
        kept = {k: read(f"field_{k}", v) for k, v in fields.items()}
    except (OSError, ValueError, RuntimeError):
        return None
    first = [i for i in range(min(n, 4)) if meta["plain"][i] is not None]
    for stored, fresh in zip(features, (tape[s].cpu() for s in spots), strict=True):
        # computed in batches of another size, so not equal to the bit
        if len(first) and not (stored[first] - fresh).abs().max() <= 0.05 * fresh.abs().max():
            return None
    return Cached(edge, spots, features, kept, absent, meta["plain"], {int(k): v for k, v in meta["why"].items()})


def _to(batch: Any, device: Any) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(batch, device)
