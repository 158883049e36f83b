"""One run of `graft train`: from the recipe to the trained model, its scores, its report and its card.

The numbered comments in `train` are the order of work. Each step is the work of another module.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe, task_class
from pipelines.data import trained_rows
from pipelines.data.loading import load_splits
from pipelines.evaluation import extra_metrics
from pipelines.metrics import modules
from pipelines.metrics.modules import Module
from pipelines.models.build import build, settled
from pipelines.models.source import resolve
from pipelines.publishing import card
from pipelines.training import finalize, run_folder, run_log, signals
from pipelines.training.trainer import Trainer
from pipelines.utils import distributed, hardware, library_logging, shares
from pipelines.utils.progress import Progress


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    name: str | None = None,
    smoke: bool = False,
    quiet: bool = False,
    began: float | None = None,
) -> dict[str, Any] | None:
    """Run a recipe in `folder`, or resume the run that stopped there.

    The run has the name of its folder. `name` is the recipe's name, if it is another. With `smoke`, each split has 8
    rows. With `quiet`, only bars and warnings are printed. `began` is the time.time() from which the run counts its
    wall time; without it, it counts from this call.

    Returns the content of results.json on the main process and an empty dictionary on the others; None if a signal
    stopped the run. Raises GraftErrors; checkpoints that were saved before the error stay usable.
    """
    from accelerate import DistributedDataParallelKwargs

    began = time.time() if began is None else began
    folder = Path(folder)
    processes = distributed.processes()
    main = processes.is_main_process
    progress = Progress(main, quiet)
    library_logging.quiet_libraries(progress)

    # 1. Load the metrics that the recipe lists, so that a metric that does not work fails before anything else.
    with processes.main_process_first():
        metrics = modules.load(recipe.metrics)
    extra_metrics.refuse_if_generating(metrics, task_class(recipe.task)(recipe.options))

    # 2. Claim the run folder. A folder that holds another run is refused; a finished run is not trained again.
    with run_folder.claimed(folder, recipe) as outcome:
        if outcome is not None:
            return _update_finished(recipe, folder, outcome, metrics, progress)

        # 3. Pin the revisions and the precision that the run resolved when it started.
        recipe = run_folder.pinned(folder, recipe)

        # 4. Download the weights and the data; the main process first, the others read its copies.
        with processes.main_process_first():
            weights = resolve(recipe.model)
            task = task_class(recipe.task)(recipe.options)
            splits = load_splits(recipe.data, task.data, trained_rows.of(weights))
        splits = splits.smoke() if smoke else splits

        # 5. Build the model. Write recipe.yaml with everything that was `auto` or left out.
        with shares.placeholders(distributed.sharding()):
            model = build(recipe, task, weights, splits)
        recipe = settled(recipe, task, model, weights)
        recipe = run_folder.resolve(folder, recipe, model, weights, splits, main=main)
        processes.wait_for_everyone()

        # 6. Set up precision and processes.
        # DINOv2 has a parameter that classification does not use.
        distributed_options = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = hardware.accelerator(
            recipe.train.precision,
            log_with=run_log.trackers(recipe),
            project_dir=folder,
            kwargs_handlers=[distributed_options],
        )
        if hardware.set_tf32(recipe.train.tf32, recipe.train.precision):
            progress.say("products in fp32 use TF32; train.tf32=false computes them in full precision")

        # 7. Encode the examples; report what the run will do, and which settings have no effect.
        trainer = Trainer(
            recipe,
            folder,
            name or folder.resolve().name,
            task,
            model,
            weights,
            splits,
            accelerator,
            progress,
            metrics,
            began,
        )

        # 8. Score the model before training, then train: first the head alone if the recipe asks for it, then the rest.
        del model, task  # the trainer drops its own, so the memory is free before the exported model is loaded
        with _live(trainer):
            with signals.stop_on_signals() as stopping:
                state = trainer.train(stopping)

            # 9. After a signal, stop here: the checkpoint is saved, and the same command resumes the run.
            if state.stopped == "signal":
                step = state.previous_steps + state.step
                trainer.live.end("stopped", step)
                progress.warn(f"stopped at step {step} and saved; the same command goes on from there")
                accelerator.end_training()
                return None

            # 10. Export the best checkpoint, score the exported model, write the results, the figures, the report and
            # the card.
            trainer.live.begin("scoring", step=state.previous_steps + state.step)
            return finalize.finish(trainer, state)


@contextlib.contextmanager
def _live(trainer: Trainer) -> Iterator[None]:
    """If the run fails inside the block, its report says why."""
    try:
        yield
    except KeyboardInterrupt:  # the second signal: the step is not saved
        trainer.live.end("stopped", why="It did not wait for the end of the step, so the last checkpoint is older.")
        raise
    except Exception as error:
        trainer.live.end("failed", why=str(error) or type(error).__name__)
        raise


def _update_finished(
    recipe: Recipe, folder: Path, outcome: dict[str, Any], metrics: list[Module], progress: Progress
) -> dict[str, Any]:
    """Bring a finished run up to date with its recipe: other metrics and another `hub` section need no training.

    Returns what `train` returns.
    """
    main = distributed.processes().is_main_process
    if main and extra_metrics.outdated(folder, outcome, metrics):
        progress.say(f"{folder} is finished; its predictions are scored by the metrics that the recipe lists now")
        with run_folder.alone(folder):
            outcome = extra_metrics.score_again(folder, run_folder.absolute_paths(recipe), metrics, progress.say)
    if main and run_folder.other_hub(folder, recipe):
        card.publish_as(folder, recipe)
        progress.say(f"{folder} is finished; its card and what may be published follow the new hub section")
        return outcome
    key = "epochs" if recipe.train.epochs is not None else "max_steps"
    progress.say(f"{folder} is finished; for more, raise train.{key}, or choose another folder with --run")
    return outcome if main else {}
