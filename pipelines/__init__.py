"""Graft: fine-tune pretrained models of the hub on your own data, with one recipe format and one training loop.

import pipelines

recipe = pipelines.load_recipe("beans_vit_base", ["train.epochs=1"])
pipelines.train(recipe, "runs/beans")
pipelines.predict("runs/beans", "leaves/", out="leaves.csv")
"""

import os
from typing import TYPE_CHECKING, Any

# onnxruntime reports to its vendor from the moment it is imported, and diffusers imports it wherever it is installed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from pipelines.baselines.baseline import baseline as baseline
    from pipelines.config.recipe import Recipe, load_recipe
    from pipelines.data.loading import load_splits as load_splits
    from pipelines.diagnostics.check import check as check
    from pipelines.errors import DataError, GraftError, HubError, ModelError, RecipeError, RunError
    from pipelines.evaluation.compare import compare as compare
    from pipelines.evaluation.evaluate import evaluate as evaluate
    from pipelines.inference.loading import load as load
    from pipelines.inference.predict import predict as predict
    from pipelines.metrics.as_evaluate import as_evaluate
    from pipelines.publishing.publish import publish as publish
    from pipelines.reporting.runs import runs as runs
    from pipelines.task import Task
    from pipelines.training.run import train as train

# public name -> module; imported at first use, so that `import pipelines` is fast
_PUBLIC = {
    "DataError": "errors",
    "GraftError": "errors",
    "HubError": "errors",
    "ModelError": "errors",
    "Recipe": "config.recipe",
    "RecipeError": "errors",
    "RunError": "errors",
    "Task": "task",
    "as_evaluate": "metrics.as_evaluate",
    "baseline": "baselines.baseline",
    "check": "diagnostics.check",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "load": "inference.loading",
    "load_recipe": "config.recipe",
    "load_splits": "data.loading",
    "predict": "inference.predict",
    "publish": "publishing.publish",
    "runs": "reporting.runs",
    "train": "training.run",
}

__all__ = [
    "DataError",
    "GraftError",
    "HubError",
    "ModelError",
    "Recipe",
    "RecipeError",
    "RunError",
    "Task",
    "as_evaluate",
    "baseline",
    "check",
    "compare",
    "evaluate",
    "load",
    "load_recipe",
    "load_splits",
    "predict",
    "publish",
    "runs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"pipelines.{_PUBLIC[name]}"), name)
