"""torchvision's video classifiers: their own names of weights, small ones, clips of other sizes, configurations."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import video as models
from torchvision.models.video import resnet

from pipelines.errors import ModelError
from pipelines.models import layers, video, video_torchvision
from pipelines.models.source import Weights
from tests.support.tiny_video_models import LABELS, R2PLUS1D, answers_of, batch, tiny


def built(config: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """On the meta device: shapes without numbers."""
    with torch.device("meta"):
        return video.build(Weights(None, {"model_type": "torchvision", **config}, True), LABELS, **options)


LAYERS = {  # stem, blocks and head; the merging of patches between the stages of Swin counts as a block
    **{"r3d_18": 10, "mc3_18": 10, "r2plus1d_18": 10, "s3d": 11},
    **{"mvit_v1_b": 18, "mvit_v2_s": 18, "swin3d_t": 17, "swin3d_s": 29, "swin3d_b": 29},
}
OFTEN = ("r2plus1d_18", "s3d")
EACH = [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.integration) for kind in LAYERS]


@pytest.mark.parametrize("kind", EACH)
def test_every_architecture_is_torchvisions(kind: str) -> None:
    model, family = built({"architecture": kind})
    with torch.device("meta"):
        expected = getattr(models, kind)(weights=None, num_classes=4).state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }
    found = family.layers(model)
    assert len(found) == LAYERS[kind]
    assert set(LAYERS) == set(video_torchvision.CLIPS)
    layers.freeze(model, found, 1)
    frozen = {id(p) for layer in found[:2] for p in layer.parameters()}
    assert {id(p) for p in model.parameters() if not p.requires_grad} >= frozen
    assert sum(p.shape.numel() for p in found[-1].parameters()) > 0


@pytest.mark.integration
def test_torchvisions_weights_are_read_with_its_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own: Any = models.mc3_18(weights=None, num_classes=3)
    save_file(own.state_dict(), tmp_path / "model.safetensors")
    config = {"model_type": "torchvision", "architecture": "mc3_18", "id2label": {"0": "run", "1": "up", "2": "left"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, family = video.build(Weights(tmp_path), ["left", "new", "run"])
    given = batch(family, 1)
    with torch.no_grad():
        expected = own.eval()(given["pixel_values"].transpose(1, 2))
    torch.testing.assert_close(answers_of(model, family, given)[:, [0, 2]], expected[:, [2, 0]], rtol=1e-4, atol=1e-5)
    assert model.about_head == "kept for 2 classes that the model knows by name, new for 'new'"
    assert torch.equal(answers_of(*video.load(tmp_path), given), expected) or torch.allclose(
        answers_of(*video.load(tmp_path), given), expected, atol=1e-5
    )


def test_a_small_one_is_torchvisions_with_other_sizes() -> None:
    """With 64 channels and two blocks a stage it is torchvision's own."""
    for kind in video_torchvision.RESNETS:
        with torch.device("meta"):
            small = video_torchvision.network({"architecture": kind, "width": 64, "layers": [2, 2, 2, 2]}, 5)
            own = getattr(models, kind)(weights=None, num_classes=5)
        assert {n: v.shape for n, v in small.state_dict().items()} == {n: v.shape for n, v in own.state_dict().items()}
        assert str(small).partition("\n")[2] == str(own).partition("\n")[2]
    model, family = tiny("r2plus1d")
    assert sum(p.numel() for p in model.parameters()) < 250_000
    assert answers_of(model, family, batch(family)).shape == (2, 4)


def test_convolutions_are_in_channels_last_memory() -> None:
    model, _ = tiny("r2plus1d")
    first = model.stem[0].weight  # type: ignore[union-attr, index]
    assert first.is_contiguous(memory_format=torch.channels_last_3d)
    assert isinstance(model, resnet.VideoResNet)
    assert not any(p.isnan().any() for p in model.parameters())


def test_s3d_learns_its_statistics_in_a_short_training() -> None:
    model, _ = built({"architecture": "s3d", "frames": 16})
    assert {part.momentum for part in model.modules() if isinstance(part, nn.BatchNorm3d)} == {0.1}


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({}, {}, "architecture: got None; for videos torchvision has r3d_18"),
        ({"architecture": "r3d_81"}, {}, r"got 'r3d_81': did you mean 'r3d_18'\? For videos torchvision has r3d_18"),
        ({"architecture": "s3d", "width": 8}, {}, r"model.config: s3d takes no width\. It takes crop_size"),
        ({"architecture": "s3d", "frame": 8}, {}, r"takes no frame: did you mean 'frames'\? It takes crop_size"),
        ({"architecture": "r3d_18", "dropout": 1}, {}, "takes no dropout.*It takes crop_size, frames, layers"),
        ({"architecture": "r3d_18", "width": 7}, {}, "width: got 7, must be a number of channels, divisible by 4"),
        ({"architecture": "r3d_18", "layers": [1, 1]}, {}, r"layers: got \[1, 1\], must be four numbers"),
        ({"architecture": "r3d_18", "std": [0, 1, 1]}, {}, "std: got .*three positive"),
        (
            {"architecture": "r3d_18", "rate": "fast"},
            {},
            "model.config: rate: got 'fast', must be a positive",
        ),
        (
            {"architecture": "r3d_18", "frames": 8192},
            {},
            "frames: got 8192, must be a number of frames from 1 to 4,096",
        ),
        ({"architecture": "r3d_18", "rate": 0}, {}, "rate: got 0, must be a positive number of frames per second"),
        ({"architecture": "r3d_18", "mean": [float("nan")] * 3}, {}, r"mean: got \[nan, nan, nan\], must be three"),
        ({"architecture": "r3d_18", "resize_size": [100]}, {}, r"resize_size: \[100\] is smaller than crop_size"),
        ({"architecture": "mvit_v2_s"}, {"frames": 8}, "takes 16 frames of 224 x 224 pixels only, got 8 of 224 x 224"),
        ({"architecture": "mvit_v1_b"}, {"image_size": 112}, "pixels only, got 16 of 112 x 112"),
        ({"architecture": "s3d"}, {"image_size": 112}, "s3d cannot take 128 frames of 112 x 112 pixels: give more"),
    ],
)
def test_what_does_not_fit_is_said(config: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        built(config, **options)


@pytest.mark.parametrize(("size", "resized"), [(None, [32, 32]), (64, [64, 64])])
def test_another_size_of_frames(size: int | None, resized: list[int]) -> None:
    _, family = built(R2PLUS1D, image_size=size)
    assert family.config["resize_size"] == resized
    _, family = built({"architecture": "r2plus1d_18"}, image_size=56)
    assert (family.config["resize_size"], family.size) == ([64, 86], (56, 56))


def test_numbers_of_a_file_are_named(tmp_path: Path) -> None:
    model, family = tiny("r2plus1d")
    family.save(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mean": [float("nan")] * 3}))
    with pytest.raises(ModelError, match=r"config\.json: mean: got \[nan, nan, nan\], must be three numbers"):
        video.load(tmp_path)
