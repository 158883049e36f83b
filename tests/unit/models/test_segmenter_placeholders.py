"""A segmenter of placeholders, once they are filled, is the one that a single process reads: no weight is lost, and the
same batch norms are fixed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.models import detection, segmentation
from pipelines.models.source import Weights
from pipelines.utils import shares
from tests.support import tiny_queries, tiny_segmenters
from tests.support.runs import one_thread  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]
LABELS = ["sky", "road", "tree"]
OTHERS = ["tree", "car", "sky", "dog"]
KINDS = {**tiny_segmenters.KINDS, **tiny_queries.CONFIGS}


def differences(one: Any, other: Any) -> list[str]:
    """The names of weights and buffers that are not equal."""
    own, its = one.state_dict(), other.state_dict()
    assert own.keys() == its.keys()
    return [name for name, value in own.items() if value.shape != its[name].shape or not torch.equal(value, its[name])]


def fixed(model: Any) -> list[str]:
    return [name for name, part in model.named_modules() if getattr(part, "fixed_statistics", False)]


@pytest.mark.parametrize(
    ("kind", "labels", "side"),
    [
        *((kind, labels, 64) for kind in KINDS for labels in (LABELS, OTHERS)),
        *((kind, LABELS, 128) for kind in ("eomt", "eomt_dinov3")),  # its position embeddings are resized
    ],
)
def test_every_kind_of_image_segmentation(kind: str, labels: list[str], side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fresh, family = segmentation.build(Weights(None, KINDS[kind], True, name=kind), LABELS, image_size=64)
    tmp_path.joinpath("model").mkdir()
    family.save(fresh, tmp_path / "model")
    models = []
    for asked in (False, True):
        torch.manual_seed(1)
        with shares.placeholders(asked):
            models.append(segmentation.build(Weights(tmp_path / "model"), labels, image_size=side)[0])
    plain, built = models
    assert fixed(built) == fixed(plain)
    if kind in (*tiny_segmenters.OF_TRANSFORMERS, *tiny_queries.CONFIGS):
        assert shares.any_in(built)
    shares.fill(built)
    assert differences(plain, built) == []


@pytest.mark.parametrize("kind", tiny_queries.CONFIGS)
def test_every_kind_of_instance_segmentation(kind: str, tmp_path: Path) -> None:
    folder = tiny_queries.segmenter(tmp_path / "model", kind, LABELS)
    models = []
    for asked in (False, True):
        torch.manual_seed(1)
        with shares.placeholders(asked):
            models.append(detection.build(Weights(folder), OTHERS, 64, masks=True)[0])
    plain, built = models
    held = sum(value.numel() for value in built.parameters() if shares.stored(value) is None)
    assert held < 0.5 * sum(value.numel() for value in plain.parameters())
    shares.fill(built)
    assert differences(plain, built) == []
