"""Predict over a split, merge the records of all processes, score, and say how sure the score is."""

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
from pipelines.utils.distributed import sharded_again
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
    """Records of every readable example, once each, in the order of the examples, the same on every process.

    A batch holds at most `batch_size` examples and, where they have lengths, at most `budget` of their unit with its padding: left
    out, what the task allows this kind of device. Both must be the same on every process. Where memory does not suffice, the limit
    is halved (of the budget where examples have lengths, else of rows), and `smaller(limit, unit)` is called: another process may
    have another limit then (see `agreed`). `tick(n)` is called with the number of examples done here.
    `skips` takes the rows that cannot be read.
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
    batches: Any = iter(loader(examples, keys, workers))
    batch: Any = None
    records: Any = None
    place = 0
    while place < len(keys):
        micro = next(batches)
        try:
            batch = on_device(micro.batch, accelerator.device)
            examples.feed(batch)
            # in the precision of the training; not inference_mode: FSDP and hooks may keep what they see
            with torch.no_grad(), accelerator.autocast():
                records = task.predict(model, batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            rows = max(1, len(keys[place]))
            most = _fewer(rows, model, accelerator, split)
            if lengths is not None:  # the longest come first: a limit of rows would hold for the short ones, too
                budget = rows * max(1, *(int(lengths[i]) for _, i in keys[place])) // 2
            limit = (most, "rows") if lengths is None else (budget, examples.length_unit)
            keys, place = [part for wanted in keys[place:] for part in _cut(wanted, most, lengths, budget)], 0
            batch = records = batches = None  # the old loader and its processes end before new ones begin
        if batches is None:
            clear_device_cache(garbage_collection=True)  # here: the error held what the forward had computed
            smaller(*limit)
            batches = iter(loader(examples, keys, workers))
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
    found, bad = gather_object(found), gather_object(bad)
    if skips is not None and bad:
        skips.add(split, [(str(index), why) for index, why in bad])
    return [record for _, record in sorted(found, key=lambda pair: pair[0])]


def _fewer(now: int, model: Any, accelerator: Any, split: str) -> int:
    """Half of `now` rows. Raises RunError for one row, and where the forwards of several processes must stay in step."""
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    if now > 1 and (accelerator.num_processes == 1 or not isinstance(model, (FSDPModule, DistributedDataParallel))):
        return now // 2
    advice = f"set train.eval_batch_size={now // 2}" if now > 1 else "use a smaller model, or shorter or smaller inputs"
    rows = "1 row" if now == 1 else f"{now} rows"
    raise RunError(f"out of memory on {split} with {rows} at a time: {advice}, and run again")


def _cut(keys: list[tuple[None, int]], most: int, lengths: Lengths | None, budget: int) -> list[list[tuple[None, int]]]:
    """A batch as batches of at most `most` rows or, where they have lengths, of a `budget`; an empty one (a stand-in) stays."""
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
    """For each limit the smallest value that any process has, None where none has one. Every process calls, with as many limits.

    Which rows a process scores follows from the limits: where they differ, rows are scored twice or never.
    """
    from accelerate.utils import gather_object

    return [
        min((n for n in found if n is not None), default=None) for found in zip(*gather_object([limits]), strict=True)
    ]


# ---- scores and intervals ----


def scores(task: Task, records: Sequence[Record], rows: Any) -> dict[str, float]:
    """The metrics of one split."""
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
    """What results.json says of one split: {split, n, groups, metrics, ci95, interval, tables}.

    `group` is the column of `rows` whose values belong together (a speaker, an article): intervals resample these groups. `groups` is
    their number, None without such a column. `keep` names a file for the statistics, from which `graft compare` works.
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
        **({"tables": task.tables(records, rows)} if tables else {}),
    }


def units_of(found: Statistics, rows: Any, group: str | None) -> tuple[np.ndarray, int | None]:
    """The unit of each row that is resampled, as a number from 0 on, and the number of groups (None without a group column).

    Rows of one value in the column `group` are a unit. A row without a value is a unit alone, with all its records.
    """
    values = dict(zip(rows["id"][:], groups_of(rows, group), strict=True)) if group is not None else {}
    keys = [("row", id_) if values.get(id_) is None else ("group", values[id_]) for id_ in found.ids]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys]), len(numbers) if group is not None else None


def intervals(
    task: Task, found: Statistics, units: np.ndarray, seed: int = 0
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The 95 % intervals (see pipelines.metrics.intervals), and how they were made: {resamples, exact}.

    Metrics whose resamples are all equal are omitted. `exact` names the proportions whose rows are all right or all wrong: they have
    the exact binomial interval. Fewer than two units have no intervals, and 0 resamples.
    """
    count = int(units.max()) + 1
    if count < 2:
        return {}, {"resamples": 0, "exact": []}
    values = resampling.resampled(lambda weights: task.summarize(found, weights), units, seed=seed)
    exact = resampling.exact(found, units)
    defined = {name: of for name, of in values.items() if np.isfinite(of).any()}
    known = {name: exact.get(name) or resampling.bounds(of, count) for name, of in defined.items()}
    bounds = {name: of for name, of in known.items() if of is not None}
    return bounds, {"resamples": resampling.RESAMPLES, "exact": [name for name in bounds if name in exact]}
