"""Segmentation with a frozen encoder: features are cached once, and the run is that without a cache."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.recipe import validate
from pipelines.training.feature_cache import store
from pipelines.training.run import train
from tests.support import tiny_masks, tiny_segmenters
from tests.support.runs import losses, without_pictures


def trained(folder: Path, data: Path, kind: str, room: float, **options: Any) -> tuple[list[float], list[str]]:
    """The losses of a run with the encoder frozen, and its predictions of the validation split."""
    raw = {
        "task": "image-segmentation",
        "model": {"config": tiny_segmenters.KINDS[kind], "freeze": "backbone"},
        "data": {"id": str(data), "workers": 0, "cache_gb": room},
        "options": {"augment": "none", **options},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32", "log_every": 1},
    }
    raw["train"]["baseline"] = False
    with without_pictures():
        train(validate(raw), folder, name="small")
    return losses(folder), (folder / "predictions/validation.jsonl").read_text().splitlines()


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    found: list[Any] = []
    real = store.record
    monkeypatch.setattr(store, "record", lambda *a, **k: found.append(real(*a, **k)) or found[-1])
    return found


@pytest.mark.parametrize("kind", ["segformer", "unet"])
def test_cached_equals_uncached(kind: str, tmp_path: Path, seen: list[Any]) -> None:
    data = tiny_masks.shapes(tmp_path / "shapes", n=18)
    found = [trained(tmp_path / f"run{room}", data, kind, room, image_size=64) for room in (0, 1)]
    assert [cached is not None for cached in seen] == [True, True]
    assert seen[0].plan.unread == ["true"], "an epoch opens no image"
    assert not seen[0].plan.anew
    assert seen[1].plan.anew == ["true"], "the validation split is scored at its own size"
    assert found[1][0] == pytest.approx(found[0][0], abs=2e-4)
    assert len(found[0][0]) >= 6


def test_images_of_several_sizes_are_not_cached(tmp_path: Path, seen: list[Any]) -> None:
    data = tiny_masks.shapes(tmp_path / "shapes", n=18)
    for path in sorted((data / "images/train").iterdir())[6:]:
        for kind in ("images", "masks"):
            with Image.open(data / kind / "train" / path.name) as image:
                smaller = image.crop((0, 0, 40, 30))
            smaller.save(data / kind / "train" / path.name)
    found, _ = trained(tmp_path / "run", data, "segformer", 1, resize="none")
    assert seen == []
    assert len(found) >= 6
