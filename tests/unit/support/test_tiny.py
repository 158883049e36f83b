"""The tiny models and photos that other tests use: small, real, determined by their seed, and learnable."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import tiny

MODELS = [tiny.vit, tiny.resnet, tiny.mobilenet, tiny.convnext, tiny.swin, tiny.timm_model, tiny.timm_wrapper]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_model_is_small_real_and_decided_by_its_seed(tmp_path: Path, make: Callable[..., Path]) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    before = torch.random.get_rng_state()
    folder = make(tmp_path / "one", size=48)
    assert torch.equal(before, torch.random.get_rng_state())
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 1_000_000
    weights = (folder / "model.safetensors").read_bytes()
    assert (make(tmp_path / "two", size=48) / "model.safetensors").read_bytes() == weights
    assert (make(tmp_path / "three", size=48, seed=1) / "model.safetensors").read_bytes() != weights

    if make is tiny.timm_model:  # transformers cannot read num_classes as timm writes it; it reads the hub's layout
        with pytest.raises(TypeError, match="num_classes"):
            AutoModelForImageClassification.from_pretrained(folder)
        folder = make(tmp_path / "hub", size=48, model_args=False)
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert tuple(model.config.id2label.values()) == tiny.LABELS
    batch = AutoImageProcessor.from_pretrained(folder)(
        [tiny.picture(i, 2, 60, np.random.default_rng(i)) for i in range(2)], return_tensors="pt"
    )
    assert batch["pixel_values"].shape == (2, 3, 48, 48)
    one, two = model.eval()(**batch).logits
    assert (one - two).abs().max() > 1e-5, "two pictures look the same to it"


def test_mobilenet_brings_the_dropout_that_the_real_ones_bring(tmp_path: Path) -> None:
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tiny.mobilenet(tmp_path)).classifier_dropout_prob == 0.8


def colour(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=float).mean((0, 1))


def test_photos_can_be_learned_and_are_not_trivial(tmp_path: Path) -> None:
    classes = ("cat", "dog", "owl")
    folder = tiny.photos(tmp_path, classes, n={"train": 20, "test": 20}, splits=("train", "test"))
    centres = [np.mean([colour(p) for p in sorted((folder / "train" / c).iterdir())], 0) for c in classes]
    right = [
        int(np.argmin([np.linalg.norm(colour(p) - centre) for centre in centres])) == label
        for label, c in enumerate(classes)
        for p in sorted((folder / "test" / c).iterdir())
    ]
    assert len(right) == 60
    assert np.mean(right) > 0.9
    names = {p.read_bytes() for p in folder.rglob("*.jpg")}
    assert len(names) == 120, "no two are the same file"


def test_photos_are_decided_by_their_seed_and_may_have_no_splits(tmp_path: Path) -> None:
    one = tiny.photos(tmp_path / "1", n=2, splits=())
    two = tiny.photos(tmp_path / "2", n=2, splits=())
    other = tiny.photos(tmp_path / "3", n=2, splits=(), seed=1)
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*.jpg"))
    assert names == ["cat/000.jpg", "cat/001.jpg", "dog/000.jpg", "dog/001.jpg"]
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in names)
    assert all((one / n).read_bytes() != (other / n).read_bytes() for n in names)


def test_a_dataset_repo_reads_as_the_hubs_do(tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = tiny.dataset_repo(tmp_path, ("cat", "dog"), n=3, columns={"image": "img", "label": "fine_label"})
    rows = load_dataset(str(folder))
    assert {name: len(split) for name, split in rows.items()} == {"train": 6, "test": 6}
    assert rows["train"].features["fine_label"].names == ["cat", "dog"]
    assert rows["train"][0]["img"].size == (40, 40)
