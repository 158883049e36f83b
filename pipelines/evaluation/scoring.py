"""Predict over a split, merge the records of all processes, score, and say how sure the score is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.data.batching import evaluation_keys, filled, loader, on_device
from pipelines.data.encoding import Lengths
from pipelines.data.filtering import Skips
from pipelines.errors import RunError
from pipelines.task import Record, Task
from pipelines.utils.distributed import sharded_again
from pipelines.utils.hardware import out_of_memory
from pipelines.utils.seeding import seeded


def predict_split(
    task: Task, model: Any, examples: Any, accelerator: Any, *, batch_size: int, workers: int = 0, skips: Skips | None = None,
    split: str = "test", budget: int | None = None, tick: Callable[[int], None] = lambda n: None,
    smaller: Callable[[int, str], None] = lambda n, unit: None,
) -> list[Record]:  # fmt: skip
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
    keys = evaluation_keys(len(examples), batch_size, accelerator.process_index, accelerator.num_processes, lengths, budget)
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
    return [[(None, int(i)) for i in part] for part in filled(order, len(keys), np.asarray(lengths)[order], budget)[::-1]]


def agreed(*limits: int | None) -> list[int | None]:
    """For each limit the smallest value that any process has, None where none has one. Every process calls, with as many limits.

    Which rows a process scores follows from the limits: where they differ, rows are scored twice or never.
    """
    from accelerate.utils import gather_object

    return [min((n for n in found if n is not None), default=None) for found in zip(*gather_object([limits]), strict=True)]


def score_split(task: Task, records: Sequence[Record], rows: Any, split: str, *, tables: bool = True) -> dict[str, Any]:
    """What results.json says of one split: {split, n, metrics, ci95, tables}."""
    metrics = {name: float(value) for name, value in task.score(records, rows).items()}
    result: dict[str, Any] = {"split": split, "n": len({r["id"] for r in records}), "metrics": metrics}
    result["ci95"] = bootstrap(task, records, rows)
    if tables:
        result["tables"] = task.tables(records, rows)
    return result


def bootstrap(task: Task, records: Sequence[Record], rows: Any, seed: int = 0) -> dict[str, list[float]]:
    """Percentile bootstrap over rows (Efron 1979): name -> [2.5 %, 97.5 %] of each metric.

    None for a score that does not vary: of six rows out of six nothing can be resampled. 1,000 resamples,
    fewer (at least 100) above 2,000 rows, where the interval is narrow and resampling slow. A row keeps
    all its records.
    """
    by_row: dict[str, list[Record]] = {}
    for record in records:
        by_row.setdefault(record["id"], []).append(record)
    groups = list(by_row.values())
    if len(groups) < 2:
        return {}
    rng = np.random.default_rng(seeded(seed, "bootstrap"))
    draws = int(np.clip(2_000_000 // len(groups), 100, 1000))
    scores: dict[str, list[float]] = {}
    for _ in range(draws):
        picked = rng.integers(0, len(groups), len(groups))
        for name, value in task.score([r for i in picked for r in groups[i]], rows).items():
            scores.setdefault(name, []).append(float(value))
    # where every resample gives the same score (all rows right), resampling does not tell how sure it is: no interval then
    defined = {name: [value for value in values if np.isfinite(value)] for name, values in scores.items()}
    known = {name: values for name, values in defined.items() if values and max(values) > min(values)}
    return {name: [float(np.percentile(v, 2.5)), float(np.percentile(v, 97.5))] for name, v in known.items()}
