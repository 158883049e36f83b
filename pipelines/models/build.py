"""The model of a recipe before its first step."""

from typing import Any

from pipelines.config.recipe import Recipe
from pipelines.data.schema import Splits
from pipelines.errors import ModelError
from pipelines.models import adapters, layers
from pipelines.models.source import Weights
from pipelines.utils import seeding


def build(recipe: Recipe, task: Any, weights: Weights, splits: Splits) -> Any:
    """The model of a recipe before its first step, frozen and adapted as it says; the same one every time."""
    import torch

    torch.manual_seed(seeding.seeded(recipe.train.seed, "build"))
    model = task.build(weights, splits)
    if recipe.train.gradient_checkpointing:
        layers.checkpoint_gradients(model)
    if recipe.hub.adapter and (weights.revision is None or weights.random):
        raise ModelError(
            f"hub.adapter: an adapter alone is of use with a base model of the hub, {weights.name} is none: leave it out, "
            "or set hub.adapter=false"
        )
    if recipe.model.adapter is not None:
        return adapters.add_adapter(model, task.layers(model)[-1] if task.phases[0].new_head else None, recipe.model.adapter)
    layers.freeze(model, task.layers(model), recipe.model.freeze)
    return model
