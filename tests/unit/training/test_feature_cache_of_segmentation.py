"""A frozen encoder whose features cross the cut at several places (U-Net, SegFormer) is recorded once."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.models import layers
from pipelines.training.feature_cache import planner
from pipelines.training.feature_cache.hooks import Edge
from tests.support.tiny_segmenters import made_up, tiny


class Examples:
    """Four examples of one size."""

    lengths = None

    def __init__(self) -> None:
        self.values = made_up(4)

    def __len__(self) -> int:
        return 4

    def drawn(self, *given: Any) -> set[str]:
        return set()

    def __getitem__(self, asked: Sequence[tuple[Any, int]]) -> Any:
        places = [index for _, index in asked]
        batch: dict[str, Any] = {name: value[places] for name, value in self.values.items()}
        return SimpleNamespace(batch=batch | {"id": [str(place) for place in places]}, skipped=[])


class Segmenting:
    """What the planner asks of a task."""

    phases = (SimpleNamespace(name="train"),)

    def __init__(self, family: Any) -> None:
        self.family = family

    def counts(self, batch: Any) -> Any:
        return self.family.counts(batch)

    def loss(self, model: Any, batch: Any, counts: Any, phase: str, step: int) -> Any:
        return self.family.loss(model, batch, counts, step)

    def predict(self, model: Any, batch: Any) -> list[Any]:
        return [one.tolist() for one in self.family.scores(model, batch["pixel_values"])[:, :, ::16, ::16]]


TENSORS = {"segformer": 4, "upernet": 5, "dpt": 4, "deeplab": 1, "lraspp": 2, "deeplabv3": 2, "unet": 5, "fpn": 4}


@pytest.mark.parametrize("kind", TENSORS)
def test_the_cut_is_before_the_decoder(kind: str) -> None:
    model, family = tiny(kind)
    layers.freeze(model, family.layers(model), "backbone")
    layers.train_mode(model)
    edge = Edge(model)
    examples: Any = Examples()
    task: Any = Segmenting(family)
    with edge.attached():
        plan = planner.find(task, model, edge, examples, torch.device("cpu"))
    assert plan is not None
    assert len(plan.spots) == TENSORS[kind]
    assert "pixel_values" in plan.absent
    assert not any(name.startswith(("encoder", "backbone", "segformer")) for name, _, _ in plan.spots)
