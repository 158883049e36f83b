"""The best checkpoint as a model folder."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config.recipe import Recipe, task_class
from pipelines.errors import RunError
from pipelines.models import adapters, layers
from pipelines.models.build import build
from pipelines.models.source import Weights
from pipelines.publishing import privacy
from pipelines.task import Task
from pipelines.training import checkpoint, sharded_export
from pipelines.training.trainer import Trainer
from pipelines.utils import distributed, shares


def export_best(trainer: Trainer) -> None:
    """Write `model/`. Every process must call this."""
    fresh = task_class(trainer.recipe.task)(trainer.recipe.options)
    if trainer.sharded and fresh.generation is None:
        with shares.placeholders():
            model = build(trainer.recipe, fresh, trainer.weights, trainer.splits)
        if export_sharded(trainer, fresh, model):
            return
        del model
    if trainer.accelerator.is_main_process:
        model = build(trainer.recipe, fresh, trainer.weights, trainer.splits)
        export(fresh, model, trainer.root, trainer.folder, trainer.recipe, trainer.weights)


def export(task: Task, model: Any, checkpoints: Path, folder: Path, recipe: Recipe, weights: Weights) -> None:
    """Write the weights of the best checkpoint to `model/`, as a complete folder or not at all.

    `model` is freshly built from the source weights. An adapter is merged into it unless the recipe publishes the
    adapter alone (`hub.adapter`). Raises RunError if the checkpoint cannot be read or the folder cannot be written.
    """
    best = _best(checkpoints, folder)
    checkpoint.load_weights(model, best, average=bool(recipe.train.ema))
    task.state.update(checkpoint.read_state(best).task)
    with _written(folder) as temporary:
        if recipe.model.adapter is not None and recipe.hub.adapter:
            adapters.FORMATS[task.hub.adapter_format].save(task, model, temporary, weights.name, weights.revision)
        else:
            task.save(model.merge_and_unload() if recipe.model.adapter is not None else model, temporary)
        _put_in_place(folder, temporary)


def export_sharded(trainer: Trainer, task: Task, model: Any) -> bool:
    """Do the same with the share of each process, one tensor at a time. Every process must call this.

    Returns False, and writes nothing, if the model cannot be written in this way: an adapter alone, which is small, or
    a model of another library.
    """
    recipe, folder = trainer.recipe, trainer.folder
    if recipe.model.adapter is not None and recipe.hub.adapter:
        return False
    distributed.shard(model, layers.of_model(task, model)[1:-1], trainer.accelerator)
    found = sharded_export.entries(model)
    if found is None:
        return False
    best = _best(trainer.root, folder)
    checkpoint.load_weights(model, best, average=bool(recipe.train.ema))
    task.state.update(checkpoint.read_state(best).task)
    base = model.get_base_model() if recipe.model.adapter is not None else model

    def begin() -> None:
        with _written(folder) as temporary, sharded_export.without_weights(base):
            task.save(base, temporary)

    distributed.decided(begin)
    with _written(folder, goes_on=True) as temporary:
        sharded_export.write(found, temporary)
        distributed.decided(lambda: _put_in_place(folder, temporary))
    return True


def _best(checkpoints: Path, folder: Path) -> Path:
    best = checkpoint.marked(checkpoints, "best") or checkpoint.marked(checkpoints, "last")
    if best is None:
        raise RunError(f"{folder}: no complete checkpoint to export")
    return best


@contextlib.contextmanager
def _written(folder: Path, *, goes_on: bool = False) -> Iterator[Path]:
    """The folder in which `model/` is written: empty, or with what was written so far (`goes_on`).

    Raises RunError in place of an error of the disk.
    """
    from safetensors import SafetensorError

    temporary = folder / ".model.new"
    try:
        if not goes_on:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        yield temporary
    except (OSError, SafetensorError) as error:  # safetensors wraps the error of the disk
        shutil.rmtree(temporary, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(
            f"{folder / 'model'}: cannot be written: {why}; the checkpoints are whole: free some room and run again"
        ) from None


def _put_in_place(folder: Path, temporary: Path) -> None:
    target = folder / "model"
    shutil.rmtree(target, ignore_errors=True)
    privacy.list_export(folder, temporary)
    temporary.rename(target)
