"""The best checkpoint as a model folder."""

import shutil
from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe, task_class
from pipelines.errors import RunError
from pipelines.models import adapters
from pipelines.models.build import build
from pipelines.models.source import Weights
from pipelines.publishing import privacy
from pipelines.task import Task
from pipelines.training import checkpoint
from pipelines.training.trainer import Trainer


def export_best(trainer: Trainer) -> None:
    fresh = task_class(trainer.recipe.task)(trainer.recipe.options)
    export(
        fresh,
        build(trainer.recipe, fresh, trainer.weights, trainer.splits),
        trainer.root,
        trainer.folder,
        trainer.recipe,
        trainer.weights,
    )


def export(task: Task, model: Any, checkpoints: Path, folder: Path, recipe: Recipe, weights: Weights) -> None:
    """Write the weights of the best checkpoint to `model/`, as a complete folder or not at all.

    `model` is freshly built from the source weights. An adapter is merged into it unless the recipe publishes the
    adapter alone (`hub.adapter`). Raises RunError if the checkpoint cannot be read or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    best = checkpoint.marked(checkpoints, "best") or checkpoint.marked(checkpoints, "last")
    if best is None:
        raise RunError(f"{folder}: no whole checkpoint to export")
    try:
        values = load_file(best / "model.safetensors")
        if recipe.train.ema and (best / "ema.safetensors").is_file():
            values |= load_file(best / "ema.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{best}: the checkpoint cannot be read ({error}); remove the folder to go on from an earlier one"
        ) from None
    checkpoint.load_weights(model, values)
    task.state.update(checkpoint.read_state(best).task)
    target, temporary = folder / "model", folder / ".model.new"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        if recipe.model.adapter is not None and recipe.hub.adapter:
            adapters.FORMATS[task.hub.adapter_format].save(task, model, temporary, weights.name, weights.revision)
        else:
            task.save(model.merge_and_unload() if recipe.model.adapter is not None else model, temporary)
        shutil.rmtree(target, ignore_errors=True)
        privacy.list_export(folder, temporary)
        temporary.rename(target)
    except (OSError, SafetensorError) as error:  # safetensors wraps the error of the disk
        shutil.rmtree(temporary, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(
            f"{target}: cannot be written: {why}; the checkpoints are whole: free some room and run again"
        ) from None
