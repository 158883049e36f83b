"""Predict over a split, gather the records of all processes, compute scores and their intervals."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.batching import evaluation_keys, filled, loader, on_device
from pipelines.data.encoding import Lengths
from pipelines.data.filtering import Skips
from pipelines.data.leakage import groups_of
from pipelines.errors import RunError
from pipelines.evaluation import row_statistics
from pipelines.metrics import intervals as resampling
from pipelines.metrics.statistics import Statistics
from pipelines.task import Record, Task
from pipelines.utils.distributed import on_main, sharded_again
from pipelines.utils.hardware import out_of_memory


def predict_split(
    task: Task,
    model: Any,
    examples: Any,
    accelerator: Any,
    *,
    batch_size: int,
    workers: int = 0,
    skips: Skips | None = None,
    split: str = "test",
    budget: int | None = None,
    tick: Callable[[int], None] = lambda n: None,
    smaller: Callable[[int, str], None] = lambda n, unit: None,
) -> list[Record]:
    """Records of all readable examples, in the order of the examples, on the main process; the others get none.

    A batch holds at most `batch_size` examples. If examples have lengths, it also holds at most `budget` of their unit,
    with padding; None means the task's limit for this kind of device. Both must be equal on all processes. If memory
    runs out, the limit is halved (the budget, or else the rows) and `smaller(limit, unit)` is called; limits of the
    processes may then differ (see `agreed`). `tick(n)` is called with the number of examples finished on this process.
    `skips` collects unreadable rows.

    Raises RunError if memory runs out and the limit cannot be halved.
    """
    import torch
    from accelerate.utils import gather_object
    from accelerate.utils.memory import clear_device_cache

    was_training = model.training
    model.eval()
    lengths = examples.lengths
    budget = budget or examples.budget.of(accelerator.device.type, training=False)
    keys = evaluation_keys(
        len(examples), batch_size, accelerator.process_index, accelerator.num_processes, lengths, budget
    )
    found: list[tuple[int, Record]] = []
    bad: list[tuple[int, str]] = []
    batches: Any = loader(examples, keys, workers)
    batch: Any = None
    records: Any = None
    place = 0
    while place < len(keys):
        micro = next(batches)
        try:
            batch = on_device(micro.batch, accelerator.device)
            examples.feed(batch)
            # Use the precision of training. Not inference_mode: FSDP and hooks may keep tensors that they see.
            with torch.no_grad(), accelerator.autocast():
                records = task.predict(model, batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            rows = max(1, len(keys[place]))
            most = _fewer(rows, model, accelerator, split)
            if lengths is not None:  # the longest come first, and a limit of rows would also hold for the short ones
                budget = rows * max(1, *(int(lengths[i]) for _, i in keys[place])) // 2
            limit = (most, "rows") if lengths is None else (budget, examples.length_unit)
            keys, place = [part for wanted in keys[place:] for part in _cut(wanted, most, lengths, budget)], 0
            batch = records = batches = None  # the old loader and its processes must end before new ones start
        if batches is None:
            clear_device_cache(garbage_collection=True)  # not earlier: the error held the activations
            smaller(*limit)
            batches = loader(examples, keys, workers)
            continue
        wanted, place = keys[place], place + 1
        unreadable = dict(micro.skipped)
        if micro.real:
            found += zip([i for _, i in wanted if i not in unreadable], records, strict=True)
        bad += micro.skipped
        tick(len(wanted))
    sharded_again(model)
    if was_training:
        model.train()
    found, bad = on_main(found), gather_object(bad)
    if skips is not None and bad:
        skips.add(split, [(str(examples.row(index)), why) for index, why in bad])
    lost = {examples.row(index) for index, _ in bad}  # a row is scored by all of its examples, or not at all
    return [record for index, record in sorted(found, key=lambda pair: pair[0]) if examples.row(index) not in lost]


def _fewer(now: int, model: Any, accelerator: Any, split: str) -> int:
    """Half of `now` rows. Raises RunError for one row, or if the forward passes of several processes must match."""
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    if now > 1 and (accelerator.num_processes == 1 or not isinstance(model, (FSDPModule, DistributedDataParallel))):
        return now // 2
    advice = f"set train.eval_batch_size={now // 2}" if now > 1 else "use a smaller model, or shorter or smaller inputs"
    rows = "1 row" if now == 1 else f"{now} rows"
    raise RunError(f"out of memory on {split} with {rows} at a time: {advice}, and run again")


def _cut(keys: list[tuple[None, int]], most: int, lengths: Lengths | None, budget: int) -> list[list[tuple[None, int]]]:
    """Split a batch into batches of at most `most` rows or, if examples have lengths, of a `budget`.

    An empty batch stays.
    """
    if not keys:
        return [keys]
    if lengths is None:
        return [keys[start : start + most] for start in range(0, len(keys), most)]
    order = np.array([i for _, i in keys])
    order = order[np.argsort(np.asarray(lengths)[order], kind="stable")]
    return [
        [(None, int(i)) for i in part] for part in filled(order, len(keys), np.asarray(lengths)[order], budget)[::-1]
    ]


def agreed(*limits: int | None) -> list[int | None]:
    """For each limit, the smallest value of all processes; None if no process has one. Every process must call this.

    The limits decide which rows a process scores. If they differed, rows would be scored twice or never.
    """
    from accelerate.utils import gather_object

    return [
        min((n for n in found if n is not None), default=None) for found in zip(*gather_object([limits]), strict=True)
    ]


# ---- scores and intervals ----


def scores(task: Task, records: Sequence[Record], rows: Any) -> dict[str, float]:
    """The metrics of one split, without intervals."""
    found = task.statistics(records, rows)
    return {name: float(value) for name, value in task.summarize(found, found.ones()).items()}


def score_split(
    task: Task,
    records: Sequence[Record],
    rows: Any,
    split: str,
    *,
    group: str | None = None,
    tables: bool = True,
    keep: Path | None = None,
) -> dict[str, Any]:
    """The entry of one split in results.json: {split, n, groups, metrics, ci95, interval, tables}.

    `group` is the column of `rows` whose equal values form a group (a speaker, an article); intervals resample groups.
    `groups` is their number, or None without such a column. `keep` is the file for the statistics that `graft compare`
    reads.
    """
    found = task.statistics(records, rows)
    units, groups = units_of(found, rows, group)
    metrics = {name: float(value) for name, value in task.summarize(found, found.ones()).items()}
    ci95, interval = intervals(task, found, units)
    if keep is not None:
        row_statistics.write(keep, found, units, group)
    return {
        "split": split,
        "n": len(set(found.ids)),
        "groups": groups,
        "metrics": metrics,
        "ci95": ci95,
        "interval": {"unit": group or "rows", **interval},
        **({"protocol": task.data.protocol} if task.data.protocol else {}),
        **({"tables": task.tables(records, rows)} if tables else {}),
    }


def units_of(found: Statistics, rows: Any, group: str | None) -> tuple[np.ndarray, int | None]:
    """The unit of each row for resampling (a number from 0), and the number of groups (None without a group column).

    Rows with equal values in the column `group` form one unit. A row without a value is its own unit.
    """
    values = dict(zip(rows["id"][:], groups_of(rows, group), strict=True)) if group is not None else {}
    keys = [("row", id_) if values.get(id_) is None else ("group", values[id_]) for id_ in found.ids]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys]), len(numbers) if group is not None else None


def intervals(
    task: Task, found: Statistics, units: np.ndarray, seed: int = 0
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The 95 % intervals (see pipelines.metrics.intervals), and how they were computed: {resamples, exact}.

    Metrics whose resamples are all equal are omitted. `exact` lists the proportions whose rows are all right or all
    wrong; these have the exact binomial interval. With fewer than two units there are no intervals, and `resamples` is
    0.
    """
    count = int(units.max()) + 1
    if count < 2:
        return {}, {"resamples": 0, "exact": []}
    values = resampling.resampled(lambda weights: task.summarize(found, weights), units, seed=seed)
    exact = resampling.exact(found, units)
    defined = {name: of for name, of in values.items() if np.isfinite(of).any()}
    own = task.summarize(found, found.ones()) if found.lifted else {}
    known = {
        name: exact.get(name) or resampling.bounds(of, count, float(own[name]) if name in found.lifted else None)
        for name, of in defined.items()
    }
    bounds = {name: of for name, of in known.items() if of is not None}
    return bounds, {"resamples": resampling.RESAMPLES, "exact": [name for name in bounds if name in exact]}
