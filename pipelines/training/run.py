"""One run from top to bottom: recipe -> weights and data -> stages of training -> model, scores, pictures, card.

No logic of its own: every line hands one module's result to the next.
"""

from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe, task_class
from pipelines.data import trained_rows
from pipelines.data.loading import load_splits
from pipelines.evaluation import extra_metrics
from pipelines.metrics import modules
from pipelines.models.build import build, settled
from pipelines.models.source import resolve
from pipelines.publishing import card
from pipelines.training import finalize, run_folder, run_log, signals
from pipelines.training.trainer import Trainer
from pipelines.utils import distributed, library_logging
from pipelines.utils.progress import Progress


def train(recipe: Recipe, folder: str | Path, *, name: str | None = None, smoke: bool = False) -> dict[str, Any] | None:
    """Run a recipe in `folder`, or go on where it stopped. Returns the results; None when the user stopped it.

    `name` is the recipe's, for card and report; left out, the folder's. `smoke` takes 8 rows a split.
    Raises GraftErrors; what was saved before is whole.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    folder = Path(folder)
    processes = distributed.processes()
    progress = Progress(processes.is_main_process)
    library_logging.quiet_libraries(progress)
    with processes.main_process_first():
        metrics = modules.load(recipe.metrics)
    extra_metrics.refuse_if_generating(metrics, task_class(recipe.task)(recipe.options))
    outcome = run_folder.claim(folder, recipe)
    if outcome is not None and extra_metrics.outdated(outcome, metrics) and processes.is_main_process:
        progress.say(f"{folder} is finished; its predictions are scored by the metrics that the recipe lists now")
        outcome = extra_metrics.score_again(folder, run_folder.absolute_paths(recipe), metrics, progress.say)
    if outcome is not None:
        if processes.is_main_process and run_folder.other_hub(folder, recipe):
            card.publish_as(folder, recipe)
            progress.say(f"{folder} is finished; its card and what may be published follow the new hub section")
            return outcome
        key = "epochs" if recipe.train.epochs is not None else "max_steps"
        progress.say(f"{folder} is finished; for more, raise train.{key}, or choose another folder with --run")
        return outcome if processes.is_main_process else {}
    with run_folder.alone(folder, processes.is_main_process):
        recipe = run_folder.pinned(folder, recipe)
        with processes.main_process_first():
            weights = resolve(recipe.model)
            task = task_class(recipe.task)(recipe.options)
            splits = load_splits(recipe.data, task.data, trained_rows.of(weights))
        splits = splits.smoke() if smoke else splits
        model = build(recipe, task, weights, splits)
        recipe = settled(recipe, task, model, weights)
        recipe = run_folder.resolve(folder, recipe, model, weights, splits, main=processes.is_main_process)
        processes.wait_for_everyone()
        AcceleratorState._reset_state()  # one Python process may make several runs, each with a precision of its own
        accelerator = Accelerator(
            mixed_precision="bf16" if recipe.train.precision == "bf16" else "no",
            log_with=run_log.trackers(recipe),
            project_dir=folder,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True)
            ],  # DINOv2 has one that no classification uses
        )
        trainer = Trainer(
            recipe, folder, name or folder.name, task, model, weights, splits, accelerator, progress, metrics
        )
        with signals.stop_on_signals() as stopping:
            state = trainer.train(stopping)
        if state.stopped == "signal":
            progress.say(
                f"stopped at step {state.previous_steps + state.step} and saved; the same command goes on from there"
            )
            accelerator.end_training()
            return None
        del model, task
        return finalize.finish(trainer, state)
