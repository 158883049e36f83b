"""Build a recipe's model before the first training step."""

from typing import Any

from pipelines.config.recipe import Recipe
from pipelines.data.schema import Splits
from pipelines.errors import ModelError
from pipelines.models import adapters, layers
from pipelines.models.source import Weights
from pipelines.utils import seeding

SMALL = {"FlowSpeechForTextToSpeech": "flow_speech", "WaveNet": "wavenet"}  # networks of Graft by class: model_type


def build(recipe: Recipe, task: Any, weights: Weights, splits: Splits) -> Any:
    """The recipe's model before the first step, frozen and with its adapter. It depends on the recipe's seed only.

    Raises ModelError if `hub.adapter` is set and there is no base model on the hub, or if the model takes no adapter.
    """
    import torch

    from pipelines.models.classics import Classic

    torch.manual_seed(seeding.seeded(recipe.train.seed, "build"))
    model = task.build(weights, splits)
    if recipe.train.gradient_checkpointing:
        layers.checkpoint_gradients(model)
    if recipe.hub.adapter and not task.hub.adapter_alone:
        raise ModelError(
            f"hub.adapter: an adapter alone is no model of {task.name}, which has voices beside its weights: set "
            "hub.adapter=false, and the adapter is merged into the model"
        )
    if recipe.hub.adapter and (weights.revision is None or weights.random):
        raise ModelError(
            f"hub.adapter: an adapter alone is of use with a base model of the hub, {weights.name} is none: "
            "leave it out, or set hub.adapter=false"
        )
    found = task.layers(model)
    frozen = layers.how_frozen(found, recipe.model.freeze, pretrained=not weights.random)
    small = model.model_type if isinstance(model, Classic) else SMALL.get(type(model).__name__)
    if recipe.model.adapter is not None and small is not None:
        raise ModelError(
            f"model.adapter: a {small} is a small network, and its card has no code for LoRA: "
            "leave adapter out, all its weights are trained"
        )
    if any(phase.scored_from for phase in task.phases) and (frozen != "none" or recipe.train.head_epochs):
        raise ModelError("options.pretrain trains every layer: leave out model.freeze and train.head_epochs")
    if frozen != "none" and isinstance(model, Classic) and weights.random:
        raise ModelError(
            f"model.freeze={frozen}: this {model.model_type} starts from random weights, and what is frozen would stay "
            "random: set model.freeze=none"
        )
    if recipe.model.adapter is not None:
        layers.freeze(model, found, frozen)
        return adapters.add_adapter(model, found[-1] if task.phases[0].new_head else None, recipe.model.adapter)
    layers.freeze(model, found, frozen)
    return model


def settled(recipe: Recipe, task: Any, model: Any, weights: Weights) -> Recipe:
    """The recipe with the values that the model determines: `model.freeze=auto`, and the task's options."""
    freeze = layers.how_frozen(layers.of_model(task, model), recipe.model.freeze, pretrained=not weights.random)
    return recipe.model_copy(
        update={"options": task.options, "model": recipe.model.model_copy(update={"freeze": freeze})}
    )
