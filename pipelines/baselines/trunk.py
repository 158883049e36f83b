"""The outputs of the run's pretrained trunk, as the run found it: frozen, before any fine-tuning.

k nearest neighbours on them say how much the pretraining alone is worth on these data.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.baselines.features import FeatureSet, Unreadable
from pipelines.config.recipe import Recipe, task_class
from pipelines.data import batching
from pipelines.data.schema import Splits
from pipelines.errors import DataError, ModelError
from pipelines.evaluation import scoring
from pipelines.hub import places
from pipelines.models import source
from pipelines.models.build import build
from pipelines.task import Record, Task
from pipelines.utils import hardware

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn

LEARNERS = ("nearest_neighbours",)
UNTRAINED = (places.TORCHVISION, places.LIBREYOLO, places.SMP, places.VIDEO_FEATURES)  # names of architectures


def feature_set(recipe: Recipe, splits: Splits, revision: str | None) -> FeatureSet:
    """The features of the model that the run of this recipe started from, which is built when they are first read.

    `revision` is the commit of a hub model that the run found, from its results; None for a folder. Raises ModelError
    if the run started from random weights, or if the model is no longer there; HubError.
    """
    section = recipe.model
    if section.id is not None and section.weights != "random" and not section.id.startswith(UNTRAINED):
        local = source.local_model(section.id) is not None
        if local and revision is not None:
            raise ModelError(f"the run started from {section.id} of the hub, and a folder has this name now")
        if not local and revision is None:
            raise ModelError(f"the folder that the run started from is gone: {section.id}")
        section = section.model_copy(update={"revision": revision})
    weights = source.resolve(section)
    if weights.scratch:
        raise ModelError("the run started from random weights, so there is no pretrained trunk")
    task = task_class(recipe.task)(recipe.options)
    plain = recipe.model_copy(
        update={
            "model": section.model_copy(update={"adapter": None, "freeze": "none"}),
            "train": recipe.train.model_copy(update={"gradient_checkpointing": False}),
            "hub": recipe.hub.model_copy(update={"adapter": False}),
        }
    )
    name = weights.title.rsplit("/", 1)[-1].removesuffix(" (local folder)")
    # a run does not record what a folder held, or which commit the encoder of a new model had
    read = f"revision {weights.revision[:12]}" if weights.revision else "as it is now"
    return FeatureSet(
        f"features of {name}",
        _Trunk(plain, task, weights, splits),
        _steps,
        LEARNERS,
        learned=True,
        about=f"What the pretrained trunk of {weights.title} ({read}) gives to its head, before fine-tuning, scaled to "
        "a length of 1.",
    )


class _Trunk:
    """Rows -> their features. The model is built for the first rows, so that it stands beside no other learner."""

    def __init__(self, recipe: Recipe, task: Task, weights: source.Weights, splits: Splits) -> None:
        self.about = recipe, task, weights, splits
        self.model: nn.Module | None = None

    def __call__(self, rows: "Dataset") -> np.ndarray:
        recipe, task, weights, splits = self.about
        if self.model is None:
            with _silent():  # the run itself said what there is to say about its model
                self.model = build(recipe, task, weights, splits).eval().requires_grad_(False)
        return outputs(task, self.model, rows)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    log = logging.getLogger("graft")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _steps(seed: int) -> list[tuple[str, Any]]:
    from sklearn.preprocessing import Normalizer

    return [("length", Normalizer())]  # Euclidean distances of vectors of length 1 order rows as cosines do


def outputs(task: Task, model: "nn.Module", rows: "Dataset") -> np.ndarray:
    """What the head of the model gets for each row: float32 [rows, numbers], the mean over positions and clips.

    Raises Unreadable.
    """
    accelerator = hardware.accelerator("fp32")
    examples = batching.Examples(task, task.encode(rows))
    model.to(accelerator.device)
    unreadable: dict[int, str] = {}
    with _Head(task, model) as head:
        found = scoring.predict_split(
            head,  # type: ignore[arg-type]  # it has what predict_split reads of a task
            model,
            examples,
            accelerator,
            batch_size=hardware.eval_batch("auto", accelerator.device.type, examples.lengths is not None),
            workers=hardware.workers("auto", 1, examples),
            skips=_Unreadable(unreadable),  # type: ignore[arg-type]
        )
    if unreadable:
        raise Unreadable(unreadable)
    size = len(found[0]["features"])
    total, count = np.zeros((len(rows), size)), np.zeros((len(rows), 1))
    for record in found:
        total[record["row"]] += record["features"]
        count[record["row"]] += 1
    if not count.all():
        raise DataError(f"{rows[int(count.argmin())]['id']}: the pretrained trunk gives nothing for it")
    return np.asarray(total / count, dtype=np.float32)


class _Unreadable:
    """Collects the rows that cannot be read, in place of pipelines.data.filtering.Skips, which ends the work."""

    def __init__(self, rows: dict[int, str]) -> None:
        self.rows = rows

    def add(self, split: str, skipped: "list[tuple[str, str]]") -> None:
        self.rows |= {int(place): why for place, why in skipped}


class _Head:
    """Records with the inputs of a model's head, in place of a task's records of its answers."""

    def __init__(self, task: Task, model: "nn.Module") -> None:
        from torch import nn

        self.task = task
        self.seen: list[Tensor] = []
        head = task.layers(model)[-1]
        # of a head with several parts, the first one that is called gets the trunk's output
        parts = list(head) if isinstance(head, nn.ModuleList) else [head]
        self.hooks = [part.register_forward_pre_hook(self._see, with_kwargs=True) for part in parts]

    def __enter__(self) -> "_Head":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _see(self, module: "nn.Module", inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        import torch

        tensor = next(one for one in (*inputs, *named.values()) if isinstance(one, torch.Tensor))
        self.seen.append(tensor.detach())

    def predict(self, model: "nn.Module", batch: dict[str, Any]) -> list[Record]:
        self.seen.clear()
        self.task.predict(model, batch)
        pooled = _pooled(self.seen[0], batch.get("attention_mask")).float().cpu().numpy()
        return [
            {"id": id_, "row": row, "features": one}
            for id_, row, one in zip(batch["id"], batch["row"], pooled, strict=True)
        ]


def _pooled(tensor: "Tensor", mask: "Tensor | None") -> "Tensor":
    """[batch, numbers] from [batch, numbers], [batch, positions, numbers] or [batch, channels, height, width, ...].

    `mask` [batch, positions] says which positions are no padding.
    """
    if tensor.ndim == 2:
        return tensor
    if tensor.ndim > 3:
        return tensor.flatten(2).mean(2)
    if mask is not None and mask.shape == tensor.shape[:2]:
        weights = mask.unsqueeze(-1).to(tensor.dtype)
        return (tensor * weights).sum(1) / weights.sum(1).clamp(min=1)
    return tensor.mean(1)
