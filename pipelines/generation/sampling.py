"""Samples of a run: a grid at every evaluation, and at the end as many as the recipe asks for, saved and measured."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RunError
from pipelines.generation import requests as requested
from pipelines.generation import sampling
from pipelines.generation.spec import GenerationSpec, Request, Samples
from pipelines.utils import distributed

if TYPE_CHECKING:
    from pipelines.task import Task
    from pipelines.training.trainer import Trainer

OVER_TRAINING = "over_training"  # folder in samples/ of the results of some evaluations
MOMENTS = 8  # evaluations whose results are kept there


def save_grid(trainer: "Trainer", model: Any, step: int) -> None:
    """Draw results at fixed seeds with the present model, in samples/grids/.

    Those that a grid cannot show completely (sound) are also kept in samples/over_training/step_000100/, of the first,
    the last and a few evaluations between them. Under FSDP every process must call this.
    """
    spec: GenerationSpec | None = trainer.task.generation
    if spec is None or not spec.shown or not (trainer.accelerator.is_main_process or trainer.sharded):
        return
    was_training = model.training
    model.eval()
    requests = spec.requests(trainer.splits.validation, spec.shown)
    with trainer.accelerator.autocast(), trainer.progress.item(spec.many, len(requests)) as shown:
        results = sampling.generate(spec, model, requests, size=_at_once(trainer, spec), tick=shown.advance)
    distributed.sharded_again(model)
    model.train(was_training)
    if trainer.accelerator.is_main_process:
        folder = trainer.folder / "samples" / "grids"
        folder.mkdir(parents=True, exist_ok=True)
        spec.grid(results).save(folder / f"step_{step:06}.png")
        if spec.kept:
            made = _settings(trainer, trainer.task, requests)
            keep_moment(trainer.folder / "samples" / OVER_TRAINING, step, results, made, spec)


def keep_moment(
    folder: Path, step: int, results: Sequence[Any], settings: Sequence[Mapping[str, Any]], spec: GenerationSpec
) -> None:
    """Keep the results of an evaluation in step_000100/, and of all evaluations MOMENTS at most. Raises RunError.

    The folder gets its name when it is complete, because the page of a run may be made at any time.
    """
    made, target = folder / f"new_{step:06}", folder / f"step_{step:06}"
    try:
        for stopped in folder.glob("new_*"):  # when a run was killed
            shutil.rmtree(stopped)
        keep(made, results, settings, spec, digits=2)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        steps = {int(path.name[5:]): path for path in folder.glob("step_*") if path.name[5:].isdigit()}
        for old in set(steps) - set(thinned(sorted(steps), MOMENTS)):
            shutil.rmtree(steps[old])
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None


def thinned(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` (two or more) of the steps: the first, the last, and those between that leave the smallest gaps
    when others go. Called after every new step, it keeps them spread over the whole run.
    """
    kept = list(steps)
    while len(kept) > most:
        gaps = [kept[place + 1] - kept[place - 1] for place in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept


def _settings(trainer: "Trainer", task: "Task", requests: Sequence[Request]) -> list[dict[str, Any]]:
    """What the file of each result says."""
    name, spec = trainer.folder.resolve().name, task.generation
    assert spec is not None
    return [requested.settings(name, requested.whole(task, dict(one)), spec.text) for one in requests]


def _at_once(trainer: "Trainer", spec: GenerationSpec) -> int:
    asked = trainer.recipe.train.eval_batch_size
    return asked if isinstance(asked, int) else spec.at_once


def finish_samples(trainer: "Trainer", task: "Task", model: Any) -> dict[str, Any] | None:
    """Generate the run's samples, save them in samples/ and measure them: {metrics, ci95, tables, figures, samples}.

    Returns None if the run has no samples. Each process generates its part; only the main process gets the
    measurements.
    """
    spec: GenerationSpec | None = task.generation
    if spec is None or not spec.samples:
        return None
    accelerator, folder = trainer.accelerator, trainer.folder / "samples"
    requests = spec.requests(trainer.splits.test, spec.samples)
    rank, processes = accelerator.process_index, accelerator.num_processes
    began = time.perf_counter()
    with accelerator.autocast(), trainer.progress.item(spec.many, len(requests)) as shown:
        results = sampling.generate(
            spec,
            model,
            requests,
            size=_at_once(trainer, spec),
            rank=rank,
            processes=processes,
            tick=lambda n: shown.advance(n * processes),
        )
    if not accelerator.is_main_process:
        return {}
    seconds = (time.perf_counter() - began) * processes
    sampling.keep(folder, results, _settings(trainer, task, requests), spec)
    grids = sorted((folder / "grids").glob("step_*.png"))
    publishes_rows = bool(trainer.recipe.hub.examples)
    return spec.measure(
        Samples(
            results,
            requests,
            trainer.splits,
            task.encode,
            trainer.judges,
            trainer.skips,
            trainer.progress,
            grids,
            publishes_rows,
            seconds,
        )
    )


def generate(
    spec: GenerationSpec,
    model: Any,
    requests: Sequence[Request],
    *,
    size: int,
    rank: int = 0,
    processes: int = 1,
    tick: Callable[[int], None] = lambda n: None,
) -> list[Any]:
    """One result per request; every process gets all results. `size` are generated at a time.

    Raises RunError if memory runs out.
    """
    from accelerate.utils import gather_object

    from pipelines.utils.hardware import out_of_memory

    mine = list(range(rank, len(requests), processes))
    made: list[tuple[int, Any]] = []
    for start in range(0, len(mine), size):
        part = mine[start : start + size]
        try:
            results = spec.generate(model, [requests[number] for number in part])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            less = f"set train.eval_batch_size={size // 2}" if size > 1 else f"make smaller {spec.many}"
            what = f"{len(part)} {spec.many} at a time"
            raise RunError(f"out of memory while making {what}: {less}, and run again; nothing is lost") from None
        made += zip(part, results, strict=True)
        tick(len(part))
    if processes > 1:
        made = gather_object(made)
    return [result for _, result in sorted(made, key=lambda pair: pair[0])]


def keep(
    folder: Path,
    results: Sequence[Any],
    settings: Sequence[Mapping[str, Any]],
    spec: GenerationSpec,
    digits: int = 5,
) -> None:
    """Write the results as 00000.png and so on, each with its settings. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"*{spec.suffix}"):
            old.unlink()
        for number, (result, made) in enumerate(zip(results, settings, strict=True)):
            spec.write(result, folder / f"{number:0{digits}}{spec.suffix}", dict(made))
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written: {error.strerror or error}; free some room and run again"
        ) from None
